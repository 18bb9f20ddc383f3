//! ServiceEntry.

use std::collections::BTreeMap;

use ringmesh_wire::limits::NAMED_ENDPOINTS_MAX;
use ringmesh_wire::v1::snapshot::{Protocol, Resolution, ServicePort};

use super::shared::{export_to, host, protocol_of_name, protocol_of_word, required_list};
use crate::rules::cursor::Cursor;
use crate::rules::scalar::check_host;
use crate::rules::service_entry::{EntryEndpoint, EntryPort, ServiceEntry, Whereabouts};

pub(super) fn service_entry(spec: &Cursor<'_>) -> Option<ServiceEntry> {
    let fields = spec.fields(
        &[
            "hosts",
            "addresses",
            "ports",
            "location",
            "resolution",
            "endpoints",
            "exportTo",
        ],
        &["workloadSelector", "subjectAltNames"],
    )?;
    export_to(&fields);
    let hosts = required_list(&fields, "hosts", "write hosts: [api.example.com]").map(|items| {
        items
            .iter()
            .filter_map(|at| host(at, true))
            .collect::<Vec<_>>()
    });
    let addresses = fields
        .list("addresses")
        .iter()
        .filter_map(|at| {
            let text = at.string()?;
            let address = text.strip_suffix("/32").unwrap_or(&text).parse();
            if address.is_err() {
                at.fail(
                    format!("{text:?} is not an IP address"),
                    "write one address; blocks are not supported yet",
                );
            }
            address.ok()
        })
        .collect();
    if let Some(at) = fields.get("location") {
        at.pick(&[("MESH_EXTERNAL", ()), ("MESH_INTERNAL", ())]);
    }
    let resolution = fields
        .require(
            "resolution",
            "write resolution: STATIC, and endpoints:, or DNS",
        )
        .and_then(|at| resolution(&at));
    let ports = ports(&fields)?;
    let resolution = resolution?;
    let items = match resolution {
        None => required_list(
            &fields,
            "endpoints",
            "write endpoints: [{address: 10.0.0.1}]",
        )?,
        Some(_) => fields.list("endpoints"),
    };
    let hosts = hosts?;
    if items.is_empty() {
        for (at, host) in fields.list("hosts").iter().zip(&hosts) {
            if host.value.contains('*') {
                at.fail(
                    format!("{:?} is no name that can be resolved", host.value),
                    "write endpoints: [{address: api.example.com}], or a host without *",
                );
            }
        }
    }
    let most = match resolution {
        Some(Resolution::One) => 1,
        Some(Resolution::Each) => NAMED_ENDPOINTS_MAX,
        None => usize::MAX,
    };
    if let Some(at) = items.get(most) {
        at.fail(
            format!("{} endpoints are too many here", items.len()),
            format!("this resolution has at most {most}"),
        );
    }
    let endpoints = items
        .iter()
        .filter_map(|at| endpoint(at, &ports, resolution))
        .collect();
    Some(ServiceEntry {
        hosts,
        addresses,
        ports,
        resolution,
        endpoints,
    })
}

/// What the addresses of names are; `Some(None)` is STATIC.
fn resolution(at: &Cursor<'_>) -> Option<Option<Resolution>> {
    let word = at.string()?;
    match word.as_str() {
        "STATIC" => Some(None),
        "DNS" => Some(Some(Resolution::Each)),
        "DNS_ROUND_ROBIN" => Some(Some(Resolution::One)),
        "NONE" | "DYNAMIC_DNS" => {
            at.fail(
                format!("resolution {word} is not supported yet"),
                "write STATIC with endpoints by address, DNS or DNS_ROUND_ROBIN",
            );
            None
        }
        _ => {
            at.fail(
                format!("{word:?} is not known here"),
                "write STATIC, DNS or DNS_ROUND_ROBIN",
            );
            None
        }
    }
}

fn ports(fields: &crate::rules::cursor::Fields<'_>) -> Option<Vec<EntryPort>> {
    let fix = "write ports: [{number: 80, name: http, protocol: HTTP}]";
    let mut found: Vec<EntryPort> = Vec::new();
    for at in required_list(fields, "ports", fix)? {
        let Some(port) = port(&at) else { continue };
        let twice = |other: &EntryPort| {
            other.port.number == port.port.number || other.port.name == port.port.name
        };
        if found.iter().any(twice) {
            at.fail(
                format!("port {} or its name is given twice", port.port.number),
                "numbers and names must differ",
            );
        }
        found.push(port);
    }
    Some(found)
}

fn port(at: &Cursor<'_>) -> Option<EntryPort> {
    let fields = at.fields(&["number", "name", "protocol", "targetPort"], &[])?;
    let number = fields
        .require("number", "write number: 80")
        .and_then(|at| at.port());
    let name = fields
        .require("name", "write name: http")
        .and_then(|at| at.string());
    let target = fields.get("targetPort").map(|at| at.port());
    let protocol = match fields.get("protocol") {
        None => Some(name.as_deref().map_or(Protocol::Auto, protocol_of_name)),
        Some(at) => at.string().and_then(|word| {
            protocol_of_word(&word)
                .map_err(|fix| at.fail(format!("{word:?} is not a protocol carried here"), fix))
                .ok()
        }),
    };
    Some(EntryPort {
        port: ServicePort {
            number: number?,
            name: name?,
            protocol: protocol?,
        },
        target: target.flatten(),
    })
}

fn endpoint(
    at: &Cursor<'_>,
    ports: &[EntryPort],
    resolution: Option<Resolution>,
) -> Option<EntryEndpoint> {
    let fields = at.fields(
        &["address", "ports", "labels", "locality", "weight"],
        &["network", "serviceAccount"],
    )?;
    let whereabouts = fields
        .require("address", "write address: 10.0.0.1")
        .and_then(|at| whereabouts(&at, resolution));
    let mut by_name = BTreeMap::new();
    for (name, at) in fields
        .get("ports")
        .map(|at| at.entries())
        .unwrap_or_default()
    {
        if !ports.iter().any(|port| port.port.name == name) {
            let names: Vec<&str> = ports.iter().map(|port| port.port.name.as_str()).collect();
            at.fail(
                format!("no port of this entry is named {name:?}"),
                format!("the names are {}", crate::rules::cursor::list_words(&names)),
            );
        }
        if let Some(port) = at.port() {
            by_name.insert(name.to_owned(), port);
        }
    }
    let locality = fields
        .get("locality")
        .and_then(|at| at.string())
        .map(|text| {
            let mut parts = text.splitn(3, '/');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            (next(), next())
        })
        .unwrap_or_default();
    Some(EntryEndpoint {
        at: whereabouts?,
        ports: by_name,
        labels: fields
            .get("labels")
            .map(|at| at.string_map())
            .unwrap_or_default(),
        locality,
        weight: fields
            .get("weight")
            .map_or(Some(1), |at| at.number_u32(1, 1_000_000))?,
    })
}

/// An address, or a name where names are resolved.
fn whereabouts(at: &Cursor<'_>, resolution: Option<Resolution>) -> Option<Whereabouts> {
    let text = at.string()?.to_ascii_lowercase();
    if let Ok(address) = text.parse() {
        return Some(Whereabouts::Address(address));
    }
    // A name ends in letters: what ends in digits was meant to be an address (RFC 3696 section 2).
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_name = check_host(&text, false).is_ok() && !last.bytes().all(|b| b.is_ascii_digit());
    let fix = match (is_name, resolution) {
        (true, Some(_)) => return Some(Whereabouts::Name(text)),
        (true, None) => "write an address, or resolution: DNS above",
        (false, None) => "write an address, e.g. 10.0.0.1",
        (false, Some(_)) => "write an address or a host name, e.g. api.example.com",
    };
    at.fail(format!("{text:?} is not an IP address"), fix);
    None
}
