//! Leaving, draining, and the last words.

use super::*;

impl Agent {
    pub(super) fn terminate(&mut self) {
        match &mut self.stopping {
            Some(stopping) if !stopping.stay => {
                tracing::warn!("told to stop a second time: stopping at once");
                std::process::exit(0);
            }
            Some(stopping) => stopping.stay = false,
            None => self.drain(false),
        }
    }

    pub(super) fn drain(&mut self, stay: bool) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(timeout = ?self.settings.drain_timeout, "draining");
        self.board.face().draining = true;
        // Withdrawn at once, so that nobody sends anything new.
        self.tell_session(Input::Leave);
        self.doors.send_all(&ToShard::Drain);
        let called_by_others = self.session.is_some() && !self.settings.ports.is_empty();
        self.stopping = Some(Stopping {
            drained: BTreeSet::new(),
            heard_of_by: called_by_others.then(|| Instant::now() + HEARD_OF_WITHIN),
            until: Instant::now() + self.settings.drain_timeout,
            last_words: None,
            stay,
        });
    }

    /// Moves the end on; true when it has come.
    pub(super) fn pass_on_stopping(&mut self) -> bool {
        let shards = self.doors.len();
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        let now = Instant::now();
        let late = now >= stopping.until;
        if let Some(heard_of_by) = stopping.heard_of_by
            && !late
        {
            if now < heard_of_by {
                return false;
            }
            // What has begun since the shards were asked counts too: they are asked again.
            stopping.heard_of_by = None;
            stopping.drained.clear();
            self.doors.send_all(&ToShard::Drain);
            return false;
        }
        match stopping.last_words {
            None if stopping.drained.len() >= shards || late => {
                if stopping.stay {
                    // Nothing more to do until TERM; look again with the next tick.
                    stopping.until = Instant::now() + TICK;
                    return false;
                }
                if stopping.drained.len() < shards {
                    tracing::warn!("drain timeout: what is still open is closed now");
                }
                stopping.last_words = Some(0);
                stopping.until = Instant::now() + LAST_WORDS;
                // Twice: a shard's log lines come behind its figures, so when the second figures
                // are here, the lines of the first are too.
                self.doors.send_all(&ToShard::Collect);
                self.doors.send_all(&ToShard::Collect);
                false
            }
            None => false,
            Some(heard) => heard >= 2 * shards || late,
        }
    }

    pub(super) async fn farewell(&mut self) {
        // Log lines that came behind the last figures.
        let _ = self.hear_shards();
        self.leases.goodbye(ring::monotonic().0);
        self.doors.send_all(&ToShard::Stop);
        if let Some(log) = &self.log_file {
            log.flush();
        }
        // The close of the link is a packet that the runtime may have yet to send.
        if let Some(link) = self.left.take() {
            link.settled(LAST_WORDS).await;
        }
        let _ = std::fs::remove_file(self.settings.state_dir.join("admin.sock"));
        tracing::info!("stopped");
    }
}
