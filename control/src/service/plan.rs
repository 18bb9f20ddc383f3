//! When to compile, and for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmesh_wire::snapshot::{Body, Service};
use ringmesh_wire::{NodeId, Revision, SectionKind, ServiceId, Snapshot};

use super::control::{Control, State};
use crate::compile::{Base, CompileError, Mode, NodeScope};
use crate::model::{Effective, Model};
use crate::rules::Object;
use crate::store::{Document, InForce, ObjectKey, StoredEndpoint};
use crate::time::Mono;

/// Rules are compiled when none has come for this long: people apply several files in a row.
const QUIET: Duration = Duration::from_millis(100);
/// But at the latest this long after the first.
const PATIENCE: Duration = Duration::from_secs(10);
/// Virtual addresses remembered; above it those of services that are gone are given back.
const VIPS_MAX: usize = 20_000;

/// What changed since the last plan.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// First and last change of rules.
    rules: Option<(Mono, Mono)>,
    /// Endpoints may have changed.
    endpoints: bool,
    /// Everybody needs a new snapshot, whatever changed.
    everything: bool,
    /// These need one though nothing changed: they have just come.
    nodes: BTreeSet<NodeId>,
}

impl Dirty {
    pub(super) fn rules(&mut self, now: Mono) {
        let first = self.rules.map_or(now, |(first, _)| first);
        self.rules = Some((first, now));
    }

    pub(super) fn endpoints(&mut self) {
        self.endpoints = true;
    }

    pub(super) fn everything(&mut self) {
        self.everything = true;
    }

    pub(super) fn node(&mut self, node: NodeId) {
        self.nodes.insert(node);
    }

    /// When to plan; `None`: nothing to do. Endpoint changes do not wait.
    fn due(&self) -> Option<Mono> {
        if self.endpoints || self.everything || !self.nodes.is_empty() {
            return Some(Mono::default());
        }
        let (first, last) = self.rules?;
        Some((last + QUIET).min(first + PATIENCE))
    }
}

/// Runs the planner until the task is dropped.
pub async fn run(control: Arc<Control>) {
    loop {
        let now = control.now();
        let (due, tick) = control.deadlines();
        if due.is_some_and(|due| due <= now) || tick.is_some_and(|tick| tick <= now) {
            let planner = Arc::clone(&control);
            let planned = tokio::task::spawn_blocking(move || planner.plan()).await;
            if let Err(error) = planned {
                tracing::error!(%error, "the planner failed");
            }
            continue;
        }
        let next = [due, tick].into_iter().flatten().min();
        let at = next.map(|next| control.clock.instant(next));
        tokio::select! {
            () = control.changed.notified() => {}
            () = sleep_until(at) => {}
        }
    }
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Control {
    fn deadlines(&self) -> (Option<Mono>, Option<Mono>) {
        let state = self.lock();
        (state.dirty.due(), state.registry.deadline())
    }

    /// Compiles what has to be compiled and hands it to the sessions. Blocks on disk and compile.
    pub(super) fn plan(&self) {
        let _gate = self.gate();
        self.tick_registry();
        let (work, dirty) = {
            let mut state = self.lock();
            let dirty = std::mem::take(&mut state.dirty);
            (Work::gather(&mut state, &dirty), dirty)
        };
        let Some(work) = work else {
            return;
        };
        let resolution = work.model.resolve(&work.view, &work.before);
        let effective = Arc::new(resolution.effective);
        let in_force = difference(&work.model, &effective);
        self.keep_in_force(&in_force);

        let mut snapshots = Vec::with_capacity(work.scopes.len());
        let mut errors = BTreeMap::new();
        match Base::new(&effective, &work.view, &work.trust) {
            Ok(base) => {
                self.quotas.send_replace(Some(Arc::new(base.quota_facts())));
                for scope in &work.scopes {
                    self.counters.compiles.inc();
                    match base.snapshot(scope) {
                        Ok((snapshot, _)) => snapshots.push(snapshot),
                        Err(error) => {
                            errors.insert(scope.node.clone(), error.to_string());
                        }
                    }
                }
            }
            Err(error) => {
                let all = work.scopes.iter();
                errors.extend(all.map(|scope| (scope.node.clone(), error.to_string())));
            }
        }
        for (node, error) in &errors {
            self.counters.compile_failures.inc();
            tracing::error!(%node, error, "no snapshot could be compiled; the old one stays");
        }

        if let Some(snapshot) = snapshots.first() {
            self.keep_vips(&vips_in(snapshot), &work.view.vips);
        }
        let rules = work.model.revision.0;
        let mut state = self.lock();
        state.effective = effective;
        state.statuses = resolution.statuses;
        state.in_force = in_force;
        for scope in &work.scopes {
            state.compile_errors.remove(&scope.node);
        }
        state.compile_errors.extend(errors);
        for mut snapshot in snapshots {
            let node = snapshot.node.clone();
            snapshot.revision = self.generation(&mut state);
            if let Some(snapshot) = state.fanout.plan(&node, snapshot, rules) {
                tracing::debug!(%node, revision = %snapshot.revision, "planned");
                if let Some(connected) = state.connected.get(&node) {
                    connected.newest.send_replace(Some(snapshot));
                }
            }
        }
        drop(state);
        drop(dirty);
        self.settle();
    }

    /// The services that a workload of `namespace` sees, compiled now.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn services_for(&self, namespace: &str) -> Result<Vec<Service>, CompileError> {
        let (effective, view, trust) = {
            let state = self.lock();
            let view = crate::model::RegistryView {
                vips: state.vips.clone(),
                ..state.registry.view()
            };
            (Arc::clone(&state.effective), view, Arc::clone(&state.trust))
        };
        let scope = NodeScope {
            node: NodeId("nobody".to_owned()),
            service: ServiceId::new("nobody", namespace),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            mode: Mode::Mesh,
        };
        let (snapshot, _) = Base::new(&effective, &view, &trust)?.snapshot(&scope)?;
        let bodies = snapshot.sections.iter().filter_map(|s| s.open().ok());
        let services = bodies.filter_map(|body| match body {
            Body::Service(service) => Some(service),
            _ => None,
        });
        Ok(services.collect())
    }

    /// Remembers addresses given out for the first time. They stay with their service as long as
    /// they fit the range, whatever comes and goes.
    fn keep_vips(&self, given: &BTreeMap<ServiceId, IpAddr>, known: &BTreeMap<ServiceId, IpAddr>) {
        if given.iter().all(|(id, vip)| known.get(id) == Some(vip)) {
            return;
        }
        let mut all = known.clone();
        if all.len() > VIPS_MAX {
            all.retain(|id, _| given.contains_key(id));
        }
        all.extend(given.iter().map(|(id, vip)| (id.clone(), *vip)));
        if let Err(error) = self.book.set_vips(&all) {
            tracing::error!(%error, "virtual addresses may move after a restart of control");
        }
        self.lock().vips = all;
    }

    fn generation(&self, state: &mut State) -> Revision {
        if let Some(next) = state.generations.next() {
            return Revision(next);
        }
        // A write of 16 bytes once in a thousand configurations, under the lock.
        match self.book.reserve_generations() {
            Ok((from, to)) => state.generations = from..to,
            Err(error) => {
                tracing::error!(%error, "could not reserve generations; counting on");
                let from = state.generations.end;
                state.generations = from..from + 1_000;
            }
        }
        Revision(state.generations.next().unwrap_or(0))
    }

    /// Lets leases end and brings the store up to date.
    fn tick_registry(&self) {
        let now = self.now();
        let changes: Vec<(NodeId, Option<StoredEndpoint>)> = {
            let mut state = self.lock();
            let frozen_before = state.registry.frozen();
            state.registry.tick(now);
            let frozen = state.registry.frozen();
            if frozen && !frozen_before {
                tracing::error!(
                    "more than 30 % of all leases expired within 10 s: endpoints are kept \
                     (`ringmesh proxy list` shows who is missing, `ringmesh endpoints thaw` \
                     removes them)"
                );
            }
            self.counters.registry_frozen.set(i64::from(frozen));
            let wanted = state.registry.to_store();
            let gone = state
                .stored
                .keys()
                .filter(|node| !wanted.contains_key(*node));
            let gone = gone.map(|node| (node.clone(), None));
            let new = wanted
                .iter()
                .filter(|(node, e)| state.stored.get(*node) != Some(*e));
            let new = new.map(|(node, e)| (node.clone(), Some(e.clone())));
            let changes = gone.chain(new).collect();
            state.stored = wanted;
            changes
        };
        if !changes.is_empty()
            && let Err(error) = self.book.put_endpoints(&changes)
        {
            tracing::error!(%error, "endpoints would not survive a restart of control");
        }
    }

    /// Records how what is in force differs from what users wrote.
    pub(super) fn keep_in_force(&self, in_force: &InForce) {
        if self.lock().in_force != *in_force
            && let Err(error) = self.book.set_in_force(in_force)
        {
            tracing::error!(%error, "what is in force would not survive a restart of control");
        }
    }
}

/// What a plan works on, copied out of the lock.
struct Work {
    model: Arc<Model>,
    before: Arc<Effective>,
    view: crate::model::RegistryView,
    trust: Arc<crate::compile::TrustView>,
    scopes: Vec<NodeScope>,
}

impl Work {
    /// `None` where nothing that anybody could see has changed.
    fn gather(state: &mut State, dirty: &Dirty) -> Option<Self> {
        let view = state.registry.view();
        let everybody = dirty.everything || dirty.rules.is_some() || view != state.view;
        if !everybody && dirty.nodes.is_empty() {
            return None;
        }
        state.view = view.clone();
        let view = crate::model::RegistryView {
            vips: state.vips.clone(),
            ..view
        };
        let scopes = state.connected.iter().filter_map(|(node, connected)| {
            (everybody || dirty.nodes.contains(node))
                .then(|| connected.scope.clone())
                .flatten()
        });
        Some(Self {
            model: Arc::clone(&state.model),
            before: Arc::clone(&state.effective),
            trust: Arc::clone(&state.trust),
            scopes: scopes.collect(),
            view,
        })
    }
}

/// The virtual addresses a snapshot gives to services.
fn vips_in(snapshot: &Snapshot) -> BTreeMap<ServiceId, IpAddr> {
    let services = snapshot
        .sections
        .iter()
        .filter(|s| s.key.kind == SectionKind::Service);
    let services = services.filter_map(|section| match section.open() {
        Ok(Body::Service(service)) => service.vips.first().map(|vip| (service.id, *vip)),
        _ => None,
    });
    services.collect()
}

fn document(object: &Object) -> Document {
    Document {
        file: object.file.to_string(),
        first_line: object.first_line,
        text: object.text.to_string(),
    }
}

/// How what is in force differs from the model.
pub(super) fn difference(model: &Model, effective: &Effective) -> InForce {
    let older = effective.objects.iter().filter(|(key, object)| {
        model
            .objects
            .get(*key)
            .is_none_or(|o| o.text != object.text)
    });
    let written = model.objects.keys().chain(model.refused.keys());
    let absent = written.filter(|key| !effective.objects.contains_key(*key));
    InForce {
        older: older.map(|(_, object)| document(object)).collect(),
        absent: absent
            .map(|key| ObjectKey {
                kind: key.kind.name().to_owned(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            })
            .collect(),
        held: effective
            .held
            .iter()
            .map(|object| document(object))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn rules_wait_for_quiet_but_not_for_ever_and_endpoints_do_not_wait() {
        let mut dirty = Dirty::default();
        assert_eq!(dirty.due(), None);
        dirty.rules(at(1_000));
        assert_eq!(dirty.due(), Some(at(1_100)));
        dirty.rules(at(1_050));
        assert_eq!(dirty.due(), Some(at(1_150)));
        for ms in (1_100..20_000).step_by(50) {
            dirty.rules(at(ms));
        }
        assert_eq!(dirty.due(), Some(at(11_000)));
        dirty.endpoints();
        assert_eq!(dirty.due(), Some(at(0)));
    }
}
