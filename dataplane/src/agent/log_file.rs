//! The access-log file, on a thread of its own: a slow disk must hold up neither the link to
//! control nor, least of all, a request. What does not fit into the queue is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Buffers waiting for the disk; with 512 KiB each at most 8 MiB.
const WAITING_MAX: usize = 16;
/// Written buffers kept for the next lines, so that memory is not taken from the kernel, and given
/// back, for each: some megabytes a second at full load.
const EMPTIED_MAX: usize = 2;

enum Order {
    Write(Vec<u8>),
    Reopen,
    /// Answer when all before it is on its way to the disk.
    Flush(SyncSender<()>),
}

/// The queue to the writing thread. Dropping it ends the thread after it wrote all.
#[derive(Debug)]
pub struct LogFile {
    orders: Option<SyncSender<Order>>,
    emptied: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl LogFile {
    /// Opens (or makes) the file for appending and starts the thread.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        let (orders, queue) = sync_channel(WAITING_MAX);
        let (back, emptied) = sync_channel(EMPTIED_MAX);
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(file, &path, &queue, &back, &theirs))?;
        Ok(Self {
            orders: Some(orders),
            emptied,
            thread: Some(thread),
            counts,
        })
    }

    /// Hands over whole lines.
    pub fn write(&self, lines: Vec<u8>) {
        let Some(orders) = &self.orders else { return };
        if let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) =
            orders.try_send(Order::Write(lines))
            && let Order::Write(lines) = order
        {
            self.counts
                .dropped
                .fetch_add(count(&lines), Ordering::Relaxed);
        }
    }

    /// Room for further lines: a buffer that was written, or one without any room yet.
    #[must_use]
    pub fn spare(&self) -> Vec<u8> {
        self.emptied.try_recv().unwrap_or_default()
    }

    /// Gives up the room there is for further lines. For quiet moments.
    pub fn rest(&self) {
        while self.emptied.try_recv().is_ok() {}
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        if let Some(orders) = &self.orders {
            // A full queue will be asked again by the next HUP.
            let _ = orders.try_send(Order::Reopen);
        }
    }

    /// Waits until everything handed over is written.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(orders) = &self.orders
            && orders.send(Order::Flush(done)).is_ok()
        {
            let _ = wait.recv();
        }
    }

    /// Lines written, and lines dropped because the disk was slow or refused them.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.counts.written), read(&self.counts.dropped))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

fn write_all(
    mut file: File,
    path: &Path,
    queue: &Receiver<Order>,
    emptied: &SyncSender<Vec<u8>>,
    counts: &Counts,
) {
    let mut failing = false;
    while let Ok(order) = queue.recv() {
        match order {
            Order::Write(mut lines) => {
                match file.write_all(&lines) {
                    Ok(()) => {
                        failing = false;
                        counts.written.fetch_add(count(&lines), Ordering::Relaxed);
                    }
                    Err(error) => {
                        counts.dropped.fetch_add(count(&lines), Ordering::Relaxed);
                        if !failing {
                            tracing::error!(path = %path.display(), %error, "access log cannot be written");
                        }
                        failing = true;
                    }
                }
                lines.clear();
                // More than are kept goes back to the allocator.
                let _ = emptied.try_send(lines);
            }
            Order::Reopen => match append(path) {
                Ok(new) => file = new,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "access log cannot be reopened");
                }
            },
            Order::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_moved_file_is_followed_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (
            dir.path().join("access.log"),
            dir.path().join("access.log.1"),
        );
        std::fs::write(&path, b"old\n").unwrap();
        let log = LogFile::open(path.clone()).unwrap();
        log.write(b"one\ntwo\n".to_vec());
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.write(b"three\n".to_vec());
        log.reopen();
        log.write(b"four\n".to_vec());
        log.flush();
        assert_eq!(std::fs::read(&moved).unwrap(), b"old\none\ntwo\nthree\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"four\n");
        assert_eq!(log.counts(), (4, 0));
    }

    #[test]
    fn a_written_buffer_is_handed_out_empty_and_a_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(dir.path().join("log")).unwrap();
        assert_eq!(log.spare().capacity(), 0);
        for _ in 0..EMPTIED_MAX + 2 {
            let mut lines = Vec::with_capacity(64);
            lines.extend_from_slice(b"one\n");
            log.write(lines);
        }
        log.flush();
        for _ in 0..EMPTIED_MAX {
            let spare = log.spare();
            assert!(spare.is_empty() && spare.capacity() >= 64);
        }
        assert_eq!(log.spare().capacity(), 0);
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_lines_and_nothing_else() {
        let log = LogFile::open("/dev/full".into()).unwrap();
        log.write(b"one\ntwo\n".to_vec());
        log.flush();
        assert_eq!(log.counts(), (0, 2));
    }

    #[test]
    fn what_was_handed_over_is_written_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::open(path.clone()).unwrap();
        // As much as fits even if the thread has not begun yet.
        for _ in 0..WAITING_MAX {
            log.write(b"x\n".to_vec());
        }
        drop(log);
        assert_eq!(std::fs::read(&path).unwrap().len(), 2 * WAITING_MAX);
    }
}
