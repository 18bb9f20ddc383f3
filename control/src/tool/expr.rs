//! `ringmesh expr`: how an expression of a rule is understood.

use std::process::ExitCode;

use clap::Args;
use ringmesh_tuning::{errln, out, outln};
use ringmesh_wire::v1::Value;

use crate::expr::{
    ATTRIBUTES, Attributes, Type, check, evaluate, is_service, lower, parse, short, type_of,
};

/// Show how an expression is understood: its tree, its type, its value.
///
/// destination.service, source.service and their .host are NAME.NAMESPACE, of a ServiceEntry's host
/// with a dot the host; what is compared or matched with them may have .svc or .svc.cluster.local
/// behind.
///
/// Example: ringmesh expr 'source.labels["app"] | "unknown"' --attr 'source.labels[app]=reviews'
///
/// Exit status: 0 it is sound; 2 it is not (EXPR:1:COLUMN: what is wrong; what would be right).
#[derive(Args, Debug)]
pub struct ExprArgs {
    /// The expression.
    #[arg(required_unless_present = "attributes")]
    expression: Option<String>,
    /// An attribute to evaluate it with: NAME=VALUE, or NAME[KEY]=VALUE for one entry of a map. May
    /// be given several times; without any no value is shown.
    #[arg(long = "attr", value_name = "NAME=VALUE")]
    attr: Vec<String>,
    /// List all attributes and their types.
    #[arg(long)]
    attributes: bool,
}

/// Runs it.
#[must_use]
pub fn run(args: &ExprArgs) -> ExitCode {
    if args.attributes {
        for (name, of) in ATTRIBUTES {
            outln!("{name:<32} {of}");
        }
    }
    let Some(text) = &args.expression else {
        return ExitCode::SUCCESS;
    };
    match shown(text, &args.attr) {
        Ok(out) => {
            out!("{out}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            errln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn shown(text: &str, attr: &[String]) -> Result<String, String> {
    let place = |error: crate::expr::ExprError| {
        let before = text.get(..error.offset).unwrap_or(text);
        let column = before.chars().count() + 1;
        format!("EXPR:1:{column}: {}; {}", error.what, error.fix)
    };
    let ast = parse(text).map_err(place)?;
    let found = check(&ast).map_err(place)?;
    let expr = lower(&ast).map_err(place)?;
    let mut out = format!("{ast}\n\n{}\ntype: {found}\n", ast.tree());
    if !attr.is_empty() {
        let with = attributes(attr)?;
        match evaluate(&expr, &with) {
            Some(value) => out.push_str(&format!("value: {}\n", plain(&value))),
            None => out.push_str(
                "value: none: an attribute it needs is absent (a rule does not match then)\n",
            ),
        }
    }
    Ok(out)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::DurationNs(ns) => format!("{ns}ns"),
    }
}

fn attributes(given: &[String]) -> Result<Attributes, String> {
    let mut with = Attributes::default();
    for one in given {
        let (name, value) = one
            .split_once('=')
            .ok_or_else(|| format!("--attr {one}: there is no =; write NAME=VALUE"))?;
        let entry = name
            .split_once('[')
            .and_then(|(map, key)| Some((map, key.strip_suffix(']')?.trim_matches('"'))));
        if let Some((map, key)) = entry {
            if type_of(map) != Some(Type::Map) {
                return Err(format!("--attr {one}: {map} is not a map of texts"));
            }
            let map = with.maps.entry(map.to_owned()).or_default();
            map.insert(key.to_owned(), value.to_owned());
            continue;
        }
        let wrong = |of: Type| format!("--attr {one}: {value:?} is not {of}");
        let value = match type_of(name) {
            None => return Err(format!("--attr {one}: there is no attribute {name}")),
            Some(Type::Map) => {
                return Err(format!("--attr {one}: write one entry: {name}[KEY]=VALUE"));
            }
            // As a sidecar has it.
            Some(Type::Text) if is_service(name) => {
                let short = short(value).map_err(|why| format!("--attr {one}: {why}"))?;
                Value::String(short.to_owned())
            }
            Some(Type::Text) => Value::String(value.to_owned()),
            Some(of @ Type::Int) => Value::Int(value.parse().map_err(|_| wrong(of))?),
            Some(of @ Type::Double) => Value::Double(value.parse().map_err(|_| wrong(of))?),
            Some(of @ Type::Bool) => Value::Bool(value.parse().map_err(|_| wrong(of))?),
            Some(of @ Type::Ip) => Value::Ip(value.parse().map_err(|_| wrong(of))?),
        };
        with.values.insert(name.to_owned(), value);
    }
    Ok(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_type_and_value_are_shown() {
        let attr = ["source.labels[app]=reviews".to_owned()];
        let out = shown("source.labels[\"app\"] == \"reviews\"", &attr).unwrap();
        expect_test::expect![[r#"
            source.labels["app"] == "reviews"

            ==
              []
                source.labels
                "app"
              "reviews"

            type: true or false
            value: true
        "#]]
        .assert_eq(&out);
        let wrong = shown("source.lables[\"é\"] < 1", &[]).unwrap_err();
        assert_eq!(
            wrong,
            "EXPR:1:20: < is not supported yet; the operators are == != && || | and [ ]"
        );
        let long = "destination.service == \"ratings.default.svc.cluster.local\"";
        for name in ["ratings.default", "ratings.default.svc.cluster.local"] {
            let out = shown(long, &[format!("destination.service={name}")]).unwrap();
            assert!(out.ends_with("value: true\n"), "{out}");
        }
        assert!(shown("true", &["x=1".to_owned()]).is_err());
        assert!(shown("true", &["destination.port=a".to_owned()]).is_err());
    }
}
