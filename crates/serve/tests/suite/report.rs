//! `GET /report`: what an optimised model cost in accuracy, for people and programs.

use std::sync::Arc;

use centuple_serve::{Config, Report, ServedModel};
use centuple_tasks::{Model, Problem};

use crate::harness::{Running, config, served, tiny};

const PAGE: &str = "<!doctype html><title>Receipt</title><p>√ten";
const JSON: &str = r#"{"cosine":0.9988}"#;

fn plain(id: &str, mut model: Model) -> ServedModel {
    model.card.id = id.into();
    let engine = tiny::Tiny::new(&model);
    served(model, engine)
}

fn reported(id: &str) -> ServedModel {
    let report = Report { html: PAGE.into(), json: JSON.into() };
    ServedModel { report: Some(Arc::new(report)), ..plain(id, tiny::embedder(true)) }
}

/// The first has no report, the second one has.
fn two() -> Running {
    let first = plain("sentiment", tiny::classifier(Problem::SingleLabel));
    Running::with_models(config(), vec![first, reported("org/fast & small")])
}

#[test]
fn a_browser_gets_a_page_that_can_load_nothing() {
    let server = Running::with_models(config(), vec![reported("test/tiny")]);
    let browser = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")];
    for headers in [&browser[..], &[("accept", "*/*")], &[]] {
        let answer = server.connect().request("GET", "/report", headers, b"");
        assert_eq!((answer.status, answer.body.as_str()), (200, PAGE));
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; style-src 'unsafe-inline'"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("vary"), Some("accept"));
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn a_program_gets_json() {
    let server = Running::with_models(config(), vec![reported("test/tiny")]);
    let asked = server.connect().request("GET", "/report", &[("accept", "application/json")], b"");
    assert_eq!(asked.header("vary"), Some("accept"));
    // That path is JSON whatever is asked for.
    let named = server.connect().request("GET", "/report.json", &[("accept", "text/html")], b"");
    for answer in [asked, named] {
        assert_eq!((answer.status, answer.body.as_str()), (200, JSON));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn models_are_told_apart_and_may_have_no_report() {
    let server = two();
    for path in ["/report", "/report.json"] {
        let body = if path == "/report" { PAGE } else { JSON };
        for query in ["?model=org/fast+%26+small", "?x=1&model=org%2Ffast%20%26%20small"] {
            let answer = server.get(&format!("{path}{query}"));
            assert_eq!((answer.status, answer.body.as_str()), (200, body));
        }
    }
    let mut answers = String::new();
    for path in [
        "/report",
        "/report.json",
        "/report?model=sentiment",
        "/report?model=fast",
        "/report?model=",
        "/report?model=a&model=b",
        "/report?model=%FF",
        "/report/",
        "/report.html",
    ] {
        let answer = server.get(path);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answers += &format!("GET {path}\n  {}\n", answer.line());
    }
    insta::assert_snapshot!(answers);
}

#[test]
fn the_information_says_which_models_have_one() {
    let info = two().get("/info").json();
    assert_eq!((&info["report"], &info["models"][0]["report"]), (&false.into(), &false.into()));
    assert_eq!(info["models"][1]["report"], true);
}

#[test]
fn only_get_and_head_are_taken() {
    let server = Running::with_models(config(), vec![reported("test/tiny")]);
    for path in ["/report", "/report.json"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = server.connect().request(method, path, &[], b"{}");
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
            assert!(answer.body.contains("MethodNotAllowed"), "{}", answer.body);
        }
        let mut client = server.connect();
        client.begin("HEAD", path, &[], b"");
        let head = client.head().unwrap();
        let length = if path == "/report" { PAGE.len() } else { JSON.len() };
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.to_string().as_str())));
        // No body lies between the two answers.
        assert_eq!(client.request("GET", path, &[], b"").status, 200);
    }
}

#[test]
fn a_report_needs_the_key() {
    let config = Config { api_keys: "s3cret".parse().unwrap(), ..config() };
    let server = Running::with_models(config, vec![reported("test/tiny")]);
    for path in ["/report", "/report.json", "/report?model=other"] {
        let refused = server.get(path);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
        assert!(!refused.body.contains("cosine") && !refused.body.contains("test/tiny"), "{}", refused.body);
    }
    let answer = server.connect().request("GET", "/report", &[("authorization", "Bearer s3cret")], b"");
    assert_eq!((answer.status, answer.body.as_str()), (200, PAGE));
}
