//! `tei.v1.Embed`: a text to vectors.

use centuple_tasks::{
    OneOrMany, Output, Reply as TaskReply,
    feature_extraction::{Inputs, Parameters},
};

use super::{
    Asked, Reply, direction,
    messages::{
        EmbedAllRequest, EmbedAllResponse, EmbedRequest, EmbedResponse, EmbedSparseRequest, EmbedSparseResponse,
        SparseValue, TokenEmbedding,
    },
    translate,
};
use crate::{
    grpc::frames,
    service::Failure,
    text_embeddings::{self, Form},
};

fn text(text: String) -> Inputs {
    Inputs::Texts(OneOrMany::many(vec![text]))
}

/// The vectors of the only text.
fn only(reply: TaskReply) -> Option<Output> {
    match reply {
        TaskReply::Features(features) => features.outputs.into_iter().next(),
        TaskReply::Similarities(_)
        | TaskReply::Classifications(_)
        | TaskReply::ZeroShot(_)
        | TaskReply::Entities(_)
        | TaskReply::Answers(_)
        | TaskReply::Filled(_)
        | TaskReply::Ranking(_) => None,
    }
}

/// `Embed`
pub(super) async fn embed(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: EmbedRequest| {
            let parameters = Parameters {
                normalize: message.normalize,
                truncate: Some(message.truncate),
                truncation_direction: direction(message.truncation_direction()),
                dimensions: message.dimensions.map(|dimensions| dimensions as usize),
                prompt_name: message.prompt_name,
                encoding_format: None,
            };
            text_embeddings::embed(models, model, Form::Sentence, text(message.inputs), parameters)
        },
        |reply| {
            let embeddings = only(reply).map(|output| output.data).unwrap_or_default();
            frames::begin(&EmbedResponse { embeddings, metadata: None })
        },
    )
    .await
}

/// `EmbedAll`
pub(super) async fn embed_all(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: EmbedAllRequest| {
            let parameters = Parameters {
                truncate: Some(message.truncate),
                truncation_direction: direction(message.truncation_direction()),
                prompt_name: message.prompt_name,
                ..Parameters::default()
            };
            text_embeddings::embed(models, model, Form::Tokens, text(message.inputs), parameters)
        },
        |reply| {
            let rows = only(reply).map(|Output { columns, data, .. }| {
                let row = |row: &[f32]| TokenEmbedding { embeddings: row.to_vec() };
                data.chunks_exact(columns.max(1)).map(row).collect()
            });
            frames::begin(&EmbedAllResponse { token_embeddings: rows.unwrap_or_default(), metadata: None })
        },
    )
    .await
}

/// `EmbedSparse`
pub(super) async fn embed_sparse(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: EmbedSparseRequest| {
            let parameters = Parameters {
                truncate: Some(message.truncate),
                truncation_direction: direction(message.truncation_direction()),
                prompt_name: message.prompt_name,
                ..Parameters::default()
            };
            text_embeddings::embed(models, model, Form::Sparse, text(message.inputs), parameters)
        },
        |reply| {
            let weights = only(reply).map(|output| output.data).unwrap_or_default();
            let weights = (0u32..).zip(weights).filter(|(_, value)| *value != 0.0);
            let sparse_embeddings = weights.map(|(index, value)| SparseValue { index, value }).collect();
            frames::begin(&EmbedSparseResponse { sparse_embeddings, metadata: None })
        },
    )
    .await
}
