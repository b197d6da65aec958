//! Jinja as transformers sets it up for chat templates.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::{date, json};

/// What rendering may cost: an instruction or 64 bytes of a value each.
const FUEL: u64 = 4 << 20;

/// Most spaces that a line can be moved by.
const WIDEST: usize = 256;

/// What a template says by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default());
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("indent", indent);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// The time by UTC, so that a text doesn't depend on where it is made.
fn strftime_now(format: String) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date::strftime(&format, now.as_secs()).map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
}

/// All lines but the first moved to the right by so many spaces, or behind some text; the last line end stays.
fn indent(text: &str, width: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let width = match width {
        Some(width) => Some(width),
        None => options.get::<Option<Value>>("width")?,
    };
    let first = options.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let before = match width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(spaces @ 0..=WIDEST)) => " ".repeat(spaces),
            (None, _) => return Err(Error::new(ErrorKind::InvalidOperation, "indent takes a text or a few spaces")),
        },
    };
    let mut written = String::with_capacity(text.len());
    for (place, line) in text.split('\n').enumerate() {
        if place > 0 {
            written.push('\n');
        }
        if if place == 0 { first } else { blank || !line.is_empty() } {
            written.push_str(&before);
        }
        written.push_str(line);
    }
    Ok(written)
}

/// As Python has it: whatever has a length and elements.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Bytes)
}

/// As Python has it: nothing, numbers and truth values have no elements.
fn is_iterable(value: &Value) -> bool {
    !matches!(value.kind(), ValueKind::None | ValueKind::Number | ValueKind::Bool) && value.try_iter().is_ok()
}

/// The source without the marks of what the model has said, which only training needs: `{% generation %}` becomes an `if` that
/// always holds, so that the whitespace around it is what it was. Line ends become those that Jinja makes of them.
pub(super) fn without_marks(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut written = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some((before, tag)) = rest.split_once("{%") {
        written.push_str(before);
        written.push_str("{%");
        let inner = tag.trim_start_matches(['-', '+']);
        let word = inner.trim_start();
        let after =
            |word: &'static str| move |rest: &&str| rest.trim_start().starts_with(['%', '-', '+']) && !word.is_empty();
        let marks = [("generation", "if true"), ("endgeneration", "endif")];
        let mark = marks.iter().find_map(|(name, instead)| {
            let rest = word.strip_prefix(name).filter(after(name))?;
            Some((*instead, rest))
        });
        rest = match mark {
            Some((instead, after)) => {
                let sign = tag.len() - inner.len();
                written.push_str(tag.get(..sign).unwrap_or_default());
                written.push(' ');
                written.push_str(instead);
                after
            }
            None => tag,
        };
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::without_marks;

    #[test]
    fn marks_of_training_keep_their_whitespace() {
        let source = "a {%- generation -%} b {% endgeneration %}\r\nc {% if generation %}{% generations %}";
        let expected = "a {%- if true -%} b {% endif %}\nc {% if generation %}{% generations %}";
        assert_eq!(without_marks(source), expected);
        assert_eq!(without_marks("{%"), "{%");
    }
}
