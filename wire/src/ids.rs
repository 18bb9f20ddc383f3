//! Names of things, as types, so that a node cannot be passed for a service.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::NAME_BYTES_MAX;

/// A revision of the configuration as control counts it. 0 means "none yet".
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Checks a name: 1 to 253 bytes of ASCII letters, digits, `-`, `_`, `.`; no leading or trailing dot.
///
/// # Errors
/// [`WireError::Invalid`] or [`WireError::TooLong`] naming `what`.
pub fn check_name(what: &'static str, name: &str) -> Result<(), WireError> {
    if name.is_empty() {
        return Err(WireError::Invalid(format!("{what} is empty")));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(WireError::TooLong {
            what,
            got: name.len(),
            max: NAME_BYTES_MAX,
        });
    }
    let bad = name
        .bytes()
        .find(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')));
    if let Some(bad) = bad {
        return Err(WireError::Invalid(format!(
            "{what} {name:?} contains {:?}; letters, digits, '-', '_' and '.' are allowed",
            char::from(bad)
        )));
    }
    if name.starts_with('.') || name.ends_with('.') {
        return Err(WireError::Invalid(format!(
            "{what} {name:?} begins or ends with a dot"
        )));
    }
    Ok(())
}

/// What follows `NAME.NAMESPACE` in the long form of a service's name.
pub const LONG_FORM_END: &str = ".svc.cluster.local";

/// `NAME.NAMESPACE` of a service's name in its long form, with [`LONG_FORM_END`] or `.svc` behind; `None` for
/// another text.
#[must_use]
pub fn short_form(name: &str) -> Option<&str> {
    let ends = [LONG_FORM_END, ".svc"];
    let rest = ends.iter().find_map(|end| name.strip_suffix(end))?;
    // `ratings.svc` is ratings of a namespace called svc.
    let whole = rest.contains('.') && rest.split('.').all(|part| !part.is_empty());
    whole.then_some(rest)
}

/// Bytes of a DNS label (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Checks the name or the namespace of a service that a sidecar stands beside: a label as RFC 1123
/// section 2.1 and Kubernetes have it, in small letters, and `_` too. Hosts are compared in small letters, and a
/// dot ends the name in rules, so that others would be served and never found.
///
/// # Errors
/// [`WireError::Invalid`] or [`WireError::TooLong`] naming `what`.
pub fn check_label(what: &'static str, name: &str) -> Result<(), WireError> {
    if name.len() > LABEL_BYTES_MAX {
        return Err(WireError::TooLong {
            what,
            got: name.len(),
            max: LABEL_BYTES_MAX,
        });
    }
    let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if name.is_empty() || !name.bytes().all(fits) || name.starts_with('-') || name.ends_with('-') {
        return Err(WireError::Invalid(format!(
            "{what} {name:?} is no {LABEL_RIGHT}"
        )));
    }
    Ok(())
}

/// What [`check_label`] wants, for people.
pub const LABEL_RIGHT: &str =
    "label of 1 to 63 small letters, digits, '-' and '_', no '-' at an end";

/// A sidecar's name, unique in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub String);

impl Validate for NodeId {
    fn validate(&self) -> Result<(), WireError> {
        check_name("node", &self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service: a name inside a namespace. Shown as `name.namespace`. An external host of a
/// ServiceEntry is a service too; its name is the host, dots and all (`api.example.com.default`,
/// or `*.default` for the host that matches everything).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId {
    /// Namespace.
    pub namespace: String,
    /// Name inside it.
    pub name: String,
}

impl ServiceId {
    /// Puts a service's two names together.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl Validate for ServiceId {
    fn validate(&self) -> Result<(), WireError> {
        check_name("namespace", &self.namespace)?;
        match self.name.strip_prefix('*') {
            Some("") => Ok(()),
            Some(rest) => check_name("service", rest.trim_start_matches('.')),
            None => check_name("service", &self.name),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}
