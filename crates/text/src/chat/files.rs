//! Where the chat templates of a model folder are: `chat_template.jinja` and `additional_chat_templates/NAME.jinja`; where there is
//! neither, `chat_template` of `tokenizer_config.json`, one or several with their names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ChatTemplates, DEFAULT};
use crate::TextError;
use crate::folder::{TokenizerConfig, broken, read_at_most};

/// The largest file of a template.
const FILE_LIMIT: u64 = 4 << 20;
/// Most templates of a model.
const MOST_FILES: usize = 100;

/// `chat_template` of `tokenizer_config.json`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl ChatTemplates {
    /// Reads those of a folder; `variables` is what they see of the tokenizer.
    pub(crate) fn open(
        folder: &Path,
        config: &TokenizerConfig,
        variables: Map<String, Value>,
    ) -> Result<ChatTemplates, TextError> {
        let mut sources = files(folder)?;
        if sources.is_empty() {
            sources = match config.get::<Written>("chat_template")? {
                None => BTreeMap::new(),
                Some(Written::One(template)) => BTreeMap::from([(DEFAULT.to_owned(), template)]),
                Some(Written::Several(all)) => all.into_iter().map(|named| (named.name, named.template)).collect(),
            };
        }
        Ok(ChatTemplates::new(sources, variables))
    }
}

/// The templates that have files of their own.
fn files(folder: &Path) -> Result<BTreeMap<String, String>, TextError> {
    let mut sources = BTreeMap::new();
    let own = folder.join("chat_template.jinja");
    if own.is_file() {
        sources.insert(DEFAULT.to_owned(), read(&own)?);
    }
    // A folder without further templates has none to list.
    let listed = fs::read_dir(folder.join("additional_chat_templates")).into_iter().flatten();
    for path in listed.filter_map(|entry| Some(entry.ok()?.path())).take(MOST_FILES) {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let is_template = path.extension().is_some_and(|extension| extension == "jinja") && path.is_file();
        if let Some(name) = name.filter(|_| is_template) {
            sources.insert(name.to_owned(), read(&path)?);
        }
    }
    Ok(sources)
}

fn read(path: &Path) -> Result<String, TextError> {
    String::from_utf8(read_at_most(path, FILE_LIMIT)?).map_err(|error| broken(path, error.to_string()))
}
