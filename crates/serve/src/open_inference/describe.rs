//! What the protocol tells of a model.
//!
//! A model has a single output. Where it is given texts that is called `output`, and for tokens by
//! the name that exported models have; requests may ask for it by either.

use centuple_tasks::{Head, Model};

use super::{
    Interface,
    generate::{EXCLUDE_INPUT, SAMPLING_PARAMETERS, STREAM, TEXT_INPUT, TEXT_OUTPUT},
    outputs::is_by_token,
};

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
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. } => "logits",
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
        Head::QuestionAnswering | Head::MaskedLm { .. } | Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => false,
    }
}

/// A tensor of the interface, without the dimension of the batch; -1 is any length.
#[derive(Clone, Default)]
pub(crate) struct TensorInfo {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    pub(crate) dims: Vec<i64>,
    /// Whether it may be left out.
    pub(crate) optional: bool,
    /// Whether there is no dimension of the batch.
    pub(crate) single: bool,
}

/// The tensors that a model is said to take.
pub(crate) fn inputs(interface: Interface) -> Vec<TensorInfo> {
    match interface {
        Interface::Texts => {
            vec![TensorInfo { name: "TEXT", datatype: "BYTES", dims: vec![1], ..TensorInfo::default() }]
        }
        Interface::Tokens => {
            let tensor = |name| TensorInfo { name, datatype: "INT64", dims: vec![-1], ..TensorInfo::default() };
            ["input_ids", "attention_mask"].map(tensor).into()
        }
        Interface::Generation => {
            let tensor =
                |name, datatype, optional| TensorInfo { name, datatype, dims: vec![1], optional, single: true };
            vec![
                tensor(TEXT_INPUT, "BYTES", false),
                tensor(STREAM, "BOOL", true),
                tensor(SAMPLING_PARAMETERS, "BYTES", true),
                tensor(EXCLUDE_INPUT, "BOOL", true),
            ]
        }
    }
}

/// The tensor that a model gives.
pub(crate) fn output(head: &Head, interface: Interface) -> TensorInfo {
    let name = match interface {
        Interface::Texts => "output",
        Interface::Tokens => native_output(head),
        Interface::Generation => {
            let dims = vec![-1];
            return TensorInfo { name: TEXT_OUTPUT, datatype: "BYTES", dims, optional: false, single: true };
        }
    };
    let columns = head.columns() as i64;
    let dims = if is_by_token(head) { vec![-1, columns] } else { vec![columns] };
    TensorInfo { name, datatype: "FP32", dims, ..TensorInfo::default() }
}

impl TensorInfo {
    /// The shape with the dimension of the batch.
    pub(crate) fn shape(&self) -> Vec<i64> {
        let batch = (!self.single).then_some(-1);
        batch.into_iter().chain(self.dims.iter().copied()).collect()
    }
}

/// What is told of a server that can do more than the protocol asks for.
pub(crate) const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"];

/// What computes a model, and its platform in the protocol's words.
pub(crate) const BACKEND: &str = "centuple";

/// Most inputs of one request, as a configuration tells it: 0 where there is no dimension for several.
pub(crate) fn max_batch_size(interface: Interface, most: usize) -> i32 {
    match interface {
        Interface::Generation => 0,
        Interface::Texts | Interface::Tokens => i32::try_from(most).unwrap_or(i32::MAX),
    }
}
