//! Evaluation with the attributes one happens to know: for `ringmesh expr`, and for the compiler's
//! question which sidecars can share a quota bucket. Requests are decided in the sidecar.

use std::collections::BTreeMap;

use ringmesh_wire::v1::{Expr, ExprNode, NodeIndex, Value};

/// Known attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// Single values by name.
    pub values: BTreeMap<String, Value>,
    /// Maps by name.
    pub maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// The value; `None` where an attribute it needs is absent.
#[must_use]
pub fn evaluate(expr: &Expr, attributes: &Attributes) -> Option<Value> {
    value(expr, expr.root(), attributes)
}

fn value(expr: &Expr, at: NodeIndex, with: &Attributes) -> Option<Value> {
    let of = |at: NodeIndex| value(expr, at, with);
    let truth = |at: NodeIndex| match of(at) {
        Some(Value::Bool(truth)) => Some(truth),
        _ => None,
    };
    let text = |at: NodeIndex| match of(at) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    Some(match expr.nodes.get(usize::from(at))? {
        ExprNode::Const(constant) => constant.clone(),
        ExprNode::Attribute(name) => with.values.get(name)?.clone(),
        ExprNode::Index(map, key) => {
            let ExprNode::Attribute(name) = expr.nodes.get(usize::from(*map))? else {
                return None;
            };
            Value::String(with.maps.get(name)?.get(&text(*key)?)?.clone())
        }
        ExprNode::Eq(a, b) => Value::Bool(of(*a)? == of(*b)?),
        ExprNode::Ne(a, b) => Value::Bool(of(*a)? != of(*b)?),
        ExprNode::And(a, b) => Value::Bool(truth(*a)? && truth(*b)?),
        ExprNode::Or(a, b) => Value::Bool(truth(*a)? || truth(*b)?),
        ExprNode::Default(a, b) => of(*a).or_else(|| of(*b))?,
        ExprNode::Match(a, b) => {
            let (text, pattern) = (text(*a)?, text(*b)?);
            Value::Bool(
                match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
                    (Some(prefix), _) => text.starts_with(prefix),
                    (None, Some(suffix)) => text.ends_with(suffix),
                    (None, None) => text == pattern,
                },
            )
        }
    })
}
