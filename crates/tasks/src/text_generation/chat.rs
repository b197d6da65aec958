//! Conversations: the messages that clients send, and the text that the model's chat template makes of them.
//!
//! A message is `{"role": ..., "content": ...}`; the content is a text, or a list of `{"type": "text", "text": ...}` whose texts
//! become lines. `developer` is the system's other name. Other fields are handed to the template as they are.

use centuple_text::Conversation;
use serde_json::{Map, Value};

use crate::{error::TaskError, model::Model};

/// A conversation that is to be gone on with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    messages: Vec<Value>,
    /// Name of the template, where it isn't the usual one.
    pub template: Option<String>,
    /// Variables of the template beside the messages.
    pub variables: Map<String, Value>,
}

impl Chat {
    /// Checks messages and brings them into the form that templates know.
    ///
    /// # Errors
    /// There is none, or one is no message of texts.
    pub fn new(messages: Vec<Value>) -> Result<Chat, TaskError> {
        if messages.is_empty() {
            return Err(TaskError::Empty("messages"));
        }
        let mut chat = Chat::default();
        messages.into_iter().try_for_each(|message| chat.push(message))?;
        Ok(chat)
    }

    /// Adds a message.
    ///
    /// # Errors
    /// It is no message of texts.
    pub fn push(&mut self, message: Value) -> Result<(), TaskError> {
        let place = self.messages.len();
        self.messages.push(read(message).map_err(|reason| refused(place, &reason))?);
        Ok(())
    }

    /// Adds what somebody said.
    pub fn say(&mut self, role: &str, content: &str) {
        let fields = [("role", role), ("content", content)];
        let message = fields.map(|(name, value)| (name.to_owned(), Value::from(value)));
        self.messages.push(Value::Object(message.into_iter().collect()));
    }

    /// Takes back the last message.
    pub fn pop(&mut self) {
        self.messages.pop();
    }

    /// The messages.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// The text that the model is to go on with, its special tokens in it.
    ///
    /// # Errors
    /// The model has no such template, or the template doesn't take the conversation.
    pub fn write(&self, model: &Model) -> Result<String, TaskError> {
        let conversation = Conversation {
            messages: &self.messages,
            add_generation_prompt: true,
            template: self.template.as_deref(),
            variables: &self.variables,
        };
        model.tokenizer.chat_templates().render(&conversation).map_err(TaskError::Chat)
    }
}

fn refused(place: usize, reason: &str) -> TaskError {
    TaskError::Parameter { name: "messages", reason: format!("message {place}: {reason}") }
}

fn read(message: Value) -> Result<Value, String> {
    let Value::Object(mut message) = message else { return Err("it is no object".to_owned()) };
    let role = message.get("role").and_then(Value::as_str).ok_or("it has no `role`")?;
    match role {
        "tool" | "function" => return Err(format!("the role `{role}` is not supported, since tools aren't")),
        "developer" => {
            message.insert("role".to_owned(), "system".into());
        }
        _ => {}
    }
    let asks = |value: &Value| !value.is_null() && value.as_array().is_none_or(|calls| !calls.is_empty());
    if let Some(name) =
        ["tool_calls", "function_call", "audio"].iter().find(|name| message.get(**name).is_some_and(asks))
    {
        return Err(format!("`{name}` is not supported"));
    }
    message.retain(|name, value| name == "content" || asks(value));
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.join("\n"),
        Some(Value::Null) | None => return Err("it has no `content`".to_owned()),
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err("`content` is neither a text nor a list of parts".to_owned());
        }
    };
    message.insert("content".to_owned(), content.into());
    Ok(Value::Object(message))
}

/// The text of a part.
fn part(part: &Value) -> Result<&str, String> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part.get("text").and_then(Value::as_str).ok_or_else(|| "a part has no `text`".to_owned()),
        Some(other) => Err(format!("parts of the type `{other}` are not supported; send texts")),
        None => Err("a part of `content` has no `type`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_text_become_lines_and_other_fields_stay() {
        let messages = json!([
            {"role": "developer", "content": "Be brief.", "name": "me"},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "", "tool_calls": [], "audio": null, "reasoning_content": "hm"},
        ]);
        let chat = Chat::new(serde_json::from_value(messages).expect("a list")).expect("messages");
        let expected = json!([
            {"role": "system", "name": "me", "content": "Be brief."},
            {"role": "user", "content": "one\ntwo"},
            {"role": "assistant", "reasoning_content": "hm", "content": ""},
        ]);
        assert_eq!(json!(chat.messages()), expected);
    }

    #[test]
    fn what_is_no_message_of_texts_is_refused_with_its_place() {
        assert!(matches!(Chat::new(Vec::new()), Err(TaskError::Empty("messages"))));
        let good = json!({"role": "user", "content": "hi"});
        for (message, reason) in [
            (json!("hi"), "no object"),
            (json!({"content": "hi"}), "no `role`"),
            (json!({"role": "user"}), "no `content`"),
            (json!({"role": "user", "content": 3}), "neither a text nor a list"),
            (json!({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}), "type `image_url`"),
            (json!({"role": "user", "content": ["hi"]}), "no `type`"),
            (json!({"role": "tool", "content": "hi"}), "role `tool`"),
            (json!({"role": "assistant", "content": "", "tool_calls": [{}]}), "`tool_calls`"),
        ] {
            let error = Chat::new(vec![good.clone(), message]).expect_err(reason);
            assert_eq!(error.field(), Some("messages"));
            let error = error.to_string();
            assert!(error.contains("message 1") && error.contains(reason), "{error}");
        }
    }
}
