//! Types.

use std::fmt;

use super::ExprError;
use super::ast::{Ast, Op};
use super::vocabulary::{ATTRIBUTES, LATER, type_of};

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// A text.
    Text,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// True or false.
    Bool,
    /// An IP address.
    Ip,
    /// A map of texts.
    Map,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text",
            Self::Int => "a whole number",
            Self::Double => "a number with a fraction",
            Self::Bool => "true or false",
            Self::Ip => "an IP address",
            Self::Map => "a map of texts",
        })
    }
}

fn error<T>(offset: usize, what: String, fix: impl Into<String>) -> Result<T, ExprError> {
    Err(ExprError {
        offset,
        what,
        fix: fix.into(),
    })
}

/// The type of an expression.
///
/// # Errors
/// [`ExprError`] at the first operand whose type does not fit, or unknown attribute.
pub fn check(ast: &Ast) -> Result<Type, ExprError> {
    match ast {
        Ast::Text(..) => Ok(Type::Text),
        Ast::Int(..) => Ok(Type::Int),
        Ast::Double(..) => Ok(Type::Double),
        Ast::Bool(..) => Ok(Type::Bool),
        Ast::Attribute(at, name) => attribute(*at, name),
        Ast::Match(_, text, pattern) => {
            demand(text, Type::Text, "match")?;
            demand(pattern, Type::Text, "match")?;
            if let Ast::Text(at, pattern) = &**pattern {
                let inner = pattern
                    .strip_suffix('*')
                    .or_else(|| pattern.strip_prefix('*'));
                if inner.unwrap_or(pattern).contains('*') {
                    return error(
                        *at,
                        format!("the pattern {pattern:?} has a * where none may be"),
                        "write \"prefix*\" or \"*suffix\"",
                    );
                }
            }
            Ok(Type::Bool)
        }
        Ast::Index(map, key) => {
            demand(map, Type::Map, "[ ]")?;
            demand(key, Type::Text, "[ ]")?;
            Ok(Type::Text)
        }
        Ast::Binary(op, left, right) => binary(*op, left, right),
    }
}

fn attribute(at: usize, name: &str) -> Result<Type, ExprError> {
    if let Some(found) = type_of(name) {
        return Ok(found);
    }
    if LATER.contains(&name) {
        return error(
            at,
            format!("the attribute {name} is not supported yet"),
            "use another; `ringmesh expr --attributes` lists them",
        );
    }
    let known: Vec<&str> = ATTRIBUTES.iter().map(|(known, _)| *known).collect();
    let fix = crate::rules::closest(name, &known).map_or_else(
        || "`ringmesh expr --attributes` lists them".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    error(at, format!("there is no attribute {name}"), fix)
}

fn demand(ast: &Ast, wanted: Type, by: &str) -> Result<(), ExprError> {
    let found = check(ast)?;
    if found == wanted {
        return Ok(());
    }
    error(
        ast.offset(),
        format!("{ast} is {found}"),
        format!("{by} wants {wanted}"),
    )
}

fn binary(op: Op, left: &Ast, right: &Ast) -> Result<Type, ExprError> {
    let sign = op.sign();
    if matches!(op, Op::And | Op::Or) {
        demand(left, Type::Bool, sign)?;
        demand(right, Type::Bool, sign)?;
        return Ok(Type::Bool);
    }
    let (a, b) = (check(left)?, check(right)?);
    if a == Type::Map || b == Type::Map {
        let map = if a == Type::Map { left } else { right };
        return error(
            map.offset(),
            format!("{map} is a map of texts"),
            "take one entry of it: [\"key\"]",
        );
    }
    if a != b {
        let fix = if a == Type::Ip || b == Type::Ip {
            "ip(\"...\") is not supported yet: use an AuthorizationPolicy with ipBlocks".to_owned()
        } else {
            format!("{sign} wants {a} here, as on its left")
        };
        return error(right.offset(), format!("{right} is {b}"), fix);
    }
    Ok(if op == Op::Default { a } else { Type::Bool })
}
