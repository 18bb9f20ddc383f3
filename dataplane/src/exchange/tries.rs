//! The tries of one request: pick an endpoint, attempt, decide whether another may help.

use std::cell::Cell;

use ringmesh_wire::snapshot::Retry;

use super::acquire::Bound;
use super::attempt::{self, Changes, TryEnd, Way};
use super::borrow;
use super::context::Exchange;
use super::pipeline::{End, Moving};
use super::record::Record;
use crate::balance::{Limit, Retrying, Tried, Verdict};
use crate::reason::Reason;
use crate::route::Choice;
use crate::route::retry::{self, Next, RetryState, TryFacts, TryOutcome};
use crate::tables::{ClusterIndex, Destined};
use crate::telemetry::Event;
use crate::time::Mono;

/// The tries of one request, with the place in the retry budget that a repeated one holds from its
/// back-off to its end.
pub(super) async fn by_rule<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    destined: &Destined,
    choice: &Choice<'_>,
    cluster: ClusterIndex,
    changes: &Changes<'_>,
) -> End<'x> {
    let held = Cell::new(None);
    let end = try_by_try(x, moving, record, destined, choice, cluster, changes, &held).await;
    if let Some(retrying) = held.take() {
        x.shard.balancer.borrow_mut().retried(retrying);
    }
    end
}

/// Pick, attempt, decide, again.
async fn try_by_try<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    destined: &Destined,
    choice: &Choice<'_>,
    cluster: ClusterIndex,
    changes: &Changes<'_>,
    held: &Cell<Option<Retrying>>,
) -> End<'x> {
    let shard = x.shard;
    let tables = &*x.active.tables;
    let row = tables.cluster(cluster);
    let only = destined.only_in(row);
    let rule = &choice.route.retry;
    // The route's timeout does not cover an injected delay.
    let begun = shard.now();
    let deadline = choice
        .route
        .timeout_ms
        .map_or(Mono::NEVER, |ms| begun.plus_ms(ms))
        .min(x.grpc_deadline());
    let mut state = RetryState::default();
    let mut tried = Tried::default();
    loop {
        // An injected delay or a back-off may have been longer than the client waits.
        let now = shard.now();
        if deadline <= now {
            return End::of(Reason::Timeout);
        }
        record.tries += 1;
        let random = shard.random();
        let picked = shard
            .balancer
            .borrow_mut()
            .pick(tables, cluster, now, random, &tried, only);
        let pick = match picked {
            // Another shard may have room. Boxed: the rare way takes no room in every exchange.
            Err(Reason::Overflow) if shard.borrowing.has_peers() => {
                let slot = shard.balancer.borrow_mut().slot(tables, cluster);
                Box::pin(borrow::take(shard, slot, Limit::Requests, |balancer| {
                    balancer.pick(tables, cluster, now, random, &tried, only)
                }))
                .await
            }
            picked => picked,
        };
        let pick = match pick {
            Ok(pick) => pick,
            Err(reason) => return End::of(reason),
        };
        if rule.attempts > 0 {
            borrow::ahead(shard, pick.cluster, Limit::Retries);
        }
        let at = pick.endpoint;
        let endpoint = &row.endpoints[at];
        tried.push(endpoint.address);
        record.endpoint = Some(at);
        record.upstream = Some(endpoint.address);
        if endpoint.addresses().any(|at| shard.is_own(at)) {
            shard
                .balancer
                .borrow_mut()
                .finish(pick, Verdict::Neutral, now);
            return End::of(Reason::Loop);
        }
        let way = Way {
            link: endpoint.link,
            sni: &row.sni,
            pool: x.active.pool(cluster, at),
            lanes: x.active.lanes(cluster, at),
            endpoint: Some((cluster, at)),
            bound: row.limits_connecting().then_some(Bound {
                pick: &pick,
                cluster: &row.key,
                counts: row.limits_connections(),
            }),
            connect_timeout_ms: row.policy.connect_timeout_ms,
            exchanges_max: row.policy.limits.requests_per_connection_max,
            speaks: x.speaks(row.port.protocol),
            fresh: state.raced(),
        };
        let try_deadline = match rule.per_try_timeout_ms {
            0 => Mono::NEVER,
            ms => now.plus_ms(ms),
        };
        let idempotent = retry::is_idempotent(x.request.method());
        let mut backoff = 0;
        let mut next_state = state;
        let end = attempt::attempt(
            x,
            &way,
            changes,
            &mut moving.body,
            moving.response,
            moving.response_body,
            record,
            moving.sleep.as_mut(),
            deadline,
            try_deadline,
            |status, grpc_status| {
                let outcome = TryOutcome::Answer {
                    status,
                    grpc_status,
                };
                let facts = TryFacts {
                    idempotent,
                    sent: true,
                    // Asked only where it is.
                    replayable: true,
                    response_begun: false,
                    remaining_ms: remaining_ms(deadline, shard.now()),
                    retry_non_idempotent: tables.mesh.retry_non_idempotent,
                };
                match next_state.next(rule, outcome, &facts, shard.random()) {
                    // Without a place in the budget the answer stands as it came.
                    Next::Retry { backoff_ms } if may_retry(x, cluster, held) => {
                        backoff = backoff_ms;
                        true
                    }
                    Next::Retry { .. } | Next::GiveUp => false,
                }
            },
        )
        .await;
        let verdict = match &end {
            TryEnd::Finished(_, verdict)
            | TryEnd::Unwanted(verdict)
            | TryEnd::Hopeless(_, verdict)
            | TryEnd::Failed(_, _, verdict) => *verdict,
            TryEnd::ClientGone => Verdict::Neutral,
        };
        shard
            .balancer
            .borrow_mut()
            .finish(pick, verdict, shard.now());
        let (outcome, reason) = match end {
            TryEnd::Finished(after, _) => return End::Done(after),
            TryEnd::Hopeless(reason, _) => return End::of(reason),
            TryEnd::ClientGone => return End::ClientGone,
            TryEnd::Unwanted(_) => {
                state = next_state;
                if !back_off(x, moving, backoff).await {
                    return End::ClientGone;
                }
                continue;
            }
            TryEnd::Failed(outcome, reason, _) => (outcome, reason),
        };
        let facts = TryFacts {
            idempotent,
            sent: !matches!(outcome, TryOutcome::ConnectFailure | TryOutcome::Refused),
            replayable: moving.body.is_replayable(),
            response_begun: false,
            remaining_ms: remaining_ms(deadline, shard.now()),
            retry_non_idempotent: tables.mesh.retry_non_idempotent,
        };
        if facts.remaining_ms == Some(0) {
            return End::of(Reason::Timeout);
        }
        match state.next(rule, outcome, &facts, shard.random()) {
            Next::Retry { backoff_ms } if may_retry(x, cluster, held) => {
                if !back_off(x, moving, backoff_ms).await {
                    return End::ClientGone;
                }
            }
            Next::Retry { .. } | Next::GiveUp => return End::of(reason),
        }
    }
}

/// Takes a place in the retry budget, after giving back the one of the retry before. False: the
/// budget is used up.
fn may_retry(x: &Exchange<'_>, cluster: ClusterIndex, held: &Cell<Option<Retrying>>) -> bool {
    let mut balancer = x.shard.balancer.borrow_mut();
    if let Some(over) = held.take() {
        balancer.retried(over);
    }
    let taken = balancer.retry(&x.active.tables, cluster).ok();
    let may = taken.is_some();
    held.set(taken);
    if may {
        x.shard.meter().count(Event::Retried);
    }
    may
}

/// Waits before the next try. False: the client has given up.
async fn back_off(x: &Exchange<'_>, moving: &mut Moving<'_>, backoff_ms: u64) -> bool {
    // Rare: boxed, so that it takes no room in every exchange.
    backoff_ms == 0 || Box::pin(moving.pause(x, backoff_ms)).await.is_some()
}

fn remaining_ms(deadline: Mono, now: Mono) -> Option<u64> {
    (deadline != Mono::NEVER)
        .then(|| u64::try_from(deadline.since(now).as_millis()).unwrap_or(u64::MAX))
}

/// A way without routing rules: no timeout, and no retry but the one for a pooled connection that
/// the server was just closing.
pub(super) async fn once<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    way: &Way<'_>,
) -> End<'x> {
    /// A server that did not process a request may be asked again (RFC 9113 section 8.7).
    const NO_RETRIES: Retry = Retry {
        attempts: 1,
        per_try_timeout_ms: 0,
        on: ringmesh_wire::snapshot::RetryOn {
            connect_failure: false,
            refused_stream: true,
            reset: false,
            try_timeout: false,
            server_error: false,
            gateway_error: false,
            retriable_4xx: false,
            statuses: Vec::new(),
            grpc: Vec::new(),
        },
    };
    let changes = Changes {
        path: Some(x.path),
        host: None,
        request: &[],
        response: &[],
    };
    let deadline = x.grpc_deadline();
    if deadline != Mono::NEVER && deadline <= x.shard.now() {
        return End::of(Reason::Timeout);
    }
    let mut state = RetryState::default();
    loop {
        record.tries += 1;
        let way = Way {
            fresh: state.raced(),
            ..*way
        };
        let end = attempt::attempt(
            x,
            &way,
            &changes,
            &mut moving.body,
            moving.response,
            moving.response_body,
            record,
            moving.sleep.as_mut(),
            deadline,
            Mono::NEVER,
            |_, _| false,
        )
        .await;
        let (outcome, reason) = match end {
            TryEnd::Finished(after, _) => return End::Done(after),
            TryEnd::Hopeless(reason, _) => return End::of(reason),
            TryEnd::ClientGone => return End::ClientGone,
            TryEnd::Unwanted(_) => return End::of(Reason::BadResponse),
            TryEnd::Failed(outcome, reason, _) => (outcome, reason),
        };
        let facts = TryFacts {
            idempotent: retry::is_idempotent(x.request.method()),
            sent: !matches!(outcome, TryOutcome::ConnectFailure | TryOutcome::Refused),
            replayable: moving.body.is_replayable(),
            response_begun: false,
            remaining_ms: remaining_ms(deadline, x.shard.now()),
            retry_non_idempotent: false,
        };
        match state.next(&NO_RETRIES, outcome, &facts, x.shard.random()) {
            Next::Retry { .. } => {}
            Next::GiveUp => return End::of(reason),
        }
    }
}
