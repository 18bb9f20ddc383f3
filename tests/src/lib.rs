//! What the end-to-end tests share: the stage of `ringmesh demo` (real processes, addresses of their
//! own, ended by pid), an upstream in this process, small meshes, and skipping with a reason.
//!
//! Tests wait for conditions ([`wait`]), never for time; a test that fails prints the last lines of
//! every process it started and keeps its folder.

pub mod ability;
pub mod cable;
pub mod echo;
pub mod mesh;
pub mod names;
pub mod ports;
pub mod upstream;

use std::path::PathBuf;
use std::time::Duration;

pub use ringmesh_control::demo::load;
pub use ringmesh_control::demo::stage::{
    self, Answer, App, Bins, Conn, ControlService, Launch, Node, NodePlan, Process, Ran, Sidecar,
    Stage, get, wait,
};

/// How long anything may take that should be at once; generous, since many tests share two cores.
pub const SOON: Duration = Duration::from_secs(20);

/// The binaries of the build these tests belong to (`target/debug` for `cargo test`).
///
/// # Panics
/// They are not built: `cargo build --workspace --bins` is what `make test` does first.
#[must_use]
pub fn bins() -> Bins {
    let exe = std::env::current_exe().expect("own path");
    let folder = exe.ancestors().nth(2).expect("target folder");
    Bins::in_folder(folder).expect("binaries")
}

/// Tells threads to stop when it goes, also when a check fails before.
#[derive(Debug, Default)]
pub struct Stop(std::sync::atomic::AtomicBool);

impl Stop {
    /// What the threads look at.
    #[must_use]
    pub fn flag(&self) -> &std::sync::atomic::AtomicBool {
        &self.0
    }

    /// Until when they work: hold it where the checks are.
    #[must_use]
    pub fn at_end(&self) -> AtEnd<'_> {
        AtEnd(self)
    }
}

/// See [`Stop::at_end`].
#[derive(Debug)]
pub struct AtEnd<'s>(&'s Stop);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A stage for one test.
///
/// # Panics
/// It cannot be set.
#[must_use]
pub fn stage() -> Stage {
    Stage::set(bins(), false).expect("a stage")
}

/// A file of the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// A python that has grpcio, if `scripts/deps` could install it.
#[must_use]
pub fn grpc_python() -> PathBuf {
    repository("target/test/grpcio/bin/python")
}

/// Hex of SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
