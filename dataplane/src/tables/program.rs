//! Expressions with attribute names interned: what `policy::expr` evaluates.

use std::net::IpAddr;

use ringmesh_wire::{Expr, ExprNode, NodeIndex, Value};

/// An attribute that has one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `source.ip`
    SourceIp,
    /// `source.port`
    SourcePort,
    /// `source.service`, `name.namespace`
    SourceService,
    /// `source.service.name`
    SourceServiceName,
    /// `source.namespace`
    SourceNamespace,
    /// `source.principal`, `source.user`: SPIFFE ID without scheme
    SourcePrincipal,
    /// `destination.ip`
    DestinationIp,
    /// `destination.port`: workload port
    DestinationPort,
    /// `destination.service`, `destination.service.host`: `name.namespace`, or a host outside the mesh
    DestinationService,
    /// `destination.service.name`
    DestinationServiceName,
    /// `destination.namespace`, `destination.service.namespace`
    DestinationNamespace,
    /// `request.method`
    RequestMethod,
    /// `request.path`: with the query
    RequestPath,
    /// `request.url_path`: without the query
    RequestUrlPath,
    /// `request.host`
    RequestHost,
    /// `request.scheme`
    RequestScheme,
    /// `request.useragent`
    RequestUserAgent,
    /// `request.referer`
    RequestReferer,
    /// `request.id`
    RequestId,
    /// `context.protocol`: `http` or `tcp`
    ContextProtocol,
    /// `connection.mtls`
    ConnectionMtls,
}

/// An attribute that is a map from text to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapAttribute {
    /// `source.labels`, from the verified certificate
    SourceLabels,
    /// `destination.labels`
    DestinationLabels,
    /// `request.headers`
    RequestHeaders,
}

impl Attribute {
    /// By dotted name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "source.ip" => Self::SourceIp,
            "source.port" => Self::SourcePort,
            "source.service" | "source.service.host" => Self::SourceService,
            "source.service.name" => Self::SourceServiceName,
            "source.namespace" | "source.service.namespace" | "source.workload.namespace" => {
                Self::SourceNamespace
            }
            "source.principal" | "source.user" => Self::SourcePrincipal,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "destination.service" | "destination.service.host" => Self::DestinationService,
            "destination.service.name" => Self::DestinationServiceName,
            "destination.namespace"
            | "destination.service.namespace"
            | "destination.workload.namespace" => Self::DestinationNamespace,
            "request.method" => Self::RequestMethod,
            "request.path" => Self::RequestPath,
            "request.url_path" => Self::RequestUrlPath,
            "request.host" => Self::RequestHost,
            "request.scheme" => Self::RequestScheme,
            "request.useragent" => Self::RequestUserAgent,
            "request.referer" => Self::RequestReferer,
            "request.id" => Self::RequestId,
            "context.protocol" => Self::ContextProtocol,
            "connection.mtls" => Self::ConnectionMtls,
            _ => return None,
        })
    }
}

impl MapAttribute {
    /// By dotted name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "source.labels" => Self::SourceLabels,
            "destination.labels" => Self::DestinationLabels,
            "request.headers" => Self::RequestHeaders,
            _ => return None,
        })
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A text.
    Text(Box<str>),
    /// A number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// An address.
    Ip(IpAddr),
    /// A length of time, nanoseconds.
    DurationNs(i64),
    /// An attribute.
    Attribute(Attribute),
    /// A map, to be indexed.
    Map(MapAttribute),
    /// `map["key"]` with a constant key (headers: in lower case).
    Key(MapAttribute, Box<str>),
    /// `map[key]`
    Index(NodeIndex, NodeIndex),
    /// An attribute this build does not know: never present.
    Absent,
    /// `a == b`
    Eq(NodeIndex, NodeIndex),
    /// `a != b`
    Ne(NodeIndex, NodeIndex),
    /// `a && b`
    And(NodeIndex, NodeIndex),
    /// `a || b`
    Or(NodeIndex, NodeIndex),
    /// `a | b`
    Default(NodeIndex, NodeIndex),
    /// `a | b | c ..` whose operands have no operands themselves, which is what quota dimensions
    /// are: one loop instead of a walk over a tree.
    First(Box<[Self]>),
    /// `match(a, b)`
    Match(NodeIndex, NodeIndex),
    /// `a == "text"` (true) or `a != "text"` (false) for an `a` without operands: what nearly every
    /// condition is made of.
    IsText(Box<Self>, Box<str>, bool),
}

/// An expression ready to be evaluated. Children stand before parents, the last is the root; the
/// decoder has checked that and the depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    pub(crate) ops: Box<[Op]>,
}

impl Program {
    /// Interns the names of a validated expression.
    #[must_use]
    pub fn lower(expr: &Expr) -> Self {
        let constant = |at: NodeIndex| match expr.nodes.get(usize::from(at)) {
            Some(ExprNode::Const(Value::String(text))) => Some(text),
            _ => None,
        };
        let map = |at: NodeIndex| match expr.nodes.get(usize::from(at)) {
            Some(ExprNode::Attribute(name)) => MapAttribute::parse(name),
            _ => None,
        };
        let mut ops: Vec<Op> = Vec::with_capacity(expr.nodes.len());
        for node in &expr.nodes {
            let op = match node {
                ExprNode::Const(Value::String(text)) => Op::Text(text.as_str().into()),
                ExprNode::Const(Value::Int(number)) => Op::Int(*number),
                ExprNode::Const(Value::Double(number)) => Op::Double(*number),
                ExprNode::Const(Value::Bool(truth)) => Op::Bool(*truth),
                ExprNode::Const(Value::Ip(ip)) => Op::Ip(super::normal_ip(*ip)),
                ExprNode::Const(Value::DurationNs(ns)) => Op::DurationNs(*ns),
                ExprNode::Attribute(name) => {
                    match (Attribute::parse(name), MapAttribute::parse(name)) {
                        (Some(attribute), _) => Op::Attribute(attribute),
                        (None, Some(map)) => Op::Map(map),
                        (None, None) => Op::Absent,
                    }
                }
                ExprNode::Index(of, key) => match (map(*of), constant(*key)) {
                    (Some(MapAttribute::RequestHeaders), Some(name)) => Op::Key(
                        MapAttribute::RequestHeaders,
                        name.to_ascii_lowercase().into(),
                    ),
                    (Some(map), Some(key)) => Op::Key(map, key.as_str().into()),
                    _ => Op::Index(*of, *key),
                },
                ExprNode::Eq(a, b) => is_text(&ops, *a, *b, true).unwrap_or(Op::Eq(*a, *b)),
                ExprNode::Ne(a, b) => is_text(&ops, *a, *b, false).unwrap_or(Op::Ne(*a, *b)),
                ExprNode::And(a, b) => Op::And(*a, *b),
                ExprNode::Or(a, b) => Op::Or(*a, *b),
                ExprNode::Default(a, b) => first(&ops, *a, *b),
                ExprNode::Match(a, b) => Op::Match(*a, *b),
            };
            ops.push(op);
        }
        Self { ops: ops.into() }
    }

    /// For how long the value stays.
    #[must_use]
    pub fn stays(&self) -> Stays {
        let all = self.ops.iter().map(Op::stays);
        all.min().unwrap_or(Stays::ForCaller)
    }
}

/// For how long an expression keeps its value, by what it looks at. Shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// It looks at the request.
    ForRequest,
    /// It looks at the addresses of the connection.
    ForConnection,
    /// It looks at nothing but who calls whom, and in what protocol.
    ForCaller,
}

/// `a | b` as one loop where both are plain, else as it stands.
fn first(ops: &[Op], a: NodeIndex, b: NodeIndex) -> Op {
    let operands = |at: NodeIndex| match ops.get(usize::from(at)) {
        Some(Op::First(operands)) => Some(operands.to_vec()),
        Some(op) if op.is_leaf() => Some(vec![op.clone()]),
        _ => None,
    };
    match (operands(a), operands(b)) {
        (Some(mut all), Some(rest)) => {
            all.extend(rest);
            Op::First(all.into())
        }
        _ => Op::Default(a, b),
    }
}

/// `a == "text"` or `"text" == a`.
fn is_text(ops: &[Op], a: NodeIndex, b: NodeIndex, equal: bool) -> Option<Op> {
    let (a, b) = (ops.get(usize::from(a))?, ops.get(usize::from(b))?);
    match (a, b) {
        (leaf, Op::Text(text)) | (Op::Text(text), leaf) if leaf.is_leaf() => {
            Some(Op::IsText(Box::new(leaf.clone()), text.clone(), equal))
        }
        _ => None,
    }
}

impl Op {
    fn is_leaf(&self) -> bool {
        match self {
            Self::Text(_)
            | Self::Int(_)
            | Self::Double(_)
            | Self::Bool(_)
            | Self::Ip(_)
            | Self::DurationNs(_)
            | Self::Attribute(_)
            | Self::Map(_)
            | Self::Key(..)
            | Self::Absent => true,
            Self::Index(..)
            | Self::Eq(..)
            | Self::Ne(..)
            | Self::And(..)
            | Self::Or(..)
            | Self::Default(..)
            | Self::First(_)
            | Self::Match(..)
            | Self::IsText(..) => false,
        }
    }

    fn stays(&self) -> Stays {
        match self {
            Self::Attribute(attribute) => attribute.stays(),
            Self::Map(MapAttribute::RequestHeaders)
            | Self::Key(MapAttribute::RequestHeaders, _) => Stays::ForRequest,
            Self::First(operands) => {
                let all = operands.iter().map(Self::stays);
                all.min().unwrap_or(Stays::ForCaller)
            }
            Self::IsText(leaf, ..) => leaf.stays(),
            // Of their operands, which are operations of their own.
            _ => Stays::ForCaller,
        }
    }
}

impl Attribute {
    fn stays(self) -> Stays {
        match self {
            Self::RequestMethod
            | Self::RequestPath
            | Self::RequestUrlPath
            | Self::RequestHost
            | Self::RequestScheme
            | Self::RequestUserAgent
            | Self::RequestReferer
            | Self::RequestId => Stays::ForRequest,
            Self::SourceIp | Self::SourcePort | Self::DestinationIp | Self::DestinationPort => {
                Stays::ForConnection
            }
            Self::SourceService
            | Self::SourceServiceName
            | Self::SourceNamespace
            | Self::SourcePrincipal
            | Self::DestinationService
            | Self::DestinationServiceName
            | Self::DestinationNamespace
            | Self::ContextProtocol
            | Self::ConnectionMtls => Stays::ForCaller,
        }
    }
}
