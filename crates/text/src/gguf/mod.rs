//! Tokenizers of GGUF files: the keys `tokenizer.ggml.*`.
//!
//! There are two kinds: byte-level BPE with merges, called `gpt2`, and pieces with scores as in sentencepiece, called `llama`. What
//! comes out is the tokenizer that the model was converted from, as far as the file says what that was; where llama.cpp cuts
//! texts in another way than the original, the original counts.

mod byte_level;
mod pieces;
mod vocabulary;

use std::path::Path;

use centuple_gguf::Metadata;
use serde_json::{Map, Value, json};
use tokenizers::PostProcessorWrapper;

use crate::folder::{Inner, Opened};
use crate::{ChatTemplates, SpecialToken, SpecialTokens, TextError};

use vocabulary::Vocabulary;

/// The tokenizer of a file.
pub(crate) fn open(file: &Path, metadata: &Metadata) -> Result<Opened, TextError> {
    let vocabulary = Vocabulary::read(file, metadata)?;
    let (mut tokenizer, adds_bos) = match vocabulary.text("model")? {
        Some("gpt2") => byte_level::convert(&vocabulary)?,
        Some("llama") => (pieces::convert(&vocabulary)?, true),
        Some(other) => {
            let other = other.escape_debug();
            return Err(vocabulary.broken("model", &format!("\"{other}\" is no kind that is read; gpt2 and llama are")));
        }
        None => return Err(vocabulary.broken("model", "it is missing; take a file that has a tokenizer")),
    };
    let special = special_tokens(&vocabulary)?;
    let bos = special.bos.as_ref().filter(|_| vocabulary.adds_bos.unwrap_or(adds_bos));
    let eos = special.eos.as_ref().filter(|_| vocabulary.adds_eos.unwrap_or(false));
    if bos.is_some() || eos.is_some() {
        tokenizer.with_post_processor(Some(around(bos, eos).map_err(|error| vocabulary.failed(&error.to_string()))?));
    }
    let chat = ChatTemplates::new(vocabulary.chat_templates()?, variables(&special));
    let processor = tokenizer.get_post_processor().cloned();
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    let tokenizer = Inner::Fast(Box::new(tokenizer));
    Ok(Opened { tokenizer, processor, special, languages: None, clean_up: false, chat })
}

fn special_tokens(vocabulary: &Vocabulary) -> Result<SpecialTokens, TextError> {
    let find = |key: &str| vocabulary.token(key);
    Ok(SpecialTokens {
        bos: find("bos_token_id")?,
        eos: find("eos_token_id")?,
        unk: find("unknown_token_id")?,
        // It is written so.
        sep: find("seperator_token_id")?,
        pad: find("padding_token_id")?,
        cls: find("cls_token_id")?,
        mask: find("mask_token_id")?,
    })
}

/// What chat templates see of the tokenizer.
fn variables(special: &SpecialTokens) -> Map<String, Value> {
    let named = [
        ("bos_token", &special.bos),
        ("eos_token", &special.eos),
        ("unk_token", &special.unk),
        ("sep_token", &special.sep),
        ("pad_token", &special.pad),
        ("cls_token", &special.cls),
        ("mask_token", &special.mask),
    ];
    named.into_iter().filter_map(|(name, token)| Some((name.to_owned(), json!(token.as_ref()?.text)))).collect()
}

/// What puts special tokens around texts.
fn around(bos: Option<&SpecialToken>, eos: Option<&SpecialToken>) -> serde_json::Result<PostProcessorWrapper> {
    let special = |token: &SpecialToken, text: u32| json!({"SpecialToken": {"id": token.text, "type_id": text}});
    let of_text = |id: &str, text: u32| -> Vec<Value> {
        let first = bos.map(|token| special(token, text));
        let last = eos.map(|token| special(token, text));
        first.into_iter().chain([json!({"Sequence": {"id": id, "type_id": text}})]).chain(last).collect()
    };
    let tokens = bos
        .into_iter()
        .chain(eos)
        .map(|token| (token.text.clone(), json!({"id": token.text, "ids": [token.id], "tokens": [token.text]})));
    let tokens: Map<String, Value> = tokens.collect();
    let pair = [of_text("A", 0), of_text("B", 1)].concat();
    serde_json::from_value(json!({
        "type": "TemplateProcessing",
        "single": of_text("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    }))
}
