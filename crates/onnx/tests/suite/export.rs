//! Exported graphs are sound ONNX, and read back they compute what they computed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use centuple_graph::{Attention, Graph, NodeId, Op, PositionScores};
use centuple_models::{Description, Head, Model, Purpose, load};
use centuple_onnx::File;
use centuple_onnx::export::{DATA_LIMIT, Dialect, Exported, Options, Output, Weights, export};
use centuple_onnx::import::{ImportOptions, import};
use centuple_onnx::proto::{GraphProto, ModelProto};
use centuple_passes::{Channels, Observations, Quantization, fold_constants, observed_values, optimize, quantize};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{Layout, Span, Symbol, Tensor};
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput};
use prost::Message;
use tempfile::TempDir;

/// Largest difference in f32, in units of the larger of 1 and the value.
const TOLERANCE: f32 = 1e-4;
/// Largest difference where activations are rounded to 8 bits in other places, in units of the largest value.
const ROUNDED: f32 = 0.1;

fn model(family: &FamilyGolden, case: &FamilyCase) -> Model {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    load(folder.path(), Purpose::Own).unwrap_or_else(|error| panic!("{} {}: {error}", family.name, case.name))
}

/// Every case of every family that can be loaded.
fn cases() -> Vec<(FamilyGolden, Vec<FamilyCase>)> {
    let families = FamilyGolden::all().expect("the fixtures are there");
    let kept = |family: FamilyGolden| {
        let cases = family.cases.iter().filter(|case| case.refuse.is_none()).cloned().collect();
        (family, cases)
    };
    families.into_iter().map(kept).collect()
}

fn options(graph: &Graph, dialect: Dialect, weights: Weights) -> Options {
    let (_, value) = graph.outputs()[0];
    let outputs = vec![Output { name: "result".to_owned(), value, column: None }];
    Options { dialect, weights, outputs, name: "test".to_owned() }
}

fn exported(graph: &Graph, dialect: Dialect, weights: Weights) -> Exported {
    export(graph, &options(graph, dialect, weights)).expect("every model can be exported")
}

fn read(bytes: &[u8]) -> Graph {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    fs::write(&path, bytes).expect("temporary folders can be written");
    read_file(&path)
}

fn read_file(path: &Path) -> Graph {
    let file = File::open(path).expect("a sound file");
    import(&file, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}")).graph
}

/// Two sequences of different lengths, packed, all tokens selected.
fn evaluated(graph: &Graph, inputs: [&FamilyInput; 2], types: u32) -> Vec<f32> {
    let ids: Vec<i64> = inputs.iter().flat_map(|input| &input.ids).map(|&id| id.into()).collect();
    let type_ids = inputs.iter().flat_map(|input| &input.type_ids);
    let type_ids: Vec<i64> = type_ids.map(|&id| if id < types { id.into() } else { 0 }).collect();
    let span = |input: &&FamilyInput| {
        let tokens = input.ids.len();
        Span { tokens, selected: (0..tokens as u32).collect(), ..Span::default() }
    };
    let layout = Layout::new(inputs.iter().map(span).collect()).expect("no input is empty");
    let tensor = |values: &[i64]| Tensor::from_i64(&[values.len()], values).expect("as many as there are");
    let given = [("input_ids", tensor(&ids)), ("token_type_ids", tensor(&type_ids))];
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut Cache::default() };
    let outputs = evaluate(graph, &given, &mut batch).expect("the graph can be evaluated");
    outputs[0].as_f32().expect("numbers").to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max)
}

/// A row is rounded as a whole, so its small values differ as much as its large ones.
fn distance_of_rounded(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0, |largest: f32, b| largest.max(b.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}

/// The two shortest inputs of a case, as the evaluator is slow.
fn shortest<'a>(family: &'a FamilyGolden, case: &FamilyCase) -> [&'a FamilyInput; 2] {
    let mut inputs: Vec<&FamilyInput> = case.inputs.iter().map(|&input| &family.inputs[input]).collect();
    inputs.sort_by_key(|input| input.ids.len());
    [inputs[1], inputs[0]]
}

/// Operators of the domains in a file.
fn operators(exported: &Exported) -> BTreeSet<(&str, &str)> {
    let nodes = exported.model().graph.iter().flat_map(|graph| &graph.node);
    nodes.map(|node| (node.domain.as_str(), node.op_type.as_str())).collect()
}

#[test]
fn what_is_exported_computes_the_same_when_it_is_read_back() {
    for (family, cases) in cases() {
        for case in &cases {
            let Model { graph, description, .. } = model(&family, case);
            let types = description.type_vocabulary as u32;
            let inputs = shortest(&family, case);
            let expected = evaluated(&graph, inputs, types);
            for dialect in [Dialect::Standard, Dialect::Fused] {
                let file = exported(&graph, dialect, Weights::Float);
                let found = evaluated(&read(&file.to_vec()), inputs, types);
                let apart = distance(&found, &expected);
                assert!(apart <= TOLERANCE, "{} {} {dialect:?}: {apart:e}", family.name, case.name);
            }
        }
    }
}

/// The ops that only passes make: layers with activation and residual, joined projections, gates, integers.
#[test]
fn optimised_graphs_are_exported_too() {
    for (family, cases) in cases() {
        for case in cases.iter().take(3) {
            let Model { graph, description, .. } = model(&family, case);
            let types = description.type_vocabulary as u32;
            let inputs = shortest(&family, case);
            let expected = evaluated(&graph, inputs, types);
            let (optimized, _) = optimize(&graph).expect("the passes run");
            let file = exported(&optimized, Dialect::Standard, Weights::Float);
            let apart = distance(&evaluated(&read(&file.to_vec()), inputs, types), &expected);
            assert!(apart <= TOLERANCE, "{} {}: {apart:e}", family.name, case.name);

            let (quantized, _) = quantize(&optimized, &ones(&optimized), &Quantization::default()).expect("it runs");
            let file = exported(&quantized, Dialect::Standard, Weights::Float);
            let native = evaluated(&quantized, inputs, types);
            let apart = distance_of_rounded(&evaluated(&read(&file.to_vec()), inputs, types), &native);
            assert!(apart <= ROUNDED, "{} {}: {apart:e}", family.name, case.name);
        }
    }
}

/// Observations of a model whose channels are all alike.
fn ones(graph: &Graph) -> Observations {
    let channels = |value: NodeId| {
        let width = graph.node(value).fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
        (
            value,
            Channels {
                largest: vec![1.0; width],
                mean: vec![0.0; width],
                square: vec![0.0; width],
                ..Channels::default()
            },
        )
    };
    observed_values(graph).into_iter().map(channels).collect()
}

#[test]
fn each_file_has_the_operators_of_its_dialect() {
    for (family, cases) in cases() {
        for case in &cases {
            let Model { graph, .. } = model(&family, case);
            let graph = fold_constants(&graph).expect("constants can be folded");
            let ranges: HashMap<NodeId, f32> = observed_values(&graph).into_iter().map(|value| (value, 4.0)).collect();
            let plain = exported(&graph, Dialect::Standard, Weights::Float);
            let fixed = exported(&graph, Dialect::Standard, Weights::Static(ranges));
            for file in [&plain, &fixed] {
                let foreign: Vec<_> = operators(file).into_iter().filter(|(domain, _)| !domain.is_empty()).collect();
                assert!(foreign.is_empty(), "{} {}: {foreign:?}", family.name, case.name);
                assert_eq!(file.model().opset_import.len(), 1);
            }
            assert!(operators(&fixed).contains(&("", "QuantizeLinear")));
            let fused = exported(&graph, Dialect::Fused, Weights::Float);
            let names: BTreeSet<&str> = operators(&fused).into_iter().map(|(_, name)| name).collect();
            assert!(!names.contains("Erf"), "{} {}", family.name, case.name);
            // What keeps ONNX Runtime from fusing what is slower fused.
            assert!(names.contains("Range"), "{} {}", family.name, case.name);
            // No operator has the scores of DeBERTa, heads that share keys, or bounded scores.
            let plain = |attention: &Attention| {
                let shares = attention.heads != attention.kv_heads || attention.soft_cap.is_some();
                !shares && !matches!(attention.position, PositionScores::Disentangled { .. })
            };
            let fits = |op: &Op| matches!(op, Op::Attention(attention) if plain(attention));
            let attends = names.iter().any(|name| name.ends_with("Attention"));
            let fits = graph.nodes().iter().any(|node| fits(&node.op));
            assert_eq!(attends, fits, "{} {}", family.name, case.name);
            let dynamic = exported(&graph, Dialect::Fused, Weights::Dynamic);
            let layers = observed_values(&graph).len();
            let products = dynamic.model().graph.iter().flat_map(|graph| &graph.node);
            let products = products.filter(|node| node.op_type == "DynamicQuantizeMatMul").count();
            assert!(products >= layers && layers > 0, "{} {}: {products} of {layers}", family.name, case.name);
        }
    }
}

/// Every operand is an input, a constant or an earlier output, every name is made once, and nothing is left over.
#[test]
fn names_are_sound() {
    for (family, cases) in cases() {
        for case in &cases {
            let Model { graph, .. } = model(&family, case);
            for (dialect, weights) in [(Dialect::Standard, Weights::Float), (Dialect::Fused, Weights::Dynamic)] {
                let bytes = exported(&graph, dialect, weights).to_vec();
                let proto = ModelProto::decode(bytes.as_slice()).expect("a message");
                let proto: GraphProto = proto.graph.expect("a graph");
                let mut known: BTreeSet<&str> = proto.input.iter().map(|input| input.name.as_str()).collect();
                for initializer in &proto.initializer {
                    assert!(known.insert(&initializer.name), "{}", initializer.name);
                }
                let mut read = BTreeSet::new();
                for node in &proto.node {
                    for input in node.input.iter().filter(|input| !input.is_empty()) {
                        assert!(known.contains(input.as_str()), "{} {}: {input}", family.name, case.name);
                        read.insert(input.as_str());
                    }
                    for output in node.output.iter().filter(|output| !output.is_empty()) {
                        assert!(known.insert(output), "{output}");
                    }
                }
                let outputs = proto.output.iter().map(|output| output.name.as_str());
                assert!(outputs.clone().all(|output| known.contains(output)));
                read.extend(outputs);
                assert!(proto.initializer.iter().all(|initializer| read.contains(initializer.name.as_str())));
            }
        }
    }
}

#[test]
fn types_that_can_only_be_0_are_no_input() {
    let (family, cases) = cases().into_iter().find(|(family, _)| family.name == "roberta").expect("a family");
    let names = |case: &FamilyCase| {
        let Model { graph, description, .. } = model(&family, case);
        let proto = exported(&graph, Dialect::Standard, Weights::Float).model().clone();
        let names: Vec<String> = proto.graph.expect("a graph").input.into_iter().map(|input| input.name).collect();
        (description.type_vocabulary, names.join(" "))
    };
    let found: BTreeSet<(usize, String)> = cases.iter().map(names).collect();
    let expected = [(1, "input_ids attention_mask"), (2, "input_ids attention_mask token_type_ids")];
    assert_eq!(found, expected.map(|(types, names)| (types, names.to_owned())).into());
}

#[test]
fn large_files_have_their_weights_beside_them() {
    let (family, cases) = cases().into_iter().find(|(family, _)| family.name == "bert").expect("a family");
    let case = &cases[0];
    let Model { graph, description, .. } = model(&family, case);
    let file = exported(&graph, Dialect::Standard, Weights::Float);
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, limit: u64| {
        let path = folder.path().join(format!("{name}.onnx"));
        let data = folder.path().join(format!("{name}.onnx_data"));
        let mut out = fs::File::create(&path).expect("a file");
        let location = format!("{name}.onnx_data");
        let written = file.write(&mut out, limit, &location, || fs::File::create(&data)).expect("it is written");
        assert_eq!(fs::metadata(&path).expect("a file").len(), written.model);
        assert_eq!(fs::metadata(&data).ok().map(|data| data.len()), written.data);
        (path, written)
    };
    let (whole, one) = write("whole", DATA_LIMIT);
    let (parted, two) = write("parted", one.model - 1);
    assert_eq!((one.data, one.model, fs::read(&whole).expect("a file")), (None, file.len(), file.to_vec()));
    assert!(two.data.is_some_and(|data| data > two.model), "{two:?}");
    let [whole, parted] = [whole, parted]
        .map(|path| evaluated(&read_file(&path), shortest(&family, case), description.type_vocabulary as u32));
    assert_eq!(whole, parted);
}

#[test]
fn the_same_graph_gives_the_same_bytes() {
    let (family, cases) = cases().into_iter().find(|(family, _)| family.name == "modernbert").expect("a family");
    let bytes = || exported(&model(&family, &cases[0]).graph, Dialect::Fused, Weights::Dynamic).to_vec();
    assert!(bytes() == bytes());
}

/// What the tests above rest on: the families' cases have every op that an encoder's graph can have.
#[test]
fn the_cases_have_every_op_of_a_family() {
    let mut seen = BTreeSet::new();
    let mut heads = BTreeSet::new();
    for (family, cases) in cases() {
        for case in &cases {
            let Model { graph, description: Description { head, .. }, .. } = model(&family, case);
            seen.extend(graph.nodes().iter().map(|node| node.op.name()));
            heads.insert(match head {
                Head::TokenFeatures { .. } => "features",
                Head::Classification { .. } => "classes",
                Head::TokenClassification { .. } => "token classes",
                Head::QuestionAnswering => "answers",
                Head::MaskedLm { .. } => "words",
                Head::CausalLm { .. } => "next words",
                Head::Seq2SeqLm { .. }
                | Head::SentenceEmbedding { .. }
                | Head::SparseEmbedding { .. }
                | Head::LateInteraction { .. } => "other",
            });
            assert!(
                graph
                    .nodes()
                    .iter()
                    .all(|node| !matches!(node.op, Op::Input { .. }) || node.fact.shape[0] == Symbol::Tokens.into())
            );
        }
    }
    for op in [
        "Positions",
        "ShiftRight",
        "Embedding",
        "Linear",
        "GroupedLinear",
        "LayerNorm",
        "RmsNorm",
        "HeadNorm",
        "Activation",
        "Attention",
        "Rotary",
        "Pool",
        "Select",
    ] {
        assert!(seen.contains(op), "{op}");
    }
    assert_eq!(heads.len(), 6, "{heads:?}");
}
