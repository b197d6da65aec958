//! Tasks that generate text, and so take a model many steps.

use std::{fmt, str::FromStr};

use crate::{summarization, task::UnknownTask, text_generation, text2text_generation, translation};

/// What is asked of a model that generates text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerationTask {
    /// A text to how it goes on.
    TextGeneration,
    /// A text to another.
    Text2TextGeneration,
    /// A text to what it says in short.
    Summarization,
    /// A text to the same in another language: `translation`, or `translation_en_to_fr`.
    Translation(Option<LanguagePair>),
}

/// From which language into which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguagePair {
    /// The text's language.
    pub source: String,
    /// The answer's language.
    pub target: String,
}

impl fmt::Display for LanguagePair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}_to_{}", translation::NAME, self.source, self.target)
    }
}

impl GenerationTask {
    /// Every task, without languages, in the order in which they are listed to users.
    pub const ALL: [Self; 4] =
        [Self::TextGeneration, Self::Text2TextGeneration, Self::Summarization, Self::Translation(None)];
    /// Those of models that read a text with an encoder.
    pub const OF_ENCODERS: [Self; 3] = [Self::Text2TextGeneration, Self::Summarization, Self::Translation(None)];

    /// The hub's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TextGeneration => text_generation::NAME,
            Self::Text2TextGeneration => text2text_generation::NAME,
            Self::Summarization => summarization::NAME,
            Self::Translation(_) => translation::NAME,
        }
    }

    /// The field of a reply that has the text.
    pub const fn reply(&self) -> &'static str {
        match self {
            Self::TextGeneration => text_generation::REPLY,
            Self::Text2TextGeneration => text2text_generation::REPLY,
            Self::Summarization => summarization::REPLY,
            Self::Translation(_) => translation::REPLY,
        }
    }
}

impl fmt::Display for GenerationTask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translation(Some(pair)) => pair.fmt(formatter),
            Self::TextGeneration | Self::Text2TextGeneration | Self::Summarization | Self::Translation(None) => {
                formatter.pad(self.name())
            }
        }
    }
}

impl FromStr for GenerationTask {
    type Err = UnknownTask;

    /// Takes the hub's name, and `translation_en_to_fr` as transformers does.
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        if let Some(task) = Self::ALL.into_iter().find(|task| task.name() == name) {
            return Ok(task);
        }
        let parts: Vec<&str> = name.split('_').collect();
        match parts.as_slice() {
            [translation::NAME, source, "to", target] if !source.is_empty() && !target.is_empty() => {
                let pair = LanguagePair { source: (*source).to_owned(), target: (*target).to_owned() };
                Ok(Self::Translation(Some(pair)))
            }
            _ => Err(UnknownTask(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for task in GenerationTask::ALL {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        let named: GenerationTask = "translation_en_to_fr".parse().expect("a task");
        assert!(matches!(&named, GenerationTask::Translation(Some(pair)) if pair.target == "fr"));
        assert_eq!((named.to_string().as_str(), named.name()), ("translation_en_to_fr", "translation"));
        for unknown in ["translation_en_fr", "translation_en_to_", "translation__to_fr", "translate", ""] {
            assert!(unknown.parse::<GenerationTask>().is_err(), "{unknown}");
        }
    }
}
