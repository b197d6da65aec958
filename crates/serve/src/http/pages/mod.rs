//! Pages for people: the playground at `/`, the routes at `/docs`.
//!
//! A page is complete in itself and its policy lets a browser run nothing but its own script, which it knows by its
//! hash, and ask nobody but this server.

use std::sync::LazyLock;

use axum::{
    Json,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    openapi::{Operation, Tag},
    report::weight,
};

static PLAYGROUND: LazyLock<Page> = LazyLock::new(|| {
    let styles = [include_str!("base.css"), include_str!("playground.css")];
    let scripts =
        [include_str!("base.js"), include_str!("results.js"), include_str!("charts.js"), include_str!("playground.js")];
    Page::new(include_str!("playground.html"), &styles, &scripts)
});

static DOCS: LazyLock<Page> = LazyLock::new(|| {
    let styles = [include_str!("base.css"), include_str!("docs.css")];
    Page::new(include_str!("docs.html"), &styles, &[include_str!("base.js"), include_str!("docs.js")])
});

/// A page and what browsers may do for it.
struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    /// Puts styles and scripts into the places that the page has for them.
    fn new(html: &str, styles: &[&str], scripts: &[&str]) -> Self {
        let (style, script) = (styles.concat(), scripts.concat());
        let policy = format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source(&style),
            source(&script)
        );
        Self {
            html: html.replace("/* style */", &style).replace("/* script */", &script),
            // Of letters, digits and punctuation.
            policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }

    fn respond(&self) -> Response {
        let headers: [(HeaderName, HeaderValue); 5] = [
            (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (CONTENT_SECURITY_POLICY, self.policy.clone()),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, self.html.clone()).into_response()
    }
}

/// How a policy names an inline style or script.
fn source(content: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content)))
}

/// `GET /`: the playground for those who name HTML, and for others where to go on.
pub(super) async fn root(headers: HeaderMap) -> Response {
    let mut response = if names_html(&headers) { PLAYGROUND.respond() } else { Json(index()).into_response() };
    response.headers_mut().insert(VARY, HeaderValue::from(ACCEPT));
    response
}

/// `GET /docs`.
pub(super) async fn docs() -> Response {
    DOCS.respond()
}

/// What [`root`] answers.
pub(super) fn described_root() -> Operation {
    let schema = |_: &mut _| {
        let places = index().as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        json!({"type": "object", "required": places})
    };
    Operation::get("/", "A playground, or for programs where to go on")
        .tag(Tag::Operations)
        .replies(schema)
        .replies_as("text/html", |_| json!({"type": "string"}))
}

fn index() -> Value {
    json!({
        "name": "centuple",
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "models": "/v1/models",
        "health": "/health",
        "metrics": "/metrics",
    })
}

fn names_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).filter_map(|range| weight(range, "text/html")).any(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole() {
        for page in [&PLAYGROUND, &DOCS] {
            assert!(!page.html.contains("/* style */") && !page.html.contains("/* script */"));
            assert_eq!(page.html.matches("</script>").count(), 1);
            assert!(page.policy.to_str().unwrap().contains("script-src 'sha256-"));
            let html = page.html.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http://", "https://", "src=", "@import", "innerHTML", "outerHTML", "eval(", "style=\""] {
                assert!(!html.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn the_playground_is_for_those_who_name_html() {
        let names =
            |accept: &'static str| names_html(&[(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect());
        assert!(names("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(!names("*/*") && !names("application/json") && !names("text/html;q=0"));
    }
}
