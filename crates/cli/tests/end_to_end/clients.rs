//! The clients people use, those of Hugging Face, OpenAI, Cohere and Triton, against real servers.
//!
//! The Python environment is made here, once for each version of `requirements.txt`, below Cargo's target folder. Where
//! there is no Python that can make one, the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::http::Server;
use crate::process::finish;
use crate::tiny::{TOLERANCE, Tiny};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

#[test]
fn python_clients_get_correct_answers() {
    if let Err(reason) = can_make_environments() {
        println!("skipped: {reason}");
        return;
    }
    let python = environment();
    let [embedder, classifier, ranker] = ["sentence-mean", "classify", "one-label"].map(Tiny::new);
    let expected = embedder.beside("expected.json");
    fs::write(&expected, expected_values(&embedder, &classifier, &ranker).to_string()).expect("a temporary folder");
    let [embed, classify, rank] = [&embedder, &classifier, &ranker].map(|tiny| Server::start(&[tiny.path()], &[]));
    let mut check = Command::new(python);
    check.arg(Path::new(CLIENTS).join("check_clients.py"));
    check.args(["--embed-url", &format!("http://{}", embed.address)]);
    check.args(["--classify-url", &format!("http://{}", classify.address)]);
    check.args(["--rank-url", &format!("http://{}", rank.address)]);
    check.arg("--expected").arg(&expected);
    // What the user has set for the real services must not lead the clients there.
    for name in [
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "OPENAI_ORG_ID",
        "CO_API_KEY",
        "CO_API_URL",
    ] {
        check.env_remove(name);
    }
    check.env("HF_HOME", embedder.beside("home")).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let finished = finish(&mut check, b"");
    print!("{}", finished.text());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for server in [embed, classify, rank] {
        let (code, log) = server.stop("TERM");
        assert_eq!(code, Some(0), "{log:?}");
    }
}

/// Why this machine's Python cannot make environments, if there is one at all.
fn can_make_environments() -> Result<(), String> {
    let mut probe = Command::new("python3");
    probe.args(["-c", "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"]);
    match probe.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(format!("python3 is older than 3.11 or lacks venv and ensurepip {}", reason.trim_end()))
        }
        Err(error) => Err(format!("there is no python3: {error}")),
    }
}

/// The Python of an environment with the pinned clients, made if it is not there yet.
fn environment() -> PathBuf {
    let requirements = Path::new(CLIENTS).join("requirements.txt");
    let pinned = fs::read(&requirements).expect("the requirements are there");
    let hash: String = Sha256::digest(&pinned)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = cache.join(format!("clients-{hash}"));
    if !place.exists() {
        // It appears under its name when it is whole. Only its Python is used, and that may be moved.
        let staging = TempDir::new_in(cache).expect("the target folder can be written");
        succeed(Command::new("python3").args(["-m", "venv"]).arg(staging.path()));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        succeed(Command::new(python_of(staging.path())).args(install).arg(&requirements));
        if fs::rename(staging.path(), &place).is_err() {
            assert!(place.exists(), "the environment can be moved, or another test has made it");
        }
    }
    python_of(&place)
}

fn python_of(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

fn succeed(command: &mut Command) {
    let finished = finish(command, b"");
    assert_eq!(finished.code, Some(0), "{command:?}: {}{}", finished.text(), finished.stderr);
}

/// What `check_clients.py` compares with; its own text describes the form.
fn expected_values(embedder: &Tiny, classifier: &Tiny, ranker: &Tiny) -> Value {
    let embeddings: Vec<Value> = embedder
        .known("embeddings")
        .into_iter()
        .filter(|known| !known.text.is_empty())
        .map(|known| json!({"text": known.text, "ids": known.input.ids, "embedding": known.expected}))
        .collect();
    let config = fs::read(classifier.path().join("config.json")).expect("the configuration is there");
    let config: Value = serde_json::from_slice(&config).expect("it is JSON");
    let label = |index: usize| config["id2label"][index.to_string()].as_str().expect("a name").to_owned();
    let classification: Vec<Value> = classifier
        .known("scores")
        .into_iter()
        .map(|known| {
            let scores = known.expected.iter().enumerate().map(|(index, score)| (label(index), json!(score)));
            json!({"text": known.text, "scores": scores.collect::<Map<_, _>>()})
        })
        .collect();
    let pairs = ranker.known_pairs().into_iter().filter(|(query, text, _)| !query.is_empty() && !text.is_empty());
    let ranking: Vec<Value> =
        pairs.map(|(query, text, scores)| json!({"query": query, "text": text, "score": scores[0]})).collect();
    json!({
        "tolerance": TOLERANCE, "embeddings": embeddings, "classification": classification, "ranking": ranking,
    })
}
