//! Quota leases between the shards' cells and control.

use super::*;

impl Agent {
    /// Acknowledges a configuration once its quotas can be charged: whoever waits for an apply may
    /// count on the first request.
    pub(super) fn tell_leased(&mut self) {
        let Some((revision, until)) = self.unleased else {
            return;
        };
        let tables = self.publisher.in_force();
        let names: Vec<String> = tables
            .iter()
            .flat_map(|tables| tables.quotas())
            .map(|row| row.rule.lease_name())
            .collect();
        if self.leases.settled(names.iter().map(String::as_str)) || Instant::now() >= until {
            self.unleased = None;
            self.tell_session(Input::Published {
                revision,
                result: Ok(()),
            });
        }
    }

    pub(super) fn tick_leases(&mut self) {
        self.leases.tick(ring::monotonic().0);
        self.pass_leases();
    }

    pub(super) fn pass_leases(&mut self) {
        for (shard, message) in self.leases.poll() {
            self.doors.send(usize::from(shard), ToShard::Quota(message));
        }
        self.tell_leased();
    }
}
