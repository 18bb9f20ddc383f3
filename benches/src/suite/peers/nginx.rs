//! nginx: one worker, kept-alive connections to the app, no log.

use std::path::Path;

use super::{Hop, NotServing, Speech};

/// Where Debian puts the module for TCP (package libnginx-mod-stream).
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn config(hop: Hop, dir: &Path) -> Result<String, NotServing> {
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
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {dir}/{name};\n"))
        .concat();
    Ok(format!(
        "{main}http {{\n  access_log off;\n{folders}  keepalive_requests 100000000;\n  keepalive_timeout 300s;\n  \
         upstream app {{ server {to}; keepalive 512; keepalive_requests 100000000; }}\n  \
         server {{\n    listen {at};\n    location / {{\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n      proxy_pass http://app;\n    }}\n  }}\n}}\n"
    ))
}
