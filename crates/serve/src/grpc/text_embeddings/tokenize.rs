//! `tei.v1.Tokenize`: a text to tokens and back, which needs no engine.

use super::{
    Asked, Reply,
    messages::{DecodeRequest, DecodeResponse, EncodeRequest, EncodeResponse, SimpleToken},
};
use crate::{
    grpc::exchange::decode as decode_message,
    service::{Failure, LARGE_BODY, Models, Service},
    text_embeddings::{self, Token},
};

/// `Tokenize`
pub(super) async fn tokenize(asked: Asked) -> Result<Reply, Failure> {
    let (service, message, model) = (asked.service, asked.message, asked.model);
    let large = message.len() >= LARGE_BODY;
    let work = move |service: &Service, models: &Models| {
        let EncodeRequest { inputs, add_special_tokens, prompt_name } = decode_message(&message)?;
        let (model, prompt) = (model.as_deref(), prompt_name.as_deref());
        let lists = text_embeddings::tokenize(service, models, model, &[inputs], add_special_tokens, prompt)?;
        let token = |token: Token| SimpleToken {
            id: token.id,
            text: token.text,
            special: token.special,
            start: token.start.map(|start| start as u32),
            stop: token.stop.map(|stop| stop as u32),
        };
        Ok(Reply::of(&EncodeResponse { tokens: lists.into_iter().flatten().map(token).collect() }))
    };
    service.reply(large, work).await
}

/// `Decode`
pub(super) async fn decode(asked: Asked) -> Result<Reply, Failure> {
    let (service, message, model) = (asked.service, asked.message, asked.model);
    let large = message.len() >= LARGE_BODY;
    let work = move |service: &Service, models: &Models| {
        let DecodeRequest { ids, skip_special_tokens } = decode_message(&message)?;
        let texts = text_embeddings::decode(service, models, model.as_deref(), &[ids], skip_special_tokens)?;
        Ok(Reply::of(&DecodeResponse { text: texts.into_iter().next().unwrap_or_default() }))
    };
    service.reply(large, work).await
}
