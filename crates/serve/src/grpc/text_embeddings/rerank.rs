//! `tei.v1.Rerank`: texts in the order in which they answer a query.

use std::collections::HashMap;

use axum::body::Bytes;
use centuple_tasks::{
    Reply as TaskReply,
    text_ranking::{Document, Inputs, Parameters},
};
use prost::Message;

use super::{
    Asked, Reply, decode, direction,
    messages::{Metadata, Rank, RerankRequest, RerankResponse, RerankStreamRequest},
    translate,
};
use crate::{
    grpc::{exchange::Incoming, frames},
    http::body::too_large,
    service::{Failure, Kind},
    text_embeddings,
};

/// `Rerank`
pub(super) async fn rerank(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: RerankRequest| {
            let parameters = Parameters {
                top_k: None,
                return_documents: Some(message.return_text),
                raw_scores: Some(message.raw_scores),
                truncate: Some(message.truncate),
                truncation_direction: direction(message.truncation_direction()),
            };
            let texts = message.texts.into_iter().map(Document).collect();
            text_embeddings::rerank(models, model, "texts", Inputs { query: message.query, texts }, parameters)
        },
        |reply| {
            let ranked = match reply {
                TaskReply::Ranking(ranked) => ranked,
                TaskReply::Features(_)
                | TaskReply::Similarities(_)
                | TaskReply::Classifications(_)
                | TaskReply::ZeroShot(_)
                | TaskReply::Entities(_)
                | TaskReply::Answers(_)
                | TaskReply::Filled(_) => Vec::new(),
            };
            let rank = |place: centuple_tasks::text_ranking::Ranked| Rank {
                index: place.index as u32,
                text: place.text,
                score: place.score,
            };
            frames::begin(&RerankResponse { ranks: ranked.into_iter().map(rank).collect(), metadata: None })
        },
    )
    .await
}

/// `RerankStream`: each message has a text and the query that it is to answer.
pub(super) async fn rerank_stream(mut incoming: Incoming) -> Result<Reply, Failure> {
    let time = incoming.service.config.body_timeout;
    let groups = tokio::time::timeout(time, gather(&mut incoming)).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Timeout, format!("the texts did not arrive within {} s", time.as_secs_f32())))
    })?;
    let (mut ranks, mut costs) = (Vec::new(), Metadata::default());
    for Group { request, places } in groups {
        let reply = rerank(incoming.asked(Bytes::from(request.encode_to_vec()))).await?;
        let RerankResponse { ranks: group, metadata } = reply.read()?;
        let placed = |rank: Rank| Some(Rank { index: *places.get(rank.index as usize)?, ..rank });
        ranks.extend(group.into_iter().filter_map(placed));
        add(&mut costs, &metadata.unwrap_or_default());
    }
    ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Reply::of(&RerankResponse { ranks, metadata: Some(costs) }))
}

/// Texts of one query, and their places among all.
struct Group {
    request: RerankRequest,
    places: Vec<u32>,
}

/// All messages, by what they must have in common. Whether scores are raw and texts are returned, the first says.
async fn gather(incoming: &mut Incoming) -> Result<Vec<Group>, Failure> {
    let limit = incoming.service.config.max_body_bytes;
    let mut groups: Vec<Group> = Vec::new();
    let (mut known, mut bytes) = (HashMap::new(), 0);
    let (mut raw_scores, mut return_text) = (false, false);
    for place in 0.. {
        let Some(message) = incoming.frames.next().await? else { break };
        bytes += message.len();
        if bytes > limit {
            return Err(too_large(limit));
        }
        incoming.service.check_inputs(place as usize + 1)?;
        let RerankStreamRequest { query, text, truncate, raw_scores: raw, return_text: with, truncation_direction } =
            decode(&message)?;
        if place == 0 {
            (raw_scores, return_text) = (raw, with);
        }
        let key = (query.clone(), truncate, truncation_direction);
        let index = *known.entry(key).or_insert_with(|| {
            let texts = Vec::new();
            let request = RerankRequest { query, texts, truncate, raw_scores, return_text, truncation_direction };
            groups.push(Group { request, places: Vec::new() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(index) {
            group.request.texts.push(text);
            group.places.push(place);
        }
    }
    match groups.is_empty() {
        true => Err(Failure::new(Kind::Empty, "the call has no text to rank; send one message for each".into())),
        false => Ok(groups),
    }
}

fn add(costs: &mut Metadata, more: &Metadata) {
    costs.compute_chars = costs.compute_chars.saturating_add(more.compute_chars);
    costs.compute_tokens = costs.compute_tokens.saturating_add(more.compute_tokens);
    costs.total_time_ns += more.total_time_ns;
    costs.tokenization_time_ns += more.tokenization_time_ns;
    costs.queue_time_ns += more.queue_time_ns;
    costs.inference_time_ns += more.inference_time_ns;
}
