//! What can be loaded, as a list.

use serde_json::json;

use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::families::FAMILIES;
use crate::heads::Meaning;

/// A class of transformers that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// `model_type` of its configuration.
    pub model_type: &'static str,
    /// Its name, as `BertForMaskedLM`.
    pub class: String,
    /// The task that it is for, by its hub name.
    pub task: &'static str,
}

/// Every class that can be loaded, family by family.
///
/// # Errors
/// A family refuses its own defaults.
pub fn architectures() -> Result<Vec<Architecture>, ModelError> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for &(model_type, class) in family.names {
            let checkpoint = Checkpoint::from_bytes(json!({"model_type": model_type}), NO_TENSORS)?;
            let config = Config { value: checkpoint.config(), path: checkpoint.config_path() };
            let builder = Builder::new(&checkpoint, family.prefix, family.probe);
            let named = |ending: &str, task| Architecture { model_type, class: format!("{class}{ending}"), task };
            if !family.base.is_empty() {
                all.push(named(family.base, "feature-extraction"));
            }
            all.extend((family.heads)(config, &builder)?.iter().map(|head| named(head.class, head.meaning.task())));
        }
    }
    Ok(all)
}

/// A safetensors file of no tensors: the length of its header, and `{}`.
const NO_TENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

impl Meaning {
    /// The task that such a head is for, by its hub name.
    fn task(self) -> &'static str {
        match self {
            Meaning::Classification => "text-classification",
            Meaning::TokenClassification => "token-classification",
            Meaning::QuestionAnswering => "question-answering",
            Meaning::MaskedLm => "fill-mask",
            Meaning::CausalLm => "text-generation",
            Meaning::Seq2SeqLm => "text2text-generation",
        }
    }
}
