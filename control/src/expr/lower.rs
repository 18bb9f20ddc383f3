//! A checked tree to the arena that travels.

use ringmesh_wire::codec::Validate;
use ringmesh_wire::limits::EXPR_NODES_MAX;
use ringmesh_wire::v1::{Expr, ExprNode, NodeIndex, Value};

use super::ExprError;
use super::ast::{Ast, Op};
use super::hosts::shortened;

/// Compiles a checked expression. Names of services come to stand in their short form.
///
/// # Errors
/// [`ExprError`] at a name that no service has, or where the expression has more nodes or levels than a sidecar evaluates.
pub fn lower(ast: &Ast) -> Result<Expr, ExprError> {
    let mut nodes = Vec::new();
    push(&shortened(ast)?, &mut nodes)?;
    let expr = Expr { nodes };
    expr.validate()
        .map_err(|wire| too_large(ast, &wire.to_string()))?;
    Ok(expr)
}

fn too_large(ast: &Ast, what: &str) -> ExprError {
    ExprError {
        offset: ast.offset(),
        what: what.to_owned(),
        fix: "split the rule in several".to_owned(),
    }
}

fn push(ast: &Ast, nodes: &mut Vec<ExprNode>) -> Result<NodeIndex, ExprError> {
    let mut pair = |a: &Ast, b: &Ast| Ok((push(a, nodes)?, push(b, nodes)?));
    let node = match ast {
        Ast::Text(_, text) => ExprNode::Const(Value::String(text.clone())),
        Ast::Int(_, number) => ExprNode::Const(Value::Int(*number)),
        Ast::Double(_, number) => ExprNode::Const(Value::Double(*number)),
        Ast::Bool(_, truth) => ExprNode::Const(Value::Bool(*truth)),
        Ast::Attribute(_, name) => ExprNode::Attribute(name.clone()),
        Ast::Index(map, key) => {
            let (a, b) = pair(map, key)?;
            ExprNode::Index(a, b)
        }
        Ast::Match(_, text, pattern) => {
            let (a, b) = pair(text, pattern)?;
            ExprNode::Match(a, b)
        }
        Ast::Binary(op, left, right) => {
            let (a, b) = pair(left, right)?;
            match op {
                Op::Or => ExprNode::Or(a, b),
                Op::And => ExprNode::And(a, b),
                Op::Eq => ExprNode::Eq(a, b),
                Op::Ne => ExprNode::Ne(a, b),
                Op::Default => ExprNode::Default(a, b),
            }
        }
    };
    if nodes.len() >= EXPR_NODES_MAX {
        return Err(too_large(ast, "the expression has too many parts"));
    }
    nodes.push(node);
    NodeIndex::try_from(nodes.len() - 1).map_err(|e| too_large(ast, &e.to_string()))
}
