//! 200 random requests for text in little memory for keys and values: each gets what it gets alone, and all pages come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use centuple_testkit::FamilyGolden;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Server;
use crate::process::PATIENCE;
use crate::random::Random;
use crate::vitals::{Vitals, metric, wait_until};

const REQUESTS: usize = 200;
/// Requests at a time.
const CLIENTS: usize = 12;
/// Pages of the cache: room for the longest request that is taken, and for few others beside it.
const PAGES: usize = 6;
const PAGE_TOKENS: usize = 16;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Waits for the whole text.
    Whole,
    /// Reads a stream to its end.
    Stream,
    /// Leaves after so many events of a stream.
    Leave(usize),
}

/// A request.
struct Asked {
    body: String,
    manner: Manner,
    /// Whether the cache could never hold it.
    too_long: bool,
}

impl Asked {
    fn random(random: &mut Random) -> Asked {
        let too_long = random.below(8) == 0;
        let prompt = 1 + random.below(50);
        let room = PAGES * PAGE_TOKENS;
        let new = if too_long { room + 8 - prompt } else { 1 + random.below(room - prompt - 1).min(40) };
        let start = random.below(5);
        let inputs: String = "weather report of today ".chars().cycle().skip(start).take(prompt).collect();
        let mut parameters = json!({"max_new_tokens": new});
        let more = [
            json!({}),
            json!({"temperature": 1.5, "seed": random.below(9)}),
            json!({"do_sample": true, "top_p": 0.9, "top_k": 20, "seed": random.below(9)}),
            json!({"repetition_penalty": 1.3}),
            json!({"num_return_sequences": 1, "prompt_lookup_num_tokens": 4}),
        ];
        for (name, value) in random.pick(&more).as_object().expect("an object") {
            parameters[name] = value.clone();
        }
        let manner = match random.below(3) {
            0 => Manner::Whole,
            1 => Manner::Stream,
            _ => Manner::Leave(random.below(12)),
        };
        Asked { body: json!({"inputs": inputs, "parameters": parameters}).to_string(), manner, too_long }
    }

    /// Asks a server as a client of its manner.
    fn ask(&self, address: &str, manner: Manner) -> Reply {
        let path = if manner == Manner::Whole { "/generate" } else { "/generate_stream" };
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut reader = BufReader::new(stream);
        // Without chunks, as the old protocol has it, a body is its lines.
        let head = format!("POST {path} HTTP/1.0\r\nhost: test\r\ncontent-length: {}\r\n\r\n", self.body.len());
        reader.get_mut().write_all(format!("{head}{}", self.body).as_bytes()).expect("the server takes a request");
        let mut status = String::new();
        if manner == Manner::Leave(0) {
            return Reply::default();
        }
        reader.read_line(&mut status).expect("a response");
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut line = String::new();
        while reader.read_line(&mut line).expect("a header") > 2 {
            line.clear();
        }
        let mut reply = Reply { status, ..Reply::default() };
        if manner == Manner::Whole || status != 200 {
            reader.read_to_string(&mut reply.text).expect("a body");
            return reply;
        }
        let most = if let Manner::Leave(events) = manner { events } else { usize::MAX };
        for line in reader.lines().map(|line| line.expect("a line")).filter(|line| !line.is_empty()) {
            let event = line.strip_prefix("data:").unwrap_or_else(|| panic!("{line:?} is no event"));
            let event: Value = serde_json::from_str(event).expect("events are JSON");
            reply.tokens.push(event["token"]["id"].as_u64().unwrap_or_else(|| panic!("{event} has no token")));
            if let Some(text) = event["generated_text"].as_str() {
                text.clone_into(&mut reply.text);
            }
            if reply.tokens.len() >= most {
                break;
            }
        }
        reply
    }

    /// Asks while others do, and compares with what the request gets alone.
    fn check(&self, address: &str, alone: &Reply) {
        let found = self.ask(address, self.manner);
        if self.too_long && self.manner != Manner::Leave(0) {
            assert_eq!(found.status, 422, "{}", found.text);
            assert!(found.text.contains("pages"), "{}", found.text);
            return;
        }
        match self.manner {
            Manner::Whole => {
                let text: Value = serde_json::from_str(&found.text).expect("answers are JSON");
                assert_eq!(text["generated_text"], json!(alone.text), "{}", self.body);
            }
            Manner::Stream => assert_eq!(&found, alone, "{}", self.body),
            Manner::Leave(_) => assert!(alone.tokens.starts_with(&found.tokens), "{}", self.body),
        }
    }
}

/// What came back.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    status: u16,
    tokens: Vec<u64>,
    /// The whole text of a stream, or the body.
    text: String,
}

fn tiny(folder: &TempDir) {
    let families = FamilyGolden::all().expect("the fixtures are there");
    let family = families.iter().find(|one| one.name == "llama").expect("the family");
    let case = family.cases.iter().find(|case| case.name == "causal").expect("the case");
    family.assemble(case, folder.path()).expect("the fixtures are there");
}

/// Asks for everything in little memory; nothing is over it at any time.
fn in_little_memory(server: &Server, requests: &[(Asked, Reply)]) {
    let (next, running) = (AtomicUsize::new(0), AtomicUsize::new(CLIENTS));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some((asked, alone)) = requests.get(next.fetch_add(1, Relaxed)) {
                    asked.check(&server.address, alone);
                }
                running.fetch_sub(1, Relaxed);
            });
        }
        while running.load(Relaxed) > 0 && next.load(Relaxed) < requests.len() {
            let held = metric(server, "te_kv_pages_used") + metric(server, "te_kv_pages_idle");
            assert!(held <= 2.0 * PAGES as f64, "{held} pages at two looks");
            assert_eq!(metric(server, "te_kv_pages"), PAGES as f64);
        }
    });
}

#[test]
fn memory_for_keys_and_values_is_bounded_and_comes_back() {
    let folder = TempDir::new().expect("a temporary folder");
    tiny(&folder);
    let model = [folder.path().to_owned()];
    let mut random = Random::new(8);
    for precision in ["f32", "int8"] {
        let roomy = 1_usize << 20;
        let flags =
            |memory: usize| ["--kv-memory".to_owned(), memory.to_string(), format!("--kv-precision={precision}")];
        let start = |memory: usize| {
            let flags = flags(memory);
            Server::start(&model, &[flags[0].as_str(), flags[1].as_str(), flags[2].as_str()])
        };
        let alone = start(roomy);
        let page = roomy / metric(&alone, "te_kv_pages") as usize + 1;
        let requests: Vec<(Asked, Reply)> = (0..REQUESTS)
            .map(|_| {
                let asked = Asked::random(&mut random);
                let reply = asked.ask(&alone.address, Manner::Stream);
                assert_eq!(reply.status, 200, "{}: {}", asked.body, reply.text);
                (asked, reply)
            })
            .collect();
        drop(alone);
        let server = start(PAGES * page);
        let before = Vitals::at_rest(&server, None);
        in_little_memory(&server, &requests);
        wait_until("everybody is gone", || {
            metric(&server, "te_generation_running") + metric(&server, "te_generation_waiting") == 0.0
        });
        assert_eq!(metric(&server, "te_kv_pages_used"), 0.0);
        let after = Vitals::at_rest(&server, Some(before));
        println!("{precision}: before {before:?}, after {after:?}");
        assert!(after.memory < before.memory + before.memory / 4 + (16 << 10), "{before:?} has become {after:?}");
        let (code, log) = server.stop("TERM");
        assert_eq!(code, Some(0), "{log:?}");
    }
}
