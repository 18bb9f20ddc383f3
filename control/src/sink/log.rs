//! The access log of all sidecars: one append-only file, one JSON object per line.
//!
//! `{"node":"reviews-v3-1","boot":"00000000075bcd15","seq":7,"record":{...}}`. A record is acknowledged after it
//! was handed to the kernel: a kill -9 of control loses nothing, a power cut may lose seconds.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ringmesh_wire::{LogAck, LogBatch, NodeId};

use super::{LINE_BYTES_MAX, LOG_FILE_BYTES, LOG_FILES_MAX};

/// What became of records, since control started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Written.
    pub stored: u64,
    /// Missing between two batches of one boot.
    pub gaps: u64,
    /// Dropped at sidecars, as they say.
    pub dropped: u64,
    /// Sent again after they were stored; written once.
    pub repeated: u64,
    /// Longer than the bound.
    pub too_long: u64,
}

#[derive(Debug, Default)]
struct Source {
    boot: u64,
    next: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    file: File,
    bytes: u64,
    sources: BTreeMap<NodeId, Source>,
    counts: LogCounts,
}

/// The log.
#[derive(Debug)]
pub struct AccessLog {
    inner: Mutex<Inner>,
}

fn path(dir: &Path, generation: usize) -> PathBuf {
    match generation {
        0 => dir.join("access.log"),
        n => dir.join(format!("access.log.{n}")),
    }
}

fn open(dir: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path(dir, 0))?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl AccessLog {
    /// Opens the log in `dir`, creating both.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (file, bytes) = open(dir)?;
        let inner = Inner {
            dir: dir.to_owned(),
            file,
            bytes,
            sources: BTreeMap::new(),
            counts: LogCounts::default(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// What became of records so far.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counts
    }

    /// Appends a batch. Records that were stored already are skipped, a gap is counted.
    ///
    /// # Errors
    /// Any I/O error; then nothing of the batch is acknowledged, and the sidecar sends it again.
    pub fn append(&self, batch: &LogBatch) -> io::Result<LogAck> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.append(batch)
    }
}

impl Inner {
    fn append(&mut self, batch: &LogBatch) -> io::Result<LogAck> {
        if self.bytes >= LOG_FILE_BYTES {
            self.rotate()?;
        }
        let mut counts = self.counts;
        let source = self.sources.entry(batch.node.clone()).or_default();
        let fresh = source.boot != batch.boot;
        // Of a boot never heard of before nothing is known to be missing.
        let expected = if fresh { batch.first } else { source.next };
        let dropped_before = if fresh { 0 } else { source.dropped };
        let end = batch.first + batch.lines.len() as u64;
        counts.gaps += batch.first.saturating_sub(expected);
        counts.dropped += batch.dropped.saturating_sub(dropped_before);
        let mut out = Vec::new();
        for (sequence, line) in (batch.first..).zip(&batch.lines) {
            if sequence < expected {
                counts.repeated += 1;
            } else if line.len() > LINE_BYTES_MAX {
                counts.too_long += 1;
            } else {
                write_record(&mut out, batch, sequence, line)?;
                counts.stored += 1;
            }
        }
        // One write: a record is never half there for a reader that follows the file.
        self.file.write_all(&out)?;
        self.bytes += out.len() as u64;
        self.counts = counts;
        let next = end.max(expected);
        *source = Source {
            boot: batch.boot,
            next,
            dropped: batch.dropped,
        };
        Ok(LogAck { next })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for generation in (0..LOG_FILES_MAX - 1).rev() {
            match std::fs::rename(path(&self.dir, generation), path(&self.dir, generation + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        (self.file, self.bytes) = open(&self.dir)?;
        Ok(())
    }
}

fn write_record(out: &mut Vec<u8>, batch: &LogBatch, sequence: u64, line: &str) -> io::Result<()> {
    let node = serde_json::to_string(&batch.node.0)?;
    // Only what is one JSON object may be put in as it is: else it could forge a record.
    let object: Result<&serde_json::value::RawValue, _> = serde_json::from_str(line);
    let record = match object {
        Ok(raw) if !raw.get().contains('\n') => raw.get().to_owned(),
        _ => serde_json::to_string(line)?,
    };
    writeln!(
        out,
        "{{\"node\":{node},\"boot\":\"{:016x}\",\"seq\":{sequence},\"record\":{record}}}",
        batch.boot
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(boot: u64, first: u64, dropped: u64, lines: &[&str]) -> LogBatch {
        LogBatch {
            node: NodeId("n1".into()),
            boot,
            first,
            dropped,
            lines: lines.iter().map(|l| (*l).to_owned()).collect(),
        }
    }

    #[test]
    fn each_record_is_written_once_and_what_is_missing_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let log = AccessLog::open(dir.path()).unwrap();
        let ack = log
            .append(&batch(1, 0, 0, &["{\"a\":1}", "{\"a\":2}"]))
            .unwrap();
        assert_eq!(ack.next, 2);
        // The acknowledgement was lost: one comes again, together with a new one.
        log.append(&batch(1, 1, 0, &["{\"a\":2}", "{\"a\":3}"]))
            .unwrap();
        log.append(&batch(1, 5, 2, &["{\"a\":6}"])).unwrap();
        // A restarted sidecar counts from 0 again.
        log.append(&batch(2, 0, 1, &["{\"a\":7}"])).unwrap();
        let counts = LogCounts {
            stored: 5,
            gaps: 2,
            dropped: 3,
            repeated: 1,
            too_long: 0,
        };
        assert_eq!(log.counts(), counts);
        let text = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
        let records: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(records.len(), 5);
        assert_eq!(records[2]["record"]["a"], 3);
        assert_eq!(records[4]["boot"], "0000000000000002");
    }

    #[test]
    fn a_line_cannot_forge_another_record() {
        let dir = tempfile::tempdir().unwrap();
        let log = AccessLog::open(dir.path()).unwrap();
        let evil = "{}}\n{\"node\":\"n2\",\"record\":{}}";
        log.append(&batch(1, 0, 0, &[evil, "{\"a\":\n1}"])).unwrap();
        let text = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["node"], "n1");
        }
    }
}
