//! Mixer objects.

use std::collections::BTreeMap;

use ringmesh_wire::limits::{LEASE_DIMENSIONS_MAX, NAME_BYTES_MAX};
use ringmesh_wire::v1::Expr;
use ringmesh_wire::v1::snapshot::{Limit, LimitOverride, QuotaScope};

use super::shared::required_list;
use crate::expr::{ExprError, compile_condition, compile_value};
use crate::rules::cursor::{Cursor, Fields};
use crate::rules::mixer::{
    BoundService, Denier, MemQuota, MemQuotaLimit, QuotaInstance, QuotaSpec, QuotaSpecBinding,
    Rounded, Rule, RuleActionRef,
};
use crate::rules::object::Spec;
use crate::rules::place::At;

/// Largest amount: keeps sums of the ledger far from overflow.
const AMOUNT_MAX: u64 = 1_000_000_000_000;
/// Longest window, milliseconds: a week.
const WINDOW_MS_MAX: u64 = 7 * 24 * 3_600_000;

pub(super) fn rule(spec: &Cursor<'_>) -> Option<Rule> {
    let fields = spec.fields(
        &["match", "actions"],
        &[
            "requestHeaderOperations",
            "responseHeaderOperations",
            "sampling",
        ],
    )?;
    let when = match fields.get("match") {
        None => None,
        Some(at) => {
            let text = at.any_string()?;
            if text.trim().is_empty() {
                None
            } else {
                Some(compiled(&at, &text, compile_condition)?)
            }
        }
    };
    let fix = "write actions: [{handler: NAME.denier, instances: [NAME.checknothing]}]";
    let actions = required_list(&fields, "actions", fix)?
        .iter()
        .filter_map(action)
        .collect();
    Some(Rule { when, actions })
}

fn action(at: &Cursor<'_>) -> Option<RuleActionRef> {
    let fields = at.fields(&["handler", "instances"], &["name"])?;
    let handler = fields
        .require("handler", "write handler: NAME.denier")
        .and_then(|at| at.text());
    let fix = "an action hands at least one instance to its handler, e.g. [NAME.checknothing]";
    let instances: Option<Vec<At<String>>> = required_list(&fields, "instances", fix)
        .map(|items| items.iter().filter_map(Cursor::text).collect());
    Some(RuleActionRef {
        handler: handler?,
        instances: instances?,
    })
}

/// Compiles an expression, reporting faults at their place inside the text.
fn compiled(
    at: &Cursor<'_>,
    text: &str,
    compile: fn(&str) -> Result<Expr, ExprError>,
) -> Option<Expr> {
    compile(text)
        .map_err(|error| at.fail_inside(text, error.offset, error.what, error.fix))
        .ok()
}

pub(super) fn handler(spec: &Cursor<'_>, namespace: &str) -> Option<Spec> {
    let fields = spec.fields(&["compiledAdapter", "params"], &["adapter", "connection"])?;
    let params = fields.require("params", "write the adapter's settings under params:");
    match adapter(&fields, "compiledAdapter", &["memquota", "denier"])? {
        "memquota" => memquota(&params?, namespace).map(Spec::MemQuota),
        _ => denier(&params?).map(Spec::Denier),
    }
}

pub(super) fn instance(spec: &Cursor<'_>) -> Option<Spec> {
    let fields = spec.fields(
        &["compiledTemplate", "params"],
        &["template", "attributeBindings"],
    )?;
    match adapter(&fields, "compiledTemplate", &["quota", "checknothing"])? {
        "quota" => {
            quota(&fields.require("params", "write params: {dimensions: {...}}")?).map(Spec::Quota)
        }
        _ => {
            if let Some(at) = fields.get("params") {
                at.fields(&[], &[]);
            }
            Some(Spec::CheckNothing)
        }
    }
}

fn adapter<'n>(fields: &Fields<'_>, name: &str, known: &[&'n str]) -> Option<&'n str> {
    let at = fields.require(name, &format!("write {name}: {}", known[0]))?;
    let word = at.string()?;
    let found = known.iter().find(|one| **one == word);
    if found.is_none() {
        at.fail(
            format!("{name} {word:?} is not supported yet"),
            format!("write {}", known.join(" or ")),
        );
    }
    found.copied()
}

pub(super) fn memquota(spec: &Cursor<'_>, namespace: &str) -> Option<MemQuota> {
    let fields = spec.fields(&["quotas"], &["minDeduplicationDuration"])?;
    let fix = "write quotas: [{name: NAME.quota.NAMESPACE, maxAmount: 100, validDuration: 1s}]";
    let mut quotas: Vec<MemQuotaLimit> = Vec::new();
    for at in required_list(&fields, "quotas", fix)? {
        let Some(quota) = memquota_limit(&at, namespace) else {
            continue;
        };
        if quotas
            .iter()
            .any(|other| other.name.value == quota.name.value)
        {
            at.fail(
                format!("{} is given twice", quota.name.value),
                "keep one of them",
            );
        }
        quotas.push(quota);
    }
    Some(MemQuota { quotas })
}

fn memquota_limit(at: &Cursor<'_>, namespace: &str) -> Option<MemQuotaLimit> {
    let fields = at.fields(
        &["name", "maxAmount", "validDuration", "overrides", "scope"],
        &["bucketDuration", "rateLimitAlgorithm"],
    )?;
    let name = fields
        .require(
            "name",
            "write the instance's full name: NAME.quota.NAMESPACE",
        )
        .and_then(|at| instance_name(&at, namespace));
    let mut rounded = Vec::new();
    let limit = limit(at, &fields, &mut rounded);
    let (mut overrides, mut override_dimensions) = (Vec::new(), Vec::new());
    for at in fields.list("overrides") {
        let Some(fields) = at.fields(&["dimensions", "maxAmount", "validDuration"], &[]) else {
            continue;
        };
        let entries = fields.get("dimensions").map(|at| at.entries());
        let mut dimensions = BTreeMap::new();
        for (name, at) in entries.unwrap_or_default() {
            let place = at.key_place();
            let value = name.to_owned();
            override_dimensions.push(At { value, place });
            dimensions.extend(at.any_string().map(|value| (name.to_owned(), value)));
        }
        if dimensions.is_empty() {
            at.fail(
                "an override without dimensions fits everything",
                "give it dimensions, or change the quota's own maxAmount",
            );
        }
        overrides.extend(
            self::limit(&at, &fields, &mut rounded).map(|limit| LimitOverride {
                dimensions: dimensions.into_iter().collect(),
                limit,
            }),
        );
    }
    let scope = fields
        .get("scope")
        .map_or(Some(QuotaScope::Dimensions), |at| {
            at.pick(&[
                ("dimensions", QuotaScope::Dimensions),
                ("override", QuotaScope::Override),
            ])
        });
    Some(MemQuotaLimit {
        name: name?,
        limit: limit?,
        overrides,
        override_dimensions,
        scope: scope?,
        rounded,
    })
}

/// `NAME`, `NAME.quota`, `NAME.instance` or with `.NAMESPACE`, made full.
fn instance_name(at: &Cursor<'_>, namespace: &str) -> Option<At<String>> {
    let text = at.string()?;
    let parts: Vec<&str> = text.split('.').collect();
    // Other signs tell quotas apart where several use one instance (`compile/quota.rs`).
    let is_part = |part: &&str| {
        (1..=NAME_BYTES_MAX).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let full = match parts.as_slice() {
        parts if !parts.iter().all(is_part) => None,
        [name] => Some(format!("{name}.quota.{namespace}")),
        [name, kind @ ("quota" | "instance")] => Some(format!("{name}.{kind}.{namespace}")),
        [_, "quota" | "instance", _] => Some(text.clone()),
        _ => None,
    };
    if full.is_none() {
        at.fail(
            format!("{text:?} does not name a quota instance"),
            "write NAME.quota.NAMESPACE, e.g. requestcount.quota.istio-system",
        );
    }
    Some(at.at(full?))
}

fn limit(at: &Cursor<'_>, fields: &Fields<'_>, rounded: &mut Vec<Rounded>) -> Option<Limit> {
    let amount = fields
        .require("maxAmount", "write maxAmount: 100")
        .and_then(|at| at.number(0, AMOUNT_MAX));
    let window_ms = match fields.get("validDuration") {
        None => {
            at.fail(
                "without validDuration this is an allocation quota, which is not supported yet",
                "write validDuration: 1s",
            );
            None
        }
        Some(at) => at.duration_ms(true).and_then(|ms| {
            if ms == 0 {
                at.fail(
                    "validDuration 0 is an allocation quota, which is not supported yet",
                    "write at least 1s",
                );
                return None;
            }
            if ms > WINDOW_MS_MAX {
                at.fail("the window is longer than a week", "write at most 168h");
                return None;
            }
            // Rounded up to whole seconds.
            let window_s = ms.div_ceil(1_000);
            if ms < window_s * 1_000
                && let Some(written) = at.text()
            {
                rounded.push(Rounded { written, window_s });
            }
            Some(window_s * 1_000)
        }),
    };
    Some(Limit {
        amount_max: amount?,
        window_ms: window_ms?,
    })
}

pub(super) fn denier(spec: &Cursor<'_>) -> Option<Denier> {
    let fields = spec.fields(&["status"], &["validDuration", "validUseCount"])?;
    // FAILED_PRECONDITION where nothing is said.
    let mut denier = Denier {
        grpc_status: 9,
        message: String::new(),
    };
    if let Some(at) = fields.get("status") {
        let status = at.fields(&["code", "message"], &["details"])?;
        if let Some(code) = status.get("code") {
            let code = code.number(1, 16).and_then(|n| u8::try_from(n).ok());
            denier.grpc_status = code?;
        }
        if let Some(message) = status.get("message") {
            denier.message = message.any_string()?;
        }
    }
    Some(denier)
}

pub(super) fn quota(spec: &Cursor<'_>) -> Option<QuotaInstance> {
    let fields = spec.fields(&["dimensions"], &[])?;
    let mut dimensions = Vec::new();
    let all = fields.get("dimensions").map(|at| (at.entries(), at));
    if let Some((entries, at)) = &all
        && entries.len() > LEASE_DIMENSIONS_MAX
    {
        at.fail(
            format!("a quota of {} dimensions", entries.len()),
            format!("give it at most {LEASE_DIMENSIONS_MAX}"),
        );
        return None;
    }
    for (name, at) in all.map(|(entries, _)| entries).unwrap_or_default() {
        let Some(text) = at.string() else { continue };
        if let Some(expr) = compiled(&at, &text, compile_value) {
            dimensions.push((name.to_owned(), expr));
        }
    }
    dimensions.sort_by(|a: &(String, Expr), b| a.0.cmp(&b.0));
    Some(QuotaInstance { dimensions })
}

pub(super) fn quota_spec(spec: &Cursor<'_>) -> Option<QuotaSpec> {
    let fields = spec.fields(&["rules"], &[])?;
    let mut charges = Vec::new();
    let fix = "write rules: [{quotas: [{quota: requestcount, charge: 1}]}]";
    for at in required_list(&fields, "rules", fix)? {
        let Some(rule) = at.fields(&["quotas"], &["match"]) else {
            continue;
        };
        for at in required_list(&rule, "quotas", fix).unwrap_or_default() {
            let Some(fields) = at.fields(&["quota", "charge"], &[]) else {
                continue;
            };
            let charge = fields
                .get("charge")
                .map_or(Some(1), |at| at.number(1, AMOUNT_MAX));
            let quota = fields
                .require("quota", "write the quota instance's name")
                .and_then(|at| at.text());
            charges.extend(quota.zip(charge));
        }
    }
    Some(QuotaSpec { charges })
}

pub(super) fn quota_spec_binding(spec: &Cursor<'_>, namespace: &str) -> Option<QuotaSpecBinding> {
    let fields = spec.fields(&["quotaSpecs", "services"], &[])?;
    let mut specs = Vec::new();
    let fix = "write quotaSpecs: [{name: request-count}]";
    for at in required_list(&fields, "quotaSpecs", fix)? {
        let Some(fields) = at.fields(&["name", "namespace"], &[]) else {
            continue;
        };
        let name = fields.require("name", fix).and_then(|at| at.text());
        let namespace = fields
            .get("namespace")
            .map_or(Some(namespace.to_owned()), |at| at.string());
        specs.extend(name.zip(namespace));
    }
    let mut services = Vec::new();
    let fix = "write services: [{name: ratings}] or [{service: '*'}]";
    for at in required_list(&fields, "services", fix)? {
        services.extend(bound_service(&at, namespace));
    }
    Some(QuotaSpecBinding { services, specs })
}

fn bound_service(at: &Cursor<'_>, namespace: &str) -> Option<BoundService> {
    let fields = at.fields(&["name", "namespace", "service"], &["domain", "labels"])?;
    if let Some(service) = fields.get("service") {
        let text = service.string()?;
        if text == "*" {
            return Some(BoundService::All);
        }
        // A full name: NAME.NAMESPACE, or with .svc.cluster.local.
        let mut parts = text.split('.');
        let name = parts.next().unwrap_or_default().to_owned();
        let namespace = parts.next().unwrap_or(namespace).to_owned();
        return Some(BoundService::Named {
            name,
            namespace,
            place: service.place(),
        });
    }
    let name = fields.require("name", "write name: ratings, or service: '*'")?;
    let namespace = fields
        .get("namespace")
        .map_or(Some(namespace.to_owned()), |at| at.string());
    Some(BoundService::Named {
        name: name.string()?,
        namespace: namespace?,
        place: name.place(),
    })
}
