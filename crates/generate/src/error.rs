//! What can be wrong with parameters, requests and logits.

/// Why parameters cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// A value out of its range.
    #[error("{name} is {value}, but must be {expected}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Parameters that exclude each other.
    #[error("{0}")]
    Combination(String),
    /// A name that nobody knows.
    #[error("there is no parameter {0:?}; parameters have the names that transformers gives them")]
    Unknown(String),
    /// A parameter of transformers that changes what is generated and isn't supported.
    #[error("{name} = {value} is not supported; leave it out")]
    Unsupported {
        /// The parameter.
        name: String,
        /// Its value.
        value: String,
    },
    /// JSON of another shape.
    #[error("{0}")]
    Format(String),
    /// A token id beyond the vocabulary.
    #[error("{name} names token {token}, but the model's vocabulary has {vocabulary} tokens")]
    Vocabulary {
        /// The parameter.
        name: &'static str,
        /// The token.
        token: u32,
        /// Number of tokens of the model.
        vocabulary: usize,
    },
    /// A prompt that leaves no room for a new token.
    #[error("the prompt has {prompt} tokens, but max_length is {maximum}; raise max_length or give max_new_tokens")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most tokens of prompt and answer.
        maximum: usize,
    },
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Its parameters.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// A prompt without tokens.
    #[error("the prompt has no tokens; give at least one")]
    EmptyPrompt,
    /// A token id beyond the vocabulary.
    #[error("token id {id} is outside of the model's vocabulary of {vocabulary} tokens")]
    Vocabulary {
        /// The id.
        id: u32,
        /// Number of tokens of the model.
        vocabulary: usize,
    },
    /// More tokens than the model has positions for.
    #[error(
        "{prompt} tokens of prompt and {new} new ones are more than the {maximum} that the model takes; shorten the prompt or lower max_new_tokens"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Most new tokens.
        new: usize,
        /// Most tokens of a sequence.
        maximum: usize,
    },
    /// More tokens of an encoder's input than it takes.
    #[error("the text to read has {tokens} tokens, the model takes at most {maximum}; shorten it")]
    SourceTooLong {
        /// Tokens of the input.
        tokens: usize,
        /// Most that the encoder takes.
        maximum: usize,
    },
    /// More memory than the whole cache has.
    #[error(
        "the request may need {needed} pages of {page_tokens} tokens, the key/value cache has {pages}; shorten the prompt, lower max_new_tokens or num_beams, or give the cache more memory"
    )]
    Memory {
        /// Pages at its longest.
        needed: usize,
        /// Pages there are.
        pages: usize,
        /// Tokens per page.
        page_tokens: usize,
    },
    /// More sequences at once than a step takes.
    #[error(
        "{sequences} sequences at once are more than the {maximum} of a step; lower num_beams or num_return_sequences"
    )]
    Sequences {
        /// Beams, or sequences that are sampled.
        sequences: usize,
        /// Most of a step.
        maximum: usize,
    },
}

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// Logits that are no numbers.
    #[error("the model's logits are not numbers; set remove_invalid_values to go on regardless")]
    NotANumber,
    /// Parameters that forbid every token.
    #[error("the parameters leave no token to choose; loosen bad_words_ids, suppress_tokens or logit_bias")]
    NoToken,
    /// What keeps an answer to its grammar failed.
    #[error("the answer can't be kept to its constraint: {0}")]
    Constraint(String),
    /// Logits of another number.
    #[error("the engine broke its contract: {0}; please report this")]
    Contract(String),
}
