//! What those who run a server meet: settings from files, and its log.

use std::fs;

use serde_json::Value;

use crate::http::Server;
use crate::process::{centuple, finish};
use crate::tiny::Tiny;

#[test]
fn log_lines_carry_the_id_of_their_request() {
    let model = Tiny::new("sentence-mean");
    let flags = ["--log", "json", "--log-requests", "--api-key", "open sesame"];
    let server = Server::start(&[model.path()], &flags);
    let body = r#"{"inputs": "a private text"}"#;
    let mut client = server.connect();
    for id in ["one", "two"] {
        client.head("/", body.len(), &format!("authorization: Bearer open sesame\r\nx-request-id: {id}\r\n"));
        client.send(body.as_bytes());
        assert_eq!(client.response().status, 200);
    }
    drop(client);
    assert_eq!(server.post("/no/such", "").status, 401);
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
    let text = log.concat();
    assert!(!text.contains("private") && !text.contains("sesame"), "{text}");
    let lines = log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let answered: Vec<Value> = lines.filter(|line: &Value| line["message"] == "answered").collect();
    let ids: Vec<_> = answered.iter().filter_map(|line| line["span"]["request_id"].as_str()).collect();
    assert!(ids.len() == 3 && ids[..2] == ["one", "two"], "{answered:?}");
    let first = &answered[0];
    assert_eq!((&first["status"], &first["model"]), (&200.into(), &"sentence-mean".into()), "{first}");
    assert!(first["tokens"].as_u64().is_some_and(|tokens| tokens > 0) && first["took_ms"].is_f64(), "{first}");
    assert_eq!(answered[2]["status"], 401);
}

#[test]
fn a_file_names_models_and_flags() {
    let model = Tiny::new("sentence-mean");
    let file = model.path().join("centuple.toml");
    let path = model.path().display().to_string();
    fs::write(&file, format!("models = [{path:?}]\nmax-body-bytes = 30\nlog = \"json\"\n")).expect("a file");
    // The models are on the command line too, as the helper has it.
    let server = Server::start_with(centuple("serve").arg("--config").arg(&file), &[model.path()]);
    assert_eq!(server.post("/", r#"{"inputs": "short"}"#).status, 200);
    assert_eq!(server.post("/", r#"{"inputs": "a longer text than the file allows"}"#).status, 413);
    let mut shown = centuple("serve");
    shown.arg("--config").arg(&file).args(["--print-config", "--port", "1", "--api-key", "open sesame"]);
    let shown = finish(&mut shown, b"");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let text = shown.text();
    assert!(text.contains("max-body-bytes = 30 # `max-body-bytes` in ") && text.contains(&path), "{text}");
    assert!(text.contains("port = 1 # the command line") && !text.contains("sesame"), "{text}");
    fs::write(&file, "max-body-byte = 30\n").expect("a file");
    let refused = finish(centuple("serve").arg("--config").arg(&file), b"");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("is `max-body-bytes` meant?"), "{}", refused.stderr);
}
