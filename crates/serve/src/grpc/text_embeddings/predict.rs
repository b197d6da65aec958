//! `tei.v1.Predict`: a text or a pair to classes.

use std::sync::Arc;

use centuple_tasks::{
    OneOrMany, Reply as TaskReply, Request,
    text_classification::{Function, Input, Parameters},
};

use super::{
    Asked, Reply, direction,
    messages::{PredictPairRequest, PredictRequest, PredictResponse, Prediction, TruncationDirection},
    translate,
};
use crate::{
    grpc::frames,
    service::{Failure, Kind, Models, Served},
    text_embeddings,
};

/// `Predict`
pub(super) async fn predict(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: PredictRequest| {
            let parameters = parameters(message.truncate, message.raw_scores, message.truncation_direction());
            classes(models, model, Input { text: message.inputs, text_pair: None }, parameters)
        },
        write,
    )
    .await
}

/// `PredictPair`
pub(super) async fn predict_pair(asked: Asked) -> Result<Reply, Failure> {
    translate(
        asked,
        |models, model, message: PredictPairRequest| {
            let parameters = parameters(message.truncate, message.raw_scores, message.truncation_direction());
            let [text, pair] = <[String; 2]>::try_from(message.inputs).map_err(|inputs| {
                let message = format!("`inputs` has {} texts; a pair has two", inputs.len());
                Failure { field: Some("inputs".into()), ..Failure::new(Kind::Invalid, message) }
            })?;
            classes(models, model, Input { text, text_pair: Some(pair) }, parameters)
        },
        write,
    )
    .await
}

fn classes(
    models: &Models,
    model: Option<&str>,
    input: Input,
    parameters: Parameters,
) -> Result<(Arc<Served>, Request), Failure> {
    text_embeddings::predict(models, model, OneOrMany::many(vec![input]), parameters)
}

fn parameters(truncate: bool, raw: bool, end: TruncationDirection) -> Parameters {
    Parameters {
        function_to_apply: raw.then_some(Function::None),
        truncate: Some(truncate),
        truncation_direction: direction(end),
        ..Parameters::default()
    }
}

fn write(reply: TaskReply) -> Vec<u8> {
    let scores = match reply {
        TaskReply::Classifications(lists) => lists.into_iter().next().unwrap_or_default(),
        TaskReply::Features(_)
        | TaskReply::Similarities(_)
        | TaskReply::ZeroShot(_)
        | TaskReply::Entities(_)
        | TaskReply::Answers(_)
        | TaskReply::Filled(_)
        | TaskReply::Ranking(_) => Vec::new(),
    };
    let predictions = scores.into_iter().map(|score| Prediction { score: score.score, label: score.label }).collect();
    frames::begin(&PredictResponse { predictions, metadata: None })
}
