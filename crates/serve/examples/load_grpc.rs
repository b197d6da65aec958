//! Asks a server over gRPC, one request after the other, and tells as JSON what the client saw.
//!
//! ```text
//! load_grpc ADDRESS MODEL TEXT REQUESTS
//! ```
//!
//! `overhead` is a request's time less that of the inference, as the reply's `server-timing` tells it. One thread.

use std::{error::Error, time::Instant};

use inference::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
};
use serde_json::{Value, json};
use tonic::{metadata::MetadataMap, transport::Endpoint};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod inference {
    include!(concat!(env!("OUT_DIR"), "/clients/inference.rs"));
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, model, text, requests] = arguments.as_slice() else {
        return Err("load_grpc ADDRESS MODEL TEXT REQUESTS".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(ask(address, request(model, text), requests.parse()?))?;
    println!("{seen}");
    Ok(())
}

fn request(model: &str, text: &str) -> ModelInferRequest {
    let raw = [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let input =
        InferInputTensor { name: "TEXT".into(), datatype: "BYTES".into(), shape: vec![1], ..Default::default() };
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

async fn ask(address: &str, request: ModelInferRequest, requests: usize) -> Result<Value, Box<dyn Error>> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let mut client = GrpcInferenceServiceClient::new(channel);
    let (mut whole, mut over) = (Vec::new(), Vec::new());
    for _ in 0..requests {
        let sent = Instant::now();
        let reply = client.model_infer(request.clone()).await?;
        let time = sent.elapsed().as_secs_f64() * 1e3;
        whole.push(time);
        over.push(time - inference_time(reply.metadata()).ok_or("the reply has no `server-timing`")?);
    }
    Ok(json!({"milliseconds": quantiles(whole), "overhead_milliseconds": quantiles(over)}))
}

/// Milliseconds that the engine took.
fn inference_time(metadata: &MetadataMap) -> Option<f64> {
    let (_, rest) = metadata.get("server-timing")?.to_str().ok()?.split_once("inference;dur=")?;
    rest.split(',').next()?.parse().ok()
}

fn quantiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((share * times.len().saturating_sub(1) as f64).round() as usize);
    json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "worst": times.last()})
}
