//! Tasks: what people ask of a model, in the JSON of the Hugging Face task API.
//!
//! A request goes one way: body → [`Request`] → [`Job`] (token sequences) → outputs of an
//! [`Engine`] → [`Reply`]. Neither HTTP nor the graph of the model is known here. Numbers are
//! written as the shortest decimal that reads back as the same `f32`; an output that is not
//! finite is an error and never `null`.

mod body;
mod engine;
mod error;
pub mod feature_extraction;
pub mod fill_mask;
mod generation_task;
mod job;
mod model;
pub mod question_answering;
pub mod schema;
mod scores;
pub mod sentence_similarity;
pub mod summarization;
mod task;
pub mod text2text_generation;
pub mod text_classification;
pub mod text_generation;
pub mod text_ranking;
pub mod token_classification;
mod tokens;
pub mod translation;
pub mod zero_shot_classification;

pub use centuple_generate as generation;

pub use body::{OneOrMany, from_json, use_cache};
pub use engine::{Engine, EngineError, Limits, Output, Sequence};
pub use error::{Category, TaskError};
pub use generation_task::{GenerationTask, LanguagePair};
pub use job::{Finish, Job, Reply, Request, run_in_batches};
pub use model::{Embedding, Head, Model, ModelCard, Problem};
pub use task::{Task, UnknownTask};
pub use tokens::{Direction, Usage};
