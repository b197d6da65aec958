//! Chat templates: from the messages of a conversation to the text that a model was trained to go on with.
//!
//! A template is a Jinja program that comes with the model. It is run as transformers runs it, by minijinja, which reads no files
//! and changes no values; its work and what it writes are bounded. It is more lenient in one place: a part of something that
//! isn't there is empty, where transformers fails.

mod date;
mod environment;
mod files;
mod json;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use centuple_guard::guarded;
use minijinja::value::Serde;
use minijinja::{Environment, Error, Value};
use serde_json::Map;

use crate::TextError;

/// Most messages of a conversation: templates may look at all of them for each.
const MOST_MESSAGES: usize = 4096;
/// Most bytes that a template writes.
const LONGEST: usize = 16 << 20;

/// The template that is used where none is named.
pub(crate) const DEFAULT: &str = "default";

/// The chat templates of a tokenizer, by name.
pub struct ChatTemplates {
    environment: Environment<'static>,
    /// For each name that there is a template, or why it can't be used.
    names: BTreeMap<String, Result<(), String>>,
    /// What templates see beside the conversation: `bos_token` and the like.
    variables: Map<String, serde_json::Value>,
}

/// What a template is to write.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// The messages, mostly `{"role": ..., "content": ...}`.
    pub messages: &'a [serde_json::Value],
    /// Whether the text ends where the model's answer begins.
    pub add_generation_prompt: bool,
    /// Name of the template; `default` where none is said.
    pub template: Option<&'a str>,
    /// Further variables, which go before those of the tokenizer.
    pub variables: &'a Map<String, serde_json::Value>,
}

impl ChatTemplates {
    /// Templates by name, and what they see of the tokenizer. One that is no template is an error only once it is used.
    pub(crate) fn new(sources: BTreeMap<String, String>, variables: Map<String, serde_json::Value>) -> ChatTemplates {
        let mut environment = environment::new();
        let mut names = BTreeMap::new();
        for (name, source) in sources {
            let source = environment::without_marks(&source);
            let added = guarded(
                || environment.add_template_owned(name.clone(), source).map_err(|error| error.to_string()),
                str::to_owned,
            );
            names.insert(name, added);
        }
        ChatTemplates { environment, names, variables }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The text of a conversation, special tokens and all.
    ///
    /// # Errors
    /// There is no such template, it refuses the conversation, it fails, or it takes too long or writes too much.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, TextError> {
        let name = conversation.template.unwrap_or(DEFAULT);
        let failed = |reason: &str| TextError::ChatTemplate { reason: reason.to_owned() };
        match self.names.get(name) {
            Some(Ok(())) => {}
            Some(Err(reason)) => return Err(failed(reason)),
            None if self.is_empty() => return Err(TextError::NoChatTemplate),
            None => {
                let known = self.names().collect::<Vec<_>>().join(", ");
                return Err(TextError::UnknownChatTemplate { name: name.to_owned(), known });
            }
        }
        let messages = conversation.messages.len();
        if messages > MOST_MESSAGES {
            return Err(failed(&format!(
                "the conversation has {messages} messages, at most {MOST_MESSAGES} are taken"
            )));
        }
        let write = || self.write(name, conversation).map_err(|error| explain(&error));
        guarded(write, failed)
    }

    fn write(&self, name: &str, conversation: &Conversation<'_>) -> Result<String, Error> {
        let mut variables = self.variables.clone();
        variables.extend(conversation.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        variables.insert("messages".to_owned(), conversation.messages.into());
        variables.insert("add_generation_prompt".to_owned(), conversation.add_generation_prompt.into());
        for absent in ["tools", "documents"] {
            variables.entry(absent).or_insert(serde_json::Value::Null);
        }
        let mut text = Bounded(Vec::new());
        self.environment.get_template(name)?.render_captured_to(Value::from(Serde(&variables)), &mut text)?;
        Ok(String::from_utf8_lossy(&text.0).into_owned())
    }
}

/// What is wrong, in the words of the template where it refuses a conversation.
fn explain(error: &Error) -> TextError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(environment::Raised(message)) = cause.downcast_ref() {
            return TextError::RefusedByTemplate { reason: message.clone() };
        }
        source = cause.source();
    }
    TextError::ChatTemplate { reason: error.to_string() }
}

/// Takes what fits.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > LONGEST {
            return Err(io::Error::other(format!("it writes more than {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ChatTemplates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChatTemplates").field(&self.names).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn render(template: &str, messages: &Value) -> Result<String, TextError> {
        let sources = BTreeMap::from([(DEFAULT.to_owned(), template.to_owned())]);
        let templates = ChatTemplates::new(sources, Map::new());
        let messages = messages.as_array().cloned().unwrap_or_default();
        templates.render(&Conversation {
            messages: &messages,
            add_generation_prompt: false,
            template: None,
            variables: &Map::new(),
        })
    }

    #[test]
    fn what_never_ends_or_grows_without_end_is_stopped() {
        let hostile = [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            "{% for a in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
            "{{ 'x' * 99999999999 }}",
            "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        ];
        for template in hostile {
            let error = render(template, &json!([])).expect_err(template);
            assert!(matches!(error, TextError::ChatTemplate { .. }), "{template}: {error}");
        }
    }

    #[test]
    fn refusals_are_told_from_failures() {
        let refused = render("{{ raise_exception('no roles ' ~ messages[0].role) }}", &json!([{"role": "cook"}]));
        assert_eq!(
            refused.expect_err("a refusal").to_string(),
            "the model's chat template refuses this: no roles cook"
        );
        for template in
            ["{{ nothing.of.this }}", "{% if %}", "{{ 1 / 0 }}", "{{ messages.append(1) }}", "{{ strftime_now('%Q') }}"]
        {
            let error = render(template, &json!([])).expect_err(template);
            assert!(matches!(error, TextError::ChatTemplate { .. }), "{template}: {error}");
        }
        let many = vec![json!({}); MOST_MESSAGES + 1];
        assert!(render("", &many.into()).expect_err("too many").to_string().contains("at most 4096"));
    }

    #[test]
    fn absent_templates_are_errors_that_name_those_there_are() {
        let variables = Map::new();
        let conversation =
            Conversation { messages: &[], add_generation_prompt: true, template: Some("rag"), variables: &variables };
        let none = ChatTemplates::new(BTreeMap::new(), Map::new());
        assert!(matches!(none.render(&conversation), Err(TextError::NoChatTemplate)));
        let names = ["default", "tool_use"].map(|name| (name.to_owned(), "{{ bos_token }}".to_owned()));
        let two = ChatTemplates::new(names.into(), Map::from_iter([("bos_token".to_owned(), "<s>".into())]));
        assert!(two.render(&conversation).expect_err("unknown").to_string().contains("default, tool_use"));
        let named = Conversation { template: Some("tool_use"), ..conversation };
        assert_eq!(two.render(&named).expect("a template"), "<s>");
    }
}
