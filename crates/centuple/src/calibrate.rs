//! Calibration: which magnitudes the channels of a model take on real texts.

use std::collections::HashMap;
use std::sync::Arc;

use centuple_graph::{Graph, NodeId, Op};
use centuple_passes::{Channels, Observations, observed_values};
use centuple_runtime::{Batch, InputData, RuntimeError, Session, lower};
use centuple_tensor::{Bindings, Layout, Span};
use centuple_text::{Encoding, Text, Tokenizer, Truncation};

use crate::error::Error;
use crate::host::Host;

/// Sentences of many kinds and lengths, one a line.
const TEXTS: &str = include_str!("calibration.txt");
/// Most tokens of the shipped texts, and most of the caller's own, that are looked at.
const TOKENS: usize = 2048;
/// Tokens that are run together; every observed value of them is kept.
const BATCH: usize = 128;
/// Of so many tokens one is selected, where the graph computes on for selected ones only.
const SELECTED_EVERY: usize = 5;

/// Runs the shipped texts, and `own` ones, through a packed encoder and records the largest magnitude of each channel
/// that feeds a linear layer.
///
/// # Errors
/// A text cannot be tokenised, or the graph cannot be run.
pub(crate) fn observe<'a>(
    host: &Host,
    graph: &Graph,
    tokenizer: &Tokenizer,
    own: impl Iterator<Item = &'a str>,
) -> Result<Observations, Error> {
    let values = observed_values(graph);
    let mut observed = graph.clone();
    for (index, &value) in values.iter().enumerate() {
        observed.output(&format!("observed.{index}"), value);
    }
    let first = graph.outputs().len();
    let encodings = encodings(tokenizer, own)?;
    let longest = encodings.iter().map(|encoding| encoding.ids.len()).max().unwrap_or(0);
    let tokens = BATCH.max(longest);
    let selects = graph.nodes().iter().any(|node| node.op == Op::Select);
    let capacity = Bindings { tokens, sequences: tokens, selected: tokens, sequence: tokens, ..Bindings::default() };
    let mut session = Session::new(Arc::new(lower(&observed, host.isa)?), Arc::clone(&host.pool), capacity)?;
    let mut observations = Observations::new();
    let mut seen: HashMap<NodeId, usize> = HashMap::new();
    let mut rest = encodings.as_slice();
    while !rest.is_empty() {
        let mut left = tokens;
        let count = rest.iter().take_while(|encoding| fits(&mut left, encoding.ids.len())).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        run(&mut session, batch, selects)?;
        for (index, &value) in values.iter().enumerate() {
            let rows = session.output(first + index).ok_or(RuntimeError::Unbound("observed".to_owned()))?;
            *seen.entry(value).or_default() += rows.rows();
            let nothing = || Channels { largest: vec![0.0; rows.columns()], mean: vec![0.0; rows.columns()] };
            let Channels { largest, mean: sum } = observations.entry(value).or_insert_with(nothing);
            for row in 0..rows.rows() {
                for ((channel, sum), value) in largest.iter_mut().zip(sum.iter_mut()).zip(rows.row(row)) {
                    *channel = channel.max(value.abs());
                    *sum += value;
                }
            }
        }
    }
    for (value, channels) in &mut observations {
        let rows = seen.get(value).copied().unwrap_or(0).max(1) as f32;
        channels.mean.iter_mut().for_each(|sum| *sum /= rows);
    }
    Ok(observations)
}

/// Takes `tokens` of what is left, if there are as many.
pub(crate) fn fits(left: &mut usize, tokens: usize) -> bool {
    let enough = tokens <= *left;
    *left = left.saturating_sub(tokens);
    enough
}

/// Runs texts as one packed batch, some of whose tokens are selected.
fn run(session: &mut Session, batch: &[Arc<Encoding>], selects: bool) -> Result<(), Error> {
    let ids: Vec<i64> = batch.iter().flat_map(|encoding| encoding.ids.iter().map(|&id| id.into())).collect();
    let types: Vec<i64> = batch.iter().flat_map(|encoding| encoding.type_ids.iter().map(|&id| id.into())).collect();
    let span = |encoding: &Arc<Encoding>| {
        let tokens = encoding.ids.len();
        let every = |token: &u32| selects && (*token as usize) % SELECTED_EVERY == SELECTED_EVERY / 2;
        Span { tokens, selected: (0..tokens as u32).filter(every).collect(), ..Span::default() }
    };
    let layout = Layout::new(batch.iter().map(span).collect());
    let layout = layout.map_err(|error| RuntimeError::Unbound(error.to_string()))?;
    let inputs = [("input_ids", InputData::I64(&ids)), ("token_type_ids", InputData::I64(&types))];
    let bindings = layout.bindings();
    session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: None })?;
    Ok(())
}

/// The texts as tokens.
fn encodings<'a>(tokenizer: &Tokenizer, own: impl Iterator<Item = &'a str>) -> Result<Vec<Arc<Encoding>>, Error> {
    let mut encodings = Vec::new();
    let mut add = |texts: &mut dyn Iterator<Item = &str>| -> Result<(), Error> {
        let mut left = TOKENS;
        for text in texts {
            let encoding = tokenizer.encode(Text::Single(text), Truncation::Right)?;
            if !fits(&mut left, encoding.ids.len()) {
                break;
            }
            encodings.push(encoding);
        }
        Ok(())
    };
    add(&mut TEXTS.lines())?;
    add(&mut { own })?;
    Ok(encodings)
}
