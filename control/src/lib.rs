//! The control service and the tool `ringmesh`.
//!
//! The way of a rule, one room each: what users wrote ([`rules`], with [`expr`] for the expressions
//! in it) becomes a [`model`] (references resolved, a status per object), which [`compile`] turns
//! into one snapshot per sidecar. These four are pure: no file, no clock, no randomness, no network.
//! [`store`] keeps what users wrote and what control must remember; [`svid`] is the certificate
//! authority; [`registry`] knows which endpoints there are; [`publish`] is the link to sidecars;
//! [`sink`] takes their telemetry; [`admin`] is the API. [`service`] is where all of it meets.
//! [`tool`] is the command line; [`demo`] runs the whole mesh on one machine.

// Standard output may fail: `ringmesh_tuning::stdout`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod admin;
pub mod compile;
pub mod demo;
pub mod expr;
pub mod lease;
pub mod model;
pub mod publish;
pub mod registry;
pub mod rules;
pub mod service;
pub mod sink;
pub mod store;
pub mod svid;
pub mod time;
pub mod tool;

#[cfg(test)]
pub(crate) mod testing;
