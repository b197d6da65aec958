//! `centuple dedupe`: which lines say the same.

use std::fs;
use std::io::Write;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Finished, Process, centuple, finish};
use crate::tiny::Tiny;

fn command(file: &str, model: &Tiny) -> Command {
    let mut command = centuple("dedupe");
    command.arg(file).arg("--model").arg(model.path());
    command
}

fn answers(finished: &Finished) -> Vec<Value> {
    finished.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The representative of each line.
fn representatives(finished: &Finished) -> Vec<u64> {
    answers(finished).iter().map(|answer| answer["representative"].as_u64().expect("a line")).collect()
}

/// Texts with exact duplicates, as JSON Lines, and the line that each of them repeats.
fn repeated(count: u64) -> (String, Vec<u64>) {
    let original = |line: u64| if line % 5 == 4 { line / 2 } else { line };
    let root = |mut line| {
        while original(line) != line {
            line = original(line);
        }
        line
    };
    let text = |line: u64| format!("{} {line} {}", "weather film ".repeat(line as usize * 7 % 11), line * line);
    let lines = (0..count).map(|line| format!("{}\n", json!({"text": text(root(line))}))).collect();
    (lines, (0..count).map(|line| root(line) + 1).collect())
}

#[test]
fn the_same_texts_have_one_representative() {
    let model = Tiny::new("sentence-normalize");
    let (input, expected) = repeated(3000);
    let finished = finish(command("-", &model).args(["--threshold", "1"]), input.as_bytes());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let answers = answers(&finished);
    assert_eq!(answers.len(), 3000);
    for (line, (answer, expected)) in (1u64..).zip(answers.iter().zip(&expected)) {
        assert_eq!(answer["line"], line);
        let found = answer["representative"].as_u64().expect("a line");
        assert!(found <= *expected, "line {line} has {found} and not {expected}, nor one that resembles it");
        assert_eq!(answer["similarity"], 1.0);
        let of = &answers[found as usize - 1];
        assert_eq!(of["representative"], found, "a representative represents itself");
        assert_eq!(answers[*expected as usize - 1]["representative"], found, "the same text has the same answer");
    }
}

#[test]
fn threads_pipes_and_parts_change_nothing() {
    let model = Tiny::new("sentence-mean");
    let (input, _) = repeated(800);
    let run = |threads: &str| finish(command("-", &model).args(["--threads", threads]), input.as_bytes()).stdout;
    let once = run("1");
    assert!(!once.is_empty() && run("3") == once);
    let mut process = Process::spawn(&mut command("-", &model));
    let (mut pipe, output) = (process.stdin(), process.stdout());
    for (place, part) in input.as_bytes().chunks(input.len() / 7).enumerate() {
        pipe.write_all(part).expect("the process reads");
        if place == 3 {
            assert!(output.next().is_some_and(|line| line.starts_with("{\"line\":1,")), "it answers before the end");
        }
    }
    drop(pipe);
    let rest = output.rest();
    let once = String::from_utf8(once).expect("UTF-8");
    assert_eq!(rest, once.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn similar_texts_join_and_others_do_not() {
    let model = Tiny::new("sentence-normalize");
    // The cosine of two of the texts, as the tool that gives it says.
    let texts = ["what a film", "what a film !", "the weather in 1999 was good"];
    let body = json!({"inputs": {"source_sentence": texts[0], "sentences": texts[1..]}}).to_string();
    let known = finish(centuple("run").arg("sentence-similarity").arg(model.path()), body.as_bytes());
    let known: Vec<f64> = serde_json::from_str(known.text()).expect("two numbers");
    assert!(known[0] > known[1], "{known:?}");
    let input: String = texts.iter().map(|text| format!("{text}\n")).collect();
    let between = format!("{:.3}", (known[0] + known[1]) / 2.0);
    let finished = finish(command("-", &model).args(["--threshold", &between]), input.as_bytes());
    assert_eq!(finished.stderr, "3 texts: 2 kept, 1 duplicates\n");
    assert_eq!(representatives(&finished), [1, 1, 3]);
    let found = answers(&finished)[1]["similarity"].as_f64().expect("a number");
    assert!((found - known[0]).abs() <= 0.001, "{found}, not {}", known[0]);
    let low = format!("{:.3}", (known[1] - 0.002).max(0.001));
    let finished = finish(command("-", &model).args(["--threshold", &low]), input.as_bytes());
    assert_eq!(representatives(&finished), [1, 1, 1]);
}

#[test]
fn lines_to_keep_are_printed_as_they_are() {
    let model = Tiny::new("sentence-mean");
    let run = |name: &str, content: &str, flags: &[&str]| {
        let file = model.beside(name);
        fs::write(&file, content).expect("temporary folders can be written");
        let file = file.to_str().expect("UTF-8");
        finish(command(file, &model).args(["--threshold", "1"]).args(flags), b"")
    };
    let jsonl =
        "{\"id\": 1, \"text\": \"what a film\"}\n\n{ \"text\":\"what a film\" }\n{\"inputs\": \"7 good weather\"}";
    let finished = run("a.jsonl", jsonl, &["--unique"]);
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.text(), "{\"id\": 1, \"text\": \"what a film\"}\n{\"inputs\": \"7 good weather\"}\n");
    let csv = "id,text\r\n1,\"what, a\nfilm\"\r\n2,weather\r\n3,\"what, a\nfilm\"\r\n";
    assert_eq!(run("a.csv", csv, &["--unique"]).text(), "id,text\r\n1,\"what, a\nfilm\"\r\n2,weather\r\n");
    assert_eq!(representatives(&run("a.csv", csv, &[])), [2, 4, 2]);
    let tsv = "headline\tid\nweather\t1\nweather\t2\n";
    assert_eq!(run("a.tsv", tsv, &["--unique", "--field", "headline"]).text(), "headline\tid\nweather\t1\n");
    let finished = run("a.txt", "a\nweather\na\n\na\n", &["--clusters"]);
    let members = json!([{"line": 3, "similarity": 1.0}, {"line": 5, "similarity": 1.0}]);
    assert_eq!(answers(&finished), [json!({"representative": 1, "members": members})]);
}

#[test]
fn bad_lines_are_told_and_left_out() {
    let model = Tiny::new("sentence-mean");
    let input =
        b"{\"text\": \"a\"}\nnonsense\n{\"text\": 5}\n\n{\"text\": \"\xff\"}\n{\"other\": \"a\"}\n{\"text\": \"a\"}\n";
    let finished = finish(&mut command("-", &model), input);
    assert_eq!(finished.code, Some(1));
    let answers = answers(&finished);
    assert_eq!(answers.len(), 6);
    assert_eq!(answers[5], json!({"line": 7, "representative": 1, "similarity": 1.0}));
    for (answer, words) in answers[1..].iter().zip(["JSON object", "not a text", "JSON object", "--field"]) {
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(words)), "{answer}: {words}");
    }
    let finished = finish(command("-", &model).arg("--unique"), input);
    assert_eq!((finished.code, finished.text()), (Some(1), "{\"text\": \"a\"}\n"));
    assert_eq!(finished.stderr.lines().count(), 5, "{}", finished.stderr);
    assert!(finished.stderr.starts_with("line 2: ") && finished.stderr.contains("4 lines could not be read"));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let model = Tiny::new("sentence-mean");
    for threshold in ["0", "-1", "1.5", "nan", "much"] {
        let finished = finish(command("-", &model).args(["--threshold", threshold]), b"a\n");
        assert_eq!((finished.code, finished.text()), (Some(2), ""), "{threshold}");
    }
    let failure = |file: &str, model: &Tiny, flags: &[&str]| {
        finish(command(file, model).args(flags), b"a,b\n1,2\n").failure(1).to_owned()
    };
    assert!(failure("missing.txt", &model, &[]).contains("missing.txt"));
    assert!(failure(model.path().to_str().expect("UTF-8"), &model, &[]).contains("folder"));
    let column = failure("-", &model, &["--format", "csv"]);
    assert!(column.contains("--field") && column.contains("a, b"), "{column}");
    assert!(failure("-", &model, &["--field", "b"]).contains("--format"));
    assert!(failure("-", &Tiny::new("classify"), &[]).contains("no embedding"));
}

#[test]
fn nothing_has_no_duplicates() {
    let model = Tiny::new("sentence-mean");
    let finished = finish(&mut command("-", &model), b"");
    assert_eq!((finished.code, finished.text()), (Some(0), ""));
}

#[test]
fn a_reader_that_leaves_early_ends_it_quietly() {
    let model = Tiny::new("sentence-mean");
    let mut process = Process::spawn(&mut command("-", &model));
    let (mut input, errors) = (process.stdin(), process.stderr());
    drop(process.0.stdout.take());
    // Writing fails once the process has ended, which is what is waited for.
    while input.write_all(b"nobody reads this\n").is_ok() {}
    process.wait();
    assert_eq!(errors.rest(), [""; 0]);
}

#[test]
fn no_file_is_left_behind() {
    let model = Tiny::new("sentence-mean");
    let folder = model.beside("temporary");
    fs::create_dir(&folder).expect("temporary folders can be written");
    let mut process = Process::spawn(command("-", &model).env("TMPDIR", &folder));
    let (mut input, output) = (process.stdin(), process.stdout());
    writeln!(input, "one").expect("the process reads");
    assert!(output.next().is_some());
    process.signal("TERM");
    assert!(!process.wait().success());
    assert_eq!(fs::read_dir(&folder).expect("the folder is there").count(), 0);
    let missing = folder.join("missing");
    let finished = finish(command("-", &model).env("TMPDIR", &missing), b"one\n");
    assert!(finished.failure(1).contains("TMPDIR"), "{}", finished.stderr);
}
