//! Failures in the words of each family of routes.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::Response,
};
use centuple_tasks::schema::Components;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{cohere, generation, infinity, json, text_embeddings};
use crate::{
    grpc,
    service::{Failure, Kind},
};

/// Routes that answer errors in one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `{"error": "...", "error_type": "..."}`
    HuggingFace,
    /// The same; what an engine fails at is 424.
    TextEmbeddings,
    /// `{"error": {"message": "...", "type": "...", "param": ..., "code": ...}}`
    OpenAi,
    /// `{"message": "..."}`
    Cohere,
    /// `{"error": "..."}`
    OpenInference,
}

/// Whether a request is a call of gRPC, whose clients read no body of an error.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|content| content.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

/// The response to a request that no handler had.
pub(crate) fn refusal(headers: &HeaderMap, path: &str, failure: &Failure) -> Response {
    match is_grpc(headers) {
        true => grpc::refusal(failure),
        false => Family::of(path).failure(failure),
    }
}

impl Family {
    /// The family that a path belongs to, also where there is no such route.
    pub(super) fn of(path: &str) -> Self {
        let within = |roots: &[&str]| {
            let below =
                |root: &&str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            roots.iter().any(below)
        };
        if within(&cohere::PATHS) {
            Family::Cohere
        } else if within(&["/v2"]) {
            Family::OpenInference
        } else if within(&["/v1", "/openai"]) || within(&infinity::PATHS) {
            Family::OpenAi
        } else if within(&text_embeddings::PATHS) || within(&generation::PATHS) {
            Family::TextEmbeddings
        } else {
            Family::HuggingFace
        }
    }

    /// The schema of its errors.
    pub(super) fn schema(self, components: &mut Components) -> Value {
        match self {
            Family::HuggingFace | Family::TextEmbeddings => components.add::<HuggingFaceError<'_>>(),
            Family::OpenAi => components.add::<OpenAiError<'_>>(),
            Family::Cohere => components.add::<CohereError<'_>>(),
            Family::OpenInference => components.add::<OpenInferenceError<'_>>(),
        }
    }

    /// The response to a request that failed.
    pub(super) fn failure(self, failure: &Failure) -> Response {
        let body = match self {
            Family::HuggingFace | Family::TextEmbeddings => to_json(&huggingface(failure)),
            Family::OpenAi => to_json(&openai(failure)),
            Family::Cohere => to_json(&CohereError { message: &failure.message }),
            Family::OpenInference => to_json(&OpenInferenceError { error: &failure.message }),
        };
        let mut response = json(body);
        *response.status_mut() = self.status(failure.kind);
        if let Some(time) = failure.kind.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(time.as_secs()));
        }
        if failure.kind == Kind::Unauthorized {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// Never 503, which clients repeat at once and without end.
    pub(super) fn status(self, kind: Kind) -> StatusCode {
        match kind {
            Kind::Malformed | Kind::Empty => StatusCode::BAD_REQUEST,
            Kind::Invalid | Kind::Tokenization => match self {
                Family::HuggingFace | Family::TextEmbeddings => StatusCode::UNPROCESSABLE_ENTITY,
                Family::OpenAi | Family::Cohere | Family::OpenInference => StatusCode::BAD_REQUEST,
            },
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // No 5xx, by which balancers would take a healthy server for a broken one.
            Kind::Timeout | Kind::Deadline => StatusCode::REQUEST_TIMEOUT,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::UnknownModel | Kind::NoReport | Kind::UnknownRoute => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Overloaded(_) => StatusCode::TOO_MANY_REQUESTS,
            Kind::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Engine | Kind::LoadFailed => match self {
                Family::TextEmbeddings => StatusCode::FAILED_DEPENDENCY,
                Family::HuggingFace | Family::OpenAi | Family::Cohere | Family::OpenInference => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
            Kind::Internal | Kind::NotLoaded(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What went wrong, and its kind.
#[derive(Serialize, ToSchema)]
struct HuggingFaceError<'a> {
    error: &'a str,
    error_type: &'static str,
}

fn huggingface(failure: &Failure) -> HuggingFaceError<'_> {
    let error_type = match failure.kind {
        Kind::Malformed | Kind::Invalid | Kind::TooLarge => "Validation",
        Kind::Empty => "Empty",
        Kind::Tokenization => "Tokenizer",
        Kind::Timeout | Kind::Deadline => "Timeout",
        Kind::Unauthorized => "Unauthorized",
        Kind::UnknownModel | Kind::NoReport | Kind::UnknownRoute => "NotFound",
        Kind::Method => "MethodNotAllowed",
        Kind::Encoding => "Validation",
        Kind::NotImplemented => "NotImplemented",
        Kind::Overloaded(_) => "Overloaded",
        Kind::Engine | Kind::LoadFailed | Kind::NotLoaded(_) | Kind::Internal => "Backend",
    };
    HuggingFaceError { error: &failure.message, error_type }
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
struct OpenAiError<'a> {
    error: OpenAiErrorBody<'a>,
}

/// What went wrong, its kind, and the field of the body at fault.
#[derive(Serialize, ToSchema)]
struct OpenAiErrorBody<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

fn openai(failure: &Failure) -> OpenAiError<'_> {
    let (r#type, code) = match failure.kind {
        Kind::Malformed
        | Kind::Invalid
        | Kind::Empty
        | Kind::Tokenization
        | Kind::Timeout
        | Kind::Deadline
        | Kind::NoReport
        | Kind::UnknownRoute
        | Kind::Method
        | Kind::Encoding
        | Kind::NotImplemented => ("invalid_request_error", None),
        Kind::TooLarge => ("invalid_request_error", Some("request_too_large")),
        Kind::Unauthorized => ("invalid_request_error", Some("invalid_api_key")),
        Kind::UnknownModel => ("invalid_request_error", Some("model_not_found")),
        Kind::Overloaded(_) => ("rate_limit_error", Some("rate_limit_exceeded")),
        Kind::LoadFailed => ("server_error", Some("model_load_failed")),
        Kind::Engine | Kind::NotLoaded(_) | Kind::Internal => ("server_error", None),
    };
    let param = failure.field.as_deref();
    OpenAiError { error: OpenAiErrorBody { message: &failure.message, r#type, param, code } }
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
struct CohereError<'a> {
    message: &'a str,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
struct OpenInferenceError<'a> {
    error: &'a str,
}

/// JSON text of plain strings, which can't fail to be written.
fn to_json(error: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(error).unwrap_or_default()
}
