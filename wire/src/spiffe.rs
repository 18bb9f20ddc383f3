//! SPIFFE IDs, strictly (SPIFFE-ID standard, sections 2.1 to 2.3).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::SPIFFE_ID_BYTES_MAX;

/// A workload's identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// [`WireError::Invalid`] if a part has a character the standard forbids.
    pub fn workload(trust_domain: &str, namespace: &str, account: &str) -> Result<Self, WireError> {
        Self::parse(&format!(
            "spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
        ))
    }

    /// Reads an ID. Scheme and trust domain compare case-insensitively, so they are lowered here;
    /// the path is kept exactly.
    ///
    /// # Errors
    /// [`WireError::Invalid`] or [`WireError::TooLong`], saying which rule is broken.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let invalid = |why: &str| Err(WireError::Invalid(format!("SPIFFE ID {text:?}: {why}")));
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(WireError::TooLong {
                what: "SPIFFE ID",
                got: text.len(),
                max: SPIFFE_ID_BYTES_MAX,
            });
        }
        let rest = match text.split_at_checked(9) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("spiffe://") => rest,
            _ => return invalid("does not begin with spiffe://"),
        };
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let domain = domain.to_ascii_lowercase();
        if domain.is_empty() || domain.len() > 255 {
            return invalid("the trust domain is empty or over 255 bytes");
        }
        if !domain.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
        }) {
            return invalid("the trust domain may hold letters, digits, '.', '-' and '_' only");
        }
        if let Some(path) = path.strip_prefix('/') {
            for segment in path.split('/') {
                if segment.is_empty() || segment == "." || segment == ".." {
                    return invalid("a path segment is empty, '.' or '..'");
                }
                if !segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                {
                    return invalid("a path segment may hold letters, digits, '.', '-', '_' only");
                }
            }
        }
        Ok(Self(format!("spiffe://{domain}{path}")))
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID without `spiffe://`: a principal as AuthorizationPolicy writes it.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.0.strip_prefix("spiffe://").unwrap_or(&self.0)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.principal().split('/').next().unwrap_or("")
    }

    /// `(namespace, service account)` of an ID of the workload shape.
    #[must_use]
    pub fn workload_parts(&self) -> Option<(&str, &str)> {
        let mut parts = self.principal().split('/').skip(1);
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }
}

impl Validate for SpiffeId {
    fn validate(&self) -> Result<(), WireError> {
        match Self::parse(&self.0)? {
            parsed if parsed == *self => Ok(()),
            _ => Err(WireError::Invalid(format!(
                "SPIFFE ID {:?} is not in canonical form",
                self.0
            ))),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_has_its_parts() {
        let id = SpiffeId::workload("mesh.local", "default", "reviews").unwrap();
        assert_eq!(id.as_str(), "spiffe://mesh.local/ns/default/sa/reviews");
        assert_eq!(id.principal(), "mesh.local/ns/default/sa/reviews");
        assert_eq!(id.trust_domain(), "mesh.local");
        assert_eq!(id.workload_parts(), Some(("default", "reviews")));
    }

    #[test]
    fn scheme_and_domain_fold_case_and_the_path_does_not() {
        let id = SpiffeId::parse("SPIFFE://Mesh.Local/ns/A/sa/b").unwrap();
        assert_eq!(id.as_str(), "spiffe://mesh.local/ns/A/sa/b");
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for bad in [
            "",
            "http://mesh.local/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://mesh.local/",
            "spiffe://mesh.local//a",
            "spiffe://mesh.local/a/",
            "spiffe://mesh.local/./a",
            "spiffe://mesh.local/../a",
            "spiffe://mesh.local:80/a",
            "spiffe://user@mesh.local/a",
            "spiffe://mesh.local/a?b",
            "spiffe://mesh.local/a#b",
            "spiffe://mesh.local/%61",
            "spiffe://mésh/a",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
