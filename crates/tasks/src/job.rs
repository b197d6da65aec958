//! The way of a request: body → [`Request`] → [`Job`] → outputs → [`Reply`].

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    body::from_json,
    engine::{Engine, EngineError, Output, Sequence},
    error::TaskError,
    feature_extraction::{self, Features},
    model::{Head, Model},
    sentence_similarity,
    task::Task,
    text_classification::{self, Score},
    tokens::Usage,
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
}

impl Request {
    /// Reads the JSON body of a task.
    pub fn parse(task: Task, body: &[u8]) -> Result<Self, TaskError> {
        match task {
            Task::FeatureExtraction => feature_extraction::Request::parse(body).map(Self::FeatureExtraction),
            Task::SentenceSimilarity => sentence_similarity::Request::parse(body).map(Self::SentenceSimilarity),
            Task::TextClassification => text_classification::Request::parse(body).map(Self::TextClassification),
        }
    }

    /// Reads a JSON body that does not say which task it is for: the model's main task, but
    /// sentence-similarity where a sentence-embedding model is given an object.
    pub fn parse_for(model: &Model, body: &[u8]) -> Result<Self, TaskError> {
        let main = model.card.main_task();
        Self::parse(main, body).or_else(|error| {
            let embeds = matches!(model.card.head, Head::SentenceEmbedding(_));
            if embeds && has_object_inputs(body) { Self::parse(Task::SentenceSimilarity, body) } else { Err(error) }
        })
    }

    /// The task that it is for.
    pub fn task(&self) -> Task {
        match self {
            Request::FeatureExtraction(_) => Task::FeatureExtraction,
            Request::SentenceSimilarity(_) => Task::SentenceSimilarity,
            Request::TextClassification(_) => Task::TextClassification,
        }
    }

    /// Number of texts in it.
    pub fn inputs(&self) -> usize {
        match self {
            Request::FeatureExtraction(request) => request.len(),
            Request::SentenceSimilarity(request) => request.len(),
            Request::TextClassification(request) => request.len(),
        }
    }
}

/// Whether a body that a task has refused has an object as `inputs`.
fn has_object_inputs(body: &[u8]) -> bool {
    struct Peek;
    impl<'de> Deserialize<'de> for Peek {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(PeekVisitor)
        }
    }
    struct PeekVisitor;
    impl<'de> de::Visitor<'de> for PeekVisitor {
        type Value = Peek;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Peek, A::Error> {
            while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
            Ok(Peek)
        }
    }
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(rename = "inputs")]
        _inputs: Peek,
    }
    from_json::<Envelope>(body).is_ok()
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
            let offers = model.card.tasks().iter().map(|task| task.name()).collect::<Vec<_>>().join(", ");
            return Err(TaskError::Unsupported { model: model.card.id.clone(), task, offers });
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
        };
        let finish = Finish { rows: sequences.iter().map(Sequence::len).collect(), step };
        Ok(Self { sequences, usage, finish })
    }

    /// Number of numbers that the model will give for it.
    pub fn output_values(&self, model: &Model) -> usize {
        let rows = match model.card.head {
            Head::TokenFeatures { .. } => self.usage.tokens,
            Head::SentenceEmbedding(_) | Head::Classification { .. } => self.sequences.len(),
        };
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
    /// Tokens of each sequence: what token features must have as rows.
    rows: Vec<usize>,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    FeatureExtraction(feature_extraction::Finish),
    SentenceSimilarity,
    TextClassification(text_classification::Finish),
}

impl Finish {
    /// Turns the outputs of the job's sequences, in their order, into the reply.
    pub fn reply(self, model: &Model, outputs: Vec<Output>) -> Result<Reply, TaskError> {
        self.check(model, &outputs)?;
        Ok(match self.step {
            Step::FeatureExtraction(finish) => Reply::Features(finish.reply(model, outputs)),
            Step::SentenceSimilarity => Reply::Similarities(sentence_similarity::reply(&outputs)),
            Step::TextClassification(finish) => Reply::Classifications(finish.reply(model, &outputs)),
        })
    }

    fn check(&self, model: &Model, outputs: &[Output]) -> Result<(), TaskError> {
        if outputs.len() != self.rows.len() {
            let message = format!("{} outputs for {} sequences", outputs.len(), self.rows.len());
            return Err(EngineError::Contract(message).into());
        }
        let columns = model.card.dimension();
        for (input, (output, tokens)) in outputs.iter().zip(&self.rows).enumerate() {
            let rows = match model.card.head {
                Head::TokenFeatures { .. } => *tokens,
                Head::SentenceEmbedding(_) | Head::Classification { .. } => 1,
            };
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
}

impl Reply {
    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // Writing finite numbers and strings to memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
