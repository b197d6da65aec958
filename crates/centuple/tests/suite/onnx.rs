//! ONNX files of every exporter, optimiser and quantiser: what ONNX Runtime answers, through the whole engine; and how much
//! of each file is recognised.

use std::collections::BTreeMap;
use std::fs;

use centuple::tasks::{Engine, Output, Sequence, run_in_batches};
use centuple::{Compiled, Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_graph::{Activation, Op};
use centuple_testkit::{OnnxCase, OnnxGolden, distance};
use tempfile::TempDir;

/// Largest accepted distance to ONNX Runtime where it computes in f32.
const TOLERANCE: f32 = 1e-4;
/// The same where it computes in f16, or quantises activations by tensor, as a multiple of its own distance to f32: they
/// are quantised by token here.
const ROUNDED_TOLERANCE: f32 = 2.0;

fn host(threads: usize) -> Host {
    Host::new(&HostOptions { threads: Some(threads), isa: None }).expect("threads start")
}

fn compile(host: &Host, family: &OnnxGolden, case: &OnnxCase) -> Result<Compiled, String> {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    host.compile_folder(folder.path(), &case.name, &LoadOptions::default()).map_err(|error| error.to_string())
}

fn start(host: &Host, compiled: &Compiled) -> Loaded {
    host.start(compiled).expect("memory for batches")
}

/// The inputs of a case, token types where its model has them.
fn sequences(family: &OnnxGolden, case: &OnnxCase) -> Vec<Sequence> {
    let of = |&index: &usize| {
        let input = &family.inputs[index];
        Sequence {
            ids: input.ids.clone(),
            type_ids: input.type_ids.clone(),
            selected: if case.kind == "predictions" { input.masked.clone() } else { Vec::new() },
            ..Sequence::default()
        }
    };
    case.inputs.iter().map(of).collect()
}

fn values(outputs: &[Output]) -> Vec<f32> {
    outputs.iter().flat_map(|output| output.data.clone()).collect()
}

fn tolerance(case: &OnnxCase) -> f32 {
    if case.activations == "f32" { TOLERANCE } else { ROUNDED_TOLERANCE * case.from_pytorch + TOLERANCE }
}

/// What is wrong with a case's answers.
fn compare([host, other]: &[Host; 2], family: &OnnxGolden, case: &OnnxCase) -> Result<Compiled, String> {
    let compiled = compile(host, family, case)?;
    let mut loaded = start(host, &compiled);
    let sequences = sequences(family, case);
    let together = run_in_batches(&mut loaded.engine, &sequences).map_err(|error| error.to_string())?;
    for (sequence, together) in sequences.iter().zip(&together) {
        let alone = loaded.engine.run(&[sequence]).map_err(|error| error.to_string())?;
        if alone[0].data != together.data {
            return Err("company matters".to_owned());
        }
    }
    let mut other = start(other, &compiled);
    let threaded = run_in_batches(&mut other.engine, &sequences).map_err(|error| error.to_string())?;
    if values(&threaded) != values(&together) {
        return Err("threads matter".to_owned());
    }
    let (expected, _) = family.output(case).ok_or("no golden values")?;
    let apart = distance(&values(&together), &expected);
    if apart <= tolerance(case) { Ok(compiled) } else { Err(format!("{apart:e} apart")) }
}

fn list(failures: &BTreeMap<String, String>) -> String {
    failures.iter().map(|(name, failure)| format!("{name}: {failure}\n")).collect()
}

#[test]
fn files_answer_as_onnx_runtime() {
    let (hosts, mut failures, mut count) = ([2, 3].map(host), BTreeMap::new(), 0);
    for family in OnnxGolden::all().expect("fixtures") {
        for case in &family.cases {
            count += 1;
            let failed = match compare(&hosts, &family, case) {
                Ok(compiled) => unrecognised(case, &compiled),
                Err(failure) => Some(failure),
            };
            failures.extend(failed.map(|failure| (format!("{} {}", family.name, case.name), failure)));
        }
    }
    assert!(failures.is_empty(), "{} of {count} files\n{}", failures.len(), list(&failures));
}

/// What of a file is not recognised, or not all of it.
fn unrecognised(case: &OnnxCase, compiled: &Compiled) -> Option<String> {
    let ops: Vec<&Op> = compiled.plain.iter().flat_map(|graph| graph.nodes()).map(|node| &node.op).collect();
    let count = |is: fn(&Op) -> bool| ops.iter().filter(|op| is(op)).count();
    let kinds = [
        ("attention", count(|op| matches!(op, Op::Attention(_)))),
        ("layer_norm", count(|op| matches!(op, Op::LayerNorm { .. } | Op::RmsNorm { .. }))),
        (
            "gelu",
            count(|op| matches!(op, Op::Activation(Activation::Gelu | Activation::GeluTanh | Activation::QuickGelu))),
        ),
        ("silu", count(|op| matches!(op, Op::Activation(Activation::Silu)))),
    ];
    let found = kinds.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| (kind.to_owned(), count));
    let found: BTreeMap<String, usize> = found.collect();
    if found != case.counts {
        return Some(format!("{found:?} of {:?} are recognised", case.counts));
    }
    compiled.plan.is_padded().then(|| "a part of it stays padded".to_owned())
}

/// What an artefact of an ONNX model answers without the file.
#[test]
fn artefacts_need_no_onnx_file() {
    let families = OnnxGolden::all().expect("fixtures");
    let bert = families.iter().find(|family| family.name == "bert").expect("BERT");
    let host = host(2);
    for (name, precision) in
        [("torchscript-14-sdpa", None), ("int8-channels", None), ("mean-dynamo", Some(Precision::Int8))]
    {
        let case = bert.cases.iter().find(|case| case.name == name).expect("the case");
        let place = TempDir::new().expect("a temporary folder");
        let [model, target] = ["model", "artefact"].map(|name| place.path().join(name));
        fs::create_dir(&model).expect("a folder");
        bert.assemble(case, &model).expect("the fixtures are there");
        let options = LoadOptions { precision, ..LoadOptions::default() };
        let file = model.join("model.onnx");
        let compiled = host.compile(&file.display().to_string(), &options).expect("the file compiles");
        compiled.save(&file, &target).expect("the artefact is written");
        fs::remove_dir_all(&model).expect("the folder is removed");
        let mut loaded = host.load_folder(&target, "artefact", &LoadOptions::default()).expect("the artefact loads");
        let expected = run_in_batches(&mut start(&host, &compiled).engine, &sequences(bert, case)).expect("runs");
        let found = run_in_batches(&mut loaded.engine, &sequences(bert, case)).expect("runs");
        assert_eq!(values(&found), values(&expected), "{name}");
        let quantized = precision.is_some() || name == "int8-channels";
        assert_eq!(loaded.precision == Precision::Int8, quantized, "{name}");
    }
}
