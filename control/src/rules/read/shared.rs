//! Readers several kinds use.

use std::collections::BTreeMap;

use regex::bytes::RegexBuilder;
use ringmesh_wire::limits::REGEX_COMPILED_BYTES_MAX;
use ringmesh_wire::v1::snapshot::{Protocol, StringMatch};

use crate::rules::cursor::{Cursor, Fields, closest};
use crate::rules::place::At;
use crate::rules::scalar::check_host;

/// A host in lower case.
pub(super) fn host(at: &Cursor<'_>, wildcard: bool) -> Option<At<String>> {
    let text = at.string()?.to_ascii_lowercase();
    if let Err(why) = check_host(&text, wildcard) {
        let forms = if wildcard {
            "ratings, *.example.com or *"
        } else {
            "ratings or ratings.default"
        };
        at.fail(
            format!("{text:?} is not a host: {why}"),
            format!("write e.g. {forms}"),
        );
        return None;
    }
    Some(at.at(text))
}

/// `exportTo`: only the default is carried out.
pub(super) fn export_to(fields: &Fields<'_>) {
    for at in fields.list("exportTo") {
        if at.string().is_some_and(|to| to != "*") {
            at.fail(
                "exportTo other than \"*\" is not supported yet",
                "remove it: every object is seen by the whole mesh",
            );
        }
    }
}

/// `selector.matchLabels`
pub(super) fn selector(fields: &Fields<'_>) -> BTreeMap<String, String> {
    fields
        .filled("selector")
        .and_then(|at| at.fields(&["matchLabels"], &[]))
        .and_then(|selector| selector.filled("matchLabels"))
        .map(|labels| labels.string_map())
        .unwrap_or_default()
}

/// Protocols by name: of a port (`http-web`), or of `protocol:`.
const PROTOCOLS: [(&str, Protocol); 16] = [
    ("grpc-web", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("https", Protocol::Tls),
    ("http", Protocol::Http1),
    ("h2c", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("tcp", Protocol::Tcp),
    ("tls", Protocol::Tls),
    ("mongo", Protocol::Tcp),
    ("mysql", Protocol::Tcp),
    ("redis", Protocol::Tcp),
    ("http1", Protocol::Http1),
    ("kubernetes.io/h2c", Protocol::Http2),
    ("kubernetes.io/ws", Protocol::Http1),
    ("auto", Protocol::Auto),
    ("unknown", Protocol::Auto),
];

/// Protocol of a port by its name: `PROTO` or `PROTO-SUFFIX`, any case.
pub(crate) fn protocol_of_name(name: &str) -> Protocol {
    let name = name.to_ascii_lowercase();
    let find = |word: &str| PROTOCOLS.iter().find(|(known, _)| *known == word);
    if name.starts_with("grpc-web") {
        return Protocol::Http1;
    }
    let word = name.split('-').next().unwrap_or_default();
    find(word).map_or(Protocol::Auto, |(_, protocol)| *protocol)
}

/// Protocol by an explicit word, any case.
pub(crate) fn protocol_of_word(word: &str) -> Result<Protocol, String> {
    let lower = word.to_ascii_lowercase();
    if lower == "udp" {
        return Err("write TCP, HTTP, HTTP2, GRPC or TLS; UDP is not carried".to_owned());
    }
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    PROTOCOLS
        .iter()
        .find(|(name, _)| *name == lower)
        .map(|(_, protocol)| *protocol)
        .ok_or_else(|| {
            closest(&lower, &names).map_or_else(
                || "write TCP, HTTP, HTTP2, GRPC or TLS".to_owned(),
                |near| format!("did you mean {}?", near.to_ascii_uppercase()),
            )
        })
}

/// A StringMatch: one of `exact`, `prefix`, `regex`; `{}` is presence where that is allowed.
pub(super) fn string_match(at: &Cursor<'_>, presence: bool) -> Option<StringMatch> {
    let fields = at.fields(&["exact", "prefix", "regex"], &[])?;
    let forms: Vec<(&str, Cursor<'_>)> = ["exact", "prefix", "regex"]
        .into_iter()
        .filter_map(|name| Some((name, fields.get(name)?)))
        .collect();
    match forms.as_slice() {
        [] if presence => Some(StringMatch::Present),
        [] => {
            at.fail("this match says nothing", "write exact:, prefix: or regex:");
            None
        }
        [(form, value)] => {
            let text = value.any_string()?;
            match *form {
                "exact" => Some(StringMatch::Exact(text)),
                "prefix" if text.is_empty() => {
                    value.fail("an empty prefix matches everything", "remove the match");
                    None
                }
                "prefix" => Some(StringMatch::Prefix(text)),
                _ => {
                    if let Err((what, fix)) = check_regex(&text) {
                        value.fail(what, fix);
                        return None;
                    }
                    Some(StringMatch::Regex(text))
                }
            }
        }
        [_, (_, second), ..] => {
            second.fail(
                "a match has one form only",
                "keep exact:, prefix: or regex:",
            );
            None
        }
    }
}

/// Whether a sidecar can compile a pattern: it does the same (`tables/build/routes.rs` there), and
/// would refuse all rules for one that it cannot. The error is what is wrong, and what is right.
fn check_regex(pattern: &str) -> Result<(), (String, &'static str)> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .map(|_| ())
    };
    let too_large = |bytes: usize| {
        (
            format!("{pattern:?} is too large: compiled it takes more than {bytes} bytes"),
            "write smaller repetitions, or [0-9] and [A-Za-z] for \\d and \\w, which take all of Unicode",
        )
    };
    match compile(pattern) {
        Err(regex::Error::CompiledTooBig(bytes)) => return Err(too_large(bytes)),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            return Err((
                format!("{pattern:?} is not a regular expression: {why}"),
                "write RE2 syntax; look-around and back-references do not exist",
            ));
        }
        Ok(()) => {}
    }
    compile(&StringMatch::whole(pattern)).map_err(|error| match error {
        regex::Error::CompiledTooBig(bytes) => too_large(bytes),
        // The one thing that reaches beyond the pattern's end.
        _ => (
            format!("{pattern:?} ends in a comment of (?x)"),
            "leave the comment out, or end its line",
        ),
    })
}

/// A list field that must have entries.
pub(super) fn required_list<'a>(
    fields: &Fields<'a>,
    name: &str,
    fix: &str,
) -> Option<Vec<Cursor<'a>>> {
    let at = fields.require(name, fix)?;
    let items = at.list();
    if items.is_empty() {
        at.fail(format!("{name} has no entries"), fix);
        return None;
    }
    Some(items)
}
