//! Tokens to a tree, and a tree back to text.

use std::fmt;

use ringmesh_wire::limits::{EXPR_DEPTH_MAX, EXPR_NODES_MAX};

use super::ExprError;
use super::lexer::{Token, tokens};

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Ast {
    /// A text.
    Text(usize, String),
    /// A whole number.
    Int(usize, i64),
    /// A number with a fraction.
    Double(usize, f64),
    /// `true` or `false`.
    Bool(usize, bool),
    /// An attribute by its dotted name.
    Attribute(usize, String),
    /// Two operands.
    Binary(Op, Box<Self>, Box<Self>),
    /// `map[key]`
    Index(Box<Self>, Box<Self>),
    /// `match(text, pattern)`
    Match(usize, Box<Self>, Box<Self>),
}

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `|`
    Default,
}

impl Op {
    /// The sign.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Default => "|",
        }
    }

    /// Go's precedence.
    fn binds(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Eq | Self::Ne => 3,
            Self::Default => 4,
        }
    }

    fn of(token: &Token) -> Option<Self> {
        match token {
            Token::Sign("||") => Some(Self::Or),
            Token::Sign("&&") => Some(Self::And),
            Token::Sign("==") => Some(Self::Eq),
            Token::Sign("!=") => Some(Self::Ne),
            Token::Sign("|") => Some(Self::Default),
            _ => None,
        }
    }
}

/// Tokens of an expression. A chain of operators nests to the left once for each, so this bounds
/// the recursion of everything that walks the tree.
const TOKENS_MAX: usize = 2 * EXPR_NODES_MAX;

/// Functions of Mixer's language that come later.
const FUNCTIONS_LATER: [&str; 12] = [
    "ip",
    "timestamp",
    "dnsName",
    "email",
    "uri",
    "conditional",
    "emptyStringMap",
    "toLower",
    "size",
    "reverse",
    "matches",
    "string",
];

impl Ast {
    /// Bytes before it in the text.
    #[must_use]
    pub fn offset(&self) -> usize {
        match self {
            Self::Text(at, _)
            | Self::Int(at, _)
            | Self::Double(at, _)
            | Self::Bool(at, _)
            | Self::Attribute(at, _)
            | Self::Match(at, _, _) => *at,
            Self::Binary(_, left, _) | Self::Index(left, _) => left.offset(),
        }
    }

    /// The tree, one node per line, for people.
    #[must_use]
    pub fn tree(&self) -> String {
        let mut out = String::new();
        self.grow(0, &mut out);
        out
    }

    fn grow(&self, depth: usize, out: &mut String) {
        let (label, below): (String, Vec<&Self>) = match self {
            Self::Binary(op, left, right) => (op.sign().to_owned(), vec![left, right]),
            Self::Index(map, key) => ("[]".to_owned(), vec![map, key]),
            Self::Match(_, text, pattern) => ("match".to_owned(), vec![text, pattern]),
            leaf => (leaf.to_string(), Vec::new()),
        };
        out.push_str(&"  ".repeat(depth));
        out.push_str(&label);
        out.push('\n');
        for child in below {
            child.grow(depth + 1, out);
        }
    }
}

impl fmt::Display for Ast {
    /// The expression with no more parentheses than needed; parsing it gives the same tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_, text) => {
                f.write_str("\"")?;
                for c in text.chars() {
                    match c {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '\t' => f.write_str("\\t")?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("\"")
            }
            Self::Int(_, number) => number.fmt(f),
            Self::Double(_, number) => write!(f, "{number:?}"),
            Self::Bool(_, truth) => truth.fmt(f),
            Self::Attribute(_, name) => f.write_str(name),
            Self::Index(map, key) => match **map {
                Self::Binary(..) => write!(f, "({map})[{key}]"),
                _ => write!(f, "{map}[{key}]"),
            },
            Self::Match(_, text, pattern) => write!(f, "match({text}, {pattern})"),
            Self::Binary(op, left, right) => {
                let side = |f: &mut fmt::Formatter<'_>, of: &Self, least: u8| match of {
                    Self::Binary(inner, _, _) if inner.binds() < least => write!(f, "({of})"),
                    _ => of.fmt(f),
                };
                side(f, left, op.binds())?;
                write!(f, " {} ", op.sign())?;
                side(f, right, op.binds() + 1)
            }
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Ast, ExprError> {
    let tokens = tokens(text)?;
    if let Some((offset, _)) = tokens.get(TOKENS_MAX) {
        return Err(ExprError {
            offset: *offset,
            what: "the expression has too many parts".to_owned(),
            fix: "split the rule in several".to_owned(),
        });
    }
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        end: text.len(),
        depth: 0,
    };
    let ast = parser.binary(1)?;
    match parser.tokens.get(parser.at) {
        None => Ok(ast),
        Some((offset, token)) => Err(refuse_operator(*offset, token)),
    }
}

struct Parser<'t> {
    tokens: &'t [(usize, Token)],
    at: usize,
    end: usize,
    depth: usize,
}

/// The error for a token that stands where an operator should.
fn refuse_operator(offset: usize, token: &Token) -> ExprError {
    let fix = "the operators are == != && || | and [ ]";
    match token {
        Token::Sign(sign @ ("<" | ">" | "<=" | ">=" | "+")) => ExprError {
            offset,
            what: format!("{sign} is not supported yet"),
            fix: fix.to_owned(),
        },
        Token::Sign("=") => ExprError {
            offset,
            what: "= does not compare".to_owned(),
            fix: "write ==".to_owned(),
        },
        Token::Sign("&") => ExprError {
            offset,
            what: "& is not an operator".to_owned(),
            fix: "write &&".to_owned(),
        },
        other => ExprError {
            offset,
            what: format!("{} stands where an operator should", shown(other)),
            fix: fix.to_owned(),
        },
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) => name.clone(),
        Token::Text(text) => format!("{text:?}"),
        Token::Int(number) => number.to_string(),
        Token::Double(number) => number.to_string(),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

impl Parser<'_> {
    fn error<T>(&self, offset: usize, what: &str, fix: &str) -> Result<T, ExprError> {
        Err(ExprError {
            offset,
            what: what.to_owned(),
            fix: fix.to_owned(),
        })
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let there = matches!(self.tokens.get(self.at), Some((_, Token::Sign(s))) if *s == sign);
        self.at += usize::from(there);
        there
    }

    fn want(&mut self, sign: &'static str) -> Result<(), ExprError> {
        if self.take(sign) {
            return Ok(());
        }
        match self.tokens.get(self.at) {
            Some((offset, token)) if sign != "(" => {
                let mut error = refuse_operator(*offset, token);
                error.fix = format!("{} or {sign}", error.fix);
                Err(error)
            }
            _ => self.error(
                self.offset(),
                &format!("{sign} is missing"),
                &format!("write {sign} here"),
            ),
        }
    }

    /// Goes one level deeper; an error beyond the depth the evaluator allows.
    fn deeper(&mut self) -> Result<(), ExprError> {
        self.depth += 1;
        if self.depth > EXPR_DEPTH_MAX {
            return self.error(
                self.offset(),
                "the expression is nested too deeply",
                &format!("at most {EXPR_DEPTH_MAX} levels are allowed"),
            );
        }
        Ok(())
    }

    fn binary(&mut self, least: u8) -> Result<Ast, ExprError> {
        self.deeper()?;
        let mut left = self.postfix()?;
        while let Some(op) = self
            .tokens
            .get(self.at)
            .and_then(|(_, token)| Op::of(token))
            .filter(|op| op.binds() >= least)
        {
            self.at += 1;
            let right = self.binary(op.binds() + 1)?;
            left = Ast::Binary(op, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn postfix(&mut self) -> Result<Ast, ExprError> {
        let mut of = self.primary()?;
        while self.take("[") {
            let key = self.binary(1)?;
            self.want("]")?;
            of = Ast::Index(Box::new(of), Box::new(key));
        }
        Ok(of)
    }

    fn primary(&mut self) -> Result<Ast, ExprError> {
        let Some((offset, token)) = self.tokens.get(self.at) else {
            return self.error(
                self.end,
                "the expression ends too early",
                "an attribute, a text, a number or ( should follow",
            );
        };
        let offset = *offset;
        self.at += 1;
        match token {
            Token::Text(text) => Ok(Ast::Text(offset, text.clone())),
            Token::Int(number) => Ok(Ast::Int(offset, *number)),
            Token::Double(number) => Ok(Ast::Double(offset, *number)),
            Token::Name(name) => self.name(offset, name),
            Token::Sign("(") => {
                let inner = self.binary(1)?;
                self.want(")")?;
                Ok(inner)
            }
            Token::Sign(sign @ ("!" | "-" | "+" | "*")) => self.error(
                offset,
                &format!("{sign} in front of a value is not supported yet"),
                "use == and !=",
            ),
            Token::Sign(sign) => self.error(
                offset,
                &format!("{sign} stands where a value should"),
                "an attribute, a text, a number or ( should stand here",
            ),
        }
    }

    fn name(&mut self, offset: usize, name: &str) -> Result<Ast, ExprError> {
        let call = matches!(self.tokens.get(self.at), Some((_, Token::Sign("("))));
        match name {
            "true" | "false" if !call => Ok(Ast::Bool(offset, name == "true")),
            "match" if call => {
                self.want("(")?;
                let text = self.binary(1)?;
                self.want(",")?;
                let pattern = self.binary(1)?;
                self.want(")")?;
                Ok(Ast::Match(offset, Box::new(text), Box::new(pattern)))
            }
            _ if call => {
                let last = name.rsplit('.').next().unwrap_or(name);
                let known = FUNCTIONS_LATER.contains(&last)
                    || matches!(last, "startsWith" | "endsWith" | "match");
                let what = if known {
                    format!("the function {last} is not supported yet")
                } else {
                    format!("there is no function {name}")
                };
                self.error(offset, &what, "the function is match(text, \"prefix*\")")
            }
            _ if name.ends_with('.') || name.contains("..") => self.error(
                offset,
                &format!("{name} is not an attribute's name"),
                "write e.g. source.labels[\"app\"]",
            ),
            _ => Ok(Ast::Attribute(offset, name.to_owned())),
        }
    }
}
