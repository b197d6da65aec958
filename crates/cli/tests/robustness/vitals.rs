//! What a running server holds: memory, threads, open files; and what it says of itself.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Server;
use crate::process::PATIENCE;

/// What the system says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// Resident memory in KiB.
    pub(crate) memory: usize,
    pub(crate) threads: usize,
    /// Open files, sockets among them.
    pub(crate) files: usize,
}

impl Vitals {
    /// Those of a server.
    pub(crate) fn of(server: &Server) -> Vitals {
        let folder = format!("/proc/{}", server.process.0.id());
        let status = fs::read_to_string(format!("{folder}/status")).expect("the server runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_else(|| panic!("no {name}: {status}"))
        };
        let files = fs::read_dir(format!("{folder}/fd")).expect("the server runs").count();
        Vitals { memory: field("VmRSS"), threads: field("Threads"), files }
    }

    /// Those of a server that nobody asks anything, once it holds no more files and threads than `before`.
    pub(crate) fn at_rest(server: &Server, before: Option<Vitals>) -> Vitals {
        wait_until("everything is given back", || queued(server) == 0.0);
        let mut last = Vitals::settled(server);
        let start = Instant::now();
        // Threads for large bodies end when they had nothing to do for a while.
        while let Some(before) = before
            && (last.files > before.files || last.threads > before.threads)
        {
            assert!(start.elapsed() < PATIENCE, "{last:?} is held, {before:?} before");
            last = Vitals::settled(server);
        }
        last
    }

    /// Those of a server that has not changed them for a while.
    fn settled(server: &Server) -> Vitals {
        let (mut last, mut same, start) = (Vitals::of(server), 0, Instant::now());
        while same < 5 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(50));
            let now = Vitals::of(server);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }
}

/// Waits for what must come.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Requests that wait, of all models.
pub(crate) fn queued(server: &Server) -> f64 {
    metric(server, "te_queue_size")
}

/// The sum of a metric's values.
pub(crate) fn metric(server: &Server, name: &str) -> f64 {
    let page = server.get("/metrics").body;
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}
