//! Header changes by rules, applied while a head is written.

use ringmesh_wire::snapshot::HeaderOps;

use super::fields::{Known, is_token, is_value};

/// One layer of changes: remove, then set, then add. Layers apply in order (the destination's
/// before the route's). What frames or addresses the message (Connection, lengths,
/// Host...) is not theirs to change, except that `set host` rewrites Host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// Names to remove.
    pub remove: &'a [String],
    /// Fields to put in place of all of their name.
    pub set: &'a [(String, String)],
    /// Fields to append.
    pub add: &'a [(String, String)],
}

impl<'a> Edits<'a> {
    /// The request half.
    #[must_use]
    pub fn request(ops: &'a HeaderOps) -> Self {
        Self {
            remove: &ops.request_remove,
            set: &ops.request_set,
            add: &ops.request_add,
        }
    }

    /// The response half.
    #[must_use]
    pub fn response(ops: &'a HeaderOps) -> Self {
        Self {
            remove: &ops.response_remove,
            set: &ops.response_set,
            add: &ops.response_add,
        }
    }

    /// Whether fields of this name that were there before are gone after this layer.
    fn takes_away(&self, name: &[u8]) -> bool {
        let is_it = |other: &str| other.as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(|other| is_it(other))
            || self.set.iter().any(|(other, _)| is_it(other))
    }
}

/// Whether any layer takes away what the head itself had.
pub(super) fn take_away(layers: &[Edits<'_>], name: &[u8]) -> bool {
    layers.iter().any(|layer| layer.takes_away(name))
}

/// The fields that rules put in and that survive the later layers.
pub(super) fn put_in<'a>(
    layers: &'a [Edits<'a>],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
    layers.iter().enumerate().flat_map(move |(at, layer)| {
        layer
            .set
            .iter()
            .chain(layer.add)
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .filter(move |(name, value)| {
                !take_away(&layers[at + 1..], name)
                    && !Known::of(name).is_ours()
                    && check_field(name, value)
            })
    })
}

/// The Host that rules set, last one wins.
pub(super) fn host<'a>(layers: &[Edits<'a>]) -> Option<&'a str> {
    layers
        .iter()
        .rev()
        .flat_map(|layer| layer.set.iter())
        .find(|(name, _)| name.eq_ignore_ascii_case("host") || name == ":authority")
        .map(|(_, value)| value.as_str())
}

/// Whether a rule may write this field: a token, and a value without control characters (a line
/// break would add fields or a body of its own). Whoever compiles rules refuses them by this; the
/// encoder leaves such a field out.
#[must_use]
pub fn check_field(name: &[u8], value: &[u8]) -> bool {
    is_token(name) && is_value(value)
}
