//! Calibration: which magnitudes the channels of a model take on real texts.

use std::sync::Arc;

use centuple_graph::Graph;
use centuple_passes::{Channels, Observations, observed_values};
use centuple_runtime::{Batch, InputData, RuntimeError, Session, lower};
use centuple_tensor::Layout;
use centuple_text::{Text, Tokenizer, Truncation};

use crate::error::Error;
use crate::host::Host;

/// Sentences of many kinds and lengths, one a line.
const TEXTS: &str = include_str!("calibration.txt");
/// Most tokens that are looked at.
const TOKENS: usize = 2048;

/// Runs the shipped texts through a packed encoder and records the largest magnitude of each channel that feeds a linear
/// layer.
///
/// # Errors
/// A text cannot be tokenised, or the graph cannot be run.
pub(crate) fn observe(host: &Host, graph: &Graph, tokenizer: &Tokenizer) -> Result<Observations, Error> {
    let values = observed_values(graph);
    let mut observed = graph.clone();
    for (index, &value) in values.iter().enumerate() {
        observed.output(&format!("observed.{index}"), value);
    }
    let first = graph.outputs().len();
    let (ids, type_ids, layout) = batch(tokenizer)?;
    let bindings = layout.bindings();
    let plan = Arc::new(lower(&observed, host.isa)?);
    let mut session = Session::new(plan, Arc::clone(&host.pool), bindings)?;
    let inputs = [("input_ids", InputData::I64(&ids)), ("token_type_ids", InputData::I64(&type_ids))];
    session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: None })?;
    let mut observations = Observations::new();
    for (index, &value) in values.iter().enumerate() {
        let rows = session.output(first + index).ok_or(RuntimeError::Unbound("observed".to_owned()))?;
        let mut largest = vec![0.0f32; rows.columns()];
        let mut mean = vec![0.0f32; rows.columns()];
        for row in 0..rows.rows() {
            for ((channel, mean), value) in largest.iter_mut().zip(&mut mean).zip(rows.row(row)) {
                *channel = channel.max(value.abs());
                *mean += value / rows.rows() as f32;
            }
        }
        observations.insert(value, Channels { largest, mean });
    }
    Ok(observations)
}

/// The texts as one packed batch.
fn batch(tokenizer: &Tokenizer) -> Result<(Vec<i64>, Vec<i64>, Layout), Error> {
    let (mut ids, mut type_ids, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for text in TEXTS.lines() {
        let encoding = tokenizer.encode(Text::Single(text), Truncation::Right)?;
        if ids.len() + encoding.ids.len() > TOKENS {
            break;
        }
        ids.extend(encoding.ids.iter().map(|&id| i64::from(id)));
        type_ids.extend(encoding.type_ids.iter().map(|&id| i64::from(id)));
        lengths.push(encoding.ids.len());
    }
    let layout = Layout::of_lengths(&lengths).map_err(|error| RuntimeError::Unbound(error.to_string()))?;
    Ok((ids, type_ids, layout))
}
