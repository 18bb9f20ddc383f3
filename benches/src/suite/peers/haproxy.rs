//! HAProxy: one thread, connections reused as far as it goes, no log.

use super::{Hop, Speech};

/// Few systems let a process have two descriptors for each of so many connections; idle ones share
/// theirs to the app, so fewer do, and strict limits would not let it start.
pub(super) fn config(hop: Hop, splice: bool) -> String {
    let mode = match hop.from.speech {
        Speech::Tcp => "tcp",
        Speech::Http1 => "http",
    };
    let splice = if splice { "\n  option splice-auto" } else { "" };
    let reuse = match hop.from.speech {
        Speech::Tcp => "",
        Speech::Http1 => "\n  http-reuse always",
    };
    format!(
        "global\n  nbthread 1\n  no strict-limits\n  maxconn 10500\ndefaults\n  mode {mode}\n  timeout connect 5s\n  \
         timeout client 300s\n  timeout server 300s{splice}{reuse}\nfrontend in\n  bind {}\n  \
         default_backend out\nbackend out\n  server app {}\n",
        hop.from.at, hop.to.at,
    )
}
