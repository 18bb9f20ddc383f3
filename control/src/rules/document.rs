//! A file to its documents, a document to an object.

use std::sync::Arc;

use super::cursor::{Cursor, Fields, Report, closest, list_words};
use super::error::{RuleError, RuleErrors};
use super::node::{self, Node};
use super::object::{Kind, Object, ObjectKey};
use super::place::Place;
use super::{DEFAULT_NAMESPACE, read};

/// Bytes of one file of rules.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One document of a file.
struct Piece<'a> {
    first_line: u32,
    text: std::borrow::Cow<'a, str>,
}

/// Splits at lines that begin with `---` or `...`: YAML allows neither inside any scalar, so this
/// is exact (YAML 1.2, production c-forbidden).
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1_u32, 0);
    let mut blank_marker = false;
    let mut close = |start: usize, end: usize, line: u32, blank: bool| {
        let body = &text[start..end];
        found.push(Piece {
            first_line: line,
            text: if blank {
                format!("   {}", &body[3..]).into()
            } else {
                body.into()
            },
        });
    };
    for (at, line) in (1_u32..).zip(text.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .or_else(|| line.strip_prefix("..."));
        let ends =
            marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if ends {
            close(start, offset, start_line, blank_marker);
            let begins_here = marker.is_some_and(|rest| {
                let rest = rest.trim();
                !rest.is_empty() && !rest.starts_with('#')
            });
            if begins_here {
                (start, start_line, blank_marker) = (offset, at, true);
            } else {
                (start, start_line, blank_marker) = (offset + line.len(), at + 1, false);
            }
        }
        offset += line.len();
    }
    close(start, text.len(), start_line, blank_marker);
    found
}

pub(super) fn parse_file(file: &str, text: &str) -> Result<Vec<Object>, RuleErrors> {
    if text.len() > FILE_BYTES_MAX {
        return Err(RuleErrors(vec![RuleError {
            file: file.to_owned(),
            place: start(1),
            what: format!("the file is {} bytes long", text.len()),
            fix: format!("at most {FILE_BYTES_MAX} are allowed: split it"),
        }]));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut objects: Vec<Object> = Vec::new();
    let mut errors = Vec::new();
    for piece in pieces(text) {
        match parse_one(file, piece.first_line, &piece.text) {
            Ok(None) => {}
            Ok(Some(object)) => {
                if let Some(first) = objects.iter().find(|other| other.key == object.key) {
                    errors.push(RuleError {
                        file: file.to_owned(),
                        place: start(piece.first_line),
                        what: format!(
                            "{} is given twice, first at line {}",
                            object.key, first.first_line
                        ),
                        fix: "keep one of them".to_owned(),
                    });
                }
                objects.push(object);
            }
            Err(RuleErrors(more)) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(objects)
    } else {
        Err(RuleErrors(errors))
    }
}

fn start(line: u32) -> Place {
    Place {
        line,
        column: 1,
        field: String::new(),
    }
}

pub(super) fn parse_one(
    file: &str,
    first_line: u32,
    text: &str,
) -> Result<Option<Object>, RuleErrors> {
    let blank = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if blank {
        return Ok(None);
    }
    let report = Report::new(file, first_line, text);
    let node = match node::read(text) {
        Ok(node) => node,
        Err(error) => {
            let place = report.place(error.spot, "");
            report.fail(
                place,
                format!("this is not YAML: {}", error.what),
                "put the text right; YAML indents with spaces",
            );
            return Err(RuleErrors(report.finish()));
        }
    };
    let object = read_object(file, first_line, text, &node, &report);
    match object {
        Some(object) if report.is_clean() => Ok(Some(object)),
        _ => Err(RuleErrors(report.finish())),
    }
}

fn read_object<'a>(
    file: &str,
    first_line: u32,
    text: &str,
    node: &'a Node,
    report: &'a Report<'a>,
) -> Option<Object> {
    let fields = Cursor::root(node, report)
        .fields(&["apiVersion", "kind", "metadata", "spec"], &["status"])?;
    let kind = read_kind(&fields);
    let key = kind.and_then(|kind| read_metadata(&fields, kind));
    let spec = kind.and_then(|kind| {
        let namespace = key
            .as_ref()
            .map_or(DEFAULT_NAMESPACE, |key| key.namespace.as_str());
        read::spec(kind, namespace, &fields)
    });
    Some(Object {
        key: key?,
        file: Arc::from(file),
        first_line,
        text: Arc::from(text),
        spec: spec?,
    })
}

fn read_kind(fields: &Fields<'_>) -> Option<Kind> {
    let version = fields.require("apiVersion", "write e.g. networking.istio.io/v1");
    let kind = fields.require("kind", "write e.g. VirtualService");
    let (version_at, kind_at) = (version?, kind?);
    let (version, kind) = (version_at.string()?, kind_at.string()?);
    let (group, number) = version.split_once('/').unwrap_or((version.as_str(), ""));
    let Some(versions) = Kind::versions_of(group) else {
        let groups: Vec<&str> = Kind::groups().collect();
        let fix = closest(group, &groups).map_or_else(
            || format!("the groups are {}", list_words(&groups)),
            |near| format!("did you mean {near}?"),
        );
        version_at.fail(format!("the API group {group:?} is not known"), fix);
        return None;
    };
    if !versions.contains(&number) {
        version_at.fail(
            format!("{group} has no version {number:?} here"),
            format!("the versions are {}", list_words(versions)),
        );
        return None;
    }
    let found = Kind::kinds_of(group)
        .iter()
        .find(|known| known.name() == kind);
    if found.is_none() {
        let names: Vec<&str> = Kind::kinds_of(group).iter().map(|k| k.name()).collect();
        let fix = closest(&kind, &names).map_or_else(
            || format!("the kinds of {group} are {}", list_words(&names)),
            |near| format!("did you mean {near}?"),
        );
        kind_at.fail(format!("the kind {kind:?} is not supported yet"), fix);
    }
    found.copied()
}

fn read_metadata(fields: &Fields<'_>, kind: Kind) -> Option<ObjectKey> {
    let fix = "write metadata: {name: NAME}";
    let metadata = fields.require("metadata", fix)?.fields(
        &["name", "namespace", "labels", "annotations"],
        &["generateName"],
    )?;
    let name = metadata.require("name", "every object has a name");
    let name = name.and_then(|at| checked_name(&at));
    let namespace = match metadata.get("namespace") {
        None => Some(DEFAULT_NAMESPACE.to_owned()),
        Some(at) => checked_name(&at),
    };
    for field in ["labels", "annotations"] {
        if let Some(at) = metadata.get(field) {
            at.string_map();
        }
    }
    Some(ObjectKey {
        kind,
        namespace: namespace?,
        name: name?,
    })
}

fn checked_name(at: &Cursor<'_>) -> Option<String> {
    let name = at.string()?;
    let fits = name.len() <= 253
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_')
        });
    if !fits {
        at.fail(
            format!("{name:?} is not a name"),
            "use small letters, digits, '-' and '.', at most 253",
        );
        return None;
    }
    Some(name)
}
