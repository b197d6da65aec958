//! Calls of gRPC in the mix of a soak: inference, embeddings, health; good ones, bad ones, and those that are given up.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::random::Random;
use crate::traffic::Models;

/// What these calls need of the messages of the Open Inference Protocol.
#[derive(Clone, PartialEq, prost::Message)]
struct Infer {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw_input_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Inferred {
    #[prost(bytes = "vec", repeated, tag = "6")]
    raw_output_contents: Vec<Vec<u8>>,
}

/// Of tei.v1.
#[derive(Clone, PartialEq, prost::Message)]
struct Embed {
    #[prost(string, tag = "1")]
    inputs: String,
    #[prost(bool, tag = "2")]
    truncate: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Embedded {
    #[prost(float, repeated, tag = "1")]
    embeddings: Vec<f32>,
}

/// Of grpc.health.v1.
#[derive(Clone, PartialEq, prost::Message)]
struct Check {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Checked {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The call of inference.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A client of gRPC, and what drives it.
pub(crate) struct Caller {
    runtime: Runtime,
    endpoint: Endpoint,
    channel: Option<Channel>,
}

impl Caller {
    /// A client of `host:port`.
    pub(crate) fn new(address: &str) -> Caller {
        // It answers the server's pings also while nothing is asked.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Caller { runtime, endpoint, channel: None }
    }

    /// Does one thing; the name of what it has seen, if it has waited for that.
    ///
    /// # Panics
    /// The server has answered what it must not.
    pub(crate) fn step(&mut self, models: &Models, texts: &[String], random: &mut Random) -> Option<String> {
        if random.below(8) == 0 {
            self.channel = None;
        }
        let Caller { runtime, endpoint, channel } = self;
        runtime.block_on(async {
            let channel = channel.get_or_insert_with(|| endpoint.connect_lazy()).clone();
            let patience = if random.below(8) == 0 { random.below(5) as u64 } else { 600_000 };
            let outcome = tokio::time::timeout(Duration::from_millis(patience), call(channel, models, texts, random));
            match outcome.await {
                Ok(code) => Some(format!("gRPC {code:?}")),
                Err(_) if patience < 600_000 => None,
                Err(_) => panic!("no answer"),
            }
        })
    }
}

impl Caller {
    /// Has a model infer on texts, over one connection as long as it lasts.
    pub(crate) fn infer(&mut self, model: &str, texts: &[String]) -> Result<(), Status> {
        let channel = self.channel.get_or_insert_with(|| {
            let _runtime = self.runtime.enter();
            self.endpoint.connect_lazy()
        });
        let rows = |reply: Inferred| !reply.raw_output_contents.iter().all(Vec::is_empty);
        self.runtime.block_on(ask(channel.clone(), INFER, infer(model, texts), rows))
    }
}

async fn call(channel: Channel, models: &Models, texts: &[String], random: &mut Random) -> Code {
    let (outcome, expected) = match random.below(8) {
        0..3 => {
            let rows = |reply: Inferred| !reply.raw_output_contents.iter().all(Vec::is_empty);
            (ask(channel, INFER, infer(&models.embedder, texts), rows).await, Code::Ok)
        }
        3 | 4 => {
            let embed = Embed { inputs: texts[0].clone(), truncate: true };
            let vector = |reply: Embedded| !reply.embeddings.is_empty();
            (ask(channel, "/tei.v1.Embed/Embed", embed, vector).await, Code::Ok)
        }
        5 => {
            let check = Check { service: String::new() };
            (ask(channel, "/grpc.health.v1.Health/Check", check, |reply: Checked| reply.status == 1).await, Code::Ok)
        }
        6 => (ask(channel, INFER, infer("nothing", texts), |_: Inferred| false).await, Code::NotFound),
        _ => {
            let mut lie = infer(&models.embedder, texts);
            lie.raw_input_contents[0].truncate(3);
            (ask(channel, INFER, lie, |_: Inferred| false).await, Code::InvalidArgument)
        }
    };
    let (code, message) =
        outcome.map_or_else(|status| (status.code(), status.message().to_owned()), |()| (Code::Ok, String::new()));
    assert!(code == expected || code == Code::ResourceExhausted, "{code:?} instead of {expected:?}: {message}");
    code
}

/// Calls, and checks the reply.
async fn ask<Q, A>(
    channel: Channel,
    path: &'static str,
    question: Q,
    is_right: impl Fn(A) -> bool,
) -> Result<(), Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = ProstCodec::<Q, A>::default();
    let reply = grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec).await?;
    assert!(is_right(reply.into_inner()), "{path} answers something else");
    Ok(())
}

/// Texts as a tensor of bytes.
fn infer(model: &str, texts: &[String]) -> Infer {
    let tensor = Tensor { name: "TEXT".into(), datatype: "BYTES".into(), shape: vec![texts.len() as i64] };
    let raw = texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat());
    Infer { model_name: model.to_owned(), inputs: vec![tensor], raw_input_contents: vec![raw.collect()] }
}
