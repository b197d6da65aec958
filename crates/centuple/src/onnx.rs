//! Models of ONNX files: imported, given the head that belongs to them, and raised to what a native model is.

use centuple_graph::{Graph, Op};
use centuple_models::checkpoint::onnx::OnnxFile;
use centuple_models::{Foreign, Model, Purpose, adopt};
use centuple_onnx::import::{ImportOptions, Imported, import};
use centuple_passes::{RaiseOptions, Report, longest_sequence, raise};
use centuple_tensor::{Bindings, Dim, Symbol};

use crate::error::Error;

/// Most bytes of a single result of one sequence, where sequences stay padded: scores of all pairs of tokens are such ones.
const LARGEST_RESULT: usize = 256 << 20;

/// A model of an ONNX file.
pub(crate) struct Raised {
    pub(crate) model: Model,
    /// What was recognised in the file's graph, and what was not.
    pub(crate) reports: Vec<Report>,
    /// What else is to be known of the file.
    pub(crate) notes: Vec<String>,
}

/// Reads an ONNX file and what lies beside it.
///
/// # Errors
/// The file, or one beside it, is damaged or asks for what is not supported.
pub(crate) fn open(file: &OnnxFile, purpose: Purpose) -> Result<Raised, Error> {
    let source = centuple_onnx::File::open(&file.path)?;
    let Imported { graph, vocabulary, token_types, longest, producer, opset, notes, .. } =
        import(&source, &ImportOptions::default())?;
    let mut model = adopt(file, Foreign { graph, vocabulary }, purpose)?;
    let described = &mut model.description;
    described.type_vocabulary = token_types.unwrap_or(described.type_vocabulary);
    let most = described.max_tokens.min(longest.unwrap_or(usize::MAX));
    let max_tokens = longest_sequence(&model.graph, most);
    let (graph, reports) = raise(&model.graph, &RaiseOptions { max_tokens })?;
    let about = vec![format!("{} of {producer}, opset {opset}", file.path.display()), summary(&graph)];
    let mut notes = [about, notes].concat();
    described.max_tokens = affordable(&graph, max_tokens);
    if described.max_tokens < max_tokens {
        notes.push(format!(
            "the longest text has {} tokens instead of {max_tokens}, as scores of all pairs of its tokens are written out",
            described.max_tokens
        ));
    }
    if described.layers == 0 {
        described.layers = graph.nodes().iter().filter(|node| matches!(node.op, Op::Attention(_))).count();
    }
    model.graph = graph;
    Ok(Raised { model, reports, notes })
}

/// What has been recognised, and how much has not.
fn summary(graph: &Graph) -> String {
    let count = |is: fn(&Op) -> bool| graph.nodes().iter().filter(|node| is(&node.op)).count();
    let kinds: [(&str, usize); 6] = [
        ("attentions", count(|op| matches!(op, Op::Attention(_)))),
        ("norms", count(|op| matches!(op, Op::LayerNorm { .. } | Op::RmsNorm { .. }))),
        ("activations", count(|op| matches!(op, Op::Activation(_) | Op::Gate { .. }))),
        ("linear layers", count(|op| matches!(op, Op::Linear { .. }))),
        ("linear layers of integers", count(|op| matches!(op, Op::QuantizedLinear { .. }))),
        ("poolings", count(|op| matches!(op, Op::Pool(_)))),
    ];
    let kinds: Vec<String> =
        kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    let is_padded = |dims: &[Dim]| dims.iter().any(|dim| dim.depends_on(Symbol::Sequence));
    let padded: Vec<&str> =
        graph.nodes().iter().filter(|node| is_padded(&node.fact.shape)).map(|node| node.name.as_str()).collect();
    let left = match padded.first() {
        None => "nothing stays padded".to_owned(),
        Some(first) => format!("{} operations stay padded, the first is `{first}`", padded.len()),
    };
    format!("recognised {}; {left}", if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") })
}

/// Most tokens of a sequence, up to `most`, whose results are not too large one by one; at least 1.
fn affordable(graph: &Graph, most: usize) -> usize {
    let padded = |dims: &[Dim]| dims.iter().any(|dim| dim.depends_on(Symbol::Sequence));
    let shapes: Vec<&[Dim]> =
        graph.nodes().iter().map(|node| node.fact.shape.as_slice()).filter(|s| padded(s)).collect();
    let fits = |tokens: usize| {
        let bindings = Bindings { tokens, sequences: 1, sequence: tokens, selected: tokens, ..Bindings::default() };
        let elements = |shape: &&[Dim]| {
            shape.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.evaluate(&bindings)?))
        };
        shapes.iter().all(|shape| elements(shape).is_some_and(|n| n <= LARGEST_RESULT / size_of::<f32>()))
    };
    if fits(most) {
        return most;
    }
    let (mut longest, mut too_long) = (1, most);
    while too_long - longest > 1 {
        let middle = longest + (too_long - longest) / 2;
        if fits(middle) { longest = middle } else { too_long = middle }
    }
    longest
}

/// Whether linear layers of a graph are quantised.
pub(crate) fn is_quantized(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::QuantizedLinear { .. }))
}

#[cfg(test)]
mod tests {
    use centuple_graph::GraphError;
    use centuple_tensor::DType;

    use super::*;

    #[test]
    fn scores_bound_the_longest_sequence() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 64.into()])?;
        assert_eq!(affordable(&graph, 1 << 20), 1 << 20);
        let padded = graph.push("padded", Op::Pad, &[x])?;
        let turned = graph.push("turned", Op::Transpose { perm: vec![0, 2, 1] }, &[padded])?;
        graph.push("scores", Op::MatMul, &[padded, turned])?;
        assert_eq!([8000, 8192, 8193, 1 << 20].map(|most| affordable(&graph, most)), [8000, 8192, 8192, 8192]);
        Ok(())
    }
}
