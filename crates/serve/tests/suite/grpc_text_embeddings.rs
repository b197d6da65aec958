//! The services of text-embeddings-inference over gRPC: the values of HTTP, streams, errors.

use centuple_serve::{Config, ServedModel};
use centuple_tasks::{Head, Model, Problem};
use serde_json::{Value, json};
use tonic::{Code, Request};

use crate::harness::grpc::tei::{
    DecodeRequest, EmbedAllRequest, EmbedRequest, EmbedSparseRequest, EncodeRequest, InfoRequest, ModelType,
    PredictPairRequest, PredictRequest, RerankRequest, RerankStreamRequest, TruncationDirection,
    embed_client::EmbedClient, info_client::InfoClient, predict_client::PredictClient, rerank_client::RerankClient,
    tokenize_client::TokenizeClient,
};
use crate::harness::grpc::{Grpc, tei};
use crate::harness::{Running, config, served, tiny};

fn ranker() -> Model {
    tiny::model(Head::Classification { labels: vec!["LABEL_0".into()], problem: Problem::MultiLabel })
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn text(inputs: &str) -> EmbedRequest {
    EmbedRequest { inputs: inputs.into(), ..Default::default() }
}

const LONG: &str = "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a";

#[test]
fn embed() {
    let server = Running::new(config(), vec![tiny::embedder(false)]);
    let by_http = |body: Value| floats(&server.post("/embed", &body.to_string()).json()[0]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = EmbedClient::new(grpc.channel());
        let left = TruncationDirection::Left.into();
        for (asked, body) in [
            (text("the cat sat"), json!({"inputs": "the cat sat"})),
            (EmbedRequest { normalize: Some(true), ..text("dog") }, json!({"inputs": "dog"})),
            (EmbedRequest { normalize: Some(false), ..text("dog") }, json!({"inputs": "dog", "normalize": false})),
            (EmbedRequest { dimensions: Some(2), ..text("dog") }, json!({"inputs": "dog", "dimensions": 2})),
            (
                EmbedRequest { prompt_name: Some("query".into()), ..text("dog") },
                json!({"inputs": "dog", "prompt_name": "query"}),
            ),
            (EmbedRequest { truncate: true, ..text(LONG) }, json!({"inputs": LONG, "truncate": true})),
            (
                EmbedRequest { truncate: true, truncation_direction: left, ..text(&format!("the cat {LONG}")) },
                json!({"inputs": format!("the cat {LONG}"), "truncate": true, "truncation_direction": "Left"}),
            ),
        ] {
            let reply = client.embed(asked).await.unwrap();
            assert!(reply.metadata().contains_key("x-compute-tokens"));
            let reply = reply.into_inner();
            assert_eq!(reply.embeddings, by_http(body));
            let metadata = reply.metadata.unwrap();
            assert!(metadata.compute_tokens >= 3 && metadata.compute_chars > 0 && metadata.inference_time_ns > 0);
        }
        for (asked, code) in [
            (text(""), Code::InvalidArgument),
            (text(LONG), Code::InvalidArgument),
            (EmbedRequest { dimensions: Some(5), ..text("a") }, Code::InvalidArgument),
            (EmbedRequest { prompt_name: Some("none".into()), ..text("a") }, Code::InvalidArgument),
        ] {
            let status = client.embed(asked).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
        }
        let all = EmbedAllRequest { inputs: "a".into(), ..Default::default() };
        assert_eq!(client.embed_all(all).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn embed_all_and_embed_sparse() {
    let server = Running::new(config(), vec![tiny::features()]);
    let expected = server.post("/embed_all", r#"{"inputs": "the cat"}"#).json();
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = EmbedClient::new(grpc.channel());
        let asked = EmbedAllRequest { inputs: "the cat".into(), ..Default::default() };
        let rows = client.embed_all(asked.clone()).await.unwrap().into_inner().token_embeddings;
        assert_eq!(rows.len(), expected[0].as_array().unwrap().len());
        for (row, by_http) in rows.iter().zip(expected[0].as_array().unwrap()) {
            assert_eq!(row.embeddings, floats(by_http));
        }
        let mut stream = client.embed_all_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().token_embeddings, rows);
    });
    let server = Running::new(config(), vec![tiny::sparse()]);
    let expected = server.post("/embed_sparse", r#"{"inputs": "the cat"}"#).json();
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = EmbedClient::new(grpc.channel());
        let asked = EmbedSparseRequest { inputs: "the cat".into(), ..Default::default() };
        let values = client.embed_sparse(asked.clone()).await.unwrap().into_inner().sparse_embeddings;
        let found: Vec<_> = values.iter().map(|value| json!({"index": value.index, "value": value.value})).collect();
        assert_eq!(json!([found]), expected);
        let mut stream = client.embed_sparse_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().sparse_embeddings, values);
    });
}

#[test]
fn predict() {
    let server = Running::new(config(), vec![tiny::classifier(Problem::SingleLabel)]);
    let by_http = |body: Value| server.post("/predict", &body.to_string()).json();
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = PredictClient::new(grpc.channel());
        let list = |reply: tei::PredictResponse| {
            let list = reply.predictions.iter().map(|found| json!({"score": found.score, "label": found.label}));
            let list: Vec<_> = list.collect();
            assert!(reply.metadata.is_some());
            list
        };
        let equal = |found: Vec<Value>, expected: Value| {
            for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
                assert_eq!(found["label"], expected["label"]);
                assert_eq!(found["score"].as_f64().unwrap() as f32, expected["score"].as_f64().unwrap() as f32);
            }
            assert_eq!(found.len(), expected.as_array().unwrap().len());
        };
        for raw_scores in [false, true] {
            let asked = PredictRequest { inputs: "the cat".into(), raw_scores, ..Default::default() };
            let expected = by_http(json!({"inputs": "the cat", "raw_scores": raw_scores}));
            equal(list(client.predict(asked.clone()).await.unwrap().into_inner()), expected.clone());
            let mut stream = client.predict_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
            equal(list(stream.message().await.unwrap().unwrap()), expected);
        }
        let pair = PredictPairRequest { inputs: vec!["the cat".into(), "a dog".into()], ..Default::default() };
        let expected = by_http(json!({"inputs": ["the cat", "a dog"]}));
        equal(list(client.predict_pair(pair.clone()).await.unwrap().into_inner()), expected.clone());
        let mut stream = client.predict_pair_stream(tokio_stream::iter([pair])).await.unwrap().into_inner();
        equal(list(stream.message().await.unwrap().unwrap()), expected);
        let three = PredictPairRequest { inputs: vec!["a".into(); 3], ..Default::default() };
        assert_eq!(client.predict_pair(three).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn rerank() {
    let server = Running::new(config(), vec![ranker()]);
    let texts = ["a dog", "the cat sat", "cat", "on the mat"];
    let expected =
        server.post("/rerank", &json!({"query": "the cat", "texts": texts, "return_text": true}).to_string());
    let expected = expected.json();
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = RerankClient::new(grpc.channel());
        let equal = |reply: tei::RerankResponse| {
            for (rank, by_http) in reply.ranks.iter().zip(expected.as_array().unwrap()) {
                assert_eq!(
                    json!({"index": rank.index, "text": rank.text}),
                    json!({"index": by_http["index"], "text": by_http["text"]})
                );
                assert_eq!(rank.score, by_http["score"].as_f64().unwrap() as f32);
            }
            assert_eq!(reply.ranks.len(), texts.len());
            assert!(reply.metadata.unwrap().compute_tokens > 0);
        };
        let texts = texts.map(String::from);
        let asked = RerankRequest {
            query: "the cat".into(),
            texts: texts.clone().into(),
            return_text: true,
            ..Default::default()
        };
        equal(client.rerank(asked).await.unwrap().into_inner());
        let messages = texts.clone().map(|text| RerankStreamRequest {
            query: "the cat".into(),
            text,
            return_text: true,
            ..Default::default()
        });
        equal(client.rerank_stream(tokio_stream::iter(messages)).await.unwrap().into_inner());
        // Each text may have a query of its own.
        let messages = [("the cat", "a dog"), ("a dog", "a dog"), ("the cat", "cat")]
            .map(|(query, text)| RerankStreamRequest { query: query.into(), text: text.into(), ..Default::default() });
        let ranks = client.rerank_stream(tokio_stream::iter(messages.clone())).await.unwrap().into_inner().ranks;
        for rank in &ranks {
            let RerankStreamRequest { query, text, .. } = messages[rank.index as usize].clone();
            let alone = RerankRequest { query, texts: vec![text], ..Default::default() };
            assert_eq!(client.rerank(alone).await.unwrap().into_inner().ranks[0].score, rank.score);
        }
        assert!(ranks.len() == 3 && ranks.is_sorted_by(|a, b| a.score >= b.score));
        let none = client.rerank_stream(tokio_stream::iter([])).await.unwrap_err();
        assert_eq!(none.code(), Code::InvalidArgument);
        let none = RerankRequest { query: "a".into(), ..Default::default() };
        assert_eq!(client.rerank(none).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn tokenize_and_decode() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let expected = server.post("/tokenize", r#"{"inputs": "the cat"}"#).json();
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = TokenizeClient::new(grpc.channel());
        let asked = EncodeRequest { inputs: "the cat".into(), add_special_tokens: true, prompt_name: None };
        let tokens = client.tokenize(asked.clone()).await.unwrap().into_inner().tokens;
        let found: Vec<_> = tokens
            .iter()
            .map(|token| {
                let (start, stop) = (token.start, token.stop);
                json!({"id": token.id, "text": token.text, "special": token.special, "start": start, "stop": stop})
            })
            .collect();
        assert_eq!(json!([found]), expected);
        let mut stream = client.tokenize_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().tokens, tokens);
        let plain = EncodeRequest { inputs: "the cat".into(), ..Default::default() };
        assert!(client.tokenize(plain).await.unwrap().into_inner().tokens.iter().all(|token| !token.special));
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let by_http = server.post("/decode", &json!({"ids": ids, "skip_special_tokens": true}).to_string()).json();
        let asked = DecodeRequest { ids, skip_special_tokens: true };
        let text = client.decode(asked.clone()).await.unwrap().into_inner().text;
        assert_eq!(json!([text]), by_http);
        let mut stream = client.decode_stream(tokio_stream::iter([asked])).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().text, text);
        let large = EncodeRequest { inputs: "a ".repeat((1 << 20) + 1), ..Default::default() };
        assert_eq!(client.tokenize(large).await.unwrap_err().code(), Code::ResourceExhausted);
    });
    assert_eq!(server.metric("te_request_failure{err=\"too_large\"}"), 1.0);
}

#[test]
fn an_error_ends_a_stream_behind_what_was_asked_before() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let messages = [text("the cat"), text("dog"), text(""), text("a")];
        let mut client = EmbedClient::new(grpc.channel());
        let mut replies = client.embed_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
        for alone in ["the cat", "dog"] {
            let expected = client.embed(text(alone)).await.unwrap().into_inner().embeddings;
            assert_eq!(replies.message().await.unwrap().unwrap().embeddings, expected);
        }
        assert_eq!(replies.message().await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn models_are_told_apart_by_metadata() {
    let named = |id: &str, mut model: Model| -> ServedModel {
        model.card.id = id.into();
        let engine = tiny::Tiny::new(&model);
        served(model, engine)
    };
    let models = vec![
        named("one", tiny::embedder(true)),
        named("two", tiny::embedder(false)),
        named("classes", tiny::classifier(Problem::SingleLabel)),
        named("ranks", ranker()),
    ];
    let server = Running::with_models(Config { max_queued_requests: 77, ..config() }, models);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let with = |model: Option<&str>| {
            let mut request = Request::new(text("the cat"));
            if let Some(model) = model {
                request.metadata_mut().insert("model", model.parse().unwrap());
            }
            request
        };
        let mut client = EmbedClient::new(grpc.channel());
        assert_eq!(client.embed(with(None)).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(client.embed(with(Some("three"))).await.unwrap_err().code(), Code::NotFound);
        for model in ["one", "two"] {
            let body = json!({"inputs": "the cat", "model": model}).to_string();
            let expected = floats(&server.post("/embed", &body).json()[0]);
            assert_eq!(client.embed(with(Some(model))).await.unwrap().into_inner().embeddings, expected);
        }
        let asked = PredictRequest { inputs: "the cat".into(), ..Default::default() };
        assert!(PredictClient::new(grpc.channel()).predict(asked).await.is_ok());
        for (model, kind) in
            [("one", ModelType::Embedding), ("classes", ModelType::Classifier), ("ranks", ModelType::Reranker)]
        {
            let mut request = Request::new(InfoRequest {});
            request.metadata_mut().insert("model", model.parse().unwrap());
            let info = InfoClient::new(grpc.channel()).info(request).await.unwrap().into_inner();
            assert_eq!((info.model_id.as_str(), info.model_type()), (model, kind));
            assert_eq!((info.max_concurrent_requests, info.max_input_length), (77, 16));
        }
    });
}
