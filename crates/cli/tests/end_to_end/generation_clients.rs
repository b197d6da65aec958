//! The clients people use against a server with a model that generates: texts and conversations, whole and in parts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::clients::{
    CLIENTS, FOREIGN, can_make_environments, can_run_javascript, javascript_environment, python_environment,
};
use crate::generation::Decoder;
use crate::http::Server;
use crate::process::finish;

const PROMPT: &str = "weather";
const TOKENS: usize = 12;

/// A server, and what its plainest routes answer.
struct Generating {
    decoder: Decoder,
    server: Server,
    expected: PathBuf,
}

impl Generating {
    fn start() -> Generating {
        let decoder = Decoder::talking("llama");
        let server = Server::start(&[decoder.path().to_owned()], &[]);
        let post = |path: &str, body: serde_json::Value| server.post(path, body.to_string()).json();
        let completion = post("/generate", json!({"inputs": PROMPT, "parameters": {"max_new_tokens": TOKENS}}));
        let messages = json!([{"role": "system", "content": "Say"}, {"role": "user", "content": "hello"}]);
        // What the template makes of the messages.
        let written = "Say:hello:";
        let chat = post("/generate", json!({"inputs": written, "parameters": {"max_new_tokens": TOKENS}}));
        let expected = json!({
            "model": post("/v1/completions", json!({"prompt": PROMPT}))["model"],
            "prompt": PROMPT, "messages": messages, "tokens": TOKENS,
            "completion": completion["generated_text"], "chat": chat["generated_text"],
            "chat_prompt_tokens": written.len(),
        });
        let place = decoder.path().join("expected.json");
        fs::write(&place, expected.to_string()).expect("a temporary folder");
        Generating { decoder, server, expected: place }
    }

    fn check(self, check: &mut Command) {
        FOREIGN.iter().for_each(|name| {
            check.env_remove(name);
        });
        check
            .env("HF_HOME", self.decoder.path().join("home"))
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1");
        let finished = finish(check, b"");
        print!("{}", finished.text());
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let (code, log) = self.server.stop("TERM");
        assert_eq!(code, Some(0), "{log:?}");
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }
}

#[test]
fn python_clients_stream_texts() {
    if let Err(reason) = can_make_environments() {
        println!("skipped: {reason}");
        return;
    }
    let generating = Generating::start();
    let mut check = Command::new(python_environment());
    check.current_dir(CLIENTS).args(["check_generation.py", "--url", &generating.url(), "--expected"]);
    check.arg(&generating.expected).env("PYTHONDONTWRITEBYTECODE", "1");
    generating.check(&mut check);
}

#[test]
fn javascript_clients_stream_texts() {
    if let Err(reason) = can_run_javascript() {
        println!("skipped: {reason}");
        return;
    }
    let generating = Generating::start();
    // Node looks for packages beside the script.
    let script = generating.decoder.path().join("check_generation.mjs");
    fs::copy(PathBuf::from(CLIENTS).join("check_generation.mjs"), &script).expect("a temporary folder");
    let packages = generating.decoder.path().join("node_modules");
    symlink(javascript_environment(), packages).expect("a temporary folder");
    let mut check = Command::new("node");
    check.arg(script).arg(generating.url()).arg(&generating.expected);
    generating.check(&mut check);
}
