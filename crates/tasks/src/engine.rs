//! The narrow door between tasks and whatever computes: token sequences in, rows of `f32` out.

use std::sync::Arc;

/// One tokenised text (or pair of texts), ready to be packed with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, special tokens included. Never empty.
    pub ids: Vec<u32>,
    /// Segment of each token, as long as `ids`.
    pub type_ids: Vec<u32>,
    /// Tokens before this index are computed but left out of pooling; normally 0.
    pub pool_from: usize,
    /// Tokens whose rows are wanted, as indices into `ids`, ascending; for masked language models, else empty.
    pub selected: Vec<usize>,
}

impl Sequence {
    /// A sequence of one segment whose tokens are all pooled.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, ..Self::default() }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token at all; such a sequence is refused by every engine.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// What a model gives for one sequence: a row-major matrix.
///
/// How many rows it has, [`Head::rows`](crate::Head::rows) says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Number of rows.
    pub rows: usize,
    /// Length of each row.
    pub columns: usize,
    /// `rows * columns` values.
    pub data: Vec<f32>,
}

impl Output {
    /// Row `index`, or `None` outside of the matrix.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let start = index.checked_mul(self.columns)?;
        self.data.get(start..start.checked_add(self.columns)?)
    }

    /// Whether `data` has exactly `rows * columns` values.
    pub fn is_consistent(&self) -> bool {
        self.rows.checked_mul(self.columns) == Some(self.data.len())
    }
}

/// What an engine accepts; it never changes while the engine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens of one sequence (the model's positions).
    pub max_tokens_per_sequence: usize,
    /// Most tokens of one batch; at least `max_tokens_per_sequence`.
    pub max_tokens_per_batch: usize,
    /// Number of token ids; every id must be smaller.
    pub vocabulary: usize,
}

impl Limits {
    /// Checks everything that [`Engine::run`] demands of one sequence.
    pub fn check(&self, sequence: &Sequence) -> Result<(), EngineError> {
        let tokens = sequence.len();
        if tokens == 0 {
            return Err(EngineError::EmptySequence);
        }
        if tokens > self.max_tokens_per_sequence {
            return Err(EngineError::SequenceTooLong { tokens, maximum: self.max_tokens_per_sequence });
        }
        if sequence.type_ids.len() != tokens {
            return Err(EngineError::TypeIds { tokens, type_ids: sequence.type_ids.len() });
        }
        let mut least = 0;
        for &token in &sequence.selected {
            if token < least || token >= tokens {
                return Err(EngineError::Selected { token, tokens });
            }
            least = token + 1;
        }
        match sequence.ids.iter().find(|id| **id as usize >= self.vocabulary) {
            Some(id) => Err(EngineError::TokenOutOfVocabulary { id: *id, vocabulary: self.vocabulary }),
            None => Ok(()),
        }
    }

    /// Checks everything that [`Engine::run`] demands of a batch but that there is a sequence.
    pub fn check_batch(&self, batch: &[&Sequence]) -> Result<(), EngineError> {
        batch.iter().try_for_each(|sequence| self.check(sequence))?;
        let tokens = batch.iter().map(|sequence| sequence.len()).sum();
        if tokens > self.max_tokens_per_batch {
            return Err(EngineError::BatchTooLarge { tokens, maximum: self.max_tokens_per_batch });
        }
        Ok(())
    }
}

/// Runs batches of sequences through one loaded model.
///
/// A sequence's output must not depend on the other sequences of its batch.
pub trait Engine: Send {
    /// Computes one [`Output`] per sequence, in order.
    ///
    /// The batch is not empty, each sequence passes [`Limits::check`] and all together have at
    /// most `max_tokens_per_batch` tokens; anything else is answered with an error.
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError>;

    /// What [`run`](Self::run) accepts.
    fn limits(&self) -> Limits;
}

/// Why an engine could not compute a batch.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// A sequence without tokens.
    #[error("a sequence has no tokens; give at least one token id")]
    EmptySequence,
    /// A sequence longer than the model's positions.
    #[error("a sequence has {tokens} tokens, the model takes at most {maximum}; shorten or split it")]
    SequenceTooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Most tokens of one sequence.
        maximum: usize,
    },
    /// `type_ids` and `ids` differ in length.
    #[error("a sequence has {tokens} token ids but {type_ids} segment ids; they must be equally many")]
    TypeIds {
        /// Number of token ids.
        tokens: usize,
        /// Number of segment ids.
        type_ids: usize,
    },
    /// A selected token that the sequence doesn't have, or one out of order.
    #[error("token {token} of a sequence of {tokens} is selected; selected tokens must exist and ascend")]
    Selected {
        /// Index of the token.
        token: usize,
        /// Tokens of the sequence.
        tokens: usize,
    },
    /// A token id that the embedding table does not have.
    #[error("token id {id} is outside of the model's vocabulary of {vocabulary} tokens")]
    TokenOutOfVocabulary {
        /// The id.
        id: u32,
        /// Number of token ids of the model.
        vocabulary: usize,
    },
    /// A batch over the token budget.
    #[error("a batch has {tokens} tokens, the engine takes at most {maximum} at once")]
    BatchTooLarge {
        /// Tokens of the batch.
        tokens: usize,
        /// Most tokens of one batch.
        maximum: usize,
    },
    /// The engine answered with something other than one well-formed output per sequence.
    #[error("the engine broke its contract: {0}; please report this")]
    Contract(String),
    /// The computation itself failed.
    #[error("the model could not be run: {0}")]
    Execution(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The computation panicked; the engine is still there for the next batch.
    #[error("the model crashed on this batch: {0}; please report this")]
    Panicked(String),
    /// The engine's thread has ended.
    #[error("the model has been stopped; start the server again")]
    Stopped,
}

impl EngineError {
    /// The error of a computation that failed.
    pub fn execution(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Execution(Arc::from(source.into()))
    }
}
