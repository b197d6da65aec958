//! The services of text-embeddings-inference: `tei.v1.Info`, `Embed`, `Predict`, `Rerank`, `Tokenize`.
//!
//! Their messages name no model, so where several can answer one, the metadata `model` does. An
//! error ends a stream, since its messages have no place for one.

mod embed;
mod predict;
mod rerank;
mod tokenize;

use std::sync::Arc;

use axum::Router;
use centuple_tasks::{Direction, Model, Reply as TaskReply, Request, Task, Usage};
use prost::Message;

use super::{
    Shared,
    exchange::{Asked, Reply, ask, beyond_repair, collect, decode, stream, tell},
    frames,
    messages::tei as messages,
};
use crate::service::{Answer, Dialect, Done, Failure, Models, Served, Work, Written};
use messages::{EmbedResponse, InfoResponse, Metadata, ModelType, TruncationDirection};

/// The calls.
pub(super) fn routes() -> Router<Shared> {
    let each = beyond_repair;
    Router::new()
        .route("/tei.v1.Info/Info", tell(info))
        .route("/tei.v1.Embed/Embed", ask(embed::embed))
        .route("/tei.v1.Embed/EmbedStream", stream(embed::embed, each))
        .route("/tei.v1.Embed/EmbedSparse", ask(embed::embed_sparse))
        .route("/tei.v1.Embed/EmbedSparseStream", stream(embed::embed_sparse, each))
        .route("/tei.v1.Embed/EmbedAll", ask(embed::embed_all))
        .route("/tei.v1.Embed/EmbedAllStream", stream(embed::embed_all, each))
        .route("/tei.v1.Predict/Predict", ask(predict::predict))
        .route("/tei.v1.Predict/PredictStream", stream(predict::predict, each))
        .route("/tei.v1.Predict/PredictPair", ask(predict::predict_pair))
        .route("/tei.v1.Predict/PredictPairStream", stream(predict::predict_pair, each))
        .route("/tei.v1.Rerank/Rerank", ask(rerank::rerank))
        .route("/tei.v1.Rerank/RerankStream", collect(rerank::rerank_stream))
        .route("/tei.v1.Tokenize/Tokenize", ask(tokenize::tokenize))
        .route("/tei.v1.Tokenize/TokenizeStream", stream(tokenize::tokenize, each))
        .route("/tei.v1.Tokenize/Decode", ask(tokenize::decode))
        .route("/tei.v1.Tokenize/DecodeStream", stream(tokenize::decode, each))
}

/// `Info`: of the model that the metadata names, else of the first.
async fn info(asked: Asked) -> Result<Reply, Failure> {
    let served = asked.service.find(&asked.call, |models| models.find_or_first(asked.model.as_deref())).await?;
    let (card, config) = (&served.model.card, &asked.service.config);
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let model_type = match card.tasks() {
        tasks if tasks.contains(&Task::TextRanking) => ModelType::Reranker,
        tasks if tasks.contains(&Task::TextClassification) => ModelType::Classifier,
        _ => ModelType::Embedding,
    };
    Ok(Reply::of(&InfoResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        sha: None,
        docker_label: None,
        model_id: card.id.clone(),
        model_sha: card.revision.clone(),
        model_dtype: card.dtype.to_string(),
        model_type: model_type.into(),
        max_concurrent_requests: number(config.max_queued_requests),
        max_input_length: number(served.model.tokenizer.max_tokens()),
        max_batch_tokens: number(config.max_batch_tokens),
        max_batch_requests: None,
        max_client_batch_size: number(config.max_inputs),
        tokenization_workers: number(std::thread::available_parallelism().map_or(1, usize::from)),
    }))
}

/// Finds the model of a message, and says what it has to do.
type Read<M> = fn(&Models, Option<&str>, M) -> Result<(Arc<Served>, Request), Failure>;
/// Writes a task's reply as a frame.
type Write = fn(TaskReply) -> Vec<u8>;

/// Has the service answer a message, and adds what it took.
async fn translate<M>(asked: Asked, read: Read<M>, write: Write) -> Result<Reply, Failure>
where
    M: Message + Default + 'static,
{
    let dialect = Translate { model: asked.model.clone(), read, write };
    asked.answer(dialect, |answer, frame| frames::add(frame, &costs(answer))).await
}

struct Translate<M> {
    model: Option<Arc<str>>,
    read: Read<M>,
    write: Write,
}

impl<M: Message + Default + 'static> Dialect for Translate<M> {
    fn read(&mut self, models: &Models, message: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let (served, request) = (self.read)(models, self.model.as_deref(), decode(message)?)?;
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        match done {
            Done::Reply(reply) => (self.write)(reply).into(),
            Done::Outputs(_) => Written::from(Vec::new()),
        }
    }
}

/// The metadata of an answer, in a message that has nothing else. It has the same number in all of
/// them, and messages one behind the other are one.
fn costs(answer: &Answer) -> EmbedResponse {
    let (usage, timing) = (answer.usage, answer.timing);
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let metadata = Metadata {
        compute_chars: number(usage.characters),
        compute_tokens: number(usage.tokens),
        total_time_ns: timing.total.as_nanos() as u64,
        tokenization_time_ns: timing.tokenization.as_nanos() as u64,
        queue_time_ns: timing.queue.as_nanos() as u64,
        inference_time_ns: timing.inference.as_nanos() as u64,
    };
    EmbedResponse { embeddings: Vec::new(), metadata: Some(metadata) }
}

fn direction(direction: TruncationDirection) -> Option<Direction> {
    Some(match direction {
        TruncationDirection::Right => Direction::Right,
        TruncationDirection::Left => Direction::Left,
    })
}
