//! The tasks by the names that the Hugging Face hub gives them.

use std::{fmt, str::FromStr};

use crate::generation_task::GenerationTask;

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Text to vectors: one per text, or one per token.
    FeatureExtraction,
    /// How alike a sentence is to others.
    SentenceSimilarity,
    /// Text to scored labels.
    TextClassification,
    /// Text to labels that come with the request.
    ZeroShotClassification,
    /// Text to the entities in it.
    TokenClassification,
    /// A question to the part of a text that answers it.
    QuestionAnswering,
    /// A text to the tokens that its masks may stand for.
    FillMask,
    /// Texts in the order in which they answer a query.
    TextRanking,
}

impl Task {
    /// Every task, in the order in which they are listed to users.
    pub const ALL: [Task; 8] = [
        Task::FeatureExtraction,
        Task::SentenceSimilarity,
        Task::TextClassification,
        Task::ZeroShotClassification,
        Task::TokenClassification,
        Task::QuestionAnswering,
        Task::FillMask,
        Task::TextRanking,
    ];

    /// The hub's name.
    pub const fn name(self) -> &'static str {
        match self {
            Task::FeatureExtraction => "feature-extraction",
            Task::SentenceSimilarity => "sentence-similarity",
            Task::TextClassification => "text-classification",
            Task::ZeroShotClassification => "zero-shot-classification",
            Task::TokenClassification => "token-classification",
            Task::QuestionAnswering => "question-answering",
            Task::FillMask => "fill-mask",
            Task::TextRanking => "text-ranking",
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
    let once = Task::ALL.into_iter().map(Task::name);
    once.chain(GenerationTask::ALL.iter().map(GenerationTask::name)).collect::<Vec<_>>().join(", ")
}

impl FromStr for Task {
    type Err = UnknownTask;

    /// Takes the hub's name, and `sentiment-analysis` and `ner` as transformers does.
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        match name {
            "sentiment-analysis" => return Ok(Task::TextClassification),
            "ner" => return Ok(Task::TokenClassification),
            _ => {}
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
        assert_eq!("ner".parse(), Ok(Task::TokenClassification));
    }

    #[test]
    fn an_unknown_name_lists_the_tasks() {
        let error = "embed".parse::<Task>().unwrap_err().to_string();
        assert!(error.starts_with("unknown task `embed`; the tasks are feature-extraction, sentence-similarity, "));
        assert!(Task::ALL.iter().all(|task| error.contains(task.name())), "{error}");
        assert!(error.ends_with(", text-generation, text2text-generation, summarization, translation"), "{error}");
    }
}
