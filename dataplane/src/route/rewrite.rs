//! The path of the forwarded request.
//!
//! A prefix match replaces just the prefix, anything else the whole path; the query stays. Plain
//! replacement turns `/foo` -> `/` on `/foo/bar` into `//bar`; where both sides of the seam have a
//! slash one of them goes, because after path normalisation nobody can mean two.

use super::choose::Choice;

/// A path in two pieces, to be written one after the other, before `?query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPath<'a> {
    /// First piece; begins with `/` unless the path is `*`.
    pub head: &'a str,
    /// Second piece, may be empty.
    pub tail: &'a str,
}

/// The path to forward for a request to `path` (normalised, without query).
#[must_use]
pub fn path<'a>(choice: &Choice<'a>, path: &'a str) -> NewPath<'a> {
    let kept = NewPath {
        head: path,
        tail: "",
    };
    let Some(new) = choice.route.rewrite.as_ref().and_then(|r| r.uri.as_deref()) else {
        return kept;
    };
    replaced(path, choice.prefix_bytes, new)
}

/// The Host to forward; `None` keeps what was sent.
#[must_use]
pub fn authority<'t>(choice: &Choice<'t>) -> Option<&'t str> {
    choice.route.rewrite.as_ref()?.authority.as_deref()
}

fn replaced<'a>(path: &'a str, prefix_bytes: Option<usize>, new: &'a str) -> NewPath<'a> {
    // `OPTIONS *` has no path to replace.
    if !path.starts_with('/') {
        return NewPath {
            head: path,
            tail: "",
        };
    }
    let tail = prefix_bytes.map_or("", |bytes| path.get(bytes..).unwrap_or(""));
    let (head, tail) = match (new.ends_with('/'), tail.strip_prefix('/')) {
        (true, Some(rest)) => (new, rest),
        _ => (new, tail),
    };
    match head.is_empty() {
        false => NewPath { head, tail },
        // `/foo` -> `` on `/foo/bar`: the tail brings its own slash, or the path is the root.
        true if tail.starts_with('/') => NewPath {
            head: tail,
            tail: "",
        },
        true => NewPath { head: "/", tail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_without_doubling_the_slash() {
        for (path, prefix, new, wanted) in [
            ("/foo/bar", Some("/foo"), "/", "/bar"),
            ("/foo/bar", Some("/foo/"), "/", "/bar"),
            ("/foo/bar", Some("/foo"), "/x", "/x/bar"),
            ("/foo/bar", Some("/foo/"), "/x/", "/x/bar"),
            ("/foobar", Some("/foo"), "/x", "/xbar"),
            ("/foo", Some("/foo"), "/", "/"),
            ("/foo", Some("/foo"), "", "/"),
            ("/foo/bar", Some("/foo"), "", "/bar"),
            ("/foobar", Some("/foo"), "", "/bar"),
            ("/foo/bar", None, "/x", "/x"),
            ("/a", Some("/"), "/x/", "/x/a"),
            ("*", None, "/x", "*"),
        ] {
            let NewPath { head, tail } = replaced(path, prefix.map(str::len), new);
            assert_eq!(
                format!("{head}{tail}"),
                wanted,
                "{path} with {prefix:?} -> {new}"
            );
        }
    }
}
