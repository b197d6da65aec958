//! `centuple chat`: lines from a pipe, and signals.

use std::io::Write;

use serde_json::{Value, json};

use crate::generation::Decoder;
use crate::http::Server;
use crate::process::{Finished, Process, centuple, finish};

fn chat(decoder: &Decoder, flags: &[&str], lines: &str) -> Finished {
    finish(centuple("chat").arg(decoder.path()).args(flags), lines.as_bytes())
}

/// What a server answers to messages, greedily.
fn answer(server: &Server, messages: &[(&str, &str)]) -> String {
    let message = |(role, content): &(&str, &str)| json!({"role": role, "content": content});
    let messages: Vec<Value> = messages.iter().map(message).collect();
    let body = json!({"messages": messages, "temperature": 0, "max_tokens": 6});
    let reply = server.post("/v1/chat/completions", body.to_string()).json();
    reply["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

#[test]
fn each_line_is_answered_with_what_was_said_in_mind() {
    let decoder = Decoder::talking("llama");
    let server = Server::start(&[decoder.path().to_owned()], &[]);
    let first = answer(&server, &[("user", "hello")]);
    let second = answer(&server, &[("user", "hello"), ("assistant", &first), ("user", "again")]);
    let system = answer(&server, &[("system", "Be"), ("user", "hello")]);
    let lines = "hello\n\nagain\n/reset\nhello\n/system Be\nhello\n/exit\nhello\n";
    let finished = chat(&decoder, &["--max-new-tokens", "6"], lines);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    assert_eq!(finished.text(), format!("{first}\n{second}\n{first}\n{system}\n"));
    let finished = chat(&decoder, &["--max-new-tokens", "6", "--system", "Be"], "hello");
    assert_eq!(finished.text(), format!("{system}\n"));
    let draws = ["--temperature", "1.5", "--top-k", "9", "--seed", "5", "--precision", "int8", "--max-new-tokens", "6"];
    let [one, two] = [0, 1].map(|_| chat(&decoder, &draws, "hello\nagain\n"));
    assert_eq!((one.text(), one.code), (two.text(), Some(0)));
    assert_eq!(one.text().lines().count(), 2);
}

#[test]
fn what_can_not_be_answered_says_why() {
    let decoder = Decoder::talking("gpt2");
    let long = "x".repeat(300);
    let lines = format!("{long}\n/nonsense\nhello\n");
    let finished = chat(&decoder, &["--max-new-tokens", "4"], &lines);
    assert_eq!(finished.code, Some(1));
    let errors: Vec<&str> = finished.stderr.lines().collect();
    assert!(errors.len() == 2 && errors[1].contains("no command /nonsense"), "{errors:?}");
    assert_eq!(finished.text().lines().count(), 1);
    let base = Decoder::new("gpt2");
    assert!(chat(&base, &[], "hello\n").failure(1).contains("has no chat template"));
    let finished = chat(&base, &["--no-template", "--max-new-tokens", "4"], "hello\nagain\n");
    assert_eq!((finished.code, finished.text().lines().count()), (Some(0), 2));
    let tiny = crate::tiny::Tiny::new("classify");
    let finished = finish(centuple("chat").arg(tiny.path()), b"");
    assert!(finished.failure(1).contains("does not generate text"));
}

#[test]
fn a_signal_ends_who_waits_for_a_line() {
    let decoder = Decoder::talking("gpt2");
    let mut process = Process::spawn(centuple("chat").arg(decoder.path()).args(["--max-new-tokens", "3"]));
    let mut stdin = process.stdin();
    let lines = process.stdout();
    stdin.write_all(b"hello\n").expect("it reads");
    assert!(lines.next().is_some());
    process.signal("INT");
    let code = process.wait().code();
    assert!(code == Some(130), "{code:?}");
}
