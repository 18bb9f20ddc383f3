//! How a shard wakes the agent without ever waiting for it.
//!
//! Ringing is an atomic exchange and, once until the agent looks, one non-blocking write of a byte
//! to a socket pair the agent's runtime polls: no lock and no allocation on the shard.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The shard's end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rung: AtomicBool,
    write: UnixStream,
}

/// The agent's end.
#[derive(Debug)]
pub struct Listener {
    inner: Arc<Inner>,
    read: UnixStream,
}

/// Makes a bell.
///
/// # Errors
/// The system's, where no socket pair is to be had.
pub fn bell() -> io::Result<(Bell, Listener)> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    let rung = AtomicBool::new(false);
    let inner = Arc::new(Inner { rung, write });
    let bell = Bell {
        inner: Arc::clone(&inner),
    };
    Ok((bell, Listener { inner, read }))
}

impl Bell {
    /// Rings. What was put into a queue before it is seen by the agent after it woke.
    pub fn ring(&self) {
        if !self.inner.rung.swap(true, Ordering::AcqRel) {
            // Full means that the agent has a byte to wake by already; gone means it has ended.
            let _ = (&self.inner.write).write(&[1]);
        }
    }
}

impl Listener {
    /// The listener for the runtime the agent lives on; called on it.
    ///
    /// # Errors
    /// The system's.
    pub fn on_runtime(self) -> io::Result<Ear> {
        Ok(Ear {
            inner: self.inner,
            read: tokio::net::UnixStream::from_std(self.read)?,
        })
    }
}

/// A [`Listener`] that waits.
#[derive(Debug)]
pub struct Ear {
    inner: Arc<Inner>,
    read: tokio::net::UnixStream,
}

impl Ear {
    /// Waits until the bell was rung since the last call. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn rung(&self) -> io::Result<()> {
        self.read.readable().await?;
        let mut bytes = [0; 16];
        match self.read.try_read(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        // Before the queues are looked at, and acquiring: what was put there by someone who found
        // the bell rung already is seen now; whoever comes later rings again.
        self.inner.rung.swap(false, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_ring_after_a_look_wakes_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (bell, listener) = bell().unwrap();
            let ear = listener.on_runtime().unwrap();
            for round in 0..50 {
                let bell = bell.clone();
                let thread = std::thread::spawn(move || {
                    for _ in 0..=round {
                        bell.ring();
                    }
                });
                let woke = tokio::time::timeout(Duration::from_secs(5), ear.rung());
                woke.await.expect("the bell was not heard").unwrap();
                thread.join().unwrap();
                // What was rung while we looked may have left a byte; it wakes at most once more.
                let quiet = tokio::time::timeout(Duration::from_millis(1), ear.rung());
                let _ = quiet.await;
            }
        });
    }
}
