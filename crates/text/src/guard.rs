//! Panics of the tokenizers crate as errors.
//!
//! That crate unwraps in hundreds of places, and some damaged files and odd texts lead there. Whatever it does with
//! either goes through [`guarded`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside of [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it becomes the error that `failed` makes of its message.
pub(crate) fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>, failed: impl FnOnce(String) -> E) -> Result<T, E> {
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
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the tokenizers crate cannot handle it ({text})")
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_becomes_an_error() {
        let work = || -> Result<(), String> { panic!("number {}", 5) };
        let failed = guarded(work, |reason| reason);
        assert!(failed.is_err_and(|reason| reason.contains("number 5")));
        assert_eq!(guarded(|| Ok::<_, String>(3), |reason| reason), Ok(3));
    }
}
