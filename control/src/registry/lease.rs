//! How sure we are of one endpoint.

use std::time::Duration;

use crate::time::Mono;

/// One session of one sidecar; never used twice while control runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The times and shares of the guards.
#[derive(Debug, Clone, Copy)]
pub struct Guards {
    /// How long an endpoint of before a restart is believed without a session.
    pub unconfirmed: Duration,
    /// How long a sidecar that closed its link without leaving may take to be back: it does so to
    /// show a renewed certificate.
    pub resume: Duration,
    /// Expiries this close together count as one event.
    pub window: Duration,
    /// Removal freezes above this share of leases, percent.
    pub freeze_percent: usize,
    /// And from this many on.
    pub freeze_floor: usize,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            unconfirmed: Duration::from_secs(15),
            resume: Duration::from_millis(1_500),
            window: Duration::from_secs(10),
            freeze_percent: 30,
            freeze_floor: 4,
        }
    }
}

/// State of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Its session stands.
    Live(SessionId),
    /// Its sidecar closed the link without leaving and is expected back until then.
    Resuming {
        /// Expires then.
        until: Mono,
    },
    /// From before a restart of control.
    Unconfirmed {
        /// Expires then.
        until: Mono,
    },
    /// Its link went silent.
    Expired {
        /// When.
        at: Mono,
        /// It was the last of its service.
        last: bool,
    },
    /// It left, but no other speaks for its service: kept so that the service stays known, with no
    /// endpoint.
    Left,
}

impl Lease {
    /// Whether somebody stands, or may yet stand, behind it.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(
            self,
            Self::Live(_) | Self::Resuming { .. } | Self::Unconfirmed { .. }
        )
    }

    /// For lists.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Resuming { .. } => "resuming",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Expired { last: false, .. } => "expired",
            Self::Expired { last: true, .. } => "last-known",
            Self::Left => "left",
        }
    }
}
