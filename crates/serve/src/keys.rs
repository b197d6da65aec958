//! API keys: who may ask, and whose request it is.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq;

use crate::call::Client;

/// The keys that clients may send as `Authorization: Bearer KEY`. None: everybody may ask.
///
/// The holders of different keys share the engine evenly. Keys are compared in constant time and never printed; what is
/// told of them is their names.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys(Vec<ApiKey>);

/// A key and what it is called.
#[derive(Clone)]
pub struct ApiKey {
    name: String,
    secret: String,
}

impl ApiKey {
    /// What it is called in logs.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKey({}, hidden)", self.name)
    }
}

/// What is wrong with a list of keys. No key is part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It would let everybody in.
    #[error("an API key is empty; leave it out to let everybody in")]
    Empty,
    /// It can't be told whose request it is.
    #[error("the API keys `{0}` and `{1}` are the same; give each holder a key of their own")]
    SameKey(String, String),
    /// It can't be told which of them is meant in the log.
    #[error("two API keys are called `{0}`; rename one")]
    SameName(String),
    /// A line of a file of keys.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        source: Box<KeyError>,
    },
}

impl ApiKeys {
    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// Adds a key; without a name it is called `key-N` by its place.
    pub fn add(&mut self, name: Option<&str>, secret: &str) -> Result<(), KeyError> {
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let name = name.map_or_else(|| format!("key-{}", self.0.len() + 1), str::to_owned);
        if let Some(Client(index)) = self.find(secret.as_bytes()) {
            return Err(KeyError::SameKey(self.0.get(index).map(|key| key.name.clone()).unwrap_or_default(), name));
        }
        if self.0.iter().any(|key| key.name == name) {
            return Err(KeyError::SameName(name));
        }
        self.0.push(ApiKey { name, secret: secret.to_owned() });
        Ok(())
    }

    /// Adds the keys of a file: one a line, as `KEY` or `NAME: KEY`. Empty lines and those that begin with `#` are skipped.
    pub fn add_lines(&mut self, text: &str) -> Result<(), KeyError> {
        let lines = text.lines().map(str::trim).enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (name, secret) = match line.split_once(": ") {
                Some((name, secret)) => (Some(name.trim()), secret.trim()),
                None => (None, line.strip_suffix(':').map_or(line, |_| "")),
            };
            self.add(name, secret).map_err(|source| KeyError::Line { line: index + 1, source: source.into() })?;
        }
        Ok(())
    }

    /// Whose key it is. Takes equally long whichever it is and wherever they first differ.
    pub(crate) fn find(&self, candidate: &[u8]) -> Option<Client> {
        let matches =
            self.0.iter().enumerate().map(|(index, key)| (index, bool::from(key.secret.as_bytes().ct_eq(candidate))));
        // Every key is compared, also after one that is equal.
        matches.fold(None, |found, (index, equal)| if equal { Some(Client(index)) } else { found })
    }

    /// What a client's key is called, if keys are asked for.
    pub(crate) fn name(&self, Client(index): Client) -> Option<&str> {
        self.0.get(index).map(ApiKey::name)
    }
}

/// The keys of a text, as [`ApiKeys::add_lines`] reads them.
impl FromStr for ApiKeys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        keys.add_lines(text)?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_itself_only_and_not_printed() {
        let keys: ApiKeys = "# holders\nalice: secret\n\n  second secret  \nbob:  third: x \n".parse().unwrap();
        let found = |key: &str| keys.find(key.as_bytes()).and_then(|client| keys.name(client));
        assert_eq!(found("secret"), Some("alice"));
        assert_eq!(found("second secret"), Some("key-2"));
        assert_eq!(found("third: x"), Some("bob"));
        assert!(["", "secre", "secret2", "alice: secret", "alice"].iter().all(|key| found(key).is_none()));
        let printed = format!("{keys:?}");
        assert!(printed.contains("alice") && !printed.contains("secret") && !printed.contains("third"), "{printed}");
    }

    #[test]
    fn keys_that_would_let_in_or_mix_up_are_refused() {
        let refused = |text: &str| text.parse::<ApiKeys>().unwrap_err().to_string();
        insta::assert_snapshot!(["alice:", "alice: s3cret\nbob: s3cret", "alice: s3cret\n\nalice: other"].map(refused).join("\n"), @r"
        line 1: an API key is empty; leave it out to let everybody in
        line 2: the API keys `alice` and `bob` are the same; give each holder a key of their own
        line 3: two API keys are called `alice`; rename one
        ");
        assert_eq!(ApiKeys::default().add(None, ""), Err(KeyError::Empty));
        assert!("".parse::<ApiKeys>().unwrap().is_empty());
    }
}
