//! The expression language of Mixer rules: text to a type-checked [`ringmesh_wire::v1::Expr`].
//!
//! A part of Go's syntax: `==`, `!=`, `&&`, `||`, `|` (the first that is
//! present), `map["key"]`, `match(text, "pattern*")`, texts, numbers, `true`, `false`, parentheses.
//! Precedence is Go's: `|` binds like `+`, tighter than `==`. Everything else of the Mixer language
//! is refused by name, with its position, as not supported yet.
//!
//! Owns: the grammar, the attribute vocabulary and its types. Invariants: no text panics or recurses
//! without bound; what [`compile`] accepts, the sidecar can evaluate.

mod ast;
mod check;
mod eval;
mod hosts;
mod lexer;
mod lower;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use ast::{Ast, Op};
pub use check::{Type, check};
pub use eval::{Attributes, evaluate};
pub use hosts::{is_service, short};
pub use lower::lower;
pub use vocabulary::{ATTRIBUTES, type_of};

use std::fmt;

use ringmesh_wire::v1::Expr;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// Bytes before the fault.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub fix: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "character {}: {}; {}",
            self.offset + 1,
            self.what,
            self.fix
        )
    }
}

impl std::error::Error for ExprError {}

/// Parses an expression.
///
/// # Errors
/// [`ExprError`] at the first fault.
pub fn parse(text: &str) -> Result<Ast, ExprError> {
    ast::parse(text)
}

/// Parses, checks and compiles a condition.
///
/// # Errors
/// [`ExprError`] at the first fault.
pub fn compile_condition(text: &str) -> Result<Expr, ExprError> {
    let ast = parse(text)?;
    let found = check(&ast)?;
    if found != Type::Bool {
        return Err(ExprError {
            offset: ast.offset(),
            what: format!("this is {found}, a condition must be true or false"),
            fix: "compare it, e.g. with == \"...\"".to_owned(),
        });
    }
    lower(&ast)
}

/// Parses, checks and compiles a value of any type but a map (a quota dimension).
///
/// # Errors
/// [`ExprError`] at the first fault.
pub fn compile_value(text: &str) -> Result<Expr, ExprError> {
    let ast = parse(text)?;
    if check(&ast)? == Type::Map {
        return Err(ExprError {
            offset: ast.offset(),
            what: "this is a whole map".to_owned(),
            fix: "take one entry of it: [\"key\"]".to_owned(),
        });
    }
    lower(&ast)
}
