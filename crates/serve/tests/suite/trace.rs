//! Traces: what a collector gets, and that nobody waits for one.

use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc,
};

use centuple_serve::{Config, Server};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::harness::{Running, config, tiny};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Passes on what it gets.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector, which lives as long as the process.
fn collect() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, received) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let router = Routes::new(TraceServiceServer::new(Collector(sender))).into_axum_router();
            while let Ok((stream, _)) = listener.accept().await {
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone())));
            }
        });
    });
    (address, received)
}

fn traced(collector: SocketAddr) -> Running {
    let config = Config { otlp_endpoint: Some(format!("http://{collector}")), ..config() };
    Running::new(config, vec![tiny::embedder(true)])
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_request_is_a_span_with_its_parts() {
    let (address, received) = collect();
    let server = traced(address);
    let headers = [("traceparent", PARENT), ("x-request-id", "its-id")];
    let reply = server.connect().request("POST", "/v1/embeddings", &headers, br#"{"input": "the cat"}"#);
    assert_eq!(reply.status, 200);
    assert_eq!(server.get("/no/such/route").status, 404);
    server.end().unwrap();
    let requests: Vec<_> = received.try_iter().collect();
    let resources = requests.iter().flat_map(|request| &request.resource_spans);
    let spans: Vec<&Span> = resources.flat_map(|spans| &spans.scope_spans).flat_map(|scope| &scope.spans).collect();
    let named = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).copied().collect();
        assert_eq!(found.len(), 1, "{name} in {spans:#?}");
        found[0]
    };
    let root = named("POST /v1/embeddings");
    assert_eq!(root.kind, SpanKind::Server as i32);
    let ids = format!("00-{}-{}-01", hex(&root.trace_id), hex(&root.span_id));
    assert_eq!(reply.header("traceparent"), Some(ids.as_str()));
    assert_eq!(format!("00-{}-{}-01", hex(&root.trace_id), hex(&root.parent_span_id)), PARENT);
    let text = |text: &str| Some(Value::StringValue(text.into()));
    for (key, value) in [
        ("http.route", text("/v1/embeddings")),
        ("centuple.request_id", text("its-id")),
        ("gen_ai.request.model", text(&tiny::embedder(true).card.id)),
        ("http.response.status_code", Some(Value::IntValue(200))),
    ] {
        assert_eq!(attribute(root, key), value.as_ref(), "{key}");
    }
    let mut before = root.start_time_unix_nano;
    for name in ["tokenize", "queue", "compute", "write"] {
        let part = named(name);
        assert_eq!((&part.trace_id, &part.parent_span_id), (&root.trace_id, &root.span_id));
        assert!(before <= part.start_time_unix_nano && part.start_time_unix_nano <= part.end_time_unix_nano);
        before = part.end_time_unix_nano;
    }
    assert_eq!(before, root.end_time_unix_nano);
    let unknown = named("GET");
    assert!(unknown.parent_span_id.is_empty() && unknown.trace_id != root.trace_id);
}

#[test]
fn a_trace_that_its_parent_does_not_sample_is_not_sent() {
    let (address, received) = collect();
    let server = traced(address);
    let headers = [("traceparent", &*PARENT.replace("-01", "-00"))];
    let reply = server.connect().request("POST", "/", &headers, br#"{"inputs": "the cat"}"#);
    let traceparent = reply.header("traceparent").unwrap();
    assert!(traceparent.starts_with(&PARENT[..35]) && traceparent.ends_with("-00"), "{traceparent}");
    server.end().unwrap();
    assert_eq!(received.try_iter().count(), 0);
}

#[test]
fn nobody_waits_for_a_collector() {
    // One that isn't there, and one that never answers.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [gone, silent.local_addr().unwrap()] {
        let server = traced(address);
        let mut client = server.connect();
        // More spans than the queue holds.
        for _ in 0..1000 {
            assert_eq!(client.request("POST", "/", &[], br#"{"inputs": "the cat"}"#).status, 200);
        }
        server.end().unwrap();
    }
}

#[test]
fn without_a_collector_there_are_no_traces() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let reply = server.connect().request("POST", "/", &[("traceparent", PARENT)], br#"{"inputs": "the cat"}"#);
    assert_eq!(reply.header("traceparent"), None);
}

#[test]
fn an_endpoint_that_is_none_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for endpoint in ["", "localhost:4317", "https://localhost:4317", "http://"] {
        let config = Config { otlp_endpoint: Some(endpoint.into()), ..config() };
        let Err(error) = runtime.block_on(Server::bind(config)) else { panic!("{endpoint}") };
        assert!(error.to_string().contains("http://127.0.0.1:4317"), "{error}");
    }
}
