//! Match lists: blocks are OR, conditions inside a block AND.

use crate::tables::{MatchRow, Text};
use crate::view::RequestView;

/// What a match leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matched {
    /// Length of the matched `uri.prefix`; 1 (the `/`) where nothing was asked of the path, as
    /// Istio builds a catch-all from the prefix `/`.
    pub(super) prefix_bytes: Option<usize>,
}

/// The first block that holds; an empty list holds for everything.
pub(super) fn first_match(blocks: &[MatchRow], request: &RequestView<'_>) -> Option<Matched> {
    if blocks.is_empty() {
        return Some(Matched {
            prefix_bytes: Some(1),
        });
    }
    let block = blocks.iter().find(|block| holds(block, request))?;
    Some(Matched {
        prefix_bytes: match &block.uri {
            None | Some(Text::Present) => Some(1),
            Some(Text::Prefix(prefix)) => Some(prefix.len()),
            Some(Text::Exact(_) | Text::Regex(_)) => None,
        },
    })
}

fn holds(block: &MatchRow, request: &RequestView<'_>) -> bool {
    if block.port.is_some_and(|port| port != request.port) {
        return false;
    }
    let path = request.path.as_bytes();
    let uri = block.uri.as_ref().is_none_or(|uri| {
        if block.fold_uri_case {
            uri.is_match_folded(path)
        } else {
            uri.is_match(path)
        }
    });
    uri && met(block.method.as_ref(), request.method)
        // Requests reach the sidecar in clear text; TLS of the app's own is never looked into.
        && met(block.scheme.as_ref(), "http")
        && met(block.authority.as_ref(), request.authority)
        && block.headers.iter().all(|(name, wanted)| {
            let value = request.headers.first(name);
            value.is_some_and(|value| wanted.is_match(value))
        })
        && !block.without_headers.iter().any(|(name, unwanted)| {
            let value = request.headers.first(name);
            value.is_some_and(|value| unwanted.is_match(value))
        })
        && block
            .query
            .iter()
            .all(|(name, wanted)| query_holds(request.query.unwrap_or(""), name, wanted))
}

fn met(wanted: Option<&Text>, value: &str) -> bool {
    wanted.is_none_or(|wanted| wanted.is_match(value.as_bytes()))
}

/// Whether the first parameter called `name` meets the condition. Exact and prefix compare the
/// percent-decoded value; a regex sees it as sent, since decoding would need a buffer.
fn query_holds(query: &str, name: &str, wanted: &Text) -> bool {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(key).eq(name.bytes()).then_some(value)
    });
    let Some(value) = value.filter(|_| !query.is_empty()) else {
        return false;
    };
    match wanted {
        Text::Exact(text) => decoded(value).eq(text.bytes()),
        Text::Prefix(text) => {
            let mut bytes = decoded(value);
            text.bytes().all(|wanted| bytes.next() == Some(wanted))
        }
        Text::Regex(_) | Text::Present => wanted.is_match(value.as_bytes()),
    }
}

/// The bytes of `text`, percent-decoded; a `%` that starts no escape stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte != b'%' {
            return Some(byte);
        }
        let digit = |at: usize| {
            bytes
                .get(at)
                .and_then(|b| char::from(*b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (digit(at), digit(at + 1)) {
            (Some(high), Some(low)) => {
                at += 2;
                Some(high << 4 | low)
            }
            _ => Some(byte),
        }
    })
}
