//! HAProxy: one thread, connections reused as far as it goes, no log.

use super::certs::NAME;
use super::{Hop, Side, Speech};

/// Few systems let a process have two descriptors for each of so many connections; idle ones share
/// theirs to the app, so fewer do, and strict limits would not let it start.
pub(super) fn config(hop: Hop<'_>, splice: bool) -> String {
    let mode = match hop.from.speech {
        Speech::Tcp => "tcp",
        Speech::Http1 | Speech::Http2 => "http",
    };
    let splice = if splice { "\n  option splice-auto" } else { "" };
    let reuse = match hop.from.speech {
        Speech::Tcp => "",
        Speech::Http1 | Speech::Http2 => "\n  http-reuse always",
    };
    // By default it takes P-256 alone, and others have to say hello twice.
    let curves = match hop.from.tls {
        Some(_) => " curves X25519:P-256",
        None => "",
    };
    format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 10500\ndefaults\n  mode {mode}\n  timeout connect 5s\n  \
         timeout client 300s\n  timeout server 300s{splice}{reuse}\nfrontend in\n  bind {}{}{curves}\n  \
         default_backend out\nbackend out\n  server app {}{}{}\n",
        hop.from.at,
        side(hop.from),
        hop.to.at,
        side(hop.to),
        expected(hop.to),
    )
}

/// What is spoken there.
fn side(side: Side<'_>) -> String {
    let Some(certs) = side.tls else {
        return match side.speech {
            Speech::Http2 => " proto h2".to_owned(),
            Speech::Http1 | Speech::Tcp => String::new(),
        };
    };
    let alpn = match side.speech {
        Speech::Http2 => " alpn h2",
        Speech::Http1 => " alpn http/1.1",
        Speech::Tcp => "",
    };
    format!(
        " ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3{alpn}",
        certs.both.display(),
        certs.authority.display()
    )
}

/// Who the server has to be.
fn expected(to: Side<'_>) -> String {
    match to.tls {
        Some(_) => format!(" sni str({NAME}) verifyhost {NAME}"),
        None => String::new(),
    }
}
