//! A model small enough to reckon by hand: a real tokenizer of 95 tokens, and an engine whose
//! output is a fixed function of the token ids.

#![allow(dead_code, unreachable_pub)]

use std::{collections::BTreeMap, path::Path};

use centuple_tasks::{Embedding, Engine, EngineError, Head, Limits, Model, ModelCard, Output, Problem, Sequence};
use centuple_text::{TextOptions, Tokenizer};

/// Length of an embedding.
pub const DIMENSION: usize = 4;

/// What the engine accepts: texts are cut at 16 tokens, ids may come 32 at a time.
pub const LIMITS: Limits = Limits { max_tokens_per_sequence: 32, max_tokens_per_batch: 64, vocabulary: 95 };

/// A model `test/tiny` with the given head.
pub fn model(head: Head) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tasks/tests/tokenizer");
    let prompts = [("query", "query : "), ("passage", "passage : ")];
    Model {
        card: ModelCard {
            id: "test/tiny".into(),
            revision: Some("0123abc".into()),
            architecture: "TinyModel".into(),
            dtype: "float32".into(),
            head,
            prompts: BTreeMap::from(prompts.map(|(name, text)| (name.to_owned(), text.to_owned()))),
            default_prompt: None,
            ranks_by_logit: false,
        },
        tokenizer: Tokenizer::open(&folder, &TextOptions::new(16)).expect("the fixture is a tokenizer"),
        limits: LIMITS,
    }
}

/// A model of sentence embeddings.
pub fn embedder(normalised: bool) -> Model {
    model(Head::SentenceEmbedding(Embedding {
        dimension: DIMENSION,
        pooling: "mean".into(),
        normalised,
        include_prompt: true,
    }))
}

/// A model of token features.
pub fn features() -> Model {
    model(Head::TokenFeatures { dimension: DIMENSION })
}

/// A model of the labels `negative`, `neutral`, `positive` and `mixed`.
pub fn classifier(problem: Problem) -> Model {
    let labels = ["negative", "neutral", "positive", "mixed"].map(str::to_owned);
    model(Head::Classification { labels: labels.into(), problem })
}

/// A model of natural language inference, whose labels say so.
pub fn inference() -> Model {
    let labels = ["contradiction", "neutral", "ENTAILMENT", "other"].map(str::to_owned);
    model(Head::Classification { labels: labels.into(), problem: Problem::SingleLabel })
}

/// A model of a label per token.
pub fn tagger() -> Model {
    model(Head::TokenClassification { labels: ["O", "B-PER", "I-PER", "LOC"].map(str::to_owned).into() })
}

/// A model of answers.
pub fn reader() -> Model {
    model(Head::QuestionAnswering)
}

/// A masked language model.
pub fn masked() -> Model {
    model(Head::MaskedLm { vocabulary: LIMITS.vocabulary })
}

/// A model of sparse embeddings.
pub fn sparse() -> Model {
    model(Head::SparseEmbedding { vocabulary: LIMITS.vocabulary })
}

/// A model of a vector of length 1 per token.
pub fn late() -> Model {
    model(Head::LateInteraction { dimension: DIMENSION })
}

/// A model for every head.
pub fn all() -> Vec<Model> {
    let ranker = Head::Classification { labels: vec!["LABEL_0".into()], problem: Problem::MultiLabel };
    let classifier = classifier(Problem::SingleLabel);
    vec![
        embedder(true),
        features(),
        classifier,
        inference(),
        model(ranker),
        tagger(),
        reader(),
        masked(),
        sparse(),
        late(),
    ]
}

/// What a test does to a batch: look at it, hold it up, spoil it, fail or panic.
pub type Interfere = Box<dyn FnMut(&[&Sequence], &mut Vec<Output>) -> Result<(), EngineError> + Send>;

/// The engine of a model made here.
pub struct Tiny {
    head: Head,
    interfere: Interfere,
}

impl Tiny {
    /// An engine that just computes.
    pub fn new(model: &Model) -> Self {
        Self::with(model, |_, _| Ok(()))
    }

    /// An engine that is interfered with after each batch.
    pub fn with(
        model: &Model,
        interfere: impl FnMut(&[&Sequence], &mut Vec<Output>) -> Result<(), EngineError> + Send + 'static,
    ) -> Self {
        Self { head: model.card.head.clone(), interfere: Box::new(interfere) }
    }
}

/// The row of a token: four numbers between -1 and 1 in steps of 1/8.
pub fn row(id: u32) -> [f32; DIMENSION] {
    [7, 11, 13, 3].map(|factor| ((id * factor % 17) as f32 - 8.0) / 8.0)
}

fn mean(sequence: &Sequence) -> Vec<f32> {
    let rows: Vec<_> = sequence.ids[sequence.pool_from..].iter().map(|id| row(*id)).collect();
    (0..DIMENSION).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32).collect()
}

impl Engine for Tiny {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        assert!(!batch.is_empty());
        batch.iter().try_for_each(|sequence| LIMITS.check(sequence))?;
        let tokens = batch.iter().map(|sequence| sequence.len()).sum::<usize>();
        assert!(tokens <= LIMITS.max_tokens_per_batch, "{tokens} tokens in a batch");
        let compute = |sequence: &&Sequence| match &self.head {
            Head::TokenFeatures { .. } => Output {
                rows: sequence.len(),
                columns: DIMENSION,
                data: sequence.ids.iter().flat_map(|id| row(*id)).collect(),
            },
            Head::SentenceEmbedding(embedding) => {
                let mut data = mean(sequence);
                if embedding.normalised {
                    let length = data.iter().map(|x| x * x).sum::<f32>().sqrt();
                    data.iter_mut().for_each(|x| *x /= length);
                }
                Output { rows: 1, columns: DIMENSION, data }
            }
            Head::TokenClassification { .. } => Output {
                rows: sequence.len(),
                columns: DIMENSION,
                data: sequence.ids.iter().flat_map(|id| row(*id)).map(|value| 4.0 * value).collect(),
            },
            Head::QuestionAnswering => Output {
                rows: sequence.len(),
                columns: 2,
                data: sequence.ids.iter().flat_map(|id| [row(*id)[0], row(*id)[1]]).map(|value| 4.0 * value).collect(),
            },
            Head::MaskedLm { vocabulary } | Head::CausalLm { vocabulary } | Head::Seq2SeqLm { vocabulary } => {
                let logit = |token: usize, id: usize| ((token * 7 + id * 13) % 101) as f32 / 16.0;
                let logits = |&token| (0..*vocabulary).map(move |id| logit(token, id));
                let data = sequence.selected.iter().flat_map(logits).collect();
                Output { rows: sequence.selected.len(), columns: *vocabulary, data }
            }
            Head::SparseEmbedding { vocabulary } => {
                let mut data = vec![0.0; *vocabulary];
                sequence.ids.iter().for_each(|&id| data[id as usize] = row(id)[0].max(0.0));
                Output { rows: 1, columns: *vocabulary, data }
            }
            Head::LateInteraction { dimension } => {
                let unit = |id: &u32| {
                    let row = row(*id);
                    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    row.map(|x| x / length)
                };
                let data = sequence.ids.iter().flat_map(unit).collect();
                Output { rows: sequence.len(), columns: *dimension, data }
            }
            Head::Classification { labels, .. } => {
                let columns = labels.len().min(DIMENSION);
                Output { rows: 1, columns, data: mean(sequence)[..columns].to_vec() }
            }
        };
        let mut outputs = batch.iter().map(compute).collect();
        (self.interfere)(batch, &mut outputs)?;
        Ok(outputs)
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}
