//! Text to tokens.

use super::ExprError;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A dotted name.
    Name(String),
    Text(String),
    Int(i64),
    Double(f64),
    /// An operator or bracket.
    Sign(&'static str),
}

/// Longer signs first. Those the parser does not know are refused there by name.
const SIGNS: [&str; 22] = [
    "==", "!=", "&&", "||", "<=", ">=", "<", ">", "!", "|", "&", "+", "-", "*", "/", "%", "[", "]",
    "(", ")", ",", "=",
];

/// Bytes of an expression; a longer one is a mistake, and bounds the parser's work.
pub(super) const TEXT_BYTES_MAX: usize = 16 * 1024;

fn error<T>(
    offset: usize,
    what: impl Into<String>,
    fix: impl Into<String>,
) -> Result<T, ExprError> {
    Err(ExprError {
        offset,
        what: what.into(),
        fix: fix.into(),
    })
}

/// All tokens, each with the bytes before it.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, ExprError> {
    if text.len() > TEXT_BYTES_MAX {
        return error(
            0,
            format!("the expression is {} bytes long", text.len()),
            format!("at most {TEXT_BYTES_MAX} are allowed: split the rule"),
        );
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first == '"' || first == '`' {
            let (value, length) = quoted(rest, at)?;
            found.push((at, Token::Text(value)));
            length
        } else if first.is_ascii_digit() {
            let (token, length) = number(rest, at)?;
            found.push((at, token));
            length
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))
                .unwrap_or(rest.len());
            found.push((at, Token::Name(rest[..length].to_owned())));
            length
        } else if first == '\'' {
            return error(at, "texts are not quoted with '", "write \"...\"");
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push((at, Token::Sign(sign)));
            sign.len()
        } else {
            return error(
                at,
                format!("{first:?} has no meaning here"),
                "see docs: operators are == != && || | [ ] ( )",
            );
        };
        at += length;
    }
    Ok(found)
}

/// A quoted text with Go's escapes, or a raw one in backquotes; the length includes the quotes.
fn quoted(rest: &str, at: usize) -> Result<(String, usize), ExprError> {
    let mut value = String::new();
    let mut chars = rest.char_indices();
    let quote = chars.next().map_or('"', |(_, c)| c);
    while let Some((here, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((value, here + 1)),
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => {
                    return error(
                        at + here,
                        "this escape is not known",
                        "the escapes are \\\" \\\\ \\n \\r \\t",
                    );
                }
            },
            _ => value.push(c),
        }
    }
    error(at, "this text has no end", format!("close it with {quote}"))
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), ExprError> {
    let length = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .unwrap_or(rest.len());
    let digits = &rest[..length];
    let token = if digits.contains('.') {
        digits.parse().ok().map(Token::Double)
    } else {
        digits.parse().ok().map(Token::Int)
    };
    token.map_or_else(
        || {
            error(
                at,
                format!("{digits:?} is not a number"),
                "write e.g. 200 or 0.5, a text in quotes",
            )
        },
        |token| Ok((token, length)),
    )
}
