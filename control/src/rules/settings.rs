//! `ringmesh.io/v1 MeshSettings`: what holds for the whole mesh.

use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::{OnQuotaUnavailable, OutboundMode};

/// Settings of the mesh. One object, in the root namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Timeout of a route that names none, milliseconds; 0 is off.
    pub default_timeout_ms: u64,
    /// Calls to unknown destinations.
    pub outbound: OutboundMode,
    /// Quotas while their authority is away.
    pub on_quota_unavailable: OnQuotaUnavailable,
    /// Retry a timed-out try of a method that is not idempotent too.
    pub retry_non_idempotent: bool,
    /// Network virtual addresses are taken from, and its prefix length.
    pub vip_range: (IpAddr, u8),
}

impl Default for MeshSettings {
    /// 15 s, ALLOW_ANY, share, idempotent only, 240.240.0.0/16.
    fn default() -> Self {
        Self {
            default_timeout_ms: 15_000,
            outbound: OutboundMode::AllowAny,
            on_quota_unavailable: OnQuotaUnavailable::Share,
            retry_non_idempotent: false,
            vip_range: (IpAddr::from([240, 240, 0, 0]), 16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Spec, parse};

    #[test]
    fn the_documented_object_has_every_default() {
        let page = include_str!("../../../docs/mesh-settings.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let objects = parse("mesh.yaml", example).unwrap();
        let specs: Vec<&Spec> = objects.iter().map(|object| &object.spec).collect();
        let [Spec::MeshSettings(settings)] = specs[..] else {
            panic!("{objects:?}");
        };
        assert_eq!(*settings, MeshSettings::default());
    }
}
