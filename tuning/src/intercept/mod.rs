//! Capture: the firewall rules that send a service's TCP connections to its sidecar.
//!
//! ```text
//! Capture (wish) -> rules (in their order, backend-neutral) -> nft | iptables (text)
//!                        Seen (what is there) --------------^
//!                -> Change (plan: what to feed to which program) -> apply -> revert
//! ```
//!
//! Everything before [`apply`] is pure. What we add is found again by *name* (an own table for
//! nftables, own chains for iptables), never by a state file: so `up` twice is `up` once, and
//! `down` removes exactly what `up` added even after a crash between the two. Nothing is ever
//! flushed that we do not own.
//!
//! For nftables one change is one `nft -f` transaction over both families. iptables has a table per
//! family, so one change is one `iptables-restore --noflush` per family, checked with `--test` for
//! both first; if the second then fails all the same, the first is taken back.
//!
//! Only TCP, and only what captures: filtering is the firewall's work, not ours. Arriving connections
//! are captured by REDIRECT (nat) or by TPROXY (mangle, and policy routing for the app's answers).

mod apply;
mod cgroup;
mod change;
mod iptables;
mod nft;
mod routing;
mod rules;
mod spec;

pub use apply::{ApplyError, Host};
pub use cgroup::SeenCgroup;
pub use change::{Change, Seen, SeenIptables, State, Step, Tool, plan_down, plan_up};
pub use routing::{PRIORITY, SeenRouting, TABLE};
pub use rules::{APP_MARK, CAPTURED_MARK, Hook, Match, Rule, STAY_MARK, Verdict, rules};
pub use spec::{Backend, Capture, Families, Mode, Name, Net, Ports, SpecError};

#[cfg(test)]
mod tests;
