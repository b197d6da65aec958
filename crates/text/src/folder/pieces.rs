//! Tokenizers of classes that transformers has in Python only: pieces of sentencepiece with the ids of a list.

use std::collections::HashMap;

use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;

use super::class::{PiecesKind, Role};
use super::config::read_json;
use super::languages::{LANGUAGES_M2M100, LANGUAGES_WMT21};
use super::{Source, broken};
use crate::TextError;
use crate::language::wrapped;
use crate::piece_tokenizer::{Added, PieceKind, PieceTokenizer};
use crate::sentencepiece::SentencePiece;

/// A tokenizer, and what it puts around texts.
pub(super) fn open(source: &Source<'_>, kind: PiecesKind) -> Result<(PieceTokenizer, TemplateProcessing), TextError> {
    let file = |name: &str| source.folder.join(name);
    let ids: HashMap<String, u32> = read_json(&file("vocab.json"))?;
    let eos = source.role(Role::Eos)?.to_owned();
    let unknown = source.role(Role::Unk)?.to_owned();
    let missing = |token: &str| broken(&file("vocab.json"), format!("`{token}` is not in it"));
    let unknown_id = *ids.get(&unknown).ok_or_else(|| missing(&unknown))?;
    let apart = source.config.flag("separate_vocabs")?.unwrap_or(false);
    let written = if apart { read_json(&file("target_vocab.json"))? } else { ids.clone() };
    let (pieces, target, languages) = match kind {
        PiecesKind::Marian => ("source.spm", Some(SentencePiece::open(&file("target.spm"))?), HashMap::new()),
        PiecesKind::M2m100 => ("sentencepiece.bpe.model", None, languages(source, ids.len())?),
    };
    let mut tokenizer = PieceTokenizer {
        kind: match kind {
            PiecesKind::Marian => PieceKind::Marian,
            PiecesKind::M2m100 => PieceKind::M2m100,
        },
        source: SentencePiece::open(&file(pieces))?,
        target,
        pieces: written.into_iter().chain(languages.clone()).map(|(token, id)| (id, token)).collect(),
        ids,
        unknown: (unknown, unknown_id),
        languages,
        added: Added::default(),
    };
    add(&mut tokenizer, source);
    let end = tokenizer.token_to_id(&eos).ok_or_else(|| missing(&eos))?;
    let around = match kind {
        PiecesKind::Marian => wrapped(&[], &[(&eos, end)]),
        PiecesKind::M2m100 => {
            let given: Option<String> = source.config.get("src_lang")?;
            let language = given.as_deref().unwrap_or("en");
            let token = format!("__{language}__");
            let id = tokenizer.languages.get(&token).copied();
            let unknown = || broken(source.config.path(), format!("src_lang: there is no language `{language}`"));
            wrapped(&[(&token, id.ok_or_else(unknown)?)], &[(&eos, end)])
        }
    };
    Ok((tokenizer, around.map_err(|reason| broken(source.folder, reason))?))
}

/// The tokens of M2M100's languages, which follow the pieces.
fn languages(source: &Source<'_>, pieces: usize) -> Result<HashMap<String, u32>, TextError> {
    let codes: Option<String> = source.config.get("language_codes")?;
    let languages = match codes.as_deref() {
        None | Some("m2m100") => LANGUAGES_M2M100,
        Some("wmt21") => LANGUAGES_WMT21,
        Some(other) => return Err(broken(source.config.path(), format!("language_codes: `{other}` is not known"))),
    };
    let first = u32::try_from(pieces).unwrap_or(u32::MAX);
    Ok(languages.iter().zip(first..).map(|(language, id)| (format!("__{language}__"), id)).collect())
}

/// Adds the folder's and the class's tokens, with the ids of pieces or with those that follow.
fn add(tokenizer: &mut PieceTokenizer, source: &Source<'_>) {
    let pieces = tokenizer.ids.len();
    let mut added = Added::default();
    for (id, token) in source.added.by_id() {
        added.ids.insert(token.content.clone(), id);
        added.by_id.insert(id, token.clone());
    }
    let new = pieces + added.ids.keys().filter(|token| !tokenizer.ids.contains_key(*token)).count();
    let mut next = u32::try_from(new).unwrap_or(u32::MAX);
    for token in source.added.specials() {
        let id = added.ids.get(&token.content).or_else(|| tokenizer.ids.get(&token.content)).copied();
        let id = id.unwrap_or_else(|| {
            next = next.saturating_add(1);
            next - 1
        });
        added.special.insert(token.content.clone());
        added.ids.entry(token.content.clone()).or_insert(id);
        added.by_id.entry(id).or_insert(AddedToken { special: true, ..token });
    }
    added.special.extend(added.by_id.values().filter(|token| token.special).map(|token| token.content.clone()));
    let roles: Vec<&str> = Role::ALL.into_iter().filter_map(|role| source.added.text(role)).collect();
    let is_apart = |(token, id): &(&String, &u32)| {
        !added.special.contains(*token) || !roles.contains(&token.as_str()) && **id as usize >= pieces
    };
    added.apart = added.ids.iter().filter(is_apart).map(|(token, _)| token.clone()).collect();
    tokenizer.added = added;
}

impl PiecesKind {
    /// The files that a class is read from.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Marian => &["source.spm", "target.spm", "vocab.json"],
            Self::M2m100 => &["sentencepiece.bpe.model", "vocab.json"],
        }
    }
}
