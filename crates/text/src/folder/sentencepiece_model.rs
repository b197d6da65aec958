//! The model file of sentencepiece, as far as a tokenizer needs it.

use prost::Message;

/// A trained model. Fields that are not listed here are skipped.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(message, repeated, tag = "1")]
    pub(super) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    pub(super) trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    pub(super) normalizer: Option<Normalizer>,
}

/// A piece of the vocabulary; its id is its place.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Piece {
    #[prost(string, optional, tag = "1")]
    pub(super) text: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(super) score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    pub(super) kind: Option<i32>,
}

impl Piece {
    /// `kind` of a piece that texts cannot spell out.
    pub(super) const CONTROL: i32 = 3;
    /// `kind` of a piece that is always found in texts.
    pub(super) const USER_DEFINED: i32 = 4;
}

/// How the model was trained.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    pub(super) algorithm: Option<i32>,
    #[prost(int32, optional, tag = "40", default = "0")]
    pub(super) unk_id: Option<i32>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    pub(super) unk_piece: Option<String>,
}

impl Trainer {
    /// `algorithm` of pieces with probabilities.
    pub(super) const UNIGRAM: i32 = 1;
    /// `algorithm` of pairs that are merged.
    pub(super) const BPE: i32 = 2;
}

/// What happens to text first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) charsmap: Option<Vec<u8>>,
}
