//! Resource limits as `/proc/self/limits` prints them.

use std::fmt;

use serde::Serialize;

/// One limit; `Unlimited` sorts above every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At most this many (files, or bytes).
    At(u64),
    /// No limit.
    Unlimited,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(n) => write!(f, "{n}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// Soft and hard limits that matter to a proxy. `None`: the line was not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Open files: one per connection, two per proxied connection.
    pub nofile_soft: Option<Limit>,
    /// What the soft limit may be raised to without privilege.
    pub nofile_hard: Option<Limit>,
    /// Locked memory in bytes: glommio's ring memory counts here.
    pub memlock_soft_bytes: Option<Limit>,
    /// What the soft limit may be raised to without privilege, bytes.
    pub memlock_hard_bytes: Option<Limit>,
}

pub(super) fn read() -> Limits {
    std::fs::read_to_string("/proc/self/limits")
        .map_or_else(|_| Limits::default(), |text| parse(&text))
}

fn parse(text: &str) -> Limits {
    let row = |title: &str| {
        let line = text.lines().find(|line| line.starts_with(title))?;
        let mut words = line[title.len()..].split_whitespace();
        Some((parse_one(words.next()?)?, parse_one(words.next()?)?))
    };
    let (nofile, memlock) = (row("Max open files"), row("Max locked memory"));
    Limits {
        nofile_soft: nofile.map(|pair| pair.0),
        nofile_hard: nofile.map(|pair| pair.1),
        memlock_soft_bytes: memlock.map(|pair| pair.0),
        memlock_hard_bytes: memlock.map(|pair| pair.1),
    }
}

fn parse_one(word: &str) -> Option<Limit> {
    match word {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_table_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 1048576              files     \n\
                    Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(
            parse(text),
            Limits {
                nofile_soft: Some(Limit::At(1024)),
                nofile_hard: Some(Limit::At(1_048_576)),
                memlock_soft_bytes: Some(Limit::At(8_388_608)),
                memlock_hard_bytes: Some(Limit::Unlimited),
            }
        );
        assert!(Limit::At(u64::MAX) < Limit::Unlimited);
        assert_eq!(parse("nonsense"), Limits::default());
    }
}
