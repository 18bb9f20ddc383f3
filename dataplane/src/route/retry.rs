//! Whether a failed try is repeated, and after how long.
//!
//! Pure state of one exchange. The caller says what happened and what is known of the request;
//! limits that many exchanges share (retry budget, `maxRetries`) are `balance`'s.

use ringmesh_wire::snapshot::{Retry, RetryOn};

use super::choose::scaled;

/// First step of the back-off, milliseconds (Envoy's default).
pub const BACKOFF_BASE_MS: u64 = 25;
/// No back-off is longer, milliseconds: ten times the base.
pub const BACKOFF_MAX_MS: u64 = 250;

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryOutcome {
    /// The upstream answered.
    Answer {
        /// Its status.
        status: u16,
        /// gRPC status of an answer that consists of trailers alone.
        grpc_status: Option<u8>,
    },
    /// No connection could be made, in time or at all: nothing was sent.
    ConnectFailure,
    /// The upstream said it did not process the request.
    Refused,
    /// The connection ended before the first byte of a response.
    Reset {
        /// The connection had served requests before: perhaps its idle time was over.
        reused: bool,
    },
    /// No response headers within the try's own time.
    TryTimeout,
    /// The mesh itself had no room (breaker, own limit) or no endpoint: trying again adds load.
    Shed,
}

/// What is known of the request when a try has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryFacts {
    /// GET, HEAD, OPTIONS, TRACE, PUT or DELETE (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Some byte of the request may have reached the upstream.
    pub sent: bool,
    /// The whole request is at hand to be sent again.
    pub replayable: bool,
    /// Some byte of a response went downstream: nothing can be tried again.
    pub response_begun: bool,
    /// Time left of the route's timeout, milliseconds; `None` without a timeout.
    pub remaining_ms: Option<u64>,
    /// `mesh.retry_non_idempotent`.
    pub retry_non_idempotent: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this many milliseconds, at another endpoint if there is one.
    Retry {
        /// Back-off, milliseconds.
        backoff_ms: u64,
    },
    /// This outcome stands.
    GiveUp,
}

/// Retries of one exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryState {
    used: u32,
    idle_race_used: bool,
}

impl RetryState {
    /// Retries made so far.
    #[must_use]
    pub fn used(self) -> u32 {
        self.used + u32::from(self.idle_race_used)
    }

    /// A pooled connection failed this exchange: the replay must not be left to another of its kind.
    #[must_use]
    pub fn raced(self) -> bool {
        self.idle_race_used
    }

    /// Decides after a failed (or answered) try. `random` is 64 fresh random bits.
    pub fn next(
        &mut self,
        rule: &Retry,
        outcome: TryOutcome,
        facts: &TryFacts,
        random: u64,
    ) -> Next {
        if facts.response_begun || !facts.replayable || facts.remaining_ms == Some(0) {
            return Next::GiveUp;
        }
        // A pooled connection the server was just closing: no fault of the request, so it costs
        // none of its retries. Once, and only where repeating cannot do a thing twice.
        if outcome == (TryOutcome::Reset { reused: true })
            && !self.idle_race_used
            && (facts.idempotent || !facts.sent)
        {
            self.idle_race_used = true;
            return Next::Retry { backoff_ms: 0 };
        }
        if self.used >= rule.attempts || !wanted(rule, outcome, facts) {
            return Next::GiveUp;
        }
        let backoff_ms = backoff_ms(self.used + 1, random);
        // A retry that may not end in time is still started, but not one that could not begin.
        if facts.remaining_ms.is_some_and(|left| backoff_ms >= left) {
            return Next::GiveUp;
        }
        self.used += 1;
        Next::Retry { backoff_ms }
    }
}

/// Whether the rule names the outcome.
fn wanted(rule: &Retry, outcome: TryOutcome, facts: &TryFacts) -> bool {
    let on = &rule.on;
    match outcome {
        TryOutcome::Answer {
            status,
            grpc_status,
        } => {
            (on.server_error && (500..=599).contains(&status))
                || (on.gateway_error && matches!(status, 502..=504))
                || (on.retriable_4xx && status == 409)
                || on.statuses.contains(&status)
                || grpc_status.is_some_and(|code| on.grpc.contains(&code))
        }
        // To Envoy every end without a response is a reset, and so are these three.
        TryOutcome::ConnectFailure => on.connect_failure || any_reset(on),
        TryOutcome::Refused => on.refused_stream || any_reset(on),
        TryOutcome::Reset { .. } => any_reset(on),
        TryOutcome::TryTimeout => {
            // `try_timeout` is what perTryTimeout without retryOn adds by itself, so it may not
            // repeat what must not happen twice; the other three the user wrote.
            any_reset(on)
                || (on.try_timeout
                    && (facts.idempotent || !facts.sent || facts.retry_non_idempotent))
        }
        TryOutcome::Shed => false,
    }
}

fn any_reset(on: &RetryOn) -> bool {
    on.reset || on.server_error || on.gateway_error
}

/// Full jitter: retry n waits uniformly in `0..min((2^n - 1) * 25, 250)` milliseconds.
fn backoff_ms(n: u32, random: u64) -> u64 {
    let steps = 1u64.checked_shl(n).map_or(u64::MAX, |power| power - 1);
    let below = steps.saturating_mul(BACKOFF_BASE_MS).min(BACKOFF_MAX_MS);
    scaled(random, below)
}

/// Whether a method may be repeated without doing a thing twice (RFC 9110 section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    )
}
