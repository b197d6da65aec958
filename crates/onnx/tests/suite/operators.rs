//! Single operators compute what ONNX Runtime computes. `scripts/goldens/onnx_operators.py` makes the files.

use std::fs;
use std::path::Path;

use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, import};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{Layout, Tensor};
use centuple_testkit::distance;

#[test]
fn operators_compute_what_onnx_runtime_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators");
    let expected = fs::read_to_string(folder.join("expected.txt")).expect("the fixtures are there");
    let mut failures = Vec::new();
    for line in expected.lines() {
        let mut words = line.split(' ');
        let name = words.next().expect("each line has a name");
        let expected: Vec<f32> = words.map(|word| word.parse().expect("a number")).collect();
        let file = File::open(&folder.join(format!("{name}.onnx"))).expect("a sound file");
        let imported = match import(&file, &ImportOptions::default()) {
            Ok(imported) => imported,
            Err(error) => {
                failures.push(error.to_string());
                continue;
            }
        };
        let layout = Layout::of_lengths(&[5]).expect("a sequence");
        let mut bindings = layout.bindings();
        bindings.sequence = 5;
        let mut batch = Batch { bindings, layout: &layout, cache: &mut Cache::default() };
        let ids = Tensor::from_i64(&[5], &[3, 1, 4, 1, 5]).expect("five ids");
        let found = evaluate(&imported.graph, &[("input_ids", ids)], &mut batch).expect("the graph can be evaluated");
        let found = found[0].as_f32().expect("outputs are numbers");
        if distance(found, &expected) > 1e-5 {
            failures.push(format!("{name}: {found:?} instead of {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
