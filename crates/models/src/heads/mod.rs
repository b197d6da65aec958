//! Heads: what is put on top of a family's encoder for a task.

mod sentence_embedding;
mod sequence_classification;

use serde::{Deserialize, Serialize};

pub(crate) use sentence_embedding::sentence_embedding;
pub(crate) use sequence_classification::sequence_classification;

/// Name of the graph's output, whatever the head.
pub(crate) const OUTPUT: &str = "output";

/// What the rows of the graph's output mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Head {
    /// `[Tokens, dimension]`: the last hidden state.
    TokenFeatures {
        /// Length of a row.
        dimension: usize,
    },
    /// `[Sequences, dimension]`: a sentence-transformers embedding.
    SentenceEmbedding {
        /// Length of a row.
        dimension: usize,
        /// The pooling modes by their sentence-transformers names.
        pooling: Vec<String>,
        /// Whether the model ends with L2 normalisation.
        normalised: bool,
        /// Whether the tokens of a prompt take part in pooling.
        include_prompt: bool,
    },
    /// `[Sequences, labels]`: logits.
    Classification {
        /// Name of each logit.
        labels: Vec<String>,
        /// What the logits mean.
        problem: Problem,
    },
}

/// How logits become scores where the caller doesn't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Softmax over the labels.
    SingleLabel,
    /// Sigmoid of each label; also for a single label of no stated problem, as in transformers' pipeline.
    MultiLabel,
    /// The logits themselves.
    Regression,
}
