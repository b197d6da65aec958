//! How far a long command is, and how it is stopped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use centuple::optimize::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Exit code of a command that Ctrl-C has ended.
pub(super) const INTERRUPTED: u8 = 130;

/// Set at the first Ctrl-C or SIGTERM.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ctrl-C and SIGTERM end the work at the next step, so that nothing is left behind.
pub(super) fn listen_for_signals() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot listen for signals")?;
    let stop = {
        let _within = runtime.enter();
        super::stop_signal()
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(stop);
            STOPPED.store(true, Ordering::Relaxed);
            // A second one finds nobody to wait for.
            runtime.block_on(async { super::stop_signal().await });
            std::process::exit(INTERRUPTED.into());
        })
        .context("cannot listen for signals")?;
    Ok(())
}

/// Progress bars on standard error, one after the other.
#[derive(Default)]
pub(super) struct Bars(Mutex<Option<ProgressBar>>);

impl Bars {
    fn replace(&self, bar: Option<ProgressBar>) {
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, bar) {
            old.finish_and_clear();
        }
    }

    /// Takes the last one away.
    pub(super) fn end(&self) {
        self.replace(None);
    }
}

impl Progress for Bars {
    fn begin(&self, part: &str, steps: usize) {
        let template = if steps > 0 { "{msg:28} {bar:30} {pos}/{len}, {eta} left" } else { "{msg:28} {spinner}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = if steps > 0 { ProgressBar::new(steps as u64) } else { ProgressBar::new_spinner() };
        let bar = bar.with_style(style).with_message(part.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.replace(Some(bar));
    }

    fn advance(&self) {
        if let Some(bar) = &*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            bar.inc(1);
        }
    }

    fn is_cancelled(&self) -> bool {
        STOPPED.load(Ordering::Relaxed)
    }
}
