//! Byte-level BPE, as GPT-2's.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::vocabulary::{Vocabulary, shown};
use crate::TextError;

/// How texts are cut into words before merges.
#[derive(Clone, Copy)]
enum Words {
    /// As GPT-2 does.
    Gpt2,
    /// The same after each digit was cut out.
    Digits,
    /// By an expression that finds words.
    Expression(&'static str),
}

/// What is known of a tokenizer by the name that llama.cpp has for how it cuts texts.
struct Cut {
    names: &'static [&'static str],
    words: Words,
    /// Whether texts are composed first (NFC).
    composes: bool,
    /// Whether a word that is a token is that token, whatever merges would make of it.
    whole_words: bool,
    /// Whether texts begin with the beginning token where the file doesn't say.
    adds_bos: bool,
}

const PLAIN: Cut = Cut { names: &[], words: Words::Gpt2, composes: false, whole_words: false, adds_bos: false };

/// Every way of cutting that is known.
static CUTS: [Cut; 4] = [
    Cut { names: &["gpt-2", "gpt2"], ..PLAIN },
    Cut { names: &["smollm", "starcoder", "refact", "command-r"], words: Words::Digits, ..PLAIN },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3", "smaug-bpe"],
        words: Words::Expression(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen"],
        words: Words::Expression(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composes: true,
        ..PLAIN
    },
];

/// The tokenizer, and whether texts begin with the beginning token where the file doesn't say.
pub(super) fn convert(vocabulary: &Vocabulary) -> Result<(Tokenizer, bool), TextError> {
    let cut = cut_of(vocabulary)?;
    let failed = |error: tokenizers::Error| vocabulary.failed(&error.to_string());
    let pieces: Vocab = vocabulary.tokens.iter().cloned().zip(0u32..).collect();
    let model = BPE::builder().vocab_and_merges(pieces, vocabulary.merges()?).ignore_merges(cut.whole_words).build();
    let mut tokenizer = Tokenizer::new(model.map_err(failed)?);
    if cut.composes {
        tokenizer.with_normalizer(Some(NFC)).map_err(failed)?;
    }
    let bytes = |finds_words: bool| ByteLevel::default().add_prefix_space(false).use_regex(finds_words);
    let cuts: PreTokenizerWrapper = match cut.words {
        Words::Gpt2 => bytes(true).into(),
        Words::Digits => Sequence::new(vec![Digits::new(true).into(), bytes(true).into()]).into(),
        Words::Expression(expression) => {
            let pattern = SplitPattern::Regex(expression.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
            Sequence::new(vec![split.into(), bytes(false).into()]).into()
        }
    };
    tokenizer.with_pre_tokenizer(Some(cuts));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.add_tokens(vocabulary.added(|_| false)).map_err(failed)?;
    Ok((tokenizer, cut.adds_bos))
}

fn cut_of(vocabulary: &Vocabulary) -> Result<&'static Cut, TextError> {
    let known = || CUTS.iter().flat_map(|cut| cut.names).copied().collect::<Vec<_>>().join(", ");
    match vocabulary.text("pre")? {
        Some(name) => CUTS.iter().find(|cut| cut.names.contains(&name)).ok_or_else(|| {
            let reason = format!("\"{}\" is no way of cutting texts that is known; {} are", shown(name), known());
            vocabulary.broken("pre", &reason)
        }),
        None => {
            let reason =
                "it is missing, so how texts are cut can't be told; convert the model again with a current llama.cpp";
            Err(vocabulary.broken("pre", reason))
        }
    }
}
