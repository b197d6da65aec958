//! Heads: what is put on top of a family's encoder for a task.

mod labels;
mod late_interaction;
mod layers;
mod sentence_embedding;
mod sparse_embedding;

use serde::{Deserialize, Serialize};

pub(crate) use labels::ranks_by_logit;
pub(crate) use late_interaction::{COLBERT, colbert, late_interaction};
pub(crate) use layers::{HeadLayers, Layer, Meaning, Rows, generates, part_of};
pub(crate) use sentence_embedding::sentence_embedding;
pub(crate) use sparse_embedding::{pooled_logits, sparse_embedding};

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
    /// `[Tokens, labels]`: logits of each token.
    TokenClassification {
        /// Name of each logit.
        labels: Vec<String>,
    },
    /// `[Tokens, 2]`: logits of an answer's start and end.
    QuestionAnswering,
    /// `[Selected, vocabulary]`: logits of the picked tokens.
    MaskedLm {
        /// Number of token ids.
        vocabulary: usize,
    },
    /// `[Selected, vocabulary]`: logits of the token after each picked one. Attentions keep keys and values in a cache.
    CausalLm {
        /// Number of token ids.
        vocabulary: usize,
    },
    /// `[Selected, vocabulary]`: logits of the token after each picked one, by a decoder with an encoder in front of it.
    Seq2SeqLm {
        /// Number of token ids.
        vocabulary: usize,
    },
    /// `[Sequences, vocabulary]`: weights of the vocabulary's tokens, most of them 0 (SPLADE).
    SparseEmbedding {
        /// Number of token ids.
        vocabulary: usize,
    },
    /// `[Tokens, dimension]`: a row of length 1 per token (ColBERT).
    LateInteraction {
        /// Length of a row.
        dimension: usize,
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
