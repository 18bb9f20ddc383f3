//! Carrying out what the session wishes, and hearing the link.

use super::refusal::WayIn;
use super::*;

impl Agent {
    pub(super) fn tell_session(&mut self, input: Input) {
        let now = self.now();
        if let Some(session) = &mut self.session {
            session.handle(input, now, fastrand::u64(..));
        }
    }

    /// Carries out what the session wishes.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.session.as_mut().and_then(Session::poll) {
            match output {
                Output::Connect => self.connect(),
                Output::Send(up) => {
                    if let Some(live) = &self.live {
                        live.running.send(*up);
                    }
                }
                Output::Publish(snapshot) => {
                    self.let_in();
                    if let Err(why) = self.publish(&snapshot, Origin::Control) {
                        let revision = snapshot.revision;
                        let result = Err(why);
                        self.tell_session(Input::Published { revision, result });
                    }
                }
                Output::Close { code, why } => {
                    if let Some(live) = self.live.take() {
                        live.running.link.close(code, &why);
                        self.left = (code == CLOSE_LEAVING).then(|| live.running.link.clone());
                    }
                }
                Output::Tell(tell) => self.told(tell),
            }
        }
        let phase = self.session.as_ref().map(Session::phase);
        self.figures.connected = phase == Some(Phase::Live);
        self.board.face().session = phase;
    }

    pub(super) fn told(&mut self, tell: Tell) {
        match tell {
            Tell::Live => {
                self.figures.sessions += 1;
                // A sidecar that control refuses for what it registers is greeted first.
                if self.locked_out.is_none() {
                    self.in_session();
                }
            }
            Tell::Rejected(reject) => self.link_trouble(&LinkError::Rejected(reject)),
            Tell::Refused { revision, reason } => self.refused(revision.0, &reason),
            Tell::NotRegistered { address } => self.trouble(format!(
                "not registered: control is remote and {address} is loopback; \
                 set `advertise` in sidecar.yaml"
            )),
            Tell::Fault(why) => self.trouble(format!("control broke the protocol: {why}")),
        }
    }

    pub(super) fn in_session(&mut self) {
        self.last_trouble.clear();
        self.board.face().trouble = None;
        tracing::info!("in session with control");
    }

    /// Logs a trouble once, not at every attempt.
    pub(super) fn trouble(&mut self, why: String) {
        if self.last_trouble != why {
            tracing::warn!(%why, "trouble with control");
            self.board.face().trouble = Some(why.clone());
            self.last_trouble = why;
        }
    }

    pub(super) fn place(&self) -> Option<Place> {
        let Control { host, port, .. } = self.settings.control.clone()?;
        Some(Place { host, port })
    }

    pub(super) fn connect(&mut self) {
        let Some(place) = self.place() else { return };
        match self.way_in() {
            WayIn::Shown => {}
            WayIn::Token => return self.certify(),
            WayIn::None => return self.tell_session(Input::Failed),
        }
        match self.keeper.step(UnixMs::now()) {
            Step::Connect(identity) => {
                self.link_number += 1;
                self.connecting_expires = identity.life.expires;
                let number = LinkNumber(self.link_number);
                let anchor = self.keeper.anchor();
                let task = link::connect(number, place, anchor, identity, self.news.clone());
                self.connecting = Some(tokio::spawn(task).abort_handle());
            }
            // The session waits in `Connecting` until `certified` goes on.
            Step::RenewBy(_) | Step::Enroll => self.certify(),
        }
    }

    /// Control refuses what this link was made with: the next one is made in the way that is open.
    pub(super) fn leave_link(&mut self) {
        if self.live.is_some() {
            self.tell_session(Input::Lost);
            self.drop_link();
        }
    }

    fn drop_link(&mut self) {
        // What the session wished for (a close with its reason) goes first.
        self.carry_out();
        self.live = None;
        self.leases.disconnected(ring::monotonic().0);
        self.pass_leases();
    }

    pub(super) fn hear_link(&mut self, number: LinkNumber, news: News) {
        if number != LinkNumber(self.link_number) {
            // Of a link that was given up; a connection that comes late closes when dropped.
            return;
        }
        let of_link = !matches!(news, News::Connected(_) | News::Failed(_));
        if of_link && self.live.is_none() {
            // One end is told by several tasks.
            return;
        }
        match news {
            News::Connected(connection) => {
                self.connecting = None;
                let waited_for = self
                    .session
                    .as_ref()
                    .is_some_and(|session| session.phase() == Phase::Connecting);
                if !waited_for {
                    return;
                }
                let (local, remote) = (connection.local(), connection.remote());
                self.leases
                    .connected(number, connection.clone(), ring::monotonic().0);
                self.pass_leases();
                self.live = Some(Live {
                    running: Running::start(number, connection, &self.news),
                    identity_expires: self.connecting_expires,
                    changes: Changes::default(),
                    logging: false,
                });
                self.tell_session(Input::Connected { local, remote });
            }
            News::Failed(error) => {
                self.connecting = None;
                self.link_trouble(&error);
                self.tell_session(Input::Failed);
            }
            News::Said(down) => self.tell_session(Input::Said(down)),
            News::Ended(error) => {
                if error.is_fault() {
                    *self.figures.faults.entry(error.code()).or_default() += 1;
                    self.tell_session(Input::Unreadable(error.code().to_owned()));
                } else {
                    self.link_trouble(&error);
                    self.tell_session(Input::Lost);
                }
                self.drop_link();
            }
            News::Leased(stream, message) => {
                self.leases.said(stream, *message, ring::monotonic().0);
                self.pass_leases();
            }
            News::LeaseEnded(stream) => {
                self.leases.ended(stream, ring::monotonic().0);
                self.pass_leases();
            }
            News::Stored(ack) => {
                if let Some(forward) = &mut self.forward {
                    forward.acknowledged(&ack);
                }
                if let Some(live) = &mut self.live {
                    live.logging = false;
                }
                self.forward_log();
            }
        }
    }
}
