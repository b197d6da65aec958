//! What is noted of every request: a span around it for logs and traces, a line when it has been answered.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, Version},
    response::Response,
};
use opentelemetry::KeyValue;
use tracing::{Span, field};

use crate::{
    service::Service,
    trace::{RequestSpan, Trail},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request that is being answered.
pub(super) struct Observed {
    /// Log lines within it carry the request's id.
    pub(super) span: Span,
    id: HeaderValue,
    method: Method,
    path: String,
    route: Option<MatchedPath>,
    version: Version,
    started: Instant,
    trace: Option<RequestSpan>,
}

impl Observed {
    /// A request that came at that time.
    pub(super) fn begin(service: &Service, request: &Request, id: &HeaderValue, started: Instant) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let span =
            tracing::info_span!("request", request_id = id.to_str().unwrap_or_default(), trace_id = field::Empty);
        let trace = service.tracing.as_ref().map(|tracing| {
            let name = match &route {
                Some(route) => format!("{method} {}", route.as_str()),
                None => method.to_string(),
            };
            let trace = tracing.begin(name, request.headers());
            span.record("trace_id", trace.trace_id());
            trace
        });
        let path = request.uri().path().to_owned();
        Self { span, id: id.clone(), method, path, route, version: request.version(), started, trace }
    }

    /// Notes how it was answered, to the holder of a key of that name.
    pub(super) fn end(self, service: &Service, key: Option<&str>, response: &mut Response) {
        let (took, status) = (self.started.elapsed(), response.status());
        let trail = response.extensions_mut().remove::<Trail>();
        let _within = self.span.enter();
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    method = %self.method,
                    path = self.path,
                    status = status.as_u16(),
                    took_ms = took.as_micros() as f64 / 1e3,
                    model = trail.as_ref().map(|trail| trail.model.card.id.as_str()),
                    tokens = trail.as_ref().map(|trail| trail.usage.tokens),
                    key,
                    "answered"
                )
            };
        }
        if service.config.log_requests {
            line!(tracing::Level::INFO);
        } else {
            line!(tracing::Level::DEBUG);
        }
        let Some(trace) = self.trace else { return };
        if let Ok(value) = HeaderValue::try_from(trace.traceparent()) {
            response.headers_mut().insert(TRACEPARENT, value);
        }
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.to_string()),
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            KeyValue::new("url.path", self.path.clone()),
            KeyValue::new("network.protocol.version", if self.version == Version::HTTP_2 { "2" } else { "1.1" }),
            KeyValue::new("centuple.request_id", self.id.to_str().unwrap_or_default().to_owned()),
        ];
        attributes.extend(self.route.map(|route| KeyValue::new("http.route", route.as_str().to_owned())));
        attributes.extend(key.map(|key| KeyValue::new("enduser.id", key.to_owned())));
        let failed = status.is_server_error().then(|| status.to_string().into());
        trace.end(attributes, failed, trail.as_ref(), took);
    }
}
