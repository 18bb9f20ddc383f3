//! From the tree to [`Settings`]: every field, its default, and what it may hold.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ringmesh_wire::limits::REGISTERED_PORTS_MAX;
use ringmesh_wire::snapshot::Protocol;
use ringmesh_wire::{NodeId, ServiceId, ids};

use super::tree::{self, Field, Record};
use super::{
    AccessLog, AppCheck, AppPort, Control, Dns, InboundMode, Listeners, Locality, Mistake,
    NAME_SERVERS_MAX, Settings, Shards, ZERO_COPY_MIN_BYTES_MAX,
};

const SHARDS_MAX: i128 = ringmesh_tuning::placement::SHARDS_MAX as i128;

const TOP: &[&str] = &[
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

pub(super) fn settings(text: &str) -> Result<Settings, Mistake> {
    let node = tree::parse(text)?;
    let top = Field {
        path: String::new(),
        node: &node,
    };
    let top = top.record(TOP, "a mapping as in docs/sidecar-yaml.md")?;
    let node = name(top.need("node", "a name unique in the mesh, e.g. reviews-v3-1")?)?;
    let service = label(top.need("service", "the service's name, e.g. reviews")?)?;
    let namespace = match top.get("namespace") {
        Some(field) => label(field)?,
        None => "default".to_owned(),
    };
    let service_account = match top.get("service_account") {
        Some(field) => name(field)?,
        None => service.clone(),
    };
    let ports = ports(&top)?;
    let control = top.get("control").map(control).transpose()?;
    let state_dir = top.need(
        "state_dir",
        "a directory, e.g. /var/lib/ringmesh/reviews-v3-1",
    )?;
    let listeners = listeners(&top)?;
    let told = top.get("advertise");
    let advertise = told
        .map(|field| advertise(field, listeners.mesh.filter(|_| !ports.is_empty())))
        .transpose()?;
    Ok(Settings {
        node: NodeId(node),
        service: ServiceId::new(service, namespace),
        service_account,
        advertise,
        locality: locality(&top)?,
        labels: labels(&top)?,
        ports,
        listeners,
        dns: top.get("dns").map_or(Ok(Dns::default()), dns)?,
        access_log: top.get("access_log").map(access_log).transpose()?.flatten(),
        control,
        shards: top.get("shards").map_or(Ok(Shards::Auto), shards)?,
        state_dir: path(state_dir)?,
        kept_memory: top.get("kept_memory").map_or(Ok(64 << 20), memory)?,
        zero_copy_min_bytes: top
            .get("zero_copy_min")
            .map(zero_copy_min)
            .transpose()?
            .flatten(),
        idle_timeout: top
            .get("idle_timeout")
            .map_or(Ok(Duration::from_secs(300)), idle_timeout)?,
        tcp_idle_timeout: top
            .get("tcp_idle_timeout")
            .map_or(Ok(Duration::from_secs(3_600)), idle_timeout)?,
        drain_timeout: top
            .get("drain_timeout")
            .map_or(Ok(Duration::from_secs(10)), duration)?,
    })
}

fn name(field: &Field<'_>) -> Result<String, Mistake> {
    let text = field.text("a name")?;
    ids::check_name("name", text)
        .map(|()| text.to_owned())
        .map_err(|error| {
            field.mistake(
                error.to_string(),
                "1 to 253 letters, digits, '-', '_' and '.', no dot at an end",
            )
        })
}

/// The name or the namespace of a service.
fn label(field: &Field<'_>) -> Result<String, Mistake> {
    let text = field.text("a name")?;
    ids::check_label("name", text)
        .map(|()| text.to_owned())
        .map_err(|_| {
            field.mistake(
                format!(
                    "{text:?} cannot be the name of a service or a namespace: no rule could name it"
                ),
                format!("a {}", ids::LABEL_RIGHT),
            )
        })
}

fn path(field: &Field<'_>) -> Result<PathBuf, Mistake> {
    match field.text("a path")? {
        "" => Err(field.mistake("empty", "a path")),
        text => Ok(PathBuf::from(text)),
    }
}

/// `mesh`: where other sidecars reach the app, if they do.
fn advertise(field: &Field<'_>, mesh: Option<SocketAddr>) -> Result<IpAddr, Mistake> {
    const RIGHT: &str = "an IP address without port, e.g. 10.0.0.5";
    let text = field.text(RIGHT)?;
    let address: IpAddr = text
        .parse()
        .map_err(|_| field.mistake(format!("{text:?} is not an IP address"), RIGHT))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(field.mistake(format!("nobody can be reached at {address}"), RIGHT));
    }
    match mesh {
        Some(mesh) if mesh.ip().to_canonical().is_ipv6() != address.to_canonical().is_ipv6() => {
            Err(field.mistake(
                format!("nothing for {address} comes to listeners.mesh ({mesh}), of the other family"),
                r#"both of one family, e.g. 10.0.0.5 and "0.0.0.0:15008", or fd00::5 and "[::]:15008""#,
            ))
        }
        _ => Ok(address),
    }
}

fn locality(top: &Record<'_>) -> Result<Locality, Mistake> {
    let Some(field) = top.get("locality") else {
        return Ok(Locality::default());
    };
    let record = field.record(&["region", "zone"], "a mapping with region and zone")?;
    let part = |key| record.get(key).map_or(Ok(String::new()), name);
    Ok(Locality {
        region: part("region")?,
        zone: part("zone")?,
    })
}

fn labels(top: &Record<'_>) -> Result<BTreeMap<String, String>, Mistake> {
    let Some(field) = top.get("labels") else {
        return Ok(BTreeMap::new());
    };
    let mut labels = BTreeMap::new();
    for (key, value) in field.entries("a mapping of label names to texts")? {
        // A line break would forge a line of the certificate's label extension.
        let text = value.text("a text")?;
        let plain = |text: &str| !text.contains(|c: char| c.is_control() || c == '=');
        if key.value.is_empty() || !plain(&key.value) || text.contains(char::is_control) {
            return Err(value.mistake(
                "a label name is empty or has '=' or a control character",
                "printable text on one line",
            ));
        }
        labels.insert(key.value.clone(), text.to_owned());
    }
    Ok(labels)
}

fn ports(top: &Record<'_>) -> Result<Vec<AppPort>, Mistake> {
    let Some(field) = top.get("ports") else {
        return Ok(Vec::new());
    };
    let mut ports: Vec<AppPort> = Vec::new();
    for item in field.list("a list of ports")? {
        let port = app_port(&item)?;
        if ports.iter().any(|other| other.port == port.port) {
            return Err(item.mistake(
                format!("port {} is declared twice", port.port),
                "each service port once",
            ));
        }
        ports.push(port);
    }
    if ports.len() > REGISTERED_PORTS_MAX {
        let right = format!("at most {REGISTERED_PORTS_MAX}; beside more, another sidecar");
        return Err(field.mistake(format!("{} ports", ports.len()), right));
    }
    Ok(ports)
}

fn app_port(item: &Field<'_>) -> Result<AppPort, Mistake> {
    const RIGHT: &str = r#"e.g. {name: http, port: 9080, app: "127.0.0.1:9080"}"#;
    let record = item.record(&["name", "port", "app", "protocol", "check"], RIGHT)?;
    let port = port_number(record.need("port", "the service port, e.g. 9080")?)?;
    let port_name = match record.get("name") {
        Some(field) => name(field)?,
        None => String::new(),
    };
    let app = match record.get("app") {
        Some(field) => {
            let app = address(field)?;
            if app.port() == 0 {
                return Err(field.mistake("port 0", "the port the app listens on"));
            }
            app
        }
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    };
    let protocol = match record.get("protocol") {
        Some(field) => protocol(field)?,
        None => protocol_of_name(&port_name),
    };
    let check = record.get("check").map_or(Ok(AppCheck::Tcp), check)?;
    Ok(AppPort {
        name: port_name,
        port,
        app,
        protocol,
        check,
    })
}

fn port_number(field: &Field<'_>) -> Result<u16, Mistake> {
    const RIGHT: &str = "a port from 1 to 65535";
    let port = field.int(1..=65_535, RIGHT)?;
    u16::try_from(port).map_err(|_| field.mistake("out of range", RIGHT))
}

fn protocol(field: &Field<'_>) -> Result<Protocol, Mistake> {
    const RIGHT: &str = "one of http, http2, grpc, tcp, tls, auto";
    let text = field.text(RIGHT)?;
    Ok(match text {
        "http" | "http1" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Tcp,
        "tls" | "https" => Protocol::Tls,
        "auto" => Protocol::Auto,
        _ => return Err(field.mistake(format!("{text:?} is no protocol we know"), RIGHT)),
    })
}

/// Istio's rule: `proto` or `proto-suffix`, without case.
fn protocol_of_name(name: &str) -> Protocol {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Protocol::Http1;
    }
    match name.split('-').next().unwrap_or("") {
        "http" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => Protocol::Tcp,
        _ => Protocol::Auto,
    }
}

/// A fully qualified name is far shorter.
const GRPC_SERVICE_BYTES_MAX: usize = 200;

fn check(field: &Field<'_>) -> Result<AppCheck, Mistake> {
    const RIGHT: &str = r#"tcp, none, "http /path", grpc, or "grpc package.Service""#;
    let text = field.text(RIGHT)?;
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("tcp"), None, None) => Ok(AppCheck::Tcp),
        (Some("none"), None, None) => Ok(AppCheck::None),
        (Some("http"), path, None) => {
            let path = path.unwrap_or("/");
            if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(field.mistake(format!("{path:?} is no path"), RIGHT));
            }
            Ok(AppCheck::Http {
                path: path.to_owned(),
            })
        }
        (Some("grpc"), service, None) => {
            let service = service.unwrap_or_default();
            let names = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
            if service.len() > GRPC_SERVICE_BYTES_MAX || !service.bytes().all(names) {
                return Err(field.mistake(format!("{service:?} is no gRPC service"), RIGHT));
            }
            Ok(AppCheck::Grpc {
                service: service.to_owned(),
            })
        }
        _ => Err(field.mistake(format!("{text:?} is no check"), RIGHT)),
    }
}

fn address(field: &Field<'_>) -> Result<SocketAddr, Mistake> {
    const RIGHT: &str = r#"an IP address and a port in quotes, e.g. "127.0.0.1:15001""#;
    let text = field.text(RIGHT)?;
    text.parse()
        .map_err(|_| field.mistake(format!("{text:?} is not an address and port"), RIGHT))
}

fn listeners(top: &Record<'_>) -> Result<Listeners, Mistake> {
    let default = |ip: [u8; 4], port| Some(SocketAddr::from((ip, port)));
    let mut listeners = Listeners {
        outbound: default([127, 0, 0, 1], 15_001),
        inbound: default([0, 0, 0, 0], 15_006),
        inbound_mode: InboundMode::default(),
        mesh: default([0, 0, 0, 0], 15_008),
        admin: default([127, 0, 0, 1], 15_000),
    };
    let Some(field) = top.get("listeners") else {
        return Ok(listeners);
    };
    let keys = ["outbound", "inbound", "mesh", "admin"];
    let record = field.record(
        &["outbound", "inbound", "mesh", "admin", "inbound_mode"],
        "a mapping of outbound, inbound, mesh, admin and inbound_mode",
    )?;
    let slots = [
        &mut listeners.outbound,
        &mut listeners.inbound,
        &mut listeners.mesh,
        &mut listeners.admin,
    ];
    for (key, slot) in keys.into_iter().zip(slots) {
        if let Some(field) = record.get(key) {
            *slot = match field.text("an address and port in quotes, or none")? {
                "none" => None,
                _ => Some(address(field)?),
            };
            if key == "admin" && slot.is_some_and(|admin| !admin.ip().is_loopback()) {
                return Err(field.mistake(
                    "the admin listener has no access control and may stand on loopback only",
                    r#""127.0.0.1:15000""#,
                ));
            }
        }
    }
    apart(&record, &listeners)?;
    if let Some(field) = record.get("inbound_mode") {
        listeners.inbound_mode = inbound_mode(field, listeners.inbound)?;
    }
    Ok(listeners)
}

/// Each listener has an address of its own: the system would deal connections out among those that share
/// one. `outbound` and `inbound` tell whose a call is by where it was captured, and may share.
fn apart(record: &Record<'_>, listeners: &Listeners) -> Result<(), Mistake> {
    let Listeners {
        outbound,
        inbound,
        mesh,
        admin,
        ..
    } = *listeners;
    for (one, at, other, other_at) in [
        ("mesh", mesh, "outbound", outbound),
        ("mesh", mesh, "inbound", inbound),
        ("admin", admin, "outbound", outbound),
        ("admin", admin, "inbound", inbound),
        ("admin", admin, "mesh", mesh),
    ] {
        let (Some(at), Some(other_at)) = (at, other_at) else {
            continue;
        };
        // Two defaults never meet.
        let Some(field) = record.get(one).or_else(|| record.get(other)) else {
            continue;
        };
        if at.port() != 0 && at.port() == other_at.port() && overlap(at.ip(), other_at.ip()) {
            return Err(field.mistake(
                format!(
                    "listeners.{one} ({at}) and listeners.{other} ({other_at}) stand on one address"
                ),
                "a port of its own for each; only outbound and inbound may share one",
            ));
        }
    }
    Ok(())
}

/// Whether a connection to one address may come to a listener on the other.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let covers = |whole: IpAddr, part: IpAddr| {
        // A listener takes its own family only.
        whole.is_unspecified() && whole.is_ipv6() == part.is_ipv6()
    };
    one == other || covers(one, other) || covers(other, one)
}

fn inbound_mode(field: &Field<'_>, at: Option<SocketAddr>) -> Result<InboundMode, Mistake> {
    const RIGHT: &str = "redirect (the default) or tproxy";
    let mode = match field.text(RIGHT)? {
        "redirect" => InboundMode::Redirect,
        "tproxy" => InboundMode::Tproxy,
        other => return Err(field.mistake(format!("{other:?} is no way to capture"), RIGHT)),
    };
    let reached = at.is_some_and(|at| !at.ip().is_loopback());
    if mode == InboundMode::Tproxy && !reached {
        return Err(field.mistake(
            "what TPROXY captures does not come to a loopback address, nor to no listener",
            r#"listeners.inbound "0.0.0.0:15006" or "[::]:15006""#,
        ));
    }
    Ok(mode)
}

fn control(field: &Field<'_>) -> Result<Control, Mistake> {
    const RIGHT: &str = r#"host and port in quotes, e.g. "10.0.0.1:15012""#;
    let record = field.record(
        &["address", "token_file"],
        "a mapping with address and token_file",
    )?;
    let address = record.need("address", RIGHT)?;
    let text = address.text(RIGHT)?;
    let bad = || address.mistake(format!("{text:?} is not a host and port"), RIGHT);
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_good = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => ids::check_name("host", host).is_ok(),
    };
    if port == 0 || !host_is_good {
        return Err(bad());
    }
    let token_at = record.get("token_file").map_or(field.at(), Field::at);
    Ok(Control {
        token_place: (token_at.line(), token_at.column()),
        host: bare.unwrap_or(host).to_owned(),
        port,
        token_file: record.get("token_file").map(path).transpose()?,
    })
}

fn shards(field: &Field<'_>) -> Result<Shards, Mistake> {
    const RIGHT: &str = "auto, all, or a number from 1 to 256";
    if let Ok(count) = field.int(1..=SHARDS_MAX, RIGHT) {
        return u16::try_from(count)
            .map(Shards::Count)
            .map_err(|_| field.mistake("out of range", RIGHT));
    }
    match field.node.value {
        tree::Shape::Text(ref text) if text == "auto" => Ok(Shards::Auto),
        tree::Shape::Text(ref text) if text == "all" => Ok(Shards::All),
        tree::Shape::Text(ref text) => {
            Err(field.mistake(format!("{text:?} is no number of shards"), RIGHT))
        }
        _ => Err(field.mistake("not a number of shards", RIGHT)),
    }
}

fn access_log(field: &Field<'_>) -> Result<Option<AccessLog>, Mistake> {
    const RIGHT: &str = "none, or {path: FILE, forward: true|false}";
    if let tree::Shape::Text(text) = &field.node.value {
        return match text.as_str() {
            "none" => Ok(None),
            _ => Err(field.mistake(format!("{text:?} stands here"), RIGHT)),
        };
    }
    let record = field.record(&["path", "forward"], RIGHT)?;
    let log = AccessLog {
        path: record.get("path").map(path).transpose()?,
        forward: record
            .get("forward")
            .map_or(Ok(false), |field| field.bool("true or false"))?,
    };
    if log.path.is_none() && !log.forward {
        return Err(field.mistake("neither path nor forward is set", RIGHT));
    }
    Ok(Some(log))
}

fn dns(field: &Field<'_>) -> Result<Dns, Mistake> {
    const RIGHT: &str = "a mapping of servers, refresh_min and refresh_max";
    let record = field.record(&["servers", "refresh_min", "refresh_max"], RIGHT)?;
    let mut dns = Dns::default();
    if let Some(field) = record.get("servers") {
        let servers = field.list("a list of name servers")?;
        if servers.is_empty() || servers.len() > NAME_SERVERS_MAX {
            let right =
                format!("1 to {NAME_SERVERS_MAX} of them, or no servers: for /etc/resolv.conf");
            return Err(field.mistake(format!("{} servers", servers.len()), right));
        }
        dns.servers = servers.iter().map(server).collect::<Result<_, _>>()?;
    }
    for (key, slot) in [
        ("refresh_min", &mut dns.refresh_min),
        ("refresh_max", &mut dns.refresh_max),
    ] {
        if let Some(field) = record.get(key) {
            *slot = duration(field)?;
            if slot.is_zero() {
                return Err(field.mistake("names cannot be asked for all the time", "e.g. 5s"));
            }
        }
    }
    if dns.refresh_min > dns.refresh_max {
        return Err(field.mistake(
            "refresh_min is longer than refresh_max",
            "the shorter one as refresh_min; they are 5s and 5m where not given",
        ));
    }
    Ok(dns)
}

/// An address; the port is 53 where none is given.
fn server(field: &Field<'_>) -> Result<SocketAddr, Mistake> {
    const RIGHT: &str = r#"an IP address in quotes, with or without a port, e.g. "10.0.0.2""#;
    let text = field.text(RIGHT)?;
    let bare = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
    bare.or_else(|_| text.parse())
        .map_err(|_| field.mistake(format!("{text:?} is not an IP address"), RIGHT))
}

/// `64MiB`, `512KiB`, `1GiB`.
fn memory(field: &Field<'_>) -> Result<usize, Mistake> {
    const RIGHT: &str = "a whole number and a unit, e.g. 64MiB or 1GiB, from 1MiB to 64GiB";
    let bytes = bytes(field, 1 << 20..=64 << 30, RIGHT)?;
    usize::try_from(bytes).map_err(|_| field.mistake("more than this machine can address", RIGHT))
}

/// `off`, or from how many bytes on.
fn zero_copy_min(field: &Field<'_>) -> Result<Option<u32>, Mistake> {
    const RIGHT: &str = "off, or a whole number and a unit from 4KiB to 512KiB, e.g. 32KiB";
    if field.text(RIGHT)? == "off" {
        return Ok(None);
    }
    let bytes = bytes(field, 4 << 10..=ZERO_COPY_MIN_BYTES_MAX.into(), RIGHT)?;
    Ok(u32::try_from(bytes).ok())
}

/// `64MiB`.
fn bytes(
    field: &Field<'_>,
    allowed: RangeInclusive<u64>,
    right: &'static str,
) -> Result<u64, Mistake> {
    let text = field.text(right)?;
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => 64,
    };
    let count = count.parse::<u64>().ok().filter(|_| shift < 64);
    let bytes = count.and_then(|count| count.checked_mul(1 << shift.min(63)));
    bytes
        .filter(|bytes| allowed.contains(bytes))
        .ok_or_else(|| field.mistake(format!("{text:?} is no amount of memory"), right))
}

/// `10s`, `500ms`, `2m`.
fn duration(field: &Field<'_>) -> Result<Duration, Mistake> {
    const RIGHT: &str = "a whole number and a unit, e.g. 500ms, 10s or 2m, up to 1h";
    duration_in(field, 0..=3_600_000, RIGHT)
}

/// `5m`, `24h`.
fn idle_timeout(field: &Field<'_>) -> Result<Duration, Mistake> {
    const RIGHT: &str = "a whole number and a unit, e.g. 90s, 5m or 24h, from 1s to 168h";
    duration_in(field, 1_000..=604_800_000, RIGHT)
}

fn duration_in(
    field: &Field<'_>,
    allowed_ms: RangeInclusive<u64>,
    right: &'static str,
) -> Result<Duration, Mistake> {
    let text = field.text(right)?;
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let ms = count
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit_ms));
    match ms {
        Some(ms) if unit_ms > 0 && allowed_ms.contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(field.mistake(format!("{text:?} is no duration for this"), right)),
    }
}
