//! summarization: a text to what it says in short.
//!
//! Bodies, parameters and defaults are those of [text2text-generation](crate::text2text_generation), under the settings that a
//! model has for this task (`task_specific_params.summarization` of its config.json), of which a prefix as `summarize: ` is one.
//!
//! Reply: `[{"summary_text": ...}]`.

/// The hub's name of the task.
pub const NAME: &str = "summarization";

/// The field of a reply that has the text.
pub const REPLY: &str = "summary_text";
