//! `centuple optimize`: artefacts with receipts, budgets that are kept, and nothing left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::http::Server;
use crate::process::{Process, centuple, finish};
use crate::tiny::Tiny;

/// A budget that every precision of a tiny model keeps.
const GENEROUS: [&str; 2] = ["--max-drop", "50"];

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Examples for `classify`, as many of each label as a search and a verdict need.
fn labelled(model: &Tiny) -> Vec<u8> {
    let labels = json_of(&model.path().join("config.json"))["id2label"].clone();
    let labels: Vec<String> =
        labels.as_object().expect("labels").values().map(|label| label.as_str().expect("a name").to_owned()).collect();
    let line =
        |index: usize| json!({"inputs": format!("example number {index}"), "label": labels[index % labels.len()]});
    (0..60).map(|index| format!("{}\n", line(index))).collect::<String>().into_bytes()
}

#[test]
fn an_artefact_is_a_model_like_any_other() {
    let model = Tiny::new("sentence-all");
    let artefact = model.beside("artefact");
    let finished = finish(centuple("optimize").arg(model.path()).arg("-o").arg(&artefact).args(GENEROUS), b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    assert!(finished.text().contains("mean cosine") && finished.text().contains("report.html"), "{}", finished.text());

    let receipt = json_of(&artefact.join("report.json"));
    assert_eq!(receipt["findings"]["verdict"], "unlabelled");
    assert_eq!(json_of(&artefact.join("centuple.json"))["receipt"], receipt["findings"]);
    let html = fs::read_to_string(artefact.join("report.html")).expect("a page");
    assert!(html.starts_with("<!DOCTYPE html>") && !html.contains("http://") && !html.contains("https://"));

    let body = br#"{"inputs": "a text"}"#;
    for (command, flags) in [("inspect", &[][..]), ("bench", &["--shapes", "1x4", "--repeat", "2", "--json"])] {
        let finished = finish(centuple(command).arg(&artefact).args(flags), b"");
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{command}");
        assert!(finished.text().contains("int8"), "{}", finished.text());
    }
    let run =
        |folder: &Path, flags: &[&str]| finish(centuple("run").arg("feature-extraction").arg(folder).args(flags), body);
    let answered = run(&artefact, &[]);
    assert_eq!((answered.code, answered.stderr.as_str()), (Some(0), ""));
    assert_eq!(run(&artefact, &["--precision", "int8"]).stdout, answered.stdout);
    assert!(run(&artefact, &["--precision", "f32"]).failure(1).contains("optimised to int8, not f32"));
}

#[test]
fn the_same_flags_give_the_same_bytes() {
    let model = Tiny::new("classify");
    model.write("examples.jsonl", labelled(&model));
    let files = |name: &str| {
        let artefact = model.beside(name);
        let eval = model.path().join("examples.jsonl");
        let mut command = centuple("optimize");
        command.arg(model.path()).arg("-o").arg(&artefact).arg("--eval").arg(eval).args(GENEROUS);
        assert_eq!(finish(&mut command, b"").code, Some(0));
        let kept = names(&artefact).into_iter().filter(|name| !name.starts_with("report."));
        kept.map(|name| (name.clone(), fs::read(artefact.join(name)).expect("a file"))).collect::<BTreeMap<_, _>>()
    };
    assert!(files("one") == files("two"));
}

#[test]
fn labels_make_a_verdict_that_can_be_checked() {
    let model = Tiny::new("classify");
    model.write("examples.jsonl", labelled(&model));
    let artefact = model.beside("artefact");
    let mut command = centuple("optimize");
    command.arg(model.path()).arg("-o").arg(&artefact).args(["--seed", "3", "--resamples", "200"]).args(GENEROUS);
    let finished = finish(command.arg("--eval").arg(model.path().join("examples.jsonl")), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let findings = &json_of(&artefact.join("report.json"))["findings"];
    assert_eq!(
        (&findings["verdict"], &findings["seed"], &findings["resamples"]),
        (&json!("met"), &json!(3), &json!(200))
    );
    let lines = fs::read_to_string(artefact.join("predictions.jsonl")).expect("predictions");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let share = |key: &str| lines.iter().filter(|line| line[key] == line["label"]).count() as f64 / lines.len() as f64;
    let stated = |key: &str| findings["accuracy"][key]["value"].as_f64().expect("a number");
    assert!((stated("baseline") - 100.0 * share("f32")).abs() < 1e-9, "{findings}");
    assert!((stated("optimised") - 100.0 * share("optimised")).abs() < 1e-9, "{findings}");
    let dataset = &findings["dataset"];
    assert_eq!(dataset["verdict_examples"], lines.len());
    assert_eq!(dataset["search_examples"].as_u64().expect("a number") + lines.len() as u64, 60);
    assert!(findings["warnings"][0].as_str().expect("a warning").contains("fewer than 500"));
}

#[test]
fn a_budget_that_cannot_be_kept_is_refused() {
    let model = Tiny::new("sentence-all");
    let artefact = model.beside("artefact");
    let optimize = |flags: &[&str]| {
        finish(centuple("optimize").arg(model.path()).arg("-o").arg(&artefact).args(GENEROUS).args(flags), b"")
    };
    let refused = optimize(&["--budget-ms", "0.000001"]);
    assert!(refused.failure(1).contains("the budget is 0.000001 ms"), "{refused:?}");
    assert!(refused.text().contains("model"), "the receipt is shown all the same: {}", refused.text());
    assert_eq!(names(artefact.parent().expect("a folder")), ["sentence-all"], "nothing is left");
    let kept = optimize(&["--budget-ms", "0.000001", "--keep-over-budget"]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert!(kept.text().contains("all the same"), "{}", kept.text());
}

#[test]
fn every_precision_can_be_asked_for() {
    let model = Tiny::new("sentence-all");
    for precision in ["auto", "f32", "f16", "int8"] {
        let artefact = model.beside(precision);
        let mut command = centuple("optimize");
        let finished = finish(
            command.arg(model.path()).arg("-o").arg(&artefact).args(["--precision", precision]).args(GENEROUS),
            b"",
        );
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let stated = json_of(&artefact.join("centuple.json"))["precision"].clone();
        assert!(precision == "auto" || stated == precision, "{stated}");
    }
}

#[test]
fn mistakes_are_named() {
    let model = Tiny::new("classify");
    model.write("examples.jsonl", labelled(&model));
    let line = |index: usize| format!("{{\"inputs\": \"text {index}\", \"label\": \"no such label\"}}\n");
    model.write("no-label.jsonl", (0..20).map(line).collect::<String>());
    model.write("pairs.tsv", "score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n3\te\tf\n4\tg\th\n");
    model.write("broken.jsonl", "{\"inputs\": \n");
    let artefact = model.beside("artefact");
    let optimize = |flags: &[&str]| {
        let mut command = centuple("optimize");
        let finished =
            finish(command.current_dir(model.path()).arg(model.path()).arg("-o").arg(&artefact).args(flags), b"");
        assert!(!artefact.exists());
        finished
    };
    for (flags, expected) in [
        (&["--eval", "none.jsonl"][..], "none.jsonl"),
        (&["--eval", "config.xml"], "config.xml"),
        (&["--eval", "broken.jsonl"], "broken.jsonl"),
        (&["--eval", "no-label.jsonl"], "no label `no such label`"),
        (&["--eval", "pairs.tsv"], "similarity"),
        (&["--eval", "examples.jsonl", "--eval-column", "label=stars"], "stars"),
        (&["--eval", "examples.jsonl", "--metric", "spearman"], "accuracy"),
        (&["--eval", "examples.jsonl", "--verdict-share", "1"], "between 0 and 1"),
    ] {
        let finished = optimize(flags);
        assert!(finished.failure(1).contains(expected), "{flags:?}: {}", finished.stderr);
    }
    for flags in [
        &["--max-drop", "-1"][..],
        &["--max-drop", "NaN"],
        &["--eval-column", "label"],
        &["--eval-column", "colour=red"],
        &["--metric", "bleu"],
        &["--precision", "int5"],
        &["--resamples", "0"],
    ] {
        assert_eq!(optimize(flags).code, Some(2), "{flags:?}");
    }
}

#[test]
fn what_is_no_artefact_is_not_replaced() {
    let model = Tiny::new("sentence-all");
    let optimize =
        |from: &Path, to: &Path| finish(centuple("optimize").arg(from).arg("-o").arg(to).args(GENEROUS), b"");
    let before = names(&model.path());
    assert!(optimize(&model.path(), &model.path()).failure(1).contains("is no artefact"));
    assert_eq!(names(&model.path()), before);
    let artefact = model.beside("artefact");
    for _ in 0..2 {
        assert_eq!(optimize(&model.path(), &artefact).code, Some(0));
    }
    let again = optimize(&artefact, &model.beside("again"));
    assert!(again.failure(1).contains("optimised already"), "{again:?}");
}

#[test]
fn ctrl_c_leaves_nothing() {
    let model = Tiny::new("sentence-all");
    let artefact = model.beside("artefact");
    let mut command = centuple("optimize");
    // More layers' worth of work than the signal takes to arrive.
    let mut process = Process::spawn(command.arg(model.path()).arg("-o").arg(&artefact).args(GENEROUS));
    let errors = process.stderr();
    // Timing alone takes longer than this.
    std::thread::sleep(std::time::Duration::from_millis(300));
    process.signal("INT");
    assert_eq!(process.wait().code(), Some(130));
    assert_eq!(errors.rest(), ["stopped; nothing was written"]);
    assert_eq!(names(artefact.parent().expect("a folder")), ["sentence-all"]);
}

/// An artefact of a tiny model.
fn optimized(model: &Tiny, name: &str, flags: &[&str]) -> std::path::PathBuf {
    let artefact = model.beside(name);
    let mut command = centuple("optimize");
    let finished = finish(command.arg(model.path()).arg("-o").arg(&artefact).args(flags), b"");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    artefact
}

#[test]
fn a_server_shows_the_receipt() {
    let model = Tiny::new("sentence-all");
    let artefact = optimized(&model, "artefact", &GENEROUS);
    let server = Server::start(std::slice::from_ref(&artefact), &[]);
    let page = server.get("/report");
    assert_eq!((page.status, page.body), (200, fs::read_to_string(artefact.join("report.html")).expect("a page")));
    assert_eq!(server.get("/report.json").json(), json_of(&artefact.join("report.json")));
    let plain = Server::start(&[model.path()], &[]);
    assert_eq!(plain.get("/report").status, 404);
}

#[test]
fn a_model_over_its_budget_is_served_only_on_demand() {
    let model = Tiny::new("sentence-all");
    let artefact = optimized(&model, "artefact", &["--max-drop", "0", "--evaluations", "1", "--keep-over-budget"]);
    assert_eq!(json_of(&artefact.join("report.json"))["findings"]["verdict"], "over");
    let finished = finish(centuple("serve").args(["--port", "0"]).arg(&artefact), b"");
    assert!(finished.code == Some(1) && finished.stderr.contains("--accept-over-budget"), "{}", finished.stderr);
    let server = Server::start(&[artefact], &["--accept-over-budget"]);
    assert_eq!(server.post("/", r#"{"inputs": "a text"}"#).status, 200);
}

#[test]
fn a_shadow_measures_the_drift() {
    let (model, other) = (Tiny::new("sentence-all"), Tiny::new("sentence-dense"));
    let artefact = optimized(&model, "artefact", &GENEROUS);
    let [source, foreign] = [&model, &other].map(|model| model.path().display().to_string());
    let served = |folder: &Path, flags: &[&str]| {
        let server = Server::start(&[folder.to_owned()], flags);
        for index in 0..4 {
            assert_eq!(server.post("/", json!({"inputs": format!("text {index}")}).to_string()).status, 200);
        }
        let limit = std::time::Instant::now() + crate::process::PATIENCE;
        loop {
            let metrics = server.get("/metrics").body;
            let compared = metrics.lines().find_map(|line| {
                line.starts_with("te_shadow_compared{").then(|| line.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
            });
            if compared == Some(4) {
                assert!(metrics.contains("te_shadow_drift_worst"), "{metrics}");
                break;
            }
            assert!(std::time::Instant::now() < limit, "{metrics}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    served(&artefact, &["--shadow", "1", "--shadow-model", &source]);
    served(&model.path(), &["--shadow", "1", "--precision", "int8"]);
    for (flags, expected) in [
        (&["--shadow", "1"][..], "--shadow-model"),
        (&["--shadow", "1", "--shadow-model", &foreign], "is not the model that"),
    ] {
        let finished = finish(centuple("serve").args(["--port", "0"]).arg(&artefact).args(flags), b"");
        assert!(finished.code == Some(1) && finished.stderr.contains(expected), "{flags:?}: {}", finished.stderr);
    }
    for flags in [&["--shadow", "2"][..], &["--shadow", "x"], &["--shadow-model", "m"]] {
        assert_eq!(finish(centuple("serve").arg(&artefact).args(flags), b"").code, Some(2), "{flags:?}");
    }
}
