//! Pieces with scores, as in sentencepiece, with bytes for what they lack.

use tokenizers::Tokenizer;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

use super::vocabulary::{Kind, Vocabulary};
use crate::TextError;
use crate::scores::{Scored, merges_of_scores};

/// Stands for a space in pieces.
const SPACE: &str = "\u{2581}";

pub(super) fn convert(vocabulary: &Vocabulary) -> Result<Tokenizer, TextError> {
    let failed = |error: tokenizers::Error| vocabulary.failed(&error.to_string());
    let scores = vocabulary.scores()?.iter().map(|score| f64::from(*score));
    let scored: Vec<Scored> = vocabulary.tokens.iter().cloned().zip(scores).collect();
    let merges = merges_of_scores(vocabulary.tokens.iter().map(String::as_str), &scored);
    let pieces: Vocab = vocabulary.tokens.iter().cloned().zip(0u32..).collect();
    let has_bytes = vocabulary.of_kind(&[Kind::Byte]).next().is_some();
    let mut builder = BPE::builder().vocab_and_merges(pieces, merges).fuse_unk(true).byte_fallback(has_bytes);
    if let Some((_, unknown)) = vocabulary.of_kind(&[Kind::Unknown]).next() {
        builder = builder.unk_token(unknown.to_owned());
    }
    let mut tokenizer = Tokenizer::new(builder.build().map_err(failed)?);
    let prefix = vocabulary.flag("add_space_prefix")?.unwrap_or(true);
    let first = prefix.then(|| NormalizerWrapper::from(Prepend::new(SPACE.to_owned())));
    let spaces = Replace::new(" ", SPACE).map_err(failed)?;
    let steps = first.into_iter().chain([spaces.into()]).collect();
    tokenizer.with_normalizer(Some(Sequence::new(steps))).map_err(failed)?;
    let back = Replace::new(SPACE, " ").map_err(failed)?;
    let mut steps = vec![back.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(DecoderSequence::new(steps)));
    // Runs of spaces are written as pieces are. With a space before every text they could not be found there.
    let added = vocabulary.added(|text| !prefix && text.contains(SPACE));
    tokenizer.add_tokens(added).map_err(failed)?;
    Ok(tokenizer)
}
