//! YAML as a tree of nodes that know where they stand in the file.
//!
//! A derived `Deserialize` knows the place of an error but not the path of the field, and says
//! what serde expected rather than what would be right. Walking a small tree by hand says both.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::Mistake;

/// A node of the file.
pub(super) type Node = Spanned<Shape>;

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl Shape {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float => "a fractional number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Shape, E> {
        Ok(Shape::Int(value))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Float)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Shape::Map(entries))
    }
}

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        // A node may be called `n` or `no`: only true and false are booleans (YAML 1.2).
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().unwrap_or(Location::UNKNOWN);
        // The parser repeats the place in its own words; ours stands in front already.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).trim();
        Mistake::new(
            at,
            "(the file)",
            format!("not readable as YAML: {message}"),
            "one YAML mapping as in docs/sidecar-yaml.md",
        )
    })
}

/// A node and the path that leads to it.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: &'n Node,
}

impl<'n> Field<'n> {
    pub(super) fn at(&self) -> Location {
        self.node.referenced
    }

    pub(super) fn mistake(&self, wrong: impl Into<String>, right: impl Into<String>) -> Mistake {
        Mistake::new(self.at(), &self.path, wrong, right)
    }

    fn wrong_shape(&self, right: &str) -> Mistake {
        let name = self.node.value.name();
        self.mistake(format!("{name} stands here"), right)
    }

    pub(super) fn text(&self, right: &str) -> Result<&'n str, Mistake> {
        match &self.node.value {
            Shape::Text(text) => Ok(text),
            Shape::Int(_) | Shape::Float | Shape::Bool(_) => Err(self.mistake(
                format!("{} stands here", self.node.value.name()),
                format!("{right}, in quotes if it looks like a number"),
            )),
            _ => Err(self.wrong_shape(right)),
        }
    }

    pub(super) fn bool(&self, right: &str) -> Result<bool, Mistake> {
        match self.node.value {
            Shape::Bool(value) => Ok(value),
            _ => Err(self.wrong_shape(right)),
        }
    }

    /// A whole number inside `range`.
    pub(super) fn int(
        &self,
        range: std::ops::RangeInclusive<i128>,
        right: &str,
    ) -> Result<i128, Mistake> {
        match self.node.value {
            Shape::Int(value) if range.contains(&value) => Ok(value),
            Shape::Int(value) => Err(self.mistake(format!("{value} is out of range"), right)),
            _ => Err(self.wrong_shape(right)),
        }
    }

    pub(super) fn list(&self, right: &str) -> Result<Vec<Self>, Mistake> {
        let Shape::List(items) = &self.node.value else {
            return Err(self.wrong_shape(right));
        };
        Ok(items
            .iter()
            .enumerate()
            .map(|(at, node)| Field {
                path: format!("{}[{at}]", self.path),
                node,
            })
            .collect())
    }

    /// The entries of a mapping, each with the place of its key.
    pub(super) fn entries(&self, right: &str) -> Result<Vec<(&'n Spanned<String>, Self)>, Mistake> {
        let Shape::Map(entries) = &self.node.value else {
            return Err(self.wrong_shape(right));
        };
        let path = |key: &str| match self.path.as_str() {
            "" => key.to_owned(),
            parent => format!("{parent}.{key}"),
        };
        Ok(entries
            .iter()
            .map(|(key, node)| {
                let field = Field {
                    path: path(&key.value),
                    node,
                };
                (key, field)
            })
            .collect())
    }

    /// A mapping whose keys are known. Any other key is refused.
    pub(super) fn record(&self, keys: &[&str], right: &str) -> Result<Record<'n>, Mistake> {
        let entries = self.entries(right)?;
        for (key, field) in &entries {
            if !keys.contains(&key.value.as_str()) {
                return Err(Mistake::new(
                    key.referenced,
                    &field.path,
                    "unknown field",
                    format!("one of {}", keys.join(", ")),
                ));
            }
        }
        Ok(Record {
            of: self.clone(),
            fields: entries.into_iter().map(|(_, field)| field).collect(),
        })
    }
}

/// A mapping with known keys.
#[derive(Debug)]
pub(super) struct Record<'n> {
    of: Field<'n>,
    fields: Vec<Field<'n>>,
}

impl<'n> Record<'n> {
    fn path(&self, key: &str) -> String {
        match self.of.path.as_str() {
            "" => key.to_owned(),
            parent => format!("{parent}.{key}"),
        }
    }

    /// The field, if it is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Field<'n>> {
        let path = self.path(key);
        self.fields
            .iter()
            .find(|field| field.path == path && !matches!(field.node.value, Shape::Null))
    }

    /// The field, or a complaint at the place of the mapping.
    pub(super) fn need(&self, key: &str, right: &str) -> Result<&Field<'n>, Mistake> {
        self.get(key)
            .ok_or_else(|| Mistake::new(self.of.at(), self.path(key), "missing", right))
    }
}
