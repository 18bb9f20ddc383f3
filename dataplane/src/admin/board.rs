//! What the agent lets others see of itself: written by the agent, read by the admin routes, both
//! on one thread, so that the lock is never waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Instant;

use ringmesh_wire::report::Series;
use ringmesh_wire::session::PortHealth;
use ringmesh_wire::snapshot::{Body, EndpointPort, Resolution};
use ringmesh_wire::{SectionKind, Snapshot};
use serde_json::{Value, json};

use crate::agent::credentials::{Credentials, Identity};
use crate::agent::session::Phase;
use crate::agent::svid::UnixMs;
use crate::ring::{
    BULK_BLOCK_BYTES, GroupPlan, HEADS_BLOCK_BYTES, PIPE_BYTES, Picked, SendZc, TaskRun,
};
use crate::settings::Listeners;

/// Shared by the agent and the routes.
#[derive(Debug, Clone)]
pub struct Board {
    face: Arc<Mutex<Face>>,
}

/// All there is to see.
#[derive(Debug)]
pub struct Face {
    /// Name of the node.
    pub node: String,
    /// The service, `name.namespace`.
    pub service: String,
    /// Random per process start.
    pub boot: u64,
    /// Addresses really listened on.
    pub listeners: Listeners,
    /// How many shards there are.
    pub shards: usize,
    /// How many of them listen.
    pub listening: usize,
    /// TERM or `drain` was received.
    pub draining: bool,
    /// The session with control; `None` is standalone.
    pub session: Option<Phase>,
    /// Why we are not in session, if it is known.
    pub trouble: Option<String>,
    /// Control refuses the certificates we hold: nobody calls us, or takes our calls.
    pub locked_out: bool,
    /// The configuration in force on every shard.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Where it came from: `control`, `last_good` or `file`.
    pub origin: &'static str,
    /// The last configuration refused, and why.
    pub refused: Option<(u64, String)>,
    /// Certificates.
    pub credentials: Credentials,
    /// When the next renewal is due.
    pub renew_at: Option<UnixMs>,
    /// Health of the app's ports.
    pub health: Vec<PortHealth>,
    /// What the names of endpoints lead to.
    pub names: BTreeMap<String, NameRow>,
    /// The first answers are still waited for.
    pub names_awaited: bool,
    /// All series, sorted by name: what is reported to control.
    pub series: Vec<Series>,
    /// What the quota room shows of itself.
    pub quota: Value,
    /// What each shard's ring got; `None` until the shard has told.
    pub rings: Vec<Option<Picked>>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRow {
    /// Its addresses, in the order of trying.
    pub addresses: Vec<IpAddr>,
    /// When they were last confirmed.
    pub confirmed: Option<Instant>,
    /// Lookups in a row that failed.
    pub failures: u32,
    /// Why the last of them did.
    pub trouble: Option<&'static str>,
}

impl Board {
    /// A board that shows `face`.
    #[must_use]
    pub fn new(face: Face) -> Self {
        Self {
            face: Arc::new(Mutex::new(face)),
        }
    }

    /// To read or to write. Never held across an await.
    pub fn face(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Face {
    /// What is missing before traffic should come; empty when ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<&'static str> {
        let missing = [
            (self.listening < self.shards, "listeners"),
            (self.snapshot.is_none(), "configuration"),
            (self.names_awaited, "names"),
            (self.locked_out, "admission"),
            (self.draining, "draining"),
        ];
        missing
            .into_iter()
            .filter_map(|(is, what)| is.then_some(what))
            .collect()
    }

    /// `/config`: which configuration, never secrets.
    #[must_use]
    pub fn config(&self) -> Value {
        let sections = self.snapshot.as_ref().map(|snapshot| {
            let one = |section: &ringmesh_wire::Section| {
                json!({
                    "kind": format!("{:?}", section.key.kind),
                    "name": section.key.name,
                    "hash": format!("{:032x}", section.hash().0),
                    "bytes": section.bytes.len(),
                })
            };
            snapshot.sections.iter().map(one).collect::<Vec<_>>()
        });
        let listener = |at: Option<std::net::SocketAddr>| at.map(|at| at.to_string());
        json!({
            "node": self.node,
            "service": self.service,
            "boot": format!("{:016x}", self.boot),
            "version": env!("CARGO_PKG_VERSION"),
            "revision": self.snapshot.as_ref().map(|snapshot| snapshot.revision.0),
            "origin": self.snapshot.as_ref().map(|_| self.origin),
            "refused": self.refused.as_ref().map(|(revision, why)| {
                json!({ "revision": revision, "reason": why })
            }),
            "control": self.session.map(|phase| {
                json!({ "session": format!("{phase:?}").to_lowercase(), "trouble": self.trouble })
            }),
            "listeners": {
                "outbound": listener(self.listeners.outbound),
                "inbound": listener(self.listeners.inbound),
                "mesh": listener(self.listeners.mesh),
                "admin": listener(self.listeners.admin),
            },
            "shards": self.shards,
            "draining": self.draining,
            "app": self.health.iter().map(|port| {
                json!({ "port": port.port, "healthy": port.healthy, "detail": port.detail })
            }).collect::<Vec<_>>(),
            "sections": sections,
        })
    }

    /// `/endpoints`: every endpoint in force, by service; those known by name with what that leads to.
    #[must_use]
    pub fn endpoints(&self) -> Value {
        let ports = |ports: &[EndpointPort]| {
            let one = |port: &EndpointPort| json!({ "port": port.service_port, "app_port": port.app_port });
            ports.iter().map(one).collect::<Vec<_>>()
        };
        let mut services = serde_json::Map::new();
        for body in self.bodies(SectionKind::Endpoints) {
            let Body::Endpoints(endpoints) = body else {
                continue;
            };
            let one = |endpoint: &ringmesh_wire::snapshot::Endpoint| {
                json!({
                    "address": endpoint.address,
                    "node": endpoint.node.as_ref().map(|node| &node.0),
                    "mesh_port": endpoint.mesh_port,
                    "ports": ports(&endpoint.ports),
                    "identity": endpoint.identity.as_ref().map(ringmesh_wire::SpiffeId::as_str),
                    "labels": endpoint.labels,
                    "region": endpoint.region,
                    "zone": endpoint.zone,
                    "weight": endpoint.weight,
                    "state": format!("{:?}", endpoint.state).to_lowercase(),
                })
            };
            let all = endpoints.endpoints.iter().map(one).collect();
            services.insert(endpoints.service.to_string(), Value::Array(all));
        }
        for body in self.bodies(SectionKind::Names) {
            let Body::Names(names) = body else { continue };
            let resolution = match names.resolution {
                Resolution::Each => "dns",
                Resolution::One => "dns_round_robin",
            };
            let all = services.entry(names.service.to_string());
            let all = all.or_insert_with(|| Value::Array(Vec::new()));
            for named in &names.endpoints {
                let row = self.names.get(&named.name);
                let age = row
                    .and_then(|row| row.confirmed)
                    .map(|at| at.elapsed().as_secs());
                if let Value::Array(all) = all {
                    all.push(json!({
                        "name": named.name,
                        "resolution": resolution,
                        "addresses": row.map_or(&[][..], |row| &row.addresses),
                        "age_seconds": age,
                        "failures": row.map_or(0, |row| row.failures),
                        "trouble": row.and_then(|row| row.trouble),
                        "ports": ports(&named.ports),
                        "labels": named.labels,
                        "region": named.region,
                        "zone": named.zone,
                        "weight": named.weight,
                    }));
                }
            }
        }
        Value::Object(services)
    }

    /// `/certs`: whose, until when; never a key.
    #[must_use]
    pub fn certs(&self, now: UnixMs) -> Value {
        let identity = |identity: Option<&Arc<Identity>>| {
            identity.map(|identity| {
                json!({
                    "spiffe": identity.spiffe.as_str(),
                    "serial": identity.serial,
                    "expires_unix_ms": identity.life.expires.0,
                    "seconds_left": now.until(identity.life.expires).as_secs(),
                    "usable": identity.usable(now),
                    "chain": identity.chain.len(),
                })
            })
        };
        let hash = |der: &rustls_pki_types::CertificateDer<'_>| {
            let hash = crate::agent::verify::sha256(der);
            hash.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        json!({
            "workload": identity(self.credentials.svid.as_ref()),
            "node": identity(self.credentials.node.as_ref()),
            "renew_at_unix_ms": self.renew_at.map(|at| at.0),
            "roots_sha256": self.credentials.roots.iter().map(hash).collect::<Vec<_>>(),
        })
    }

    /// `/quota`: the rules enforced here, and what the lease holds.
    #[must_use]
    pub fn quota(&self) -> Value {
        let rules: Vec<Value> = self
            .bodies(SectionKind::Quota)
            .filter_map(|body| match body {
                Body::Quota(rule) => Some(json!({
                    "name": rule.name,
                    "amount_max": rule.limit.amount_max,
                    "window_ms": rule.limit.window_ms,
                    "overrides": rule.overrides.len(),
                    "charge": rule.charge,
                    "enforcers": rule.enforcers,
                })),
                _ => None,
            })
            .collect();
        json!({ "rules": rules, "lease": self.quota })
    }

    /// `/ring`: what the kernel gave each shard's ring, and what became of it.
    #[must_use]
    pub fn rings(&self) -> Value {
        let shards = self.rings.iter().enumerate();
        json!({ "shards": shards.map(|(at, ring)| shard_ring(at, *ring)).collect::<Vec<_>>() })
    }

    fn bodies(&self, kind: SectionKind) -> impl Iterator<Item = Body> {
        self.snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.sections)
            .filter(move |section| section.key.kind == kind)
            // What is in force has been decoded once already.
            .filter_map(|section| section.open().ok())
    }
}

fn shard_ring(shard: usize, ring: Option<Picked>) -> Value {
    let Some(ring) = ring else {
        return json!({ "shard": shard });
    };
    let group = |group: GroupPlan, bytes: u32| {
        json!({
            "buffer_bytes": bytes,
            "buffers_at_first": group.start,
            "buffers_max": group.max,
        })
    };
    json!({
        "shard": shard,
        "flags": {
            "defer_taskrun": ring.task_run == TaskRun::Defer,
            "coop_taskrun": ring.task_run == TaskRun::Cooperative,
            "single_issuer": ring.single_issuer,
            "submit_all": ring.submit_all,
            "no_sqarray": ring.no_sqarray,
        },
        "registered_fd": ring.registered_fd,
        "recv_limit": match ring.recv_limit {
            true => "kernel",
            false => "cancel",
        },
        "groups": {
            "heads": group(ring.heads, HEADS_BLOCK_BYTES),
            "bulk": group(ring.bulk, BULK_BLOCK_BYTES),
        },
        "splice": { "pipes_max": ring.pipes_max, "pipe_bytes": PIPE_BYTES },
        "send_zc": {
            "state": ring.send_zc.as_str(),
            "min_bytes": match ring.send_zc {
                SendZc::From(bytes) => Some(bytes),
                _ => None,
            },
        },
    })
}
