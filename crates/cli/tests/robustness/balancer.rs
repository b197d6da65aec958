//! Two servers behind nginx, one of which is killed under load: nobody notices.
//!
//! The configuration is that of `deploy/nginx`, with the ports of the test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use crate::connection::{Connection, Outcome, post};
use crate::http::Server;
use crate::process::Process;
use crate::tiny::Tiny;
use crate::vitals::{metric, wait_until};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/nginx/centuple.conf");
const CLIENTS: usize = 8;

#[test]
fn kill_9_of_one_of_two_servers() {
    if let Err(error) = Command::new("nginx").arg("-v").stdin(Stdio::null()).stderr(Stdio::null()).status() {
        println!("skipped: there is no nginx: {error}");
        return;
    }
    let model = Tiny::new("sentence-mean");
    let [dies, stays] = [(); 2].map(|()| Server::start(&[model.path()], &["--threads", "1"]));
    let nginx = Nginx::start([&dies.address, &stays.address]);
    let request = post("/", json!({"inputs": vec!["what a great film"; 16]}).to_string());
    let expected = match stays_answer(&stays.address, &request) {
        Outcome::Answer(answer) if answer.status == 200 => answer.body,
        other @ (Outcome::Answer(_) | Outcome::Closed | Outcome::Torn(_)) => panic!("{}", other.name()),
    };
    let (answered, killed_at, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let retries: usize = thread::scope(|scope| {
        let client = || ask_and_retry(&nginx.address, &request, &expected, &answered, &stop);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        wait_until("both servers answer", || {
            [&dies, &stays].iter().all(|server| metric(server, "te_request_success") >= 100.0)
        });
        dies.process.signal("KILL");
        killed_at.store(answered.load(SeqCst), SeqCst);
        let enough = killed_at.load(SeqCst) + 200 * CLIENTS;
        wait_until("the other one answers everybody", || answered.load(SeqCst) >= enough);
        stop.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().expect("a client ends")).sum()
    });
    println!("{} answers, {retries} of them at the second try", answered.load(SeqCst));
    let (code, log) = stays.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
}

fn stays_answer(address: &str, request: &[u8]) -> Outcome {
    Connection::open(address).expect("it listens").ask(request)
}

/// Asks until it is told to stop; each request may be sent twice. Returns how many were.
fn ask_and_retry(address: &str, request: &[u8], expected: &[u8], answered: &AtomicUsize, stop: &AtomicBool) -> usize {
    let mut retries = 0;
    let mut connection = Connection::open(address).expect("nginx listens");
    while !stop.load(SeqCst) {
        let mut outcome = connection.ask(request);
        if !matches!(&outcome, Outcome::Answer(answer) if answer.status == 200) {
            retries += 1;
            connection = Connection::open(address).expect("nginx listens");
            outcome = connection.ask(request);
        }
        let Outcome::Answer(answer) = outcome else { panic!("no answer at the second try: {}", outcome.name()) };
        assert_eq!((answer.status, answer.body.as_slice()), (200, expected));
        answered.fetch_add(1, SeqCst);
        if answer.last {
            connection = Connection::open(address).expect("nginx listens");
        }
    }
    retries
}

/// nginx in the foreground, in a folder of its own; killed when it is dropped.
struct Nginx {
    _process: Process,
    _folder: TempDir,
    address: String,
}

impl Nginx {
    fn start(servers: [&str; 2]) -> Nginx {
        let folder = TempDir::new().expect("a temporary folder");
        // Free at this moment; nobody else is likely to take it before nginx does.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let mut site = fs::read_to_string(CONFIGURATION).expect("the configuration is there");
        for (theirs, ours) in [("8080", address.as_str()), ("8081", servers[0]), ("8082", servers[1])] {
            let place = format!("127.0.0.1:{theirs}");
            assert!(site.contains(&place), "{place} is not in the configuration");
            site = site.replace(&place, ours);
        }
        let path = folder.path().join("nginx.conf");
        fs::write(&path, whole_configuration(folder.path(), &site)).expect("a temporary folder");
        let process = Process::spawn(Command::new("nginx").arg("-p").arg(folder.path()).arg("-c").arg(&path));
        wait_until("nginx listens", || TcpStream::connect(&address).is_ok());
        Nginx { _process: process, _folder: folder, address }
    }
}

/// What nginx needs around a site; nothing outside of the folder.
fn whole_configuration(folder: &Path, site: &str) -> String {
    let folder = folder.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String = places.map(|name| format!("    {name}_temp_path {folder}/{name};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 512; }}\nhttp {{\n    access_log off;\n{places}{site}}}\n"
    )
}
