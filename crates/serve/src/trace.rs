//! Traces: a span for each request and one for each of its parts, sent to a collector by OTLP.
//!
//! Spans are made of times that are known anyway, when a request has ended. They wait in a bounded queue for a thread of
//! their own; what finds it full is lost. So no collector holds up a request.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use axum::http::HeaderMap;
use centuple_tasks::{Model, Usage};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider, Span, SpanData},
};

use crate::{
    error::ServeError,
    service::{Answer, Timing},
};

/// How long a collector may take to take spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the server waits for the last spans to be taken.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What makes spans and sends them.
pub(crate) struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Tracing {
    /// Sends spans to a collector's gRPC port. Needs a runtime, which carries them.
    pub(crate) fn new(endpoint: &str) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::Traces { endpoint: endpoint.to_owned(), reason };
        if !endpoint.starts_with("http://") {
            return Err(failed("it does not begin with http://".into()));
        }
        let exporter =
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build();
        let exporter = Watched {
            exporter: exporter.map_err(|error| failed(error.to_string()))?,
            endpoint: endpoint.to_owned(),
            is_failing: AtomicBool::new(false),
        };
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name("centuple"),
        };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("centuple");
        Ok(Self { provider, tracer, propagator: TraceContextPropagator::new() })
    }

    /// The span of a request that has just come, below the one that its headers name.
    pub(crate) fn begin(&self, name: String, headers: &HeaderMap) -> RequestSpan {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let (tracer, started) = (self.tracer.clone(), SystemTime::now());
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_start_time(started);
        let span = tracer.build_with_context(span, &parent);
        RequestSpan { tracer, started, span }
    }

    /// Sends what is left. Blocks for a while.
    pub(crate) fn end(&self) {
        // That a collector can't be reached has been told already.
        let _ = self.provider.shutdown_with_timeout(LAST_SPANS);
    }
}

/// The span of a request.
pub(crate) struct RequestSpan {
    tracer: SdkTracer,
    started: SystemTime,
    span: Span,
}

impl RequestSpan {
    /// The trace that it is in, as 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// It as the value of the header `traceparent` (W3C Trace Context).
    pub(crate) fn traceparent(&self) -> String {
        let context: &SpanContext = self.span.span_context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }

    /// The request took so long.
    pub(crate) fn end(
        mut self,
        attributes: Vec<KeyValue>,
        failed: Option<Cow<'static, str>>,
        trail: Option<&Trail>,
        took: Duration,
    ) {
        if !self.span.is_recording() {
            return;
        }
        let ended = self.started + took;
        self.span.set_attributes(attributes);
        if let Some(description) = failed {
            self.span.set_status(Status::Error { description });
        }
        if let Some(trail) = trail {
            self.span.set_attributes([
                KeyValue::new("gen_ai.request.model", trail.model.card.id.clone()),
                KeyValue::new("gen_ai.usage.input_tokens", trail.usage.tokens as i64),
            ]);
            self.parts(trail.timing, ended);
        }
        self.span.end_with_timestamp(ended);
    }

    /// The parts end where the request does, each after the one before it.
    fn parts(&self, timing: Timing, ended: SystemTime) {
        let context = Context::new().with_remote_span_context(self.span.span_context().clone());
        let Timing { tokenization, queue, inference, output, total: _ } = timing;
        let mut until = ended;
        for (name, took) in [("write", output), ("compute", inference), ("queue", queue), ("tokenize", tokenization)] {
            let from = until.checked_sub(took).unwrap_or(until).max(self.started);
            let part = SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_start_time(from);
            self.tracer.build_with_context(part, &context).end_with_timestamp(until);
            until = from;
        }
    }
}

/// What is known of a request when it has been answered; responses carry it to whoever notes it.
#[derive(Clone)]
pub(crate) struct Trail {
    pub(crate) model: Arc<Model>,
    pub(crate) usage: Usage,
    pub(crate) timing: Timing,
}

impl Trail {
    /// Of an answer.
    pub(crate) fn of(answer: &Answer) -> Self {
        Self { model: Arc::clone(&answer.model), usage: answer.usage, timing: answer.timing }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// An exporter that tells when it begins to fail, and when it works again.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    endpoint: String,
    is_failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let endpoint = &self.endpoint;
        match (&outcome, self.is_failing.swap(outcome.is_err(), Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, endpoint, "traces are not taken and are lost"),
            (Ok(()), true) => tracing::info!(endpoint, "traces are taken again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
