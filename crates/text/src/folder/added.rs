//! Tokens beside the vocabulary, and special tokens by role.
//!
//! They come from `tokenizer_config.json`; where that has no `added_tokens_decoder`, also from
//! `special_tokens_map.json` and `added_tokens.json`; and what no file names, from the class.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Result};

use super::broken;
use super::class::{Additional, Class, Role};
use super::config::{TokenizerConfig, read_json};
use crate::{SpecialToken, SpecialTokens, TextError};

/// The largest number of extra ids; T5 has 100.
const EXTRA_IDS_LIMIT: usize = 1 << 16;

/// The field of special tokens without a role.
const ADDITIONAL: &str = "additional_special_tokens";

/// The tokens that are added to a vocabulary.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// By id, with their properties.
    listed: BTreeMap<u32, AddedToken>,
    /// The special tokens with a role.
    roles: BTreeMap<Role, Special>,
    /// Special tokens without a role.
    additional: Vec<Special>,
}

/// A special token as a file or a class describes it.
#[derive(Debug, Clone)]
struct Special {
    text: String,
    /// How it is found in texts; unset, as the vocabulary has it.
    token: Option<AddedToken>,
    /// Whether a file names it.
    given: bool,
}

/// A special token in a JSON file: its text, or an object with its properties.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Object(WrittenToken),
}

/// The properties of a token in a JSON file.
#[derive(Debug, Deserialize)]
struct WrittenToken {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl WrittenToken {
    fn token(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

impl AddedTokens {
    /// Reads what the folder and its class say.
    pub(super) fn read(
        folder: &Path,
        config: &TokenizerConfig,
        class: Option<&Class>,
    ) -> std::result::Result<Self, TextError> {
        let mut values = config.values().clone();
        let decoder: Option<BTreeMap<u32, WrittenToken>> = config.get("added_tokens_decoder")?;
        let listed = match decoder {
            Some(listed) => listed.into_iter().map(|(id, token)| (id, token.token())).collect(),
            None => {
                overlay(&mut values, optional(&folder.join("special_tokens_map.json"))?);
                listed_apart(&values, &folder.join("added_tokens.json"))?
            }
        };
        let reader = Reader { values: &values, config, class };
        Ok(Self { listed, roles: reader.roles()?, additional: reader.additional()? })
    }

    /// How the token of a role is written, if there is one.
    pub(super) fn text(&self, role: Role) -> Option<&str> {
        self.roles.get(&role).map(|special| special.text.as_str())
    }

    /// How special tokens are written, under the names that templates know them by.
    pub(super) fn variables(&self) -> Map<String, Value> {
        let role = |(role, special): (&Role, &Special)| (role.key().to_owned(), Value::from(special.text.as_str()));
        let mut variables: Map<_, _> = self.roles.iter().map(role).collect();
        if !self.additional.is_empty() {
            let texts = self.additional.iter().map(|special| Value::from(special.text.as_str())).collect();
            variables.insert(ADDITIONAL.to_owned(), Value::Array(texts));
        }
        variables
    }

    /// The token of an id beside the vocabulary.
    pub(super) fn listed(&self, id: u32) -> Option<&str> {
        self.listed.get(&id).map(|token| token.content.as_str())
    }

    /// Every token that a file lists with its id.
    pub(super) fn by_id(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.listed.iter().map(|(id, token)| (*id, token))
    }

    /// The special tokens by role, then the others; as they are found in texts.
    pub(super) fn specials(&self) -> impl Iterator<Item = AddedToken> {
        let all = self.roles.values().chain(&self.additional);
        all.map(|special| special.token.clone().unwrap_or_else(|| AddedToken::from(special.text.clone(), true)))
    }

    /// Adds the tokens; those of a tokenizer.json, which has its own, stay as they are.
    pub(super) fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer, from_json: bool) -> Result<()> {
        let specials = || self.roles.values().chain(&self.additional);
        let is_special = |text: &str| specials().any(|special| special.text == text);
        let listed = self
            .listed
            .values()
            .map(|token| AddedToken { special: token.special || is_special(&token.content), ..token.clone() });
        tokenizer.add_tokens(listed.collect::<Vec<_>>())?;
        let before = tokenizer.get_added_tokens_decoder();
        let before = before.values().map(|token| (token.content.as_str(), token)).collect::<BTreeMap<_, _>>();
        let (mut tokens, mut seen) = (Vec::new(), BTreeSet::new());
        for special in specials() {
            if !seen.insert(&special.text) {
                continue;
            }
            let listed = self.listed.values().any(|token| token.content == special.text);
            let known = before.contains_key(special.text.as_str());
            let stays = match &special.token {
                Some(_) => special.given && (listed || from_json && known),
                None => listed || known,
            };
            if !stays {
                let plain = || AddedToken::from(special.text.clone(), true);
                let token = AddedToken { special: true, ..special.token.clone().unwrap_or_else(plain) };
                // Where a token is looked for was settled when it was added first.
                let normalized = before
                    .get(special.text.as_str())
                    .map_or(token.normalized, |first| first.normalized && (first.special || token.normalized));
                tokens.push(AddedToken { normalized, ..token });
            }
        }
        tokenizer.add_tokens(tokens)?;
        Ok(())
    }

    /// The special tokens with their ids.
    pub(super) fn roles(&self, id: impl Fn(&str) -> Option<u32>) -> SpecialTokens {
        let find = |role| {
            let text = self.text(role)?;
            Some(SpecialToken { text: text.to_string(), id: id(text)? })
        };
        SpecialTokens {
            bos: find(Role::Bos),
            eos: find(Role::Eos),
            unk: find(Role::Unk),
            sep: find(Role::Sep),
            pad: find(Role::Pad),
            cls: find(Role::Cls),
            mask: find(Role::Mask),
        }
    }
}

/// What files and class say of special tokens.
struct Reader<'a> {
    values: &'a Map<String, Value>,
    config: &'a TokenizerConfig,
    class: Option<&'a Class>,
}

impl Reader<'_> {
    fn roles(&self) -> std::result::Result<BTreeMap<Role, Special>, TextError> {
        let mut roles = BTreeMap::new();
        for role in Role::ALL {
            let default = self.class.and_then(|class| class.specials.iter().find(|special| special.role == role));
            let found = default.and_then(|default| default.found);
            let token = |text: &str| {
                found.map(|found| {
                    AddedToken::from(text.to_string(), true).lstrip(found.lstrip).normalized(found.normalized)
                })
            };
            let special = match self.values.get(role.key()) {
                None => default.and_then(|default| default.text).map(|text| Special {
                    text: text.to_string(),
                    token: token(text),
                    given: false,
                }),
                Some(Value::Null) => None,
                Some(value) => Some(match self.written(role.key(), value)? {
                    Written::Text(text) => Special { token: token(&text), text, given: true },
                    Written::Object(written) => {
                        let token = written.token();
                        Special { text: token.content.clone(), token: Some(token), given: true }
                    }
                }),
            };
            roles.extend(special.map(|special| (role, special)));
        }
        Ok(roles)
    }

    fn additional(&self) -> std::result::Result<Vec<Special>, TextError> {
        const KEY: &str = ADDITIONAL;
        let listed = match self.values.get(KEY) {
            None | Some(Value::Null) => None,
            Some(Value::Array(values)) => {
                let read = |value| {
                    Ok(match self.written(KEY, value)? {
                        Written::Text(text) => Special { text, token: None, given: true },
                        Written::Object(written) => {
                            let token = written.token();
                            Special { text: token.content.clone(), token: Some(token), given: true }
                        }
                    })
                };
                Some(values.iter().map(read).collect::<std::result::Result<Vec<_>, TextError>>()?)
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                return Err(broken(self.config.path(), format!("{KEY}: it is no list")));
            }
        };
        let own = |texts: &[&str]| texts.iter().map(|text| plain(text.to_string())).collect::<Vec<_>>();
        let is_listed = listed.is_some();
        let mut all = listed.unwrap_or_default();
        match self.class.map_or(Additional::Listed, |class| class.additional) {
            Additional::Listed => {}
            Additional::Default(texts) if !is_listed => all = own(texts),
            Additional::Default(_) => {}
            Additional::Before(texts) => {
                all.retain(|special| !texts.contains(&special.text.as_str()));
                all = own(texts).into_iter().chain(all).collect();
            }
            Additional::After(texts) => {
                let new = own(texts).into_iter().filter(|own| all.iter().all(|special| special.text != own.text));
                all.extend(new.collect::<Vec<_>>());
            }
            Additional::ExtraIds => {
                if !all.iter().any(|special| special.text.contains("<extra_id_")) {
                    all.extend((0..extra_ids(self.config)?).map(|id| plain(format!("<extra_id_{id}>"))));
                }
            }
        }
        Ok(all)
    }

    fn written(&self, key: &str, value: &Value) -> std::result::Result<Written, TextError> {
        let failed = |_| broken(self.config.path(), format!("{key} is neither a text nor a token with its content"));
        serde_json::from_value(value.clone()).map_err(failed)
    }
}

fn plain(text: String) -> Special {
    Special { text, token: None, given: false }
}

/// How many `<extra_id_…>` T5 has.
pub(super) fn extra_ids(config: &TokenizerConfig) -> std::result::Result<usize, TextError> {
    let count = config.get("extra_ids")?.unwrap_or(100);
    if count > EXTRA_IDS_LIMIT {
        return Err(broken(config.path(), format!("extra_ids: {count} is more than {EXTRA_IDS_LIMIT}")));
    }
    Ok(count)
}

/// What `special_tokens_map.json` says goes before what `tokenizer_config.json` says.
fn overlay(values: &mut Map<String, Value>, map: Map<String, Value>) {
    let special = |mut value: Value| {
        if let Value::Object(token) = &mut value {
            token.insert("special".to_string(), Value::Bool(true));
        }
        value
    };
    for (key, value) in map {
        match (value, values.get_mut(&key)) {
            (Value::Array(new), Some(Value::Array(old))) => {
                for value in new.into_iter().map(special) {
                    if !old.contains(&value) {
                        old.push(value);
                    }
                }
            }
            (Value::Array(new), _) => {
                values.insert(key, Value::Array(new.into_iter().map(special).collect()));
            }
            (value, _) => {
                values.insert(key, special(value));
            }
        }
    }
}

/// The tokens of `added_tokens.json`; those that `values` name as special are.
fn listed_apart(values: &Map<String, Value>, path: &Path) -> std::result::Result<BTreeMap<u32, AddedToken>, TextError> {
    let content = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_string),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    let named = Role::ALL.iter().filter_map(|role| values.get(role.key()));
    let additional = values.get("additional_special_tokens").and_then(Value::as_array);
    let specials = named.chain(additional.into_iter().flatten()).filter_map(content).collect::<Vec<_>>();
    let listed = optional(path)?.into_iter().map(|(text, id)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| broken(path, format!("the id of `{text}` is no token id")))?;
        let special = specials.contains(&text);
        Ok((id, AddedToken::from(text, special).normalized(!special)))
    });
    listed.collect()
}

/// A JSON object; empty where there is no file.
fn optional(path: &Path) -> std::result::Result<Map<String, Value>, TextError> {
    if path.is_file() { read_json(path) } else { Ok(Map::new()) }
}
