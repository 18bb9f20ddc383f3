//! nginx: one worker, kept-alive connections to the app, no log.

use std::path::Path;

use super::certs::{Certs, NAME};
use super::{Hop, NotServing, Speech};

/// Where Debian puts the module for TCP (package libnginx-mod-stream).
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn config(hop: Hop<'_>, dir: &Path) -> Result<String, NotServing> {
    let (at, to, dir) = (hop.from.at, hop.to.at, dir.display());
    let main = format!(
        "worker_processes 1;\nworker_rlimit_nofile 32768;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 24000; }}\n"
    );
    if hop.from.speech == Speech::Tcp {
        if !Path::new(STREAM_MODULE).exists() {
            return Err(NotServing::Absent(format!("{STREAM_MODULE} is missing")));
        }
        return Ok(format!(
            "load_module {STREAM_MODULE};\n{main}stream {{ server {{ listen {at}; proxy_pass {to}; }} }}\n"
        ));
    }
    let http2 = if hop.from.speech == Speech::Http2 {
        " http2"
    } else {
        ""
    };
    let listen = match hop.from.tls {
        None => format!("listen {at}{http2};"),
        Some(certs) => format!(
            "listen {at} ssl{http2};\n    ssl_protocols TLSv1.3;\n    ssl_certificate {};\n    ssl_certificate_key {};\n    \
             ssl_client_certificate {};\n    ssl_verify_client on;",
            certs.certificate.display(),
            certs.key.display(),
            certs.authority.display()
        ),
    };
    let pass = match (hop.to.speech, hop.to.tls) {
        // The only way by which this version speaks HTTP/2 to an app.
        (Speech::Http2, None) => "grpc_pass grpc://app;".to_owned(),
        (Speech::Http2, Some(certs)) => secured("grpc", certs) + "grpc_pass grpcs://app;",
        (Speech::Http1 | Speech::Tcp, None) => "proxy_pass http://app;".to_owned(),
        (Speech::Http1 | Speech::Tcp, Some(certs)) => {
            secured("proxy", certs) + "proxy_pass https://app;"
        }
    };
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {dir}/{name};\n"))
        .concat();
    Ok(format!(
        "{main}http {{\n  access_log off;\n{folders}  keepalive_requests 100000000;\n  keepalive_timeout 300s;\n  \
         upstream app {{ server {to}; keepalive 512; keepalive_requests 100000000; }}\n  \
         server {{\n    {listen}\n    location / {{\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n      {pass}\n    }}\n  }}\n}}\n"
    ))
}

/// Mutual TLS to the other proxy, for the module whose settings begin so.
fn secured(module: &str, certs: &Certs) -> String {
    let (certificate, key) = (certs.certificate.display(), certs.key.display());
    let settings = [
        "protocols TLSv1.3".to_owned(),
        format!("certificate {certificate}"),
        format!("certificate_key {key}"),
        format!("trusted_certificate {}", certs.authority.display()),
        "verify on".to_owned(),
        format!("name {NAME}"),
        "server_name on".to_owned(),
    ];
    let line = |setting: String| format!("{module}_ssl_{setting};\n      ");
    settings.map(line).concat()
}
