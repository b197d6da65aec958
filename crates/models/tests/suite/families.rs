//! The plain graphs of all families, evaluated by the reference, against what transformers answers.

use centuple_graph::Graph;
use centuple_models::{Purpose, load};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{Layout, Span, Tensor};
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput, distance};
use tempfile::TempDir;

/// PyTorch's own f32 is up to 2e-5 from f64 on these models.
const TOLERANCE: f32 = 5e-5;

fn assemble(family: &FamilyGolden, case: &FamilyCase) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    folder
}

/// The rows of all inputs as one packed batch.
fn run(graph: &Graph, inputs: &[FamilyInput]) -> Vec<f32> {
    let spans = inputs.iter().map(|input| Span {
        tokens: input.ids.len(),
        selected: input.masked.iter().map(|&token| token as u32).collect(),
        ..Span::default()
    });
    let layout = Layout::new(spans.collect()).expect("a layout");
    let packed = |of: fn(&FamilyInput) -> &[u32]| {
        let ids: Vec<i64> = inputs.iter().flat_map(of).map(|&id| i64::from(id)).collect();
        Tensor::from_i64(&[ids.len()], &ids).expect("a tensor")
    };
    let given = [("input_ids", packed(|input| &input.ids)), ("token_type_ids", packed(|input| &input.type_ids))];
    let mut cache = Cache::default();
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut cache };
    let outputs = evaluate(graph, &given, &mut batch).expect("the graph is evaluated");
    outputs[0].as_f32().expect("floats").to_vec()
}

#[test]
fn plain_graphs_equal_transformers() {
    let mut failures = Vec::new();
    let mut farthest: f32 = 0.0;
    for family in FamilyGolden::all().expect("fixtures") {
        for case in family.cases.iter().filter(|case| case.refuse.is_none()) {
            let folder = assemble(&family, case);
            let model = match load(folder.path(), Purpose::Own) {
                Ok(model) => model,
                Err(error) => {
                    failures.push(format!("{} {}: {error}", family.name, case.name));
                    continue;
                }
            };
            let found = run(&model.graph, &family.inputs_of(case));
            let (expected, _) = family.output(case).expect("the case's output");
            let distance = distance(&found, &expected);
            farthest = farthest.max(distance);
            if distance > TOLERANCE {
                failures.push(format!("{} {}: off by {distance:e}", family.name, case.name));
            }
        }
    }
    println!("farthest: {farthest:e}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn fields_that_change_the_numbers_are_refused_by_name() {
    let mut refused = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        for case in &family.cases {
            let Some(field) = &case.refuse else { continue };
            let folder = assemble(&family, case);
            let error = load(folder.path(), Purpose::Own).expect_err(&format!("{} {}", family.name, case.name));
            assert!(error.to_string().contains(&format!("`{field}`")), "{} {}: {error}", family.name, case.name);
            refused += 1;
        }
    }
    assert!(refused > 15, "only {refused} cases were refused");
}
