//! `centuple run text-generation`: many lines in flight, each answered as if it were alone.

use std::fs;
use std::path::Path;

use centuple_testkit::FamilyGolden;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Finished, centuple, finish};

/// Writes messages one after the other.
const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}:{% endfor %}";

/// The tiny model of a family, whose tokens are characters.
pub(crate) struct Decoder {
    folder: TempDir,
}

impl Decoder {
    pub(crate) fn new(family: &str) -> Decoder {
        let folder = TempDir::new().expect("a temporary folder");
        let families = FamilyGolden::all().expect("the fixtures are there");
        let family = families.iter().find(|one| one.name == family).expect("the family");
        let case = family.cases.iter().find(|case| case.name == "causal").expect("the case");
        family.assemble(case, folder.path()).expect("the fixtures are there");
        Decoder { folder }
    }

    /// One that has a chat template.
    pub(crate) fn talking(family: &str) -> Decoder {
        let decoder = Decoder::new(family);
        fs::write(decoder.path().join("chat_template.jinja"), TEMPLATE).expect("a temporary folder");
        decoder
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, flags: &[&str], bodies: &[Value]) -> Finished {
        let lines: String = bodies.iter().map(|body| format!("{body}\n")).collect();
        finish(centuple("run").arg("text-generation").arg(self.path()).args(flags), lines.as_bytes())
    }
}

fn answers(finished: &Finished) -> Vec<Value> {
    finished.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn lines_are_answered_in_their_order_as_if_alone() {
    let decoder = Decoder::new("llama");
    let parameters = [
        json!({"max_new_tokens": 20}),
        json!({"max_new_tokens": 9, "temperature": 1.5, "seed": 4, "details": true, "top_n_tokens": 2}),
        json!({"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2}),
        json!({"max_new_tokens": 30, "do_sample": true, "seed": 8, "num_return_sequences": 3}),
        json!({"max_new_tokens": 15, "repetition_penalty": 1.3, "return_full_text": false}),
    ];
    let body = |line: usize| {
        let text: String = "weatherreport".chars().cycle().skip(line).take(1 + 3 * line).collect();
        json!({"inputs": text, "parameters": parameters[line % parameters.len()]})
    };
    let bodies: Vec<Value> = (0..20).map(body).collect();
    let together = decoder.run(&[], &bodies);
    assert_eq!((together.code, together.stderr.as_str()), (Some(0), ""));
    let together = answers(&together);
    assert_eq!(together.len(), bodies.len());
    for (body, together) in bodies.iter().zip(&together).step_by(3) {
        assert_eq!(&answers(&decoder.run(&[], std::slice::from_ref(body)))[0], together, "{body}");
    }
    let first = together[0][0]["generated_text"].as_str().expect("a text");
    assert!(first.starts_with('w') && first.len() > 1, "{first}");
    let details = &together[1][0]["details"];
    assert_eq!((&details["generated_tokens"], &details["seed"]), (&json!(9), &json!(4)));
    assert_eq!((together[2].as_array().map(Vec::len), together[3].as_array().map(Vec::len)), (Some(2), Some(3)));
}

#[test]
fn bad_lines_are_answered_with_the_reason() {
    let decoder = Decoder::new("gpt2");
    let bodies = [
        json!({"inputs": "good", "parameters": {"max_new_tokens": 3}}),
        json!({"inputs": "good", "parameters": {"max_new_tokens": 300}}),
        json!({"inputs": "good", "stream": true}),
        json!({"inputs": "good", "parameters": {"max_tokens": 3}}),
        json!({"inputs": ["good", "better"], "parameters": {"max_new_tokens": 2}}),
    ];
    let finished = decoder.run(&[], &bodies);
    assert_eq!(finished.code, Some(1));
    let answers = answers(&finished);
    let error = |line: usize| answers[line]["error"].as_str().expect("an error");
    assert!(error(1).contains("more than the 128 that the model takes"), "{}", error(1));
    assert!(error(2).contains("`stream`") && error(3).contains("max_tokens"));
    assert_eq!(answers[4].as_array().map(Vec::len), Some(2));
    assert!(answers[0][0]["generated_text"].is_string());
}

#[test]
fn what_can_not_generate_says_what_it_does() {
    let decoder = Decoder::new("llama");
    let tiny = crate::tiny::Tiny::new("classify");
    let finished = finish(centuple("run").arg("text-generation").arg(tiny.path()), b"");
    assert!(finished.failure(1).contains("does not generate text; it does text-classification"));
    let finished = finish(centuple("run").arg("text-classification").arg(decoder.path()), b"");
    assert!(finished.failure(1).contains("does not do text-classification; it does text-generation"));
    let finished = decoder.run(&["--kv-memory", "10"], &[]);
    assert!(finished.failure(1).contains("less than one page"));
}

#[test]
fn a_gguf_file_is_a_model() {
    let file = centuple_testkit::fixtures().join("gguf/llama-tied.gguf");
    let bodies = [
        json!({"inputs": "the weather", "parameters": {"max_new_tokens": 12}}),
        json!({"inputs": "the", "parameters": {"max_new_tokens": 3, "grammar": {"type": "regex", "value": "[a-c]{3}"}}}),
    ];
    let lines: String = bodies.iter().map(|body| format!("{body}\n")).collect();
    let finished = finish(centuple("run").arg("text-generation").arg(&file), lines.as_bytes());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let answers = answers(&finished);
    let text = |line: usize| answers[line][0]["generated_text"].as_str().expect("a text");
    assert!(text(0).starts_with("the weather") && text(0).len() > 11, "{}", text(0));
    let kept = text(1).strip_prefix("the").expect("the prompt");
    assert!(kept.len() == 3 && kept.chars().all(|letter| ('a'..='c').contains(&letter)), "{kept}");
    let finished = finish(centuple("inspect").arg(&file).arg("--explain"), b"");
    assert_eq!(finished.code, Some(0));
    for told in ["model         llama-tied\n", "LlamaForCausalLM", "text-generation", "15 of F16"] {
        assert!(finished.text().contains(told), "{told} is not in\n{}", finished.text());
    }
    let finished = finish(centuple("inspect").arg(file.with_file_name("types.gguf")), b"");
    assert!(finished.failure(1).contains("types.gguf"));
}
