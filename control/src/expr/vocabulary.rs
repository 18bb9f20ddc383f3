//! The attributes and their types. The sidecar's `tables` room holds the same list; an attribute
//! stands here exactly when a sidecar can fill it.

use super::check::Type;

/// Every attribute, sorted.
pub const ATTRIBUTES: [(&str, Type); 31] = [
    ("connection.mtls", Type::Bool),
    ("context.protocol", Type::Text),
    ("destination.ip", Type::Ip),
    ("destination.labels", Type::Map),
    ("destination.namespace", Type::Text),
    ("destination.port", Type::Int),
    ("destination.service", Type::Text),
    ("destination.service.host", Type::Text),
    ("destination.service.name", Type::Text),
    ("destination.service.namespace", Type::Text),
    ("destination.workload.namespace", Type::Text),
    ("request.headers", Type::Map),
    ("request.host", Type::Text),
    ("request.id", Type::Text),
    ("request.method", Type::Text),
    ("request.path", Type::Text),
    ("request.referer", Type::Text),
    ("request.scheme", Type::Text),
    ("request.url_path", Type::Text),
    ("request.useragent", Type::Text),
    ("source.ip", Type::Ip),
    ("source.labels", Type::Map),
    ("source.namespace", Type::Text),
    ("source.port", Type::Int),
    ("source.principal", Type::Text),
    ("source.service", Type::Text),
    ("source.service.host", Type::Text),
    ("source.service.name", Type::Text),
    ("source.service.namespace", Type::Text),
    ("source.user", Type::Text),
    ("source.workload.namespace", Type::Text),
];

/// Attributes of Mixer that no sidecar fills yet.
pub(super) const LATER: [&str; 25] = [
    "api.operation",
    "api.protocol",
    "api.service",
    "api.version",
    "check.error_code",
    "connection.id",
    "connection.event",
    "connection.received.bytes",
    "connection.sent.bytes",
    "context.time",
    "destination.name",
    "destination.owner",
    "destination.principal",
    "destination.uid",
    "destination.workload.name",
    "request.api_key",
    "request.auth.claims",
    "request.auth.principal",
    "request.size",
    "request.time",
    "response.code",
    "response.size",
    "source.name",
    "source.uid",
    "source.workload.name",
];

/// The type of an attribute.
#[must_use]
pub fn type_of(name: &str) -> Option<Type> {
    ATTRIBUTES
        .binary_search_by(|(known, _)| (*known).cmp(name))
        .ok()
        .map(|at| ATTRIBUTES[at].1)
}
