//! Imported files compute what ONNX Runtime computes.

use std::collections::BTreeMap;

use centuple_graph::Op;
use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, Imported, import};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{Layout, Symbol, Tensor};
use centuple_testkit::{FamilyInput, OnnxCase, OnnxGolden, distance};

/// The outputs of a case for one input alone, as the golden values have them.
fn answer(imported: &Imported, case: &OnnxCase, input: &FamilyInput) -> Vec<f32> {
    let tokens = input.ids.len();
    let layout = Layout::of_lengths(&[tokens]).expect("no input is empty");
    let ids = |ids: &[u32]| {
        let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        Tensor::from_i64(&[tokens], &ids).expect("one id for each token")
    };
    let given = [("input_ids", ids(&input.ids)), ("token_type_ids", ids(&input.type_ids))];
    let mut bindings = layout.bindings();
    assert_eq!(bindings.get(Symbol::Sequences), 1);
    bindings.sequence = tokens;
    let mut batch = Batch { bindings, layout: &layout, cache: &mut Cache::default() };
    let outputs = evaluate(&imported.graph, &given, &mut batch).expect("the graph can be evaluated");
    let wanted: Vec<&[f32]> = case
        .outputs
        .iter()
        .map(|name| {
            let place = imported.outputs.iter().position(|output| output.name == *name).expect("a known output");
            outputs[place].as_f32().expect("outputs are numbers")
        })
        .collect();
    match wanted.as_slice() {
        [starts, ends] => starts.iter().zip(*ends).flat_map(|(&start, &end)| [start, end]).collect(),
        [rows] if case.kind == "predictions" => {
            let width = rows.len() / tokens;
            input.masked.iter().flat_map(|&row| rows[row * width..(row + 1) * width].to_vec()).collect()
        }
        [values] => values.to_vec(),
        _ => panic!("{} outputs", wanted.len()),
    }
}

#[test]
fn files_compute_what_onnx_runtime_computes() {
    let mut failures = BTreeMap::new();
    let mut count = 0;
    for family in OnnxGolden::all().expect("the fixtures are there") {
        for case in &family.cases {
            count += 1;
            let name = format!("{}/{} ({})", family.name, case.name, case.activations);
            let file = File::open(&family.path(case)).expect("a sound file");
            let imported = match import(&file, &ImportOptions::default()) {
                Ok(imported) => imported,
                Err(error) => {
                    failures.insert(name, error.to_string());
                    continue;
                }
            };
            imported.graph.verify().expect("a sound graph");
            let ranges = imported.graph.nodes().iter().filter_map(|node| {
                if let Op::QuantizedLinear { range, .. } = node.op { Some(range.is_some()) } else { None }
            });
            let ranges: Vec<bool> = ranges.collect();
            if ranges.contains(&(case.activations != "static")) {
                failures.insert(format!("{name} ranges"), format!("layers with a range: {ranges:?}"));
            }
            let found: Vec<f32> =
                case.inputs.iter().flat_map(|&input| answer(&imported, case, &family.inputs[input])).collect();
            let (expected, _) = family.output(case).expect("golden values");
            // Where the file rounds activations, both round: each is as far from the model as the other.
            let limit = if case.activations == "f32" { 1e-4 } else { 2.0 * case.from_pytorch };
            let apart = distance(&found, &expected);
            if apart.is_nan() || apart > limit {
                failures.insert(name, format!("{apart} apart, at most {limit}"));
            }
        }
    }
    let list: Vec<String> = failures.iter().map(|(name, failure)| format!("{name}: {failure}")).collect();
    assert!(list.is_empty(), "{} of {count} files\n{}", list.len(), list.join("\n"));
}
