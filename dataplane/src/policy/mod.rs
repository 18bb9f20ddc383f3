//! May this call pass: AuthorizationPolicy, then check rules, then quota.
//!
//! [`check`] is the only way to a [`Permit`], and without a permit nothing reaches the app. Source
//! attributes come from the verified certificate alone, never from a header; a plaintext caller has
//! an address and nothing else.
//!
//! Pure, and without allocation: attributes are borrowed from the call and the tables. What it may
//! not do: look at the clock, count by itself (quota state is passed in), answer the client.

mod attributes;
mod authz;
mod check;
pub mod expr;
pub mod quota;
#[cfg(test)]
mod tests;

pub use attributes::{Attributes, Call, Val};
pub use check::{Audited, Notes, Permit, QuotaStep, Refusal, check};
