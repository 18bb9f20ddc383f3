//! Bad rules: refused with file:line:column, the field and what would be right; exit 2; what was
//! active stays.

use ringmesh_tests::mesh::Mesh;

fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: bad\nspec:\n  hosts:\n  - ratings\n  http:\n{http}"
    )
}

#[test]
fn bad_rules_are_refused_with_their_place_and_change_nothing() {
    let mesh = Mesh::start("{}\n", &[]);
    mesh.apply("subsets.yaml");
    let before = mesh
        .control
        .tool(&["get"])
        .expect("tool")
        .done()
        .expect("get");
    let route = "  - route:\n    - destination:\n        host: ratings\n";
    let cases = [
        ("unknown field", virtual_service(&format!("{route}    timout: 10s\n")), "12:", "timout"),
        ("wrong type", virtual_service(&format!("{route}    retries:\n      attempts: many\n")), "13:", "attempts"),
        ("bad duration", virtual_service(&format!("{route}    timeout: 10 parsecs\n")), "12:", "timeout"),
        (
            "all weights zero",
            virtual_service(
                "  - route:\n    - destination:\n        host: a\n      weight: 0\n    - destination:\n        host: b\n      weight: 0\n",
            ),
            "9:",
            "weight",
        ),
        ("bad yaml", "apiVersion: networking.istio.io/v1alpha3\nkind: [unclosed\n".to_owned(), "", ""),
        ("empty match block", virtual_service(&format!("  - match:\n    - {{}}\n{}", &route[4..].replacen("route", "    route", 1))), "", ""),
        (
            "unknown kind",
            "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualServise\nmetadata:\n  name: x\n".to_owned(),
            "2:",
            "kind",
        ),
        (
            "expression not supported yet",
            "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata:\n  name: x\nspec:\n  match: request.size + 1\n  actions:\n  - handler: h.denier\n    instances: [i.checknothing]\n".to_owned(),
            "6:",
            "match",
        ),
    ];
    for (name, text, line, field) in cases {
        let ran = mesh.try_apply("bad.yaml", &text, &[]);
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
        let place = format!("bad.yaml:{line}");
        assert!(
            ran.err.contains(&place),
            "{name}: wants {place}: {}",
            ran.err
        );
        assert!(
            ran.err.contains(field),
            "{name}: wants {field}: {}",
            ran.err
        );
        let after = mesh
            .control
            .tool(&["get"])
            .expect("tool")
            .done()
            .expect("get");
        assert_eq!(after, before, "{name}");
    }
}
