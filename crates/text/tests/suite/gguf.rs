//! Tokenizers of GGUF files against the tokenizers that they were made of (`scripts/goldens/make.py gguf`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use centuple_gguf::Header;
use centuple_text::{Conversation, Text, TextOptions, Tokenizer, Truncation};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    answers: BTreeMap<String, Answers>,
}

#[derive(Deserialize)]
struct Answers {
    ids: Vec<Vec<u32>>,
    decoded: Vec<String>,
    plain: Vec<String>,
    /// What the chat template makes of two messages.
    chat: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/gguf/tokenizers")
}

fn file(name: &str) -> Outcome<Vec<u8>> {
    Ok(fs::read(fixtures().join(format!("{name}.gguf")))?)
}

fn open(bytes: &[u8]) -> Outcome<Tokenizer> {
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(1 << 20) };
    Ok(Tokenizer::from_gguf(Path::new("made.gguf"), &Header::read(bytes)?.metadata, &options)?)
}

#[test]
fn tokens_are_those_of_the_original() -> Outcome<()> {
    let Golden { texts, answers } =
        serde_json::from_reader(GzDecoder::new(File::open(fixtures().join("answers.json.gz"))?))?;
    let mut found = Vec::new();
    for (name, answers) in &answers {
        let tokenizer = open(&file(name)?)?;
        if let Some(expected) = &answers.chat {
            let messages =
                [json!({"role": "user", "content": "Hi  there"}), json!({"role": "assistant", "content": "Ho"})];
            let variables = Map::new();
            let conversation = Conversation {
                messages: &messages,
                add_generation_prompt: true,
                template: None,
                variables: &variables,
            };
            assert_eq!(&tokenizer.chat_templates().render(&conversation)?, expected);
            assert!(tokenizer.chat_templates().names().eq(["default", "tool_use"]));
        }
        for (index, text) in texts.iter().enumerate() {
            let ids = match tokenizer.encode(Text::Single(text), Truncation::Refuse) {
                Ok(encoding) => encoding.ids.clone(),
                Err(_) => Vec::new(),
            };
            if ids != answers.ids[index] {
                found.push(format!("{name}: {text:?}\n  ours   {ids:?}\n  theirs {:?}", answers.ids[index]));
                continue;
            }
            let [decoded, plain] = [false, true].map(|skip| tokenizer.decode(&ids, skip));
            if (decoded?, plain?) != (answers.decoded[index].clone(), answers.plain[index].clone()) {
                found.push(format!("{name}: {text:?} is decoded as another text"));
            }
        }
    }
    assert_eq!(answers.len(), 6);
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn special_tokens_have_their_roles() -> Outcome<()> {
    let tokenizer = open(&file("llama")?)?;
    let special = tokenizer.special_tokens();
    let texts = [&special.bos, &special.eos, &special.unk].map(|token| token.as_ref().map(|token| token.text.as_str()));
    assert_eq!(texts, [Some("<s>"), Some("</s>"), Some("<unk>")]);
    assert!(special.pad.is_none());
    assert_eq!(open(&file("qwen2")?)?.special_tokens().eos.as_ref().map(|token| token.id), Some(10));
    // What grammars need of a tokenizer.json.
    let json = tokenizer.to_json()?;
    assert_eq!(json["model"]["type"], "BPE");
    assert!(json["added_tokens"].as_array().is_some_and(|tokens| tokens.len() >= 3));
    Ok(())
}

/// A file with the bytes of a text changed to others of the same length.
fn changed(name: &str, from: &str, to: &str) -> Outcome<Vec<u8>> {
    let mut bytes = file(name)?;
    assert_eq!(from.len(), to.len());
    let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).ok_or("no such text")?;
    bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    Ok(bytes)
}

#[test]
fn what_is_not_understood_is_named() -> Outcome<()> {
    for (name, from, to, words) in [
        ("gpt-2", "gpt-2", "gpt-9", "`tokenizer.ggml.pre`: \"gpt-9\" is no way of cutting texts"),
        ("gpt-2", "tokenizer.ggml.pre", "tokenizer.ggml.prx", "`tokenizer.ggml.pre`: it is missing"),
        ("gpt-2", "tokenizer.ggml.model", "tokenizer.ggml.mydel", "`tokenizer.ggml.model`: it is missing"),
        ("llama", "llama\u{12}", "ylama\u{12}", "\"ylama\" is no kind that is read"),
        ("gpt-2", "tokenizer.ggml.tokens", "tokenizer.ggml.tokxns", "`tokenizer.ggml.tokens`: there are none"),
        ("gpt-2", "tokenizer.ggml.merges", "tokenizer.ggml.mergxs", "`tokenizer.ggml.merges`: it is missing"),
        ("llama", "tokenizer.ggml.scores", "tokenizer.ggml.scorxs", "`tokenizer.ggml.scores`: it is missing"),
    ] {
        match open(&changed(name, from, to)?) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("made.gguf") && error.contains(words), "{error} doesn't say {words}");
            }
            Ok(_) => panic!("{to} is understood"),
        }
    }
    Ok(())
}

/// Wherever a byte of the tokenizer changes, there is a tokenizer or an error.
#[test]
fn changed_bytes_make_no_panic() -> Outcome<()> {
    for name in ["gpt-2", "llama"] {
        let sound = file(name)?;
        for place in (0..sound.len()).step_by(sound.len() / 150) {
            let mut bytes = sound.clone();
            bytes[place] ^= 0x81;
            if let Ok(tokenizer) = open(&bytes) {
                let _ = tokenizer.encode(Text::Single("Hello world! 今天"), Truncation::Right);
            }
        }
    }
    Ok(())
}
