//! The precision of single layers: chosen by name, and what that does to the answers.

use std::collections::BTreeMap;

use centuple::tasks::{Engine, Sequence};
use centuple::{Compiled, Host, HostOptions, LayerPrecision, LoadOptions, Precision, Quantization, quantizable_layers};
use centuple_graph::{Graph, Op};
use centuple_testkit::{Golden, GoldenCase, Random, distance};
use tempfile::TempDir;

fn host() -> Host {
    Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start")
}

fn golden() -> Golden {
    Golden::open().expect("fixtures")
}

fn compile(case: &GoldenCase, precision: Precision, quantization: Quantization) -> Compiled {
    let folder = TempDir::new().expect("a temporary folder");
    case.assemble(folder.path()).expect("the fixtures are there");
    let options = LoadOptions { precision: Some(precision), quantization, ..LoadOptions::default() };
    host().compile_folder(folder.path(), &case.name, &options).expect("the case compiles")
}

/// Bits of the activations of every layer, by its name; `None` for floats.
fn bits_of(graph: &Graph) -> BTreeMap<&str, Option<u8>> {
    let nodes = graph.nodes().iter().map(|node| (node.name.as_str(), &node.op));
    let layers = nodes.filter_map(|(name, op)| {
        if let Op::QuantizedLinear { bits, .. } = op {
            return Some((name, Some(*bits)));
        }
        matches!(op, Op::Linear { .. }).then_some((name, None))
    });
    layers.collect()
}

#[test]
fn names_of_layers_are_unique_and_those_of_modules() {
    for case in golden().cases.iter().filter(|case| case.refuse.is_none()) {
        let compiled = compile(case, Precision::F32, Quantization::default());
        let names = quantizable_layers(&compiled.graph);
        assert!(!names.is_empty(), "{}", case.name);
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{}: `{name}` is the name of two layers", case.name);
        }
        let of_module = |module: &str| names.iter().any(|name| name.ends_with(module));
        for module in ["layer.0.attention.self.qkv", "layer.0.attention.output.dense", "layer.0.output.dense"] {
            assert!(of_module(module), "{}: no `{module}` among {names:?}", case.name);
        }
    }
}

#[test]
fn each_layer_is_given_its_precision() {
    let golden = golden();
    let case = golden.case("bert-tiny").expect("the case");
    let plain = compile(case, Precision::F32, Quantization::default());
    let names = quantizable_layers(&plain.graph);
    let default = compile(case, Precision::Int8, Quantization::default());
    let by_default = bits_of(&default.graph);
    for (index, name) in names.iter().enumerate() {
        let precision = [LayerPrecision::Bits(12), LayerPrecision::Bits(8), LayerPrecision::Float][index % 3];
        let layers = BTreeMap::from([((*name).to_owned(), precision)]);
        let chosen = compile(case, Precision::Int8, Quantization { layers, ..Quantization::default() });
        let mut expected = by_default.clone();
        expected.insert(name, if let LayerPrecision::Bits(bits) = precision { Some(bits) } else { None });
        assert_eq!(bits_of(&chosen.graph), expected);
    }
}

#[test]
fn more_bits_are_nearer_to_floats() {
    let golden = golden();
    let case = golden.case("bert-tiny").expect("the case");
    let mut random = Random::new(3);
    let ids = (0..40).map(|_| random.below(60) as u32).collect();
    let sequence = Sequence { ids, type_ids: vec![0; 40], ..Sequence::default() };
    let answer = |precision, quantization| {
        let compiled = compile(case, precision, quantization);
        let mut loaded = host().start(&compiled).expect("memory");
        loaded.engine.run(&[&sequence]).expect("runs").remove(0).data
    };
    let float = answer(Precision::F32, Quantization::default());
    let plain = compile(case, Precision::F32, Quantization::default());
    let all = |precision| {
        let layers = quantizable_layers(&plain.graph).iter().map(|name| ((*name).to_owned(), precision)).collect();
        answer(Precision::Int8, Quantization { layers, tables: false, ..Quantization::default() })
    };
    assert!(float == all(LayerPrecision::Float), "layers that stay floats answer as floats, bit for bit");
    let [seven, twelve] = [7, 12].map(|bits| distance(&all(LayerPrecision::Bits(bits)), &float));
    assert!(twelve > 0.0 && twelve < seven / 2.0, "12 bits are off by {twelve:e}, 7 by {seven:e}");
}
