//! Asking for certificates in the way that is open.

use super::refusal::WayIn;
use super::*;

impl Agent {
    pub(super) fn renew_if_due(&mut self) {
        self.keeper.save_what_is_owed();
        if self.renews_in() == Some(Duration::ZERO) {
            self.certify();
        }
    }

    /// When the next renewal is due; `None` while none is made: without a session, while one is under way, and
    /// in a sidecar that drains or has drained, whom nobody calls any more, or that control refuses.
    pub(super) fn renews_in(&self) -> Option<Duration> {
        let may = self.session.is_some()
            && !self.certifying
            && self.stopping.is_none()
            && self.locked_out.is_none();
        let renewal = self.keeper.renewal().filter(|_| may)?;
        Some(renewal.wait(UnixMs::now()))
    }

    /// Asks for certificates, in the way that is open now.
    pub(super) fn certify(&mut self) {
        if self.certifying {
            return;
        }
        let Some(place) = self.place() else { return };
        let now = UnixMs::now();
        let with_node = self.keeper.node_due(now);
        let anchor = self.keeper.anchor();
        let over_link = self
            .live
            .as_ref()
            .filter(|live| now < live.identity_expires)
            .map(|live| live.running.link.clone());
        let step = match self.way_in() {
            WayIn::Token => Step::Enroll,
            WayIn::Shown | WayIn::None => self.keeper.step(now),
        };
        let asking: std::pin::Pin<Box<dyn Future<Output = Issue> + Send>> = match (step, over_link)
        {
            (Step::Connect(_), Some(link)) => Box::pin(link::renew(link, with_node)),
            (Step::Connect(identity) | Step::RenewBy(identity), _) => {
                Box::pin(link::renew_apart(place, anchor, identity, with_node))
            }
            (Step::Enroll, _) => match self.joining() {
                Ok((token, keys)) => {
                    self.joining_with = Some(token.id.clone());
                    let node = self.settings.node.clone();
                    Box::pin(link::enroll(place, token, node, keys))
                }
                Err(why) => Box::pin(std::future::ready(Err(why))),
            },
        };
        self.certifying = true;
        let tell = self.issues.clone();
        tokio::spawn(async move {
            let issue = tokio::time::timeout(CERTIFICATE_TIMEOUT, asking).await;
            let too_slow = |_| Err(LinkError::Lost("control takes too long to certify".into()));
            let _ = tell.send(issue.unwrap_or_else(too_slow));
        });
    }

    /// What to join with. The keys stay the same until there is a certificate: control takes a token that
    /// is used again only from who used it.
    fn joining(&mut self) -> Result<(JoinToken, Arc<Keys>), LinkError> {
        let token = self.token().map_err(LinkError::Setup)?;
        let keys = match &self.joining {
            Some(keys) => Arc::clone(keys),
            None => Arc::clone(self.joining.insert(Arc::new(Keys::new(true)?))),
        };
        Ok((token, keys))
    }

    pub(super) fn token(&self) -> Result<JoinToken, String> {
        let control = self.settings.control.as_ref();
        let file = control.and_then(|control| control.token_file.as_deref());
        JoinToken::load(file, &self.settings.token_command())
    }

    pub(super) fn certified(&mut self, issue: Issue) {
        self.certifying = false;
        let token = self.joining_with.take();
        let (now, random) = (UnixMs::now(), fastrand::u64(..));
        let taken = match issue {
            Ok(fresh) => self
                .keeper
                .accept(&fresh, now, random)
                .map_err(LinkError::Setup),
            Err(error) => {
                if error.is_fault() {
                    *self.figures.faults.entry(error.code()).or_default() += 1;
                }
                Err(error)
            }
        };
        let waiting = self.session.as_ref().map(Session::phase) == Some(Phase::Connecting)
            && self.connecting.is_none();
        match taken {
            Ok(()) => {
                self.joining = None;
                if let Some(id) = token {
                    self.token_spent(id, None);
                }
                self.locked_out = None;
                self.board.face().locked_out = false;
                self.figures.renewals += 1;
                if let Some(svid) = &self.keeper.credentials().svid {
                    tracing::info!(spiffe = %svid.spiffe, serial = %svid.serial, "certificate obtained");
                }
                self.push_material();
                if waiting {
                    self.connect();
                }
            }
            Err(error) => {
                self.figures.renewal_failures += 1;
                self.keeper.failed(now, random);
                self.show_credentials();
                self.no_certificate(token, &error);
                if waiting {
                    self.tell_session(Input::Failed);
                }
            }
        }
    }
}
