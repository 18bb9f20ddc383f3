//! Whose word is taken for the server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use super::pem;
use crate::problem::Problem;

/// Whose word is taken for the server.
#[derive(Debug)]
pub(super) enum Roots {
    Anybody,
    Given(PathBuf, Arc<RootCertStore>),
    System(PathBuf, Arc<RootCertStore>),
}

/// Names the file of roots, as OpenSSL has it.
const VARIABLE: &str = "SSL_CERT_FILE";
/// Where systems have them: Debian and its kin, Fedora, SUSE, Alpine.
const PLACES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Roots {
    /// Those of `ca`, nobody's if `insecure`, the system's otherwise.
    ///
    /// # Errors
    /// There are none, or a given one is none.
    pub(super) fn choose(ca: Option<&Path>, insecure: bool) -> Result<Self, Problem> {
        if insecure {
            return Ok(Self::Anybody);
        }
        let mut store = RootCertStore::empty();
        if let Some(file) = ca {
            for (line, root) in pem::certificates(file)? {
                store.add(root).map_err(|error| {
                    pem::wrong(file, line, &format!("no root certificate: {error}"))
                })?;
            }
            return Ok(Self::Given(file.to_owned(), Arc::new(store)));
        }
        let named = std::env::var_os(VARIABLE).map(PathBuf::from);
        let mut known = PLACES.iter().map(PathBuf::from);
        let Some(file) = named.or_else(|| known.find(|file| file.exists())) else {
            return Err(Problem::Yours(format!(
                "this system has no roots at {}: name some by --ca FILE or {VARIABLE}, or check nothing by --insecure",
                PLACES.join(", ")
            )));
        };
        // An old root that we cannot read must not keep all others from being used.
        let all = pem::certificates(&file)?;
        store.add_parsable_certificates(all.into_iter().map(|(_, root)| root));
        Ok(Self::System(file, Arc::new(store)))
    }

    /// `None`: nothing is checked.
    pub(super) fn store(&self) -> Option<Arc<RootCertStore>> {
        match self {
            Self::Anybody => None,
            Self::Given(_, store) | Self::System(_, store) => Some(Arc::clone(store)),
        }
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Given(file, _) => write!(f, "--ca {}", file.display()),
            Self::System(file, _) => write!(f, "this system's roots ({})", file.display()),
        }
    }
}
