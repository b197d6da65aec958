//! The clients people use against real servers: those of Hugging Face and OpenAI in Python and JavaScript, of Cohere, Triton,
//! KServe, Infinity and LlamaIndex in Python.
//!
//! Their environments are made here, once for each version of `requirements.txt` and `package-lock.json`, below Cargo's
//! target folder. Where this machine can't make one, the test says so and passes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use centuple_testkit::pipeline_cases;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::http::Server;
use crate::process::{centuple, finish};
use crate::tiny::{TOLERANCE, Tiny};

pub(crate) const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
/// The model and the text whose vector is the same for everybody.
const SAME: (&str, &str) = ("sentence-normalize", "The quick brown fox jumps over the lazy dog.");
/// The models of the tasks, whose replies are those of the pipelines of transformers.
const TASKS: [&str; 5] = ["classes", "ner", "qa", "mlm", "nli"];
/// What the user has set for the real services must not lead the clients there.
pub(crate) const FOREIGN: [&str; 8] = [
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_ORG_ID",
    "CO_API_KEY",
    "CO_API_URL",
];

#[test]
fn python_clients_get_correct_answers() {
    if let Err(reason) = can_make_environments() {
        println!("skipped: {reason}");
        return;
    }
    let python = python_environment();
    let servers = Servers::start();
    let flags = [
        ("--embed-url", &servers.embed),
        ("--classify-url", &servers.classify),
        ("--rank-url", &servers.rank),
        ("--tasks-url", &servers.tasks),
        ("--full-url", &servers.full),
    ];
    let check = |script: &[&str], flags: &[(&str, &Server)]| {
        let mut check = Command::new(&python);
        check.current_dir(CLIENTS).args(script);
        for (flag, server) in flags {
            check.args([flag, &url(server).as_str()]);
        }
        check.arg("--expected").arg(&servers.expected);
        // It would write its byte code into the source tree.
        servers.check(check.env("PYTHONDONTWRITEBYTECODE", "1"));
    };
    check(&["check_clients.py"], &flags);
    for client in ["triton", "kserve", "reflection"] {
        check(&["check_grpc.py", client], &flags[..4]);
    }
    servers.end();
}

#[test]
fn javascript_clients_get_correct_answers() {
    if let Err(reason) = can_run_javascript() {
        println!("skipped: {reason}");
        return;
    }
    let packages = javascript_environment();
    let servers = Servers::start();
    // Node looks for packages beside the script.
    let script = servers.models[0].beside("check_clients.mjs");
    fs::copy(Path::new(CLIENTS).join("check_clients.mjs"), &script).expect("a temporary folder");
    symlink(packages, servers.models[0].beside("node_modules")).expect("a temporary folder");
    let mut check = Command::new("node");
    check.arg(script).args([&servers.embed, &servers.tasks, &servers.full].map(url)).arg(&servers.expected);
    servers.check(&mut check);
    servers.end();
}

/// Servers for the clients, and the answers that are expected of them.
struct Servers {
    embed: Server,
    classify: Server,
    rank: Server,
    tasks: Server,
    /// Its queue takes nothing.
    full: Server,
    expected: PathBuf,
    models: Vec<Tiny>,
}

impl Servers {
    fn start() -> Servers {
        let [embedder, classifier, ranker, same] = ["sentence-mean", "classify", "one-label", SAME.0].map(Tiny::new);
        let mut models: Vec<Tiny> = TASKS.map(Tiny::of_pipeline).into();
        models.push(same);
        let folders: Vec<PathBuf> = models.iter().map(Tiny::path).collect();
        let [embed, classify, rank] = [&embedder, &classifier, &ranker].map(|tiny| Server::start(&[tiny.path()], &[]));
        let tasks = Server::start(&folders, &[]);
        let full = Server::start(&[embedder.path(), ranker.path()], &["--max-queued-requests", "0"]);
        let mut expected = expected_values(&embedder, &classifier, &ranker);
        expected["same"] = json!({"model": SAME.0, "text": SAME.1, "bits": same_bits(&tasks)});
        expected["repositories"] = json!({"embed": repository(&embedder), "classify": repository(&classifier)});
        let place = embedder.beside("expected.json");
        fs::write(&place, expected.to_string()).expect("a temporary folder");
        models.splice(0..0, [embedder, classifier, ranker]);
        Servers { embed, classify, rank, tasks, full, expected: place, models }
    }

    /// Runs a script that checks them.
    fn check(&self, check: &mut Command) {
        FOREIGN.iter().for_each(|name| {
            check.env_remove(name);
        });
        check.env("HF_HOME", self.models[0].beside("home")).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        let finished = finish(check, b"");
        print!("{}", finished.text());
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }

    /// Ends them.
    fn end(self) {
        for server in [self.embed, self.classify, self.rank, self.tasks, self.full] {
            let (code, log) = server.stop("TERM");
            assert_eq!(code, Some(0), "{log:?}");
        }
    }
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// A model's repository for Triton.
fn repository(model: &Tiny) -> PathBuf {
    let target = model.beside("repository");
    succeed(centuple("export").arg(model.path()).arg("-o").arg(&target).args(["--format", "triton"]));
    target
}

/// The numbers of the vector that every client must get, as the route of the task gives them.
fn same_bits(server: &Server) -> Vec<u32> {
    let body = json!({"inputs": SAME.1}).to_string();
    let reply = server.post(&format!("/models/{}", SAME.0), body).json();
    let row: Vec<f32> = serde_json::from_value(reply).expect("an embedding");
    row.into_iter().map(f32::to_bits).collect()
}

/// Why this machine's Python cannot make environments, if there is one at all.
pub(crate) fn can_make_environments() -> Result<(), String> {
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

/// Why this machine can't run the clients of JavaScript.
pub(crate) fn can_run_javascript() -> Result<(), String> {
    let mut probe = Command::new("node");
    probe.args(["-e", "process.exit(Number(process.versions.node.split('.')[0]) < 20 ? 1 : 0)"]).stdin(Stdio::null());
    match probe.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return Err("node is older than 20".to_owned()),
        Err(error) => return Err(format!("there is no node: {error}")),
    }
    match Command::new("npm").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("npm doesn't run: {status}")),
        Err(error) => Err(format!("there is no npm: {error}")),
    }
}

/// The Python of an environment with the pinned clients.
pub(crate) fn python_environment() -> PathBuf {
    let place = cached("clients", &["requirements.txt"], |staging| {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(staging));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        let requirements = Path::new(CLIENTS).join("requirements.txt");
        succeed(Command::new(python_of(staging)).args(install).arg(requirements));
    });
    // Only its Python is used, and that may be moved.
    python_of(&place)
}

/// The folder of the packages for node.
pub(crate) fn javascript_environment() -> PathBuf {
    let files = ["package.json", "package-lock.json"];
    let place = cached("clients-js", &files, |staging| {
        for file in files {
            fs::copy(Path::new(CLIENTS).join(file), staging.join(file)).expect("the target folder can be written");
        }
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"];
        succeed(Command::new("npm").args(install).current_dir(staging));
    });
    place.join("node_modules")
}

/// A folder of that name for these versions of files, filled if it isn't there yet. It appears when it is whole.
fn cached(name: &str, files: &[&str], fill: impl FnOnce(&Path)) -> PathBuf {
    let mut hash = Sha256::new();
    files.iter().for_each(|file| hash.update(fs::read(Path::new(CLIENTS).join(file)).expect("it is there")));
    let hash: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = cache.join(format!("{name}-{hash}"));
    if !place.exists() {
        let staging = TempDir::new_in(cache).expect("the target folder can be written");
        fill(staging.path());
        if fs::rename(staging.path(), &place).is_err() {
            assert!(place.exists(), "the environment can be moved, or another test has made it");
        }
    }
    place
}

fn python_of(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

fn succeed(command: &mut Command) {
    let finished = finish(command, b"");
    assert_eq!(finished.code, Some(0), "{command:?}: {}{}", finished.text(), finished.stderr);
}

/// What the scripts compare with; `check_clients.py` describes the form.
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
    let cases = pipeline_cases().expect("the fixtures are there");
    let asked = cases.iter().filter(|case| TASKS.contains(&case.name.as_str()));
    let asks = asked.flat_map(|case| {
        let ask = |ask: &centuple_testkit::GoldenAsk| json!({"model": case.name, "task": case.task, "body": ask.body, "reply": ask.reply});
        case.asks.iter().map(ask).collect::<Vec<_>>()
    });
    json!({
        "tolerance": TOLERANCE, "embeddings": embeddings, "classification": classification, "ranking": ranking,
        "asks": asks.collect::<Vec<_>>(),
    })
}
