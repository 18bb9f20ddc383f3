//! A standalone shard: it owns everything, so each answer is exact.

use ringmesh_wire::Expr;
use ringmesh_wire::expr::{ExprNode, Value};
use ringmesh_wire::snapshot::{Applies, LimitOverride, QuotaScope};

use super::*;

const SECOND: Nanos = 1_000_000_000;

fn any_value() -> Expr {
    Expr {
        nodes: vec![ExprNode::Const(Value::String(String::new()))],
    }
}

fn limit(amount_max: u64, seconds: u64) -> Limit {
    Limit {
        amount_max,
        window_ms: seconds * 1_000,
    }
}

fn over(dimensions: &[(&str, &str)], limit: Limit) -> LimitOverride {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    LimitOverride {
        dimensions: dimensions.iter().map(own).collect(),
        limit,
    }
}

/// `rules/memquota.yaml`.
fn memquota(scope: QuotaScope) -> QuotaRule {
    let dimensions = [
        "destination",
        "destinationVersion",
        "source",
        "sourceVersion",
    ];
    QuotaRule {
        name: "requestcount.quota.istio-system".into(),
        when: None,
        dimensions: dimensions.map(|name| (name.to_owned(), any_value())).into(),
        charge: 1,
        limit: limit(5_000, 1),
        overrides: vec![
            over(
                &[
                    ("destination", "ratings"),
                    ("source", "reviews"),
                    ("sourceVersion", "v3"),
                ],
                limit(1, 5),
            ),
            over(&[("destination", "ratings")], limit(5, 10)),
        ],
        scope,
        applies: Applies::Inbound,
        enforcers: 1,
        group: 0,
    }
}

fn standalone(rules: &[QuotaRule]) -> Cells {
    let home = Home {
        shard: 0,
        shards: 1,
        standalone: true,
    };
    let mut cells = Cells::new(home, 7);
    cells.install(rules, OnQuotaUnavailable::Share, 0);
    cells
}

fn call(cells: &mut Cells, source: &str, version: &str, now: Nanos) -> Verdict {
    let mut ask = cells.ask();
    ask.rule(0)
        .value("ratings")
        .value("v1")
        .value(source)
        .value(version);
    ask.decide(now)
}

const DENIED: Verdict = Verdict::Exhausted { rule: 0 };

#[test]
fn the_example() {
    let mut cells = standalone(&[memquota(QuotaScope::Dimensions)]);
    let at = |tenths: u64| 100 * SECOND + tenths * SECOND / 10;
    assert_eq!(call(&mut cells, "reviews", "v3", at(0)), Verdict::Admit);
    assert_eq!(call(&mut cells, "reviews", "v3", at(45)), DENIED);
    assert_eq!(call(&mut cells, "reviews", "v3", at(52)), Verdict::Admit);
    assert_eq!(call(&mut cells, "reviews", "v3", at(90)), DENIED);
}

#[test]
fn each_caller_has_a_bucket_of_its_own_unless_the_scope_is_the_override() {
    let now = 100 * SECOND;
    for (scope, admitted) in [(QuotaScope::Dimensions, 10), (QuotaScope::Override, 5)] {
        let mut cells = standalone(&[memquota(scope)]);
        let calls =
            (0..20).map(|n| call(&mut cells, if n % 2 == 0 { "a" } else { "b" }, "v1", now));
        let admits = calls.filter(|verdict| *verdict == Verdict::Admit).count();
        assert_eq!(admits, admitted, "{scope:?}");
    }
}

#[test]
fn a_later_denial_gives_the_earlier_charges_back() {
    let mut wide = memquota(QuotaScope::Dimensions);
    wide.name = "wide".into();
    wide.overrides.clear();
    wide.limit = limit(3, 1);
    let mut cells = standalone(&[wide, memquota(QuotaScope::Dimensions)]);
    let both = |cells: &mut Cells| {
        let mut ask = cells.ask();
        for rule in [0, 1] {
            ask.rule(rule)
                .value("ratings")
                .value("v1")
                .value("reviews")
                .value("v3");
        }
        ask.decide(SECOND)
    };
    assert_eq!(both(&mut cells), Verdict::Admit);
    for _ in 0..10 {
        assert_eq!(both(&mut cells), Verdict::Exhausted { rule: 1 });
    }
    assert_eq!(call(&mut cells, "reviews", "v3", SECOND), Verdict::Admit);
    assert_eq!(call(&mut cells, "reviews", "v3", SECOND), Verdict::Admit);
    assert_eq!(call(&mut cells, "reviews", "v3", SECOND), DENIED);
}

#[test]
fn counts_outlive_a_configuration_and_follow_its_limits() {
    let mut rule = memquota(QuotaScope::Dimensions);
    let mut cells = standalone(std::slice::from_ref(&rule));
    for _ in 0..5 {
        assert_eq!(call(&mut cells, "a", "v1", SECOND), Verdict::Admit);
    }
    cells.install([&rule], OnQuotaUnavailable::Share, SECOND);
    assert_eq!(call(&mut cells, "a", "v1", 2 * SECOND), DENIED, "unchanged");

    rule.overrides[1].limit.amount_max = 6;
    cells.install([&rule], OnQuotaUnavailable::Share, 2 * SECOND);
    assert_eq!(
        call(&mut cells, "a", "v1", 2 * SECOND),
        Verdict::Admit,
        "one more"
    );
    assert_eq!(call(&mut cells, "a", "v1", 2 * SECOND), DENIED);

    rule.overrides[1].limit.amount_max = 2;
    cells.install([&rule], OnQuotaUnavailable::Share, 2 * SECOND);
    let half = SECOND / 2;
    assert_eq!(
        call(&mut cells, "a", "v1", 10 * SECOND + half),
        DENIED,
        "six lie in the window"
    );
    assert_eq!(
        call(&mut cells, "a", "v1", 11 * SECOND + half),
        Verdict::Admit,
        "one did"
    );
    assert_eq!(call(&mut cells, "a", "v1", 11 * SECOND + half), DENIED);
}

#[test]
fn a_limit_of_nothing_and_a_charge_of_nothing() {
    let mut rule = memquota(QuotaScope::Dimensions);
    rule.overrides[1].limit.amount_max = 0;
    let mut free = rule.clone();
    free.charge = 0;
    assert_eq!(call(&mut standalone(&[rule]), "a", "v1", 0), DENIED);
    assert_eq!(call(&mut standalone(&[free]), "a", "v1", 0), Verdict::Admit);
}

#[test]
fn the_table_is_bounded_and_idle_buckets_make_room() {
    let mut cells = standalone(&[memquota(QuotaScope::Dimensions)]);
    for n in 0..crate::table::CELLS_MAX {
        assert_eq!(call(&mut cells, &n.to_string(), "v1", 0), Verdict::Admit);
    }
    let full = Verdict::Full { rule: 0 };
    assert_eq!(call(&mut cells, "one more", "v1", 0), full);
    for _ in 0..100 {
        cells.tick(9 * SECOND);
    }
    assert_eq!(
        call(&mut cells, "one more", "v1", 9 * SECOND),
        full,
        "spends are not forgotten"
    );
    for _ in 0..100 {
        cells.tick(30 * SECOND);
    }
    assert!(cells.is_empty());
    assert_eq!(
        call(&mut cells, "one more", "v1", 30 * SECOND),
        Verdict::Admit
    );
}

#[test]
fn without_an_authority_a_sidecar_lives_on_its_share() {
    let home = Home {
        shard: 0,
        shards: 1,
        standalone: false,
    };
    let mut rule = memquota(QuotaScope::Dimensions);
    rule.enforcers = 2;
    for (mode, early, late) in [
        (OnQuotaUnavailable::Share, 0, 2),
        (OnQuotaUnavailable::Allow, 9, 9),
        (OnQuotaUnavailable::Deny, 0, 0),
    ] {
        let mut cells = Cells::new(home, 7);
        cells.install([&rule], mode, 0);
        let mut admits = |now| {
            let calls = (0..9).map(|_| call(&mut cells, "a", "v1", now));
            calls.filter(|verdict| *verdict == Verdict::Admit).count()
        };
        // Another sidecar may hold everything until its lease has ended and one window has passed.
        assert_eq!(admits(16 * SECOND), early, "{mode:?}");
        assert_eq!(admits(18 * SECOND), late, "{mode:?}");
    }
}

/// Two rules, so that a second one's refusal has to give the first one's unit back.
fn two_rules() -> [QuotaRule; 2] {
    let mut narrow = memquota(QuotaScope::Dimensions);
    narrow.name = "narrow.quota.default".into();
    narrow.overrides.clear();
    narrow.limit = limit(7, 1);
    [memquota(QuotaScope::Dimensions), narrow]
}

fn ask_both<'a>(cells: &'a mut Cells, source: &str) -> Ask<'a> {
    let mut ask = cells.ask();
    for rule in 0..2 {
        ask.rule(rule)
            .value("details")
            .value("v1")
            .value(source)
            .value("v1");
    }
    ask
}

#[test]
fn what_is_remembered_decides_as_what_is_asked() {
    let (mut plain, mut quick) = (standalone(&two_rules()), standalone(&two_rules()));
    let (mut a, mut b) = (Memo::default(), Memo::default());
    let mut quick_answers = 0;
    // A walk through some seconds in which both callers run dry and recover.
    for step in 0..4_000_u64 {
        let now = 100 * SECOND + step * 3_300_000;
        let (source, memo) = if step % 3 == 0 {
            ("a", &mut a)
        } else {
            ("b", &mut b)
        };
        let wanted = ask_both(&mut plain, source).decide(now);
        let got = match quick.again(memo, now) {
            Some(verdict) => {
                quick_answers += 1;
                verdict
            }
            None => ask_both(&mut quick, source).decide_noting(now, memo),
        };
        assert_eq!(got, wanted, "step {step}");
        if step % 500 == 0 {
            plain.tick(now);
            quick.tick(now);
        }
    }
    assert!(quick_answers > 3_900, "only {quick_answers} from memory");
    assert_eq!(quick.state(), plain.state());
}

#[test]
fn a_forgotten_cell_is_asked_for_in_full() {
    let mut cells = standalone(&two_rules());
    let mut memo = Memo::default();
    assert_eq!(
        ask_both(&mut cells, "a").decide_noting(SECOND, &mut memo),
        Verdict::Admit
    );
    assert!(memo.is_ready());
    // A rule that is gone takes its cells along; their places may be another's by now.
    cells.install(&[], OnQuotaUnavailable::Share, SECOND);
    cells.install(&two_rules(), OnQuotaUnavailable::Share, SECOND);
    assert_eq!(ask_both(&mut cells, "b").decide(SECOND), Verdict::Admit);
    assert_eq!(cells.again(&memo, SECOND), None);
    memo.clear();
    assert_eq!(cells.again(&memo, SECOND), None);
}

/// Callers of many kinds at a rate at which requests share runs, against a count of every admission.
#[test]
fn runs_never_overdraw_and_leave_little_unused() {
    const WINDOW: Nanos = SECOND;
    let mut rules = two_rules();
    rules[0].limit = limit(20_000, 1);
    rules[0].overrides.clear();
    rules[1].limit = limit(9_000, 1);
    for seed in 0..6 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut cells = standalone(&rules);
        let mut memos: Vec<Memo> = (0..8).map(|_| Memo::default()).collect();
        let mut spent: [VecDeque<Nanos>; 2] = Default::default();
        let (mut admitted, mut possible, mut from_runs) = (0_u64, 0_u64, 0);
        let mut ideal: [VecDeque<Nanos>; 2] = Default::default();
        let mut now = 100 * SECOND;
        // One caller's connections for a while, then the other's, or both in turn.
        let (mut caller, mut mixed) = (0, false);
        for step in 0..120_000 {
            // Some turns of the ring bring many requests at one time.
            now += if step % 5 == 0 {
                dice.u64(50_000..600_000)
            } else {
                0
            };
            if step % 4_000 == 0 {
                (caller, mixed) = (dice.usize(0..2), dice.u8(0..3) == 0);
            }
            let who = if mixed { dice.usize(0..2) } else { caller };
            let memo = &mut memos[who * 4 + dice.usize(0..4)];
            for times in [&mut spent[who], &mut ideal[who]] {
                while times.front().is_some_and(|at| at + WINDOW <= now) {
                    times.pop_front();
                }
            }
            if ideal[who].len() < 9_000 {
                ideal[who].push_back(now);
                possible += 1;
            }
            let verdict = match cells.again(memo, now) {
                Some(verdict) => verdict,
                None => ask_both(&mut cells, ["a", "b"][who]).decide_noting(now, memo),
            };
            from_runs += u64::from(cells.run_goes_on());
            if verdict == Verdict::Admit {
                admitted += 1;
                spent[who].push_back(now);
                assert!(spent[who].len() <= 9_000, "seed {seed}, step {step}");
            }
            if dice.u16(0..5_000) == 0 {
                cells.tick(now);
            }
        }
        let used = admitted as f64 / possible as f64;
        assert!(used >= 0.98, "seed {seed}: {used}");
        assert!(from_runs > 60_000, "seed {seed}: {from_runs} in runs");
        // All of it comes back, and is forgotten.
        cells.tick(now + 10 * SECOND);
        assert!(cells.is_empty());
    }
}

#[test]
fn a_quiet_shard_ticks_when_a_bucket_is_idle_and_then_no_more() {
    let mut cells = standalone(&[memquota(QuotaScope::Dimensions)]);
    assert_eq!(cells.next_tick(SECOND), None);
    assert_eq!(call(&mut cells, "a", "v1", 10 * SECOND), Verdict::Admit);
    let next = cells.next_tick(10 * SECOND).expect("there is a bucket");
    assert!(next > 11 * SECOND, "{next}");
    let mut ticks = 0;
    let mut now = 10 * SECOND;
    while let Some(next) = cells.next_tick(now) {
        assert!(next >= now + TICK_MS_MIN * 1_000_000);
        now = next;
        cells.tick(now);
        ticks += 1;
        assert!(ticks < 5, "a tick does nothing");
    }
    assert!(cells.is_empty());
}
