//! ServiceEntry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::{Protocol, ServicePort};

use super::shared::{export_to, host, protocol_of_name, protocol_of_word, required_list};
use crate::rules::cursor::Cursor;
use crate::rules::service_entry::{EntryPort, ServiceEntry, StaticEndpoint};

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
    let resolution = fields.require("resolution", "write resolution: STATIC, and endpoints:");
    if let Some(at) = resolution
        && let Some(word) = at.string()
        && word != "STATIC"
    {
        if matches!(
            word.as_str(),
            "DNS" | "DNS_ROUND_ROBIN" | "NONE" | "DYNAMIC_DNS"
        ) {
            at.fail(
                format!("resolution {word} is not supported yet"),
                "write STATIC with endpoints by address",
            );
        } else {
            at.fail(format!("{word:?} is not known here"), "write STATIC");
        }
    }
    let ports = ports(&fields)?;
    let endpoints = required_list(
        &fields,
        "endpoints",
        "write endpoints: [{address: 10.0.0.1}]",
    )
    .map(|items| {
        items
            .iter()
            .filter_map(|at| endpoint(at, &ports))
            .collect::<Vec<_>>()
    });
    Some(ServiceEntry {
        hosts: hosts?,
        addresses,
        ports,
        endpoints: endpoints?,
    })
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

fn endpoint(at: &Cursor<'_>, ports: &[EntryPort]) -> Option<StaticEndpoint> {
    let fields = at.fields(
        &["address", "ports", "labels", "locality", "weight"],
        &["network", "serviceAccount"],
    )?;
    let address = fields
        .require("address", "write address: 10.0.0.1")
        .and_then(|at| {
            let text = at.string()?;
            let address: Option<IpAddr> = text.parse().ok();
            if address.is_none() {
                at.fail(
                    format!("{text:?} is not an IP address"),
                    "write an address; names need resolution: DNS, which is not supported yet",
                );
            }
            address
        });
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
    Some(StaticEndpoint {
        address: address?,
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
