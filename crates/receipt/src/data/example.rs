//! What one row of an evaluation file says.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One example. All examples of a file are of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Example {
    /// A text, or a pair of texts, with its class or classes.
    Text {
        /// The text.
        inputs: String,
        /// The second text of a pair.
        pair: Option<String>,
        /// What is right.
        label: Label,
    },
    /// Two texts and how similar they are.
    Similarity {
        /// One text.
        first: String,
        /// The other.
        second: String,
        /// Finite, on whatever scale the data has; larger is more similar.
        score: f64,
    },
    /// A text and the entities in it.
    Entities {
        /// The text.
        inputs: String,
        /// The entities, in the order of the file; may be none.
        spans: Vec<Span>,
    },
    /// A question about a text.
    Answer {
        /// The question.
        question: String,
        /// The text that holds the answer.
        context: String,
        /// The right answers; at least one.
        answers: Vec<String>,
    },
    /// A text, or a pair of texts, without a label.
    Plain {
        /// The text.
        inputs: String,
        /// The second text of a pair.
        pair: Option<String>,
    },
}

/// A kind of example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Example::Text`].
    Text,
    /// [`Example::Similarity`].
    Similarity,
    /// [`Example::Entities`].
    Entities,
    /// [`Example::Answer`].
    Answer,
    /// [`Example::Plain`].
    Plain,
}

/// The class of a text, or its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// Exactly one.
    One(Class),
    /// Any number, each once.
    Many(Vec<Class>),
}

/// A class of a classification.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// By number, as the data set counts.
    Id(u32),
    /// By name.
    Name(String),
}

/// An entity in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its first character, counted from 0 in Unicode scalar values.
    pub start: usize,
    /// The character behind its last one; larger than `start`.
    pub end: usize,
    /// What it is.
    pub label: String,
}

impl Example {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Example::Text { .. } => Kind::Text,
            Example::Similarity { .. } => Kind::Similarity,
            Example::Entities { .. } => Kind::Entities,
            Example::Answer { .. } => Kind::Answer,
            Example::Plain { .. } => Kind::Plain,
        }
    }

    /// The texts that a model is given: one or two.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Example::Text { inputs, pair, .. } | Example::Plain { inputs, pair } => (inputs, pair.as_ref()),
            Example::Similarity { first, second, .. } => (first, Some(second)),
            Example::Entities { inputs, .. } => (inputs, None),
            Example::Answer { question, context, .. } => (question, Some(context)),
        };
        [Some(first), second].into_iter().flatten().map(String::as_str)
    }
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 5] = [Kind::Text, Kind::Similarity, Kind::Entities, Kind::Answer, Kind::Plain];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Similarity => "similarity",
            Kind::Entities => "entities",
            Kind::Answer => "answer",
            Kind::Plain => "plain",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kinds = Kind::ALL.map(Kind::name).join(", ");
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| format!("`{name}` is no kind of example; there are {kinds}"))
    }
}
