//! Snapshots for tests, a line per thing.
//!
//! ```ignore
//! let tables = Draft::new()
//!     .service("reviews", &[9080])
//!     .subset("reviews", "v3", &[("version", "v3")])
//!     .endpoint("reviews", "10.0.0.1", &[("version", "v3")])
//!     .http("reviews", vec![to(&[("reviews", "v3", 1)])])
//!     .tables();
//! ```
//! Everything lives in namespace `default`; the local workload is `ratings` v1 on port 9080.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmesh_wire::snapshot::{
    Action, Applies, Authz, AuthzAction, AuthzRule, Body, CheckRule, Denial, Destination, Endpoint,
    EndpointPort, EndpointState, Endpoints, HeaderOps, HttpMatch, HttpRoute, Mesh, MtlsMode,
    NamedEndpoint, Names, OnQuotaUnavailable, OutboundMode, Pattern, Policy, Protocol, QuotaRule,
    Resolution, Retry, Service, ServicePort, StringMatch, Subset, TrafficPolicy, Trust,
    VirtualHost,
};
use ringmesh_wire::{
    Expr, ExprNode, NodeId, NodeIndex, Revision, ServiceId, Snapshot, SpiffeId, Value,
};

use super::{Addresses, Tables, TablesError, Workload, WorkloadPort};
use crate::view::{HeaderLookup, Peer, PeerIdentity, RequestView};

/// A snapshot being written. Fields are open: tests change what the methods do not reach.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) mesh: Mesh,
    pub(crate) services: Vec<Service>,
    pub(crate) endpoints: BTreeMap<String, Vec<Endpoint>>,
    pub(crate) hosts: Vec<VirtualHost>,
    pub(crate) policy: Policy,
    pub(crate) quotas: Vec<QuotaRule>,
    pub(crate) workload: Workload,
    pub(crate) names: Vec<Names>,
    /// What the names lead to.
    pub(crate) answers: Vec<(String, Addresses)>,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self {
            mesh: Mesh {
                trust_domain: "mesh.local".into(),
                default_timeout_ms: 15_000,
                outbound: OutboundMode::AllowAny,
                on_quota_unavailable: OnQuotaUnavailable::Share,
                retry_non_idempotent: false,
                mtls: MtlsMode::Strict,
                mtls_ports: Vec::new(),
            },
            services: Vec::new(),
            endpoints: BTreeMap::new(),
            hosts: Vec::new(),
            policy: Policy::default(),
            quotas: Vec::new(),
            names: Vec::new(),
            answers: Vec::new(),
            workload: Workload {
                service: ServiceId::new("ratings", "default"),
                service_account: "ratings".into(),
                labels: labels(&[("app", "ratings"), ("version", "v1")]),
                ports: vec![WorkloadPort {
                    name: "http".into(),
                    number: 9080,
                    protocol: Protocol::Http1,
                    app: "127.0.0.1:8080".parse().unwrap(),
                    mtls: MtlsMode::Disable,
                }],
            },
        }
    }

    /// HTTP ports; hosts `name`, `name.default` and `name.default.svc.cluster.local`.
    pub(crate) fn service(mut self, name: &str, ports: &[u16]) -> Self {
        self.services.push(Service {
            id: ServiceId::new(name, "default"),
            hosts: vec![
                name.into(),
                format!("{name}.default"),
                format!("{name}.default.svc.cluster.local"),
            ],
            vips: Vec::new(),
            ports: ports
                .iter()
                .map(|number| ServicePort {
                    number: *number,
                    name: format!("http-{number}"),
                    protocol: Protocol::Http1,
                })
                .collect(),
            identities: vec![SpiffeId::workload("mesh.local", "default", name).unwrap()],
            policy: TrafficPolicy::default(),
            port_policies: Vec::new(),
            subsets: Vec::new(),
            external: false,
        });
        self
    }

    /// The service last added or named.
    pub(crate) fn at(&mut self, service: &str) -> &mut Service {
        let mut services = self.services.iter_mut();
        services.find(|s| s.id.name == service).unwrap()
    }

    pub(crate) fn subset(mut self, service: &str, name: &str, of: &[(&str, &str)]) -> Self {
        self.at(service).subsets.push(Subset {
            name: name.into(),
            labels: labels(of),
            policy: TrafficPolicy::default(),
            port_policies: Vec::new(),
        });
        self
    }

    /// Serves every port of its service at the same number plus 10,000; mesh port 15008.
    pub(crate) fn endpoint(self, service: &str, address: &str, of: &[(&str, &str)]) -> Self {
        self.endpoint_with(service, address, of, |_| ())
    }

    pub(crate) fn endpoint_with(
        mut self,
        service: &str,
        address: &str,
        of: &[(&str, &str)],
        change: impl FnOnce(&mut Endpoint),
    ) -> Self {
        let ports = self.at(service).ports.iter();
        let mut endpoint = Endpoint {
            node: None,
            address: address.parse().unwrap(),
            ports: ports
                .map(|port| EndpointPort {
                    service_port: port.number,
                    app_port: port.number + 10_000,
                })
                .collect(),
            mesh_port: Some(15_008),
            identity: None,
            labels: labels(of),
            region: String::new(),
            zone: String::new(),
            weight: 1,
            state: EndpointState::Ready,
        };
        change(&mut endpoint);
        let list = self.endpoints.entry(service.to_owned()).or_default();
        list.push(endpoint);
        self
    }

    /// Endpoints by name, without sidecars; every port of the service is at `app_port`.
    pub(crate) fn named(
        mut self,
        service: &str,
        resolution: Resolution,
        names: &[&str],
        app_port: u16,
    ) -> Self {
        let ports = self.at(service).ports.iter();
        let ports: Vec<EndpointPort> = ports
            .map(|port| EndpointPort {
                service_port: port.number,
                app_port,
            })
            .collect();
        let endpoint = |name: &&str| NamedEndpoint {
            name: (*name).to_owned(),
            ports: ports.clone(),
            labels: labels(&[("name", name)]),
            region: String::new(),
            zone: String::new(),
            weight: 1,
        };
        self.names.push(Names {
            service: ServiceId::new(service, "default"),
            resolution,
            endpoints: names.iter().map(endpoint).collect(),
        });
        self
    }

    /// What a name leads to; the first is its anchor, as if it had come first.
    pub(crate) fn answer(mut self, name: &str, anchor: &str, list: &[&str]) -> Self {
        self.answers.retain(|(other, _)| other != name);
        let addresses = Addresses {
            anchor: anchor.parse().unwrap(),
            list: list.iter().map(|one| one.parse().unwrap()).collect(),
        };
        self.answers.push((name.to_owned(), addresses));
        self
    }

    /// A virtual host of the name and its fully qualified form.
    pub(crate) fn http(mut self, host: &str, routes: Vec<HttpRoute>) -> Self {
        let hosts = match host.strip_prefix('*') {
            Some(_) => vec![host.to_owned()],
            None => vec![host.to_owned(), format!("{host}.default")],
        };
        self.hosts.push(VirtualHost {
            name: format!("{}.default", host.replace('*', "any")),
            hosts,
            http: routes,
            tcp: Vec::new(),
        });
        self
    }

    pub(crate) fn authz(mut self, name: &str, action: AuthzAction, rules: Vec<AuthzRule>) -> Self {
        self.policy.authz.push(Authz {
            name: format!("{name}.default"),
            action,
            rules,
            applies: Applies::Inbound,
        });
        self
    }

    /// A denier with code 7 and message `Not allowed`.
    pub(crate) fn denier(mut self, name: &str, when: Option<Expr>) -> Self {
        self.policy.checks.push(CheckRule {
            name: format!("{name}.default"),
            when,
            deny: Denial {
                grpc_status: 7,
                handler: format!("{name}handler.default"),
                message: "Not allowed".into(),
            },
            applies: Applies::Inbound,
        });
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut sections = vec![
            Body::Mesh(self.mesh.clone()).seal("").unwrap(),
            Body::Trust(Trust::default()).seal("").unwrap(),
            Body::Policy(self.policy.clone()).seal("").unwrap(),
        ];
        for service in &self.services {
            let name = service.id.to_string();
            sections.push(Body::Service(service.clone()).seal(name).unwrap());
        }
        for (service, endpoints) in &self.endpoints {
            let service = ServiceId::new(service, "default");
            let name = service.to_string();
            let endpoints = endpoints.clone();
            let body = Body::Endpoints(Endpoints { service, endpoints });
            sections.push(body.seal(name).unwrap());
        }
        for host in &self.hosts {
            let body = Body::Routes(host.clone());
            sections.push(body.seal(host.name.clone()).unwrap());
        }
        for quota in &self.quotas {
            let body = Body::Quota(quota.clone());
            sections.push(body.seal(quota.name.clone()).unwrap());
        }
        for names in &self.names {
            let name = names.service.to_string();
            sections.push(Body::Names(names.clone()).seal(name).unwrap());
        }
        Snapshot::new(Revision(1), NodeId("ratings-v1-1".into()), sections).unwrap()
    }

    pub(crate) fn build(&self) -> Result<Tables, TablesError> {
        let answers = self.answers.iter().cloned();
        let answers = answers.map(|(name, addresses)| (name.into_boxed_str(), addresses));
        Tables::build_with(&self.snapshot(), &self.workload, &answers.collect())
    }

    pub(crate) fn tables(&self) -> Tables {
        self.build().unwrap()
    }
}

pub(crate) fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A route that forwards everything: `(service, subset or "", weight)`.
pub(crate) fn to(destinations: &[(&str, &str, u32)]) -> HttpRoute {
    HttpRoute {
        name: "route".into(),
        matches: Vec::new(),
        action: Action::Forward(
            destinations
                .iter()
                .map(|(service, subset, weight)| Destination {
                    service: ServiceId::new(*service, "default"),
                    port: None,
                    subset: (!subset.is_empty()).then(|| (*subset).to_owned()),
                    weight: *weight,
                    headers: HeaderOps::default(),
                })
                .collect(),
        ),
        fault: None,
        timeout_ms: None,
        retry: Retry::default(),
        rewrite: None,
        headers: HeaderOps::default(),
    }
}

/// The same for requests that match.
pub(crate) fn on(wanted: HttpMatch, mut route: HttpRoute) -> HttpRoute {
    route.matches.push(wanted);
    route
}

pub(crate) fn uri(wanted: StringMatch) -> HttpMatch {
    HttpMatch {
        uri: Some(wanted),
        ..HttpMatch::default()
    }
}

pub(crate) fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

pub(crate) fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

/// AuthorizationPolicy notation to a pattern.
pub(crate) fn glob(text: &str) -> Pattern {
    match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
        ("*", ..) => Pattern::Present,
        (_, Some(prefix), _) => Pattern::Prefix(prefix.into()),
        (_, _, Some(suffix)) => Pattern::Suffix(suffix.into()),
        _ => Pattern::Exact(text.into()),
    }
}

/// Headers as a list; first of a name wins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers<'a>(pub(crate) &'a [(&'a str, &'a str)]);

impl HeaderLookup for Headers<'_> {
    fn first(&self, lower_name: &str) -> Option<&[u8]> {
        let mut fields = self.0.iter();
        fields
            .find(|(name, _)| name.eq_ignore_ascii_case(lower_name))
            .map(|(_, value)| value.as_bytes())
    }
}

/// `GET path` to port 9080 of `authority`.
pub(crate) fn get<'a>(
    authority: &'a str,
    path: &'a str,
    headers: &'a dyn HeaderLookup,
) -> RequestView<'a> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    RequestView {
        method: "GET",
        authority,
        path,
        query,
        headers,
        port: 9080,
    }
}

/// A caller with a certificate of service `name`, account `name`.
pub(crate) fn peer(name: &str, version: &str) -> Peer {
    Peer {
        address: SocketAddr::from(([10, 0, 0, 9], 40_000)),
        identity: Some(Box::new(PeerIdentity {
            spiffe: SpiffeId::workload("mesh.local", "default", name).unwrap(),
            service: ServiceId::new(name, "default"),
            labels: labels(&[("app", name), ("version", version)]),
        })),
    }
}

/// A caller without a certificate.
pub(crate) fn stranger() -> Peer {
    Peer {
        address: SocketAddr::from(([10, 0, 0, 9], 40_000)),
        identity: None,
    }
}

/// Builds an expression's arena bottom up.
#[derive(Debug, Default)]
pub(crate) struct Arena(Vec<ExprNode>);

impl Arena {
    fn push(&mut self, node: ExprNode) -> NodeIndex {
        self.0.push(node);
        NodeIndex::try_from(self.0.len() - 1).unwrap()
    }

    pub(crate) fn text(&mut self, text: &str) -> NodeIndex {
        self.push(ExprNode::Const(Value::String(text.into())))
    }

    pub(crate) fn value(&mut self, value: Value) -> NodeIndex {
        self.push(ExprNode::Const(value))
    }

    pub(crate) fn attribute(&mut self, name: &str) -> NodeIndex {
        self.push(ExprNode::Attribute(name.into()))
    }

    /// `map["key"]`
    pub(crate) fn key(&mut self, map: &str, key: &str) -> NodeIndex {
        let (map, key) = (self.attribute(map), self.text(key));
        self.push(ExprNode::Index(map, key))
    }

    pub(crate) fn index(&mut self, map: NodeIndex, key: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Index(map, key))
    }

    pub(crate) fn eq(&mut self, a: NodeIndex, b: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Eq(a, b))
    }

    pub(crate) fn ne(&mut self, a: NodeIndex, b: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Ne(a, b))
    }

    pub(crate) fn and(&mut self, a: NodeIndex, b: NodeIndex) -> NodeIndex {
        self.push(ExprNode::And(a, b))
    }

    pub(crate) fn or(&mut self, a: NodeIndex, b: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Or(a, b))
    }

    pub(crate) fn otherwise(&mut self, a: NodeIndex, b: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Default(a, b))
    }

    pub(crate) fn matches(&mut self, text: NodeIndex, pattern: NodeIndex) -> NodeIndex {
        self.push(ExprNode::Match(text, pattern))
    }

    /// The expression whose root was pushed last.
    pub(crate) fn expr(self) -> Expr {
        Expr { nodes: self.0 }
    }
}

/// `destination.labels["app"] == app && source.labels["app"] == source &&
/// source.labels["version"] == version`: the condition of the users' denier rule.
pub(crate) fn from_to(app: &str, source: &str, version: &str) -> Expr {
    let mut a = Arena::default();
    let mut is = |map: &str, key: &str, value: &str| {
        let (left, right) = (a.key(map, key), a.text(value));
        a.eq(left, right)
    };
    let first = is("destination.labels", "app", app);
    let second = is("source.labels", "app", source);
    let third = is("source.labels", "version", version);
    let both = a.and(first, second);
    a.and(both, third);
    a.expr()
}
