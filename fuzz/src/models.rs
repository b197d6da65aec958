//! Models without weights, one for every head.

use std::sync::OnceLock;

use centuple_tasks::{Embedding, Head, Limits, Model, ModelCard, Problem};
use centuple_text::{TextOptions, Tokenizer};

use crate::Folder;

const DIMENSION: usize = 5;
/// Pieces of the tokenizer.
const VOCABULARY: usize = 273;

/// A model for every head; they take 24 tokens.
pub fn models() -> &'static [Model] {
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
