//! Compiled attribute expressions (the Mixer language), as an arena.
//!
//! An arena rather than boxes, because a decoder that recurses over hostile bytes overflows its
//! stack: children always stand *before* their parent, so checking one is a single pass and an
//! evaluator's depth is known before it starts. The last node is the root.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::{EXPR_DEPTH_MAX, EXPR_NODES_MAX};

/// Index of a node in its [`Expr`].
pub type NodeIndex = u16;

/// A constant or a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `"text"`
    String(String),
    /// `200`
    Int(i64),
    /// `1.5`
    Double(f64),
    /// `true`
    Bool(bool),
    /// `ip("10.0.0.1")`; compared by value, v4-mapped v6 equals v4.
    Ip(IpAddr),
    /// `"15ms"` where a duration is wanted, in nanoseconds.
    DurationNs(i64),
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ExprNode {
    /// A constant.
    Const(Value),
    /// An attribute by its dotted name, e.g. `source.labels`.
    Attribute(String),
    /// `map[key]`; a missing key is "absent".
    Index(NodeIndex, NodeIndex),
    /// `a == b`
    Eq(NodeIndex, NodeIndex),
    /// `a && b`, short-circuit.
    And(NodeIndex, NodeIndex),
    /// `a || b`, short-circuit.
    Or(NodeIndex, NodeIndex),
    /// `a | b`: the first operand that is present.
    Default(NodeIndex, NodeIndex),
    /// `match(text, pattern)`: exact, `prefix*` or `*suffix`.
    Match(NodeIndex, NodeIndex),
    /// `a != b`
    Ne(NodeIndex, NodeIndex),
}

/// A compiled, type-checked expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    /// Children before parents; the last is the root.
    pub nodes: Vec<ExprNode>,
}

impl Expr {
    /// The root, by index.
    #[must_use]
    pub fn root(&self) -> NodeIndex {
        NodeIndex::try_from(self.nodes.len().saturating_sub(1)).unwrap_or(NodeIndex::MAX)
    }
}

impl Validate for Expr {
    fn validate(&self) -> Result<(), WireError> {
        let invalid = |why: &str| Err(WireError::Invalid(format!("expression: {why}")));
        if self.nodes.is_empty() {
            return invalid("it has no nodes");
        }
        if self.nodes.len() > EXPR_NODES_MAX {
            return Err(WireError::TooLong {
                what: "expression",
                got: self.nodes.len(),
                max: EXPR_NODES_MAX,
            });
        }
        let mut depths: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let depth = match node {
                ExprNode::Const(_) | ExprNode::Attribute(_) => 1,
                ExprNode::Index(a, b)
                | ExprNode::Eq(a, b)
                | ExprNode::And(a, b)
                | ExprNode::Or(a, b)
                | ExprNode::Default(a, b)
                | ExprNode::Match(a, b)
                | ExprNode::Ne(a, b) => {
                    let child = |at: NodeIndex| depths.get(usize::from(at)).copied();
                    match (child(*a), child(*b)) {
                        (Some(a), Some(b)) => a.max(b) + 1,
                        _ => return invalid("a node names one that does not stand before it"),
                    }
                }
            };
            if depth > EXPR_DEPTH_MAX {
                return invalid("it is nested too deeply");
            }
            depths.push(depth);
        }
        Ok(())
    }
}
