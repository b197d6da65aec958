//! Constants, and operators that do nothing here.

use super::Importer;
use super::attributes::Call;
use super::ops::Table;
use super::problem::{Result, problem};
use super::value::Value;
use crate::file::Constant;

pub(super) const OPS: Table = &[("Constant", constant), ("Identity", identity), ("Dropout", dropout)];

fn constant(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let constant = if let Some(tensor) = call.tensor("value") {
        importer.file.constant(tensor)?
    } else if call.has("value_float") {
        Constant::of_floats(&[], &[call.float("value_float", 0.0)])?
    } else if call.has("value_int") {
        Constant::of_integers(&[], &[call.int("value_int", 0)])?
    } else if let Some(values) = call.floats("value_floats").filter(|_| call.has("value_floats")) {
        Constant::of_floats(&[values.len()], values)?
    } else if let Some(values) = call.ints("value_ints").filter(|_| call.has("value_ints")) {
        Constant::of_integers(&[values.len()], values)?
    } else {
        return Err(problem("a constant that is no tensor of numbers"));
    };
    Ok(vec![constant.named(Some(importer.name.as_str().into())).into()])
}

fn identity(_: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    Ok(vec![call.operand(0)?.clone()])
}

/// Without training nothing is dropped.
fn dropout(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?.clone();
    if let Some(training) = call.optional(2)
        && importer.integers(training)?.first() == Some(&1)
    {
        return Err(problem("it is exported for training; export the model for inference"));
    }
    let mut results = vec![x.clone()];
    if call.results > 1 {
        let shape = importer.shape(&x);
        let kept = Value::Constant(Constant::of_bools(&[], &[true])?);
        results.push(importer.expand(&kept, &shape)?);
    }
    Ok(results)
}
