//! The row of the last token of an id, as BART's classifier takes it: rows at all places of the id, of each sequence the
//! last one. Only this use of an operator whose results are as many as the texts say is known.

use centuple_graph::{Binary, NodeId, Op, Pooling};
use centuple_tensor::{Dim, Symbol};

use super::Importer;
use super::attributes::Call;
use super::dims::to_integer;
use super::ops::Table;
use super::problem::{Result, problem};
use super::value::{Form, Marked, Value};
use crate::file::Element;

pub(super) const OPS: Table = &[("NonZero", non_zero)];

fn unknown() -> super::Problem {
    problem("the places of an id, but for the last one's row of each sequence")
}

/// The places where the ids are a number.
fn non_zero(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let condition = importer.node(call.operand(0)?)?;
    let id = importer.asked_id(condition).ok_or_else(|| problem("places that depend on the texts"))?;
    Ok(vec![Value::Marked(Marked { id, form: Form::Places })])
}

impl Marked {
    /// The places of a transposition.
    pub(super) fn turned(&self, perm: Option<&[i64]>) -> Result<Value> {
        if self.form != Form::Places || perm.is_some_and(|perm| perm != [1, 0]) {
            return Err(unknown());
        }
        Ok(Value::Marked(Marked { form: Form::Turned, ..self.clone() }))
    }
}

impl Importer<'_> {
    /// The id that a node compares the ids with.
    fn asked_id(&self, condition: NodeId) -> Option<i64> {
        let node = self.graph.node(condition);
        let (Op::Binary(Binary::Equal), [a, b]) = (&node.op, node.inputs.as_slice()) else { return None };
        let other = match self.tables.ids {
            Some(ids) if ids == *a => b,
            Some(ids) if ids == *b => a,
            Some(_) | None => return None,
        };
        let id = self.graph.constant_of(*other).filter(|constant| constant.len() == 1)?;
        let id = id.as_f32().ok()?.first().copied()?;
        (id.fract() == 0.0 && id.abs() < 1e9).then_some(id as i64)
    }

    /// Rows at the places.
    pub(super) fn rows_at(&mut self, marked: &Marked, x: &Value) -> Result<Value> {
        let x = self.node(x)?;
        let shape = self.shape_of(x);
        let [batch, sequence, width] = shape.as_slice() else { return Err(unknown()) };
        let padded = *batch == Dim::from(Symbol::Sequences) && *sequence == Dim::from(Symbol::Sequence);
        if marked.form != Form::Turned || !padded || width.constant().is_none() {
            return Err(unknown());
        }
        Ok(Value::Marked(Marked { form: Form::Rows(x), ..marked.clone() }))
    }

    /// The rows by sequence: `[Sequences, -1, H]`.
    pub(super) fn grouped(&self, marked: &Marked, target: &[Dim]) -> Result<Value> {
        let Form::Rows(x) = marked.form else { return Err(unknown()) };
        match target {
            [batch, places, width]
                if *batch == Dim::from(Symbol::Sequences)
                    && to_integer(places) == Some(-1)
                    && Some(width) == self.shape_of(x).last() =>
            {
                Ok(Value::Marked(Marked { form: Form::Grouped(x), ..marked.clone() }))
            }
            _ => Err(unknown()),
        }
    }

    /// The last row of each sequence.
    pub(super) fn last_of(&mut self, marked: &Marked, index: &Value, axis: i64) -> Result<Value> {
        let last = matches!(index, Value::Constant(index) if index.shape().is_empty() && index.integer(0) == Some(-1));
        let (Form::Grouped(x), true, 1 | -2, Some(ids)) = (marked.form, last, axis, self.tables.packed_ids) else {
            return Err(unknown());
        };
        let rows = self.push(Op::Pack, &[x])?;
        let pooled = self.push(Op::Pool(Pooling::LastEqual(marked.id)), &[rows, ids])?;
        Ok(Value::Node(pooled, Element::Float))
    }
}
