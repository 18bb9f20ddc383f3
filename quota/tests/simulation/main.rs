//! The whole of quotas from one seed: authority, sidecars with several shards, clocks with offsets,
//! messages that take their time, links that break, processes that die; and a shadow checker that
//! counts every admission in true time.
//!
//! `SEEDS=n` runs more of them, `FROM=n` begins there, `TRACE=1` prints what happens; a failing seed is printed and goes into `FAILED_BEFORE`.

mod world;

use world::{Faults, Load, World};

const SECOND: u64 = 1_000_000_000;

/// Seeds that once failed.
const FAILED_BEFORE: &[u64] = &[3, 6, 26, 27, 101, 134, 169];

fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let from = number("FROM").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(default);
    FAILED_BEFORE.iter().copied().chain(from..from + count)
}

/// Never more than the amount in any window, whatever fails.
#[test]
fn no_window_is_ever_overdrawn() {
    let (mut admitted, mut possible) = (0, 0);
    for seed in seeds(100) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let load = Load {
            nodes: dice.u16(1..6),
            shards: dice.u16(1..4),
            amount: *dice.choice(&[1, 2, 5, 7, 40, 200]).unwrap(),
            window_ms: *dice.choice(&[1_000, 2_000, 5_000, 10_000]).unwrap(),
            buckets: dice.usize(1..6),
            per_second: dice.f64() * 80.0 + 5.0,
        };
        let mut world = World::new(seed, &load, Faults::all());
        world.run(90 * SECOND);
        admitted += world.admitted;
        possible += world.possible;
    }
    let used = admitted as f64 / possible as f64;
    println!("with a fault every 4 s: {used:.3} of what was possible");
    assert!(used > 0.2, "{used}");
}

/// The same at rates and amounts where equal requests are spent in runs.
#[test]
fn no_window_is_overdrawn_by_runs() {
    for seed in seeds(8) {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let load = Load {
            nodes: dice.u16(1..4),
            shards: dice.u16(1..3),
            amount: *dice.choice(&[1_000, 5_000, 20_000]).unwrap(),
            window_ms: 1_000,
            buckets: dice.usize(1..3),
            per_second: 8_000.0 + dice.f64() * 12_000.0,
        };
        World::new(seed, &load, Faults::all()).run(8 * SECOND);
    }
}

/// What was possible is what one limiter that sees every request would have admitted.
fn utilisation(seed: u64, load: &Load) -> f64 {
    let mut world = World::new(seed, load, Faults::none());
    world.run(5 * SECOND + 3 * load.window_ms * 1_000_000);
    world.forget_counts();
    world.run(20 * load.window_ms * 1_000_000);
    world.admitted as f64 / world.possible as f64
}

/// At least 98 % where a sidecar's share is some tens of units or demand is well off the limit.
/// Elsewhere the figure is stated: with N sidecars a unit that has come back lies idle until its
/// holder's next request, which at an arrival rate L per window is N / L windows away, and a
/// request that meets no unit is denied at once. Admitted is then about L * M / (L + N): at ten
/// sidecars with ten units each and demand just over the limit 0.92 is measured of 0.97 possible
/// to anyone who neither waits nor overdraws.
#[test]
fn nearly_all_of_what_is_possible_is_used() {
    for (nodes, amount, window_ms, demand, least) in [
        (1, 100, 1_000, 1.1, 0.98),
        (1, 100, 1_000, 3.0, 0.98),
        (2, 100, 1_000, 0.9, 0.98),
        (2, 100, 1_000, 3.0, 0.98),
        (4, 1_000, 1_000, 0.9, 0.98),
        (4, 1_000, 1_000, 1.1, 0.98),
        (10, 1_000, 1_000, 3.0, 0.98),
        (10, 500, 5_000, 0.5, 0.98),
        (10, 100, 1_000, 0.5, 0.98),
        (10, 100, 1_000, 0.9, 0.90),
        (10, 100, 1_000, 1.1, 0.90),
        (10, 100, 1_000, 3.0, 0.95),
        (10, 100, 1_000, 10.0, 0.98),
    ] {
        let load = Load {
            nodes,
            shards: 1,
            amount,
            window_ms,
            buckets: 1,
            per_second: amount as f64 * 1_000.0 / window_ms as f64 * demand,
        };
        let used = utilisation(1, &load);
        println!("{nodes} sidecars, {amount} per {window_ms} ms, demand {demand}: {used:.4}");
        assert!(used >= least, "{used:.4} of {load:?}");
    }
}

/// Tiny limits are exact; how much of them is used is stated here, not promised.
#[test]
fn tiny_limits_are_used_too() {
    for (nodes, amount, window_ms, least) in [
        (1, 1, 5_000, 0.98),
        (2, 1, 5_000, 0.5),
        (4, 1, 5_000, 0.4),
        (1, 5, 10_000, 0.98),
        (2, 5, 10_000, 0.7),
        (4, 5, 10_000, 0.6),
    ] {
        let load = Load {
            nodes,
            shards: 1,
            amount,
            window_ms,
            buckets: 1,
            per_second: amount as f64 * 1_000.0 / window_ms as f64 * 4.0,
        };
        let runs = [1, 2, 3, 4].map(|seed| utilisation(seed, &load));
        let used = runs.iter().sum::<f64>() / 4.0;
        println!("{nodes} sidecars, {amount} per {window_ms} ms: {used:.3}");
        assert!(
            used >= least,
            "{nodes} sidecars, {amount} per {window_ms} ms: {used:.3}"
        );
    }
}

/// Control dies: after leases and one window are over every sidecar has its share; control comes
/// back: everything can be used again.
#[test]
fn an_outage_of_the_authority_leaves_each_its_share() {
    let load = Load {
        nodes: 2,
        shards: 1,
        amount: 10,
        window_ms: 2_000,
        buckets: 1,
        per_second: 100.0,
    };
    let mut world = World::new(3, &load, Faults::none());
    world.run(10 * SECOND);
    world.kill_authority();
    world.run(20 * SECOND);
    world.forget_counts();
    world.run(20 * SECOND);
    let shared = world.admitted as f64 / world.possible as f64;
    assert!(shared > 0.95, "5 + 5 of 10: {shared}");
    world.start_authority();
    world.run(15 * SECOND);
    assert!(world.is_steady());
    world.forget_counts();
    world.run(20 * SECOND);
    let leased = world.admitted as f64 / world.possible as f64;
    assert!(leased > 0.9, "{leased}");
}

/// A restart within the leases' length is not noticed: holders report, the rest goes on.
#[test]
fn a_short_restart_is_not_noticed() {
    let load = Load {
        nodes: 3,
        shards: 2,
        amount: 120,
        window_ms: 1_000,
        buckets: 2,
        per_second: 400.0,
    };
    let mut world = World::new(5, &load, Faults::none());
    world.run(10 * SECOND);
    world.forget_counts();
    world.kill_authority();
    world.run(SECOND);
    world.start_authority();
    world.run(9 * SECOND);
    let used = world.admitted as f64 / world.possible as f64;
    assert!(used > 0.93, "{used}");
}
