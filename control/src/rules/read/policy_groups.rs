//! DestinationRule.

use ringmesh_wire::v1::snapshot::{Balance, Limits, Outlier, UpstreamTls};

use super::shared::{export_to, host};
use crate::rules::cursor::Cursor;
use crate::rules::traffic::{DestinationRule, PolicyGroups, Pool, SubsetRule};

pub(super) fn destination_rule(spec: &Cursor<'_>) -> Option<DestinationRule> {
    let fields = spec.fields(
        &["host", "trafficPolicy", "subsets", "exportTo"],
        &["workloadSelector"],
    )?;
    export_to(&fields);
    let host = fields
        .require("host", "name the service, e.g. host: ratings")
        .and_then(|at| host(&at, true));
    let policy = fields
        .get("trafficPolicy")
        .and_then(|at| groups(&at, true))
        .unwrap_or_default();
    let mut subsets: Vec<SubsetRule> = Vec::new();
    for at in fields.list("subsets") {
        let Some(subset) = subset(&at) else { continue };
        if subsets.iter().any(|s| s.name.value == subset.name.value) {
            at.fail(
                format!("the subset {} is defined twice", subset.name.value),
                "keep one of them",
            );
        }
        subsets.push(subset);
    }
    Some(DestinationRule {
        host: host?,
        policy,
        subsets,
    })
}

fn subset(at: &Cursor<'_>) -> Option<SubsetRule> {
    let fields = at.fields(&["name", "labels", "trafficPolicy"], &[])?;
    let labels = fields
        .get("labels")
        .map(|at| at.string_map())
        .unwrap_or_default();
    let policy = fields
        .get("trafficPolicy")
        .and_then(|at| groups(&at, true))
        .unwrap_or_default();
    Some(SubsetRule {
        name: fields
            .require("name", "routes name a subset by it")
            .and_then(|at| at.text())?,
        labels,
        policy,
    })
}

fn groups(at: &Cursor<'_>, with_ports: bool) -> Option<PolicyGroups> {
    let mut known = vec!["loadBalancer", "connectionPool", "outlierDetection", "tls"];
    known.push(if with_ports {
        "portLevelSettings"
    } else {
        "port"
    });
    let fields = at.fields(&known, &["tunnel", "proxyProtocol", "retryBudget"])?;
    let mut ports = Vec::new();
    for at in fields.list("portLevelSettings") {
        let port = at
            .fields(
                &[
                    "port",
                    "loadBalancer",
                    "connectionPool",
                    "outlierDetection",
                    "tls",
                ],
                &["tunnel", "proxyProtocol", "retryBudget"],
            )
            .and_then(|f| f.require("port", "write port: {number: 80}"))
            .and_then(|at| at.fields(&["number"], &[]))
            .and_then(|f| f.require("number", "write port: {number: 80}"))
            .and_then(|at| at.port().map(|port| at.at(port)));
        let Some((port, policy)) = port.zip(groups(&at, false)) else {
            continue;
        };
        if ports.iter().any(|(other, _)| *other == port.value) {
            at.fail(format!("port {} is given twice", port.value), "keep one");
        }
        ports.push((port.value, policy));
    }
    ports.sort_by_key(|(port, _)| *port);
    Some(PolicyGroups {
        balance: fields.get("loadBalancer").and_then(|at| balance(&at)),
        pool: fields.get("connectionPool").and_then(|at| pool(&at)),
        outlier: fields.get("outlierDetection").and_then(|at| outlier(&at)),
        tls: fields.get("tls").and_then(|at| tls(&at)),
        ports,
    })
}

fn balance(at: &Cursor<'_>) -> Option<Balance> {
    let fields = at.fields(
        &["simple"],
        &[
            "consistentHash",
            "localityLbSetting",
            "warmup",
            "warmupDurationSecs",
        ],
    )?;
    if fields.get("simple").is_none() && fields.get("consistentHash").is_some() {
        return None;
    }
    fields
        .require("simple", "write simple: LEAST_REQUEST")?
        .pick(&[
            ("LEAST_REQUEST", Balance::LeastRequest),
            ("LEAST_CONN", Balance::LeastRequest),
            ("UNSPECIFIED", Balance::LeastRequest),
            ("ROUND_ROBIN", Balance::RoundRobin),
            ("RANDOM", Balance::Random),
        ])
}

fn pool(at: &Cursor<'_>) -> Option<Pool> {
    let fields = at.fields(&["tcp", "http"], &[])?;
    let mut pool = Pool::default();
    let limit = |at: Cursor<'_>| match at.number_u32(0, i32::MAX.unsigned_abs()) {
        // Istio: 0 is "not set", and not set is no limit.
        None | Some(0) => u32::MAX,
        Some(most) => most,
    };
    if let Some(tcp) = fields.get("tcp").and_then(|at| {
        at.fields(
            &["maxConnections", "connectTimeout"],
            &["tcpKeepalive", "maxConnectionDuration", "idleTimeout"],
        )
    }) {
        if let Some(at) = tcp.get("maxConnections") {
            pool.limits.connections_max = limit(at);
        }
        if let Some(ms) = tcp
            .get("connectTimeout")
            .and_then(|at| at.duration_ms(false))
        {
            pool.connect_timeout_ms = ms;
        }
    }
    if let Some(http) = fields.get("http").and_then(|at| {
        at.fields(
            &[
                "http1MaxPendingRequests",
                "http2MaxRequests",
                "maxRequestsPerConnection",
                "maxRetries",
                "idleTimeout",
            ],
            &[
                "h2UpgradePolicy",
                "useClientProtocol",
                "maxConcurrentStreams",
            ],
        )
    }) {
        let limits = &mut pool.limits;
        for (name, place) in [
            ("http1MaxPendingRequests", &mut limits.pending_max),
            ("http2MaxRequests", &mut limits.requests_max),
            (
                "maxRequestsPerConnection",
                &mut limits.requests_per_connection_max,
            ),
            ("maxRetries", &mut limits.retries_max),
        ] {
            if let Some(at) = http.get(name) {
                *place = limit(at);
            }
        }
        if let Some(ms) = http.get("idleTimeout").and_then(|at| at.duration_ms(false)) {
            pool.idle_timeout_ms = ms;
        }
    }
    Some(pool)
}

impl Default for Pool {
    /// 10 s, 1 h, no limits.
    fn default() -> Self {
        Self {
            connect_timeout_ms: 10_000,
            idle_timeout_ms: 3_600_000,
            limits: Limits::default(),
        }
    }
}

fn outlier(at: &Cursor<'_>) -> Option<Outlier> {
    let fields = at.fields(
        &[
            "consecutiveErrors",
            "consecutive5xxErrors",
            "consecutiveGatewayErrors",
            "consecutiveLocalOriginFailures",
            "splitExternalLocalOriginErrors",
            "interval",
            "baseEjectionTime",
            "maxEjectionPercent",
            "minHealthPercent",
        ],
        &[],
    )?;
    let count = |name: &str, default: u32| {
        fields
            .get(name)
            .map_or(Some(default), |at| at.number_u32(0, 1_000_000))
    };
    let percent = |name: &str, default: u8| {
        fields.get(name).map_or(Some(default), |at| {
            at.number_u32(0, 100).and_then(|n| u8::try_from(n).ok())
        })
    };
    let time = |name: &str, default: u64| {
        fields
            .get(name)
            .map_or(Some(default), |at| at.duration_ms(false))
    };
    // `consecutiveErrors` is the old name: gateway errors (Istio 1.0 to 1.3).
    let old = fields
        .get("consecutiveErrors")
        .map(|at| at.number_u32(0, 1_000_000));
    let gateway = match (fields.get("consecutiveGatewayErrors"), old) {
        (None, Some(old)) => old,
        _ => count("consecutiveGatewayErrors", 0),
    };
    let five = count("consecutive5xxErrors", if old.is_some() { 0 } else { 5 });
    Some(Outlier {
        consecutive_5xx: five?,
        consecutive_gateway: gateway?,
        consecutive_local: count("consecutiveLocalOriginFailures", 5)?,
        split_local: fields
            .get("splitExternalLocalOriginErrors")
            .map_or(Some(false), |at| at.boolean())?,
        interval_ms: time("interval", 10_000)?,
        base_ejection_ms: time("baseEjectionTime", 30_000)?,
        ejection_percent_max: percent("maxEjectionPercent", 10)?,
        min_health_percent: percent("minHealthPercent", 0)?,
    })
}

fn tls(at: &Cursor<'_>) -> Option<UpstreamTls> {
    let fields = at.fields(
        &["mode"],
        &[
            "clientCertificate",
            "privateKey",
            "caCertificates",
            "credentialName",
            "subjectAltNames",
            "sni",
            "insecureSkipVerify",
            "caCrl",
        ],
    )?;
    let mode = fields.require("mode", "write mode: ISTIO_MUTUAL or DISABLE")?;
    let word = mode.string()?;
    if matches!(word.as_str(), "SIMPLE" | "MUTUAL") {
        mode.fail(
            format!("TLS mode {word} is not supported yet"),
            "write ISTIO_MUTUAL or DISABLE",
        );
        return None;
    }
    mode.pick(&[
        ("ISTIO_MUTUAL", UpstreamTls::Mesh),
        ("DISABLE", UpstreamTls::Disable),
    ])
}
