//! One root after the other: announced, signing, withdrawn, without anybody noticing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ringmesh_wire::SectionKind;
use ringmesh_wire::snapshot::Body;

use super::control::Control;
use crate::compile::TrustView;
use crate::svid::{CaError, Refusal, SKEW_MS_MAX, Stage, unix_ms};

/// How often a rotation under way is looked at. Its steps are minutes to days apart.
const LOOK: Duration = Duration::from_millis(500);
/// How often an idle one is: whether the root grows old.
const LOOK_IDLE: Duration = Duration::from_secs(3_600);

/// Takes the steps of rotations until the task is dropped.
pub async fn run(control: Arc<Control>) {
    let mut begun = control.roots_changed.subscribe();
    loop {
        let pause = match control.issuer.authority().succession().is_under_way() {
            true => LOOK,
            false => LOOK_IDLE,
        };
        let worker = Arc::clone(&control);
        let stepped = tokio::task::spawn_blocking(move || worker.step_roots()).await;
        match stepped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a step of the root's rotation failed"),
            Err(error) => tracing::error!(%error, "the root's rotation failed"),
        }
        let _ = tokio::time::timeout(pause, begun.changed()).await;
    }
}

impl Control {
    /// Begins to replace the root: a new one is made and announced to all sidecars. What follows comes by
    /// itself. Blocks on the disk.
    ///
    /// # Errors
    /// [`Refusal`] `rotation_under_way`, `root_given`, `ca_failed`.
    pub fn rotate_root(&self, who: &str) -> Result<(), Refusal> {
        let announced = self.issuer.authority().announce(SystemTime::now());
        match announced {
            Ok(Some(())) => {}
            Ok(None) => {
                return Err(Refusal {
                    code: "rotation_under_way",
                    message: "another root is on its way: `ringmesh cert roots` shows how far"
                        .into(),
                });
            }
            Err(CaError::Given) => {
                return Err(Refusal {
                    code: "root_given",
                    message: CaError::Given.to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.tell_roots();
        self.audit(who, "cert rotate-root");
        Ok(())
    }

    /// Reads the files of a CA that was given again, and tells what came of it. Blocks on the disk.
    pub fn read_ca_again(&self, who: &str) {
        match self.issuer.authority().read_again(SystemTime::now()) {
            Ok(true) => {
                self.tell_roots();
                self.audit(who, "the CA's files were read again");
            }
            Ok(false) => tracing::info!(
                who,
                "nothing to read again: the CA is our own, and rules come by `ringmesh apply`"
            ),
            Err(error) => tracing::error!(
                who,
                %error,
                "the CA's files are not taken; what was in force stays"
            ),
        }
    }

    fn step_roots(&self) -> Result<(), Refusal> {
        let now = SystemTime::now();
        let authority = self.issuer.authority();
        if authority.renew_intermediate(now)? {
            self.audit("control", "cert renew-intermediate");
            // The link shows a certificate under the new one.
            self.roots_changed.send_modify(|n| *n += 1);
        }
        if let Some(left) = authority.given_ends_in(self.issuer.lives().workload, now) {
            tracing::error!(
                hours_left = left.as_secs() / 3_600,
                "THE CA THAT WAS GIVEN ENDS SOON, and no certificate outlives it: put a new certificate and \
                 key into their files and send HUP"
            );
        }
        if authority.is_due(now) {
            self.rotate_root("control, because the root is in the last fifth of its life")?;
        }
        let succession = authority.succession();
        let Some(waiting) = succession.waiting() else {
            return Ok(());
        };
        let trusted = waiting.stage == Stage::Announced && self.is_trusted_everywhere(now)?;
        let facts = self.issuer.facts(now, trusted)?;
        // Short lives are for tests: there a minute would be most of it.
        let skew = self.issuer.lives().workload / 10;
        let skew = skew.min(Duration::from_millis(SKEW_MS_MAX));
        if let Some(next) = authority.step(&facts, skew, now)? {
            for one in &next.generations {
                tracing::info!(folder = one.folder, stage = one.stage.name(), "root");
            }
            self.tell_roots();
        }
        Ok(())
    }

    /// Whether every node with an SVID that has not ended holds a configuration with all roots of now.
    fn is_trusted_everywhere(&self, now: SystemTime) -> Result<bool, Refusal> {
        let now_ms = unix_ms(now);
        let nodes = self.book.nodes()?;
        let known = nodes.iter().filter(|node| {
            let mut certificates = node.certificates.iter();
            certificates.any(|c| c.purpose == "workload" && c.not_after_ms > now_ms)
        });
        let roots: BTreeSet<Vec<u8>> = self.issuer.authority().trusted().into_iter().collect();
        let state = self.lock();
        Ok(known.into_iter().all(|node| {
            let Some(held) = state.fanout.held(&node.binding.node) else {
                return false;
            };
            let trust = held
                .sections
                .iter()
                .find(|s| s.key.kind == SectionKind::Trust);
            trust
                .and_then(|section| section.open().ok())
                .is_some_and(|body| {
                    let Body::Trust(trust) = body else {
                        return false;
                    };
                    roots.iter().all(|root| trust.roots.contains(root))
                })
        }))
    }

    /// Tells sidecars whom to trust now, and the link whom to take in and what to show.
    fn tell_roots(&self) {
        let mut state = self.lock();
        let mut trust = TrustView::clone(&state.trust);
        trust.roots = self.issuer.authority().trusted();
        state.trust = Arc::new(trust);
        state.dirty.everything();
        drop(state);
        self.changed.notify_one();
        self.roots_changed.send_modify(|n| *n += 1);
    }
}
