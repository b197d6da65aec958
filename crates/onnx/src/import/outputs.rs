//! The file's outputs, packed.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, NodeId, Op};
use centuple_tensor::{Dim, Symbol};

use super::dims::shown;
use super::value::Value;
use super::{ImportOptions, Importer, Output, Over, Problem};
use crate::OnnxError;
use crate::error;
use crate::file::File;
use crate::proto::GraphProto;

/// The names of the outputs to import.
pub(super) fn wanted<'f>(
    file: &File,
    graph: &'f GraphProto,
    options: &ImportOptions,
) -> Result<Vec<&'f str>, OnnxError> {
    let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    if let Some(unknown) = options.outputs.iter().find(|name| !names.contains(&name.as_str())) {
        let has = names.join(", ");
        return Err(file.problem(format!("it has no output `{unknown}`; it has {}", error::shown(&has))));
    }
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        if wanted.contains(&name) {
            return Err(file.problem(format!("two outputs are called `{}`", error::shown(name))));
        }
        wanted.push(name);
        if wanted.len() > 4096 {
            return Err(file.problem("it has more than 4096 outputs".to_owned()));
        }
    }
    if !options.outputs.is_empty() {
        wanted.retain(|name| options.outputs.iter().any(|output| output == name));
    }
    Ok(wanted)
}

impl Importer<'_> {
    /// Makes graph outputs of the values; what is over neither tokens nor sequences is left out with a note.
    pub(super) fn outputs(&mut self, names: &[&str], values: &[Value]) -> Result<Vec<Output>, OnnxError> {
        let mut outputs = Vec::new();
        for (name, value) in names.iter().zip(values) {
            self.name = (*name).to_owned();
            let output = self.output(name, value).map_err(|Problem(problem)| {
                self.file.problem(format!("the output `{}`: {problem}", error::shown(name)))
            })?;
            match output {
                Ok((output, node)) => {
                    self.graph.output(name, node);
                    outputs.push(output);
                }
                Err(shape) => self.note(format!(
                    "the output `{}` of shape [{shape}] is left out: it is over neither tokens nor sequences",
                    error::shown(name)
                )),
            }
        }
        if outputs.is_empty() {
            let notes = self.notes.join("; ");
            return Err(self.file.problem(format!("none of its outputs is over tokens or sequences: {notes}")));
        }
        Ok(outputs)
    }

    fn output(&mut self, name: &str, value: &Value) -> super::Result<Result<(Output, NodeId), String>> {
        let node = self.node(value)?;
        let shape = self.graph.node(node).fact.shape.clone();
        let known = |shape: &[Dim]| shape.iter().all(|dim| dim.constant().is_some());
        let [sequences, sequence] = [Symbol::Sequences, Symbol::Sequence].map(Dim::from);
        Ok(match shape.as_slice() {
            [rows, columns, rest @ ..] if *rows == sequences && *columns == sequence && known(rest) => {
                let node = self.push(Op::Pack, &[node])?;
                Ok((Output { name: name.to_owned(), over: Over::Tokens, shape: rest.to_vec() }, node))
            }
            [rows, rest @ ..] if *rows == sequences && known(rest) => {
                Ok((Output { name: name.to_owned(), over: Over::Sequences, shape: rest.to_vec() }, node))
            }
            _ => Err(shown(&shape)),
        })
    }
}

/// The graph without nodes that no output needs; inputs stay.
pub(super) fn pruned(graph: &Graph) -> Result<Graph, GraphError> {
    let mut needed = vec![false; graph.nodes().len()];
    for (_, id) in graph.outputs() {
        needed[id.index()] = true;
    }
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if needed[index] {
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    let (mut pruned, mut places) = (Graph::new(), HashMap::new());
    for (id, node) in graph.iter() {
        if needed[id.index()] || matches!(node.op, Op::Input { .. }) {
            let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| places.get(input).copied()).collect();
            places.insert(id, pruned.push(node.name.clone(), node.op.clone(), &inputs)?);
        }
    }
    for (name, id) in graph.outputs() {
        if let Some(&place) = places.get(id) {
            pruned.output(name, place);
        }
    }
    Ok(pruned)
}
