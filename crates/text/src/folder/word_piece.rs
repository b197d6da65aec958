//! Tokenizers of BERT's kind, from the list of their word pieces.

use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{Error, Model};

use super::class::Role;
use super::{Source, broken, read_text};
use crate::TextError;

/// A tokenizer from `vocab.txt`, without special tokens.
pub(super) fn convert(source: &Source<'_>) -> Result<tokenizers::Tokenizer, TextError> {
    let path = source.folder.join("vocab.txt");
    let text = read_text(&path)?;
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let mut pieces: tokenizers::models::bpe::Vocab = Default::default();
    for (id, piece) in lines.enumerate() {
        let id = u32::try_from(id).map_err(|_| broken(&path, "it has too many lines"))?;
        pieces.insert(piece.to_string(), id);
    }
    let failed = |error: Error| broken(&path, error.to_string());
    let unk = source.role(Role::Unk)?.to_string();
    let model = WordPiece::builder().vocab(pieces).unk_token(unk.clone()).build().map_err(failed)?;
    if model.token_to_id(&unk).is_none() {
        return Err(broken(&path, format!("`{unk}` is not in the vocabulary")));
    }
    let config = source.config;
    let splits = config.flag_unless_null("do_basic_tokenize", true)?;
    let normalizer = if splits {
        let chinese = config.flag_unless_null("tokenize_chinese_chars", true)?;
        let lowercase = config.flag_unless_null("do_lower_case", true)?;
        BertNormalizer::new(true, chinese, config.flag("strip_accents")?, lowercase)
    } else {
        BertNormalizer::new(true, false, Some(false), false)
    };
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::new("##".to_string(), true)));
    Ok(tokenizer)
}
