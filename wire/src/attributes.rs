//! What the certificate says of a workload beyond its identity: service and labels.
//!
//! They travel in a non-critical extension of the workload certificate, as UTF-8 lines:
//! `service=NAME.NAMESPACE`, then `label.KEY=VALUE` sorted by key, each line ended by `\n`.
//! Source attributes of a request come from here alone, never from a header.

use std::collections::BTreeMap;

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::{ServiceId, check_name};

/// Object identifier of the extension.
pub const ATTRIBUTES_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 58888, 1, 1];
/// Bytes of the whole extension value.
pub const ATTRIBUTES_BYTES_MAX: usize = 8 * 1024;

/// Service and labels of a workload, as signed into its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The service it belongs to.
    pub service: ServiceId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Attributes {
    /// The extension's value.
    ///
    /// # Errors
    /// As [`Validate::validate`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        self.validate()?;
        let mut out = format!("service={}\n", self.service);
        for (key, value) in &self.labels {
            out.push_str(&format!("label.{key}={value}\n"));
        }
        if out.len() > ATTRIBUTES_BYTES_MAX {
            return Err(too_long(out.len()));
        }
        Ok(out.into_bytes())
    }

    /// Reads an extension's value. Strict: what [`Self::to_bytes`] would not write is refused.
    ///
    /// # Errors
    /// [`WireError::Invalid`] or [`WireError::TooLong`], naming the line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let invalid = |why: &str| WireError::Invalid(format!("certificate attributes: {why}"));
        if bytes.len() > ATTRIBUTES_BYTES_MAX {
            return Err(too_long(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("not UTF-8"))?;
        let text = text
            .strip_suffix('\n')
            .ok_or_else(|| invalid("the last line is not ended"))?;
        let mut lines = text.split('\n');
        let service = lines
            .next()
            .and_then(|line| line.strip_prefix("service="))
            .and_then(|name| name.rsplit_once('.'))
            .ok_or_else(|| invalid("the first line is not service=NAME.NAMESPACE"))?;
        let mut labels = BTreeMap::new();
        for line in lines {
            let (key, value) = line
                .strip_prefix("label.")
                .and_then(|rest| rest.split_once('='))
                .ok_or_else(|| invalid("a line is not label.KEY=VALUE"))?;
            if labels
                .last_key_value()
                .is_some_and(|(last, _): (&String, _)| **last >= *key)
            {
                return Err(invalid("labels are not sorted and unique"));
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        let attributes = Self {
            service: ServiceId::new(service.0, service.1),
            labels,
        };
        attributes.validate()?;
        Ok(attributes)
    }
}

fn too_long(got: usize) -> WireError {
    WireError::TooLong {
        what: "certificate attributes",
        got,
        max: ATTRIBUTES_BYTES_MAX,
    }
}

impl Validate for Attributes {
    fn validate(&self) -> Result<(), WireError> {
        check_name("service", &self.service.name)?;
        check_name("namespace", &self.service.namespace)?;
        if self.service.namespace.contains('.') {
            return Err(WireError::Invalid(format!(
                "namespace {:?} contains a dot",
                self.service.namespace
            )));
        }
        for (key, value) in &self.labels {
            let key_ok = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
            if !key_ok || value.chars().any(char::is_control) {
                return Err(WireError::Invalid(format!(
                    "label {key:?}={value:?}: a key is printable ASCII without '=', a value has no \
                     control characters"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> Attributes {
        Attributes {
            service: ServiceId::new("reviews", "default"),
            labels: [("app", "reviews"), ("version", "v3")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        }
    }

    #[test]
    fn they_come_back_as_they_went() {
        let bytes = reviews().to_bytes().unwrap();
        assert_eq!(
            bytes,
            b"service=reviews.default\nlabel.app=reviews\nlabel.version=v3\n"
        );
        assert_eq!(Attributes::from_bytes(&bytes).unwrap(), reviews());
    }

    #[test]
    fn a_label_cannot_smuggle_a_second_line() {
        let mut forged = reviews();
        forged
            .labels
            .insert("app".into(), "x\nlabel.version=v9".into());
        assert!(forged.to_bytes().is_err());
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            "",
            "service=reviews.default",
            "service=reviews\n",
            "label.app=x\n",
            "service=a.b\nlabel.b=1\nlabel.a=2\n",
            "service=a.b\nlabel.a=1\nlabel.a=2\n",
            "service=a.b\nnonsense\n",
            "service=a.b\nlabel.=1\n",
        ] {
            assert!(Attributes::from_bytes(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
