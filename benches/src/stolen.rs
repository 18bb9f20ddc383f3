//! What a hypervisor took of the machine's CPU time: a round in which it stood still says little about a proxy.

use std::fs;

/// CPU time of all CPUs since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// So far; `None` where the kernel does not tell.
    pub(crate) fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line of `/proc/stat`: `cpu`, user, nice, system, idle, iowait, irq, softirq, steal (proc(5)); what
    /// guests of ours use, behind that, is in user already.
    fn read(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Result<Vec<u64>, _> = line.split_whitespace().take(8).map(str::parse).collect();
        let ticks = ticks.ok()?;
        Some(Self {
            all: ticks.iter().sum(),
            stolen: *ticks.get(7)?,
        })
    }

    /// Share of the time since `earlier` that was stolen, percent.
    pub(crate) fn stolen_percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / all as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_all_cpus_and_of_the_time_between() {
        let before = Ticks::read("cpu  100 0 50 800 0 0 0 50 7 7\ncpu0 1 2\n").unwrap();
        let after = Ticks::read("cpu  110 0 60 870 0 0 0 60 9 9\n").unwrap();
        assert_eq!(after.stolen_percent_since(before), 10.0);
        assert_eq!(before.stolen_percent_since(before), 0.0);
    }

    #[test]
    fn what_is_not_told_is_not_guessed() {
        for stat in ["", "cpu 1 2 3 4\n", "cpu a b c d e f g h\n", "intr 1\n"] {
            assert_eq!(Ticks::read(stat), None, "{stat:?}");
        }
        assert!(Ticks::now().is_some());
    }
}
