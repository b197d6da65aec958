//! sentencepiece as its own library has it: texts to pieces and back.
//!
//! Fast tokenizers of transformers are made of the same model files by conversion (`folder/sentencepiece.rs`), and differ
//! from the library in rare texts. This is for classes that have no fast one.

mod charsmap;
mod merging;
pub(crate) mod model;
mod normalizer;
mod pieces;
mod unigram;

use std::path::Path;

use charsmap::Charsmap;
use merging::Merging;
use model::{Model, Piece, Trainer};
use normalizer::Normalizer;
use pieces::Pieces;
use unigram::{Score, Unigram};

use crate::TextError;
use crate::folder::broken;

/// Stands for a space in pieces.
pub(crate) const SPACE: &str = "\u{2581}";

/// A model of sentencepiece.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    normalizer: Normalizer,
    algorithm: Algorithm,
    /// Every piece, also those that no text spells out, by its kind.
    all: Pieces,
    kinds: Vec<i32>,
    unknown: String,
    /// What is written for the unknown piece.
    unknown_text: String,
}

#[derive(Debug)]
enum Algorithm {
    Unigram(Unigram),
    Merging(Merging),
}

impl SentencePiece {
    /// Reads a model file.
    pub(crate) fn open(path: &Path) -> Result<Self, TextError> {
        let model = Model::read(path)?;
        let failed = |reason: &str| Err(broken(path, reason));
        let trainer = model.trainer.clone().unwrap_or_default();
        if trainer.byte_fallback() {
            return failed("it writes unknown characters as bytes, which isn't supported for this class");
        }
        if trainer.space_at_end() {
            return failed("its words end with their spaces, which isn't supported");
        }
        if model.denormalizer.as_ref().is_some_and(|rules| !rules.charsmap().is_empty()) {
            return failed("it has rules for text that is written, which aren't supported");
        }
        let algorithm = match trainer.algorithm() {
            Trainer::UNIGRAM => Algorithm::Unigram(unigram(&model)),
            Trainer::BPE if model.pieces.iter().any(|piece| piece.kind() == Piece::UNUSED) => {
                return failed("it has pieces that are never used, which BPE models here can't have");
            }
            Trainer::BPE => Algorithm::Merging(merging(&model)),
            other => return Err(broken(path, format!("its algorithm {other} is neither unigram nor BPE"))),
        };
        let Some(normalizer) = normalizer(&model) else {
            return failed("its table of what characters become can't be read");
        };
        let unknown = model.pieces.iter().find(|piece| piece.kind() == Piece::UNKNOWN);
        Ok(Self {
            normalizer,
            algorithm,
            all: Pieces::new(numbered(&model, |_| true)),
            kinds: model.pieces.iter().map(Piece::kind).collect(),
            unknown: unknown.map_or_else(String::new, |piece| piece.text().to_owned()),
            unknown_text: trainer.unk_surface().to_owned(),
        })
    }

    /// The pieces of a text. Unknown characters in a row are one.
    pub(crate) fn encode(&self, text: &str) -> Vec<String> {
        let normalized = self.normalizer.normalize(text);
        let ends = match &self.algorithm {
            Algorithm::Unigram(unigram) => unigram.ends(&normalized),
            Algorithm::Merging(merging) => merging.ends(&normalized, &self.normalizer.kept),
        };
        let mut pieces: Vec<String> = Vec::with_capacity(ends.len());
        let (mut start, mut after_unknown) = (0, false);
        for end in ends {
            let piece = normalized.get(start..end).unwrap_or_default();
            let unknown = !self.is_known(piece);
            match pieces.last_mut().filter(|_| unknown && after_unknown) {
                Some(last) => last.push_str(piece),
                None => pieces.push(piece.to_owned()),
            }
            (start, after_unknown) = (end, unknown);
        }
        pieces
    }

    /// Whether a text can have the piece.
    fn is_known(&self, piece: &str) -> bool {
        self.kind(piece).is_some_and(|kind| kind != Piece::UNKNOWN && kind != Piece::CONTROL)
    }

    fn kind(&self, piece: &str) -> Option<i32> {
        self.kinds.get(self.all.get(piece)? as usize).copied()
    }

    /// The text of pieces. What is no piece is written as it is.
    pub(crate) fn decode<'a>(&self, pieces: impl IntoIterator<Item = &'a str>) -> String {
        let mut text = String::new();
        let (mut begins, mut dropped_space) = (true, false);
        let drops = self.normalizer.adds_space || self.normalizer.joins_spaces;
        for piece in pieces {
            begins &= !dropped_space && text.is_empty();
            match self.kind(piece) {
                Some(Piece::CONTROL) => {}
                Some(Piece::UNKNOWN) if piece == self.unknown => text.push_str(&self.unknown_text),
                None | Some(Piece::UNKNOWN) => text.push_str(piece),
                Some(_) => {
                    let bare = if begins && drops { piece.strip_prefix(SPACE) } else { None };
                    // Where spaces are joined, every one at the beginning goes.
                    dropped_space |= bare.is_some() && !self.normalizer.joins_spaces;
                    text.push_str(&bare.unwrap_or(piece).replace(SPACE, " "));
                }
            }
        }
        text
    }
}

/// Pieces that are of some kinds, with their ids.
fn numbered(model: &Model, wanted: impl Fn(i32) -> bool) -> impl Iterator<Item = (&str, u32)> {
    model.pieces.iter().zip(0..).filter(move |(piece, _)| wanted(piece.kind())).map(|(piece, id)| (piece.text(), id))
}

/// Whether texts spell out pieces of a kind.
fn is_text(kind: i32) -> bool {
    matches!(kind, Piece::NORMAL | Piece::USER_DEFINED | Piece::UNUSED)
}

fn unigram(model: &Model) -> Unigram {
    let normal = || model.pieces.iter().filter(|piece| piece.kind() == Piece::NORMAL).map(Piece::score);
    let score = |piece: &Piece| match piece.kind() {
        Piece::UNUSED => None,
        Piece::USER_DEFINED => Some(Score::Always),
        _ => Some(Score::Probability(piece.score())),
    };
    Unigram {
        pieces: Pieces::new(numbered(model, is_text)),
        scores: model.pieces.iter().map(score).collect(),
        smallest: normal().fold(f32::MAX, f32::min),
        largest: normal().fold(f32::MIN, f32::max),
    }
}

fn merging(model: &Model) -> Merging {
    let scores = model.pieces.iter().map(Piece::score).collect();
    Merging { pieces: Pieces::new(numbered(model, is_text)), scores }
}

/// `None` if its table can't be read.
fn normalizer(model: &Model) -> Option<Normalizer> {
    let rules = model.normalizer.clone().unwrap_or_default();
    let charsmap = rules.charsmap();
    Some(Normalizer {
        charsmap: if charsmap.is_empty() { None } else { Some(Charsmap::read(charsmap)?) },
        adds_space: rules.adds_space(),
        joins_spaces: rules.joins_spaces(),
        escapes_spaces: rules.escapes_spaces(),
        kept: Pieces::new(numbered(model, |kind| kind == Piece::USER_DEFINED)),
    })
}
