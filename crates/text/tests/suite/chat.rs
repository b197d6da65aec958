//! Chat templates against what transformers makes of them (`scripts/goldens/make.py chat`), and where folders have them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use centuple_text::{Conversation, TextError, TextOptions, Tokenizer};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Deserialize)]
struct Goldens {
    special: Map<String, Value>,
    conversations: BTreeMap<String, Vec<Value>>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    template: String,
    conversation: String,
    prompt: bool,
    variables: Map<String, Value>,
    /// None where the template doesn't take the conversation.
    text: Option<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat")
}

/// A folder with a tokenizer of a few words, and further files.
fn folder(config: &Map<String, Value>, files: &[(&str, &str)]) -> Outcome<TempDir> {
    let folder = TempDir::new()?;
    let vocabulary = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "say": 3, "it": 4, "<|im_start|>": 5});
    let special = |(id, text): (usize, &str)| {
        let [single_word, lstrip, rstrip, normalized] = [false; 4];
        json!({"id": id, "content": text, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
               "normalized": normalized, "special": true})
    };
    let added = [(0, "<unk>"), (1, "<s>"), (2, "</s>"), (5, "<|im_start|>")].map(special);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": added,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(folder.path().join("tokenizer_config.json"), Value::Object(config.clone()).to_string())?;
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        fs::write(path, content)?;
    }
    Ok(folder)
}

fn open(folder: &TempDir) -> Result<Tokenizer, TextError> {
    Tokenizer::open(folder.path(), &TextOptions::new(8))
}

#[test]
fn every_conversation_is_written_as_transformers_writes_it() -> Outcome<()> {
    let goldens: Goldens = serde_json::from_reader(GzDecoder::new(File::open(fixtures().join("answers.json.gz"))?))?;
    let mut tokenizers = BTreeMap::new();
    let mut wrong = Vec::new();
    for answer in &goldens.answers {
        if !tokenizers.contains_key(&answer.template) {
            let source = fs::read_to_string(fixtures().join(format!("templates/{}.jinja", answer.template)))?;
            let folder = folder(&goldens.special, &[("chat_template.jinja", &source)])?;
            tokenizers.insert(answer.template.clone(), open(&folder)?);
        }
        let conversation = Conversation {
            messages: &goldens.conversations[&answer.conversation],
            add_generation_prompt: answer.prompt,
            template: None,
            variables: &answer.variables,
        };
        let text = tokenizers[&answer.template].chat_templates().render(&conversation);
        if text.as_ref().ok() != answer.text.as_ref() {
            wrong.push(format!("{}, {}:\n{text:?}\n{:?}", answer.template, answer.conversation, answer.text));
        }
    }
    assert!(goldens.answers.len() > 500);
    assert!(wrong.is_empty(), "{} are wrong, as\n{}", wrong.len(), wrong[0]);
    Ok(())
}

fn render(tokenizer: &Tokenizer, template: Option<&str>) -> Result<String, TextError> {
    let conversation = Conversation { messages: &[], add_generation_prompt: true, template, variables: &Map::new() };
    tokenizer.chat_templates().render(&conversation)
}

#[test]
fn templates_are_where_transformers_looks_for_them() -> Outcome<()> {
    let config = |template: Value| Map::from_iter([("chat_template".to_owned(), template)]);
    let one = open(&folder(&config(json!("in the config")), &[])?)?;
    assert_eq!(render(&one, None)?, "in the config");
    let list = json!([{"name": "default", "template": "first"}, {"name": "tool_use", "template": "second"}]);
    let two = open(&folder(&config(list.clone()), &[])?)?;
    assert_eq!((render(&two, None)?, render(&two, Some("tool_use"))?), ("first".to_owned(), "second".to_owned()));
    let files = [("chat_template.jinja", "a file"), ("additional_chat_templates/rag.jinja", "another")];
    let apart = open(&folder(&config(list), &files)?)?;
    assert_eq!((render(&apart, None)?, render(&apart, Some("rag"))?), ("a file".to_owned(), "another".to_owned()));
    assert_eq!(apart.chat_templates().names().collect::<Vec<_>>(), ["default", "rag"]);
    let none = open(&folder(&Map::new(), &[])?)?;
    assert!(none.chat_templates().is_empty() && matches!(render(&none, None), Err(TextError::NoChatTemplate)));
    // What is no template is an error of those who use it only.
    let broken = open(&folder(&config(json!("{% if %}")), &[])?)?;
    assert!(matches!(render(&broken, None), Err(TextError::ChatTemplate { .. })));
    assert!(open(&folder(&config(json!(3)), &[])?).is_err());
    Ok(())
}

#[test]
fn written_conversations_get_no_further_special_tokens() -> Outcome<()> {
    let tokenizer = open(&folder(&Map::new(), &[])?)?;
    assert_eq!(tokenizer.encode_verbatim("<s>say it</s>")?, [1, 3, 4, 2]);
    assert!(matches!(tokenizer.encode_verbatim(""), Err(TextError::Empty)));
    let long = "say ".repeat(9);
    assert!(matches!(tokenizer.encode_verbatim(&long), Err(TextError::TooLong { tokens: 9, limit: 8 })));
    Ok(())
}
