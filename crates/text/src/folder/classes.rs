//! The list of tokenizer classes that are known.

use super::class::{
    Additional, ByteLevelKind, Class, Found, Kind, PiecesKind, Role, SentencePieceKind, Special, WordPieceKind,
};
use super::languages::{LANGUAGES, LANGUAGES_50, LANGUAGES_NLLB};

const EXACT: Option<Found> = Some(Found { lstrip: false, normalized: false });
const NORMALIZED: Option<Found> = Some(Found { lstrip: false, normalized: true });
const SPACED: Option<Found> = Some(Found { lstrip: true, normalized: false });
const SPACED_NORMALIZED: Option<Found> = Some(Found { lstrip: true, normalized: true });

const fn special(role: Role, text: &'static str, found: Option<Found>) -> Special {
    Special { role, text: Some(text), found }
}

const BERT: &[Special] = &[
    special(Role::Unk, "[UNK]", None),
    special(Role::Sep, "[SEP]", None),
    special(Role::Pad, "[PAD]", None),
    special(Role::Cls, "[CLS]", None),
    special(Role::Mask, "[MASK]", None),
];

/// Bos, eos, sep, cls, unk, pad as fairseq writes them.
const fn fairseq(found: Option<Found>, mask: Option<Found>) -> [Special; 7] {
    [
        special(Role::Bos, "<s>", found),
        special(Role::Eos, "</s>", found),
        special(Role::Unk, "<unk>", found),
        special(Role::Sep, "</s>", found),
        special(Role::Pad, "<pad>", found),
        special(Role::Cls, "<s>", found),
        special(Role::Mask, "<mask>", mask),
    ]
}

const fn class(names: &'static [&'static str], kind: Kind, specials: &'static [Special]) -> Class {
    Class { names, model_types: &[], kind, specials, additional: Additional::Listed, cleans_up: false }
}

/// Every class that is known; the first is BERT's.
pub(super) const CLASSES: &[Class] = &[
    Class {
        model_types: &[
            "bert",
            "convbert",
            "distilbert",
            "dpr",
            "electra",
            "ernie",
            "layoutlm",
            "lxmert",
            "megatron-bert",
            "mobilebert",
            "nezha",
            "qdqbert",
            "squeezebert",
            "visual_bert",
        ],
        cleans_up: true,
        ..class(
            &[
                "Bert",
                "ConvBert",
                "DPRContextEncoder",
                "DPRQuestionEncoder",
                "DPRReader",
                "DistilBert",
                "Electra",
                "LayoutLM",
                "Lxmert",
                "MobileBert",
                "RetriBert",
                "SqueezeBert",
            ],
            Kind::WordPiece(WordPieceKind::Bert),
            BERT,
        )
    },
    Class {
        model_types: &["funnel"],
        cleans_up: true,
        ..class(
            &["Funnel"],
            Kind::WordPiece(WordPieceKind::Funnel),
            &[
                special(Role::Bos, "<s>", None),
                special(Role::Eos, "</s>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "<sep>", None),
                special(Role::Pad, "<pad>", None),
                special(Role::Cls, "<cls>", None),
                special(Role::Mask, "<mask>", None),
            ],
        )
    },
    Class {
        model_types: &["mpnet"],
        cleans_up: true,
        ..class(
            &["MPNet"],
            Kind::WordPiece(WordPieceKind::Mpnet),
            &[
                special(Role::Bos, "<s>", EXACT),
                special(Role::Eos, "</s>", EXACT),
                special(Role::Unk, "[UNK]", EXACT),
                special(Role::Sep, "</s>", EXACT),
                special(Role::Pad, "<pad>", EXACT),
                special(Role::Cls, "<s>", EXACT),
                special(Role::Mask, "<mask>", SPACED),
            ],
        )
    },
    Class {
        model_types: &["roberta", "roberta-prelayernorm", "data2vec-text", "ibert", "mega", "mra"],
        ..class(&["Roberta"], Kind::ByteLevel(ByteLevelKind::Roberta), &fairseq(NORMALIZED, SPACED))
    },
    Class {
        model_types: &["bart", "led", "longformer", "mvp"],
        ..class(
            &["Bart", "LED", "Longformer", "Mvp"],
            Kind::ByteLevel(ByteLevelKind::Roberta),
            &fairseq(NORMALIZED, SPACED_NORMALIZED),
        )
    },
    Class {
        model_types: &["gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt"],
        ..class(
            &["GPT2"],
            Kind::ByteLevel(ByteLevelKind::Gpt2),
            &[
                special(Role::Bos, "<|endoftext|>", NORMALIZED),
                special(Role::Eos, "<|endoftext|>", NORMALIZED),
                special(Role::Unk, "<|endoftext|>", NORMALIZED),
                Special { role: Role::Pad, text: None, found: NORMALIZED },
            ],
        )
    },
    Class {
        model_types: &["deberta"],
        ..class(
            &["Deberta"],
            Kind::ByteLevel(ByteLevelKind::Deberta),
            &[
                special(Role::Bos, "[CLS]", EXACT),
                special(Role::Eos, "[SEP]", EXACT),
                special(Role::Unk, "[UNK]", EXACT),
                special(Role::Sep, "[SEP]", EXACT),
                special(Role::Pad, "[PAD]", EXACT),
                special(Role::Cls, "[CLS]", EXACT),
                special(Role::Mask, "[MASK]", SPACED_NORMALIZED),
            ],
        )
    },
    Class {
        model_types: &["albert", "nystromformer"],
        ..class(
            &["Albert"],
            Kind::SentencePiece(SentencePieceKind::Albert),
            &[
                special(Role::Bos, "[CLS]", None),
                special(Role::Eos, "[SEP]", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "[SEP]", None),
                special(Role::Pad, "<pad>", None),
                special(Role::Cls, "[CLS]", None),
                special(Role::Mask, "[MASK]", SPACED),
            ],
        )
    },
    Class {
        model_types: &["big_bird"],
        ..class(
            &["BigBird"],
            Kind::SentencePiece(SentencePieceKind::BigBird),
            &[
                special(Role::Bos, "<s>", NORMALIZED),
                special(Role::Eos, "</s>", NORMALIZED),
                special(Role::Unk, "<unk>", NORMALIZED),
                special(Role::Sep, "[SEP]", NORMALIZED),
                special(Role::Pad, "<pad>", NORMALIZED),
                special(Role::Cls, "[CLS]", NORMALIZED),
                special(Role::Mask, "[MASK]", SPACED_NORMALIZED),
            ],
        )
    },
    Class {
        model_types: &["camembert"],
        additional: Additional::Default(&["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]),
        ..class(&["Camembert"], Kind::SentencePiece(SentencePieceKind::Camembert), &fairseq(None, SPACED))
    },
    Class {
        model_types: &["xlm-roberta", "xlm-roberta-xl", "xmod"],
        ..class(&["XLMRoberta"], Kind::SentencePiece(SentencePieceKind::XlmRoberta), &fairseq(None, SPACED))
    },
    Class {
        model_types: &["mbart"],
        additional: Additional::Before(LANGUAGES),
        ..class(&["MBart"], Kind::SentencePiece(SentencePieceKind::Mbart), &fairseq(None, SPACED))
    },
    Class {
        model_types: &["mbart50"],
        additional: Additional::After(LANGUAGES_50),
        ..class(
            &["MBart50"],
            Kind::SentencePiece(SentencePieceKind::Mbart50),
            &[
                special(Role::Eos, "</s>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "</s>", None),
                special(Role::Pad, "<pad>", None),
                special(Role::Cls, "<s>", None),
                special(Role::Mask, "<mask>", SPACED_NORMALIZED),
            ],
        )
    },
    Class {
        model_types: &["nllb", "nllb-moe"],
        additional: Additional::Default(LANGUAGES_NLLB),
        ..class(
            &["Nllb"],
            Kind::SentencePiece(SentencePieceKind::Nllb),
            &[
                special(Role::Bos, "<s>", None),
                special(Role::Eos, "</s>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "</s>", None),
                special(Role::Pad, "<pad>", None),
                special(Role::Cls, "<s>", None),
                special(Role::Mask, "<mask>", SPACED_NORMALIZED),
            ],
        )
    },
    Class {
        model_types: &["m2m_100"],
        ..class(
            &["M2M100"],
            Kind::Pieces(PiecesKind::M2m100),
            &[
                special(Role::Bos, "<s>", None),
                special(Role::Eos, "</s>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "</s>", None),
                special(Role::Pad, "<pad>", None),
            ],
        )
    },
    Class {
        model_types: &["marian"],
        ..class(
            &["Marian"],
            Kind::Pieces(PiecesKind::Marian),
            &[special(Role::Eos, "</s>", None), special(Role::Unk, "<unk>", None), special(Role::Pad, "<pad>", None)],
        )
    },
    Class {
        model_types: &["t5", "mt5", "umt5", "longt5", "switch_transformers"],
        additional: Additional::ExtraIds,
        ..class(
            &["T5", "MT5"],
            Kind::SentencePiece(SentencePieceKind::T5),
            &[
                special(Role::Eos, "</s>", EXACT),
                special(Role::Unk, "<unk>", EXACT),
                special(Role::Pad, "<pad>", EXACT),
            ],
        )
    },
    Class {
        model_types: &["deberta-v2"],
        ..class(
            &["DebertaV2"],
            Kind::SentencePiece(SentencePieceKind::DebertaV2),
            &[
                special(Role::Bos, "[CLS]", None),
                special(Role::Eos, "[SEP]", None),
                special(Role::Unk, "[UNK]", NORMALIZED),
                special(Role::Sep, "[SEP]", None),
                special(Role::Pad, "[PAD]", None),
                special(Role::Cls, "[CLS]", None),
                special(Role::Mask, "[MASK]", None),
            ],
        )
    },
    Class {
        model_types: &["xlnet"],
        additional: Additional::Default(&["<eop>", "<eod>"]),
        ..class(
            &["XLNet"],
            Kind::SentencePiece(SentencePieceKind::Xlnet),
            &[
                special(Role::Bos, "<s>", None),
                special(Role::Eos, "</s>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Sep, "<sep>", None),
                special(Role::Pad, "<pad>", None),
                special(Role::Cls, "<cls>", None),
                special(Role::Mask, "<mask>", SPACED),
            ],
        )
    },
    Class {
        model_types: &["llama", "mistral", "mixtral", "phi3"],
        ..class(
            &["Llama"],
            Kind::SentencePiece(SentencePieceKind::Llama),
            &[
                special(Role::Bos, "<s>", EXACT),
                special(Role::Eos, "</s>", EXACT),
                special(Role::Unk, "<unk>", EXACT),
                Special { role: Role::Pad, text: None, found: EXACT },
            ],
        )
    },
    Class { model_types: &["roformer"], ..class(&["RoFormer"], Kind::Jieba, BERT) },
    Class {
        model_types: &["gemma", "gemma2", "gemma3", "gemma3_text"],
        ..class(
            &["Gemma"],
            Kind::JsonOnly { begins: Some(true) },
            &[
                special(Role::Bos, "<bos>", None),
                special(Role::Eos, "<eos>", None),
                special(Role::Unk, "<unk>", None),
                special(Role::Pad, "<pad>", None),
            ],
        )
    },
    Class {
        model_types: &["gpt_neox"],
        ..class(
            &["GPTNeoX"],
            Kind::JsonOnly { begins: Some(false) },
            &[
                special(Role::Bos, "<|endoftext|>", None),
                special(Role::Eos, "<|endoftext|>", None),
                special(Role::Unk, "<|endoftext|>", None),
            ],
        )
    },
];
