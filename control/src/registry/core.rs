//! The registry itself.

use std::collections::{BTreeMap, BTreeSet};

use ringmesh_wire::ids::check_label;
use ringmesh_wire::snapshot::{Endpoint, EndpointPort, EndpointState, ServicePort};
use ringmesh_wire::{AppHealth, Attributes, NodeId, Registration, Reject, ServiceId, SpiffeId};

use super::lease::{Guards, Lease, SessionId};
use crate::model::RegistryView;
use crate::store::StoredEndpoint;
use crate::time::Mono;

/// What a verified certificate says of who registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The certificate's serial number, hex.
    pub serial: String,
    /// The node.
    pub node: NodeId,
    /// Its identity.
    pub id: SpiffeId,
    /// Service and labels.
    pub attributes: Attributes,
    /// It speaks to us over loopback: then, and only then, a loopback address means something.
    pub local: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    identity: SpiffeId,
    registration: Registration,
    lease: Lease,
}

/// One registration, for lists.
#[derive(Debug, Clone)]
pub struct Row {
    /// The node.
    pub node: NodeId,
    /// Its identity.
    pub identity: SpiffeId,
    /// What it registered.
    pub registration: Registration,
    /// How sure we are.
    pub lease: Lease,
    /// How others see it; `None`: they do not.
    pub state: Option<EndpointState>,
}

/// All registrations.
#[derive(Debug)]
pub struct Registry {
    guards: Guards,
    entries: BTreeMap<NodeId, Entry>,
    frozen: bool,
    /// Expiries up to here were acknowledged by an operator: they count for no freeze.
    thawed: Option<Mono>,
}

fn refuse(code: &str, message: String) -> Reject {
    Reject {
        code: code.to_owned(),
        message,
    }
}

impl Registry {
    /// A registry that remembers `stored` from before.
    #[must_use]
    pub fn new(guards: Guards, stored: Vec<StoredEndpoint>, now: Mono) -> Self {
        let until = now + guards.unconfirmed;
        let entries = stored.into_iter().filter_map(|stored| {
            let entry = Entry {
                identity: SpiffeId::parse(&stored.identity).ok()?,
                registration: stored.registration,
                lease: if stored.left {
                    Lease::Left
                } else {
                    Lease::Unconfirmed { until }
                },
            };
            Some((stored.node, entry))
        });
        Self {
            guards,
            entries: entries.collect(),
            frozen: false,
            thawed: None,
        }
    }

    /// Whether removal is frozen by a mass expiry: an alarm.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Takes a registration on `session`; a newer session of a node takes the place of an older.
    ///
    /// # Errors
    /// The [`Reject`] to send: `service_invalid`, `registration_mismatch`, `address_loopback`, `address_invalid`,
    /// `ports_invalid`.
    pub fn register(
        &mut self,
        session: SessionId,
        evidence: &Evidence,
        registration: Registration,
        now: Mono,
    ) -> Result<(), Reject> {
        check(evidence, &registration)?;
        let entry = Entry {
            identity: evidence.id.clone(),
            registration,
            lease: Lease::Live(session),
        };
        self.entries.insert(evidence.node.clone(), entry);
        self.settle(now);
        Ok(())
    }

    /// The app of `session`'s workload went up or down. Ports it never registered are ignored.
    pub fn health(&mut self, session: SessionId, health: &AppHealth) {
        let Some(entry) = self.of_session(session) else {
            return;
        };
        for port in &mut entry.registration.ports {
            if let Some(now) = health.ports.iter().find(|h| h.port == port.port) {
                port.healthy = now.healthy;
            }
        }
    }

    /// The sidecar of `session` said that it leaves.
    pub fn left(&mut self, session: SessionId, now: Mono) {
        if let Some(entry) = self.of_session(session) {
            entry.lease = Lease::Left;
            self.settle(now);
        }
    }

    /// The link of `session` was closed by its sidecar, which did not say that it leaves.
    pub fn closed(&mut self, session: SessionId, now: Mono) {
        let until = now + self.guards.resume;
        if let Some(entry) = self.of_session(session) {
            entry.lease = Lease::Resuming { until };
        }
    }

    /// The link of `session` went silent.
    pub fn lost(&mut self, session: SessionId, now: Mono) {
        if let Some(entry) = self.of_session(session) {
            entry.lease = Lease::Resuming { until: now };
            self.tick(now);
        }
    }

    /// A node's certificates were revoked: it serves no more, whatever its lease, as if it had said that it
    /// leaves. Its service stays, and with it the rules that name it.
    pub fn withdraw(&mut self, node: &NodeId, now: Mono) {
        if let Some(entry) = self.entries.get_mut(node) {
            entry.lease = Lease::Left;
            self.settle(now);
        }
    }

    /// Forgets a node, whatever its lease: an operator's word.
    /// Says whether there was anything to forget.
    pub fn forget(&mut self, node: &NodeId) -> bool {
        self.entries.remove(node).is_some()
    }

    /// Ends a freeze: what expired is removed.
    pub fn thaw(&mut self, now: Mono) {
        self.mark_last();
        self.thawed = Some(now);
        self.entries
            .retain(|_, entry| !matches!(entry.lease, Lease::Expired { last: false, .. }));
        self.settle(now);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let due = self.entries.values().filter_map(|entry| match entry.lease {
            Lease::Resuming { until } | Lease::Unconfirmed { until } => Some(until),
            Lease::Expired { at, last: false } if !self.frozen => Some(at + self.guards.window),
            _ => None,
        });
        due.min()
    }

    /// Time has passed: leases end.
    pub fn tick(&mut self, now: Mono) {
        for entry in self.entries.values_mut() {
            match entry.lease {
                Lease::Resuming { until } | Lease::Unconfirmed { until } if until <= now => {
                    entry.lease = Lease::Expired {
                        at: now,
                        last: false,
                    };
                }
                _ => {}
            }
        }
        self.mark_last();
        self.settle(now);
    }

    /// Which services nobody stands behind any more: their latest to expire is kept.
    fn mark_last(&mut self) {
        let held: BTreeSet<ServiceId> = self
            .entries
            .values()
            .filter(|e| e.lease.holds())
            .map(|e| e.registration.service.clone())
            .collect();
        let mut kept: BTreeMap<ServiceId, (Mono, NodeId)> = BTreeMap::new();
        for (node, entry) in &self.entries {
            let service = &entry.registration.service;
            if let Lease::Expired { at, last } = entry.lease
                && !held.contains(service)
            {
                // One that is marked already stays marked: of two that expire one after the other
                // the first was removed knowing that the second stood.
                let since = if last {
                    Mono(std::time::Duration::MAX)
                } else {
                    at
                };
                let best = kept.entry(service.clone()).or_insert((since, node.clone()));
                if since > best.0 {
                    *best = (since, node.clone());
                }
            }
        }
        for (_, node) in kept.into_values() {
            if let Some(entry) = self.entries.get_mut(&node)
                && let Lease::Expired { last, .. } = &mut entry.lease
            {
                *last = true;
            }
        }
    }

    /// Applies the guards after any change of leases.
    fn settle(&mut self, now: Mono) {
        self.freeze_or_thaw(now);
        if !self.frozen {
            let window = self.guards.window;
            self.entries.retain(|_, entry| match entry.lease {
                Lease::Expired { at, last: false } => now < at + window,
                _ => true,
            });
        }
        self.forget_superseded();
    }

    fn freeze_or_thaw(&mut self, now: Mono) {
        let recent = |lease: Lease| match lease {
            // While frozen the event lasts, however long ago it began.
            Lease::Expired { at, .. } if Some(at) <= self.thawed => false,
            Lease::Expired { at, .. } => self.frozen || now < at + self.guards.window,
            _ => false,
        };
        let holding = self.entries.values().filter(|e| e.lease.holds()).count();
        let expired = self.entries.values().filter(|e| recent(e.lease)).count();
        let many = expired >= self.guards.freeze_floor
            && expired * 100 > self.guards.freeze_percent * (holding + expired);
        self.frozen = many;
    }

    /// Those kept only because nobody else spoke for their service go when somebody does.
    fn forget_superseded(&mut self) {
        let ready: BTreeSet<ServiceId> = self
            .entries
            .values()
            .filter(|e| {
                matches!(e.lease, Lease::Live(_)) && e.registration.ports.iter().any(|p| p.healthy)
            })
            .map(|e| e.registration.service.clone())
            .collect();
        let mut spoken_for: BTreeSet<ServiceId> = self
            .entries
            .values()
            .filter(|e| !matches!(e.lease, Lease::Left))
            .map(|e| e.registration.service.clone())
            .collect();
        let frozen = self.frozen;
        self.entries.retain(|_, entry| {
            let service = &entry.registration.service;
            match entry.lease {
                Lease::Expired { last: true, .. } => frozen || !ready.contains(service),
                // The first of several that left stands for the service.
                Lease::Left => spoken_for.insert(service.clone()),
                _ => true,
            }
        });
    }

    fn of_session(&mut self, session: SessionId) -> Option<&mut Entry> {
        self.entries
            .values_mut()
            .find(|entry| entry.lease == Lease::Live(session))
    }

    fn state(&self, entry: &Entry) -> Option<EndpointState> {
        if !entry.registration.ports.iter().any(|p| p.healthy) {
            return None;
        }
        match entry.lease {
            Lease::Live(_) | Lease::Resuming { .. } => Some(EndpointState::Ready),
            Lease::Unconfirmed { .. } => Some(EndpointState::Unconfirmed),
            Lease::Expired { .. } if self.frozen => Some(EndpointState::Unconfirmed),
            Lease::Expired { last: true, .. } => Some(EndpointState::LastKnown),
            Lease::Expired { last: false, .. } | Lease::Left => None,
        }
    }

    /// Nodes that are believed to live and have no session now: after a restart of control, or
    /// between two links.
    #[must_use]
    pub fn awaited(&self) -> Vec<NodeId> {
        let away = self.entries.iter().filter(|(_, entry)| {
            matches!(
                entry.lease,
                Lease::Resuming { .. } | Lease::Unconfirmed { .. }
            )
        });
        away.map(|(node, _)| node.clone()).collect()
    }

    /// Everything, for lists.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.entries.iter().map(|(node, entry)| Row {
            node: node.clone(),
            identity: entry.identity.clone(),
            registration: entry.registration.clone(),
            lease: entry.lease,
            state: self.state(entry),
        });
        rows.collect()
    }

    /// What to remember across a restart.
    #[must_use]
    pub fn to_store(&self) -> BTreeMap<NodeId, StoredEndpoint> {
        let kept = self.entries.iter().filter(|(_, entry)| match entry.lease {
            Lease::Expired { last, .. } => last || self.frozen,
            _ => true,
        });
        kept.map(|(node, entry)| {
            let stored = StoredEndpoint {
                node: node.clone(),
                identity: entry.identity.to_string(),
                registration: entry.registration.clone(),
                left: matches!(entry.lease, Lease::Left),
            };
            (node.clone(), stored)
        })
        .collect()
    }

    /// What compile needs: services with their ports, identities and endpoints. A service stays
    /// known, without endpoints, after its last one left.
    #[must_use]
    pub fn view(&self) -> RegistryView {
        let mut view = RegistryView::default();
        for (node, entry) in &self.entries {
            let registration = &entry.registration;
            let service = view
                .services
                .entry(registration.service.clone())
                .or_default();
            for port in &registration.ports {
                if let Err(at) = service.ports.binary_search_by_key(&port.port, |p| p.number) {
                    let port = ServicePort {
                        number: port.port,
                        name: port.name.clone(),
                        protocol: port.protocol,
                    };
                    service.ports.insert(at, port);
                }
            }
            if let Err(at) = service.identities.binary_search(&entry.identity) {
                service.identities.insert(at, entry.identity.clone());
            }
            let Some(state) = self.state(entry) else {
                continue;
            };
            let healthy = registration.ports.iter().filter(|p| p.healthy);
            service.endpoints.push(Endpoint {
                node: Some(node.clone()),
                address: registration.address,
                ports: healthy
                    .map(|port| EndpointPort {
                        service_port: port.port,
                        app_port: port.app_port,
                    })
                    .collect(),
                mesh_port: Some(registration.mesh_port),
                identity: Some(entry.identity.clone()),
                labels: registration.labels.clone(),
                region: registration.region.clone(),
                zone: registration.zone.clone(),
                weight: 1,
                state,
            });
        }
        view
    }
}

fn check(evidence: &Evidence, registration: &Registration) -> Result<(), Reject> {
    let mismatch = |what: &str, got: &dyn std::fmt::Debug, signed: &dyn std::fmt::Debug| {
        refuse(
            "registration_mismatch",
            format!(
                "{what} is {got:?} in sidecar.yaml, but {signed:?} in the certificate: put it \
                 right, or join again with a token made for it"
            ),
        )
    };
    // Certificates made before names were checked may hold others.
    let ServiceId { namespace, name } = &registration.service;
    check_label("service", name)
        .and_then(|()| check_label("namespace", namespace))
        .map_err(|error| {
            let what = format!("{error}: no rule could name it; join again under another name");
            refuse("service_invalid", what)
        })?;
    let signed = &evidence.attributes;
    if registration.service != signed.service {
        return Err(mismatch(
            "service",
            &registration.service.to_string(),
            &signed.service.to_string(),
        ));
    }
    let account = evidence.id.workload_parts().map(|(_, account)| account);
    if account != Some(registration.service_account.as_str()) {
        return Err(mismatch(
            "service_account",
            &registration.service_account,
            &account.unwrap_or("none"),
        ));
    }
    if registration.labels != signed.labels {
        return Err(mismatch("labels", &registration.labels, &signed.labels));
    }
    let address = registration.address.to_canonical();
    if address.is_loopback() && !evidence.local {
        return Err(refuse(
            "address_loopback",
            format!("others cannot reach {address}: set `advertise` in sidecar.yaml"),
        ));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(refuse(
            "address_invalid",
            format!("{address} is not an address of a host: set `advertise` in sidecar.yaml"),
        ));
    }
    let mut numbers: Vec<u16> = registration.ports.iter().map(|p| p.port).collect();
    numbers.sort_unstable();
    if registration.mesh_port == 0
        || numbers.contains(&0)
        || numbers.windows(2).any(|w| w[0] == w[1])
    {
        return Err(refuse(
            "ports_invalid",
            "a port is 0 or is registered twice".into(),
        ));
    }
    Ok(())
}
