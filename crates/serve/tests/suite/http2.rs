//! HTTP/2 on the port that speaks HTTP/1.1: shared connections, bounds, ends.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use axum::http::{Request, StatusCode};
use centuple_serve::{Config, Server};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http2::SendRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::{Gate, Running, config, served, tiny};

type Sender = SendRequest<Full<Bytes>>;
/// What a client of HTTP/2 begins with: the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// The type of a frame that says that the connection ends.
const GOAWAY: u8 = 7;

async fn connect(address: SocketAddr) -> (Sender, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("http://test{path}");
    Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap()
}

async fn body(response: hyper::Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Reads frames until the connection ends, and tells their types.
fn frames(mut stream: TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut header = [0; 9];
    while stream.read_exact(&mut header).is_ok() {
        kinds.push(header[3]);
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
    }
    kinds
}

#[test]
fn both_versions_give_the_same_answers() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let inputs = r#"{"inputs": ["the cat", "a mat"]}"#;
    let by_http1 = server.post("/", inputs).body;
    block_on(async {
        let (mut sender, _) = connect(server.address).await;
        let reply = sender.send_request(request("POST", "/", inputs)).await.unwrap();
        assert!(reply.headers().contains_key("x-request-id"));
        assert_eq!(body(reply).await, (StatusCode::OK, by_http1));
        let (status, error) = body(sender.send_request(request("GET", "/no/such", "")).await.unwrap()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
    });
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn one_connection_carries_many_requests_at_once() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    block_on(async {
        let (sender, _) = connect(server.address).await;
        let texts: Vec<String> = (0..300).map(|count| format!(r#"{{"inputs": "cat {count}"}}"#)).collect();
        let replies = texts.iter().map(|text| {
            let mut sender = sender.clone();
            let request = request("POST", "/", text.clone());
            tokio::spawn(async move { body(sender.send_request(request).await.unwrap()).await })
        });
        for reply in replies.collect::<Vec<_>>() {
            assert_eq!(reply.await.unwrap().0, StatusCode::OK);
        }
    });
}

#[test]
fn a_preface_may_come_in_pieces() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    for byte in HELLO {
        stream.write_all(&[*byte]).unwrap();
        stream.flush().unwrap();
        std::thread::yield_now();
    }
    let mut header = [0; 9];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[3], 4, "a SETTINGS frame comes first");
    // A request line that begins like the preface.
    let mut client = server.connect();
    client.send(b"P");
    std::thread::yield_now();
    client.send(b"OST / HTTP/1.1\r\nhost: x\r\ncontent-length: 17\r\n\r\n{\"inputs\": \"cat\"}");
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn a_silent_or_idle_connection_is_closed() {
    let config = Config { header_timeout: Duration::from_millis(50), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(&HELLO[..10]).unwrap();
    assert!(frames(half).is_empty());
    // It answers neither the settings nor a ping.
    let mut deaf = TcpStream::connect(server.address).unwrap();
    deaf.write_all(HELLO).unwrap();
    assert!(frames(deaf).contains(&GOAWAY));
    block_on(async {
        let (mut sender, connection) = connect(server.address).await;
        let reply = sender.send_request(request("GET", "/health", "")).await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        connection.await.unwrap().unwrap();
        assert!(sender.is_closed());
    });
}

#[test]
fn a_connection_that_waits_for_an_answer_is_not_idle() {
    let (gate, interfere) = Gate::new();
    let config = Config { header_timeout: Duration::from_millis(20), ..config() };
    let server = Running::interfered(config, interfere);
    block_on(async {
        let (mut sender, _) = connect(server.address).await;
        let reply = tokio::spawn(async move { sender.send_request(request("POST", "/", r#"{"inputs": "a"}"#)).await });
        tokio::task::spawn_blocking(move || {
            gate.batch();
            std::thread::sleep(Duration::from_millis(200));
            gate.release();
        })
        .await
        .unwrap();
        assert_eq!(reply.await.unwrap().unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn draining_finishes_what_is_asked_and_takes_nothing_new() {
    let (gate, interfere) = Gate::new();
    let mut server = Running::interfered(config(), interfere);
    block_on(async {
        let (mut sender, connection) = connect(server.address).await;
        let asked = request("POST", "/", r#"{"inputs": "a"}"#);
        let reply = tokio::spawn(async move { sender.send_request(asked).await });
        let server = tokio::task::spawn_blocking(move || {
            gate.batch();
            server.stop();
            gate.release();
            server
        })
        .await
        .unwrap();
        assert_eq!(body(reply.await.unwrap().unwrap()).await.0, StatusCode::OK);
        connection.await.unwrap().unwrap();
        tokio::task::spawn_blocking(|| server.end()).await.unwrap().unwrap();
    });
}

#[test]
fn a_flood_of_reset_streams_costs_the_connection() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut bytes = HELLO.to_vec();
    for count in 0..20_000_u32 {
        let id = (2 * count + 1).to_be_bytes();
        // HEADERS of GET / with END_STREAM and END_HEADERS, then RST_STREAM with CANCEL.
        bytes.extend([&[0, 0, 3, 1, 5][..], &id[..], &[0x82, 0x84, 0x86][..]].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &id[..], &[0, 0, 0, 8][..]].concat());
    }
    let sender = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || drop(stream.write_all(&bytes))
    });
    let mut kind = [0; 9];
    let mut was_sent_away = false;
    while stream.read_exact(&mut kind).is_ok() {
        was_sent_away |= kind[3] == GOAWAY;
        let length = u32::from_be_bytes([0, kind[0], kind[1], kind[2]]);
        if stream.read_exact(&mut vec![0; length as usize]).is_err() {
            break;
        }
    }
    sender.join().unwrap();
    assert!(was_sent_away);
    assert_eq!(server.post("/", r#"{"inputs": "a"}"#).status, 200);
}

#[test]
fn a_header_over_the_limit_is_refused() {
    let config = Config { max_header_bytes: 4096, ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let mut client = server.connect();
    client.begin("GET", "/health", &[("x-long", &"x".repeat(5000))], b"");
    assert_eq!(client.head().unwrap().status, 431);
    block_on(async {
        let (mut sender, _) = connect(server.address).await;
        let mut long = request("GET", "/health", "");
        long.headers_mut().insert("x-long", "x".repeat(5000).parse().unwrap());
        let refused = sender.send_request(long).await;
        assert!(refused.map_or(true, |reply| reply.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        let reply = sender.send_request(request("GET", "/health", "")).await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
    });
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let config = Config { header_timeout: Duration::from_millis(50), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let mut client = server.connect();
    let body = serde_json::json!({"inputs": vec!["cat"; 50_000]}).to_string();
    // More than the buffers of both sides hold, so sending only ends when the server has given the connection up.
    const REQUESTS: usize = 40;
    for _ in 0..REQUESTS {
        client.begin("POST", "/", &[], body.as_bytes());
    }
    let replies = std::iter::from_fn(|| client.response()).count();
    assert!(replies < REQUESTS);
    assert_eq!(server.post("/", r#"{"inputs": "a"}"#).status, 200);
}

#[test]
fn a_further_port_serves_the_same() {
    block_on(async {
        let server = Server::bind(Config { grpc_port: Some(0), ..config() }).await.unwrap();
        let addresses = server.addresses().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let model = tiny::embedder(true);
        let engine = tiny::Tiny::new(&model);
        let models = vec![served(model, engine)];
        let serving = tokio::spawn(server.serve(models, async { stopped.await.unwrap_or_default() }));
        assert_eq!(addresses.len(), 2);
        for address in addresses {
            let (mut sender, _) = connect(address).await;
            let reply = sender.send_request(request("GET", "/health", "")).await.unwrap();
            assert_eq!(reply.status(), StatusCode::OK);
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    });
}
