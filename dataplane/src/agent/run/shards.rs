//! What the shards tell: figures, log lines, and the reports made of them.

use ringmesh_tuning::stdout;

use super::*;

impl Agent {
    pub(super) fn hear_shards(&mut self) -> Result<(), String> {
        while let Some((shard, message)) = self.doors.receive() {
            self.hear_shard(shard, message)?;
        }
        Ok(())
    }

    pub(super) fn hear_shard(&mut self, shard: usize, message: FromShard) -> Result<(), String> {
        match message {
            FromShard::Listening => {
                self.board.face().listening += 1;
                self.tell_ready();
            }
            FromShard::Failed(why) => return Err(format!("shard {shard}: {why}")),
            FromShard::InForce(generation) => {
                if self.publisher.confirmed(shard, generation).is_some() {
                    self.in_force();
                }
            }
            FromShard::Stats(stats) => {
                if let (Some(ring), Some(seen)) =
                    (stats.ring(), self.board.face().rings.get_mut(shard))
                {
                    *seen = Some(ring);
                }
                if let Some(slot) = self.stats.get_mut(shard) {
                    *slot = Some(*stats);
                }
                self.counted();
            }
            FromShard::Quiet => {
                if let Some(quiet) = self.quiet.get_mut(shard) {
                    *quiet = true;
                }
                self.counted();
            }
            FromShard::Stirring => {
                if let Some(quiet) = self.quiet.get_mut(shard) {
                    *quiet = false;
                }
                self.next_tick = self.next_tick.min(Instant::now() + TICK);
            }
            FromShard::Quota(message) => {
                let now = ring::monotonic().0;
                self.leases.from_shard(shard, message, now);
                self.pass_leases();
            }
            FromShard::Log(lines) => self.log(shard, lines),
            FromShard::Drained => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.drained.insert(shard);
                }
            }
        }
        Ok(())
    }

    /// A shard has answered what it was asked.
    fn counted(&mut self) {
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 {
            self.report();
        }
        if let Some(Stopping {
            last_words: Some(heard),
            ..
        }) = &mut self.stopping
        {
            *heard += 1;
        }
    }

    pub(super) fn log(&mut self, shard: usize, lines: Vec<u8>) {
        if let Some(forward) = &mut self.forward {
            forward.push(&lines);
        }
        let spare = match &self.log_file {
            Some(file) => {
                file.write(lines);
                file.spare()
            }
            None => lines,
        };
        self.doors.send(shard, ToShard::LogSpare(spare));
        self.forward_log();
    }

    pub(super) fn forward_log(&mut self) {
        if let (Some(live), Some(forward)) = (&mut self.live, &self.forward)
            && !live.logging
            && let Some(batch) = forward.batch()
        {
            live.logging = live.running.log(batch);
        }
    }

    pub(super) fn tick(&mut self) {
        let quiet = self.quiet.iter().all(|quiet| *quiet);
        self.next_tick = Instant::now() + if quiet { QUIET_TICK } else { TICK };
        if let Some(file) = self.log_file.as_ref().filter(|_| quiet) {
            file.rest();
        }
        self.doors.retry();
        let asked = std::mem::take(&mut self.asked);
        for (shard, quiet) in self.quiet.iter().enumerate() {
            if !quiet {
                self.doors.send(shard, ToShard::Collect);
                self.asked += 1;
            }
        }
        if asked > 0 || self.asked == 0 {
            // A shard that does not answer must not silence the others; one that has nothing to say
            // leaves the agent's own figures.
            self.report();
        }
        self.publisher.sweep();
        self.renew_if_due();
        self.forward_log();
    }

    /// All series, of the shards and of the agent: for `/metrics` and for control alike.
    pub(super) fn series(&mut self) -> Vec<Series> {
        self.figures.log_file = self.log_file.as_ref().map(LogFile::counts);
        self.figures.log_forward = self.forward.as_ref().map(Forward::counts);
        self.figures.shard_allocations = crate::shard::allocations();
        self.figures.svid_alarm = self
            .keeper
            .renewal()
            .is_some_and(|renewal| renewal.alarming(UnixMs::now()));
        let stats: Vec<Stats> = self.stats.iter().flatten().cloned().collect();
        let mut series = telemetry::merge(&stats);
        series.extend(self.figures.series());
        series.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        series
    }

    pub(super) fn report(&mut self) {
        let series = self.series();
        self.board.face().series.clone_from(&series);
        let Some(live) = &mut self.live else { return };
        if self.session.as_ref().map(Session::phase) != Some(Phase::Live) {
            return;
        }
        let changed = live.changes.of(&series);
        if changed.is_empty() {
            return;
        }
        let report = Report {
            node: NodeId(self.settings.node.0.clone()),
            boot: self.boot,
            sequence: self.report_sequence + 1,
            series: changed.clone(),
        };
        // While the last one is still under way nothing is lost: values are cumulative.
        if live.running.report(report) {
            self.report_sequence += 1;
            live.changes.acknowledge(changed);
        }
    }

    pub(super) fn tell_ready(&mut self) {
        let face = self.board.face();
        let listeners = face.listeners;
        let ready = face.not_ready().is_empty();
        drop(face);
        if ready && !self.ready_told {
            self.ready_told = true;
            tracing::info!(?listeners, shards = self.doors.len(), "ready");
            // Nobody may be reading; traffic is served all the same.
            if let Err(error) = stdout::try_write(format_args!("ready\n")) {
                tracing::warn!(%error, "standard output takes no `ready`");
            }
        }
    }
}
