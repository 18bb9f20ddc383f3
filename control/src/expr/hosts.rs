//! Names of services: what an expression compares with one is brought to the form it has in a
//! sidecar.
//!
//! There `destination.service` and its like are `NAME.NAMESPACE`, but for hosts outside the mesh, where
//! they are the host. Rules written for Mixer say `NAME.NAMESPACE.svc.cluster.local`, some `NAME.NAMESPACE.svc`; left as they are,
//! they would never match.

use ringmesh_wire::ids::{LONG_FORM_END as LONG, short_form};

use super::ExprError;
use super::ast::{Ast, Op};

/// Attributes that are the name of a service.
const SERVICES: [&str; 4] = [
    "destination.service",
    "destination.service.host",
    "source.service",
    "source.service.host",
];

/// Whether an attribute is the name of a service.
#[must_use]
pub fn is_service(attribute: &str) -> bool {
    SERVICES.contains(&attribute)
}

/// A service's name in the form it has in a sidecar; other texts as they are. The error is what is
/// wrong with one that would be no service's.
///
/// # Errors
/// A long form without a namespace.
pub fn short(name: &str) -> Result<&str, &'static str> {
    match short_form(name) {
        None if name.ends_with(LONG) => Err("no service has this name"),
        short => Ok(short.unwrap_or(name)),
    }
}

/// The expression with such names in their short form.
///
/// # Errors
/// [`ExprError`] at a text whose short form cannot be told.
pub(super) fn shortened(ast: &Ast) -> Result<Ast, ExprError> {
    Ok(match ast {
        Ast::Binary(op @ (Op::Eq | Op::Ne), left, right) => {
            let (of_left, of_right) = (Named::of(left), Named::of(right));
            Ast::Binary(
                *op,
                Box::new(texts(&shortened(left)?, &of_right)?),
                Box::new(texts(&shortened(right)?, &of_left)?),
            )
        }
        Ast::Binary(Op::Default, ..) => {
            let own = Named::of(ast);
            texts(&below_default(ast)?, &own)?
        }
        Ast::Binary(op, left, right) => {
            Ast::Binary(*op, Box::new(shortened(left)?), Box::new(shortened(right)?))
        }
        Ast::Index(map, key) => Ast::Index(Box::new(shortened(map)?), Box::new(shortened(key)?)),
        Ast::Match(at, text, pattern) => {
            let named = Named::of(text);
            let text = shortened(text)?;
            match &**pattern {
                Ast::Text(place, pattern) if named.service => {
                    matched(*at, text, *place, pattern, &named)?
                }
                other => {
                    if named.service {
                        no_long_patterns(other)?;
                    }
                    Ast::Match(*at, Box::new(text), Box::new(shortened(other)?))
                }
            }
        }
        leaf => leaf.clone(),
    })
}

/// The operands of a chain of `|`, each for itself.
fn below_default(ast: &Ast) -> Result<Ast, ExprError> {
    match ast {
        Ast::Binary(Op::Default, left, right) => Ok(Ast::Binary(
            Op::Default,
            Box::new(below_default(left)?),
            Box::new(below_default(right)?),
        )),
        other => shortened(other),
    }
}

/// What a value may be.
#[derive(Debug, Default)]
struct Named {
    /// The name of a service.
    service: bool,
    /// What a client wrote, where a long form may stand as it is.
    request: bool,
}

impl Named {
    fn of(ast: &Ast) -> Self {
        let request = |name: &str| name.starts_with("request.");
        match ast {
            Ast::Attribute(_, name) => Self {
                service: is_service(name),
                request: request(name),
            },
            Ast::Index(map, _) => Self {
                service: false,
                request: matches!(&**map, Ast::Attribute(_, name) if request(name)),
            },
            Ast::Binary(Op::Default, left, right) => {
                let (left, right) = (Self::of(left), Self::of(right));
                Self {
                    service: left.service || right.service,
                    request: left.request || right.request,
                }
            }
            _ => Self::default(),
        }
    }
}

fn wrong<T>(offset: usize, text: &str, what: &str, fix: &str) -> Result<T, ExprError> {
    Err(ExprError {
        offset,
        what: format!("{text:?}: {what}"),
        fix: fix.to_owned(),
    })
}

const FIX: &str = "write NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local";

/// Texts of `ast`, alone or as one of several by `|`, that stand where the name of a service may.
fn texts(ast: &Ast, other: &Named) -> Result<Ast, ExprError> {
    match ast {
        Ast::Text(at, text) if other.service => {
            let Ok(short) = short(text) else {
                return wrong(*at, text, "no service has this name", FIX);
            };
            if short != text {
                alone(*at, text, other)?;
            }
            Ok(Ast::Text(*at, short.to_owned()))
        }
        Ast::Binary(Op::Default, left, right) => Ok(Ast::Binary(
            Op::Default,
            Box::new(texts(left, other)?),
            Box::new(texts(right, other)?),
        )),
        other => Ok(other.clone()),
    }
}

/// Refuses a long form beside a value that a client may have written so.
fn alone(at: usize, text: &str, named: &Named) -> Result<(), ExprError> {
    if named.request {
        let what = "this stands for the name of a service, and for what a client wrote";
        return wrong(at, text, what, "compare the two apart, with ||");
    }
    Ok(())
}

/// `match(text, pattern)`, which holds where the long form of the name matches `pattern`.
fn matched(
    at: usize,
    text: Ast,
    place: usize,
    pattern: &str,
    named: &Named,
) -> Result<Ast, ExprError> {
    let same = |text: Ast| {
        let pattern = Ast::Text(place, pattern.to_owned());
        Ast::Match(at, Box::new(text), Box::new(pattern))
    };
    if let Some(prefix) = pattern.strip_suffix('*') {
        // What ends inside the long form's end fits one service alone. A namespace may be called
        // svc, so the longest end that leaves a namespace counts.
        let ends = (1..=LONG.len()).rev().filter_map(|bytes| LONG.get(..bytes));
        let mut services = ends.filter_map(|end| prefix.strip_suffix(end));
        let Some(service) = services.find(|service| service.contains('.')) else {
            return Ok(same(text));
        };
        alone(place, pattern, named)?;
        let service = Ast::Text(place, service.to_owned());
        let equal = Ast::Binary(Op::Eq, Box::new(text.clone()), Box::new(service));
        return Ok(Ast::Binary(Op::Or, Box::new(equal), Box::new(same(text))));
    }
    let short = match pattern.strip_prefix('*') {
        None => short(pattern).ok().map(str::to_owned),
        Some(suffix) => short_suffix(suffix).map(|suffix| format!("*{suffix}")),
    };
    let Some(short) = short else {
        let fix = "write *.NAMESPACE, or *.svc.cluster.local for every service";
        return wrong(place, pattern, "this says no namespace", fix);
    };
    if short != pattern {
        alone(place, pattern, named)?;
    }
    let pattern = Ast::Text(place, short);
    Ok(Ast::Match(at, Box::new(text), Box::new(pattern)))
}

/// The end of a short name, given that of a long one; `None` where it may be either.
fn short_suffix(suffix: &str) -> Option<&str> {
    match suffix {
        ".svc.cluster.local" | "svc.cluster.local" | ".cluster.local" | "cluster.local" => Some(""),
        ".local" | "local" => None,
        _ => match (suffix.strip_suffix(LONG), suffix.strip_suffix(".svc")) {
            (Some(rest), _) => Some(rest),
            (None, Some(rest)) => rest.contains('.').then_some(rest),
            (None, None) => Some(suffix),
        },
    }
}

/// Refuses long forms in a pattern that is not one text.
fn no_long_patterns(ast: &Ast) -> Result<(), ExprError> {
    match ast {
        Ast::Text(at, text) if text.contains(".svc") => {
            let what = "the long form of a name in one of several patterns";
            wrong(*at, text, what, "give each pattern a match of its own")
        }
        Ast::Binary(Op::Default, left, right) => {
            no_long_patterns(left)?;
            no_long_patterns(right)
        }
        _ => Ok(()),
    }
}
