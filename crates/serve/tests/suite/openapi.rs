//! The document of the routes, and the pages, over a real socket.

use centuple_serve::Config;
use centuple_tasks::Model;
use serde_json::Value;

use crate::harness::{Running, config, tiny};

/// A model for every head, of names with a slash.
fn models() -> Vec<Model> {
    let mut models = tiny::all();
    for (number, model) in models.iter_mut().enumerate() {
        model.card.id = format!("org/model-{number}");
    }
    models
}

/// Path, method and object of everything in a document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().clone();
        let path = path.clone();
        methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// A path with the examples of its parameters.
fn fill(path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    parameters.iter().filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, parameter| {
        let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
        path.replace(&name, parameter["example"].as_str().unwrap())
    })
}

#[test]
fn every_example_is_answered() {
    let server = Running::new(config(), models());
    let document = server.get("/openapi.json").json();
    let mut examples = 0;
    for (path, method, operation) in operations(&document) {
        let filled = fill(&path, &operation);
        if method == "get" {
            let expected = if path.starts_with("/report") { 404 } else { 200 };
            assert_eq!(server.get(&filled).status, expected, "GET {filled}");
            continue;
        }
        let bodies = operation["requestBody"]["content"]["application/json"]["examples"].clone();
        // Without a name a request finds the only model.
        let expected = if ["/", "/invocations"].contains(&path.as_str()) { 404 } else { 200 };
        for (name, example) in bodies.as_object().cloned().unwrap_or_default() {
            let answer = server.post(&filled, &example["value"].to_string());
            assert_eq!(answer.status, expected, "POST {filled}, {name}: {}", answer.body);
            examples += 1;
        }
    }
    assert!(examples > 15, "{examples}");
}

#[test]
fn what_the_document_leaves_out_is_refused() {
    let server = Running::new(config(), models());
    let document = server.get("/openapi.json").json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let operation = methods.as_object().unwrap().values().next().unwrap();
        let filled = fill(path, operation);
        for method in ["get", "post", "put", "patch", "delete"] {
            let answer = server.connect().request(&method.to_uppercase(), &filled, &[], b"");
            assert_eq!(answer.status == 405, methods.get(method).is_none(), "{method} {filled}: {}", answer.status);
            let told = &methods[method]["responses"];
            assert!(
                answer.status == 405 || !told[answer.status.to_string()].is_null(),
                "{method} {filled}: {answer:?}"
            );
        }
    }
}

#[test]
fn references_lead_somewhere_and_operations_have_names_of_their_own() {
    let mut config = config();
    config.models.control = true;
    let document = Running::new(config, models()).get("/openapi.json").json();
    assert!(document["paths"].get("/v2/repository/models/{name}/load").is_some());
    for (path, _, operation) in operations(&document) {
        assert!(!fill(&path, &operation).contains('{'), "{path}: a part is not told of");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let name = reference.split('"').next().unwrap().strip_prefix("#/components/schemas/").unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let mut ids: Vec<_> = operations(&document).iter().map(|(.., it)| it["operationId"].to_string()).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn a_key_is_told_of_where_one_is_asked_for() {
    let open = Running::new(config(), models()).get("/openapi.json").json();
    assert!(open.get("security").is_none() && open["components"].get("securitySchemes").is_none());
    let keyed = Config { api_keys: "s3cret".parse().unwrap(), ..config() };
    let server = Running::new(keyed, models());
    let document = server.get("/openapi.json").json();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    for (path, method, operation) in operations(&document) {
        let filled = fill(&path, &operation);
        let status = server.connect().request(&method.to_uppercase(), &filled, &[], b"").status;
        let public = operation.get("security").is_some();
        assert_eq!(status == 401, !public, "{method} {filled}: {status}");
        assert_eq!(operation["responses"].get("401").is_some(), !public, "{method} {path}");
    }
}

#[test]
fn the_root_answers_browsers_with_a_page() {
    let server = Running::new(config(), models());
    let get = |path: &str, accept: &str| server.connect().request("GET", path, &[("accept", accept)], b"");
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (path, title) in [("/", "<title>Centuple playground</title>"), ("/docs", "<title>Centuple routes</title>")] {
        let page = get(path, browser);
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.body.contains(title));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    }
    let index = get("/", "*/*");
    assert_eq!(index.header("vary"), Some("accept"));
    for path in index.json().as_object().unwrap().values().skip(1) {
        assert_eq!(server.get(path.as_str().unwrap()).status, 200, "{path}");
    }
    let mut client = server.connect();
    client.begin("HEAD", "/", &[], b"");
    assert_eq!(client.head().unwrap().status, 200);
}
