//! MeshSettings.

use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::{OnQuotaUnavailable, OutboundMode};

use crate::rules::ROOT_NAMESPACE;
use crate::rules::cursor::{Cursor, Fields};
use crate::rules::scalar::parse_block;
use crate::rules::settings::MeshSettings;

pub(super) fn mesh_settings(
    spec: &Cursor<'_>,
    namespace: &str,
    document: &Fields<'_>,
) -> Option<MeshSettings> {
    if namespace != ROOT_NAMESPACE {
        let at = document.get("metadata");
        at.as_ref().unwrap_or(spec).fail(
            format!("MeshSettings stands in the namespace {namespace}"),
            format!("write metadata: {{name: mesh, namespace: {ROOT_NAMESPACE}}}"),
        );
    }
    let fields = spec.fields(
        &[
            "defaultTimeout",
            "outbound",
            "quota",
            "retryNonIdempotent",
            "vip_range",
        ],
        &[],
    )?;
    let usual = MeshSettings::default();
    let default_timeout_ms = fields
        .get("defaultTimeout")
        .map_or(Some(usual.default_timeout_ms), |at| at.duration_ms(true));
    let outbound = fields.get("outbound").map_or(Some(usual.outbound), |at| {
        at.fields(&["mode"], &[])?
            .require("mode", "write mode: ALLOW_ANY or REGISTRY_ONLY")?
            .pick(&[
                ("ALLOW_ANY", OutboundMode::AllowAny),
                ("REGISTRY_ONLY", OutboundMode::RegistryOnly),
            ])
    });
    let on_quota_unavailable = fields
        .get("quota")
        .map_or(Some(usual.on_quota_unavailable), |at| {
            at.fields(&["on_unavailable"], &[])?
                .require("on_unavailable", "write share, allow or deny")?
                .pick(&[
                    ("share", OnQuotaUnavailable::Share),
                    ("allow", OnQuotaUnavailable::Allow),
                    ("deny", OnQuotaUnavailable::Deny),
                ])
        });
    let retry_non_idempotent = fields
        .get("retryNonIdempotent")
        .map_or(Some(usual.retry_non_idempotent), |at| at.boolean());
    let vip_range = fields
        .get("vip_range")
        .map_or(Some(usual.vip_range), |at| vip_range(&at));
    Some(MeshSettings {
        default_timeout_ms: default_timeout_ms?,
        outbound: outbound?,
        on_quota_unavailable: on_quota_unavailable?,
        retry_non_idempotent: retry_non_idempotent?,
        vip_range: vip_range?,
    })
}

/// A network with room: at least 256 addresses, at most 2^24 (what probing is sized for).
fn vip_range(at: &Cursor<'_>) -> Option<(IpAddr, u8)> {
    let text = at.string()?;
    let fix = "write an IPv4 block from /8 to /24 or an IPv6 block from /8 to /120, \
               e.g. 240.240.0.0/16";
    let block = match parse_block(&text) {
        Ok(block) => block,
        Err(why) => {
            at.fail(format!("{text:?}: {why}"), fix);
            return None;
        }
    };
    let longest = if block.address.is_ipv4() { 24 } else { 120 };
    if !(8..=longest).contains(&block.prefix_bits) {
        at.fail(format!("{text:?} is too small or too large a network"), fix);
        return None;
    }
    Some((block.address, block.prefix_bits))
}
