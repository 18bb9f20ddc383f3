//! One reader per kind: a mapping to what it says.

mod mixer;
mod policy_groups;
mod routes;
mod security;
mod service_entry;
mod settings;
mod shared;

pub(super) use shared::{protocol_of_name, protocol_of_word};

use super::cursor::Fields;
use super::object::{Kind, Spec};

/// Reads the `spec` of an object; `fields` are those of the whole document.
pub(super) fn spec(kind: Kind, namespace: &str, fields: &Fields<'_>) -> Option<Spec> {
    if kind == Kind::CheckNothing {
        if let Some(spec) = fields.get("spec") {
            spec.fields(&[], &[]);
        }
        return Some(Spec::CheckNothing);
    }
    let fix = "an object says what it wants under spec:";
    if kind == Kind::AuthorizationPolicy && fields.get("spec").is_none() {
        // Istio: an empty spec is ALLOW without rules, which denies everything.
        return Some(Spec::AuthorizationPolicy(security::deny_all()));
    }
    let spec = fields.require("spec", fix)?;
    Some(match kind {
        Kind::VirtualService => Spec::VirtualService(routes::virtual_service(&spec)?),
        Kind::DestinationRule => Spec::DestinationRule(policy_groups::destination_rule(&spec)?),
        Kind::ServiceEntry => Spec::ServiceEntry(service_entry::service_entry(&spec)?),
        Kind::AuthorizationPolicy => {
            Spec::AuthorizationPolicy(security::authorization_policy(&spec)?)
        }
        Kind::PeerAuthentication => Spec::PeerAuthentication(security::peer_authentication(&spec)?),
        Kind::MeshSettings => {
            Spec::MeshSettings(settings::mesh_settings(&spec, namespace, fields)?)
        }
        Kind::Rule => Spec::Rule(mixer::rule(&spec)?),
        Kind::Handler => mixer::handler(&spec, namespace)?,
        Kind::MemQuota => Spec::MemQuota(mixer::memquota(&spec, namespace)?),
        Kind::Denier => Spec::Denier(mixer::denier(&spec)?),
        Kind::Instance => mixer::instance(&spec)?,
        Kind::Quota => Spec::Quota(mixer::quota(&spec)?),
        Kind::CheckNothing => Spec::CheckNothing,
        Kind::QuotaSpec => Spec::QuotaSpec(mixer::quota_spec(&spec)?),
        Kind::QuotaSpecBinding => {
            Spec::QuotaSpecBinding(mixer::quota_spec_binding(&spec, namespace)?)
        }
    })
}
