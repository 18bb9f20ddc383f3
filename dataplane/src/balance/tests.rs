use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use ringmesh_wire::snapshot::{Balance, EndpointState, Outlier};

use super::{Balancer, Claim, ClusterStatus, Limit, Pick, ShardShare, Tried, Verdict};
use crate::reason::Reason;
use crate::tables::testing::Draft;
use crate::tables::{ClusterIndex, ClusterKey, Tables};
use crate::time::Mono;

const OUTLIER: Outlier = Outlier {
    consecutive_5xx: 5,
    consecutive_gateway: 0,
    consecutive_local: 5,
    split_local: false,
    interval_ms: 10_000,
    base_ejection_ms: 30_000,
    ejection_percent_max: 10,
    min_health_percent: 0,
};

fn draft(endpoints: u8) -> Draft {
    (1..=endpoints).fold(Draft::new().service("a", &[80]), |draft, n| {
        draft.endpoint("a", &format!("10.0.0.{n}"), &[])
    })
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 10_080))
}

fn key() -> ClusterKey {
    ClusterKey {
        service: ringmesh_wire::ServiceId::new("a", "default"),
        port: 80,
        subset: None,
    }
}

/// A balancer over one cluster, with its own random numbers.
struct Bench {
    tables: Tables,
    cluster: ClusterIndex,
    balancer: Balancer,
    random: fastrand::Rng,
    now: Mono,
}

impl Bench {
    fn new(draft: &Draft) -> Self {
        let tables = draft.tables();
        let mut balancer = Balancer::new(ShardShare::WHOLE);
        balancer.swap(&tables);
        Self {
            cluster: tables.cluster_by_key(&key()).unwrap(),
            tables,
            balancer,
            random: fastrand::Rng::with_seed(42),
            now: Mono(0),
        }
    }

    fn swap(&mut self, draft: &Draft) -> Tables {
        let tables = draft.tables();
        self.balancer.swap(&tables);
        self.cluster = tables.cluster_by_key(&key()).unwrap();
        std::mem::replace(&mut self.tables, tables)
    }

    fn try_pick(&mut self, tried: &Tried) -> Result<Pick, Reason> {
        let random = self.random.u64(..);
        self.balancer
            .pick(&self.tables, self.cluster, self.now, random, tried, None)
    }

    fn pick(&mut self) -> Pick {
        self.try_pick(&Tried::default()).unwrap()
    }

    fn address(&self, pick: &Pick) -> SocketAddr {
        self.tables.cluster(self.cluster).endpoints[pick.endpoint].address
    }

    fn finish(&mut self, pick: Pick, verdict: Verdict) {
        self.balancer.finish(pick, verdict, self.now);
    }

    fn status(&self) -> ClusterStatus {
        self.balancer.status(&key()).unwrap()
    }

    /// Picks until `target` comes and gives it `verdict`; other picks end without one.
    fn judge(&mut self, target: SocketAddr, verdict: Verdict) {
        for _ in 0..10_000 {
            let pick = self.pick();
            if self.address(&pick) == target {
                return self.finish(pick, verdict);
            }
            self.finish(pick, Verdict::Neutral);
        }
        panic!("{target} is never picked");
    }

    fn ejected(&self) -> Vec<SocketAddr> {
        let endpoints = self.status().endpoints;
        endpoints
            .into_iter()
            .filter(|(_, _, ejected)| *ejected)
            .map(|(address, ..)| address)
            .collect()
    }

    /// Shares of `n` picks that end at once.
    fn shares(&mut self, n: u32) -> BTreeMap<SocketAddr, u32> {
        let mut shares = BTreeMap::new();
        for _ in 0..n {
            let pick = self.pick();
            *shares.entry(self.address(&pick)).or_default() += 1;
            self.finish(pick, Verdict::Answer(200));
        }
        shares
    }
}

#[test]
fn the_less_active_of_two_is_taken() {
    let mut bench = Bench::new(&draft(2));
    // Of two endpoints both are always drawn, so load alternates strictly.
    let mut held = Vec::new();
    for n in 1..=20u32 {
        held.push(bench.pick());
        let active: Vec<u32> = bench.status().endpoints.iter().map(|e| e.1).collect();
        assert_eq!(active.iter().sum::<u32>(), n);
        assert!(active[0].abs_diff(active[1]) <= 1, "{active:?}");
    }
    for pick in held {
        bench.finish(pick, Verdict::Answer(200));
    }
    assert_eq!(bench.status().active, 0);
    assert!(bench.status().endpoints.iter().all(|e| e.1 == 0));
}

#[test]
fn without_load_shares_are_even_or_by_weight() {
    for balance in [Balance::LeastRequest, Balance::Random, Balance::RoundRobin] {
        let mut even = draft(4);
        even.at("a").policy.balance = balance;
        for (address, count) in Bench::new(&even).shares(40_000) {
            assert!(
                (9_500..10_500).contains(&count),
                "{balance:?} {address} {count}"
            );
        }
        let mut weighted = Draft::new().service("a", &[80]);
        for (n, weight) in [(1, 1), (2, 2), (3, 7)] {
            weighted =
                weighted.endpoint_with("a", &format!("10.0.0.{n}"), &[], |e| e.weight = weight);
        }
        weighted.at("a").policy.balance = balance;
        let shares = Bench::new(&weighted).shares(100_000);
        for (n, wanted) in [(1, 10_000), (2, 20_000), (3, 70_000)] {
            let got = shares[&address(n)];
            assert!(got.abs_diff(wanted) < 800, "{balance:?} {n}: {got}");
        }
    }
}

#[test]
fn round_robin_takes_turns() {
    let mut draft = draft(3);
    draft.at("a").policy.balance = Balance::RoundRobin;
    let mut bench = Bench::new(&draft);
    let mut last = None;
    for (_, count) in bench.shares(300) {
        assert_eq!(count, 100);
    }
    for _ in 0..10 {
        let pick = bench.pick();
        let at = pick.endpoint;
        bench.finish(pick, Verdict::Neutral);
        if let Some(last) = last {
            assert_eq!(at, (last + 1) % 3);
        }
        last = Some(at);
    }
}

#[test]
fn consecutive_failures_eject_and_time_brings_back() {
    let mut draft = draft(3);
    draft.at("a").policy.outlier = Some(OUTLIER);
    let mut bench = Bench::new(&draft);
    let bad = address(2);
    for _ in 0..4 {
        bench.judge(bad, Verdict::Answer(500));
    }
    // Any answer below 500 begins the row anew.
    bench.judge(bad, Verdict::Answer(404));
    for _ in 0..4 {
        bench.judge(bad, Verdict::LocalFailure);
    }
    bench.judge(bad, Verdict::Neutral);
    assert_eq!(bench.ejected(), []);
    bench.judge(bad, Verdict::Answer(503));
    // 0 % were out, which is below 10 %, so one of three may go.
    assert_eq!(bench.ejected(), [bad]);
    assert!(!bench.shares(1_000).contains_key(&bad));
    // The share limit holds for the next one.
    for _ in 0..20 {
        bench.judge(address(1), Verdict::Answer(500));
    }
    assert_eq!(bench.ejected(), [bad]);
    bench.now = bench.now.plus_ms(29_999);
    assert!(!bench.shares(100).contains_key(&bad));
    bench.now = bench.now.plus_ms(1);
    assert!(bench.shares(100).contains_key(&bad));
    // Twice in a row is out for twice as long.
    for _ in 0..5 {
        bench.judge(bad, Verdict::Answer(500));
    }
    bench.now = bench.now.plus_ms(59_999);
    assert!(!bench.shares(100).contains_key(&bad));
    bench.now = bench.now.plus_ms(1);
    assert!(bench.shares(100).contains_key(&bad));
}

#[test]
fn healthy_intervals_shorten_the_next_ejection() {
    let mut draft = draft(3);
    draft.at("a").policy.outlier = Some(OUTLIER);
    let mut bench = Bench::new(&draft);
    let bad = address(1);
    let eject = |bench: &mut Bench| {
        for _ in 0..5 {
            bench.judge(bad, Verdict::Answer(500));
        }
    };
    eject(&mut bench);
    bench.now = bench.now.plus_ms(30_000);
    bench.shares(10);
    // Two looks, 10 s apart, while healthy: the count is back at none.
    for _ in 0..3 {
        bench.now = bench.now.plus_ms(10_000);
        bench.shares(10);
    }
    eject(&mut bench);
    bench.now = bench.now.plus_ms(30_000);
    assert!(bench.shares(100).contains_key(&bad));
}

#[test]
fn no_ejection_lasts_longer_than_five_minutes_or_the_base_time() {
    for (base_ejection_ms, longest_ms) in [(30_000, 300_000), (400_000, 400_000)] {
        let mut draft = draft(3);
        draft.at("a").policy.outlier = Some(Outlier {
            base_ejection_ms,
            ..OUTLIER
        });
        let mut bench = Bench::new(&draft);
        let bad = address(1);
        for _ in 0..100 {
            for _ in 0..5 {
                bench.judge(bad, Verdict::Answer(500));
            }
            assert_eq!(bench.ejected(), [bad]);
            bench.now = bench.now.plus_ms(longest_ms);
            bench.shares(10);
            assert_eq!(bench.ejected(), [], "{base_ejection_ms}");
        }
        // And is forgotten in as many quiet intervals as it takes to reach it.
        for _ in 0..longest_ms / base_ejection_ms {
            bench.now = bench.now.plus_ms(10_000);
            bench.shares(10);
        }
        for _ in 0..5 {
            bench.judge(bad, Verdict::Answer(500));
        }
        bench.now = bench.now.plus_ms(base_ejection_ms);
        bench.shares(10);
        assert_eq!(bench.ejected(), [], "{base_ejection_ms}");
    }
}

#[test]
fn gateway_and_local_rows_are_their_own() {
    let with = |change: &dyn Fn(&mut Outlier)| {
        let mut outlier = Outlier {
            consecutive_5xx: 0,
            ..OUTLIER
        };
        change(&mut outlier);
        let mut draft = draft(3);
        draft.at("a").policy.outlier = Some(outlier);
        Bench::new(&draft)
    };
    let bad = address(1);
    let mut gateway = with(&|o| o.consecutive_gateway = 2);
    gateway.judge(bad, Verdict::Answer(503));
    // 500 is no gateway error, and ends the row.
    gateway.judge(bad, Verdict::Answer(500));
    gateway.judge(bad, Verdict::Answer(502));
    assert_eq!(gateway.ejected(), []);
    gateway.judge(bad, Verdict::LocalFailure);
    assert_eq!(gateway.ejected(), [bad]);

    let mut local = with(&|o| {
        o.split_local = true;
        o.consecutive_local = 2;
    });
    for _ in 0..9 {
        local.judge(bad, Verdict::Answer(500));
    }
    local.judge(bad, Verdict::LocalFailure);
    assert_eq!(local.ejected(), []);
    local.judge(bad, Verdict::LocalFailure);
    assert_eq!(local.ejected(), [bad]);

    // All counts 0: nothing ever ejects.
    let mut off = with(&|o| o.split_local = false);
    for _ in 0..50 {
        off.judge(bad, Verdict::LocalFailure);
    }
    assert_eq!(off.ejected(), []);
}

#[test]
fn below_the_minimum_health_is_ignored() {
    let mut draft = draft(4);
    draft.at("a").policy.outlier = Some(Outlier {
        consecutive_5xx: 1,
        ejection_percent_max: 100,
        min_health_percent: 50,
        ..OUTLIER
    });
    let mut bench = Bench::new(&draft);
    bench.judge(address(1), Verdict::Answer(500));
    bench.judge(address(2), Verdict::Answer(500));
    assert_eq!(bench.shares(1_000).len(), 2);
    bench.judge(address(3), Verdict::Answer(500));
    assert_eq!(bench.ejected().len(), 3);
    assert_eq!(bench.shares(1_000).len(), 4);
}

#[test]
fn all_out_is_no_endpoint() {
    let mut draft = draft(1);
    draft.at("a").policy.outlier = Some(Outlier {
        consecutive_5xx: 1,
        ..OUTLIER
    });
    let mut bench = Bench::new(&draft);
    bench.judge(address(1), Verdict::Answer(500));
    assert_eq!(
        bench.try_pick(&Tried::default()).unwrap_err(),
        Reason::NoEndpoint
    );
    assert_eq!(
        Bench::new(&self::draft(0))
            .try_pick(&Tried::default())
            .unwrap_err(),
        Reason::NoEndpoint
    );
}

#[test]
fn last_known_ones_serve_only_alone() {
    let with = |states: &[EndpointState]| {
        let mut draft = Draft::new().service("a", &[80]);
        for (n, state) in (1..).zip(states) {
            draft = draft.endpoint_with("a", &format!("10.0.0.{n}"), &[], |e| e.state = *state);
        }
        Bench::new(&draft)
            .shares(200)
            .into_keys()
            .collect::<Vec<_>>()
    };
    use EndpointState::{LastKnown, Ready, Unconfirmed};
    assert_eq!(with(&[LastKnown, Ready]), [address(2)]);
    assert_eq!(with(&[LastKnown]), [address(1)]);
    assert_eq!(with(&[Unconfirmed, Ready]), [address(1), address(2)]);
    assert_eq!(with(&[LastKnown, Unconfirmed]), [address(2)]);
}

#[test]
fn retries_go_elsewhere_while_there_is_elsewhere() {
    let mut bench = Bench::new(&draft(3));
    for _ in 0..200 {
        let mut tried = Tried::default();
        for _ in 0..3 {
            let pick = bench.try_pick(&tried).unwrap();
            let address = bench.address(&pick);
            assert!(!tried.contains(address));
            tried.push(address);
            bench.finish(pick, Verdict::Neutral);
        }
        let again = bench.try_pick(&tried).unwrap();
        bench.finish(again, Verdict::Neutral);
    }
}

#[test]
fn the_dialled_endpoint_is_taken_and_no_other() {
    let mut bench = Bench::new(&draft(3));
    for n in 1..=3 {
        let pick = bench.balancer.pick(
            &bench.tables,
            bench.cluster,
            bench.now,
            0,
            &Tried::default(),
            Some(address(n)),
        );
        let pick = pick.unwrap();
        assert_eq!(bench.address(&pick), address(n));
        bench.finish(pick, Verdict::Neutral);
    }
    let nobody = bench.balancer.pick(
        &bench.tables,
        bench.cluster,
        bench.now,
        0,
        &Tried::default(),
        Some(address(99)),
    );
    assert_eq!(nobody.unwrap_err(), Reason::NoEndpoint);
}

#[test]
fn limits_are_kept_and_come_back() {
    let mut draft = draft(2);
    let limits = &mut draft.at("a").policy.limits;
    limits.requests_max = 2;
    limits.pending_max = 1;
    limits.connections_max = 1;
    limits.retries_max = 2;
    let mut bench = Bench::new(&draft);
    let (first, second) = (bench.pick(), bench.pick());
    assert_eq!(
        bench.try_pick(&Tried::default()).unwrap_err(),
        Reason::Overflow
    );
    let waiting = bench.balancer.wait(&first).unwrap();
    assert_eq!(bench.balancer.wait(&second).unwrap_err(), Reason::Overflow);
    bench.balancer.waited(waiting);
    let waiting = bench.balancer.wait(&second).unwrap();
    bench.balancer.waited(waiting);
    let open = bench.balancer.open(&first, None, bench.now).unwrap();
    assert_eq!(
        bench.balancer.open(&second, None, bench.now).unwrap_err(),
        Reason::Overflow
    );
    bench.balancer.closed(open);
    bench.finish(first, Verdict::Neutral);
    let third = bench.pick();
    bench.finish(second, Verdict::Neutral);
    bench.finish(third, Verdict::Neutral);
    let retry = |bench: &mut Bench| bench.balancer.retry(&bench.tables, bench.cluster);
    let held = [retry(&mut bench).unwrap(), retry(&mut bench).unwrap()];
    assert_eq!(retry(&mut bench).unwrap_err(), Reason::Overflow);
    for retrying in held {
        bench.balancer.retried(retrying);
    }
    let status = bench.status();
    assert_eq!(
        (
            status.active,
            status.pending,
            status.connections,
            status.retries
        ),
        (0, 0, 0, 0)
    );
}

#[test]
fn the_retry_budget_is_a_fifth_of_the_load_and_three() {
    let mut bench = Bench::new(&draft(2));
    for (load, budget) in [(0, 3), (10, 3), (20, 4), (100, 20)] {
        let picks: Vec<_> = (0..load).map(|_| bench.pick()).collect();
        let mut held = Vec::new();
        while let Ok(retrying) = bench.balancer.retry(&bench.tables, bench.cluster) {
            held.push(retrying);
        }
        assert_eq!(held.len(), budget, "{load}");
        held.into_iter().for_each(|r| bench.balancer.retried(r));
        for pick in picks {
            bench.finish(pick, Verdict::Neutral);
        }
    }
}

#[test]
fn shares_of_all_shards_sum_up_to_the_limit() {
    for shards in 1..=9 {
        for limit in [0, 1, 2, 7, 1_000, u32::MAX - 1] {
            let sum: u64 = (0..shards)
                .map(|shard| u64::from(ShardShare { shard, shards }.of(limit)))
                .sum();
            assert_eq!(sum, u64::from(limit));
        }
        let unlimited = ShardShare { shard: 0, shards }.of(u32::MAX);
        assert_eq!(unlimited, u32::MAX);
    }
}

#[test]
fn state_is_carried_over_by_address() {
    let mut before = draft(3);
    before.at("a").policy.outlier = Some(OUTLIER);
    let mut bench = Bench::new(&before);
    for _ in 0..5 {
        bench.judge(address(2), Verdict::Answer(500));
    }
    let held: Vec<_> = (0..6).map(|_| bench.pick()).collect();
    // Another order, 1 is gone, 9 is new; and another cluster comes before this one.
    let mut after = Draft::new().service("0", &[80]).service("a", &[80]);
    for n in [9, 3, 2] {
        after = after.endpoint("a", &format!("10.0.0.{n}"), &[]);
    }
    after.at("a").policy.outlier = Some(OUTLIER);
    let old = bench.swap(&after);
    assert_eq!(bench.ejected(), [address(2)]);
    let active = |bench: &Bench| -> BTreeMap<_, _> {
        let endpoints = bench.status().endpoints;
        endpoints.into_iter().map(|(a, n, _)| (a, n)).collect()
    };
    assert_eq!(active(&bench)[&address(3)], 3);
    assert_eq!(active(&bench)[&address(9)], 0);
    assert_eq!(bench.status().active, 6);
    // An exchange under the old tables still finds its cluster and an endpoint both know.
    let cluster = old.cluster_by_key(&key()).unwrap();
    let late = bench
        .balancer
        .pick(&old, cluster, bench.now, 5, &Tried::default(), None)
        .unwrap();
    assert_eq!(
        old.cluster(cluster).endpoints[late.endpoint].address,
        address(3)
    );
    bench.finish(late, Verdict::Answer(200));
    for pick in held {
        bench.finish(pick, Verdict::Answer(200));
    }
    assert_eq!(bench.status().active, 0);
    assert!(active(&bench).values().all(|n| *n == 0));
}

#[test]
fn a_free_place_goes_to_the_shard_that_has_waited_longest() {
    let mut draft = draft(1);
    draft.at("a").policy.limits.connections_max = 1;
    let mut bench = Bench::new(&draft);
    let key = bench.tables.cluster(bench.cluster).key.clone();
    let slot = bench.balancer.slot_named(&bench.tables, &key).unwrap();
    let pick = bench.pick();
    let now = bench.now;
    let balancer = &mut bench.balancer;
    let claim = |from, since| Claim { from, slot, since };
    let open = balancer.open(&pick, None, now).unwrap();
    balancer.claim(slot, claim(2, now.plus_ms(5)), now);
    balancer.claim(slot, claim(1, now), now);
    let now = now.plus_ms(50);
    // It is in use.
    assert!(balancer.is_owed(slot, None, now));
    assert_eq!(balancer.give_way(slot, None, now), None);
    balancer.closed(open);
    assert_eq!(balancer.open(&pick, None, now), Err(Reason::Overflow));
    // Who waits here came hardly later.
    let own_since = Some(bench.now.plus_ms(5));
    let open = balancer.open(&pick, own_since, now).unwrap();
    balancer.closed(open);
    // One place is for one claim.
    assert_eq!(
        balancer.give_way(slot, None, now),
        Some(claim(1, bench.now))
    );
    assert_eq!(balancer.give_way(slot, None, now), None);
    assert!(balancer.is_owed(slot, None, now));
    balancer.yielded(slot);
    let other = balancer.give_way(slot, None, now).unwrap();
    assert_eq!(other.from, 2);
    assert!(!balancer.is_owed(slot, None, now));
    bench.finish(pick, Verdict::Neutral);
}

#[test]
fn what_requests_here_wait_for_is_not_lent() {
    let mut draft = draft(1);
    draft.at("a").policy.limits.connections_max = 4;
    let mut bench = Bench::new(&draft);
    let slot = bench.balancer.slot(&bench.tables, bench.cluster);
    let lend = |bench: &mut Bench, kept| bench.balancer.lend(slot, Limit::Connections, kept);
    assert_eq!(lend(&mut bench, 4), 0);
    assert_eq!(lend(&mut bench, 7), 0);
    assert_eq!(lend(&mut bench, 3), 1);
    // Half of the others.
    assert_eq!(lend(&mut bench, 1), 1);
    assert_eq!(lend(&mut bench, 0), 1);
}

#[test]
fn tokens_of_what_is_gone_change_nothing() {
    let mut bench = Bench::new(&draft(1));
    let pick = bench.pick();
    let open = bench.balancer.open(&pick, None, bench.now).unwrap();
    let waiting = bench.balancer.wait(&pick).unwrap();
    let retrying = bench.balancer.retry(&bench.tables, bench.cluster).unwrap();
    let other = Draft::new()
        .service("b", &[80])
        .endpoint("b", "10.0.0.1", &[]);
    bench.balancer.swap(&other.tables());
    // The same name again is another cluster: its counts begin at none.
    bench.swap(&draft(1));
    let fresh = bench.pick();
    bench.finish(pick, Verdict::Answer(200));
    bench.balancer.closed(open);
    bench.balancer.waited(waiting);
    bench.balancer.retried(retrying);
    assert_eq!(bench.status().active, 1);
    bench.finish(fresh, Verdict::Answer(200));
    assert_eq!(bench.status().active, 0);
}

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Pick(u64),
    Finish(usize, Verdict),
    Later(u64),
    Swap(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u64>().prop_map(Step::Pick),
        4 => (any::<usize>(), prop_oneof![
            Just(Verdict::Answer(200)),
            Just(Verdict::Answer(503)),
            Just(Verdict::LocalFailure),
            Just(Verdict::Neutral),
        ]).prop_map(|(at, verdict)| Step::Finish(at, verdict)),
        1 => (0u64..40_000).prop_map(Step::Later),
        1 => (1u8..=5).prop_map(Step::Swap),
    ]
}

proptest! {
    /// Whatever happens: an ejected endpoint is never picked, counts agree with what is held, and
    /// no limit is exceeded.
    #[test]
    fn counts_agree_and_ejected_ones_rest(
        steps in proptest::collection::vec(step(), 1..200),
        requests_max in 1u32..12,
    ) {
        let make = |n| {
            let mut draft = draft(n);
            let policy = &mut draft.at("a").policy;
            policy.limits.requests_max = requests_max;
            policy.outlier = Some(Outlier { consecutive_5xx: 2, ejection_percent_max: 60, ..OUTLIER });
            draft
        };
        let mut bench = Bench::new(&make(3));
        let mut held: Vec<Pick> = Vec::new();
        for step in steps {
            match step {
                Step::Pick(random) => {
                    let got = bench.balancer.pick(
                        &bench.tables, bench.cluster, bench.now, random, &Tried::default(), None,
                    );
                    match got {
                        Ok(pick) => {
                            let address = bench.address(&pick);
                            prop_assert!(!bench.ejected().contains(&address));
                            held.push(pick);
                        }
                        Err(Reason::Overflow) => prop_assert!(held.len() as u32 >= requests_max),
                        Err(reason) => prop_assert_eq!(reason, Reason::NoEndpoint),
                    }
                }
                Step::Finish(at, verdict) if !held.is_empty() => {
                    let pick = held.swap_remove(at % held.len());
                    bench.finish(pick, verdict);
                }
                Step::Finish(..) => {}
                Step::Later(ms) => bench.now = bench.now.plus_ms(ms),
                Step::Swap(n) => {
                    bench.swap(&make(n));
                }
            }
            if let Some(status) = bench.balancer.status(&key()) {
                prop_assert_eq!(status.active as usize, held.len());
                prop_assert!(status.active <= requests_max);
                let counted: u32 = status.endpoints.iter().map(|e| e.1).sum();
                prop_assert!(counted as usize <= held.len());
            }
        }
    }
}
