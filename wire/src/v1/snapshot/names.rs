//! Endpoints that are known by host name: each sidecar resolves them itself (schema 2).
//!
//! Names travel apart from [`super::Endpoints`], because their addresses are nobody's configuration:
//! two sidecars may rightly get different ones, and a change of them is no new revision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::service::EndpointPort;
use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::{ServiceId, check_name};
use crate::limits::NAMED_ENDPOINTS_MAX;

/// What the addresses of a name are (Istio ServiceEntry `resolution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// `DNS`: an endpoint each.
    Each,
    /// `DNS_ROUND_ROBIN`: all of them are one endpoint, and a new connection goes to the first that answers.
    One,
}

/// An endpoint by host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEndpoint {
    /// The name, absolute, lower case, without a dot at its end.
    pub name: String,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Region, may be empty.
    pub region: String,
    /// Zone, may be empty.
    pub zone: String,
    /// Relative weight of each of its endpoints, at least 1.
    pub weight: u32,
}

/// All endpoints of one service that are known by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Which service.
    pub service: ServiceId,
    /// What their addresses are.
    pub resolution: Resolution,
    /// They: at least one and at most [`NAMED_ENDPOINTS_MAX`]; exactly one under [`Resolution::One`].
    pub endpoints: Vec<NamedEndpoint>,
}

impl Validate for Names {
    fn validate(&self) -> Result<(), WireError> {
        self.service.validate()?;
        let wrong = |what: String| {
            Err(WireError::Invalid(format!(
                "names of {}: {what}",
                self.service
            )))
        };
        let most = match self.resolution {
            Resolution::Each => NAMED_ENDPOINTS_MAX,
            Resolution::One => 1,
        };
        if !(1..=most).contains(&self.endpoints.len()) {
            return wrong(format!(
                "{} of them, 1 to {most} may be",
                self.endpoints.len()
            ));
        }
        for endpoint in &self.endpoints {
            check_name("endpoint", &endpoint.name)?;
            if endpoint.weight == 0 {
                return wrong(format!("{} has weight 0", endpoint.name));
            }
        }
        Ok(())
    }
}
