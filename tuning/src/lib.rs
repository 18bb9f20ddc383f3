//! The host a sidecar runs on: what it can do, what it should be told, how traffic is captured.
//!
//! Everything follows one pattern, **plan -> apply -> revert**: [`probe`] reads facts and changes
//! nothing; [`plan`], [`placement`], [`doctor`] and [`intercept::plan`] are pure functions of facts
//! and wishes; only [`intercept::apply`] changes the machine, and it can take back exactly what it
//! added. [`open_files`] and [`huge_pages`] set the process itself; [`stdout`] is how tools print.
//!
//! Reading order: [`probe`] (facts) -> [`placement`] (where shards go) -> [`plan`] (how the ring is
//! set up here) -> [`doctor`] (what a person should fix) -> [`intercept`] (capture rules).
//!
//! Invariants: no `unsafe` (facts come from `/proc` and from safe calls of the io-uring crate); no
//! room here names a dataplane or control type; a missing fact is `None`, never a guess.

#![forbid(unsafe_code)]

pub mod doctor;
pub mod huge_pages;
pub mod intercept;
pub mod open_files;
pub mod placement;
pub mod plan;
pub mod probe;
pub mod stdout;

pub use placement::{Shard, Shards};
pub use plan::HostPlan;
pub use probe::Facts;
