//! What PyTorch answers, for tiny random checkpoints: tokens, hidden states, embeddings, logits, scores.

use centuple::tasks::{Engine, Job, Output, Reply, Request, Sequence, Task, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Loaded};
use centuple_testkit::{Golden, GoldenCase, GoldenInput, distance};
use serde_json::{Value, json};
use tempfile::TempDir;

/// PyTorch's own f32 is 8e-6 from f64 on these models, whose values go up to 9.
const TOLERANCE: f32 = 2e-5;

fn load(case: &GoldenCase) -> (TempDir, Result<Loaded, centuple::Error>) {
    let folder = TempDir::new().expect("a temporary folder");
    case.assemble(folder.path()).expect("the fixtures are there");
    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let loaded = host.load_folder(folder.path(), &case.name, &LoadOptions::default());
    (folder, loaded)
}

fn sequence(input: &GoldenInput) -> Sequence {
    Sequence {
        ids: input.ids.clone(),
        type_ids: input.type_ids.clone(),
        pool_from: input.pool_from,
        ..Sequence::default()
    }
}

fn assert_close(case: &GoldenCase, kind: &str, found: &[f32], golden: &Golden) {
    let (expected, _) = golden.output(&case.name, kind).unwrap_or_else(|| panic!("{}.{kind} is missing", case.name));
    let distance = distance(found, &expected);
    assert!(distance <= TOLERANCE, "{}.{kind}: off by {distance:e}", case.name);
}

/// The body that asks a task for an input of texts.
fn body(input: &GoldenInput) -> Option<Value> {
    let text = input.text.as_ref()?;
    let mut body = match &input.pair {
        Some(pair) => json!({"inputs": {"text": text, "text_pair": pair}}),
        None => json!({"inputs": text}),
    };
    if let Some(prompt) = &input.prompt {
        body["parameters"] = json!({"prompt_name": prompt});
    }
    Some(body)
}

fn ask(loaded: &mut Loaded, task: Task, body: &Value) -> Reply {
    let request = Request::parse(task, body.to_string().as_bytes()).expect("a valid request");
    let job = Job::prepare(&loaded.model, request).expect("a request that the model takes");
    job.run(&loaded.model, &mut loaded.engine).expect("a reply")
}

/// The numbers of a reply: classes in the order of the model's labels, sparse vectors with their zeros.
fn numbers(reply: &Reply, loaded: &Loaded) -> Vec<f32> {
    let json: Value = serde_json::from_slice(&reply.to_json()).expect("replies are JSON");
    if let centuple::tasks::Head::Classification { labels, .. } = &loaded.model.card.head {
        let scores = json[0].as_array().expect("one list per input");
        let of = |label: &String| scores.iter().find(|score| score["label"] == **label).expect("every label");
        return labels.iter().map(|label| of(label)["score"].as_f64().expect("a number") as f32).collect();
    }
    if let centuple::tasks::Head::SparseEmbedding { vocabulary } = loaded.model.card.head {
        let mut dense = vec![0.0; vocabulary];
        for entry in json[0].as_array().expect("one list per input") {
            let index = entry["index"].as_u64().expect("a token id") as usize;
            dense[index] = entry["value"].as_f64().expect("a number") as f32;
        }
        return dense;
    }
    let mut flat = Vec::new();
    flatten(&json, &mut flat);
    flat
}

fn flatten(json: &Value, into: &mut Vec<f32>) {
    match json.as_array() {
        Some(items) => items.iter().for_each(|item| flatten(item, into)),
        None => into.push(json.as_f64().expect("a number") as f32),
    }
}

#[test]
fn outputs_equal_pytorch() {
    let golden = Golden::open().expect("fixtures");
    let mut compared = 0;
    for case in golden.cases.iter().filter(|case| case.refuse.is_none()) {
        let (_folder, loaded) = load(case);
        let mut loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let sequences: Vec<Sequence> = case.inputs.iter().map(sequence).collect();
        let outputs = run_in_batches(&mut loaded.engine, &sequences).expect("all inputs run");
        let flat: Vec<f32> = outputs.into_iter().flat_map(|output| output.data).collect();
        let kind =
            ["hidden", "embeddings", "logits"].into_iter().find(|kind| golden.output(&case.name, kind).is_some());
        assert_close(case, kind.expect("one kind of output"), &flat, &golden);
        compared += 1;
    }
    assert!(compared > 30, "only {compared} cases were compared");
}

#[test]
fn texts_are_answered_as_by_the_python_libraries() {
    let golden = Golden::open().expect("fixtures");
    let mut compared = 0;
    for case in golden.cases.iter().filter(|case| case.refuse.is_none()) {
        let (_folder, loaded) = load(case);
        let mut loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let task: Task = case.task.parse().expect("a known task");
        let kinds = ["scores", "embeddings", "hidden"];
        let (kind, (expected, width)) = kinds
            .into_iter()
            .find_map(|kind| golden.output(&case.name, kind).map(|output| (kind, output)))
            .expect("one kind of output");
        let mut start = 0;
        for input in &case.inputs {
            let rows = if kind == "hidden" { input.ids.len() } else { 1 };
            let range = start * width..(start + rows) * width;
            start += rows;
            let Some(body) = body(input) else { continue };
            let request = Request::parse(task, body.to_string().as_bytes()).expect("a valid request");
            let job = Job::prepare(&loaded.model, request).expect("a request that the model takes");
            assert_eq!(job.sequences, [sequence(input)], "{}: {body}", case.name);
            let reply = ask(&mut loaded, task, &body);
            let distance = distance(&numbers(&reply, &loaded), &expected[range]);
            assert!(distance <= TOLERANCE, "{}: {body}: off by {distance:e}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} texts were compared");
}

#[test]
fn unsupported_fields_are_refused_by_name() {
    let golden = Golden::open().expect("fixtures");
    for case in &golden.cases {
        let Some(field) = &case.refuse else { continue };
        let (_folder, loaded) = load(case);
        let Err(error) = loaded else { panic!("{} was accepted", case.name) };
        assert!(error.to_string().contains(&format!("`{field}`")), "{}: {error}", case.name);
    }
}

#[test]
fn engines_refuse_what_they_cannot_run() {
    let golden = Golden::open().expect("fixtures");
    let (_folder, loaded) = load(golden.case("bert-tiny").expect("bert-tiny"));
    let mut loaded = loaded.expect("loads");
    let limits = loaded.engine.limits();
    let mut run = |sequence: Sequence| -> Result<Vec<Output>, _> { loaded.engine.run(&[&sequence]) };
    assert!(run(Sequence::from_ids(vec![])).is_err());
    assert!(run(Sequence::from_ids(vec![limits.vocabulary as u32])).is_err());
    assert!(run(Sequence::from_ids(vec![1; limits.max_tokens_per_sequence + 1])).is_err());
    assert!(run(Sequence { ids: vec![1, 2], type_ids: vec![0], ..Sequence::default() }).is_err());
    assert!(run(Sequence { ids: vec![1, 2], type_ids: vec![0, 9], ..Sequence::default() }).is_err());
    assert!(run(Sequence::from_ids(vec![1, 2])).is_ok());
}
