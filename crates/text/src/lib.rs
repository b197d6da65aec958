//! From text to token ids and back.
//!
//! [`Tokenizer`] wraps the tokenizer of a model folder. It truncates by rules of its own (the
//! truncation and padding sections of `tokenizer.json` describe training and are ignored), never
//! pads, and remembers recent texts in a bounded cache. It knows no model and no request.
//!
//! Nothing here starts a thread: callers that want several texts tokenised at once call
//! [`Tokenizer::encode`] from several threads.

mod cache;
mod chat;
mod decode;
mod error;
mod folder;
mod gguf;
mod language;
mod limit;
mod piece_tokenizer;
mod scores;
mod sentencepiece;
mod special;
mod tokenizer;
mod truncation;
mod window;

pub use chat::{ChatTemplates, Conversation};
pub use error::TextError;
pub use language::{LanguagePlace, Languages};
pub use limit::max_tokens;
pub use special::{SpecialToken, SpecialTokens};
pub use tokenizer::{Encoding, Text, TextOptions, Tokenizer};
pub use truncation::Truncation;
pub use window::{Origin, Split, Window, WindowOptions};
