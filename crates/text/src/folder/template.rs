//! What converted tokenizers put around texts.

use tokenizers::processors::byte_level::ByteLevel;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;

use super::class::{ByteLevelKind, Class, Kind, Role, SentencePieceKind, WordPieceKind};
use super::{Source, broken};
use crate::TextError;
use crate::language::{Languages, around};

/// Special tokens around one text and around two.
struct Template<'a> {
    single: &'a [&'a str],
    pair: &'a [&'a str],
}

/// Adds what the class puts around texts; its tokens must be there already.
pub(super) fn add_to(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    class: &Class,
) -> Result<(), TextError> {
    match class.kind {
        Kind::WordPiece(kind) => word_piece(tokenizer, source, kind),
        Kind::ByteLevel(kind) => byte_level(tokenizer, source, kind),
        Kind::SentencePiece(kind) => sentence_piece(tokenizer, source, kind),
        Kind::Pieces(_) | Kind::Jieba | Kind::JsonOnly { .. } => Ok(()),
    }
}

fn word_piece(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    kind: WordPieceKind,
) -> Result<(), TextError> {
    let (cls, sep) = (source.role(Role::Cls)?, source.role(Role::Sep)?);
    let first = match kind {
        WordPieceKind::Funnel => format!("{cls}:2"),
        WordPieceKind::Bert | WordPieceKind::Mpnet => format!("{cls}:0"),
    };
    let (end, second_end) = (format!("{sep}:0"), format!("{sep}:1"));
    let single = [first.as_str(), "$A:0", &end];
    let pair = match kind {
        WordPieceKind::Mpnet => [&single[..], &[&end, "$B:1", &second_end]].concat(),
        WordPieceKind::Bert | WordPieceKind::Funnel => [&single[..], &["$B:1", &second_end]].concat(),
    };
    set(tokenizer, source, &Template { single: &single, pair: &pair })
}

fn byte_level(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    kind: ByteLevelKind,
) -> Result<(), TextError> {
    match kind {
        ByteLevelKind::Roberta => {
            let token = |role| {
                let text = source.role(role)?;
                Ok((text.to_string(), id(tokenizer, source, text)?))
            };
            let prefix = source.config.flag("add_prefix_space")?.unwrap_or(false);
            let processor = RobertaProcessing::new(token(Role::Sep)?, token(Role::Cls)?);
            tokenizer.with_post_processor(Some(processor.trim_offsets(true).add_prefix_space(prefix)));
            Ok(())
        }
        ByteLevelKind::Gpt2 if source.config.flag("add_bos_token")?.unwrap_or(false) => {
            let bos = format!("{}:0", source.role(Role::Bos)?);
            set(tokenizer, source, &Template { single: &[&bos, "$A:0"], pair: &[&bos, "$A:0", "$B:1"] })
        }
        ByteLevelKind::Gpt2 => {
            tokenizer.with_post_processor(Some(ByteLevel::default().trim_offsets(false)));
            Ok(())
        }
        ByteLevelKind::Deberta => set(tokenizer, source, &CLS_SEP),
    }
}

const CLS_SEP: Template<'_> =
    Template { single: &["[CLS]:0", "$A:0", "[SEP]:0"], pair: &["[CLS]:0", "$A:0", "[SEP]:0", "$B:1", "[SEP]:1"] };

fn sentence_piece(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    kind: SentencePieceKind,
) -> Result<(), TextError> {
    let template = match kind {
        SentencePieceKind::Albert | SentencePieceKind::BigBird | SentencePieceKind::DebertaV2 => CLS_SEP,
        SentencePieceKind::Camembert | SentencePieceKind::XlmRoberta => {
            Template { single: &["<s>", "$A", "</s>"], pair: &["<s>", "$A", "</s>", "</s>", "$B", "</s>"] }
        }
        SentencePieceKind::T5 => Template { single: &["$A", "</s>"], pair: &["$A", "</s>", "$B", "</s>"] },
        SentencePieceKind::Xlnet => Template {
            single: &["$A:0", "<sep>:0", "<cls>:2"],
            pair: &["$A:0", "<sep>:0", "$B:1", "<sep>:1", "<cls>:2"],
        },
        // Their classes set it for a tokenizer.json too.
        SentencePieceKind::Llama | SentencePieceKind::Mbart | SentencePieceKind::Mbart50 | SentencePieceKind::Nllb => {
            return Ok(());
        }
    };
    set(tokenizer, source, &template)
}

/// Around texts of models that translate: the language of the texts and their end.
pub(super) fn set_language(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    languages: &Languages,
    first: &str,
) -> Result<(), TextError> {
    let language = languages.source.as_deref().unwrap_or(first);
    let eos = source.role(Role::Eos)?;
    let ids = (id(tokenizer, source, language)?, id(tokenizer, source, eos)?);
    let processor = around(languages.place, (language, ids.0), (eos, ids.1));
    tokenizer.with_post_processor(Some(processor.map_err(|reason| broken(source.folder, reason))?));
    Ok(())
}

/// Around texts of decoders: their beginning, unless the folder says not to, and their end if it says so.
pub(super) fn set_ends(
    tokenizer: &mut tokenizers::Tokenizer,
    source: &Source<'_>,
    begins: bool,
) -> Result<(), TextError> {
    let with_bos = source.config.flag("add_bos_token")?.unwrap_or(begins);
    let with_eos = source.config.flag("add_eos_token")?.unwrap_or(false);
    let token =
        |wanted: bool, role, segment| wanted.then(|| Ok(format!("{}:{segment}", source.role(role)?))).transpose();
    let text = |segment| -> Result<Vec<String>, TextError> {
        let bos = token(with_bos, Role::Bos, segment)?;
        let eos = token(with_eos, Role::Eos, segment)?;
        let sequence = if segment == 0 { "$A:0" } else { "$B:1" };
        Ok(bos.into_iter().chain([sequence.to_string()]).chain(eos).collect())
    };
    let (first, second) = (text(0)?, text(1)?);
    let single = first.iter().map(String::as_str).collect::<Vec<_>>();
    let pair = first.iter().chain(&second).map(String::as_str).collect::<Vec<_>>();
    set(tokenizer, source, &Template { single: &single, pair: &pair })
}

fn set(tokenizer: &mut tokenizers::Tokenizer, source: &Source<'_>, template: &Template<'_>) -> Result<(), TextError> {
    let failed = |reason: String| broken(source.folder, reason);
    let mut tokens = Vec::new();
    for piece in template.single.iter().chain(template.pair).filter(|piece| !piece.starts_with('$')) {
        let text = match piece.rsplit_once(':') {
            Some((text, "0" | "1" | "2")) => text,
            _ => piece,
        };
        tokens.push((text.to_string(), id(tokenizer, source, text)?));
    }
    tokens.sort();
    tokens.dedup();
    let owned = |pieces: &[&str]| pieces.iter().map(|piece| piece.to_string()).collect::<Vec<_>>();
    let processor = TemplateProcessing::builder()
        .try_single(owned(template.single))
        .and_then(|builder| builder.try_pair(owned(template.pair)))
        .map_err(|error| failed(error.to_string()))?
        .special_tokens(tokens)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    tokenizer.with_post_processor(Some(processor));
    Ok(())
}

fn id(tokenizer: &tokenizers::Tokenizer, source: &Source<'_>, token: &str) -> Result<u32, TextError> {
    let missing = || broken(source.folder, format!("`{token}` is not in the vocabulary"));
    tokenizer.token_to_id(token).ok_or_else(missing)
}

impl Source<'_> {
    /// How the token of a role is written.
    pub(super) fn role(&self, role: Role) -> Result<&str, TextError> {
        self.added.text(role).ok_or_else(|| broken(self.config.path(), format!("{} is not set", role.key())))
    }
}
