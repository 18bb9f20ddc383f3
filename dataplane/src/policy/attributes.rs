//! What expressions and policies may ask about a call. Everything is borrowed.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use ringmesh_wire::ServiceId;

use crate::tables::{Attribute, MapAttribute, Site, Tables, normal_ip};
use crate::view::{Peer, PeerIdentity, RequestView};

/// A call to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Whose policies.
    pub site: Site,
    /// The other end of the downstream connection. On the outbound side that is the local app,
    /// and the source is this sidecar's own workload whatever `peer.identity` says.
    pub peer: &'a Peer,
    /// The request; `None` for an opaque connection.
    pub request: Option<&'a RequestView<'a>>,
    /// Address and workload port that are called.
    pub destination: SocketAddr,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Val<'a> {
    /// Text; header values need not be UTF-8.
    Text(&'a [u8]),
    /// `first`, separator, `second`, as one text.
    Parts(&'a str, u8, &'a str),
    /// Number.
    Int(i64),
    /// Number with a fraction.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// Address, canonical.
    Ip(IpAddr),
    /// Length of time, nanoseconds.
    DurationNs(i64),
    /// A map, good for nothing but an index.
    Map(MapAttribute),
}

impl Val<'_> {
    /// Appends the string form, as quota dimensions use it.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = match *self {
            Self::Text(text) => out.write_all(text),
            Self::Parts(first, separator, second) => {
                out.extend_from_slice(first.as_bytes());
                out.push(separator);
                out.write_all(second.as_bytes())
            }
            Self::Int(number) | Self::DurationNs(number) => write!(out, "{number}"),
            Self::Double(number) => write!(out, "{number}"),
            Self::Bool(truth) => write!(out, "{truth}"),
            Self::Ip(ip) => write!(out, "{ip}"),
            Self::Map(_) => Ok(()),
        };
    }

    /// Whether the value is text equal to `other`.
    #[must_use]
    pub fn is_text(&self, other: &[u8]) -> bool {
        match *self {
            Self::Text(text) => text == other,
            Self::Parts(first, separator, second) => {
                other.len() == first.len() + 1 + second.len()
                    && other.starts_with(first.as_bytes())
                    && other.get(first.len()) == Some(&separator)
                    && other.ends_with(second.as_bytes())
            }
            _ => false,
        }
    }
}

/// The attributes of one call.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    tables: &'a Tables,
    site: Site,
    /// Proven identity of the caller.
    pub(super) source: Option<&'a PeerIdentity>,
    peer_address: SocketAddr,
    pub(super) source_ip: IpAddr,
    pub(super) request: Option<&'a RequestView<'a>>,
    destination: SocketAddr,
}

impl<'a> Attributes<'a> {
    /// Of a call.
    #[must_use]
    pub fn new(tables: &'a Tables, call: &Call<'a>) -> Self {
        Self {
            tables,
            site: call.site,
            source: match call.site {
                Site::Inbound => call.peer.identity.as_deref(),
                Site::Outbound(_) => Some(tables.own_identity()),
            },
            peer_address: call.peer.address,
            source_ip: normal_ip(call.peer.address.ip()),
            request: call.request,
            destination: call.destination,
        }
    }

    /// Principal without `spiffe://`.
    pub(super) fn principal(&self) -> Option<&'a str> {
        self.source.map(|peer| peer.spiffe.principal())
    }

    /// Namespace of the principal.
    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.source?.spiffe.workload_parts().map(|(ns, _)| ns)
    }

    /// Workload port.
    pub(super) fn port(&self) -> u16 {
        self.destination.port()
    }

    fn destination_service(&self) -> &'a ServiceId {
        match self.site {
            Site::Inbound => &self.tables.workload.service,
            Site::Outbound(service) => &self.tables.service(service).id,
        }
    }

    /// An attribute; `None` where the call does not have it.
    #[must_use]
    pub fn value(&self, of: Attribute) -> Option<Val<'a>> {
        let header = |name| {
            let request = self.request?;
            request.headers.first(name).map(Val::Text)
        };
        let text = |text: &'a str| Val::Text(text.as_bytes());
        let service = |id: &'a ServiceId| Val::Parts(&id.name, b'.', &id.namespace);
        Some(match of {
            Attribute::SourceIp => Val::Ip(self.source_ip),
            Attribute::SourcePort => Val::Int(self.peer_address.port().into()),
            Attribute::SourceService => service(&self.source?.service),
            Attribute::SourceServiceName => text(&self.source?.service.name),
            Attribute::SourceNamespace => text(self.namespace()?),
            Attribute::SourcePrincipal => text(self.principal()?),
            Attribute::DestinationIp => Val::Ip(normal_ip(self.destination.ip())),
            Attribute::DestinationPort => Val::Int(self.destination.port().into()),
            Attribute::DestinationService => match self.site {
                Site::Inbound => service(&self.tables.workload.service),
                Site::Outbound(called) => text(&self.tables.service(called).name),
            },
            Attribute::DestinationServiceName => text(&self.destination_service().name),
            Attribute::DestinationNamespace => text(&self.destination_service().namespace),
            Attribute::RequestMethod => text(self.request?.method),
            Attribute::RequestPath => {
                let request = self.request?;
                match request.query {
                    Some(query) => Val::Parts(request.path, b'?', query),
                    None => text(request.path),
                }
            }
            Attribute::RequestUrlPath => text(self.request?.path),
            Attribute::RequestHost => text(self.request?.authority),
            Attribute::RequestScheme => text(self.request.map(|_| "http")?),
            Attribute::RequestUserAgent => header("user-agent")?,
            Attribute::RequestReferer => header("referer")?,
            Attribute::RequestId => header("x-request-id")?,
            Attribute::ContextProtocol => text(match self.request {
                Some(_) => "http",
                None => "tcp",
            }),
            Attribute::ConnectionMtls => Val::Bool(match self.site {
                Site::Inbound => self.source.is_some(),
                Site::Outbound(_) => false,
            }),
        })
    }

    /// An entry of a map; `None` where the map or the key is not there.
    #[must_use]
    pub fn entry(&self, of: MapAttribute, key: &str) -> Option<Val<'a>> {
        let label = |labels: &'a BTreeMap<String, String>| {
            labels.get(key).map(|value| Val::Text(value.as_bytes()))
        };
        match of {
            MapAttribute::SourceLabels => label(&self.source?.labels),
            MapAttribute::DestinationLabels => match self.site {
                Site::Inbound => label(&self.tables.workload.labels),
                // Which endpoint is not known yet.
                Site::Outbound(_) => None,
            },
            MapAttribute::RequestHeaders => self.request?.headers.first(key).map(Val::Text),
        }
    }
}
