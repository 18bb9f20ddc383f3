//! All rules together: references resolved, a status for each object, what is in force.
//!
//! Owns: which objects are ACTIVE, what an INACTIVE one is missing or what is wrong with it, what stays in force meanwhile,
//! who wins where two objects speak of one host. May not: read files or the network, know the time.
//!
//! Doors: [`Model`] (what users wrote), [`RegistryView`] (which services there are),
//! [`Model::resolve`] to [`Resolution`] ([`Effective`] for [`crate::compile`], [`Status`] for people).
//!
//! Invariants: the result depends on the set of objects, the registry and what was in force
//! before, never on the order in which objects came; an object that cannot be resolved changes
//! nothing of what was in force.

mod mixer_names;
pub(crate) mod mixer_uses;
mod notes;
mod references;
mod refused;
mod registry;
mod resolve;
mod services;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use mixer_names::{USUAL_DIMENSIONS, handler_key, instance_name};
pub use refused::Refused;
pub use registry::{RegisteredService, RegistryView};
pub use resolve::{Effective, Model, Resolution};
pub(crate) use services::{Services, mesh_name, rules_of_service};
pub use status::{Missing, MissingKind, State, Status};
