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
fn the_missions_example() {
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
