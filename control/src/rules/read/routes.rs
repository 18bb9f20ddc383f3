//! VirtualService.

use ringmesh_wire::v1::snapshot::{
    Abort, AbortWith, Delay, Fault, HeaderOps, HttpMatch, Redirect, Retry, RetryOn, Rewrite,
    StringMatch,
};

use super::shared::{export_to, host, required_list, string_match};
use crate::rules::cursor::{Cursor, Fields};
use crate::rules::traffic::{
    CallerMatch, HttpMatching, HttpRule, RouteTo, RuleAction, TcpMatching, TcpRule, VirtualService,
};

/// Largest `attempts`: more than this is a mistake, not a policy.
const ATTEMPTS_MAX: u32 = 100;

pub(super) fn virtual_service(spec: &Cursor<'_>) -> Option<VirtualService> {
    let fields = spec.fields(&["hosts", "gateways", "http", "tcp", "exportTo"], &["tls"])?;
    export_to(&fields);
    let hosts = required_list(&fields, "hosts", "write hosts: [ratings]").map(|items| {
        items
            .iter()
            .filter_map(|at| host(at, true))
            .collect::<Vec<_>>()
    });
    if fields.get("http").is_none() && fields.get("tcp").is_none() && fields.get("tls").is_none() {
        spec.fail(
            "there are no routes",
            "write http: or tcp: with at least one rule",
        );
    }
    let gateways = gateways(&fields);
    let http: Vec<HttpRule> = fields.list("http").iter().filter_map(http_rule).collect();
    let tcp: Vec<TcpRule> = fields.list("tcp").iter().filter_map(tcp_rule).collect();
    for name in ["http", "tcp"] {
        if let Some(at) = fields.get(name)
            && at.list().is_empty()
        {
            at.fail(
                format!("{name} has no rules"),
                "write one, or remove the field",
            );
        }
    }
    Some(VirtualService {
        hosts: hosts?,
        gateways,
        http,
        tcp,
    })
}

fn gateways(fields: &Fields<'_>) -> Vec<crate::rules::At<String>> {
    let found = fields
        .get("gateways")
        .map(|at| at.string_list())
        .unwrap_or_default();
    for at in fields.list("gateways") {
        if at.string().is_some_and(|name| name != "mesh") {
            at.fail(
                "gateways other than \"mesh\" are not supported yet",
                "write gateways: [mesh], or remove the field",
            );
        }
    }
    found
}

fn http_rule(at: &Cursor<'_>) -> Option<HttpRule> {
    let fields = at.fields(
        &[
            "name",
            "match",
            "route",
            "redirect",
            "directResponse",
            "rewrite",
            "timeout",
            "retries",
            "fault",
            "headers",
        ],
        &[
            "delegate",
            "mirror",
            "mirrors",
            "mirrorPercent",
            "mirror_percent",
            "mirrorPercentage",
            "corsPolicy",
            "websocketUpgrade",
            "appendHeaders",
            "removeRequestHeaders",
            "removeResponseHeaders",
            "appendRequestHeaders",
            "appendResponseHeaders",
        ],
    )?;
    let matches: Vec<HttpMatching> = fields.list("match").iter().filter_map(matching).collect();
    let action = action(at, &fields);
    let fault = fields.get("fault").and_then(|at| fault(&at));
    let timeout_ms = fields.get("timeout").and_then(|at| at.duration_ms(true));
    let retry = fields.get("retries").and_then(|at| retry(&at));
    let rewrite_at = fields.get("rewrite");
    let rewrite = rewrite_at.as_ref().and_then(rewrite);
    if let Some(at) = &rewrite_at
        && !matches!(action, Some(RuleAction::Forward(_)) | None)
    {
        at.fail("a rewrite needs a route", "remove rewrite: or write route:");
    }
    if rewrite.as_ref().is_some_and(|r| r.uri.is_some())
        && matches
            .iter()
            .any(|m| matches!(m.request.uri, Some(StringMatch::Regex(_))))
        && let Some(at) = &rewrite_at
    {
        at.fail(
            "rewrite.uri with a regex match replaces the whole path, which is hardly meant",
            "match by prefix: or exact:",
        );
    }
    let headers = fields.get("headers").map(|at| headers(&at));
    Some(HttpRule {
        place: at.place(),
        name: fields.get("name").and_then(|at| at.string()),
        matches,
        action: action?,
        fault,
        timeout_ms,
        retry,
        rewrite,
        headers: headers.unwrap_or_default(),
    })
}

fn matching(at: &Cursor<'_>) -> Option<HttpMatching> {
    if at.is_empty_mapping() {
        at.fail(
            "an empty match block matches nothing in particular",
            "give it a condition, or remove match: to match everything",
        );
        return None;
    }
    let fields = at.fields(
        &[
            "name",
            "uri",
            "ignoreUriCase",
            "method",
            "scheme",
            "authority",
            "headers",
            "withoutHeaders",
            "queryParams",
            "port",
            "sourceLabels",
            "sourceNamespace",
            "gateways",
        ],
        &["statPrefix"],
    )?;
    let one = |name: &str| fields.get(name).and_then(|at| string_match(&at, false));
    let header_map = |name: &str| -> Vec<(String, StringMatch)> {
        let entries = fields.get(name).map(|at| at.entries()).unwrap_or_default();
        entries
            .into_iter()
            .filter_map(|(key, value)| {
                let name = header_name(key, &value)?;
                Some((name, string_match(&value, true)?))
            })
            .collect()
    };
    let query = fields
        .get("queryParams")
        .map(|at| at.entries())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), string_match(&value, true)?)))
        .collect();
    let _ = fields.get("name").and_then(|at| at.string());
    Some(HttpMatching {
        request: HttpMatch {
            uri: one("uri"),
            ignore_uri_case: fields
                .get("ignoreUriCase")
                .and_then(|at| at.boolean())
                .unwrap_or(false),
            method: one("method"),
            scheme: one("scheme"),
            authority: one("authority"),
            headers: header_map("headers"),
            without_headers: header_map("withoutHeaders"),
            query,
            port: fields.get("port").and_then(|at| at.port()),
        },
        caller: caller(&fields),
    })
}

fn caller(fields: &Fields<'_>) -> CallerMatch {
    CallerMatch {
        labels: fields
            .get("sourceLabels")
            .map(|at| at.string_map())
            .unwrap_or_default(),
        namespace: fields.get("sourceNamespace").and_then(|at| at.string()),
        gateways: fields
            .get("gateways")
            .map(|at| at.string_list().into_iter().map(|at| at.value).collect())
            .unwrap_or_default(),
    }
}

/// A header's name in lower case (RFC 9110 section 5.1: names compare without case).
fn header_name(name: &str, at: &Cursor<'_>) -> Option<String> {
    const PUNCTUATION: &[u8] = b"!#$%&'*+-.^_`|~";
    let fits = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || PUNCTUATION.contains(&b));
    if !fits {
        at.fail(
            format!("{name:?} is not a header's name"),
            "use letters, digits and '-' (uri, method, scheme and authority have fields of their own)",
        );
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn action(at: &Cursor<'_>, fields: &Fields<'_>) -> Option<RuleAction> {
    let given: Vec<(&str, Cursor<'_>)> = ["route", "redirect", "directResponse"]
        .into_iter()
        .filter_map(|name| Some((name, fields.get(name)?)))
        .collect();
    match given.as_slice() {
        [] => {
            at.fail(
                "this rule does nothing with a request",
                "write route:, redirect: or directResponse:",
            );
            None
        }
        [("route", at)] => Some(RuleAction::Forward(destinations(at)?)),
        [("redirect", at)] => redirect(at).map(RuleAction::Redirect),
        [(_, at)] => direct_response(at),
        [_, (name, second), ..] => {
            second.fail(
                format!("{name} beside another action"),
                "a rule has one of route:, redirect: and directResponse:",
            );
            None
        }
    }
}

/// Destinations with their weights.
fn destinations(at: &Cursor<'_>) -> Option<Vec<RouteTo>> {
    let items = at.list();
    if items.is_empty() {
        at.fail(
            "route has no destinations",
            "write route: [{destination: {host: ratings}}]",
        );
        return None;
    }
    let mut found: Vec<RouteTo> = items.iter().filter_map(route_to).collect();
    if found.len() < items.len() {
        return None;
    }
    if let [only] = found.as_mut_slice() {
        only.weight = 1;
        return Some(found);
    }
    if found.iter().all(|to| to.weight == 0) {
        at.fail(
            "all weights are 0",
            "give at least one destination a weight, e.g. weight: 100",
        );
        return None;
    }
    Some(found)
}

fn route_to(at: &Cursor<'_>) -> Option<RouteTo> {
    let fields = at.fields(&["destination", "weight", "headers"], &[])?;
    let weight = fields
        .get("weight")
        .and_then(|at| at.number_u32(0, 1_000_000))
        .unwrap_or(0);
    let headers = fields
        .get("headers")
        .map(|at| headers(&at))
        .unwrap_or_default();
    let to = fields
        .require("destination", "write destination: {host: ratings}")?
        .fields(&["host", "subset", "port"], &[])?;
    let port = to
        .get("port")
        .and_then(|at| at.fields(&["number"], &["name"]))
        .and_then(|port| port.require("number", "write port: {number: 80}"))
        .and_then(|at| at.port().map(|port| at.at(port)));
    let subset = to.get("subset").and_then(|at| at.text());
    let host = to
        .require("host", "name the service, e.g. host: ratings")
        .and_then(|at| host(&at, true))?;
    Some(RouteTo {
        host,
        subset,
        port,
        weight,
        headers,
    })
}

fn redirect(at: &Cursor<'_>) -> Option<Redirect> {
    let fields = at.fields(
        &["uri", "authority", "scheme", "redirectCode"],
        &["port", "derivePort"],
    )?;
    let status = fields.get("redirectCode").map_or(Some(301), |at| {
        let status = at.number(301, 308)?;
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            at.fail(
                format!("{status} is not a redirect"),
                "write 301, 302, 303, 307 or 308",
            );
            return None;
        }
        u16::try_from(status).ok()
    });
    let redirect = Redirect {
        uri: fields.get("uri").and_then(|at| at.string()),
        authority: fields.get("authority").and_then(|at| at.string()),
        scheme: fields
            .get("scheme")
            .and_then(|at| at.pick(&[("http", "http"), ("https", "https")]))
            .map(str::to_owned),
        status: status?,
    };
    if redirect.uri.is_none() && redirect.authority.is_none() && redirect.scheme.is_none() {
        at.fail(
            "this redirect leads to where it came from",
            "write uri:, authority: or scheme:",
        );
        return None;
    }
    Some(redirect)
}

/// The longest `directResponse.body`: what a sidecar says with a head's buffers, in one go.
const DIRECT_RESPONSE_BYTES_MAX: usize = 64 * 1024;

fn direct_response(at: &Cursor<'_>) -> Option<RuleAction> {
    let fields = at.fields(&["status", "body"], &[])?;
    let status = fields
        .require("status", "write the HTTP status, e.g. 503")
        .and_then(|at| at.number(200, 599));
    let body = fields
        .get("body")
        .and_then(|at| at.fields(&["string"], &["bytes"]))
        .and_then(|body| body.get("string"))
        .and_then(|at| {
            let body = at.any_string()?;
            if body.len() > DIRECT_RESPONSE_BYTES_MAX {
                at.fail(
                    format!("this body is {} bytes long", body.len()),
                    format!("write at most {DIRECT_RESPONSE_BYTES_MAX} bytes, or route to a server that has it"),
                );
            }
            Some(body)
        })
        .unwrap_or_default();
    Some(RuleAction::Respond {
        status: u16::try_from(status?).ok()?,
        body,
    })
}

fn rewrite(at: &Cursor<'_>) -> Option<Rewrite> {
    let fields = at.fields(&["uri", "authority"], &["uriRegexRewrite"])?;
    let rewrite = Rewrite {
        uri: fields.get("uri").and_then(|at| at.string()),
        authority: fields.get("authority").and_then(|at| at.string()),
    };
    if rewrite.uri.is_none() && rewrite.authority.is_none() {
        at.fail("this rewrite changes nothing", "write uri: or authority:");
        return None;
    }
    Some(rewrite)
}

fn headers(at: &Cursor<'_>) -> HeaderOps {
    let mut ops = HeaderOps::default();
    let Some(fields) = at.fields(&["request", "response"], &[]) else {
        return ops;
    };
    let side = |name: &str| {
        let fields = fields
            .get(name)
            .and_then(|at| at.fields(&["set", "add", "remove"], &[]));
        let pairs = |name: &str| -> Vec<(String, String)> {
            let entries = fields
                .as_ref()
                .and_then(|f| f.get(name))
                .map(|at| at.entries());
            entries
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(key, value)| {
                    let name = header_name(key, &value)?;
                    Some((name, header_value(&value)?))
                })
                .collect()
        };
        let remove = fields
            .as_ref()
            .map(|f| f.list("remove"))
            .unwrap_or_default()
            .iter()
            .filter_map(|at| header_name(&at.string()?, at))
            .collect();
        (remove, pairs("set"), pairs("add"))
    };
    (ops.request_remove, ops.request_set, ops.request_add) = side("request");
    (ops.response_remove, ops.response_set, ops.response_add) = side("response");
    ops
}

/// A header's value: no control characters (RFC 9110 section 5.5). Envoy's `%VARIABLES%` come later.
fn header_value(at: &Cursor<'_>) -> Option<String> {
    let value = at.any_string()?;
    if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
        at.fail("a header's value has no control characters", "remove them");
        return None;
    }
    if value.matches('%').count() >= 2 {
        at.fail(
            "%VARIABLES% in header values are not supported yet",
            "write a fixed text",
        );
        return None;
    }
    Some(value)
}

fn fault(at: &Cursor<'_>) -> Option<Fault> {
    let fields = at.fields(&["delay", "abort"], &[])?;
    let delay_at = fields.get("delay");
    let abort_at = fields.get("abort");
    if delay_at.is_none() && abort_at.is_none() {
        at.fail("this fault does nothing", "write delay: or abort:");
        return None;
    }
    Some(Fault {
        delay: delay_at.and_then(|at| delay(&at)),
        abort: abort_at.and_then(|at| abort(&at)),
    })
}

/// `percent` (whole) or `percentage.value`; the latter wins.
fn share_per_million(at: &Cursor<'_>, fields: &Fields<'_>) -> Option<u32> {
    let whole = fields.get("percent").map(|at| at.number_u32(0, 100));
    let exact = fields.get("percentage").map(|at| {
        let value = at
            .fields(&["value"], &[])?
            .require("value", "write percentage: {value: 0.1}")?;
        let percent = value.fraction()?;
        if !(0.0..=100.0).contains(&percent) {
            value.fail(
                format!("{percent} is not a percentage"),
                "write a number from 0 to 100",
            );
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1,000,000, checked above"
        )]
        Some((percent * 10_000.0).round() as u32)
    });
    match (exact, whole) {
        (Some(exact), _) => exact,
        (None, Some(whole)) => whole.map(|percent| percent * 10_000),
        (None, None) => {
            at.fail(
                "without a percentage this fault hits nobody",
                "write percentage: {value: 10} or percent: 10",
            );
            None
        }
    }
}

fn delay(at: &Cursor<'_>) -> Option<Delay> {
    let fields = at.fields(
        &["percent", "percentage", "fixedDelay"],
        &["exponentialDelay"],
    )?;
    let share = share_per_million(at, &fields);
    let delay = fields
        .require("fixedDelay", "write fixedDelay: 5s")
        .and_then(|at| at.duration_ms(false));
    Some(Delay {
        per_million: share?,
        delay_ms: delay?,
    })
}

/// gRPC statuses by name, in numeric order from 0.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn abort(at: &Cursor<'_>) -> Option<Abort> {
    let fields = at.fields(
        &["percent", "percentage", "httpStatus", "grpcStatus"],
        &["http2Error"],
    )?;
    let share = share_per_million(at, &fields);
    let with = match (fields.get("httpStatus"), fields.get("grpcStatus")) {
        (Some(http), None) => http
            .number(200, 599)
            .and_then(|n| u16::try_from(n).ok())
            .map(AbortWith::Http),
        (None, Some(grpc)) => grpc.string().and_then(|name| {
            let code = GRPC.iter().position(|known| *known == name);
            if code.is_none() {
                grpc.fail(
                    format!("{name:?} is not a gRPC status"),
                    "write a name such as UNAVAILABLE",
                );
            }
            code.and_then(|code| u8::try_from(code).ok())
                .map(AbortWith::Grpc)
        }),
        (None, None) => {
            at.fail("the abort has no status", "write httpStatus: 400");
            None
        }
        (Some(_), Some(grpc)) => {
            grpc.fail("an abort has one status", "keep httpStatus: or grpcStatus:");
            None
        }
    };
    Some(Abort {
        per_million: share?,
        with: with?,
    })
}

fn retry(at: &Cursor<'_>) -> Option<Retry> {
    let fields = at.fields(
        &["attempts", "perTryTimeout", "retryOn"],
        &[
            "retryRemoteLocalities",
            "retryIgnorePreviousHosts",
            "backoff",
        ],
    )?;
    let attempts = fields
        .require("attempts", "write attempts: 3 (0 switches retries off)")
        .and_then(|at| at.number_u32(0, ATTEMPTS_MAX));
    let per_try = fields.get("perTryTimeout").map(|at| at.duration_ms(true));
    let per_try_timeout_ms = per_try.map_or(Some(0), |found| found);
    let on = match fields.get("retryOn") {
        Some(at) => retry_on(&at),
        None => {
            let mut on = Retry::default().on;
            // Whoever names a time per try expects a hanging try to be repeated.
            on.try_timeout = per_try_timeout_ms.is_some_and(|ms| ms > 0);
            Some(on)
        }
    };
    Some(Retry {
        attempts: attempts?,
        per_try_timeout_ms: per_try_timeout_ms?,
        on: on?,
    })
}

fn retry_on(at: &Cursor<'_>) -> Option<RetryOn> {
    let text = at.string()?;
    let mut on = RetryOn::default();
    let mut offset = 0;
    let mut sound = true;
    for piece in text.split(',') {
        let word = piece.trim();
        match word {
            "5xx" => on.server_error = true,
            "gateway-error" => on.gateway_error = true,
            "reset" | "reset-before-request" => on.reset = true,
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "retriable-4xx" => on.retriable_4xx = true,
            "retriable-status-codes" => {}
            "cancelled" => on.grpc.push(1),
            "deadline-exceeded" => on.grpc.push(4),
            "resource-exhausted" => on.grpc.push(8),
            "internal" => on.grpc.push(13),
            "unavailable" => on.grpc.push(14),
            _ => match word.parse::<u16>() {
                Ok(status @ 100..=599) => on.statuses.push(status),
                _ => {
                    sound = false;
                    at.fail_inside(
                        &text,
                        offset + (piece.len() - piece.trim_start().len()),
                        format!("{word:?} is not a retry condition"),
                        "the conditions are 5xx, gateway-error, reset, connect-failure, \
                         refused-stream, retriable-4xx, cancelled, deadline-exceeded, internal, \
                         resource-exhausted, unavailable, or a status such as 503",
                    );
                }
            },
        }
        offset += piece.len() + 1;
    }
    // 5xx and gateway-error cover a try that timed out.
    on.try_timeout = on.server_error || on.gateway_error || on.reset;
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on.grpc.sort_unstable();
    on.grpc.dedup();
    sound.then_some(on)
}

fn tcp_rule(at: &Cursor<'_>) -> Option<TcpRule> {
    let fields = at.fields(&["match", "route"], &[])?;
    let matches = fields
        .list("match")
        .iter()
        .filter_map(|at| {
            if at.is_empty_mapping() {
                at.fail(
                    "an empty match block matches nothing in particular",
                    "give it a condition, or remove match: to match everything",
                );
                return None;
            }
            let fields = at.fields(
                &["port", "sourceLabels", "sourceNamespace", "gateways"],
                &["destinationSubnets", "sourceSubnet"],
            )?;
            Some(TcpMatching {
                port: fields.get("port").and_then(|at| at.port()),
                caller: caller(&fields),
            })
        })
        .collect();
    let to = fields
        .require("route", "write route: [{destination: {host: ratings}}]")
        .and_then(|at| destinations(&at))?;
    Some(TcpRule {
        place: at.place(),
        matches,
        to,
    })
}
