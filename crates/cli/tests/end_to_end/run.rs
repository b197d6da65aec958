//! `centuple run`: JSON Lines in, JSON Lines out.

use std::fs;
use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Finished, Process, centuple, finish};
use crate::tiny::Tiny;

fn command(task: &str, model: &Tiny) -> Command {
    let mut command = centuple("run");
    command.arg(task).arg(model.path());
    command
}

/// The lines of a run that answers each line of its input.
fn answers(finished: &Finished) -> Vec<Value> {
    finished.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn numbers(answer: &Value) -> Vec<f32> {
    serde_json::from_value(answer.clone()).expect("a list of numbers")
}

fn lines(bodies: impl IntoIterator<Item = Value>) -> String {
    bodies.into_iter().map(|body| format!("{body}\n")).collect()
}

#[test]
fn embeddings_are_those_of_pytorch() {
    let model = Tiny::new("sentence-normalize");
    let known = model.known("embeddings");
    let finished = finish(&mut command("feature-extraction", &model), lines(known.iter().map(|k| k.body())).as_bytes());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let answers = answers(&finished);
    assert_eq!(answers.len(), known.len());
    known.iter().zip(&answers).for_each(|(known, answer)| known.assert_is(&numbers(answer)));
    assert!(known.iter().any(|known| known.text.is_empty()), "the empty text is among them");
}

#[test]
fn labels_are_those_of_pytorch() {
    let model = Tiny::new("classify");
    let known = model.known("scores");
    let finished =
        finish(&mut command("text-classification", &model), lines(known.iter().map(|k| k.body())).as_bytes());
    assert_eq!(finished.code, Some(0));
    for (known, answer) in known.iter().zip(answers(&finished)) {
        let score = |label: &str| {
            let scores = answer[0].as_array().expect("one list per text");
            let found = scores.iter().find(|score| score["label"] == label).expect("every label");
            found["score"].as_f64().expect("a number") as f32
        };
        known.assert_is(&["bad", "neutral", "good"].map(score));
    }
}

#[test]
fn similarities_are_cosines() {
    let model = Tiny::new("sentence-mean");
    let known = model.known("embeddings");
    let sentences: Vec<&str> = known.iter().map(|known| known.text).collect();
    let body = json!({"inputs": {"source_sentence": sentences[0], "sentences": sentences[1..]}});
    let finished = finish(&mut command("sentence-similarity", &model), body.to_string().as_bytes());
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let expected = known[1..].iter().map(|other| cosine(&known[0].expected, &other.expected));
    for (found, expected) in numbers(&answers(&finished)[0]).into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
}

#[test]
fn thousands_of_lines_keep_their_order() {
    let model = Tiny::new("sentence-mean");
    let text = |line: usize| format!("{line} {}", "weather ".repeat(line * 7 % 40));
    let distinct = 100;
    let alone: Vec<String> = (0..distinct)
        .map(|line| {
            let body = json!({"inputs": [text(line)]});
            body.to_string()
        })
        .collect();
    let once = finish(&mut command("feature-extraction", &model), alone.join("\n").as_bytes());
    let expected: Vec<&str> = once.text().lines().collect();
    assert_eq!(expected.len(), distinct);
    let order: Vec<usize> = (0..5000).map(|line| line * line * 31 % distinct).collect();
    let input: String = order.iter().map(|&line| format!("{}\n", alone[line])).collect();
    let finished = finish(&mut command("feature-extraction", &model), input.as_bytes());
    assert_eq!(finished.code, Some(0));
    let found: Vec<&str> = finished.text().lines().collect();
    assert_eq!(found.len(), order.len());
    for (&line, found) in order.iter().zip(found) {
        assert_eq!(found, expected[line], "bits differ in other company");
    }
}

#[test]
fn bad_lines_are_answered_in_place() {
    let model = Tiny::new("sentence-mean");
    let good = br#"{"inputs": "good"}"#;
    let cases: [(&[u8], &str); 12] = [
        (b"{", "not valid JSON"),
        (b"nonsense", "not valid JSON"),
        (b"{\"inputs\": \"\xff\xfe\"}", "not valid JSON"),
        (b"\x00\x01", "not valid JSON"),
        (b"{\"inputs\": \"a\"} {}", "not valid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{}", "inputs"),
        (b"{\"inputs\": []}", "empty list"),
        (b"{\"inputs\": 5}", "inputs"),
        (b"{\"inputs\": [\"a\", 5]}", "inputs[1]"),
        (b"{\"inputs\": \"a\", \"parameters\": {\"colour\": 1}}", "colour"),
    ];
    let mut input = good.to_vec();
    for (line, _) in cases {
        input.extend_from_slice(b"\n\n  \t\r\n");
        input.extend_from_slice(line);
        input.push(b'\n');
        input.extend_from_slice(good);
    }
    let finished = finish(&mut command("feature-extraction", &model), &input);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(1), ""));
    let answers = answers(&finished);
    assert_eq!(answers.len(), 1 + 2 * cases.len(), "empty lines have no answer");
    for (pair, (line, words)) in answers[1..].chunks(2).zip(cases) {
        let message = pair[0]["error"].as_str().unwrap_or_else(|| panic!("{pair:?}"));
        assert!(message.contains(words), "{}: {message}", line.escape_ascii());
        assert_eq!(pair[1], answers[0]);
    }
}

#[test]
fn other_tasks_than_the_models_are_refused_by_name() {
    let model = Tiny::new("classify");
    let finished = finish(
        &mut command("sentence-similarity", &model),
        br#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}}"#,
    );
    assert_eq!(finished.code, Some(1));
    let said = finished.text().to_owned() + &finished.stderr;
    assert!(said.contains("sentence-similarity") && said.contains("text-classification"), "{said}");
}

#[test]
fn long_texts_are_cut_and_long_lists_are_whole() {
    let model = Tiny::new("sentence-mean");
    let input = lines([
        json!({"inputs": "weather ".repeat((1 << 20) / 8)}),
        json!({"inputs": "w".repeat(1 << 20)}),
        json!({"inputs": "weather ".repeat(100)}),
        json!({"inputs": vec!["what a film"; 10_000]}),
        json!({"inputs": "what a film"}),
    ]);
    let finished = finish(&mut command("feature-extraction", &model), input.as_bytes());
    assert_eq!(finished.code, Some(0));
    let answers = answers(&finished);
    assert_eq!(answers[0], answers[2], "both are cut at the same token");
    assert_eq!(numbers(&answers[1]).len(), 48);
    assert_eq!(answers[3].as_array().map(Vec::len), Some(10_000));
    assert!(answers[3].as_array().is_some_and(|rows| rows.iter().all(|row| *row == answers[4])));
}

#[test]
fn a_line_without_end_is_refused() {
    let model = Tiny::new("sentence-mean");
    let good = br#"{"inputs": "good"}"#;
    let long = vec![b'x'; (64 << 20) + 1];
    let input = [&good[..], b"\n", &long, b"\n", good].concat();
    let finished = finish(&mut command("feature-extraction", &model), &input);
    assert_eq!(finished.code, Some(1));
    let answers = answers(&finished);
    assert_eq!((answers.len(), &answers[0]), (3, &answers[2]));
    assert!(answers[1]["error"].as_str().is_some_and(|message| message.contains("longer than 67108864 bytes")));
}

#[test]
fn requests_come_from_a_file_too() {
    let model = Tiny::new("sentence-mean");
    let body = r#"{"inputs": "from a file"}"#;
    let file = model.beside("requests.jsonl");
    // The last line needs no end.
    fs::write(&file, format!("{body}\r\n{body}")).expect("temporary folders can be written");
    let from_file = finish(command("feature-extraction", &model).arg("--input").arg(&file), b"");
    let from_pipe =
        finish(command("feature-extraction", &model).args(["--input", "-"]), format!("{body}\n{body}\n").as_bytes());
    assert_eq!((from_file.code, from_pipe.code), (Some(0), Some(0)));
    assert_eq!(from_file.text(), from_pipe.text());
    let nothing = finish(&mut command("feature-extraction", &model), b"");
    assert_eq!((nothing.code, nothing.text()), (Some(0), ""));
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    let model = Tiny::new("sentence-mean");
    let missing = model.beside("missing.jsonl");
    let finished = finish(command("feature-extraction", &model).arg("--input").arg(&missing), b"");
    assert!(finished.failure(1).contains("missing.jsonl"));
    let finished = finish(command("feature-extraction", &model).arg("--input").arg(model.path()), b"");
    assert!(finished.failure(1).contains("folder"));
}

#[test]
fn a_line_is_answered_while_the_input_stays_open() {
    let model = Tiny::new("sentence-mean");
    let mut process = Process::spawn(&mut command("feature-extraction", &model));
    let (mut input, output) = (process.stdin(), process.stdout());
    for text in ["first", "second"] {
        writeln!(input, "{}", json!({"inputs": text})).expect("the process reads");
        let answer: Value = serde_json::from_str(&output.next().expect("an answer")).expect("JSON");
        assert_eq!(numbers(&answer).len(), 48);
    }
    drop(input);
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(output.next(), None);
}

#[test]
fn a_reader_that_leaves_early_ends_it_quietly() {
    let model = Tiny::new("sentence-mean");
    let mut process = Process::spawn(&mut command("feature-extraction", &model));
    let (mut input, errors) = (process.stdin(), process.stderr());
    drop(process.0.stdout.take());
    let line = format!("{}\n", json!({"inputs": "nobody reads this"}));
    // Writing fails once the process has ended, which is what is waited for.
    while input.write_all(line.as_bytes()).is_ok() {}
    process.wait();
    assert_eq!(errors.rest(), [""; 0]);
}

#[test]
fn instruction_sets_and_threads_are_chosen() {
    let model = Tiny::new("sentence-mean");
    let known = model.known("embeddings");
    let input = lines(known.iter().map(|known| known.body()));
    let run = |flags: &[&str]| finish(command("feature-extraction", &model).args(flags), input.as_bytes());
    let portable = run(&["--isa", "portable", "--threads", "1"]);
    for (known, answer) in known.iter().zip(answers(&portable)) {
        known.assert_is(&numbers(&answer));
    }
    assert_eq!(portable.text(), run(&["--isa", "portable", "--threads", "3"]).text());
}

#[test]
fn smaller_precisions_stay_close() {
    let model = Tiny::new("sentence-normalize");
    let known = model.known("embeddings");
    let input = lines(known.iter().map(|known| known.body()));
    for (precision, least) in [("f16", 0.9999), ("int8", 0.99)] {
        let run = || finish(command("feature-extraction", &model).args(["--precision", precision]), input.as_bytes());
        let finished = run();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        for (known, answer) in known.iter().zip(answers(&finished)) {
            let cosine = numbers(&answer).iter().zip(&known.expected).map(|(a, b)| a * b).sum::<f32>();
            assert!(cosine > least, "{precision}: {:?} is off by a cosine of {cosine}", known.text);
        }
        assert_eq!(finished.text(), run().text());
    }
}
