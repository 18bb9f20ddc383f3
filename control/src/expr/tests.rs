//! The language, by example and by random trees.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn tree(text: &str, wanted: &Expect) {
    wanted.assert_eq(&parse(text).unwrap().tree());
}

#[test]
fn precedence_is_gos() {
    tree(
        "a.x == b.x | \"c\" && d || match(e, \"f*\")",
        &expect![[r#"
            ||
              &&
                ==
                  a.x
                  |
                    b.x
                    "c"
                d
              match
                e
                "f*"
        "#]],
    );
    tree(
        "destination.labels[\"app\"] | destination.service | \"unknown\"",
        &expect![[r#"
            |
              |
                []
                  destination.labels
                  "app"
                destination.service
              "unknown"
        "#]],
    );
    tree(
        "(a || b) && c != 5",
        &expect![[r#"
            &&
              ||
                a
                b
              !=
                c
                5
        "#]],
    );
}

#[test]
fn faults_have_a_place_and_a_way_out() {
    for (text, offset, what) in [
        ("", 0, "the expression ends too early"),
        ("source.ip ==", 12, "the expression ends too early"),
        ("source.ip = source.ip", 10, "= does not compare"),
        ("\"a\" + \"b\" == \"c\"", 4, "+ is not supported yet"),
        (
            "request.path.startsWith(\"/a\")",
            0,
            "the function startsWith is not supported yet",
        ),
        (
            "ip(\"1.2.3.4\") == source.ip",
            0,
            "the function ip is not supported yet",
        ),
        ("foo(\"a\")", 0, "there is no function foo"),
        (
            "source.lables[\"a\"] == \"b\"",
            0,
            "there is no attribute source.lables",
        ),
        (
            "source.uid == \"x\"",
            0,
            "the attribute source.uid is not supported yet",
        ),
        (
            "source.labels == \"x\"",
            0,
            "source.labels is a map of texts",
        ),
        ("source.labels[5] == \"x\"", 14, "5 is a whole number"),
        (
            "true == destination.port",
            8,
            "destination.port is a whole number",
        ),
        ("source.namespace && true", 0, "source.namespace is a text"),
        ("!true", 0, "! in front of a value is not supported yet"),
        ("request.method == 'GET'", 18, "texts are not quoted with '"),
        ("request.method == \"GET", 18, "this text has no end"),
        ("request.method == \"a\\q\"", 20, "this escape is not known"),
        (
            "match(request.path, \"/a*b\")",
            20,
            "the pattern \"/a*b\" has a * where none may be",
        ),
        (
            "match(request.path)",
            18,
            ") stands where an operator should",
        ),
        (
            "request.method",
            0,
            "this is a text, a condition must be true or false",
        ),
        ("(true", 5, ") is missing"),
        ("true)", 4, ") stands where an operator should"),
        ("12ab == 1", 0, "\"12ab\" is not a number"),
        ("true # x", 5, "'#' has no meaning here"),
    ] {
        let error = compile_condition(text).expect_err(text);
        assert_eq!(
            (error.offset, error.what.as_str()),
            (offset, what),
            "{text}"
        );
        assert!(!error.fix.is_empty(), "{text}");
    }
    let deep = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    assert!(parse(&deep).unwrap_err().what.contains("too deeply"));
    let long = vec!["a"; 3_000].join("&&");
    assert!(parse(&long).unwrap_err().what.contains("too many parts"));
}

#[test]
fn the_vocabulary_is_sorted() {
    assert!(ATTRIBUTES.is_sorted_by(|a, b| a.0 < b.0));
    assert!(vocabulary::LATER.iter().all(|name| type_of(name).is_none()));
}

#[test]
fn evaluation_follows_presence() {
    let mut with = Attributes::default();
    let labels = [("app".to_owned(), "ratings".to_owned())].into();
    with.maps.insert("destination.labels".to_owned(), labels);
    let text = |text: &str| Some(ringmesh_wire::v1::Value::String(text.to_owned()));
    let truth = |truth| Some(ringmesh_wire::v1::Value::Bool(truth));
    for (expr, value) in [
        ("destination.labels[\"app\"] | \"unknown\"", text("ratings")),
        (
            "destination.labels[\"version\"] | \"unknown\"",
            text("unknown"),
        ),
        ("destination.labels[\"version\"]", None),
        ("destination.labels[\"app\"] == \"ratings\"", truth(true)),
        ("source.labels[\"app\"] == \"x\"", None),
        ("false && source.labels[\"app\"] == \"x\"", truth(false)),
        ("true || source.labels[\"app\"] == \"x\"", truth(true)),
        ("match(destination.labels[\"app\"], \"rat*\")", truth(true)),
        ("match(destination.labels[\"app\"], \"*ing\")", truth(false)),
    ] {
        assert_eq!(
            evaluate(&compile_value(expr).unwrap(), &with),
            value,
            "{expr}"
        );
    }
}

/// Whether a condition holds for calls to `ratings.default` by `reviews.default`.
fn holds(condition: &str) -> bool {
    let mut with = Attributes::default();
    for (name, value) in [
        ("destination.service", "ratings.default"),
        ("destination.service.host", "ratings.default"),
        ("source.service", "reviews.default"),
        ("request.host", "ratings.default.svc.cluster.local"),
    ] {
        let value = ringmesh_wire::v1::Value::String(value.to_owned());
        with.values.insert(name.to_owned(), value);
    }
    let compiled = compile_condition(condition).unwrap_or_else(|e| panic!("{condition}: {e}"));
    evaluate(&compiled, &with) == Some(ringmesh_wire::v1::Value::Bool(true))
}

#[test]
fn services_match_by_their_long_names_too() {
    for name in [
        "ratings.default",
        "ratings.default.svc",
        "ratings.default.svc.cluster.local",
    ] {
        assert!(
            holds(&format!("destination.service.host == \"{name}\"")),
            "{name}"
        );
        assert!(
            holds(&format!("\"{name}\" == destination.service")),
            "{name}"
        );
        assert!(
            !holds(&format!("destination.service != \"{name}\"")),
            "{name}"
        );
        assert!(!holds(&format!("source.service == \"{name}\"")), "{name}");
        assert!(
            holds(&format!("match(destination.service, \"{name}\")")),
            "{name}"
        );
        let or =
            format!("(destination.labels[\"app\"] | destination.service | \"x\") == \"{name}\"");
        assert!(holds(&or), "{name}");
    }
    // A value of its own among several is brought to the same form.
    assert!(holds(
        "(source.service.host | \"a.b.svc.cluster.local\") == \"a.b.svc.cluster.local\""
    ));
    for (pattern, wanted) in [
        ("*", true),
        ("*.svc.cluster.local", true),
        ("*.default.svc.cluster.local", true),
        ("*s.default.svc", true),
        ("*.default", true),
        ("*.other.svc.cluster.local", false),
        ("ratings.*", true),
        ("ratings.default.*", true),
        ("ratings.default.svc.*", true),
        ("ratings.default.svc.cluster.local*", true),
        ("ratings.other.svc.*", false),
        ("ratings.default.x*", false),
        ("ratings.def.svc*", false),
        ("rating.*", false),
    ] {
        assert_eq!(
            holds(&format!("match(destination.service, \"{pattern}\")")),
            wanted,
            "{pattern}"
        );
    }
    // As the long name would: every beginning of it, and every end where a label begins.
    let long = "ratings.default.svc.cluster.local";
    for at in 1..=long.len() {
        assert!(
            holds(&format!("match(destination.service, \"{}*\")", &long[..at])),
            "{at}"
        );
    }
    for end in [
        "ratings.default.svc.cluster.local",
        ".default.svc.cluster.local",
        "cluster.local",
    ] {
        assert!(
            holds(&format!("match(destination.service, \"*{end}\")")),
            "{end}"
        );
    }
    // What a client writes is left as it is.
    assert!(holds(
        "request.host == \"ratings.default.svc.cluster.local\""
    ));
    assert!(holds("match(request.host, \"*.svc.cluster.local\")"));
    for (text, offset, what) in [
        (
            "destination.service == \"ratings.svc.cluster.local\"",
            23,
            "\"ratings.svc.cluster.local\": no service has this name",
        ),
        (
            "match(source.service, \"*.local\")",
            22,
            "\"*.local\": this says no namespace",
        ),
        (
            "match(source.service, \"*.svc\")",
            22,
            "\"*.svc\": this says no namespace",
        ),
        (
            "(request.host | source.service) == \"a.b.svc\"",
            35,
            "\"a.b.svc\": this stands for the name of a service, and for what a client wrote",
        ),
        (
            "match(source.service, source.namespace | \"*.svc.cluster.local\")",
            41,
            "\"*.svc.cluster.local\": the long form of a name in one of several patterns",
        ),
    ] {
        let error = compile_condition(text).expect_err(text);
        assert_eq!(
            (error.offset, error.what.as_str()),
            (offset, what),
            "{text}"
        );
    }
}

fn any_ast() -> impl Strategy<Value = Ast> {
    let leaf = prop_oneof![
        "[ -~é\\n\\t]{0,8}".prop_map(|text| Ast::Text(0, text)),
        (0_i64..1_000_000).prop_map(|n| Ast::Int(0, n)),
        (0_u32..1_000).prop_map(|n| Ast::Double(0, f64::from(n) / 8.0)),
        any::<bool>().prop_map(|b| Ast::Bool(0, b)),
        prop::sample::select(ATTRIBUTES.as_slice()).prop_map(|(n, _)| Ast::Attribute(0, n.into())),
    ];
    leaf.prop_recursive(6, 40, 2, |inner| {
        let op = prop::sample::select(vec![Op::Or, Op::And, Op::Eq, Op::Ne, Op::Default]);
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            (op, inner.clone(), inner).prop_map(|(op, a, b)| Ast::Binary(
                op,
                Box::new(a),
                Box::new(b)
            )),
            pair.clone()
                .prop_map(|(a, b)| Ast::Match(0, Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Ast::Index(Box::new(a), Box::new(b))),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,100}") {
        let _ = compile_value(&text);
    }

    #[test]
    fn no_row_of_tokens_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "source.labels", "[", "]", "\"a\"", "==", "&&", "||", "|", "(", ")", "match", ",",
                "5", "true", "1.5", "!", "+", "\"*\"", "\"é*\"",
            ]),
            0..30,
        ),
    ) {
        let text = words.concat();
        if let Ok(expr) = compile_value(&text) {
            prop_assert!(ringmesh_wire::codec::Validate::validate(&expr).is_ok());
            let _ = evaluate(&expr, &Attributes::default());
        }
    }

    #[test]
    fn printing_and_parsing_give_the_same(ast in any_ast()) {
        let text = ast.to_string();
        let again = parse(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(again.to_string(), text.clone());
        prop_assert_eq!(again.tree(), ast.tree());
    }
}
