//! A walk through a document that knows its field path and collects faults instead of stopping.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use super::error::RuleError;
use super::node::{Key, Node, Spot, Yaml};
use super::place::{At, Place};
use super::scalar::parse_duration_ms;

/// Faults of one document reported at most; the rest would only scroll the first away.
const ERRORS_MAX: usize = 50;

/// Where faults of one document go.
#[derive(Debug)]
pub(super) struct Report<'a> {
    file: &'a str,
    /// Lines before the document in its file.
    lines_before: u32,
    text: &'a str,
    errors: RefCell<Vec<RuleError>>,
    count: Cell<usize>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, first_line: u32, text: &'a str) -> Self {
        Self {
            file,
            lines_before: first_line.saturating_sub(1),
            text,
            errors: RefCell::default(),
            count: Cell::new(0),
        }
    }

    pub(super) fn place(&self, spot: Spot, field: &str) -> Place {
        Place {
            line: spot.line.saturating_add(self.lines_before),
            column: spot.column,
            field: field.to_owned(),
        }
    }

    pub(super) fn fail(&self, place: Place, what: impl Into<String>, fix: impl Into<String>) {
        self.count.set(self.count.get() + 1);
        if self.count.get() <= ERRORS_MAX {
            self.errors.borrow_mut().push(RuleError {
                file: self.file.to_owned(),
                place,
                what: what.into(),
                fix: fix.into(),
            });
        }
    }

    /// All faults, in the order of the file.
    pub(super) fn finish(self) -> Vec<RuleError> {
        let mut errors = self.errors.into_inner();
        errors.sort();
        errors.dedup();
        errors
    }

    pub(super) fn is_clean(&self) -> bool {
        self.count.get() == 0
    }
}

/// One value under examination.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    node: &'a Node,
    /// Where the value's key stands, if it has one.
    key: Option<Spot>,
    path: String,
    report: &'a Report<'a>,
}

/// The fields of a mapping.
pub(super) struct Fields<'a> {
    cursor: Cursor<'a>,
    entries: &'a [(Key, Node)],
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node, report: &'a Report<'a>) -> Self {
        Self {
            node,
            key: None,
            path: String::new(),
            report,
        }
    }

    /// Where the value stands. A list written in lines begins with its first item for the parser;
    /// people look for it at its key.
    pub(super) fn place(&self) -> Place {
        let flow = || {
            let span = self.node.span.clone();
            let raw = span.and_then(|span| self.report.text.get(span));
            raw.is_none_or(|raw| raw.starts_with('['))
        };
        let spot = match (&self.node.yaml, self.key) {
            (Yaml::Seq(_), Some(key)) if !flow() => key,
            _ => self.node.spot,
        };
        self.report.place(spot, &self.path)
    }

    /// Where the key of the value stands; the value itself, where it has none.
    pub(super) fn key_place(&self) -> Place {
        self.report
            .place(self.key.unwrap_or(self.node.spot), &self.path)
    }

    pub(super) fn at<T>(&self, value: T) -> At<T> {
        At {
            value,
            place: self.place(),
        }
    }

    pub(super) fn fail(&self, what: impl Into<String>, fix: impl Into<String>) {
        self.report.fail(self.place(), what, fix);
    }

    /// A fault inside a text: `offset` bytes into the value. Exact where the text is written in one
    /// piece (plain, or quoted without escapes); else it names the character.
    pub(super) fn fail_inside(
        &self,
        value: &str,
        offset: usize,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let what = what.into();
        let before = value.get(..offset).map_or(0, |text| text.chars().count());
        let mut place = self.place();
        let shift = self.node.span.clone().and_then(|span| {
            let raw = self.report.text.get(span)?;
            let quoted = raw
                .strip_prefix(['"', '\''])
                .is_some_and(|rest| rest.starts_with(value));
            match (raw.starts_with(value), quoted) {
                (true, _) => Some(0),
                (_, true) => Some(1),
                _ => None,
            }
        });
        if let Some(shift) = shift.filter(|_| !value.contains('\n')) {
            place.column += u32::try_from(before + shift).unwrap_or(0);
            self.report.fail(place, what, fix);
        } else {
            let what = format!("{what} (character {} of the text)", before + 1);
            self.report.fail(place, what, fix);
        }
    }

    fn wrong_kind(&self, wanted: &str) {
        let got = self.node.yaml.a_kind();
        self.fail(format!("this is {got}"), format!("write {wanted}"));
    }

    pub(super) fn is_empty_mapping(&self) -> bool {
        matches!(&self.node.yaml, Yaml::Map(entries) if entries.is_empty())
    }

    /// A mapping with these fields. `later` are fields of the kind that we do not do yet.
    pub(super) fn fields(&self, known: &[&str], later: &[&str]) -> Option<Fields<'a>> {
        let Yaml::Map(entries) = &self.node.yaml else {
            self.wrong_kind(&format!("a mapping with {}", list_words(known)));
            return None;
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            let name = key.text.as_str();
            let place = self.report.place(key.spot, &self.path_of(name));
            if entries[..at].iter().any(|(other, _)| other.text == name) {
                self.report
                    .fail(place, "this field is given twice", "keep one of them");
            } else if later.contains(&name) {
                self.report.fail(
                    place,
                    format!("{name} is not supported yet"),
                    "remove it: ringmesh refuses a rule rather than carry out half of it",
                );
            } else if !known.contains(&name) {
                let fix = closest(name, known).map_or_else(
                    || format!("the fields here are {}", list_words(known)),
                    |near| format!("did you mean {near}?"),
                );
                self.report
                    .fail(place, format!("unknown field {name:?}"), fix);
            }
        }
        Some(Fields {
            cursor: self.clone(),
            entries,
        })
    }

    /// A list; empty where it is none (a fault then).
    pub(super) fn list(&self) -> Vec<Self> {
        let Yaml::Seq(items) = &self.node.yaml else {
            self.wrong_kind("a list: lines that begin with '-'");
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(at, node)| Self {
                node,
                key: None,
                path: format!("{}[{at}]", self.path),
                report: self.report,
            })
            .collect()
    }

    /// A mapping whose keys are names of the user's.
    pub(super) fn entries(&self) -> Vec<(&'a str, Self)> {
        let Yaml::Map(entries) = &self.node.yaml else {
            self.wrong_kind("a mapping, e.g. {version: v1}");
            return Vec::new();
        };
        let mut found: Vec<(&'a str, Self)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = self.path_of(&key.text);
            if found.iter().any(|(name, _)| *name == key.text) {
                let place = self.report.place(key.spot, &path);
                self.report
                    .fail(place, "this key is given twice", "keep one of them");
            }
            let value = Self {
                node,
                key: Some(key.spot),
                path,
                report: self.report,
            };
            found.push((&key.text, value));
        }
        found
    }

    /// Any text.
    pub(super) fn any_string(&self) -> Option<String> {
        match &self.node.yaml {
            Yaml::Text(text) => Some(text.clone()),
            Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {
                let span = self.node.span.clone();
                let raw = span.and_then(|span| self.report.text.get(span));
                let fix = raw.map_or_else(
                    || "put it in quotes".to_owned(),
                    |raw| format!("write \"{}\" in quotes", raw.trim()),
                );
                self.fail(
                    format!("a text is wanted, this is {}", self.node.yaml.a_kind()),
                    fix,
                );
                None
            }
            _ => {
                self.wrong_kind("a text");
                None
            }
        }
    }

    /// A text that is not empty.
    pub(super) fn string(&self) -> Option<String> {
        let text = self.any_string()?;
        if text.is_empty() {
            self.fail("this text is empty", "name something");
            return None;
        }
        Some(text)
    }

    /// The same with its place.
    pub(super) fn text(&self) -> Option<At<String>> {
        self.string().map(|text| self.at(text))
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, min: u64, max: u64) -> Option<u64> {
        let range = format!("write a whole number from {min} to {max}");
        match self.node.yaml {
            Yaml::Int(number) => {
                let fits = u64::try_from(number)
                    .ok()
                    .filter(|n| (min..=max).contains(n));
                if fits.is_none() {
                    self.fail(format!("{number} is out of range"), range);
                }
                fits
            }
            Yaml::Float(number) => {
                self.fail(format!("{number} is not a whole number"), range);
                None
            }
            _ => {
                self.fail(format!("this is {}", self.node.yaml.a_kind()), range);
                None
            }
        }
    }

    /// A port number.
    pub(super) fn port(&self) -> Option<u16> {
        self.number(1, 65_535).and_then(|n| u16::try_from(n).ok())
    }

    /// A 32-bit number.
    pub(super) fn number_u32(&self, min: u32, max: u32) -> Option<u32> {
        self.number(min.into(), max.into())
            .and_then(|n| u32::try_from(n).ok())
    }

    /// A number, fractions allowed.
    pub(super) fn fraction(&self) -> Option<f64> {
        match self.node.yaml {
            #[expect(clippy::cast_precision_loss, reason = "checked against 100 by callers")]
            Yaml::Int(number) => Some(number as f64),
            Yaml::Float(number) => Some(number),
            _ => {
                self.wrong_kind("a number");
                None
            }
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if let Yaml::Bool(value) = self.node.yaml {
            return Some(value);
        }
        self.fail(
            format!("this is {}", self.node.yaml.a_kind_or_text()),
            "write true or false",
        );
        None
    }

    /// A duration in milliseconds; `zero` where 0 has a meaning.
    pub(super) fn duration_ms(&self, zero: bool) -> Option<u64> {
        let text = match &self.node.yaml {
            Yaml::Text(text) => text,
            Yaml::Int(number) => {
                self.fail(
                    format!("{number} has no unit"),
                    format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
                );
                return None;
            }
            _ => {
                self.wrong_kind("a duration, e.g. 10s, 1.5s, 250ms or 1h30m");
                return None;
            }
        };
        match parse_duration_ms(text) {
            Ok(0) if !zero => {
                self.fail("a duration of 0 means nothing here", "write at least 1ms");
                None
            }
            Ok(ms) => Some(ms),
            Err(why) => {
                self.fail(
                    format!("{text:?} is not a duration: {why}"),
                    "write e.g. 10s, 1.5s, 250ms or 1h30m",
                );
                None
            }
        }
    }

    /// A life: a whole number and a unit up to days.
    pub(super) fn life(&self) -> Option<Duration> {
        match &self.node.yaml {
            Yaml::Text(text) => crate::time::parse_life(text)
                .map_err(|why| {
                    let (what, fix) = why.split_once("; ").unwrap_or((&why, "write e.g. 24h"));
                    self.fail(what, fix);
                })
                .ok(),
            Yaml::Int(number) => {
                self.fail(
                    format!("{number} has no unit"),
                    format!("write {number}s for seconds, or e.g. 30m, 24h or 90d"),
                );
                None
            }
            _ => {
                self.wrong_kind("a duration, e.g. 5s, 30m, 24h or 90d");
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn pick<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Yaml::Text(text) = &self.node.yaml else {
            self.wrong_kind(&format!("one of {}", list_words(&words)));
            return None;
        };
        let found = choices.iter().find(|(word, _)| word == text);
        if found.is_none() {
            self.fail(
                format!("{text:?} is not known here"),
                format!("write one of {}", list_words(&words)),
            );
        }
        found.map(|(_, value)| *value)
    }

    /// A mapping of texts.
    pub(super) fn string_map(&self) -> BTreeMap<String, String> {
        self.entries()
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.any_string()?)))
            .collect()
    }

    /// A list of texts that are not empty.
    pub(super) fn string_list(&self) -> Vec<At<String>> {
        self.list().iter().filter_map(Self::text).collect()
    }

    fn path_of(&self, name: &str) -> String {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        match (self.path.is_empty(), plain) {
            (true, true) => name.to_owned(),
            (false, true) => format!("{}.{name}", self.path),
            (_, false) => format!("{}[{name:?}]", self.path),
        }
    }
}

impl Yaml {
    /// Like `a_kind`, showing short texts.
    fn a_kind_or_text(&self) -> String {
        match self {
            Self::Text(text) if text.len() <= 40 => format!("{text:?}"),
            other => other.a_kind().to_owned(),
        }
    }
}

impl<'a> Fields<'a> {
    /// A field that is there and not empty (null counts as absent, as in protobuf's JSON).
    pub(super) fn get(&self, name: &str) -> Option<Cursor<'a>> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        (!matches!(node.yaml, Yaml::Null)).then(|| Cursor {
            node,
            key: Some(key.spot),
            path: self.cursor.path_of(name),
            report: self.cursor.report,
        })
    }

    /// A field that must be there.
    pub(super) fn require(&self, name: &str, fix: &str) -> Option<Cursor<'a>> {
        let found = self.get(name);
        if found.is_none() {
            let spot = self
                .entries
                .iter()
                .find(|(key, _)| key.text == name)
                .map_or(self.cursor.node.spot, |(key, _)| key.spot);
            let place = self.cursor.report.place(spot, &self.cursor.path_of(name));
            self.cursor
                .report
                .fail(place, format!("{name} is missing"), fix);
        }
        found
    }

    /// A field that says something if it is written at all, null being no way to leave it out: for mappings
    /// whose absence means "all" or "as elsewhere", where one that somebody forgot to fill hardly does.
    pub(super) fn filled(&self, name: &str) -> Option<Cursor<'a>> {
        let found = self.get(name);
        if found.is_none()
            && let Some((key, _)) = self.entries.iter().find(|(key, _)| key.text == name)
        {
            let report = self.cursor.report;
            report.fail(
                report.place(key.spot, &self.cursor.path_of(name)),
                format!("{name} is empty"),
                "give it fields, or remove it if it is to say nothing",
            );
        }
        found
    }

    /// The list in a field that has entries if it is written at all, null being no way to leave it
    /// out: for lists whose absence means "any", where an empty one hardly does.
    pub(super) fn filled_list(&self, name: &str) -> Vec<Cursor<'a>> {
        let found = self.get(name);
        let key = self.entries.iter().find(|(key, _)| key.text == name);
        let spot = match (&found, key) {
            (Some(field), _) if matches!(&field.node.yaml, Yaml::Seq(all) if all.is_empty()) => {
                field.node.spot
            }
            (None, Some((key, _))) => key.spot,
            _ => return found.map(|field| field.list()).unwrap_or_default(),
        };
        let report = self.cursor.report;
        report.fail(
            report.place(spot, &self.cursor.path_of(name)),
            format!("{name} has no entries"),
            "give it one, or remove it if it is to say nothing",
        );
        Vec::new()
    }

    /// The list in a field; empty if absent.
    pub(super) fn list(&self, name: &str) -> Vec<Cursor<'a>> {
        self.get(name).map(|field| field.list()).unwrap_or_default()
    }
}

/// `a, b and c`
pub(crate) fn list_words(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// The word that is most likely meant, if any is near.
pub(crate) fn closest<'w>(word: &str, among: &[&'w str]) -> Option<&'w str> {
    among
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words, ignoring case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_ascii_lowercase().chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = cost.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
