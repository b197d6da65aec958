//! The tokenizer files of a model folder, read as transformers reads them.
//!
//! A folder has a `tokenizer.json`, or the files of one of the older classes, which are converted. Either way
//! the class that the folder names then has its say: special tokens, normalisation, and what it puts around texts.

mod adapt;
mod added;
mod byte_level;
mod class;
mod classes;
mod config;
mod languages;
mod pieces;
mod sentencepiece;
mod template;
mod word_piece;

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use tokenizers::PostProcessorWrapper;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Sequence};

use crate::language::{Form, Languages};
use crate::piece_tokenizer::PieceTokenizer;
use crate::{ChatTemplates, LanguagePlace, SpecialTokens, TextError};

use added::AddedTokens;
use class::{Class, Kind, Named, PiecesKind, Role, SentencePieceKind};
pub(crate) use config::TokenizerConfig;

/// The largest tokenizer file that is read; the largest public ones have about 35 MB.
const FILE_LIMIT: u64 = 256 << 20;

/// A tokenizer as its folder describes it.
pub(crate) struct Opened {
    pub(crate) tokenizer: Inner,
    pub(crate) processor: Option<PostProcessorWrapper>,
    pub(crate) languages: Option<Languages>,
    pub(crate) special: SpecialTokens,
    /// Whether decoded text is cleaned up.
    pub(crate) clean_up: bool,
    pub(crate) chat: ChatTemplates,
}

/// What turns text into tokens and back.
#[derive(Debug)]
pub(crate) enum Inner {
    /// A fast tokenizer, without post-processor, so that what it yields is text only.
    Fast(Box<tokenizers::Tokenizer>),
    /// One of the classes that transformers has in Python only.
    Pieces(Box<PieceTokenizer>),
}

/// What a converter of files needs to know.
struct Source<'a> {
    folder: &'a Path,
    config: &'a TokenizerConfig,
    added: &'a AddedTokens,
}

/// Opens the tokenizer of a model folder, without truncation and padding.
///
/// With `lowercase`, text is lower-cased before the tokenizer's own normaliser.
pub(crate) fn open(folder: &Path, lowercase: bool) -> Result<Opened, TextError> {
    let config = TokenizerConfig::open(folder)?;
    let named = class::of_folder(folder, &config)?;
    let json = folder.join("tokenizer.json");
    let from_json = json.exists() && !(named.reads_own_files(&config) && named.has_files(folder));
    let class = match named.class {
        Some(class) => Some(class),
        None if from_json => None,
        None => Some(unnamed(folder, &named)?),
    };
    if let Some(class) = class.filter(|class| class.kind == Kind::Jieba) {
        let reason = "finds Chinese words with jieba, which is not built in; if the model does without, name the class \
                      PreTrainedTokenizerFast in tokenizer_config.json";
        return Err(broken(folder, format!("{} {reason}", class.name())));
    }
    let added = AddedTokens::read(folder, &config, class)?;
    let source = Source { folder, config: &config, added: &added };
    let languages = class.map(|class| languages(&source, class)).transpose()?.flatten();
    let clean_up = config.flag("clean_up_tokenization_spaces")?;
    if let Some((class, kind)) = class.filter(|_| !from_json).and_then(|class| Some((class, class.kind.pieces()?))) {
        if lowercase {
            return Err(broken(folder, "texts can't be lower-cased for its tokenizer class"));
        }
        check_files(&source, class)?;
        let (tokenizer, processor) = pieces::open(&source, kind)?;
        return Ok(Opened {
            special: added.roles(|token| tokenizer.token_to_id(token)),
            tokenizer: Inner::Pieces(Box::new(tokenizer)),
            processor: Some(processor.into()),
            languages,
            chat: ChatTemplates::open(folder, &config, added.variables())?,
            clean_up: clean_up.unwrap_or(false),
        });
    }
    let mut tokenizer = match class {
        Some(class) if !from_json => convert(&source, class)?,
        _ => from_file(&json)?,
    };
    let failed = |error: tokenizers::Error| broken(folder, error.to_string());
    added.add_to(&mut tokenizer, from_json).map_err(failed)?;
    if let Some(class) = class.filter(|_| !from_json) {
        template::add_to(&mut tokenizer, &source, class)?;
    }
    if named.name.is_some() {
        adapt::adapt(&mut tokenizer, &source, class, languages.as_ref())?;
    }
    if lowercase {
        let own = tokenizer.get_normalizer().cloned();
        let sequence = std::iter::once(NormalizerWrapper::from(Lowercase)).chain(own).collect();
        tokenizer.with_normalizer(Some(Sequence::new(sequence))).map_err(failed)?;
    }
    let processor = tokenizer.get_post_processor().cloned();
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    Ok(Opened {
        special: added.roles(|token| tokenizer.token_to_id(token)),
        chat: ChatTemplates::open(folder, &config, added.variables())?,
        clean_up: clean_up.unwrap_or(!from_json && class.is_some_and(|class| class.cleans_up)),
        tokenizer: Inner::Fast(Box::new(tokenizer)),
        processor,
        languages,
    })
}

/// How texts of a class say their language.
fn languages(source: &Source<'_>, class: &Class) -> Result<Option<Languages>, TextError> {
    let config = source.config;
    let (place, form) = match class.kind {
        Kind::SentencePiece(SentencePieceKind::Mbart) => (LanguagePlace::After, Form::Plain),
        Kind::SentencePiece(SentencePieceKind::Mbart50) => (LanguagePlace::Before, Form::Plain),
        Kind::SentencePiece(SentencePieceKind::Nllb) if config.flag("legacy_behaviour")?.unwrap_or(false) => {
            (LanguagePlace::After, Form::Plain)
        }
        Kind::SentencePiece(SentencePieceKind::Nllb) => (LanguagePlace::Before, Form::Plain),
        Kind::Pieces(PiecesKind::M2m100) => (LanguagePlace::Before, Form::Underscored),
        Kind::Pieces(PiecesKind::Marian) => (LanguagePlace::InText, Form::Angled),
        Kind::WordPiece(_) | Kind::ByteLevel(_) | Kind::SentencePiece(_) | Kind::Jieba | Kind::JsonOnly { .. } => {
            return Ok(None);
        }
    };
    let others = Role::ALL.into_iter().filter_map(|role| source.added.text(role)).map(str::to_owned).collect();
    let named = |key: &str| if form == Form::Angled { Ok(None) } else { config.get(key) };
    Ok(Some(Languages { source: named("src_lang")?, target: named("tgt_lang")?, place, form, others }))
}

/// The class of a folder that has neither a tokenizer.json nor a class that is known.
fn unnamed(folder: &Path, named: &Named) -> Result<&'static Class, TextError> {
    if named.name.is_none() && folder.join("vocab.txt").exists() {
        return Ok(class::bert());
    }
    match &named.name {
        Some(name) => Err(TextError::Unsupported { folder: folder.to_path_buf(), class: name.clone() }),
        None => Err(TextError::Missing { folder: folder.to_path_buf() }),
    }
}

fn convert(source: &Source<'_>, class: &Class) -> Result<tokenizers::Tokenizer, TextError> {
    check_files(source, class)?;
    match class.kind {
        Kind::WordPiece(_) => word_piece::convert(source),
        Kind::ByteLevel(kind) => byte_level::convert(source, kind),
        Kind::SentencePiece(kind) => sentencepiece::convert(source, kind),
        Kind::Pieces(_) | Kind::Jieba | Kind::JsonOnly { .. } => {
            Err(TextError::Unsupported { folder: source.folder.to_path_buf(), class: class.name() })
        }
    }
}

fn check_files(source: &Source<'_>, class: &Class) -> Result<(), TextError> {
    let missing = class.files().iter().find(|file| !source.folder.join(file).exists());
    missing.map_or(Ok(()), |file| {
        Err(TextError::MissingFile { folder: source.folder.to_path_buf(), class: class.name(), file })
    })
}

fn from_file(path: &Path) -> Result<tokenizers::Tokenizer, TextError> {
    let failed = |error: tokenizers::Error| broken(path, error.to_string());
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(read(path)?).map_err(failed)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(failed)?;
    Ok(tokenizer)
}

pub(crate) fn broken(path: &Path, reason: impl Into<String>) -> TextError {
    TextError::Broken { path: path.to_path_buf(), reason: reason.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    read_at_most(path, FILE_LIMIT)
}

pub(crate) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, TextError> {
    let failed = |source| TextError::Read { path: PathBuf::from(path), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"))));
    }
    Ok(bytes)
}

/// The lines of a text file; each of the three ways to end one counts.
fn read_text(path: &Path) -> Result<String, TextError> {
    let text = String::from_utf8(read(path)?).map_err(|error| broken(path, error.to_string()))?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}
