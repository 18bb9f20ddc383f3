//! The part of `sidecar.yaml` a compiler needs: who the sidecar is. The sidecar itself reads and
//! checks the rest; here its other fields may stand but are not looked at.

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::Protocol;
use ringmesh_wire::{NodeId, ServiceId};

use super::DEFAULT_NAMESPACE;
use super::cursor::{Cursor, Report};
use super::error::RuleErrors;
use super::node;
use super::read::{protocol_of_name, protocol_of_word};

/// Fields of the file, as `ringmesh-proxy` reads it (docs/sidecar-yaml.md); others are mistakes.
const FIELDS: [&str; 19] = [
    "node",
    "service",
    "namespace",
    "service_account",
    "advertise",
    "locality",
    "labels",
    "ports",
    "listeners",
    "control",
    "shards",
    "state_dir",
    "dns",
    "access_log",
    "kept_memory",
    "zero_copy_min",
    "idle_timeout",
    "tcp_idle_timeout",
    "drain_timeout",
];

/// Who a sidecar is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Its name.
    pub node: NodeId,
    /// The service it stands beside.
    pub service: ServiceId,
    /// Labels of its workload.
    pub labels: BTreeMap<String, String>,
    /// Name, number and protocol of its ports.
    pub ports: Vec<(String, u16, Protocol)>,
}

/// Reads `sidecar.yaml`.
///
/// # Errors
/// Everything wrong with what is read of it.
pub fn parse_sidecar(file: &str, text: &str) -> Result<Sidecar, RuleErrors> {
    let report = Report::new(file, 1, text);
    let node = match node::read(text) {
        Ok(node) => node,
        Err(error) => {
            let place = report.place(error.spot, "");
            report.fail(
                place,
                format!("this is not YAML: {}", error.what),
                "put the text right; YAML indents with spaces",
            );
            return Err(RuleErrors(report.finish()));
        }
    };
    let found = sidecar(&Cursor::root(&node, &report));
    match found {
        Some(found) if report.is_clean() => Ok(found),
        _ => Err(RuleErrors(report.finish())),
    }
}

fn sidecar(at: &Cursor<'_>) -> Option<Sidecar> {
    let fields = at.fields(&FIELDS, &[])?;
    let name = |at: Cursor<'_>| {
        let text = at.string()?;
        if let Err(error) = ringmesh_wire::ids::check_name("name", &text) {
            at.fail(error.to_string(), "write letters, digits, '-', '_' and '.'");
            return None;
        }
        Some(text)
    };
    let label = |at: Cursor<'_>| {
        let text = at.string()?;
        if ringmesh_wire::ids::check_label("name", &text).is_err() {
            at.fail(
                format!(
                    "{text:?} cannot be the name of a service or a namespace: no rule could name it"
                ),
                format!("write a {}", ringmesh_wire::ids::LABEL_RIGHT),
            );
            return None;
        }
        Some(text)
    };
    let node = fields
        .require("node", "write a name unique in the mesh")
        .and_then(name);
    let service = fields
        .require("service", "write the service's name")
        .and_then(label);
    let namespace = match fields.get("namespace") {
        None => Some(DEFAULT_NAMESPACE.to_owned()),
        Some(at) => label(at),
    };
    let labels = fields.get("labels").map(|at| at.string_map());
    let ports = fields.list("ports").iter().filter_map(port).collect();
    Some(Sidecar {
        node: NodeId(node?),
        service: ServiceId::new(service?, namespace?),
        labels: labels.unwrap_or_default(),
        ports,
    })
}

fn port(at: &Cursor<'_>) -> Option<(String, u16, Protocol)> {
    let fields = at.fields(&["name", "port", "app", "protocol", "check"], &[])?;
    let number = fields
        .require("port", "write the service port, e.g. 9080")
        .and_then(|at| at.port());
    let name = match fields.get("name") {
        Some(at) => at.string()?,
        None => String::new(),
    };
    let protocol = match fields.get("protocol") {
        None => protocol_of_name(&name),
        Some(at) => protocol_of_word(&at.string()?)
            .map_err(|fix| at.fail("this is not a protocol carried here", fix))
            .ok()?,
    };
    Some((name, number?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page's example has every field that the sidecar takes.
    #[test]
    fn the_documented_file_is_read() {
        let page = include_str!("../../../docs/sidecar-yaml.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let sidecar = parse_sidecar("sidecar.yaml", example).unwrap();
        assert_eq!(sidecar.node.0, "reviews-v3-1");
        assert_eq!(sidecar.ports, [("http".to_owned(), 9080, Protocol::Http1)]);
    }
}
