//! The commands.

mod bench;
mod inspect;
mod optimize;
mod pull;
mod run;
mod serve;

use std::io;

pub(crate) use bench::bench;
pub(crate) use inspect::inspect;
pub(crate) use optimize::optimize;
pub(crate) use pull::pull;
pub(crate) use run::run;
pub(crate) use serve::serve;

/// What became of writing to standard output: that nobody reads any more, as behind `head`, is no failure.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Resolves at the first Ctrl-C or SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
