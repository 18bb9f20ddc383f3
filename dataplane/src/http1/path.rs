//! One spelling of a path, so that what rules match is what the app resolves.

/// What to do beyond RFC 3986 section 6.2.2 (dot segments and needlessly encoded characters are
/// always resolved, `\` is always `/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// `//` becomes `/` (Istio MERGE_SLASHES).
    pub merge_slashes: bool,
    /// `%2F` and `%5C` become `/` (Istio DECODE_AND_MERGE_SLASHES).
    pub decode_slashes: bool,
}

impl Default for PathRules {
    /// Slashes are merged, because most file-like routers do; encoded ones stay, because an app
    /// that encodes them means data.
    fn default() -> Self {
        Self {
            merge_slashes: true,
            decode_slashes: false,
        }
    }
}

/// The normal form of `path` (no query): `path` itself where nothing changes, else written to
/// `scratch`, which is cleared first and keeps its capacity. `..` above the root stays at the root.
/// Never longer than `path`.
#[must_use]
pub fn normalise<'a>(path: &'a str, rules: PathRules, scratch: &'a mut String) -> &'a str {
    if !path.starts_with('/') || is_normal(path.as_bytes()) {
        return path;
    }
    scratch.clear();
    scratch.reserve(path.len());
    let mut chars = path.char_indices();
    while let Some((at, char)) = chars.next() {
        let char = match char {
            '\\' => '/',
            '%' => match encoded(&path.as_bytes()[at..]) {
                Some(plain) if is_unreserved(plain) => {
                    chars.nth(1);
                    char::from(plain)
                }
                Some(b'/' | b'\\') if rules.decode_slashes => {
                    chars.nth(1);
                    '/'
                }
                _ => '%',
            },
            other => other,
        };
        if char == '/' {
            end_segment(scratch);
            if rules.merge_slashes && scratch.ends_with('/') {
                continue;
            }
        }
        scratch.push(char);
    }
    // A dot segment at the end names the directory: its slash stays.
    if end_segment(scratch) {
        scratch.push('/');
    }
    if scratch.is_empty() {
        scratch.push('/');
    }
    scratch
}

/// Resolves a dot segment at the end of what was written; true if there was one. Afterwards what
/// was written ends where the next slash belongs.
fn end_segment(written: &mut String) -> bool {
    let segment = written.rfind('/').map_or(0, |at| at + 1);
    match &written[segment..] {
        "." if segment > 0 => {
            written.truncate(segment - 1);
            true
        }
        ".." if segment > 0 => {
            written.truncate(segment - 1);
            let parent = written.rfind('/').unwrap_or(0);
            written.truncate(parent);
            true
        }
        _ => false,
    }
}

/// Nothing in it that could change: no `%`, no `\`, no `//`, no `/.`.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        let suspicious =
            byte == b'%' || byte == b'\\' || (before == b'/' && (byte == b'/' || byte == b'.'));
        if suspicious {
            return false;
        }
        before = byte;
    }
    true
}

/// The byte that `%XY` at the start stands for.
fn encoded(bytes: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// RFC 3986 section 2.3: encoding these changes nothing.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
