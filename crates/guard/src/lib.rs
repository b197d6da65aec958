//! Panics of other people's crates as errors.
//!
//! Some crates unwrap, assert and index where damaged files and odd texts lead. Whatever they do with either goes through
//! [`guarded`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside of [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it becomes the error that `failed` makes of its message.
///
/// # Errors
/// Those of `work`, and its panics.
pub fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>, failed: impl FnOnce(&str) -> E) -> Result<T, E> {
    silence();
    let outer = GUARDED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|panic| Err(failed(message(panic.as_ref()))))
}

/// Keeps the process's panic hook from reporting what becomes an error.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                report(info);
            }
        }));
    });
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_becomes_an_error() {
        let work = || -> Result<(), String> { panic!("number {}", 5) };
        let failed = guarded(work, str::to_owned);
        assert!(failed.is_err_and(|reason| reason.contains("number 5")));
        assert_eq!(guarded(|| Ok::<_, String>(3), str::to_owned), Ok(3));
    }
}
