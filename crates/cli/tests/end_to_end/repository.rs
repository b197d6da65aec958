//! `centuple serve --model-repository`: models that appear, change and go while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Response, Server};
use crate::process::{PATIENCE, centuple, finish};
use crate::tiny::{Known, Tiny};

/// How often the servers of these tests look.
const LOOK: [&str; 2] = ["--watch-interval", "0.05"];

/// A folder of models.
struct Repository(TempDir);

impl Repository {
    fn new() -> Repository {
        Repository(TempDir::new().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Copies a model beside its place and moves it there, as those do who care.
    fn move_in(&self, tiny: &Tiny, name: &str) {
        let (staging, place) = (self.path(".staging"), self.path(name));
        copy(&tiny.path(), &staging);
        fs::create_dir_all(place.parent().expect("it is in a folder")).expect("a folder can be made");
        if place.exists() {
            fs::rename(&place, self.path(".old")).expect("in one file system");
        }
        fs::rename(staging, &place).expect("in one file system");
        let _ = fs::remove_dir_all(self.path(".old"));
    }

    /// Starts a server of it.
    fn serve(&self, flags: &[&str]) -> Server {
        Server::start_with(centuple("serve").arg("--model-repository").arg(self.0.path()).args(LOOK).args(flags), &[])
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("it can be copied")),
        }
    }
}

/// Sets a flag when it is dropped, also by a test that fails.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Repeats a question until its answer is the right one.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "it does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

fn vector(response: &Response) -> Vec<f32> {
    serde_json::from_value(response.json()).expect("an embedding")
}

fn is_of(known: &Known<'_>, found: &[f32]) -> bool {
    found.len() == known.expected.len() && found.iter().zip(&known.expected).all(|(a, b)| (a - b).abs() < 1e-4)
}

/// Name, version and state of each model.
fn index(server: &Server) -> Vec<String> {
    let index = server.post("/v2/repository/index", "").json();
    let line =
        |entry: &Value| format!("{}:{} {}", text(&entry["name"]), text(&entry["version"]), text(&entry["state"]));
    index.as_array().expect("a list").iter().map(line).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn models_appear_change_and_go_and_no_request_fails() {
    let (mean, normalize) = (Tiny::new("sentence-mean"), Tiny::new("sentence-normalize"));
    let (meant, normalized) = (&mean.known("embeddings")[1], &normalize.known("embeddings")[1]);
    assert_eq!(meant.text, normalized.text);
    let body = meant.body().to_string();
    let repository = Repository::new();
    let server = repository.serve(&[]);
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert_eq!(server.post("/", &body).status, 404);
    repository.move_in(&mean, "film");
    until(|| (index(&server) == ["film:1 UNAVAILABLE"]).then_some(()));
    assert!(is_of(meant, &vector(&server.post("/models/film", &body))));
    assert_eq!(index(&server), ["film:1 READY"]);

    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _end = AtTheEnd(&done);
        for _ in 0..4 {
            let mut connection = server.connect();
            let (body, done, asked) = (&body, &done, &asked);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let answer = connection.post("/models/film", body);
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            repository.move_in(&normalize, "film");
            until(|| is_of(normalized, &vector(&server.post("/", &body))).then_some(()));
            // In place, file by file, with a pause in the middle of the largest.
            let weights = fs::read(mean.path().join("model.safetensors")).expect("it is there");
            fs::write(repository.path("film/model.safetensors"), &weights[..weights.len() / 2]).expect("it can be");
            thread::sleep(Duration::from_millis(20));
            copy(&mean.path(), &repository.path("film"));
            until(|| is_of(meant, &vector(&server.post("/", &body))).then_some(()));
        }
    });
    assert!(asked.load(Ordering::Relaxed) > 0);
    fs::remove_dir_all(repository.path("film")).expect("it is there");
    until(|| (server.post("/models/film", &body).status == 404).then_some(()));
    assert!(index(&server).is_empty());
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
}

#[test]
fn the_latest_version_that_works_is_served() {
    let (mean, normalize) = (Tiny::new("sentence-mean"), Tiny::new("sentence-normalize"));
    let (meant, normalized) = (&mean.known("embeddings")[1], &normalize.known("embeddings")[1]);
    let body = meant.body().to_string();
    let repository = Repository::new();
    repository.move_in(&mean, "org/film/1");
    repository.move_in(&normalize, "org/film/2");
    fs::create_dir(repository.path("org/film/notes")).expect("a folder can be made");
    let server = repository.serve(&["--model-control"]);
    assert_eq!(index(&server), ["org/film:1 UNAVAILABLE", "org/film:2 UNAVAILABLE"]);
    assert!(is_of(normalized, &vector(&server.post("/models/org/film", &body))));
    let infer =
        json!({"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": [meant.text]}]}).to_string();
    for (path, version, known) in [
        ("/v2/models/org/film/infer", "2", normalized),
        ("/v2/models/org/film/versions/1/infer", "1", meant),
        ("/v2/models/org%2Ffilm/versions/2/infer", "2", normalized),
    ] {
        let answer = server.post(path, &infer).json();
        assert_eq!(answer["model_version"], version);
        let found: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone()).expect("numbers");
        assert!(is_of(known, &found), "{path}");
    }
    // A version without weights does not take over, and says why.
    let broken = Tiny::new("sentence-mean");
    broken.write("model.safetensors", "");
    repository.move_in(&broken, "org/film/3");
    let reason = until(|| {
        let index = server.post("/v2/repository/index", "").json();
        let third = index.as_array()?.get(2)?.clone();
        text(&third["reason"]).contains("model.safetensors").then_some(third)
    });
    assert_eq!(reason["state"], "UNAVAILABLE", "{reason}");
    assert!(is_of(normalized, &vector(&server.post("/models/org/film", &body))));
    assert_eq!(server.post("/v2/models/org/film/versions/3/infer", &infer).status, 500);
    assert_eq!(server.post("/v2/repository/models/org/film/load", "").status, 500);
    repository.move_in(&mean, "org/film/3");
    until(|| is_of(meant, &vector(&server.post("/models/org/film", &body))).then_some(()));
    // It is taken back.
    fs::remove_dir_all(repository.path("org/film/3")).expect("it is there");
    until(|| is_of(normalized, &vector(&server.post("/models/org/film", &body))).then_some(()));
}

#[cfg(unix)]
#[test]
fn links_are_followed_within_the_repository_and_not_out_of_it() {
    use std::os::unix::fs::symlink;

    let (mean, normalize) = (Tiny::new("sentence-mean"), Tiny::new("sentence-normalize"));
    let (meant, normalized) = (&mean.known("embeddings")[1], &normalize.known("embeddings")[1]);
    let body = meant.body().to_string();
    let repository = Repository::new();
    // As volumes of Kubernetes are: the folder that a link of the name `..data` names is replaced by another.
    copy(&mean.path(), &repository.path("..2026_01/film"));
    copy(&normalize.path(), &repository.path("..2026_02/film"));
    symlink("..2026_01", repository.path("..data")).expect("a link can be made");
    symlink("..data/film", repository.path("film")).expect("a link can be made");
    symlink(mean.path(), repository.path("outside")).expect("a link can be made");
    copy(&mean.path(), &repository.path("leaking"));
    fs::remove_file(repository.path("leaking/config.json")).expect("it is there");
    symlink(mean.path().join("config.json"), repository.path("leaking/config.json")).expect("a link can be made");
    for name in ["a..b", "a\nb", "a\\b"] {
        copy(&mean.path(), &repository.path(name));
    }
    let server = repository.serve(&["--model-control"]);
    assert_eq!(index(&server), ["film:1 UNAVAILABLE"]);
    assert!(is_of(meant, &vector(&server.post("/models/film", &body))));
    symlink("..2026_02", repository.path(".new")).expect("a link can be made");
    fs::rename(repository.path(".new"), repository.path("..data")).expect("a link can be replaced");
    until(|| is_of(normalized, &vector(&server.post("/models/film", &body))).then_some(()));
    for name in
        ["..%2F..%2Fetc", "../film", "%2Ftmp", "..2026_01%2Ffilm", "film%2F..%2Ffilm", "outside", "leaking", "a..b"]
    {
        assert_eq!(server.post(&format!("/models/{name}"), &body).status, 404, "{name}");
        assert_eq!(server.post(&format!("/v2/repository/models/{name}/load"), "").status, 404, "{name}");
        assert_eq!(server.get(&format!("/v2/models/{name}")).status, 404, "{name}");
    }
    let (_, log) = server.stop("TERM");
    assert!(log.iter().any(|line| line.contains("loaded anew")), "{log:?}");
}

#[test]
fn models_share_the_memory_that_they_are_given() {
    let names = ["sentence-mean", "sentence-normalize", "classify"];
    let repository = Repository::new();
    names.iter().for_each(|name| repository.move_in(&Tiny::new(name), name));
    let body = json!({"inputs": "some text"}).to_string();
    let all = repository.serve(&["--eager"]);
    let metric = |server: &Server, name: &str| {
        let text = server.get("/metrics").body;
        let line = text.lines().find(|line| line.starts_with(name)).expect("it is told").to_owned();
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert_eq!(metric(&all, "te_model_ready"), 3.0);
    let each = metric(&all, "te_model_memory_bytes") / 3.0;
    drop(all);
    let server = repository.serve(&["--max-memory", &format!("{}", (each * 2.2) as u64)]);
    for round in 0..9 {
        assert_eq!(server.post(&format!("/models/{}", names[round % 3]), &body).status, 200);
        let ready = index(&server).iter().filter(|line| line.ends_with("READY")).count();
        assert!((1..=2).contains(&ready), "{:?}", index(&server));
    }
    assert!(metric(&server, "te_model_memory_bytes") <= each * 2.2);
    let little = repository.serve(&["--max-memory", "20kB"]);
    let refused = little.post("/models/classify", &body);
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("19.5 KiB"), "{}", refused.body);
}

#[test]
fn a_hangup_loads_what_has_changed_of_the_command_line() {
    let (model, other) = (Tiny::new("sentence-mean"), Tiny::new("sentence-normalize"));
    let (before, after) = (&model.known("embeddings")[1], &other.known("embeddings")[1]);
    let body = before.body().to_string();
    let repository = Repository::new();
    repository.move_in(&other, "sentence-mean");
    repository.move_in(&other, "second");
    let flags = ["--model-repository", repository.0.path().to_str().expect("it is UTF-8"), "--watch-interval", "0"];
    let server = Server::start(&[model.path()], &flags);
    // A model of the command line has its name before one of the repository.
    assert_eq!(index(&server), ["sentence-mean:1 READY", "second:1 UNAVAILABLE"]);
    assert!(is_of(before, &vector(&server.post("/models/sentence-mean", &body))));
    copy(&other.path(), &model.path());
    server.process.signal("HUP");
    until(|| is_of(after, &vector(&server.post("/models/sentence-mean", &body))).then_some(()));
    // Half a model changes nothing.
    fs::write(model.path().join("config.json"), "{").expect("it can be written");
    server.process.signal("HUP");
    until(|| text(&server.post("/v2/repository/index", "").json()[0]["reason"]).contains("config.json").then_some(()));
    assert!(is_of(after, &vector(&server.post("/models/sentence-mean", &body))));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_repository_that_is_not_there_is_named() {
    let finished = finish(centuple("serve").args(["--port", "0", "--model-repository", "/no/such/folder"]), b"");
    assert!(finished.failure(1).contains("/no/such/folder"), "{}", finished.stderr);
    let finished = finish(centuple("serve").args(["--port", "0", "--eager"]), b"");
    assert_eq!(finished.code, Some(2));
}
