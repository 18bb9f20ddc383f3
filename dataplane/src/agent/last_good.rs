//! The last good configuration on disk: traffic is served before control answers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ringmesh_wire::limits::FRAME_PAYLOAD_BYTES_MAX;
use ringmesh_wire::{NodeId, Snapshot, WireError, frame};

use super::files;

/// Bytes of a snapshot file.
const FILE_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX + frame::HEADER_BYTES;

/// Why a snapshot file is not used.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotFileError {
    /// It cannot be read or written.
    Io(PathBuf, io::Error),
    /// It is damaged, cut short, or of another version.
    Damaged(PathBuf, WireError),
    /// It is another node's.
    OtherNode(PathBuf, NodeId),
}

impl fmt::Display for SnapshotFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path, error) => {
                let code = error.code();
                write!(f, "{}: not usable ({code}): {error}", path.display())
            }
            Self::OtherNode(path, node) => write!(
                f,
                "{}: compiled for node {node}; compile it with this sidecar's --node file",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SnapshotFileError {}

/// Reads a snapshot made for `node`; `None` if there is no such file.
///
/// # Errors
/// [`SnapshotFileError`]; the file is left as it is, for people to look at.
pub fn load(path: &Path, node: &NodeId) -> Result<Option<Snapshot>, SnapshotFileError> {
    let bytes = files::read(path, FILE_BYTES_MAX)
        .map_err(|error| SnapshotFileError::Io(path.to_owned(), error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let snapshot = Snapshot::from_file(&bytes)
        .map_err(|error| SnapshotFileError::Damaged(path.to_owned(), error))?;
    if snapshot.node != *node {
        return Err(SnapshotFileError::OtherNode(path.to_owned(), snapshot.node));
    }
    Ok(Some(snapshot))
}

/// Writes a snapshot, atomically.
///
/// # Errors
/// [`SnapshotFileError::Io`], or `Damaged` where it is too large to be a file.
pub fn store(path: &Path, snapshot: &Snapshot) -> Result<(), SnapshotFileError> {
    let bytes = snapshot
        .to_file()
        .map_err(|error| SnapshotFileError::Damaged(path.to_owned(), error))?;
    files::replace(path, &bytes).map_err(|error| SnapshotFileError::Io(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringmesh_wire::Revision;
    use ringmesh_wire::snapshot::{Body, Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode};

    use super::*;

    fn snapshot() -> Snapshot {
        let mesh = Body::Mesh(Mesh {
            trust_domain: "mesh.local".into(),
            default_timeout_ms: 15_000,
            outbound: OutboundMode::AllowAny,
            on_quota_unavailable: OnQuotaUnavailable::Share,
            retry_non_idempotent: false,
            mtls: MtlsMode::Strict,
            mtls_ports: Vec::new(),
        });
        let sections = vec![mesh.seal("").unwrap()];
        Snapshot::new(Revision(3), NodeId("n".into()), sections).unwrap()
    }

    #[test]
    fn it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-good.rmsh");
        let node = NodeId("n".into());
        assert!(load(&path, &node).unwrap().is_none());
        store(&path, &snapshot()).unwrap();
        assert_eq!(load(&path, &node).unwrap(), Some(snapshot()));
        let other = load(&path, &NodeId("m".into())).unwrap_err();
        assert!(other.to_string().contains("compiled for node n"), "{other}");
    }

    #[test]
    fn every_truncation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-good.rmsh");
        let whole = snapshot().to_file().unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(&path, &NodeId("n".into())).unwrap_err();
            assert!(
                matches!(error, SnapshotFileError::Damaged(..)),
                "{length}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_refused_or_harmless(at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = snapshot().to_file().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            match Snapshot::from_file(&bytes) {
                Err(_) => {}
                // The frame's revision is not part of the checksum; the payload carries it again.
                Ok(read) => prop_assert_eq!(read, snapshot()),
            }
        }
    }
}
