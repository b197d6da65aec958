//! GGUF files, whole and damaged.

mod hostile;
mod types;
