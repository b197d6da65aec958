//! Everything that a client may do wrong, with the answer to each as `docs/robustness.md` lists them; after each, a client
//! that does nothing wrong is answered as before.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::connection::{Connection, Outcome, get, post, post_with};
use crate::http::Server;
use crate::tiny::Tiny;
use crate::vitals::Vitals;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/robustness.md");
/// Short times, so that the test is.
const FLAGS: [&str; 4] = ["--header-timeout", "0.3", "--body-timeout", "0.3"];
const LIMIT: usize = 10 << 20;
const MODEL: &str = "/models/sentence-mean";
const INFER: &str = "/v2/models/sentence-mean/infer";

/// What is sent, and how the answer is named.
struct Case {
    what: &'static str,
    answer: &'static str,
    bytes: Vec<u8>,
}

#[test]
fn each_attack_gets_the_answer_that_the_table_names() {
    let models = [Tiny::new("sentence-mean"), Tiny::new("classify")];
    let server = Server::start(&models.each_ref().map(Tiny::path), &FLAGS);
    let good = good(&server.address);
    let mut table = String::new();
    let mut before = None;
    for Case { what, answer, bytes } in cases() {
        let mut connection = Connection::open(&server.address).expect("the server listens");
        let outcome = connection.ask(&bytes);
        let reply = match &outcome {
            Outcome::Answer(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
            Outcome::Closed | Outcome::Torn(_) => String::new(),
        };
        assert_eq!(outcome.name(), answer, "{what}: {reply}");
        assert_eq!(self::good(&server.address), good, "after {what}");
        drop(connection);
        before = before.or_else(|| Some(Vitals::at_rest(&server, None)));
        writeln!(table, "| {what} | {answer} |").expect("memory");
    }
    let after = Vitals::at_rest(&server, before);
    // The largest bodies are 10 MiB, and a few of them are worked on at once.
    let allowed = before.expect("there are cases").memory + (96 << 10);
    assert!(after.memory <= allowed, "{before:?} has become {after:?}");
    let docs = fs::read_to_string(DOCS).expect("it is there");
    assert!(docs.contains(&table), "docs/robustness.md must have these rows:\n{table}");
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
    assert!(!log.concat().contains("panicked"), "{log:?}");
}

/// The answer to a request that is as it should be.
fn good(address: &str) -> Vec<u8> {
    let mut connection = Connection::open(address).expect("the server listens");
    match connection.ask(&post(MODEL, json!({"inputs": "good"}).to_string())) {
        Outcome::Answer(answer) if answer.status == 200 => answer.body,
        other @ (Outcome::Answer(_) | Outcome::Closed | Outcome::Torn(_)) => panic!("{}", other.name()),
    }
}

fn cases() -> Vec<Case> {
    [slow(), framing(), headers(), bodies(), numbers(), names(), tensors()].into_iter().flatten().collect()
}

fn case(what: &'static str, answer: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case { what, answer, bytes: bytes.into() }
}

fn slow() -> Vec<Case> {
    let whole = post(MODEL, json!({"inputs": "good"}).to_string());
    let head = whole.iter().position(|byte| *byte == b'{').expect("it has a body");
    vec![
        case("a connection that says nothing, or was lost on the way", "closed", ""),
        case("a header that never ends (Slowloris)", "closed", &whole[..head / 2]),
        case("a body that never ends", "408", &whole[..head + 1]),
        case(
            "a chunk that never ends",
            "408",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
        ),
    ]
}

fn framing() -> Vec<Case> {
    let chunked = |rest: &[u8]| [b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", rest].concat();
    let endless = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat().repeat(12);
    vec![
        case("no HTTP at all", "400", "nonsense\r\n\r\n"),
        case("TLS", "400", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        case("an unknown version of HTTP", "400", "GET / HTTP/9.9\r\n\r\n"),
        case("an unknown method", "405", "BREW /health HTTP/1.1\r\nhost: x\r\n\r\n"),
        case("a negative length", "400", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n"),
        case(
            "a length of 20 digits",
            "400",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ),
        case("two lengths", "400", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        case("an unknown transfer encoding", "400", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: zip\r\n\r\n"),
        case("a chunk whose size is no number", "400", chunked(b"zz\r\n")),
        case("a chunk of 2⁶⁴ bytes and more", "400", chunked(b"fffffffffffffffff\r\n")),
        case("chunks without end", "413", chunked(&endless)),
        case("an endless extension of a chunk", "400", chunked(&[b"1;", vec![b'x'; 1 << 20].as_slice()].concat())),
        case("trailers without end", "400", chunked(&[b"0\r\n", b"a: b\r\n".repeat(1 << 16).as_slice()].concat())),
    ]
}

fn headers() -> Vec<Case> {
    let with = |headers: String| format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    vec![
        case("a header of 1 MiB", "431", with(format!("x-long: {}\r\n", "x".repeat(1 << 20)))),
        case("1,000 headers", "431", with("x-many: x\r\n".repeat(1000))),
        case("a target of 100 KiB", "431", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100 << 10))),
        case("a header with a NUL byte", "400", with("x: a\0b\r\n".to_owned())),
        case("an upgrade that isn't offered", "200", with("connection: upgrade\r\nupgrade: h2c\r\n".to_owned())),
        case(
            "an expectation that is never met",
            "413",
            format!("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40),
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let bomb = gzip(&vec![b' '; 1 << 30]);
    assert!(bomb.len() < LIMIT, "it is small until it is opened");
    let encoded = |encoding: &str, body: &[u8]| post_with(MODEL, &format!("content-encoding: {encoding}\r\n"), body);
    vec![
        case("a body over `--max-body-bytes`", "413", post(MODEL, vec![b' '; LIMIT + 1])),
        case("a gzip bomb (1 GiB in 1 MiB)", "413", encoded("gzip", &bomb)),
        case("a gzip bomb within a gzip bomb", "400", encoded("gzip", &gzip(&bomb))),
        case("gzip that breaks off", "400", encoded("gzip", &bomb[..bomb.len() / 2][..1000])),
        case("an encoding that isn't spoken", "415", encoded("br", b"x")),
        case("no body", "400", post(MODEL, "")),
        case("JSON that breaks off", "400", post(MODEL, "{\"inputs\": ")),
        case("lists a million deep", "422", post(MODEL, "[".repeat(1 << 20))),
        case("lists a million deep in a field", "422", post(MODEL, format!("{{\"inputs\": {}", "[".repeat(1 << 20)))),
        case(
            "objects 100,000 deep in a field nobody knows",
            "400",
            post("/v1/embeddings", format!("{{\"unknown\": {}", "{\"a\":".repeat(100_000))),
        ),
        case("bytes that are no UTF-8", "400", post(MODEL, b"{\"inputs\": \"\xff\xfe\"}")),
        case("half of a surrogate pair", "400", post(MODEL, r#"{"inputs": "\ud800"}"#)),
        case("a text of NUL bytes", "200", post(MODEL, r#"{"inputs": "\u0000\u0000"}"#)),
        case(
            "more than `--max-inputs`",
            "413",
            post(
                "/embed",
                json!({
                    "model": "sentence-mean", "inputs": vec![""; (1 << 16) + 1].iter().map(|_| "a").collect::<Vec<_>>()
                })
                .to_string(),
            ),
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let embeddings = |value: &str| {
        post("/v1/embeddings", format!(r#"{{"model": "sentence-mean", "input": "a", "dimensions": {value}}}"#))
    };
    let tokens = |value: &str| post("/v1/embeddings", format!(r#"{{"model": "sentence-mean", "input": [{value}]}}"#));
    vec![
        case("NaN", "400", embeddings("NaN")),
        case("Infinity", "400", embeddings("-Infinity")),
        case("1e999", "400", embeddings("1e999")),
        case("a number of a million digits", "400", embeddings(&"9".repeat(1 << 20))),
        case("2⁶⁴ dimensions", "400", embeddings("18446744073709551616")),
        case("a token that is no token", "400", tokens("4294967295")),
        case("a negative token", "400", tokens("-1")),
    ]
}

fn names() -> Vec<Case> {
    let body = json!({"inputs": "a"}).to_string();
    let named = json!({"model": "../../../../etc/passwd", "input": "a"}).to_string();
    vec![
        case("`../` in a path", "404", post("/models/../../../../etc/passwd", &body)),
        case("`%2e%2e%2f` in a path", "404", post("/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", &body)),
        case("`..%2f` in a name of the Open Inference Protocol", "404", get("/v2/models/..%2f..%2fetc%2fpasswd")),
        case("an absolute path as a name", "404", post("/models//etc/passwd", &body)),
        case("`../` as the model of a body", "404", post("/v1/embeddings", named)),
        case("a name that is no UTF-8", "404", post("/models/%ff%fe", &body)),
        case("a NUL byte in a name", "404", post("/models/sentence-mean%00.json", &body)),
    ]
}

fn tensors() -> Vec<Case> {
    let infer = |input: Value| post(INFER, json!({"inputs": [input]}).to_string());
    let length =
        |length: &str, body: &str| post_with(INFER, &format!("inference-header-content-length: {length}\r\n"), body);
    let huge = json!({"name": "input_ids", "shape": [1_u64 << 62, 4], "datatype": "INT64", "data": [1]});
    let lying = json!({"inputs": [{
        "name": "TEXT", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}
    }]});
    let lying = [lying.to_string().as_bytes(), b"\xff\xff\xff\x7fabcd"].concat();
    let head = lying.len() - 8;
    vec![
        case("a tensor of 2⁶⁴ numbers", "400", infer(huge)),
        case(
            "a negative shape",
            "400",
            infer(json!({"name": "TEXT", "shape": [-1], "datatype": "BYTES", "data": ["a"]})),
        ),
        case(
            "a tensor that lies about its size",
            "400",
            post_with(INFER, &format!("inference-header-content-length: {head}\r\n"), &lying),
        ),
        case("a header of tensors beyond the body", "400", length("1000000", "{}")),
        case("a length of that header that is no number", "400", length("-1", "{}")),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_thousand_idle_connections_and_clients_that_take_nothing() {
    let model = Tiny::new("sentence-mean");
    let server = Server::start(&[model.path()], &[]);
    let before = Vitals::at_rest(&server, None);
    let open = || Connection::open(&server.address).expect("the server listens");
    let idle: Vec<_> = (0..1000).map(|_| open()).collect();
    let expected = good(&server.address);
    assert!(Vitals::of(&server).files >= before.files + 1000, "they are open");
    // Each asks for more than the system buffers, and reads none of it.
    let body = json!({"inputs": vec!["a"; 20_000]}).to_string();
    let mut greedy: Vec<_> = (0..8).map(|_| open()).collect();
    greedy.iter_mut().for_each(|client| client.send(&post(MODEL, &body)).expect("the server reads"));
    // And one sends requests, and reads no answer, for as long as they are taken.
    let mut pipelining = open();
    let request = get("/info");
    let sent = pipelining.send_until_full(&request);
    assert_eq!(good(&server.address), expected);
    let during = Vitals::of(&server);
    println!("{sent} requests were taken from a client that reads nothing; before {before:?}, during {during:?}");
    drop((idle, greedy, pipelining));
    let after = Vitals::at_rest(&server, Some(before));
    assert!(after.memory <= before.memory + (256 << 10), "{before:?} has become {after:?}");
    assert_eq!(good(&server.address), expected);
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
}
