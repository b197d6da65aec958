//! Which column is what.

use std::fmt;
use std::str::FromStr;

use super::error::COLUMN_FLAG;

/// What a column can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The text, or the first of a pair.
    Inputs,
    /// The second text of a pair.
    Pair,
    /// The class or classes.
    Label,
    /// The similarity of two texts.
    Score,
    /// The text that holds an answer.
    Context,
    /// The question.
    Question,
    /// The right answers.
    Answers,
    /// The entities, as spans of characters.
    Entities,
    /// The words of a text.
    Tokens,
    /// The tag of each word.
    Tags,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 10] = [
        Role::Inputs,
        Role::Pair,
        Role::Label,
        Role::Score,
        Role::Context,
        Role::Question,
        Role::Answers,
        Role::Entities,
        Role::Tokens,
        Role::Tags,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Inputs => "inputs",
            Role::Pair => "pair",
            Role::Label => "label",
            Role::Score => "score",
            Role::Context => "context",
            Role::Question => "question",
            Role::Answers => "answers",
            Role::Entities => "entities",
            Role::Tokens => "tokens",
            Role::Tags => "tags",
        }
    }

    /// The names that columns of this role usually have. Texts come in pairs of names, see [`PAIRS`].
    pub(crate) fn known(self) -> &'static [&'static str] {
        match self {
            Role::Inputs => &["inputs", "text", "sentence", "content"],
            Role::Pair => &[],
            Role::Label => &["label", "labels", "class"],
            Role::Score => &["score", "similarity", "similarity_score", "relatedness_score"],
            Role::Context => &["context"],
            Role::Question => &["question"],
            Role::Answers => &["answers", "answer"],
            Role::Entities => &["entities", "spans"],
            Role::Tokens => &["tokens", "words"],
            Role::Tags => &["ner_tags", "tags", "labels"],
        }
    }

    /// How to name its column.
    pub(crate) fn flag(self) -> String {
        format!("{COLUMN_FLAG} {self}=NAME")
    }
}

/// Names that columns of two texts usually have.
pub(crate) const PAIRS: [(&str, &str); 8] = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("source_sentence", "sentences"),
];

/// Columns that say nothing about an example.
pub(crate) const IGNORED: [&str; 6] = ["", "id", "idx", "index", "guid", "parameters"];

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let roles = Role::ALL.map(Role::name).join(", ");
        let known = Role::ALL.into_iter().find(|role| role.name() == name);
        known.ok_or_else(|| format!("`{name}` is nothing that a column can be; there are {roles}"))
    }
}

/// Columns that are called by name. The others are recognised by names that are well known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// See [`Role::Inputs`].
    pub inputs: Option<String>,
    /// See [`Role::Pair`].
    pub pair: Option<String>,
    /// See [`Role::Label`].
    pub label: Option<String>,
    /// See [`Role::Score`].
    pub score: Option<String>,
    /// See [`Role::Context`].
    pub context: Option<String>,
    /// See [`Role::Question`].
    pub question: Option<String>,
    /// See [`Role::Answers`].
    pub answers: Option<String>,
    /// See [`Role::Entities`].
    pub entities: Option<String>,
    /// See [`Role::Tokens`].
    pub tokens: Option<String>,
    /// See [`Role::Tags`].
    pub tags: Option<String>,
}

impl Columns {
    /// The name that was given for a role.
    pub fn get(&self, role: Role) -> Option<&str> {
        let name = match role {
            Role::Inputs => &self.inputs,
            Role::Pair => &self.pair,
            Role::Label => &self.label,
            Role::Score => &self.score,
            Role::Context => &self.context,
            Role::Question => &self.question,
            Role::Answers => &self.answers,
            Role::Entities => &self.entities,
            Role::Tokens => &self.tokens,
            Role::Tags => &self.tags,
        };
        name.as_deref()
    }

    /// Names the column of a role.
    pub fn set(&mut self, role: Role, name: impl Into<String>) {
        let place = match role {
            Role::Inputs => &mut self.inputs,
            Role::Pair => &mut self.pair,
            Role::Label => &mut self.label,
            Role::Score => &mut self.score,
            Role::Context => &mut self.context,
            Role::Question => &mut self.question,
            Role::Answers => &mut self.answers,
            Role::Entities => &mut self.entities,
            Role::Tokens => &mut self.tokens,
            Role::Tags => &mut self.tags,
        };
        *place = Some(name.into());
    }

    /// Whether a column of this name may matter: it is called by name, or its name is well known.
    pub(crate) fn names(&self, column: &str) -> bool {
        Role::ALL.into_iter().any(|role| self.get(role) == Some(column) || role.known().contains(&column))
            || PAIRS.iter().any(|(first, second)| *first == column || *second == column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_place() {
        let mut columns = Columns::default();
        for role in Role::ALL {
            assert_eq!(columns.get(role), None);
            columns.set(role, format!("my {role}"));
        }
        for role in Role::ALL {
            assert_eq!(columns.get(role), Some(format!("my {role}").as_str()));
            assert_eq!(role.name().parse(), Ok(role));
            assert!(columns.names(&format!("my {role}")));
        }
        assert!("colour".parse::<Role>().is_err_and(|reason| reason.contains("inputs, pair, label")));
    }
}
