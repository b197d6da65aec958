//! The model file of sentencepiece, as far as a tokenizer needs it.

use std::path::Path;

use prost::Message;

use crate::TextError;
use crate::folder::{broken, read_at_most};

/// The largest model file that is read; the largest public ones have 5 MB.
const FILE_LIMIT: u64 = 32 << 20;
/// The longest piece, in characters; sentencepiece's own limit is 512 in training.
const PIECE_LIMIT: usize = 1024;

/// A trained model. Fields that are not listed here are skipped.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Model {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    pub(crate) trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    pub(crate) normalizer: Option<Normalizer>,
    /// What happens to text that is written.
    #[prost(message, optional, tag = "5")]
    pub(crate) denormalizer: Option<Normalizer>,
}

impl Model {
    /// Reads a model file.
    pub(crate) fn read(path: &Path) -> Result<Self, TextError> {
        let failed = |reason: String| broken(path, reason);
        let model = Self::decode(read_at_most(path, FILE_LIMIT)?.as_slice())
            .map_err(|error| failed(format!("it is no sentencepiece model: {error}")))?;
        let text = |piece: &Piece| piece.text().chars().count();
        if let Some(piece) = model.pieces.iter().find(|piece| text(piece) > PIECE_LIMIT) {
            return Err(failed(format!("a piece has {} characters, more than {PIECE_LIMIT}", text(piece))));
        }
        Ok(model)
    }
}

/// A piece of the vocabulary; its id is its place.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Piece {
    #[prost(string, optional, tag = "1")]
    pub(crate) text: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(crate) score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    pub(crate) kind: Option<i32>,
}

impl Piece {
    /// `kind` of a piece that texts spell out.
    pub(crate) const NORMAL: i32 = 1;
    /// `kind` of what stands for all that is in no piece.
    pub(crate) const UNKNOWN: i32 = 2;
    /// `kind` of a piece that texts cannot spell out.
    pub(crate) const CONTROL: i32 = 3;
    /// `kind` of a piece that is always found in texts.
    pub(crate) const USER_DEFINED: i32 = 4;
    /// `kind` of a piece that is never found in texts.
    pub(crate) const UNUSED: i32 = 5;
}

/// How the model was trained.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    pub(crate) algorithm: Option<i32>,
    #[prost(bool, optional, tag = "24", default = "false")]
    pub(crate) space_at_end: Option<bool>,
    #[prost(bool, optional, tag = "35", default = "false")]
    pub(crate) byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40", default = "0")]
    pub(crate) unk_id: Option<i32>,
    #[prost(string, optional, tag = "44", default = " \u{2047} ")]
    pub(crate) unk_surface: Option<String>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    pub(crate) unk_piece: Option<String>,
}

impl Trainer {
    /// `algorithm` of pieces with probabilities.
    pub(crate) const UNIGRAM: i32 = 1;
    /// `algorithm` of pairs that are merged.
    pub(crate) const BPE: i32 = 2;
}

/// What happens to text first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    pub(crate) adds_space: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    pub(crate) joins_spaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    pub(crate) escapes_spaces: Option<bool>,
}
