//! Waiting for conditions. The only place here that lets time pass.

use std::time::{Duration, Instant};

use super::Result;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(15);

/// Polls until `look` gives a value.
///
/// # Errors
/// The deadline passed; `what` says what was waited for, and the last reason is added.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!(
                    "{what} did not happen within {patience:?}: {error}"
                ));
            }
            Err(_) => pass(POLL),
        }
    }
}

/// [`until`] for a plain condition.
///
/// # Errors
/// The deadline passed.
pub fn until_true(what: &str, patience: Duration, mut look: impl FnMut() -> bool) -> Result<()> {
    until(what, patience, || {
        if look() {
            Ok(())
        } else {
            Err("still not".to_owned())
        }
    })
}

/// Lets time pass where time itself is the subject: a quota's window, a moment between requests.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that may: poll interval and real windows"
)]
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Waits for a point in time counted from `start`.
pub fn until_after(start: Instant, offset: Duration) {
    pass((start + offset).saturating_duration_since(Instant::now()));
}
