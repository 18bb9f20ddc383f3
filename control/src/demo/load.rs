//! Traffic: many calls over a few keep-alive connections, as a program with a connection pool makes them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::stage::{Answer, Conn, Result};

/// How long one answer may take: longer than any rule of the demo.
const PATIENCE: Duration = Duration::from_secs(40);

/// One call, repeated.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The caller's sidecar.
    pub to: SocketAddr,
    /// `Host`.
    pub authority: &'a str,
    /// Path.
    pub target: &'a str,
    /// `User-Agent`, by which the app tells callers apart.
    pub caller: &'a str,
}

impl Call<'_> {
    /// Makes it `n` times over `conns` connections at the same time; answers in no order.
    ///
    /// # Errors
    /// One call got no HTTP answer: that is never right.
    pub fn times(self, n: u32, conns: u32) -> Result<Vec<Answer>> {
        let left = AtomicU32::new(n);
        std::thread::scope(|scope| {
            let work = || {
                self.worker(|| {
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                })
            };
            let threads: Vec<_> = (0..conns).map(|_| scope.spawn(work)).collect();
            let mut answers = Vec::new();
            for thread in threads {
                answers.extend(
                    thread
                        .join()
                        .map_err(|_| "a caller's thread panicked".to_owned())??,
                );
            }
            Ok(answers)
        })
    }

    /// Makes it over one connection until `stop`.
    ///
    /// # Errors
    /// As [`Self::times`].
    pub fn until(self, stop: &AtomicBool) -> Result<Vec<Answer>> {
        self.worker(|| !stop.load(Ordering::Relaxed))
    }

    fn worker(self, more: impl Fn() -> bool) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let mut conn = None;
        while more() {
            let mut open = match conn.take() {
                Some(conn) => conn,
                None => Conn::open(self.to, PATIENCE)?,
            };
            let answer = open.get(self.authority, self.target, &[("user-agent", self.caller)])?;
            let closes = answer
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if !closes {
                conn = Some(open);
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

/// How many answers have a status.
#[must_use]
pub fn with_status(answers: &[Answer], status: u16) -> u32 {
    let count = answers
        .iter()
        .filter(|answer| answer.status == status)
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The statuses, with the mesh's reason where there is one, and how often each came, for people.
#[must_use]
pub fn statuses(answers: &[Answer]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for answer in answers {
        let reason = answer.header("x-ringmesh-reason").unwrap_or_default();
        *counts.entry((answer.status, reason)).or_insert(0_u32) += 1;
    }
    let words: Vec<String> = counts
        .iter()
        .map(|((status, reason), count)| {
            format!("{count} x {status} {reason}").trim_end().to_owned()
        })
        .collect();
    words.join(", ")
}
