//! A stage: real processes on addresses of their own, for the demo and for the end-to-end tests.
//!
//! One stage claims one /24 of 127.0.0.0/8, so that every node has the standard ports on an address
//! that nothing else uses and many stages run side by side. Everything started here is stopped by
//! its pid: when its value is dropped, when the demo is interrupted ([`cleanup::all_and_exit`]), and
//! by the kernel when the demo itself is killed (`setpriv --pdeathsig`). Files are in one temporary
//! folder that goes with the stage unless it is kept.
//!
//! Nothing here knows a rule or an expectation; rows and tests do. No fixed waits: [`wait`] polls a
//! condition with a deadline.

mod addresses;
mod bookinfo;
pub mod cleanup;
mod control_service;
mod http;
mod node;
mod process;
mod space;
pub mod wait;

use std::path::{Path, PathBuf};

pub use addresses::Block;
pub use bookinfo::{App, Arrival};
pub use control_service::{ControlService, Ran};
pub use http::{Answer, Conn, get};
pub use node::{Node, NodePlan, Sidecar, inside};
pub use process::{Launch, Process};
pub use space::Space;

/// What went wrong, in words for the person who reads the demo's table or the test's failure.
pub type Result<T> = std::result::Result<T, String>;

/// Where the binaries are.
#[derive(Clone, Debug)]
pub struct Bins(PathBuf);

impl Bins {
    /// The folder that holds `ringmesh-proxy`, `ringmesh-control`, `ringmesh` and `bookinfo`.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        for name in ["ringmesh-proxy", "ringmesh-control", "ringmesh", "bookinfo"] {
            if !folder.join(name).is_file() {
                return Err(format!(
                    "{} is not there; would be right: cargo build --workspace --bins, or --bin-dir",
                    folder.join(name).display()
                ));
            }
        }
        Ok(Self(folder.to_owned()))
    }

    /// Path of one of them.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// One stage.
#[derive(Debug)]
pub struct Stage {
    /// Binaries.
    pub bins: Bins,
    /// Addresses.
    pub block: Block,
    dir: PathBuf,
    keep: bool,
}

impl Stage {
    /// Claims addresses and makes the folder.
    ///
    /// # Errors
    /// No addresses or no place for the folder.
    pub fn set(bins: Bins, keep: bool) -> Result<Self> {
        let block = Block::claim()?;
        let dir =
            std::env::temp_dir().join(format!("ringmesh-{}-{}", std::process::id(), block.name()));
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        if !keep {
            cleanup::folder(&dir);
        }
        Ok(Self {
            bins,
            block,
            dir,
            keep,
        })
    }

    /// The stage's folder: logs, configuration, state.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file into the stage's folder and tells its path.
    ///
    /// # Errors
    /// It could not be written.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            ringmesh_tuning::errln!("logs and state are kept in {}", self.dir.display());
            return;
        }
        // Best effort: a folder left in /tmp harms nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
