//! The sidecar's control client: one tokio thread beside the shards, never on them.

pub mod backoff;
pub mod bell;
pub mod credentials;
pub mod doors;
#[cfg(test)]
mod fake_control;
pub mod figures;
pub mod files;
mod grpc_health;
pub mod health;
pub mod keeper;
pub mod last_good;
pub mod lease;
pub mod link;
pub mod log_file;
pub mod log_forward;
pub mod names;
pub mod publish;
pub mod quic;
pub mod run;
pub mod session;
pub mod svid;
pub mod token;
pub mod verify;
