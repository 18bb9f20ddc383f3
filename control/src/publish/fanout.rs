//! Who holds which configuration (pure).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmesh_wire::{NodeId, Revision, Snapshot};

use crate::registry::SessionId;

/// One connected sidecar.
#[derive(Debug, Clone)]
struct Target {
    session: SessionId,
    wanted: Option<Arc<Snapshot>>,
    /// Revision of the rules that `wanted` was compiled from. May rise without `wanted` changing.
    wanted_rules: u64,
    acked: Revision,
    acked_rules: u64,
    nacked: Option<(Revision, String)>,
}

impl Target {
    fn wanted_revision(&self) -> Revision {
        self.wanted.as_ref().map_or(Revision(0), |s| s.revision)
    }
}

/// One line of `ringmesh proxy list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// The node.
    pub node: NodeId,
    /// Newest configuration meant for it.
    pub wanted: Revision,
    /// Newest it acknowledged.
    pub acked: Revision,
    /// Revision of the rules it acknowledged.
    pub acked_rules: u64,
    /// What it refused, and why, if that is the newest.
    pub nacked: Option<(Revision, String)>,
}

/// A sidecar that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laggard {
    /// The node.
    pub node: NodeId,
    /// Why it refused; `None`: it has not answered yet.
    pub refused: Option<String>,
}

/// Whether a revision is in force everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// On all live sidecars; how many.
    Everywhere(usize),
    /// All have answered, and these refused.
    Refused(Vec<Laggard>),
    /// These have not, or refused.
    Waiting(Vec<Laggard>),
}

/// All connected sidecars.
#[derive(Debug, Default)]
pub struct Fanout {
    targets: BTreeMap<NodeId, Target>,
}

impl Fanout {
    /// A session began; an older one of the node is forgotten and returned.
    pub fn join(&mut self, node: NodeId, session: SessionId) -> Option<SessionId> {
        let target = Target {
            session,
            wanted: None,
            wanted_rules: 0,
            acked: Revision(0),
            acked_rules: 0,
            nacked: None,
        };
        self.targets.insert(node, target).map(|old| old.session)
    }

    /// A session ended.
    pub fn leave(&mut self, node: &NodeId, session: SessionId) {
        if self.targets.get(node).is_some_and(|t| t.session == session) {
            self.targets.remove(node);
        }
    }

    /// Connected nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether none is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// A snapshot was compiled for `node` from `rules`. Returns it if it has to be sent; `None`
    /// where the node is gone or its content is what the node is meant to have already.
    pub fn plan(&mut self, node: &NodeId, snapshot: Snapshot, rules: u64) -> Option<Arc<Snapshot>> {
        let target = self.targets.get_mut(node)?;
        let same = target
            .wanted
            .as_ref()
            .is_some_and(|wanted| wanted.sections == snapshot.sections);
        target.wanted_rules = rules;
        if same {
            if target.acked == target.wanted_revision() {
                target.acked_rules = rules;
            }
            return None;
        }
        let snapshot = Arc::new(snapshot);
        target.wanted = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// `session` acknowledged `revision`.
    pub fn acked(&mut self, node: &NodeId, session: SessionId, revision: Revision) {
        let Some(target) = self.of(node, session) else {
            return;
        };
        target.acked = revision;
        if target.nacked.as_ref().is_some_and(|(r, _)| *r <= revision) {
            target.nacked = None;
        }
        if target.wanted_revision() == revision {
            target.acked_rules = target.wanted_rules;
        }
    }

    /// `session` refused `revision`.
    pub fn nacked(
        &mut self,
        node: &NodeId,
        session: SessionId,
        revision: Revision,
        reason: String,
    ) {
        if let Some(target) = self.of(node, session) {
            target.nacked = Some((revision, reason));
        }
    }

    fn of(&mut self, node: &NodeId, session: SessionId) -> Option<&mut Target> {
        self.targets.get_mut(node).filter(|t| t.session == session)
    }

    /// What `node` has acknowledged, if that is what it is meant to have.
    #[must_use]
    pub fn held(&self, node: &NodeId) -> Option<Arc<Snapshot>> {
        let target = self.targets.get(node)?;
        let wanted = target.wanted.clone()?;
        (target.acked == wanted.revision).then_some(wanted)
    }

    /// What `node` is meant to have.
    #[must_use]
    pub fn wanted(&self, node: &NodeId) -> Option<Arc<Snapshot>> {
        self.targets.get(node)?.wanted.clone()
    }

    /// Whether the rules of revision `rules` are in force on every live sidecar.
    #[must_use]
    pub fn verdict(&self, rules: u64) -> Verdict {
        let behind: Vec<Laggard> = self
            .targets
            .iter()
            .filter(|(_, target)| target.acked_rules < rules)
            .map(|(node, target)| {
                let newest = target.wanted_revision();
                let refusal = target.nacked.as_ref();
                let refusal = refusal
                    .filter(|(revision, _)| *revision == newest && target.wanted_rules >= rules);
                Laggard {
                    node: node.clone(),
                    refused: refusal.map(|(_, why)| why.clone()),
                }
            })
            .collect();
        if behind.is_empty() {
            Verdict::Everywhere(self.targets.len())
        } else if behind.iter().all(|laggard| laggard.refused.is_some()) {
            Verdict::Refused(behind)
        } else {
            Verdict::Waiting(behind)
        }
    }

    /// All of them, for lists.
    #[must_use]
    pub fn rows(&self) -> Vec<NodeRow> {
        let rows = self.targets.iter().map(|(node, target)| NodeRow {
            node: node.clone(),
            wanted: target.wanted_revision(),
            acked: target.acked,
            acked_rules: target.acked_rules,
            nacked: target
                .nacked
                .clone()
                .filter(|(revision, _)| *revision == target.wanted_revision()),
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmesh_wire::Section;
    use ringmesh_wire::{SectionKey, SectionKind};

    fn snapshot(revision: u64, content: &str) -> Snapshot {
        let section = Section {
            key: SectionKey {
                kind: SectionKind::Mesh,
                name: String::new(),
            },
            bytes: content.into(),
        };
        Snapshot::new(Revision(revision), node("a"), vec![section]).unwrap()
    }

    fn node(name: &str) -> NodeId {
        NodeId(name.into())
    }

    #[test]
    fn rules_are_everywhere_once_every_sidecar_acknowledged_what_they_compiled_to() {
        let mut fanout = Fanout::default();
        assert_eq!(fanout.verdict(1), Verdict::Everywhere(0));
        fanout.join(node("a"), SessionId(1));
        fanout.join(node("b"), SessionId(2));
        assert!(fanout.plan(&node("a"), snapshot(10, "x"), 1).is_some());
        assert!(fanout.plan(&node("b"), snapshot(10, "x"), 1).is_some());
        fanout.acked(&node("a"), SessionId(1), Revision(10));
        let lagging = |name: &str, refused: Option<&str>| Laggard {
            node: node(name),
            refused: refused.map(str::to_owned),
        };
        assert_eq!(
            fanout.verdict(1),
            Verdict::Waiting(vec![lagging("b", None)])
        );
        fanout.nacked(&node("b"), SessionId(2), Revision(10), "no".into());
        assert_eq!(
            fanout.verdict(1),
            Verdict::Refused(vec![lagging("b", Some("no"))])
        );
        // Rules that change nothing for a sidecar are in force on it without a push.
        assert!(fanout.plan(&node("a"), snapshot(11, "x"), 2).is_none());
        assert!(fanout.plan(&node("b"), snapshot(11, "y"), 2).is_some());
        assert_eq!(
            fanout.verdict(2),
            Verdict::Waiting(vec![lagging("b", None)])
        );
        fanout.acked(&node("b"), SessionId(2), Revision(11));
        assert_eq!(fanout.verdict(2), Verdict::Everywhere(2));
        assert_eq!(fanout.rows()[0].acked, Revision(10));
        assert_eq!(fanout.rows()[0].acked_rules, 2);
    }

    #[test]
    fn an_old_session_says_nothing_about_a_new_one() {
        let mut fanout = Fanout::default();
        fanout.join(node("a"), SessionId(1));
        fanout.plan(&node("a"), snapshot(1, "x"), 1);
        assert_eq!(fanout.join(node("a"), SessionId(2)), Some(SessionId(1)));
        fanout.acked(&node("a"), SessionId(1), Revision(1));
        fanout.leave(&node("a"), SessionId(1));
        assert_eq!(fanout.rows()[0].acked, Revision(0));
    }

    #[test]
    fn an_old_acknowledgement_does_not_stand_for_newer_rules() {
        let mut fanout = Fanout::default();
        fanout.join(node("a"), SessionId(1));
        fanout.plan(&node("a"), snapshot(1, "x"), 1);
        fanout.plan(&node("a"), snapshot(2, "y"), 2);
        fanout.acked(&node("a"), SessionId(1), Revision(1));
        assert!(matches!(fanout.verdict(2), Verdict::Waiting(_)));
        fanout.acked(&node("a"), SessionId(1), Revision(2));
        assert_eq!(fanout.verdict(2), Verdict::Everywhere(1));
    }
}
