//! What the protocol tells of a model.
//!
//! A model has a single output. Where it is given texts that is called `output`, and for tokens by
//! the name that exported models have; requests may ask for it by either.

use centuple_tasks::{Head, Model};

use super::{Interface, outputs::is_by_token};

/// The output's name as exported models have it.
pub(super) fn native_output(head: &Head) -> &'static str {
    match head {
        Head::TokenFeatures { .. } => "last_hidden_state",
        Head::LateInteraction { .. } => "token_embeddings",
        Head::SentenceEmbedding(_) | Head::SparseEmbedding { .. } => "sentence_embedding",
        Head::Classification { .. }
        | Head::TokenClassification { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. } => "logits",
    }
}

/// Whether a text alone is an input of the model.
pub(crate) fn takes_texts(model: &Model) -> bool {
    match &model.card.head {
        Head::TokenFeatures { .. }
        | Head::SentenceEmbedding(_)
        | Head::Classification { .. }
        | Head::TokenClassification { .. }
        | Head::SparseEmbedding { .. }
        | Head::LateInteraction { .. } => true,
        Head::QuestionAnswering | Head::MaskedLm { .. } | Head::CausalLm { .. } => false,
    }
}

/// A tensor of the interface, without the dimension of the batch; -1 is any length.
pub(crate) struct TensorInfo {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    pub(crate) dims: Vec<i64>,
}

/// The tensors that a model is said to take.
pub(crate) fn inputs(interface: Interface) -> Vec<TensorInfo> {
    match interface {
        Interface::Texts => vec![TensorInfo { name: "TEXT", datatype: "BYTES", dims: vec![1] }],
        Interface::Tokens => {
            let tensor = |name| TensorInfo { name, datatype: "INT64", dims: vec![-1] };
            ["input_ids", "attention_mask"].map(tensor).into()
        }
    }
}

/// The tensor that a model gives.
pub(crate) fn output(head: &Head, interface: Interface) -> TensorInfo {
    let name = match interface {
        Interface::Texts => "output",
        Interface::Tokens => native_output(head),
    };
    let columns = head.columns() as i64;
    let dims = if is_by_token(head) { vec![-1, columns] } else { vec![columns] };
    TensorInfo { name, datatype: "FP32", dims }
}

impl TensorInfo {
    /// The shape with the dimension of the batch.
    pub(crate) fn shape(&self) -> Vec<i64> {
        [-1].into_iter().chain(self.dims.iter().copied()).collect()
    }
}

/// What is told of a server that can do more than the protocol asks for.
pub(crate) const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"];

/// What computes a model, and its platform in the protocol's words.
pub(crate) const BACKEND: &str = "centuple";

/// Most inputs of one request, as a configuration tells it.
pub(crate) fn max_batch_size(most: usize) -> i32 {
    i32::try_from(most).unwrap_or(i32::MAX)
}
