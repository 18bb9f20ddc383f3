//! Is it chance? Pure: exact binomial bounds and a test that gaps between hits are geometric.

/// Error probability of every test here, both sides together: one false alarm in a million runs.
const ALPHA: f64 = 1e-6;

/// The least range `low..=high` of hits that `n` draws of probability `p` leave with probability at
/// most 1e-6.
#[must_use]
pub fn binomial_bounds(n: u32, p: f64) -> (u32, u32) {
    if p <= 0.0 || n == 0 {
        return (0, 0);
    }
    if p >= 1.0 {
        return (n, n);
    }
    // The probability mass in logarithms, by its recurrence: n = 20,000 would underflow otherwise.
    let odds = (p / (1.0 - p)).ln();
    let mut log_mass = f64::from(n) * (1.0 - p).ln();
    let mut below = 0.0;
    let (mut low, mut high) = (None, n);
    for hits in 0..=n {
        below += log_mass.exp();
        if low.is_none() && below > ALPHA / 2.0 {
            low = Some(hits);
        }
        if below >= 1.0 - ALPHA / 2.0 {
            high = hits;
            break;
        }
        log_mass += (f64::from(n - hits) / f64::from(hits + 1)).ln() + odds;
    }
    (low.unwrap_or(0), high)
}

/// Chi-square with 9 degrees of freedom exceeds this with probability 1e-6 (Wilson-Hilferty: 46.0;
/// rounded up).
const CHI_SQUARE_9: f64 = 46.5;
const BINS: u32 = 10;

/// Whether the gaps between hits (1 = next draw) are what independent draws of probability `p`
/// leave, and the chi-square value. A counter that picks every hundredth fails at once; so does
/// one with a little jitter.
#[must_use]
pub fn gaps_are_geometric(gaps: &[u32], p: f64) -> (bool, f64) {
    let total = f64::from(u32::try_from(gaps.len()).unwrap_or(u32::MAX));
    // P(gap <= g) = 1 - (1-p)^g. Bins of about equal probability; each with its exact probability.
    let up_to = |gap: u32| 1.0 - (1.0 - p).powf(f64::from(gap));
    let edge = |share: f64| (((1.0 - share).ln() / (1.0 - p).ln()).round()).max(1.0);
    let mut value = 0.0;
    let mut from = 0;
    for bin in 1..=BINS {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive whole number"
        )]
        let to = if bin == BINS {
            u32::MAX
        } else {
            edge(f64::from(bin) / f64::from(BINS)) as u32
        };
        let probability = if bin == BINS {
            1.0 - up_to(from)
        } else {
            up_to(to) - up_to(from)
        };
        let seen = gaps
            .iter()
            .filter(|gap| **gap > from && **gap <= to)
            .count();
        let seen = f64::from(u32::try_from(seen).unwrap_or(u32::MAX));
        let expected = total * probability;
        if expected > 0.0 {
            value += (seen - expected).powi(2) / expected;
        }
        from = to;
    }
    (value <= CHI_SQUARE_9, value)
}

/// Gaps between hits in a row of draws: the first counts from the start.
#[must_use]
pub fn gaps(draws: &[bool]) -> Vec<u32> {
    let mut gaps = Vec::new();
    let mut gap = 0;
    for hit in draws {
        gap += 1;
        if *hit {
            gaps.push(gap);
            gap = 0;
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: enough for tests, and the same every time.
    fn draws(n: u32, p: f64, mut seed: u64) -> Vec<bool> {
        (0..n)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 11) as f64 / (1_u64 << 53) as f64 <= p
            })
            .collect()
    }

    #[test]
    fn bounds_hold_their_probability() {
        // sd = 14.07; 4.9 sd to both sides of 200, a little wider above (skew).
        let (low, high) = binomial_bounds(20_000, 0.01);
        assert!(
            (128..=138).contains(&low) && (270..=278).contains(&high),
            "{low} {high}"
        );
        assert_eq!(binomial_bounds(10, 0.0), (0, 0));
        assert_eq!(binomial_bounds(10, 1.0), (10, 10));
        assert_eq!(binomial_bounds(1, 0.5), (0, 1));
    }

    #[test]
    fn chance_passes_and_counters_do_not() {
        for seed in 1..50 {
            let row = draws(20_000, 0.01, u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
            let (good, value) = gaps_are_geometric(&gaps(&row), 0.01);
            assert!(good, "seed {seed}: {value}");
        }
        let counter: Vec<bool> = (0..20_000).map(|index| index % 100 == 99).collect();
        assert!(!gaps_are_geometric(&gaps(&counter), 0.01).0);
        let jittered: Vec<bool> = (0..20_000)
            .map(|index| index % 100 == (index / 100 * 37) % 60)
            .collect();
        assert!(!gaps_are_geometric(&gaps(&jittered), 0.01).0);
        // Two shards with a counter each, taken in turns.
        let two: Vec<bool> = (0..20_000)
            .map(|index| (index / 2) % 100 == 50 + index % 2)
            .collect();
        assert!(!gaps_are_geometric(&gaps(&two), 0.01).0);
    }

    #[test]
    fn gaps_count_from_the_start() {
        assert_eq!(
            gaps(&[false, true, true, false, false, true, false]),
            [2, 1, 3]
        );
    }
}
