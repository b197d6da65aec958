//! What text-embeddings-inference answers, less its transport: which model does it, and what is
//! refused. `http/text_embeddings` reads it from JSON, `grpc/text_embeddings` from messages.

use std::sync::Arc;

use centuple_tasks::{
    Head, Model, ModelCard, OneOrMany, Request, Task, TaskError,
    feature_extraction::{self, Inputs},
    text_classification, text_ranking,
};
use centuple_text::{Text, TextError, WindowOptions};
use serde::Serialize;
use utoipa::ToSchema;

use crate::service::{Failure, Kind, Models, Served, Service};

/// Most bytes of text that are turned into tokens at once; what is answered is many times as long.
const MAX_TOKENIZED_BYTES: usize = 2 << 20;

/// The kind of vectors that are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Sentence,
    Tokens,
    Sparse,
}

impl Form {
    /// What a model gives.
    pub(crate) fn of(card: &ModelCard) -> Option<Self> {
        match &card.head {
            Head::SentenceEmbedding(_) => Some(Form::Sentence),
            Head::TokenFeatures { .. } | Head::LateInteraction { .. } => Some(Form::Tokens),
            Head::SparseEmbedding { .. } => Some(Form::Sparse),
            Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::CausalLm { .. }
            | Head::Seq2SeqLm { .. } => None,
        }
    }

    /// What asks for it, over gRPC less the slash.
    fn path(self) -> &'static str {
        match self {
            Form::Sentence => "/embed",
            Form::Tokens => "/embed_all",
            Form::Sparse => "/embed_sparse",
        }
    }
}

/// Vectors of one form, by the model of that name, else the only one that gives them.
pub(crate) fn embed(
    models: &Models,
    model: Option<&str>,
    form: Form,
    inputs: Inputs,
    mut parameters: feature_extraction::Parameters,
) -> Result<(Arc<Served>, Request), Failure> {
    let served = models.find_for(model, Task::FeatureExtraction, |card| Form::of(card) == Some(form))?;
    let id = &served.model.card.id;
    match Form::of(&served.model.card) {
        Some(own) if own == form => {}
        Some(own) => {
            let message = format!("model `{id}` doesn't answer {}; send the request to {}", form.path(), own.path());
            return Err(Failure::new(Kind::Invalid, message));
        }
        None => {
            let message = format!("model `{id}` gives no embeddings; serve a model that does");
            return Err(Failure::new(Kind::Invalid, message));
        }
    }
    let inputs = match inputs {
        Inputs::Texts(texts) => {
            not_empty(texts.items.iter().map(String::is_empty))?;
            Inputs::Texts(OneOrMany::many(texts.items))
        }
        Inputs::Tokens(tokens) => {
            not_empty(tokens.items.iter().map(Vec::is_empty))?;
            Inputs::Tokens(OneOrMany::many(tokens.items))
        }
    };
    parameters.normalize = parameters.normalize.or((form == Form::Sentence).then_some(true));
    Ok((served, Request::FeatureExtraction(feature_extraction::Request { inputs, parameters })))
}

/// Whether a classifier is meant to name classes, where others that are served are rankers.
pub(crate) fn is_no_ranker(card: &ModelCard) -> bool {
    !card.tasks().contains(&Task::TextRanking)
}

/// Classes, by the model of that name, else the only one that names some.
pub(crate) fn predict(
    models: &Models,
    model: Option<&str>,
    inputs: OneOrMany<text_classification::Input>,
    parameters: text_classification::Parameters,
) -> Result<(Arc<Served>, Request), Failure> {
    let served = models.find_for(model, Task::TextClassification, is_no_ranker)?;
    not_empty(inputs.items.iter().map(|input| input.text.is_empty() && input.text_pair.is_none()))?;
    Ok((served, Request::TextClassification(text_classification::Request { inputs, parameters })))
}

/// A ranking, by the model of that name, else the only ranker; `name` is that of the texts.
pub(crate) fn rerank(
    models: &Models,
    model: Option<&str>,
    name: &'static str,
    inputs: text_ranking::Inputs,
    parameters: text_ranking::Parameters,
) -> Result<(Arc<Served>, Request), Failure> {
    let served = models.find_for(model, Task::TextRanking, |_| true)?;
    if inputs.texts.is_empty() {
        return Err(TaskError::Empty(name).into());
    }
    if parameters.top_k == Some(0) {
        let reason = "0 texts are none; give 1 or more, or leave it out for all texts".into();
        return Err(TaskError::Parameter { name: "top_n", reason }.into());
    }
    Ok((served, Request::TextRanking(text_ranking::Request { inputs, parameters })))
}

/// Refuses a list without an element, and an element without anything in it.
fn not_empty(mut empty: impl ExactSizeIterator<Item = bool>) -> Result<(), Failure> {
    if empty.len() == 0 {
        return Err(TaskError::Empty("inputs").into());
    }
    match empty.position(|empty| empty) {
        Some(index) => {
            let message = format!("`inputs`: element {index} is empty; give at least one character or token");
            Err(Failure { field: Some("inputs".into()), ..Failure::new(Kind::Empty, message) })
        }
        None => Ok(()),
    }
}

/// A token of a text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Token {
    pub(crate) id: u32,
    /// The part of the text that it stands for; of a special token its name.
    pub(crate) text: String,
    pub(crate) special: bool,
    /// Its first character in the text; none where it was put around it.
    pub(crate) start: Option<usize>,
    /// The end of its characters.
    pub(crate) stop: Option<usize>,
}

/// The model of a name, as others find it; the first where none is given.
fn tokenizer_of(models: &Models, model: Option<&str>) -> Result<Arc<Served>, Failure> {
    match model {
        Some(_) => models.find_or_only(model),
        None => models.find_or_first(None),
    }
}

/// The tokens of each text, whole also where the model would cut it; `special`: with those around it.
pub(crate) fn tokenize(
    service: &Service,
    models: &Models,
    model: Option<&str>,
    texts: &[String],
    special: bool,
    prompt_name: Option<&str>,
) -> Result<Vec<Vec<Token>>, Failure> {
    let served = tokenizer_of(models, model)?;
    if prompt_name.is_some() {
        let reason = "/tokenize puts no prompt before texts; write it in front of them".into();
        return Err(TaskError::Parameter { name: "prompt_name", reason }.into());
    }
    not_empty(texts.iter().map(|_| false))?;
    service.check_inputs(texts.len())?;
    let bytes = texts.iter().map(String::len).sum::<usize>();
    if bytes > MAX_TOKENIZED_BYTES {
        let message = format!("{bytes} bytes of text in one request, at most {MAX_TOKENIZED_BYTES} are tokenised");
        return Err(Failure::new(Kind::TooLarge, message));
    }
    let tokens = |(input, text): (usize, &String)| {
        tokens(&served.model, text, special).map_err(|source| TaskError::Text { input, source })
    };
    Ok(texts.iter().enumerate().map(tokens).collect::<Result<_, _>>()?)
}

/// The tokens of a text of any length: those of its windows, of which the first begins it and the last ends it.
fn tokens(model: &Model, text: &str, special: bool) -> Result<Vec<Token>, TextError> {
    let tokenizer = &model.tokenizer;
    let characters: Vec<char> = text.chars().collect();
    let windows = tokenizer.windows(Text::Single(text), &WindowOptions::new(tokenizer.max_tokens(), 0))?;
    let last = windows.len().saturating_sub(1);
    let mut tokens = Vec::new();
    for (number, window) in windows.iter().enumerate() {
        let origins = &window.origins;
        let first_of_text = origins.iter().position(|origin| !origin.special).unwrap_or(origins.len());
        for (index, (origin, &id)) in origins.iter().zip(&window.encoding.ids).enumerate() {
            if !origin.special {
                let part = characters.get(origin.characters.clone()).unwrap_or_default();
                let (start, stop) = (Some(origin.characters.start), Some(origin.characters.end));
                tokens.push(Token { id, text: part.iter().collect(), special: false, start, stop });
            } else if special && (if index < first_of_text { number == 0 } else { number == last }) {
                let text = tokenizer.id_to_token(id).unwrap_or_default();
                tokens.push(Token { id, text, special: true, start: None, stop: None });
            }
        }
    }
    Ok(tokens)
}

/// The text of each list of ids; `skip`: without special tokens.
pub(crate) fn decode(
    service: &Service,
    models: &Models,
    model: Option<&str>,
    lists: &[Vec<u32>],
    skip: bool,
) -> Result<Vec<String>, Failure> {
    let served = tokenizer_of(models, model)?;
    service.check_inputs(lists.len())?;
    let text = |(input, ids): (usize, &Vec<u32>)| {
        served.model.tokenizer.decode(ids, skip).map_err(|source| TaskError::Text { input, source })
    };
    Ok(lists.iter().enumerate().map(text).collect::<Result<_, _>>()?)
}
