//! Tokenizers of GPT-2's kind: pairs of bytes, merged in the order of a list.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::class::ByteLevelKind;
use super::config::read_json;
use super::{Source, broken, read_text};
use crate::TextError;

/// A tokenizer from `vocab.json` and `merges.txt`, without special tokens.
pub(super) fn convert(source: &Source<'_>, kind: ByteLevelKind) -> Result<tokenizers::Tokenizer, TextError> {
    let pieces: HashMap<String, u32> = read_json(&source.folder.join("vocab.json"))?;
    let path = source.folder.join("merges.txt");
    let merges = merges(&read_text(&path)?).map_err(|line| broken(&path, format!("`{line}` is no pair")))?;
    let pieces: Vocab = pieces.into_iter().collect();
    let model = BPE::builder().vocab_and_merges(pieces, merges).build();
    let mut tokenizer = tokenizers::Tokenizer::new(model.map_err(|error| broken(&path, error.to_string()))?);
    let prefix = match kind {
        ByteLevelKind::Roberta | ByteLevelKind::Gpt2 | ByteLevelKind::Deberta => {
            source.config.flag("add_prefix_space")?.unwrap_or(false)
        }
    };
    tokenizer.with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(prefix)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The pairs of a list whose first line is a heading and whose last one is empty; or the line that is none.
fn merges(text: &str) -> Result<Merges, &str> {
    let lines = text.split('\n').collect::<Vec<_>>();
    let lines = lines.get(1..lines.len().saturating_sub(1)).unwrap_or_default();
    let mut seen = std::collections::HashSet::new();
    let mut merges = Vec::with_capacity(lines.len());
    for line in lines {
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(first), Some(second), None) => {
                if seen.insert((first, second)) {
                    merges.push((first.to_string(), second.to_string()));
                }
            }
            _ => return Err(line),
        }
    }
    Ok(merges)
}
