//! Clients of gRPC: those made of the protocol files, and one that sends any bytes.

#![allow(unreachable_pub, clippy::all)]

use std::{io::Write, pin::Pin};

use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use prost::Message;
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use super::Running;

/// The Open Inference Protocol.
pub mod inference {
    include!(concat!(env!("OUT_DIR"), "/clients/inference.rs"));
}

/// text-embeddings-inference.
pub mod tei {
    include!(concat!(env!("OUT_DIR"), "/clients/tei.v1.rs"));
}

/// A connection to a server, and what drives it.
pub struct Grpc {
    runtime: Runtime,
    channel: Channel,
    address: std::net::SocketAddr,
}

impl Grpc {
    pub fn new(server: &Running) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = {
            let _guard = runtime.enter();
            Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy()
        };
        Self { runtime, channel, address: server.address }
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn inference(&self) -> inference::grpc_inference_service_client::GrpcInferenceServiceClient<Channel> {
        let client = inference::grpc_inference_service_client::GrpcInferenceServiceClient::new(self.channel());
        client.max_decoding_message_size(usize::MAX)
    }

    /// A call that goes on meanwhile.
    pub fn spawn(&self, request: inference::ModelInferRequest) -> tokio::task::JoinHandle<Result<(), Status>> {
        let mut client = self.inference();
        self.runtime.spawn(async move { client.model_infer(request).await.map(drop) })
    }

    /// `Check`; 1 is serving.
    pub async fn health(&self, service: &str) -> Result<i32, Status> {
        let request = HealthCheckRequest { service: service.into() };
        Ok(HealthClient::new(self.channel()).check(request).await?.into_inner().status)
    }

    pub async fn watch(&self, service: &str) -> Streaming<HealthCheckResponse> {
        let request = HealthCheckRequest { service: service.into() };
        HealthClient::new(self.channel()).watch(request).await.unwrap().into_inner()
    }

    pub fn raw(&self) -> Raw {
        Raw { address: self.address, stalls: false }
    }
}

macro_rules! reflect {
    ($name:ident, $version:ident) => {
        impl Grpc {
            /// Names of services, and how many files one of them is described in.
            pub async fn $name(&self) -> (Vec<String>, usize) {
                use tonic_reflection::pb::$version::{
                    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
                };
                let ask = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
                let questions = [
                    ask(MessageRequest::ListServices(String::new())),
                    ask(MessageRequest::FileContainingSymbol("inference.ModelInferRequest".into())),
                ];
                let mut client = ServerReflectionClient::new(self.channel());
                let reply = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap();
                let mut answers = reply.into_inner();
                let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
                let MessageResponse::ListServicesResponse(services) = next().await else { panic!("no services") };
                let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no file") };
                let names = services.service.into_iter().map(|service| service.name).collect();
                (names, files.file_descriptor_proto.len())
            }
        }
    };
}

reflect!(reflect_v1, v1);
reflect!(reflect_v1alpha, v1alpha);

/// A client that sends what it is told to, each call on a connection of its own.
pub struct Raw {
    address: std::net::SocketAddr,
    stalls: bool,
}

impl Raw {
    /// The same, but its requests never end.
    pub fn stalling(self) -> Self {
        Self { stalls: true, ..self }
    }

    /// Calls the service of inference with chunks of bytes; tells the status.
    pub async fn post(&mut self, call: &str, headers: &[(&str, &str)], chunks: Vec<Vec<u8>>) -> Status {
        let path = format!("/inference.GRPCInferenceService/{call}");
        let headers = [headers, &[("content-type", "application/grpc"), ("te", "trailers")]].concat();
        let response = self.send(&path, &headers, chunks).await;
        assert_eq!(response.status(), StatusCode::OK);
        let head = response.headers().clone();
        if let Some(status) = Status::from_header_map(&head) {
            return status;
        }
        let body = response.into_body().collect().await.unwrap();
        Status::from_header_map(body.trailers().expect("trailers")).expect("a status")
    }

    /// Calls `ModelInfer` with a deadline that only the server knows.
    pub async fn infer(&mut self, request: impl Message, timeout: &str) -> Status {
        let message = request.encode_to_vec();
        let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        self.post("ModelInfer", &[("grpc-timeout", timeout)], vec![frame]).await
    }

    /// The status of HTTP.
    pub async fn http(&mut self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.send(path, headers, vec![]).await.status().as_u16()
    }

    async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        chunks: Vec<Vec<u8>>,
    ) -> axum::http::Response<hyper::body::Incoming> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::post(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let frames = chunks.into_iter().map(|chunk| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(chunk))));
        let frames = tokio_stream::iter(frames.collect::<Vec<_>>());
        let frames: Pin<Box<dyn Stream<Item = _> + Send>> = match self.stalls {
            true => Box::pin(frames.chain(tokio_stream::pending())),
            false => Box::pin(frames),
        };
        let body = StreamBody::new(frames);
        sender.send_request(request.body(body).unwrap()).await.unwrap()
    }
}

/// A message on the wire, compressed.
pub fn compressed(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(message).unwrap();
    let packed = encoder.finish().unwrap();
    [&[1][..], &(packed.len() as u32).to_be_bytes(), &packed].concat()
}
