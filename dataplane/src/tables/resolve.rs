//! Where a call of the local app was meant to go.
//!
//! Order: virtual address and port, registered endpoint address and port, host name (HTTP only),
//! then ALLOW_ANY or REGISTRY_ONLY. Addresses come first because an app that dialled one has said
//! so before it said anything else.

use std::net::SocketAddr;

use ringmesh_wire::snapshot::{OutboundMode, Protocol};

use super::hosts::HostEntry;
use super::index::{ServiceIndex, VirtualHostIndex};
use super::text::{normal_ip, split_authority};
use super::{ClusterRow, Tables};

/// What an address stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddressEntry {
    pub(super) service: ServiceIndex,
    pub(super) port: u16,
    /// An endpoint's own address rather than a virtual one.
    pub(super) endpoint: bool,
}

/// A destination the mesh knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destined {
    /// The rules of the host; `None`: the service's default route.
    pub virtual_host: Option<VirtualHostIndex>,
    /// The service; `None` where only rules know the host.
    pub service: Option<ServiceIndex>,
    /// The service port.
    pub port: u16,
    /// The app dialled this very endpoint: the balancer takes it and no other, unless rules lead to
    /// where it is not ([`Self::only_in`]).
    pub only: Option<SocketAddr>,
}

impl Destined {
    /// The endpoint that was dialled, if the cluster that rules chose has it. An app that finds endpoints
    /// by itself is routed like any other: where its request goes to another subset, to any of that.
    #[must_use]
    pub fn only_in(&self, row: &ClusterRow) -> Option<SocketAddr> {
        self.only
            .filter(|only| row.endpoints.iter().any(|e| e.address == *only))
    }
}

/// Where an HTTP request was meant to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To something the mesh knows.
    Known(Destined),
    /// To where the app dialled, as it is (ALLOW_ANY).
    Passthrough(SocketAddr),
    /// Nowhere: 502 (REGISTRY_ONLY, or nothing was dialled and the host is unknown).
    Unknown,
}

/// Where an opaque connection was meant to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpTarget {
    /// To something the mesh knows.
    Known(Destined),
    /// To where the app dialled, as it is (ALLOW_ANY).
    Passthrough(SocketAddr),
    /// Nowhere: the connection is reset.
    Unknown,
}

/// Who opens the tunnel that a CONNECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// This sidecar, to here. [`Target::Passthrough`] is an address that the authority spells out.
    Here(Target),
    /// Whoever the app dialled: for us it is a request like any other.
    There,
}

impl Tables {
    /// Where a CONNECT leads. A proxy that the app dialled by its address is asked itself; else the
    /// order is that of a connection to the authority: address, host name, then ALLOW_ANY, for
    /// which an address has to be spelled out because nothing on a shard resolves names.
    #[must_use]
    pub fn resolve_tunnel(&self, authority: &str, original_dst: Option<SocketAddr>) -> Tunnel {
        if original_dst.is_some_and(|dst| self.resolve_address(dst).is_some()) {
            return Tunnel::There;
        }
        let (host, port) = split_authority(authority);
        let address = host
            .parse()
            .ok()
            .zip(port)
            .map(|(ip, port)| SocketAddr::new(normal_ip(ip), port));
        let known = address
            .and_then(|address| self.resolve_address(address))
            .or_else(|| self.resolve_host(host, port));
        match (known, address) {
            (Some(known), _) => Tunnel::Here(Target::Known(known)),
            (None, _) if original_dst.is_some() => Tunnel::There,
            (None, Some(address)) if self.mesh.outbound == OutboundMode::AllowAny => {
                Tunnel::Here(Target::Passthrough(address))
            }
            (None, _) => Tunnel::Here(Target::Unknown),
        }
    }

    /// Where an HTTP request was meant to go. `authority` is the Host as sent, with or without a
    /// port; `original_dst` the address the app dialled, `None` in direct mode.
    #[must_use]
    pub fn resolve_http(&self, authority: &str, original_dst: Option<SocketAddr>) -> Target {
        if let Some(known) = original_dst.and_then(|dst| self.resolve_address(dst)) {
            return Target::Known(known);
        }
        let (host, named_port) = split_authority(authority);
        let dialled_port = original_dst.map(|dst| dst.port());
        if let Some(known) = self.resolve_host(host, named_port.or(dialled_port)) {
            return Target::Known(known);
        }
        match original_dst {
            Some(dst) if self.mesh.outbound == OutboundMode::AllowAny => Target::Passthrough(dst),
            _ => Target::Unknown,
        }
    }

    /// Where an opaque connection was meant to go.
    #[must_use]
    pub fn resolve_tcp(&self, original_dst: Option<SocketAddr>) -> TcpTarget {
        if let Some(known) = original_dst.and_then(|dst| self.resolve_address(dst)) {
            return TcpTarget::Known(known);
        }
        // A service for any host is one for any address too, if it has but one TCP port or the
        // dialled one (the standalone sidecar in mode tcp).
        if let Some(service) = self.hosts.any().service
            && let Some(port) = self.port_of(service, original_dst.map(|dst| dst.port()), true)
        {
            return TcpTarget::Known(Destined {
                virtual_host: self.hosts.any().virtual_host,
                service: Some(service),
                port,
                only: None,
            });
        }
        // Called directly: TCP rules for any host are all there is to go by. Nobody named a port, so
        // it is 80, as for a Host without one.
        if original_dst.is_none()
            && let Some(any) = self.hosts.any().virtual_host
            && !self.virtual_host(any).tcp.is_empty()
        {
            return TcpTarget::Known(Destined {
                virtual_host: Some(any),
                service: None,
                port: 80,
                only: None,
            });
        }
        match original_dst {
            Some(dst) if self.mesh.outbound == OutboundMode::AllowAny => {
                TcpTarget::Passthrough(dst)
            }
            _ => TcpTarget::Unknown,
        }
    }

    /// What is spoken there: by the service's port; without a service by what rules there are: TCP
    /// rules alone mean TCP.
    #[must_use]
    pub fn declared(&self, to: &Destined) -> Protocol {
        let rules = to.virtual_host.map(|at| self.virtual_host(at));
        match to.service {
            Some(service) => self
                .service(service)
                .port(to.port)
                .map_or(Protocol::Auto, |port| port.protocol),
            None if rules.is_some_and(|rules| rules.routes().next().is_none()) => Protocol::Tcp,
            None => Protocol::Auto,
        }
    }

    fn resolve_address(&self, dst: SocketAddr) -> Option<Destined> {
        let dst = SocketAddr::new(normal_ip(dst.ip()), dst.port());
        let entry = self.addresses.get(&dst)?;
        Some(Destined {
            virtual_host: self.service(entry.service).virtual_host,
            service: Some(entry.service),
            port: entry.port,
            only: entry.endpoint.then_some(dst),
        })
    }

    fn resolve_host(&self, host: &str, port: Option<u16>) -> Option<Destined> {
        let HostEntry {
            virtual_host,
            service,
            any_port,
        } = self.hosts.find(host);
        let port = match service {
            Some(service) => self.port_of(service, port, any_port)?,
            None => port.unwrap_or(80),
        };
        (virtual_host.is_some() || service.is_some()).then_some(Destined {
            virtual_host,
            service,
            port,
            only: None,
        })
    }

    /// The service port a caller means: the one it names; without a name 80, or the only HTTP
    /// port, or the only port. With `any_port` a named port the service does not have counts as
    /// no name.
    fn port_of(&self, service: ServiceIndex, named: Option<u16>, any_port: bool) -> Option<u16> {
        let row = self.service(service);
        let declared = |number: u16| row.port(number).map(|p| p.number);
        let only = |http: bool| {
            let mut fitting = row
                .ports
                .iter()
                .filter(|p| !http || p.protocol.is_http())
                .map(|p| p.number);
            match (fitting.next(), fitting.next()) {
                (Some(number), None) => Some(number),
                _ => None,
            }
        };
        let unnamed = || declared(80).or_else(|| only(true)).or_else(|| only(false));
        match named {
            Some(number) if any_port => declared(number).or_else(unnamed),
            Some(number) => declared(number),
            None => unnamed(),
        }
    }
}
