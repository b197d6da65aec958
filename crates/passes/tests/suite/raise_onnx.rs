//! Files of every exporter are raised to what a native model's graph consists of, and compute the same.

use centuple_graph::{Activation, Graph, NodeId, Op};
use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, Imported, import};
use centuple_passes::{RaiseOptions, Report, raise};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{Dim, Layout, Symbol, Tensor};
use centuple_testkit::{FamilyInput, OnnxCase, OnnxGolden};

type Error = Box<dyn std::error::Error>;

/// Positions of models whose configuration doesn't say.
const POSITIONS: usize = 512;

/// A file before and after.
struct Pair {
    imported: Graph,
    raised: Graph,
    reports: Vec<Report>,
}

impl Pair {
    fn of(golden: &OnnxGolden, case: &OnnxCase) -> Result<Pair, Error> {
        let file = File::open(&golden.path(case))?;
        let imported = import(&file, &ImportOptions::default())?.graph;
        let positions = case.config["max_position_embeddings"].as_u64().unwrap_or(POSITIONS as u64) as usize;
        // Tables of the RoBERTa family have two rows more than there are positions.
        let padding = case.config["pad_token_id"].as_u64().filter(|_| has_offset(&golden.name)).map_or(0, |id| id + 1);
        let max_tokens = positions.saturating_sub(padding as usize);
        let (raised, reports) = raise(&imported, &RaiseOptions { max_tokens })?;
        Ok(Pair { imported, raised, reports })
    }

    fn count(&self, is: impl Fn(&Op) -> bool) -> usize {
        self.raised.nodes().iter().filter(|node| is(&node.op)).count()
    }

    fn counted(&self, what: &str) -> usize {
        let is_active = |op: &Op, among: &[Activation]| matches!(op, Op::Activation(activation) | Op::Gate { activation } if among.contains(activation));
        match what {
            "attention" => self.count(|op| matches!(op, Op::Attention(_))),
            "layer_norm" => self.count(|op| matches!(op, Op::LayerNorm { .. } | Op::RmsNorm { .. })),
            "gelu" => self.count(|op| is_active(op, &[Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu])),
            "silu" => self.count(|op| is_active(op, &[Activation::Silu])),
            _ => 0,
        }
    }

    /// What there is to say of a file that isn't raised as it should be.
    fn misses(&self, case: &OnnxCase) -> Vec<String> {
        let counts = case.counts.iter().map(|(what, count)| (what, *count, self.counted(what)));
        let mut misses: Vec<String> = counts
            .filter(|(_, expected, found)| expected != found)
            .map(|(what, expected, found)| format!("{found} of {expected} {what}"))
            .collect();
        let sequence = Dim::from(Symbol::Sequence);
        if let Some(node) = self.raised.nodes().iter().find(|node| node.fact.shape.contains(&sequence)) {
            misses.push(format!("padded from {} `{}` on", node.op.name(), node.name));
        }
        if !misses.is_empty() {
            let refused = self.reports.iter().flat_map(|report| &report.refused);
            misses.extend(refused.map(|refusal| format!("{}: {}", refusal.node, refusal.reason)));
        }
        misses
    }

    /// The largest difference of the two on the given sequences, each on its own.
    fn difference(&self, inputs: &[&FamilyInput]) -> Result<f32, Error> {
        let mut largest = 0.0f32;
        for input in inputs {
            let (before, after) = (run(&self.imported, input)?, run(&self.raised, input)?);
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before.shape(), after.shape());
                for (a, b) in before.as_f32()?.iter().zip(after.as_f32()?) {
                    let difference = (a - b).abs() / a.abs().max(1.0);
                    largest = if difference.is_nan() { f32::INFINITY } else { largest.max(difference) };
                }
            }
        }
        Ok(largest)
    }
}

fn has_offset(family: &str) -> bool {
    ["roberta", "mpnet"].contains(&family)
}

fn run(graph: &Graph, input: &FamilyInput) -> Result<Vec<Tensor>, Error> {
    let layout = Layout::of_lengths(&[input.ids.len()])?;
    let tensor = |ids: &[u32]| {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        Tensor::from_i64(&[ids.len()], &ids)
    };
    let inputs = [("input_ids", tensor(&input.ids)?), ("token_type_ids", tensor(&input.type_ids)?)];
    let cache = &mut Cache::default();
    Ok(evaluate(graph, &inputs, &mut Batch { bindings: layout.bindings(), layout: &layout, cache })?)
}

/// The graph that ends in one of its values, packed where it has rows of tokens.
fn up_to(graph: &Graph, end: usize) -> Result<Option<Graph>, Error> {
    let mut cut = Graph::new();
    let mut ids = Vec::new();
    for node in graph.nodes().iter().take(end + 1) {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| ids[input.index()]).collect();
        ids.push(cut.push(node.name.clone(), node.op.clone(), &inputs)?);
    }
    let (Some(&last), Some(node)) = (ids.last(), graph.nodes().get(end)) else { return Ok(None) };
    let [sequences, sequence] = [Symbol::Sequences, Symbol::Sequence].map(Dim::from);
    let output = match node.fact.shape.as_slice() {
        [first, second, ..] if *first == sequences && *second == sequence => cut.push("packed", Op::Pack, &[last])?,
        [first, ..] if *first == sequences => last,
        _ => return Ok(None),
    };
    cut.output("output", output);
    Ok(Some(cut))
}

#[test]
fn whatever_ends_anywhere_computes_the_same() -> Result<(), Error> {
    for golden in OnnxGolden::all()? {
        let case = golden.cases.iter().find(|case| case.activations == "f32" && case.kind == "hidden");
        let (Some(case), Some(input)) = (case, golden.inputs.get(2)) else { continue };
        let file = File::open(&golden.path(case))?;
        let Imported { graph, .. } = import(&file, &ImportOptions::default())?;
        for end in (0..graph.nodes().len()).filter(|end| end % 7 == 1) {
            let Some(imported) = up_to(&graph, end)? else { continue };
            let (raised, reports) = raise(&imported, &RaiseOptions { max_tokens: 32 })?;
            let pair = Pair { imported, raised, reports };
            let difference = pair.difference(&[input])?;
            let node = &graph.nodes()[end];
            assert!(difference <= 1e-4, "{difference} {} {} `{}`", golden.name, node.op.name(), node.name);
        }
    }
    Ok(())
}

#[test]
fn every_file_is_raised() -> Result<(), Error> {
    let mut failures = Vec::new();
    for golden in OnnxGolden::all()? {
        for case in &golden.cases {
            let name = format!("{}/{}", golden.name, case.name);
            let pair = match Pair::of(&golden, case) {
                Ok(pair) => pair,
                Err(error) => {
                    failures.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let misses = pair.misses(case);
            if !misses.is_empty() {
                failures.push(format!("{name}:\n    {}", misses.join("\n    ")));
            }
            let inputs: Vec<&FamilyInput> = case.inputs.iter().filter_map(|&input| golden.inputs.get(input)).collect();
            let difference = pair.difference(&inputs)?;
            // A code of a quantised activation tips over with the last bit of what is quantised.
            let tolerance = if ["f32", "f16"].contains(&case.activations.as_str()) { 1e-4 } else { 1e-2 };
            if difference > tolerance {
                failures.push(format!("{name}: {difference} from the file"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    Ok(())
}
