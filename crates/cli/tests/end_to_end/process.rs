//! Processes with a time limit, apart from the user's caches, keys and network.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest that a step may take, far above what it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The binary with its first argument.
pub(crate) fn centuple(command: &str) -> Command {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-cache");
    let mut centuple = Command::new(env!("CARGO_BIN_EXE_centuple"));
    centuple.arg(command).env_clear().env("HF_HUB_OFFLINE", "1");
    centuple.env("HF_HOME", &nowhere).env("CENTUPLE_HOME", &nowhere);
    centuple
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is UTF-8")
    }

    /// The one line on standard error that says why it failed.
    pub(crate) fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let message = self.stderr.strip_suffix('\n').expect("a message");
        assert!(message.starts_with("error: ") && !message.contains('\n'), "not one line: {message}");
        message
    }
}

/// Runs a command to its end on some input. A panic in it fails the test.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Finished {
    let mut process = Process::spawn(command);
    let mut stdin = process.stdin();
    let stdout = process.0.stdout.take().expect("a pipe");
    let stderr = process.0.stderr.take().expect("a pipe");
    let readers = [read_all(stdout), read_all(stderr)];
    thread::scope(|scope| {
        // A process that has read enough closes its input.
        scope.spawn(move || stdin.write_all(input));
        let code = process.wait().code();
        let [stdout, stderr] = readers.map(|reader| reader.join().expect("a reader ends"));
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Finished { code, stdout, stderr }
    })
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// A running process; it is killed when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Starts a process with pipes.
    pub(crate) fn spawn(command: &mut Command) -> Process {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Process(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its input.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().expect("a pipe")
    }

    /// Lines of its output as they come.
    pub(crate) fn stdout(&mut self) -> Lines {
        Lines::of(self.0.stdout.take().expect("a pipe"))
    }

    /// Lines of its messages as they come.
    pub(crate) fn stderr(&mut self) -> Lines {
        Lines::of(self.0.stderr.take().expect("a pipe"))
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal, as TERM.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id]).status();
        assert!(status.expect("sh is there").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of a pipe, read by a thread until its end.
pub(crate) struct Lines(Mutex<Receiver<String>>);

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Nobody may want them any more; the pipe is emptied all the same.
                let _ = sender.send(line);
            }
        });
        Lines(Mutex::new(lines))
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        match self.0.lock().expect("no reader has crashed").recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line comes"),
        }
    }

    /// All lines until the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}
