//! Hub ids: `org/name[@revision]`.

use std::fmt;

/// The longest part of an id that the hub allows.
const PART_LIMIT: usize = 96;

/// A model on the hub, and the version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelId {
    pub(super) organisation: String,
    pub(super) name: String,
    /// A branch, a tag or a commit; the main branch if it is not given.
    pub(super) revision: Option<String>,
}

impl ModelId {
    /// Parses an id, or says why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (text, None),
        };
        let (organisation, name) = path.split_once('/').ok_or("it has no organisation in front of the name")?;
        if name.contains('/') {
            return Err("it has more than one slash");
        }
        if ![organisation, name].into_iter().all(is_part) {
            return Err("organisation and name consist of letters, digits, and single `-`, `_` or `.` between them");
        }
        if !revision.is_none_or(is_revision) {
            return Err("the revision is not a branch, tag or commit");
        }
        Ok(Self { organisation: organisation.into(), name: name.into(), revision: revision.map(str::to_string) })
    }

    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The folder that a cache has for the model's repository.
    pub(super) fn cache_folder(&self) -> String {
        format!("models--{}--{}", self.organisation, self.name)
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

fn is_part(part: &str) -> bool {
    let ends = |c| matches!(c, '-' | '.');
    (1..=PART_LIMIT).contains(&part.len())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !part.starts_with(ends)
        && !part.ends_with(ends)
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether every component between slashes is a plain name, so that the revision is a safe path too.
fn is_revision(revision: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))
    };
    revision.len() <= 255 && revision.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::ModelId;

    #[test]
    fn ids_round_trip() {
        for text in ["org/name", "a/b@main", "A-b_c.d/e.f-g_h@refs/pr/1", "o/n@v1.0", "_o/n_"] {
            assert_eq!(ModelId::parse(text).map(|id| id.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "", "name", "/", "a/", "/a", "a/b/c", "./a", "../a", "a/..", "~/a", "a b/c", "a/b@", "a/b@..", "a/b@../c",
            "a/b@/c", "a/b@c//d", "a/b@.c", "a--b/c", "a/-b", "a/b.", "é/a", "a\\b/c", "C:/a",
        ] {
            assert!(ModelId::parse(text).is_err(), "{text}");
        }
        assert!(ModelId::parse(&format!("a/{}", "b".repeat(97))).is_err());
    }
}
