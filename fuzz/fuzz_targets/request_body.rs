//! A request body is refused with words, or it makes a job whose reply is JSON.

#![no_main]

use std::sync::OnceLock;

use centuple_fuzz::Folder;
use centuple_serve::EmbeddingsRequest;
use centuple_tasks::{
    Embedding, Head, Job, Limits, Model, ModelCard, Output, Problem, Request, Sequence, Task, TaskError,
};
use centuple_text::{TextOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

const DIMENSION: usize = 5;
/// Pieces of the tokenizer.
const VOCABULARY: usize = 273;

fn models() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let pooling = "mean".to_owned();
        let embedding = Embedding { dimension: DIMENSION, pooling, normalised: true, include_prompt: false };
        let labels = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let heads = [
            Head::TokenFeatures { dimension: DIMENSION },
            Head::SentenceEmbedding(embedding),
            Head::Classification { labels: labels.clone(), problem: Problem::SingleLabel },
            Head::Classification { labels: vec!["not".to_owned(), "entailment".to_owned()], problem: Problem::SingleLabel },
            Head::Classification { labels: vec!["one".to_owned()], problem: Problem::MultiLabel },
            Head::TokenClassification { labels },
            Head::QuestionAnswering,
            Head::MaskedLm { vocabulary: VOCABULARY },
            Head::SparseEmbedding { vocabulary: VOCABULARY },
            Head::LateInteraction { dimension: DIMENSION },
        ];
        heads.into_iter().map(model).collect()
    })
}

fn model(head: Head) -> Model {
    let folder = Folder::of_case("bert-tiny");
    let prompts = [("query".to_owned(), "what is ".to_owned())];
    let card = ModelCard {
        id: "fuzzed".to_owned(),
        revision: None,
        architecture: "BertModel".to_owned(),
        dtype: "float32".to_owned(),
        head,
        prompts: prompts.into(),
        default_prompt: None,
        ranks_by_logit: false,
    };
    let options = TextOptions { cache_bytes: 0, ..TextOptions::new(24) };
    let tokenizer = Tokenizer::open(folder.path(), &options).expect("a sound tokenizer");
    let vocabulary = tokenizer.vocabulary_size();
    Model { card, tokenizer, limits: Limits { max_tokens_per_sequence: 24, max_tokens_per_batch: 64, vocabulary } }
}

fuzz_target!(|data: &[u8]| {
    check(&EmbeddingsRequest::parse(data).map(|_| ()));
    for model in models() {
        let parsed = Task::ALL.map(|task| Request::parse(task, data));
        for request in parsed.into_iter().chain([Request::parse_for(model, data)]) {
            check(&request.and_then(|request| answer(model, request)));
        }
    }
});

/// Answers a request with numbers out of the air.
fn answer(model: &Model, request: Request) -> Result<(), TaskError> {
    let job = Job::prepare(model, request)?;
    job.sequences.iter().for_each(|sequence| model.limits.check(sequence).expect("a job fits the model"));
    let head = &model.card.head;
    let output = |sequence: &Sequence| {
        let (rows, columns) = (head.rows(sequence), head.columns());
        // Labels, starts and ends that change from token to token.
        let data = (0..rows * columns).map(|value| (value * 7 % 11) as f32 - 5.0).collect();
        Output { rows, columns, data }
    };
    let outputs = job.sequences.iter().map(output).collect();
    let reply = job.finish.reply(model, outputs)?;
    serde_json::from_slice::<serde_json::Value>(&reply.to_json()).expect("a reply is JSON");
    Ok(())
}

/// An error must say something, and say it in one piece.
fn check(outcome: &Result<(), TaskError>) {
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
        let _ = (error.category(), error.field());
    }
}
