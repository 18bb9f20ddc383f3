//! Evaluation of compiled expressions.
//!
//! Absence is a state of its own: `a | b` takes the first operand that is present, anything else
//! that meets an absent operand is an error. Depth is bounded by the decoder
//! (`wire::limits::EXPR_DEPTH_MAX`), so recursion is.

use ringmesh_wire::NodeIndex;

use super::attributes::{Attributes, Val};
use crate::tables::{MapAttribute, Op, Program};

/// Why an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvalError {
    /// An attribute or map key is absent where one is needed.
    Absent,
    /// Operands of types that do not go together.
    Type,
}

/// The value of an expression; `None` where it is absent as a whole.
///
/// # Errors
/// [`EvalError`].
pub fn value<'a>(
    program: &'a Program,
    attributes: &Attributes<'a>,
) -> Result<Option<Val<'a>>, EvalError> {
    let ops = &program.ops;
    Eval { ops, attributes }.at(ops.len().wrapping_sub(1))
}

/// The value of a condition.
///
/// # Errors
/// [`EvalError`], also where the value is not true or false.
pub fn holds(program: &Program, attributes: &Attributes<'_>) -> Result<bool, EvalError> {
    let ops = &program.ops;
    Eval { ops, attributes }.truth(ops.len().wrapping_sub(1))
}

struct Eval<'e, 'a> {
    ops: &'a [Op],
    attributes: &'e Attributes<'a>,
}

impl<'a> Eval<'_, 'a> {
    fn at(&self, at: usize) -> Result<Option<Val<'a>>, EvalError> {
        Ok(Some(match self.ops.get(at).ok_or(EvalError::Absent)? {
            Op::First(operands) => return Ok(operands.iter().find_map(|op| self.leaf(op))),
            Op::Index(map, key) => return self.index(*map, *key),
            Op::Eq(a, b) => Val::Bool(equal(self.present(*a)?, self.present(*b)?)?),
            Op::Ne(a, b) => Val::Bool(!equal(self.present(*a)?, self.present(*b)?)?),
            Op::And(..) | Op::Or(..) | Op::IsText(..) => Val::Bool(self.truth(at)?),
            Op::Default(a, b) => {
                return match self.at(usize::from(*a))? {
                    Some(value) => Ok(Some(value)),
                    None => self.at(usize::from(*b)),
                };
            }
            Op::Match(text, pattern) => {
                Val::Bool(matches_glob(self.present(*text)?, self.present(*pattern)?)?)
            }
            leaf => return Ok(self.leaf(leaf)),
        }))
    }

    /// An op without operands.
    #[inline]
    fn leaf(&self, op: &'a Op) -> Option<Val<'a>> {
        Some(match op {
            Op::Text(text) => Val::Text(text.as_bytes()),
            Op::Int(number) => Val::Int(*number),
            Op::Double(number) => Val::Double(*number),
            Op::Bool(truth) => Val::Bool(*truth),
            Op::Ip(ip) => Val::Ip(*ip),
            Op::DurationNs(ns) => Val::DurationNs(*ns),
            Op::Map(map) => Val::Map(*map),
            Op::Attribute(attribute) => return self.attributes.value(*attribute),
            Op::Key(map, key) => return self.attributes.entry(*map, key),
            // `Absent`, and what `at` never passes here.
            _ => return None,
        })
    }

    fn present(&self, at: NodeIndex) -> Result<Val<'a>, EvalError> {
        self.at(usize::from(at))?.ok_or(EvalError::Absent)
    }

    /// A node that must be true or false.
    fn truth(&self, at: usize) -> Result<bool, EvalError> {
        match self.ops.get(at) {
            Some(Op::And(a, b)) => Ok(self.truth(usize::from(*a))? && self.truth(usize::from(*b))?),
            Some(Op::Or(a, b)) => Ok(self.truth(usize::from(*a))? || self.truth(usize::from(*b))?),
            Some(Op::IsText(leaf, text, equal)) => match self.leaf(leaf) {
                Some(value) if is_text(value) => Ok(value.is_text(text.as_bytes()) == *equal),
                Some(_) => Err(EvalError::Type),
                None => Err(EvalError::Absent),
            },
            _ => match self.at(at)? {
                Some(Val::Bool(truth)) => Ok(truth),
                Some(_) => Err(EvalError::Type),
                None => Err(EvalError::Absent),
            },
        }
    }

    /// `map[key]` with a computed key; an absent key is an absent entry.
    fn index(&self, map: NodeIndex, key: NodeIndex) -> Result<Option<Val<'a>>, EvalError> {
        let map = match self.at(usize::from(map))? {
            Some(Val::Map(map)) => map,
            Some(_) => return Err(EvalError::Type),
            None => return Ok(None),
        };
        let key = match self.at(usize::from(key))? {
            Some(Val::Text(key)) => key,
            Some(_) => return Err(EvalError::Type),
            None => return Ok(None),
        };
        let Ok(key) = std::str::from_utf8(key) else {
            return Ok(None);
        };
        if map == MapAttribute::RequestHeaders {
            // Header names are looked up in lower case.
            let mut room = [0; 256];
            let lower = crate::tables::lowered(key, &mut room);
            return Ok(lower.and_then(|key| self.attributes.entry(map, key)));
        }
        Ok(self.attributes.entry(map, key))
    }
}

/// `==`: same types only; text exactly, addresses by value.
fn equal(a: Val<'_>, b: Val<'_>) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (a, Val::Text(b)) if is_text(a) => a.is_text(b),
        (Val::Text(a), b) if is_text(b) => b.is_text(a),
        (Val::Parts(a1, a, a2), Val::Parts(b1, b, b2)) => {
            let joined = |first: &'_ str, separator: u8, second: &'_ str| {
                first
                    .bytes()
                    .chain([separator])
                    .chain(second.bytes())
                    .collect::<Vec<u8>>()
            };
            // Two composed attributes compared with each other: not worth more than this.
            joined(a1, a, a2) == joined(b1, b, b2)
        }
        (Val::Int(a), Val::Int(b)) | (Val::DurationNs(a), Val::DurationNs(b)) => a == b,
        (Val::Double(a), Val::Double(b)) => a == b,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Ip(a), Val::Ip(b)) => a == b,
        _ => return Err(EvalError::Type),
    })
}

fn is_text(value: Val<'_>) -> bool {
    matches!(value, Val::Text(_) | Val::Parts(..))
}

/// `match(text, pattern)`: exact, `prefix*` or `*suffix`.
fn matches_glob(text: Val<'_>, pattern: Val<'_>) -> Result<bool, EvalError> {
    let Val::Text(pattern) = pattern else {
        return Err(EvalError::Type);
    };
    let (first, second, separator) = match text {
        Val::Text(text) => (text, &[][..], None),
        Val::Parts(first, separator, second) => {
            (first.as_bytes(), second.as_bytes(), Some(separator))
        }
        _ => return Err(EvalError::Type),
    };
    let bytes = || first.iter().chain(&separator).chain(second);
    let bytes_len = first.len() + usize::from(separator.is_some()) + second.len();
    Ok(match pattern {
        [prefix @ .., b'*'] => {
            bytes_len >= prefix.len() && bytes().zip(prefix).all(|(a, b)| a == b)
        }
        [b'*', suffix @ ..] => {
            bytes_len >= suffix.len()
                && bytes()
                    .skip(bytes_len - suffix.len())
                    .zip(suffix)
                    .all(|(a, b)| a == b)
        }
        exact => text.is_text(exact),
    })
}
