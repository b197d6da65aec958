//! A model as tasks see it: what it answers, how texts become its tokens, what its engine takes.

use std::collections::BTreeMap;

use centuple_text::Tokenizer;

use crate::{
    engine::{EngineError, Limits, Output, Sequence},
    error::TaskError,
    generation_task::GenerationTask,
    task::Task,
};

/// Everything about a loaded model but its weights.
pub struct Model {
    /// What it is.
    pub card: ModelCard,
    /// Text to tokens, cut at the model's maximum.
    pub tokenizer: Tokenizer,
    /// What its engine accepts.
    pub limits: Limits,
}

/// What a model is and what it answers.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// Name that clients use: `org/name`, or the folder's name.
    pub id: String,
    /// Commit of the hub, where known.
    pub revision: Option<String>,
    /// Class name of the checkpoint, as `BertModel`.
    pub architecture: String,
    /// Precision of the computation, as `float32`.
    pub dtype: String,
    /// What comes out of its graph.
    pub head: Head,
    /// Texts that sentence-transformers puts before the input, by name.
    pub prompts: BTreeMap<String, String>,
    /// Name of the prompt that is used where none is asked for.
    pub default_prompt: Option<String>,
    /// Whether text-ranking's scores are logits where the request doesn't say; otherwise their sigmoids.
    pub ranks_by_logit: bool,
}

/// What the rows of an [`Output`](crate::Output) mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One row per token.
    TokenFeatures {
        /// Length of a row.
        dimension: usize,
    },
    /// One row per text.
    SentenceEmbedding(Embedding),
    /// One row of logits per text.
    Classification {
        /// Name of each logit.
        labels: Vec<String>,
        /// What the logits mean.
        problem: Problem,
    },
    /// One row of logits per token.
    TokenClassification {
        /// Name of each logit.
        labels: Vec<String>,
    },
    /// One row per token: the logits of an answer's start and end.
    QuestionAnswering,
    /// One row of logits per selected token.
    MaskedLm {
        /// Number of logits: one per token id.
        vocabulary: usize,
    },
    /// One row per selected token: the logits of the token after it.
    CausalLm {
        /// Number of logits: one per token id.
        vocabulary: usize,
    },
    /// An encoder's text, then one row per selected token of the decoder's: the logits of the token after it.
    Seq2SeqLm {
        /// Number of logits: one per token id.
        vocabulary: usize,
    },
    /// One row per text: the weight of each token id, mostly 0.
    SparseEmbedding {
        /// Number of weights.
        vocabulary: usize,
    },
    /// One row of length 1 per token.
    LateInteraction {
        /// Length of a row.
        dimension: usize,
    },
}

impl Head {
    /// Whether it writes text token by token.
    pub fn generates(&self) -> bool {
        !self.generation_tasks().is_empty()
    }

    /// The tasks that take many steps.
    fn generation_tasks(&self) -> &'static [GenerationTask] {
        match self {
            Head::CausalLm { .. } => &[GenerationTask::TextGeneration],
            Head::Seq2SeqLm { .. } => &GenerationTask::OF_ENCODERS,
            Head::TokenFeatures { .. }
            | Head::SentenceEmbedding(_)
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. } => &[],
        }
    }

    /// The sentence embedding, if that is what it gives.
    pub fn sentence_embedding(&self) -> Option<&Embedding> {
        match self {
            Head::SentenceEmbedding(embedding) => Some(embedding),
            Head::TokenFeatures { .. }
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::CausalLm { .. }
            | Head::Seq2SeqLm { .. }
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. } => None,
        }
    }

    /// Number of rows of a sequence's output.
    pub fn rows(&self, sequence: &Sequence) -> usize {
        match self {
            Head::TokenFeatures { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::LateInteraction { .. } => sequence.len(),
            Head::SentenceEmbedding(_) | Head::Classification { .. } | Head::SparseEmbedding { .. } => 1,
            Head::MaskedLm { .. } | Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => sequence.selected.len(),
        }
    }

    /// Length of a row of output.
    pub fn columns(&self) -> usize {
        match self {
            Head::TokenFeatures { dimension } | Head::LateInteraction { dimension } => *dimension,
            Head::SentenceEmbedding(embedding) => embedding.dimension,
            Head::Classification { labels, .. } | Head::TokenClassification { labels } => labels.len(),
            Head::QuestionAnswering => 2,
            Head::MaskedLm { vocabulary }
            | Head::CausalLm { vocabulary }
            | Head::Seq2SeqLm { vocabulary }
            | Head::SparseEmbedding { vocabulary } => *vocabulary,
        }
    }

    /// Checks that outputs have so many [`rows`](Self::rows) each, and finite values.
    pub fn check(&self, rows: &[usize], outputs: &[Output]) -> Result<(), TaskError> {
        if outputs.len() != rows.len() {
            let message = format!("{} outputs for {} sequences", outputs.len(), rows.len());
            return Err(EngineError::Contract(message).into());
        }
        let columns = self.columns();
        for (input, (output, &rows)) in outputs.iter().zip(rows).enumerate() {
            if (output.rows, output.columns) != (rows, columns) || !output.is_consistent() {
                let (r, c, n) = (output.rows, output.columns, output.data.len());
                let message = format!("an output of {r}x{c} with {n} values instead of {rows}x{columns}");
                return Err(EngineError::Contract(message).into());
            }
            if !output.data.iter().all(|value| value.is_finite()) {
                return Err(TaskError::NotFinite { input });
            }
        }
        Ok(())
    }
}

/// A sentence embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Length of the vector.
    pub dimension: usize,
    /// Pooling by its sentence-transformers name: `mean`, `cls`, ...
    pub pooling: String,
    /// Whether the model itself ends with L2 normalisation.
    pub normalised: bool,
    /// Whether the tokens of a prompt take part in pooling.
    pub include_prompt: bool,
}

/// What the logits of a classifier mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Exactly one label holds: softmax.
    SingleLabel,
    /// Each label holds or not: sigmoid.
    MultiLabel,
    /// The logits are the answer.
    Regression,
}

impl ModelCard {
    /// Every task that the model answers.
    pub fn tasks(&self) -> &'static [Task] {
        match &self.head {
            Head::TokenFeatures { .. } | Head::SparseEmbedding { .. } | Head::LateInteraction { .. } => {
                &[Task::FeatureExtraction]
            }
            Head::SentenceEmbedding(_) => &[Task::FeatureExtraction, Task::SentenceSimilarity],
            Head::Classification { labels, .. } if labels.len() == 1 => &[Task::TextClassification, Task::TextRanking],
            Head::Classification { labels, .. } if entailment(labels).is_some() => {
                &[Task::TextClassification, Task::ZeroShotClassification]
            }
            Head::Classification { .. } => &[Task::TextClassification],
            Head::TokenClassification { .. } => &[Task::TokenClassification],
            Head::QuestionAnswering => &[Task::QuestionAnswering],
            Head::MaskedLm { .. } => &[Task::FillMask],
            // What generates text is no task of one run.
            Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => &[],
        }
    }

    /// What it answers, in words.
    pub fn offers(&self) -> String {
        let once = self.tasks().iter().map(|task| task.name());
        once.chain(self.generation_tasks().iter().map(GenerationTask::name)).collect::<Vec<_>>().join(", ")
    }

    /// Every task of many steps that the model answers.
    pub fn generation_tasks(&self) -> &'static [GenerationTask] {
        self.head.generation_tasks()
    }

    /// Whether the model answers a task of many steps.
    pub fn generates(&self, task: &GenerationTask) -> bool {
        self.generation_tasks().iter().any(|own| own.name() == task.name())
    }

    /// The task that is meant where none is named.
    pub fn main_task(&self) -> Task {
        // Every head has a task.
        self.tasks().first().copied().unwrap_or(Task::FeatureExtraction)
    }

    /// Length of a row of output.
    pub fn dimension(&self) -> usize {
        self.head.columns()
    }
}

/// Place of the label that says that a text entails another, as transformers finds it.
pub(crate) fn entailment(labels: &[String]) -> Option<usize> {
    labels.iter().position(|label| label.to_lowercase().starts_with("entail"))
}
