//! The special tokens of a tokenizer by what they are for.

/// A special token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// How it is written.
    pub text: String,
    /// Its id.
    pub id: u32,
}

/// Special tokens by role; a role that the tokenizer doesn't have is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<SpecialToken>,
    /// Ends a sequence.
    pub eos: Option<SpecialToken>,
    /// Stands for what is not in the vocabulary.
    pub unk: Option<SpecialToken>,
    /// Separates or ends texts.
    pub sep: Option<SpecialToken>,
    /// Fills up.
    pub pad: Option<SpecialToken>,
    /// Stands before a sequence that is classified.
    pub cls: Option<SpecialToken>,
    /// Stands for a token to be found.
    pub mask: Option<SpecialToken>,
}
