//! What a tokenizer class of transformers is, and which one a folder names.

use std::path::Path;

use serde::Deserialize;

use super::classes::CLASSES;
use super::config::{TokenizerConfig, read_json};
use crate::TextError;

/// A class of transformers, or several that behave alike.
#[derive(Debug)]
pub(super) struct Class {
    /// Names without `Tokenizer` and `TokenizerFast`.
    pub(super) names: &'static [&'static str],
    /// The values of config.json's `model_type` that stand for it.
    pub(super) model_types: &'static [&'static str],
    pub(super) kind: Kind,
    pub(super) specials: &'static [Special],
    /// Special tokens without a role.
    pub(super) additional: Additional,
    /// Whether decoded text is cleaned up, where the folder does not say.
    pub(super) cleans_up: bool,
}

/// How a class reads its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    WordPiece(WordPieceKind),
    ByteLevel(ByteLevelKind),
    SentencePiece(SentencePieceKind),
    /// In Python only: pieces of sentencepiece with ids of their own.
    Pieces(PiecesKind),
    /// With a dictionary of Chinese words that isn't built in.
    Jieba,
    /// Only from a tokenizer.json.
    JsonOnly {
        /// Whether the class puts its own beginning and end around texts; and whether it begins them unasked.
        begins: Option<bool>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordPieceKind {
    Bert,
    Funnel,
    Mpnet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteLevelKind {
    Roberta,
    Gpt2,
    Deberta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentencePieceKind {
    Albert,
    BigBird,
    Camembert,
    DebertaV2,
    Llama,
    Mbart,
    Mbart50,
    Nllb,
    T5,
    XlmRoberta,
    Xlnet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PiecesKind {
    M2m100,
    Marian,
}

/// Special tokens without a role that a class has of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Additional {
    /// Those the folder lists.
    Listed,
    /// These, where the folder lists none.
    Default(&'static [&'static str]),
    /// These, then those the folder lists.
    Before(&'static [&'static str]),
    /// Those the folder lists, then these.
    After(&'static [&'static str]),
    /// `<extra_id_0>` and so on, as many as `extra_ids` says.
    ExtraIds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Bos,
    Eos,
    Unk,
    Sep,
    Pad,
    Cls,
    Mask,
}

impl Role {
    /// All, in the order in which transformers adds them.
    pub(super) const ALL: [Self; 7] = [Self::Bos, Self::Eos, Self::Unk, Self::Sep, Self::Pad, Self::Cls, Self::Mask];

    /// Its field in the JSON files.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Bos => "bos_token",
            Self::Eos => "eos_token",
            Self::Unk => "unk_token",
            Self::Sep => "sep_token",
            Self::Pad => "pad_token",
            Self::Cls => "cls_token",
            Self::Mask => "mask_token",
        }
    }
}

/// A special token of a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Special {
    pub(super) role: Role,
    /// How it is written unless the folder says otherwise.
    pub(super) text: Option<&'static str>,
    /// How it is found in a text; unset, as it is already, or exactly as it is written.
    pub(super) found: Option<Found>,
}

/// How a special token is found in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// With the spaces before it.
    pub(super) lstrip: bool,
    /// In the normalised text.
    pub(super) normalized: bool,
}

impl Class {
    /// Its full name.
    pub(super) fn name(&self) -> String {
        format!("{}Tokenizer", self.names.first().copied().unwrap_or_default())
    }

    /// The files that it is converted from.
    pub(super) fn files(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::WordPiece(_) => &["vocab.txt"],
            Kind::ByteLevel(_) => &["vocab.json", "merges.txt"],
            Kind::SentencePiece(kind) => kind.files(),
            Kind::Pieces(kind) => kind.files(),
            Kind::Jieba | Kind::JsonOnly { .. } => &[],
        }
    }
}

impl Kind {
    /// Which class of those that transformers has in Python only.
    pub(super) fn pieces(self) -> Option<PiecesKind> {
        match self {
            Self::Pieces(kind) => Some(kind),
            Self::WordPiece(_) | Self::ByteLevel(_) | Self::SentencePiece(_) | Self::Jieba | Self::JsonOnly { .. } => {
                None
            }
        }
    }
}

impl SentencePieceKind {
    /// The language of texts where nothing names it, for classes whose texts have one.
    pub(super) fn first_language(self) -> &'static str {
        if self == Self::Nllb { "eng_Latn" } else { "en_XX" }
    }

    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Albert | Self::BigBird | Self::T5 | Self::Xlnet => &["spiece.model"],
            Self::Camembert | Self::Mbart | Self::Mbart50 | Self::Nllb | Self::XlmRoberta => {
                &["sentencepiece.bpe.model"]
            }
            Self::DebertaV2 => &["spm.model"],
            Self::Llama => &["tokenizer.model"],
        }
    }
}

/// BERT's class.
pub(super) fn bert() -> &'static Class {
    &CLASSES[0]
}

/// What a folder says of its class.
pub(super) struct Named {
    /// The class or the type of model, as the folder names it.
    pub(super) name: Option<String>,
    /// The class, if it is known.
    pub(super) class: Option<&'static Class>,
}

impl Named {
    /// Whether the class goes back to its own files although there is a tokenizer.json.
    pub(super) fn reads_own_files(&self, config: &TokenizerConfig) -> bool {
        let rereads = [Kind::SentencePiece(SentencePieceKind::T5), Kind::SentencePiece(SentencePieceKind::Llama)];
        let class = self.class.map(|class| class.kind);
        class.is_some_and(|kind| kind.pieces().is_some())
            || class.is_some_and(|kind| rereads.contains(&kind))
                && config.values().get("add_prefix_space").is_some_and(|value| !value.is_null())
    }

    /// Whether the folder has the files of the class.
    pub(super) fn has_files(&self, folder: &Path) -> bool {
        self.class.is_some_and(|class| class.files().iter().all(|file| folder.join(file).is_file()))
    }
}

/// `config.json`, as far as it says which tokenizer belongs to the model.
#[derive(Debug, Default, Deserialize)]
struct ModelConfig {
    tokenizer_class: Option<String>,
    model_type: Option<String>,
}

/// The class that `tokenizer_config.json` names, else `config.json`, else the one of the type of model.
pub(super) fn of_folder(folder: &Path, config: &TokenizerConfig) -> Result<Named, TextError> {
    if let Some(name) = config.get("tokenizer_class")? {
        return Ok(by_name(name));
    }
    let path = folder.join("config.json");
    let model: ModelConfig = if path.is_file() { read_json(&path)? } else { ModelConfig::default() };
    Ok(match (model.tokenizer_class, model.model_type) {
        (Some(name), _) => by_name(name),
        (None, Some(model_type)) => Named {
            class: CLASSES.iter().find(|class| class.model_types.contains(&model_type.as_str())),
            name: Some(format!("the model type `{model_type}`")),
        },
        (None, None) => Named { name: None, class: None },
    })
}

fn by_name(name: String) -> Named {
    let short = name.strip_suffix("Fast").unwrap_or(&name);
    let short = short.strip_suffix("Tokenizer").unwrap_or(short);
    Named { class: CLASSES.iter().find(|class| class.names.contains(&short)), name: Some(name) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_stands_for_two_classes() {
        for names in [|class: &Class| class.names, |class: &Class| class.model_types] {
            let all = CLASSES.iter().flat_map(names).collect::<Vec<_>>();
            assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
        }
    }
}
