//! `centuple serve --without STAGES`: what is left out for measuring changes no answer.

use std::path::PathBuf;

use centuple_testkit::FamilyGolden;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Server;
use crate::tiny::{TOLERANCE, Tiny};

/// What a server without these stages answers to each body, all of them at once.
fn answers(model: PathBuf, flags: &[&str], bodies: &[Value]) -> Vec<Value> {
    let server = &Server::start(&[model], flags);
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            bodies.iter().map(|body| scope.spawn(move || server.post("/", body.to_string()).json())).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    })
}

#[test]
fn texts_are_computed_alone_padded_and_unfused() {
    let model = Tiny::new("sentence-mean");
    let texts = |count: usize| (0..count).map(|index| format!("{index} {}", "what a great film ".repeat(index % 7)));
    let bodies: Vec<Value> = (1..9).map(|count| json!({"inputs": texts(3 * count).collect::<Vec<_>>()})).collect();
    let whole = answers(model.path(), &[], &bodies);
    for stages in ["packing", "batching", "packing,batching"] {
        assert!(answers(model.path(), &["--without", stages], &bodies) == whole, "{stages}");
    }
    let unfused = answers(model.path(), &["--without", "fusion"], &bodies);
    let numbers = |answers: Vec<Value>| -> Vec<f32> {
        let answers = answers.into_iter().map(serde_json::from_value::<Vec<Vec<f32>>>);
        answers.flat_map(|answer| answer.expect("embeddings").concat()).collect()
    };
    let (unfused, whole) = (numbers(unfused), numbers(whole));
    assert_eq!(unfused.len(), whole.len());
    assert!(unfused.iter().zip(&whole).all(|(one, other)| (one - other).abs() < TOLERANCE));
}

#[test]
fn generated_texts_are_computed_anew_for_each_token() {
    let folder = TempDir::new().expect("a temporary folder");
    let families = FamilyGolden::all().expect("the fixtures are there");
    let family = families.iter().find(|family| family.name == "llama").expect("the family");
    let case = family.cases.iter().find(|case| case.name == "causal").expect("the case");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let bodies = |beams: usize| {
        let text = |length: usize| "weatherreport".chars().cycle().take(length).collect::<String>();
        let body = |length| json!({"inputs": text(length), "parameters": {"max_new_tokens": 40, "num_beams": beams}});
        [3, 20, 40, 40, 70].map(body)
    };
    for beams in [1, 3] {
        let whole = answers(folder.path().to_owned(), &[], &bodies(beams));
        assert!(whole.iter().all(|answer| answer[0]["generated_text"].is_string()), "{whole:?}");
        // Beams are several texts at once.
        let without: &[&str] = if beams == 1 { &["kv-cache", "batching", "kv-cache,batching"] } else { &["kv-cache"] };
        for stages in without {
            assert_eq!(answers(folder.path().to_owned(), &["--without", stages], &bodies(beams)), whole, "{stages}");
        }
    }
}
