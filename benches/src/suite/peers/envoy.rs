//! Envoy: one worker; bare, or with what a mesh asks of it.

use std::path::Path;

use super::certs::{Certs, NAME};
use super::{Hop, Side, Speech};

/// `log`: where its access log goes, if it gets the features of a mesh.
pub(super) fn config(hop: Hop<'_>, log: Option<&Path>) -> String {
    let filter = match hop.from.speech {
        Speech::Tcp => tcp(log),
        Speech::Http1 | Speech::Http2 => http(hop.from.speech, log),
    };
    let protocol = match hop.to.speech {
        Speech::Http2 => {
            "\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
             \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
             explicit_http_config: {http2_protocol_options: {}}"
        }
        Speech::Http1 | Speech::Tcp => "",
    };
    let accepts = hop.from.tls.map(|certs| {
        socket(
            "    ",
            "DownstreamTlsContext",
            "require_client_certificate: true",
            hop.from,
            certs,
        )
    });
    let connects = hop.to.tls.map(|certs| {
        socket(
            "    ",
            "UpstreamTlsContext",
            &format!("sni: {NAME}"),
            hop.to,
            certs,
        )
    });
    let (accepts, connects) = (accepts.unwrap_or_default(), connects.unwrap_or_default());
    let many = "{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}";
    format!(
        "static_resources:\n  listeners:\n  - address: {from}\n    filter_chains:\n    - filters:\n{filter}{accepts}  \
         clusters:\n  - name: app\n    type: STATIC\n    connect_timeout: 5s\n    \
         circuit_breakers: {{thresholds: [{many}]}}{protocol}\n{connects}    load_assignment:\n      cluster_name: app\n      \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {to}}}}}]}}]\n",
        from = address(hop.from),
        to = address(hop.to),
    )
}

/// TLS of a listener's chain or a cluster, `indent` deep.
fn socket(indent: &str, context: &str, own: &str, side: Side<'_>, certs: &Certs) -> String {
    let alpn = match side.speech {
        Speech::Http2 => "[h2]",
        Speech::Http1 | Speech::Tcp => "[http/1.1]",
    };
    // A listener's chain is a list item: its keys stand two deeper.
    let indent = if context.starts_with("Down") {
        format!("{indent}  ")
    } else {
        indent.to_owned()
    };
    format!(
        "{indent}transport_socket:\n{indent}  name: envoy.transport_sockets.tls\n{indent}  typed_config:\n{indent}    \
         {TYPE}.transport_sockets.tls.v3.{context}\n{indent}    {own}\n{indent}    common_tls_context:\n{indent}      \
         alpn_protocols: {alpn}\n{indent}      tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}\n{indent}      \
         tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]\n{indent}      \
         validation_context: {{trusted_ca: {{filename: {}}}}}\n",
        certs.certificate.display(),
        certs.key.display(),
        certs.authority.display(),
    )
}

fn address(side: Side<'_>) -> String {
    let (ip, port) = (side.at.ip(), side.at.port());
    format!("{{socket_address: {{address: {ip}, port_value: {port}}}}}")
}

const TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions";

fn http(speech: Speech, log: Option<&Path>) -> String {
    let codec = match speech {
        Speech::Http2 => "HTTP2",
        Speech::Http1 | Speech::Tcp => "HTTP1",
    };
    let mesh = if log.is_some() {
        format!(
            "          - name: envoy.filters.http.rbac\n            typed_config:\n              \
             {TYPE}.filters.http.rbac.v3.RBAC\n              rules:\n                action: ALLOW\n                \
             policies: {{callers: {{permissions: [{{url_path: {{path: {{prefix: \"/\"}}}}}}], principals: [{{any: true}}]}}}}\n          \
             - name: envoy.filters.http.local_ratelimit\n            typed_config:\n              \
             {TYPE}.filters.http.local_ratelimit.v3.LocalRateLimit\n              stat_prefix: quota\n              \
             token_bucket: {{max_tokens: 4000000000, tokens_per_fill: 4000000000, fill_interval: 1s}}\n              \
             filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}\n              \
             filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}\n"
        )
    } else {
        String::new()
    };
    format!(
        "      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         {TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager\n          codec_type: {codec}\n          \
         stat_prefix: in\n{}          route_config:\n            virtual_hosts:\n            - name: all\n              \
         domains: [\"*\"]\n              routes: [{{match: {{prefix: \"/\"}}, route: {{cluster: app}}}}]\n          \
         http_filters:\n{mesh}          - name: envoy.filters.http.router\n            typed_config:\n              \
         {TYPE}.filters.http.router.v3.Router\n",
        access_log(log),
    )
}

fn tcp(log: Option<&Path>) -> String {
    format!(
        "      - name: envoy.filters.network.tcp_proxy\n        typed_config:\n          \
         {TYPE}.filters.network.tcp_proxy.v3.TcpProxy\n          stat_prefix: in\n          cluster: app\n{}",
        access_log(log)
    )
}

/// The fields a mesh logs.
fn access_log(log: Option<&Path>) -> String {
    let Some(log) = log else { return String::new() };
    let fields = [
        ("ts", "START_TIME"),
        ("method", "REQ(:METHOD)"),
        ("authority", "REQ(:AUTHORITY)"),
        ("path", "REQ(:PATH)"),
        ("status", "RESPONSE_CODE"),
        ("flags", "RESPONSE_FLAGS"),
        ("route", "ROUTE_NAME"),
        ("cluster", "UPSTREAM_CLUSTER"),
        ("endpoint", "UPSTREAM_HOST"),
        ("peer", "DOWNSTREAM_REMOTE_ADDRESS"),
        ("bytes_in", "BYTES_RECEIVED"),
        ("bytes_out", "BYTES_SENT"),
        ("duration_ms", "DURATION"),
        ("request_id", "REQ(X-REQUEST-ID)"),
    ]
    .map(|(name, what)| format!("{name}: \"%{what}%\""))
    .join(", ");
    format!(
        "          access_log:\n          - name: envoy.access_loggers.file\n            typed_config:\n              \
         {TYPE}.access_loggers.file.v3.FileAccessLog\n              path: {}\n              \
         log_format: {{json_format: {{{fields}}}}}\n",
        log.display()
    )
}
