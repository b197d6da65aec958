//! What the classes of transformers change in a tokenizer when they load it, whatever it comes from.

use tokenizers::PostProcessorWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::class::{ByteLevelKind, Class, Kind, SentencePieceKind, WordPieceKind};
use super::{Source, broken, template};
use crate::TextError;
use crate::language::Languages;

pub(super) fn adapt(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    class: Option<&Class>,
    languages: Option<&Languages>,
) -> Result<(), TextError> {
    let prefix = source.config.flag("add_prefix_space")?.unwrap_or(false);
    if let Some(PreTokenizerWrapper::ByteLevel(mut own)) = tokenizer.get_pre_tokenizer().cloned()
        && own.add_prefix_space != prefix
    {
        own.add_prefix_space = prefix;
        tokenizer.with_pre_tokenizer(Some(own));
    }
    match class.map(|class| class.kind) {
        Some(Kind::WordPiece(kind)) => normalizer(tokenizer, source, kind),
        Some(Kind::ByteLevel(ByteLevelKind::Roberta)) => offsets(tokenizer, source, prefix),
        Some(Kind::SentencePiece(
            kind @ (SentencePieceKind::Mbart | SentencePieceKind::Mbart50 | SentencePieceKind::Nllb),
        )) => languages
            .map_or(Ok(()), |languages| template::set_language(tokenizer, source, languages, kind.first_language())),
        Some(Kind::SentencePiece(SentencePieceKind::Llama)) => template::set_ends(tokenizer, source, true),
        Some(Kind::JsonOnly { begins: Some(begins) }) => template::set_ends(tokenizer, source, begins),
        Some(
            Kind::ByteLevel(_)
            | Kind::SentencePiece(_)
            | Kind::Pieces(_)
            | Kind::Jieba
            | Kind::JsonOnly { begins: None },
        )
        | None => Ok(()),
    }
}

/// The classes of BERT overrule the normaliser.
fn normalizer(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    kind: WordPieceKind,
) -> Result<(), TextError> {
    let Some(NormalizerWrapper::BertNormalizer(mut own)) = tokenizer.get_normalizer().cloned() else {
        return Ok(());
    };
    let config = source.config;
    own.lowercase = config.flag_unless_null("do_lower_case", true)?;
    own.strip_accents = config.flag("strip_accents")?;
    match kind {
        WordPieceKind::Bert | WordPieceKind::Funnel => {
            own.handle_chinese_chars = config.flag_unless_null("tokenize_chinese_chars", true)?;
        }
        WordPieceKind::Mpnet => {}
    }
    let failed = |error: tokenizers::Error| broken(source.folder, error.to_string());
    tokenizer.with_normalizer(Some(own)).map_err(failed)?;
    Ok(())
}

/// RoBERTa's class overrules which spaces offsets leave out.
fn offsets(tokenizer: &mut tokenizers::Tokenizer, source: &Source<'_>, prefix: bool) -> Result<(), TextError> {
    let trims = source.config.flag_unless_null("trim_offsets", true)?;
    match tokenizer.get_post_processor().cloned() {
        Some(PostProcessorWrapper::Roberta(own)) => {
            tokenizer.with_post_processor(Some(own.add_prefix_space(prefix).trim_offsets(trims)));
        }
        Some(PostProcessorWrapper::ByteLevel(own)) => {
            tokenizer.with_post_processor(Some(own.add_prefix_space(prefix).trim_offsets(trims)));
        }
        Some(PostProcessorWrapper::Bert(_) | PostProcessorWrapper::Template(_) | PostProcessorWrapper::Sequence(_))
        | None => {}
    }
    Ok(())
}
