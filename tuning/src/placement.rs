//! Where shards go: a pure function of what the user asked and which CPUs we may use.
//!
//! `auto` is one shard per CPU of the cpuset up to [`AUTO_SHARDS_MAX`], unpinned: twenty sidecars on
//! a 32-core host must not become 640 pinned shards. `all` is for a dedicated host. A number is
//! taken as it stands, unpinned, because several sidecars may share the machine.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// `shards:` in `sidecar.yaml` and `--shards`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// One per CPU of the cpuset, at most [`AUTO_SHARDS_MAX`], unpinned.
    #[default]
    Auto,
    /// Every CPU of the cpuset, pinned.
    All,
    /// Exactly this many (1 to [`SHARDS_MAX`]), unpinned.
    Count(u16),
}

/// Beyond four shards a sidecar beside one service gains nothing: the service itself needs cores.
pub const AUTO_SHARDS_MAX: usize = 4;

/// Shard numbers fit a byte in tokens and telemetry.
pub const SHARDS_MAX: u16 = 256;

/// One shard to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shard {
    /// Position, from 0.
    pub index: u16,
    /// Pin the thread to this CPU; `None`: the scheduler places it within the cpuset.
    pub cpu: Option<u32>,
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "all" => Ok(Self::All),
            number => match number.parse() {
                Ok(count) if (1..=SHARDS_MAX).contains(&count) => Ok(Self::Count(count)),
                _ => Err(format!(
                    "shards: {text:?} is not understood; would be right: auto, all, or 1 to {SHARDS_MAX}"
                )),
            },
        }
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// The shards to start on `cpus` (from [`crate::probe::Facts::cpus`]). Never empty: a host whose
/// cpuset could not be read gets one unpinned shard.
#[must_use]
pub fn place(asked: Shards, cpus: &[u32]) -> Vec<Shard> {
    let (count, pinned) = match asked {
        Shards::Auto => (cpus.len().clamp(1, AUTO_SHARDS_MAX), false),
        Shards::All => (cpus.len().clamp(1, usize::from(SHARDS_MAX)), true),
        Shards::Count(count) => (usize::from(count.clamp(1, SHARDS_MAX)), false),
    };
    (0..SHARDS_MAX)
        .take(count)
        .map(|index| Shard {
            index,
            cpu: cpus.get(usize::from(index)).copied().filter(|_| pinned),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus_of(shards: &[Shard]) -> Vec<Option<u32>> {
        shards.iter().map(|shard| shard.cpu).collect()
    }

    #[test]
    fn auto_is_bounded_and_unpinned() {
        assert_eq!(cpus_of(&place(Shards::Auto, &[0, 1])), [None, None]);
        assert_eq!(place(Shards::Auto, &(0..32).collect::<Vec<_>>()).len(), 4);
        assert_eq!(place(Shards::Auto, &[]).len(), 1);
    }

    #[test]
    fn all_pins_the_cpuset_as_it_is() {
        assert_eq!(
            cpus_of(&place(Shards::All, &[2, 5, 7])),
            [Some(2), Some(5), Some(7)]
        );
        assert_eq!(cpus_of(&place(Shards::All, &[])), [None]);
    }

    #[test]
    fn a_number_is_taken_as_it_stands() {
        assert_eq!(cpus_of(&place(Shards::Count(3), &[0])), [None, None, None]);
    }

    #[test]
    fn words_are_parsed_strictly() {
        assert_eq!("auto".parse(), Ok(Shards::Auto));
        assert_eq!("all".parse(), Ok(Shards::All));
        assert_eq!("7".parse(), Ok(Shards::Count(7)));
        for wrong in ["0", "257", "-1", "two", ""] {
            let error = wrong.parse::<Shards>().expect_err(wrong);
            assert!(error.contains("would be right"), "{error}");
        }
    }
}
