//! AuthorizationPolicy and PeerAuthentication.

use ringmesh_wire::v1::snapshot::{
    AuthzAction, AuthzRule, Condition, IpBlock, MtlsMode, Operation, Pattern, Source,
};

use super::shared::selector;
use crate::rules::cursor::{Cursor, Fields};
use crate::rules::place::At;
use crate::rules::scalar::parse_block;
use crate::rules::security::{AuthorizationPolicy, PeerAuthentication};

/// An empty spec: ALLOW without rules, which never matches, so nothing is allowed.
pub(super) fn deny_all() -> AuthorizationPolicy {
    AuthorizationPolicy {
        selector: std::collections::BTreeMap::new(),
        entries: Vec::new(),
        action: AuthzAction::Allow,
        rules: Vec::new(),
    }
}

pub(super) fn authorization_policy(spec: &Cursor<'_>) -> Option<AuthorizationPolicy> {
    let fields = spec.fields(
        &["selector", "targetRef", "targetRefs", "action", "rules"],
        &["provider"],
    )?;
    let mut entries: Vec<At<String>> = Vec::new();
    for at in fields
        .filled("targetRef")
        .into_iter()
        .chain(fields.filled_list("targetRefs"))
    {
        entries.extend(target(&at));
    }
    if let Some(at) = fields.get("selector")
        && !entries.is_empty()
    {
        at.fail("selector beside targetRefs", "keep one of them");
    }
    let action = match fields.get("action") {
        None => Some(AuthzAction::Allow),
        Some(at) => {
            let word = at.string()?;
            if word == "CUSTOM" {
                at.fail(
                    "action CUSTOM is not supported yet",
                    "write ALLOW, DENY or AUDIT",
                );
                None
            } else {
                at.pick(&[
                    ("ALLOW", AuthzAction::Allow),
                    ("DENY", AuthzAction::Deny),
                    ("AUDIT", AuthzAction::Audit),
                ])
            }
        }
    };
    let rules = fields.list("rules").iter().filter_map(rule).collect();
    Some(AuthorizationPolicy {
        selector: selector(&fields),
        entries,
        action: action?,
        rules,
    })
}

/// A `targetRefs` entry: only ServiceEntries have no sidecar of their own to select.
fn target(at: &Cursor<'_>) -> Option<At<String>> {
    let fields = at.fields(&["group", "kind", "name"], &["namespace", "sectionName"])?;
    let kind = fields
        .require("kind", "write kind: ServiceEntry")
        .and_then(|at| Some((at.string()?, at)));
    let name = fields
        .require("name", "write the ServiceEntry's name")
        .and_then(|at| at.text());
    if let Some(at) = fields.get("group")
        && at
            .string()
            .is_some_and(|group| group != "networking.istio.io")
    {
        at.fail(
            "targetRefs other than ServiceEntry are not supported yet",
            "write group: networking.istio.io",
        );
    }
    let (kind, kind_at) = kind?;
    if kind != "ServiceEntry" {
        kind_at.fail(
            format!("targetRefs to {kind} is not supported yet"),
            "write kind: ServiceEntry, or use selector: for workloads",
        );
        return None;
    }
    name
}

fn rule(at: &Cursor<'_>) -> Option<AuthzRule> {
    let fields = at.fields(&["from", "to", "when"], &[])?;
    let from = fields
        .filled_list("from")
        .iter()
        .filter_map(|at| {
            let fix = "write - source: {principals: [...]}";
            source(&at.fields(&["source"], &[])?.require("source", fix)?)
        })
        .collect();
    let to = fields
        .filled_list("to")
        .iter()
        .filter_map(|at| {
            let fix = "write - operation: {methods: [GET]}";
            operation(&at.fields(&["operation"], &[])?.require("operation", fix)?)
        })
        .collect();
    let when = fields
        .filled_list("when")
        .iter()
        .filter_map(condition)
        .collect();
    Some(AuthzRule { from, to, when })
}

/// `abc`, `abc*`, `*abc`, `*`.
fn pattern(at: &At<String>, cursor: &Cursor<'_>) -> Option<Pattern> {
    let text = at.value.as_str();
    if text == "*" {
        return Some(Pattern::Present);
    }
    let found = match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(prefix), None) => Pattern::Prefix(prefix.to_owned()),
        (None, Some(suffix)) => Pattern::Suffix(suffix.to_owned()),
        (Some(_), Some(_)) => {
            cursor.fail(
                format!("{text:?} has a * at both ends"),
                "write abc*, *abc, * or abc",
            );
            return None;
        }
        (None, None) => Pattern::Exact(text.to_owned()),
    };
    let inner = match &found {
        Pattern::Prefix(text) | Pattern::Suffix(text) | Pattern::Exact(text) => text,
        Pattern::Present => "",
    };
    if inner.contains('*') {
        cursor.fail(
            format!("{text:?} has a * in the middle, which matches only itself"),
            "write abc*, *abc, * or abc",
        );
        return None;
    }
    Some(found)
}

fn patterns(fields: &Fields<'_>, name: &str) -> Vec<Pattern> {
    fields
        .filled_list(name)
        .iter()
        .filter_map(|at| pattern(&at.text()?, at))
        .collect()
}

fn blocks(fields: &Fields<'_>, name: &str) -> Vec<IpBlock> {
    fields
        .filled_list(name)
        .iter()
        .filter_map(|at| {
            let text = at.string()?;
            parse_block(&text)
                .map_err(|why| at.fail(format!("{text:?}: {why}"), "write e.g. 10.0.0.0/8"))
                .ok()
        })
        .collect()
}

fn refuse_empty(at: &Cursor<'_>, what: &str) -> bool {
    let empty = at.is_empty_mapping();
    if empty {
        at.fail(
            format!("this {what} has no conditions"),
            "give it one, or remove the whole list to allow any",
        );
    }
    empty
}

fn source(at: &Cursor<'_>) -> Option<Source> {
    if refuse_empty(at, "source") {
        return None;
    }
    let fields = at.fields(
        &[
            "principals",
            "notPrincipals",
            "namespaces",
            "notNamespaces",
            "ipBlocks",
            "notIpBlocks",
        ],
        &[
            "requestPrincipals",
            "notRequestPrincipals",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
            "serviceAccounts",
            "notServiceAccounts",
        ],
    )?;
    Some(Source {
        principals: principals(&fields, "principals"),
        not_principals: principals(&fields, "notPrincipals"),
        namespaces: patterns(&fields, "namespaces"),
        not_namespaces: patterns(&fields, "notNamespaces"),
        ip_blocks: blocks(&fields, "ipBlocks"),
        not_ip_blocks: blocks(&fields, "notIpBlocks"),
    })
}

/// Principals are written without `spiffe://`; one that has it is a mistake that would never match.
fn principals(fields: &Fields<'_>, name: &str) -> Vec<Pattern> {
    for at in fields.list(name) {
        if at
            .string()
            .is_some_and(|text| text.starts_with("spiffe://"))
        {
            at.fail(
                "a principal is written without spiffe://",
                "write e.g. cluster.local/ns/default/sa/reviews",
            );
        }
    }
    patterns(fields, name)
}

fn operation(at: &Cursor<'_>) -> Option<Operation> {
    if refuse_empty(at, "operation") {
        return None;
    }
    let fields = at.fields(
        &[
            "hosts",
            "notHosts",
            "ports",
            "notPorts",
            "methods",
            "notMethods",
            "paths",
            "notPaths",
        ],
        &[],
    )?;
    let ports = |name: &str| -> Vec<u16> {
        fields
            .filled_list(name)
            .iter()
            .filter_map(|at| {
                // Istio writes ports as texts.
                let text = at.string()?;
                let port = text.parse::<u16>().ok().filter(|port| *port > 0);
                if port.is_none() {
                    at.fail(format!("{text:?} is not a port"), "write e.g. \"9080\"");
                }
                port
            })
            .collect()
    };
    for name in ["paths", "notPaths"] {
        for at in fields.list(name) {
            if at.string().is_some_and(|text| text.contains(['{', '}'])) {
                at.fail(
                    "path templates are not supported yet",
                    "write abc*, *abc, * or abc",
                );
            }
        }
    }
    Some(Operation {
        hosts: patterns(&fields, "hosts"),
        not_hosts: patterns(&fields, "notHosts"),
        ports: ports("ports"),
        not_ports: ports("notPorts"),
        methods: patterns(&fields, "methods"),
        not_methods: patterns(&fields, "notMethods"),
        paths: patterns(&fields, "paths"),
        not_paths: patterns(&fields, "notPaths"),
    })
}

/// Keys a sidecar can look up.
const KEYS: [&str; 4] = [
    "source.ip",
    "source.namespace",
    "source.principal",
    "destination.port",
];

fn condition(at: &Cursor<'_>) -> Option<Condition> {
    let fields = at.fields(&["key", "values", "notValues"], &[])?;
    let key_at = fields.require("key", "write e.g. key: request.headers[x-user]")?;
    let key = key_at.string()?;
    let header = key
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'));
    let key = match header {
        Some(name) if !name.is_empty() => format!("request.headers[{}]", name.to_ascii_lowercase()),
        _ if KEYS.contains(&key.as_str()) => key,
        _ => {
            let later = key.starts_with("request.auth")
                || matches!(
                    key.as_str(),
                    "remote.ip" | "destination.ip" | "connection.sni" | "source.serviceAccount"
                )
                || key.starts_with("experimental.");
            let what = if later {
                "is not supported yet"
            } else {
                "is not known"
            };
            key_at.fail(
                format!("the condition {key:?} {what}"),
                format!("the keys are request.headers[NAME], {}", KEYS.join(", ")),
            );
            return None;
        }
    };
    for name in ["values", "notValues"] {
        for at in fields.list(name) {
            let Some(text) = at.string() else { continue };
            let sound = match key.as_str() {
                "source.ip" => parse_block(&text).is_ok(),
                "destination.port" => text.parse::<u16>().is_ok(),
                _ => true,
            };
            if !sound {
                at.fail(
                    format!("{text:?} does not fit {key}"),
                    "write an address or block for source.ip, a number for destination.port",
                );
            }
        }
    }
    let condition = Condition {
        values: patterns(&fields, "values"),
        not_values: patterns(&fields, "notValues"),
        key,
    };
    if condition.values.is_empty() && condition.not_values.is_empty() {
        at.fail(
            "this condition has no values",
            "write values: [...] or notValues: [...]",
        );
        return None;
    }
    Some(condition)
}

pub(super) fn peer_authentication(spec: &Cursor<'_>) -> Option<PeerAuthentication> {
    let fields = spec.fields(&["selector", "mtls", "portLevelMtls"], &[])?;
    let selector = selector(&fields);
    let mode = fields.filled("mtls").and_then(|at| mtls(&at));
    let mut ports = Vec::new();
    if let Some(at) = fields.filled("portLevelMtls") {
        if selector.is_empty() {
            at.fail(
                "portLevelMtls without a selector",
                "ports belong to workloads: write selector: {matchLabels: {app: ...}}",
            );
        }
        for (key, at) in at.entries() {
            match key.parse::<u16>() {
                Ok(port) if port > 0 => ports.push((port, mtls(&at))),
                _ => at.fail(
                    format!("{key:?} is not a port"),
                    "write a number from 1 to 65535",
                ),
            }
        }
    }
    ports.sort_by_key(|(port, _)| *port);
    Some(PeerAuthentication {
        selector,
        mode,
        ports,
    })
}

fn mtls(at: &Cursor<'_>) -> Option<MtlsMode> {
    let fields = at.fields(&["mode"], &[])?;
    fields
        .get("mode")?
        .pick(&[
            ("UNSET", None),
            ("STRICT", Some(MtlsMode::Strict)),
            ("PERMISSIVE", Some(MtlsMode::Permissive)),
            ("DISABLE", Some(MtlsMode::Disable)),
        ])
        .flatten()
}
