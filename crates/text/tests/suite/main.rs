//! Tokenizers, chat templates and what a folder says of texts.

mod chat;
mod classes;
mod folders;
mod gguf;
mod tokenizer;
mod translators;
