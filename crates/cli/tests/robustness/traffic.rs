//! Requests of every protocol in a random mix: good ones, bad ones, and clients that leave or dawdle.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::connection::{Connection, Outcome, get, post, post_with};
use crate::grpc::Caller;
use crate::random::Random;

/// What is served, by name.
pub(crate) struct Models {
    pub(crate) embedder: String,
    pub(crate) classifier: String,
    pub(crate) ranker: String,
    pub(crate) tagger: String,
}

/// A request, and the statuses that may answer it.
struct Request {
    bytes: Vec<u8>,
    statuses: &'static [u16],
}

/// Pairs are remembered like texts; with one query there are as many of them.
const QUERY: &str = "what a great film";
/// Most texts of a request.
const MOST_TEXTS: usize = 64;

const GOOD: &[u16] = &[200];
const BAD: &[u16] = &[400, 404, 405, 413, 415, 422, 501];

/// What a client does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Waits for the answer and keeps the connection.
    Polite,
    /// Closes after some of the request was sent.
    LeavesEarly,
    /// Closes after all was sent, before the answer.
    LeavesLate,
    /// Closes with bytes of the answer unread, which resets the connection.
    Resets,
    /// Reads the answer a little at a time.
    Dawdles,
}

/// How often each; most are polite.
const MANNERS: [Manner; 16] = {
    use Manner::{Dawdles, LeavesEarly, LeavesLate, Polite, Resets};
    [
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        Polite,
        LeavesEarly,
        LeavesLate,
        Resets,
        Dawdles,
    ]
};

/// One client, and what it has seen.
pub(crate) struct Client<'a> {
    address: &'a str,
    models: &'a Models,
    random: Random,
    pool: usize,
    connection: Option<Connection>,
    caller: Caller,
    /// Answers by status.
    pub(crate) seen: BTreeMap<String, usize>,
}

impl<'a> Client<'a> {
    /// A client of a server with its own sequence of random numbers, who knows `pool` texts.
    pub(crate) fn new(address: &'a str, models: &'a Models, seed: u64, pool: usize) -> Client<'a> {
        let (random, caller) = (Random::new(seed), Caller::new(address));
        Client { address, models, random, pool, connection: None, caller, seen: BTreeMap::new() }
    }

    /// Does one thing.
    ///
    /// # Panics
    /// The server has answered what it must not, or not at all.
    pub(crate) fn step(&mut self) {
        if self.random.below(6) == 0 {
            let texts = self.texts();
            let told = self.caller.step(self.models, &texts, &mut self.random);
            told.into_iter().for_each(|name| *self.seen.entry(name).or_insert(0) += 1);
            return;
        }
        let request = self.request();
        let manner = *self.random.pick(&MANNERS);
        if self.random.below(8) == 0 {
            self.connection = None;
        }
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(self.address),
        };
        let mut connection = connection.expect("the server listens");
        match manner {
            Manner::Polite => {
                let outcome = connection.ask(&request.bytes);
                self.note(&request, &outcome);
                if matches!(&outcome, Outcome::Answer(answer) if !answer.last) {
                    self.connection = Some(connection);
                }
            }
            Manner::Dawdles => {
                // Of a long answer it takes more at once: nobody waits for ever.
                let piece = 512 << self.random.below(8);
                connection.send(&request.bytes).expect("the server reads");
                let outcome = connection.answer_in_pieces(piece, || self.pause());
                self.note(&request, &outcome);
            }
            Manner::LeavesEarly => {
                let bytes = self.random.below(request.bytes.len());
                // Whether the server takes it is its matter.
                let _ = connection.send(&request.bytes[..bytes]);
            }
            Manner::LeavesLate => {
                let _ = connection.send(&request.bytes);
                self.pause();
            }
            Manner::Resets => {
                let _ = connection.send(&request.bytes);
                connection.reset();
            }
        }
    }

    /// Asks every model for as much as ever at once, so often that every cache has seen most texts of a small pool.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub(crate) fn fill(&mut self) {
        let Models { embedder, classifier, ranker, tagger } = self.models;
        let mut connection = Connection::open(self.address).expect("the server listens");
        for _ in 0..4 {
            let texts: Vec<_> = (0..MOST_TEXTS).map(|_| self.text()).collect();
            let inputs = json!({"inputs": texts}).to_string();
            let ranking = json!({"model": ranker, "query": QUERY, "texts": texts}).to_string();
            for bytes in [
                post(&format!("/models/{embedder}"), &inputs),
                post(&format!("/models/{classifier}"), &inputs),
                post(&format!("/models/{tagger}"), &inputs),
                post("/rerank", ranking),
            ] {
                let outcome = connection.ask(&bytes);
                self.note(&Request { bytes, statuses: GOOD }, &outcome);
            }
        }
    }

    fn note(&mut self, request: &Request, outcome: &Outcome) {
        let Outcome::Answer(answer) = outcome else {
            panic!(
                "{} for {}",
                outcome.name(),
                String::from_utf8_lossy(&request.bytes[..request.bytes.len().min(200)])
            );
        };
        let expected = request.statuses.contains(&answer.status) || answer.status == 429;
        assert!(
            expected,
            "{} {} for {}",
            answer.status,
            String::from_utf8_lossy(&answer.body),
            String::from_utf8_lossy(&request.bytes[..request.bytes.len().min(200)])
        );
        *self.seen.entry(format!("HTTP {}", answer.status)).or_insert(0) += 1;
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_millis(self.random.below(20) as u64));
    }

    fn request(&mut self) -> Request {
        match self.random.below(10) {
            0..6 => Request { bytes: self.good(), statuses: GOOD },
            6..8 => Request { bytes: self.page(), statuses: GOOD },
            _ => Request { bytes: self.bad(), statuses: BAD },
        }
    }

    /// Something that can be computed.
    fn good(&mut self) -> Vec<u8> {
        let Models { embedder, classifier, ranker, tagger } = self.models;
        let text = self.text();
        let texts = self.texts();
        let form = *self.random.pick(&["base64", "float"]);
        match self.random.below(14) {
            0 => post(&format!("/models/{embedder}"), json!({"inputs": texts}).to_string()),
            1 => post(&format!("/pipeline/feature-extraction/{embedder}"), json!({"inputs": text}).to_string()),
            2 => {
                let inputs = json!({"source_sentence": text, "sentences": texts});
                post(&format!("/models/{embedder}/pipeline/sentence-similarity"), json!({"inputs": inputs}).to_string())
            }
            3 => post(&format!("/models/{classifier}"), json!({"inputs": text}).to_string()),
            4 => post(&format!("/models/{tagger}"), json!({"inputs": texts}).to_string()),
            5 => {
                let body = json!({"model": embedder, "input": texts, "encoding_format": form});
                post("/v1/embeddings", body.to_string())
            }
            6 => post("/openai/v1/embeddings", json!({"model": embedder, "input": [3, 5, 8]}).to_string()),
            7 => post("/embed", json!({"model": embedder, "inputs": texts}).to_string()),
            8 => post("/predict", json!({"model": classifier, "inputs": [[text]]}).to_string()),
            9 => post("/rerank", json!({"model": ranker, "query": QUERY, "texts": texts}).to_string()),
            10 => post("/v2/rerank", json!({"model": ranker, "query": QUERY, "documents": texts}).to_string()),
            11 => post("/tokenize", json!({"model": embedder, "inputs": texts}).to_string()),
            12 => self.tensors(&texts),
            _ => self.chunked(&json!({"model": embedder, "inputs": texts}).to_string()),
        }
    }

    /// Texts for the Open Inference Protocol, as JSON or as bytes behind it.
    fn tensors(&mut self, texts: &[String]) -> Vec<u8> {
        let path = format!("/v2/models/{}/infer", self.models.embedder);
        if self.random.below(2) == 0 {
            let input = json!({"name": "TEXT", "shape": [texts.len()], "datatype": "BYTES", "data": texts});
            return post(&path, json!({"inputs": [input]}).to_string());
        }
        let tensor: Vec<u8> =
            texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()).collect();
        let size = json!({"binary_data_size": tensor.len()});
        let input = json!({"name": "TEXT", "shape": [texts.len(), 1], "datatype": "BYTES", "parameters": size});
        let head = json!({"inputs": [input], "parameters": {"binary_data_output": true}}).to_string();
        let length = format!("inference-header-content-length: {}\r\n", head.len());
        post_with(&path, &length, [head.as_bytes(), &tensor].concat())
    }

    /// A request of `/embed` in chunks of random sizes.
    fn chunked(&mut self, body: &str) -> Vec<u8> {
        let mut bytes = b"POST /embed HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let mut rest = body.as_bytes();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(1 + self.random.below(rest.len()));
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
            rest = after;
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    /// Something that needs no engine.
    fn page(&mut self) -> Vec<u8> {
        let model = format!("/v2/models/{}", self.models.embedder);
        let config = format!("{model}/config");
        let stats = format!("{model}/stats");
        get(self.random.pick::<&str>(&[
            "/health",
            "/info",
            "/metrics",
            "/v1/models",
            "/models",
            "/v2",
            "/v2/health/ready",
            &model,
            &config,
            &stats,
        ]))
    }

    /// Something that must be refused.
    fn bad(&mut self) -> Vec<u8> {
        let Models { embedder, classifier, ranker, tagger: _ } = self.models;
        let own = format!("/models/{embedder}");
        match self.random.below(16) {
            0 => post(&own, "{"),
            1 => post(&own, b"{\"inputs\": \"\xff\xfe\"}"),
            2 => post(&own, "[".repeat(self.random.below(1 << 16))),
            3 => post(&own, json!({"inputs": 5}).to_string()),
            4 => post("/models/../../etc/passwd", json!({"inputs": "a"}).to_string()),
            5 => post("/v1/embeddings", json!({"model": embedder, "input": ""}).to_string()),
            6 => post("/v1/embeddings", json!({"model": embedder, "input": [999_999_999]}).to_string()),
            7 => post("/v1/embeddings", json!({"model": "nothing", "input": "a"}).to_string()),
            8 => post("/embed", json!({"model": embedder, "inputs": "a ".repeat(2000), "truncate": false}).to_string()),
            9 => post("/rerank", json!({"model": ranker, "query": "a", "texts": Value::Null}).to_string()),
            10 => post("/embed", json!({"model": classifier, "inputs": "a"}).to_string()),
            11 => post(&format!("/v2/models/{embedder}/infer"), json!({"inputs": []}).to_string()),
            12 => post("/v2/models/nothing/infer", "{}"),
            13 => post_with(&own, "content-encoding: br\r\n", "a"),
            14 => post_with(&own, "content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00garbage"),
            _ => get("/embed"),
        }
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = ["the", "weather", "film", "is", "great", "schön", "今天", "😀"];
        let mut random = Random::new(self.random.below(self.pool) as u64);
        let words: Vec<_> = (0..=random.below(40)).map(|_| *random.pick(&WORDS)).collect();
        words.join(" ")
    }

    /// A few texts, seldom many.
    fn texts(&mut self) -> Vec<String> {
        let most = *self.random.pick(&[2, 2, 2, 4, 4, 8, 16, MOST_TEXTS]);
        (0..=self.random.below(most)).map(|_| self.text()).collect()
    }
}
