//! The tasks by the names that the Hugging Face hub gives them.

use std::{fmt, str::FromStr};

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Text to vectors: one per text, or one per token.
    FeatureExtraction,
    /// How alike a sentence is to others.
    SentenceSimilarity,
    /// Text to scored labels.
    TextClassification,
}

impl Task {
    /// Every task, in the order in which they are listed to users.
    pub const ALL: [Task; 3] = [Task::FeatureExtraction, Task::SentenceSimilarity, Task::TextClassification];

    /// The hub's name.
    pub const fn name(self) -> &'static str {
        match self {
            Task::FeatureExtraction => "feature-extraction",
            Task::SentenceSimilarity => "sentence-similarity",
            Task::TextClassification => "text-classification",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A word that names no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown task `{0}`; the tasks are {list}", list = list())]
pub struct UnknownTask(pub String);

fn list() -> String {
    Task::ALL.map(Task::name).join(", ")
}

impl FromStr for Task {
    type Err = UnknownTask;

    /// Takes the hub's name, and `sentiment-analysis` as transformers does.
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        if name == "sentiment-analysis" {
            return Ok(Task::TextClassification);
        }
        Task::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| UnknownTask(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        assert_eq!("sentiment-analysis".parse(), Ok(Task::TextClassification));
    }

    #[test]
    fn an_unknown_name_lists_the_tasks() {
        let error = "embed".parse::<Task>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown task `embed`; the tasks are feature-extraction, sentence-similarity, text-classification"
        );
    }
}
