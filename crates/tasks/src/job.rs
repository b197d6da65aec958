//! The way of a request: body → [`Request`] → [`Job`] → outputs → [`Reply`].

use serde::Serialize;
use serde_json::Value;

use crate::{
    body::OneOrMany,
    engine::{Engine, EngineError, Output, Sequence},
    error::TaskError,
    feature_extraction::{self, Features},
    fill_mask::{self, Filled},
    model::Model,
    question_answering::{self, Answers},
    sentence_similarity,
    task::Task,
    text_classification::{self, Score},
    text_ranking::{self, Ranked},
    token_classification::{self, Entity},
    tokens::Usage,
    zero_shot_classification,
};

/// A parsed body.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Texts to vectors.
    FeatureExtraction(feature_extraction::Request),
    /// One sentence against others.
    SentenceSimilarity(sentence_similarity::Request),
    /// Texts to labels.
    TextClassification(text_classification::Request),
    /// Texts to labels of the request.
    ZeroShotClassification(zero_shot_classification::Request),
    /// Texts to entities.
    TokenClassification(token_classification::Request),
    /// Questions to answers.
    QuestionAnswering(question_answering::Request),
    /// Texts with masks to tokens.
    FillMask(fill_mask::Request),
    /// Texts to their order.
    TextRanking(text_ranking::Request),
}

impl Request {
    /// Reads the JSON body of a task.
    pub fn parse(task: Task, body: &[u8]) -> Result<Self, TaskError> {
        match task {
            Task::FeatureExtraction => feature_extraction::Request::parse(body).map(Self::FeatureExtraction),
            Task::SentenceSimilarity => sentence_similarity::Request::parse(body).map(Self::SentenceSimilarity),
            Task::TextClassification => text_classification::Request::parse(body).map(Self::TextClassification),
            Task::ZeroShotClassification => {
                zero_shot_classification::Request::parse(body).map(Self::ZeroShotClassification)
            }
            Task::TokenClassification => token_classification::Request::parse(body).map(Self::TokenClassification),
            Task::QuestionAnswering => question_answering::Request::parse(body).map(Self::QuestionAnswering),
            Task::FillMask => fill_mask::Request::parse(body).map(Self::FillMask),
            Task::TextRanking => text_ranking::Request::parse(body).map(Self::TextRanking),
        }
    }

    /// Reads a JSON body that does not say which task it is for: the model's main task, but another of its tasks where
    /// the body has the form of that one.
    pub fn parse_for(model: &Model, body: &[u8]) -> Result<Self, TaskError> {
        let tasks = model.card.tasks();
        Self::parse(model.card.main_task(), body).or_else(|error| {
            // Only of a body that is refused: reading it again costs no request that is answered.
            let value: Value = serde_json::from_slice(body).unwrap_or_default();
            match tasks.iter().skip(1).find(|task| has_form_of(**task, &value)) {
                Some(task) => Self::parse(*task, body),
                None => Err(error),
            }
        })
    }

    /// The task that it is for.
    pub fn task(&self) -> Task {
        match self {
            Request::FeatureExtraction(_) => Task::FeatureExtraction,
            Request::SentenceSimilarity(_) => Task::SentenceSimilarity,
            Request::TextClassification(_) => Task::TextClassification,
            Request::ZeroShotClassification(_) => Task::ZeroShotClassification,
            Request::TokenClassification(_) => Task::TokenClassification,
            Request::QuestionAnswering(_) => Task::QuestionAnswering,
            Request::FillMask(_) => Task::FillMask,
            Request::TextRanking(_) => Task::TextRanking,
        }
    }

    /// Number of texts in it; in zero-shot-classification, of pairs of a text and a label.
    pub fn inputs(&self) -> usize {
        match self {
            Request::FeatureExtraction(request) => request.len(),
            Request::SentenceSimilarity(request) => request.len(),
            Request::TextClassification(request) => request.len(),
            Request::ZeroShotClassification(request) => request.len(),
            Request::TokenClassification(request) => request.len(),
            Request::QuestionAnswering(request) => request.len(),
            Request::FillMask(request) => request.len(),
            Request::TextRanking(request) => request.len(),
        }
    }
}

/// Whether a body can only be meant for a task that is not the main one of any model.
fn has_form_of(task: Task, body: &Value) -> bool {
    let inputs = &body["inputs"];
    match task {
        Task::SentenceSimilarity => inputs.is_object(),
        Task::TextRanking => ["query", "source_sentence"].iter().any(|name| inputs.get(name).is_some()),
        Task::ZeroShotClassification => {
            [body, &body["parameters"]].iter().any(|place| place.get("candidate_labels").is_some())
        }
        Task::FeatureExtraction
        | Task::TextClassification
        | Task::TokenClassification
        | Task::QuestionAnswering
        | Task::FillMask => false,
    }
}

/// A request as tokens, and what is left to do afterwards.
#[derive(Debug)]
pub struct Job {
    /// What the engine has to run, in order.
    pub sequences: Vec<Sequence>,
    /// How much that is.
    pub usage: Usage,
    /// What makes a reply of the outputs.
    pub finish: Finish,
}

impl Job {
    /// Checks a request against a model and turns its texts into tokens.
    pub fn prepare(model: &Model, request: Request) -> Result<Self, TaskError> {
        let task = request.task();
        if !model.card.tasks().contains(&task) {
            return Err(TaskError::Unsupported {
                model: model.card.id.clone(),
                task: task.to_string(),
                offers: model.card.offers(),
            });
        }
        let (sequences, usage, step) = match request {
            Request::FeatureExtraction(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::FeatureExtraction(finish))
            }
            Request::SentenceSimilarity(request) => {
                let (sequences, usage) = request.prepare(model)?;
                (sequences, usage, Step::SentenceSimilarity)
            }
            Request::TextClassification(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::TextClassification(finish))
            }
            Request::ZeroShotClassification(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::ZeroShotClassification(finish))
            }
            Request::TokenClassification(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::TokenClassification(finish))
            }
            Request::QuestionAnswering(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::QuestionAnswering(finish))
            }
            Request::FillMask(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::FillMask(finish))
            }
            Request::TextRanking(request) => {
                let (sequences, usage, finish) = request.prepare(model)?;
                (sequences, usage, Step::TextRanking(finish))
            }
        };
        let finish = Finish { rows: sequences.iter().map(|sequence| model.card.head.rows(sequence)).collect(), step };
        Ok(Self { sequences, usage, finish })
    }

    /// Number of numbers that the model will give for it.
    pub fn output_values(&self, model: &Model) -> usize {
        let rows: usize = self.finish.rows.iter().sum();
        rows.saturating_mul(model.card.dimension())
    }

    /// Runs the whole way on an engine that nobody else uses, batch after batch.
    pub fn run(self, model: &Model, engine: &mut dyn Engine) -> Result<Reply, TaskError> {
        let outputs = run_in_batches(engine, &self.sequences)?;
        self.finish.reply(model, outputs)
    }
}

/// Runs any number of sequences, in order, in batches as large as the engine takes.
pub fn run_in_batches(engine: &mut dyn Engine, sequences: &[Sequence]) -> Result<Vec<Output>, EngineError> {
    let budget = engine.limits().max_tokens_per_batch;
    let mut outputs = Vec::with_capacity(sequences.len());
    let (mut batch, mut tokens) = (Vec::new(), 0);
    for sequence in sequences {
        if !batch.is_empty() && tokens + sequence.len() > budget {
            outputs.append(&mut engine.run(&batch)?);
            (batch, tokens) = (Vec::new(), 0);
        }
        tokens += sequence.len();
        batch.push(sequence);
    }
    if !batch.is_empty() {
        outputs.append(&mut engine.run(&batch)?);
    }
    Ok(outputs)
}

/// What makes a reply of a job's outputs.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Rows that each sequence's output must have.
    rows: Vec<usize>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    FeatureExtraction(feature_extraction::Finish),
    SentenceSimilarity,
    TextClassification(text_classification::Finish),
    ZeroShotClassification(zero_shot_classification::Finish),
    TokenClassification(token_classification::Finish),
    QuestionAnswering(question_answering::Finish),
    FillMask(fill_mask::Finish),
    TextRanking(text_ranking::Finish),
}

impl Finish {
    /// Turns the outputs of the job's sequences, in their order, into the reply.
    pub fn reply(self, model: &Model, outputs: Vec<Output>) -> Result<Reply, TaskError> {
        model.card.head.check(&self.rows, &outputs)?;
        Ok(match self.step {
            Step::FeatureExtraction(finish) => Reply::Features(finish.reply(model, outputs)),
            Step::SentenceSimilarity => Reply::Similarities(sentence_similarity::reply(&outputs)),
            Step::TextClassification(finish) => Reply::Classifications(finish.reply(model, &outputs)),
            Step::ZeroShotClassification(finish) => Reply::ZeroShot(finish.reply(model, &outputs)),
            Step::TokenClassification(finish) => Reply::Entities(finish.reply(model, &outputs)?),
            Step::QuestionAnswering(finish) => Reply::Answers(finish.reply(&outputs)),
            Step::FillMask(finish) => Reply::Filled(finish.reply(model, &outputs)?),
            Step::TextRanking(finish) => Reply::Ranking(finish.reply(&outputs)),
        })
    }
}

/// The answer to a request; serialises as the JSON that clients of the task expect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Vectors.
    Features(Features),
    /// One number per sentence.
    Similarities(Vec<f32>),
    /// Scored labels per input.
    Classifications(Vec<Vec<Score>>),
    /// Scored labels of the request, per text.
    ZeroShot(OneOrMany<Vec<Score>>),
    /// Entities per text.
    Entities(OneOrMany<Vec<Entity>>),
    /// Answers per question.
    Answers(OneOrMany<Answers>),
    /// Proposals per text and mask.
    Filled(OneOrMany<Filled>),
    /// Texts in order.
    Ranking(Vec<Ranked>),
}

impl Reply {
    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // Writing finite numbers and strings to memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
