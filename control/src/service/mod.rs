//! Where everything meets: the state of a running control service and what may be done to it.
//!
//! Owns: the one lock, who is connected, when to compile. May not: know HTTP or frames.
//!
//! [`Control`] is shared by the link ([`crate::publish`]), the API ([`crate::admin`]) the
//! planner ([`plan::run`]) and the rotation of roots ([`roots::run`]). Methods that touch the disk block and say so: async callers go through
//! `spawn_blocking`. Invariants: the lock is never held over disk, compile or await; applies and
//! plans happen one at a time (the gate), so a plan always sees whole revisions.

mod apply;
mod control;
mod counters;
pub mod plan;
pub mod roots;
mod sessions;

pub use apply::{Applied, ApplyError, Intent, Outcome, Request, SourceFile};
pub use control::{Control, Settings, StartError};
pub use counters::Counters;
pub(crate) use sessions::Ending;
pub use sessions::SessionInfo;
