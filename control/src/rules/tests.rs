//! Bad input, each case with its exact message; the users' own files; hostile text.

use proptest::prelude::*;

use super::*;

/// A case: what is written under the usual VirtualService head (8 lines), and the message.
fn errors_of(text: &str) -> Vec<String> {
    match parse("f.yaml", text) {
        Ok(objects) => panic!("accepted: {objects:?}"),
        Err(RuleErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Collects all differences, so that one run shows every case.
fn compare(wrong: &mut String, got: &str, want: &str) {
    if got != want {
        wrong.push_str(&format!("\n got {got}\nwant {want}\n"));
    }
}

/// A VirtualService whose rule has these further fields; they begin on line 12, column 5.
fn with_rule_fields(fields: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: ratings\n\
         spec:\n  hosts:\n  - ratings\n  http:\n  - route:\n    - destination:\n        host: ratings\n{fields}"
    )
}

fn object(head: &str, spec: &str) -> String {
    format!("{head}\nmetadata:\n  name: x\nspec:\n{spec}")
}

#[test]
fn faults_of_a_route_are_told_exactly() {
    let cases: &[(&str, &str)] = &[
        (
            "    timeout: 10x\n",
            "f.yaml:12:14: spec.http[0].timeout: \"10x\" is not a duration: \"x\" is not a unit; the units are h, m, s, ms; write e.g. 10s, 1.5s, 250ms or 1h30m",
        ),
        (
            "    timeout: 10\n",
            "f.yaml:12:14: spec.http[0].timeout: 10 has no unit; write \"10s\" for seconds or \"10ms\" for milliseconds",
        ),
        (
            "    retries:\n      attempts: three\n",
            "f.yaml:13:17: spec.http[0].retries.attempts: this is a text; write a whole number from 0 to 100",
        ),
        (
            "    retries:\n      attempts: -1\n",
            "f.yaml:13:17: spec.http[0].retries.attempts: -1 is out of range; write a whole number from 0 to 100",
        ),
        (
            "    retries:\n      attempts: 3\n      perTryTimout: 2s\n",
            "f.yaml:14:7: spec.http[0].retries.perTryTimout: unknown field \"perTryTimout\"; did you mean perTryTimeout?",
        ),
        (
            "    retries:\n      attempts: 3\n      retryOn: 5xx, resett\n",
            "f.yaml:14:21: spec.http[0].retries.retryOn: \"resett\" is not a retry condition; the conditions are 5xx, gateway-error, reset, connect-failure, refused-stream, retriable-4xx, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable, or a status such as 503",
        ),
        (
            "    fault:\n      delay:\n        percent: 101\n        fixedDelay: 5s\n",
            "f.yaml:14:18: spec.http[0].fault.delay.percent: 101 is out of range; write a whole number from 0 to 100",
        ),
        (
            "    fault:\n      abort:\n        percentage: {value: 100.1}\n        httpStatus: 400\n",
            "f.yaml:14:29: spec.http[0].fault.abort.percentage.value: 100.1 is not a percentage; write a number from 0 to 100",
        ),
        (
            "    fault:\n      delay:\n        fixedDelay: 5s\n",
            "f.yaml:14:9: spec.http[0].fault.delay: without a percentage this fault hits nobody; write percentage: {value: 10} or percent: 10",
        ),
        (
            "    match:\n    - {}\n",
            "f.yaml:13:7: spec.http[0].match[0]: an empty match block matches nothing in particular; give it a condition, or remove match: to match everything",
        ),
        (
            "    match:\n    - uri: {prefix: /a, exact: /b}\n",
            "f.yaml:13:21: spec.http[0].match[0].uri.prefix: a match has one form only; keep exact:, prefix: or regex:",
        ),
        (
            "    match:\n    - uri: {regex: \"(\"}\n",
            "f.yaml:13:20: spec.http[0].match[0].uri.regex: \"(\" is not a regular expression: error: unclosed group; write RE2 syntax; look-around and back-references do not exist",
        ),
        (
            "    mirror: {host: b}\n",
            "f.yaml:12:5: spec.http[0].mirror: mirror is not supported yet; remove it: ringmesh refuses a rule rather than carry out half of it",
        ),
        (
            "    timeout: 1s\n    timeout: 2s\n",
            "f.yaml:13:5: spec.http[0].timeout: this field is given twice; keep one of them",
        ),
        (
            "    headers: {request: {set: {x: \"a\\nb\"}}}\n",
            "f.yaml:12:34: spec.http[0].headers.request.set.x: a header's value has no control characters; remove them",
        ),
        (
            "    redirect: {uri: /x}\n",
            "f.yaml:12:15: spec.http[0].redirect: redirect beside another action; a rule has one of route:, redirect: and directResponse:",
        ),
        (
            "        port: {number: 70000}\n",
            "f.yaml:12:24: spec.http[0].route[0].destination.port.number: 70000 is out of range; write a whole number from 1 to 65535",
        ),
        (
            "        subset: 1\n",
            "f.yaml:12:17: spec.http[0].route[0].destination.subset: a text is wanted, this is a number; write \"1\" in quotes",
        ),
        (
            "    - destination:\n        host: b\n",
            "f.yaml:9:5: spec.http[0].route: all weights are 0; give at least one destination a weight, e.g. weight: 100",
        ),
    ];
    let mut wrong = String::new();
    for (fields, message) in cases {
        compare(
            &mut wrong,
            &errors_of(&with_rule_fields(fields)).join("\n"),
            message,
        );
    }
    assert!(wrong.is_empty(), "{wrong}");
}

const SECURITY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy";
const MIXER: &str = "apiVersion: config.istio.io/v1alpha2\nkind: ";

#[test]
fn a_list_of_an_authorization_policy_that_is_empty_is_no_list_that_is_left_out() {
    let fault = |spec: &str, field: &str| {
        let errors = errors_of(&object(SECURITY, spec));
        let [only] = errors.as_slice() else {
            panic!("{spec}: {errors:?}");
        };
        let name = field.rsplit('.').next().unwrap();
        let wanted = format!(
            ": spec{field}: {name} has no entries; give it one, or remove it if it is to say nothing"
        );
        assert!(only.ends_with(&wanted), "{spec}: {only}");
        only.clone()
    };
    for empty in ["[]", "null", ""] {
        for list in ["from", "to", "when"] {
            let spec = format!("  rules:\n  - {list}: {empty}\n");
            let place = fault(&spec, &format!(".rules[0].{list}"));
            assert!(place.starts_with("f.yaml:7:"), "{place}");
        }
        for list in [
            "principals",
            "notPrincipals",
            "namespaces",
            "notNamespaces",
            "ipBlocks",
            "notIpBlocks",
        ] {
            let field = format!(".rules[0].from[0].source.{list}");
            fault(
                &format!("  rules:\n  - from:\n    - source:\n        {list}: {empty}\n"),
                &field,
            );
        }
        for list in [
            "hosts",
            "notHosts",
            "ports",
            "notPorts",
            "methods",
            "notMethods",
            "paths",
            "notPaths",
        ] {
            let field = format!(".rules[0].to[0].operation.{list}");
            fault(
                &format!("  rules:\n  - to:\n    - operation:\n        {list}: {empty}\n"),
                &field,
            );
        }
        // Beside others, too.
        fault(
            &format!(
                "  rules:\n  - when:\n    - key: source.ip\n      values: [10.0.0.1]\n      notValues: {empty}\n"
            ),
            ".rules[0].when[0].notValues",
        );
        fault(
            &format!("  rules: [{{}}]\n  targetRefs: {empty}\n"),
            ".targetRefs",
        );
    }
    assert_eq!(
        errors_of(&object(
            SECURITY,
            "  rules:\n  - from:\n    - source: {principals: [], namespaces: }\n"
        ))
        .len(),
        2
    );
    // No rules match nothing, a rule without conditions matches everything: as in Istio.
    for spec in [
        "  rules: []\n",
        "  rules:\n",
        "  action: ALLOW\n",
        "  rules: [{}]\n",
    ] {
        assert!(parse("f.yaml", &object(SECURITY, spec)).is_ok(), "{spec}");
    }
}

#[test]
fn a_mapping_of_a_policy_that_is_null_is_no_mapping_that_is_left_out() {
    let peers = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication";
    for null in ["null", "~", ""] {
        for (kind, spec, field) in [
            (SECURITY, "  targetRef: @\n  rules: [{}]\n", "targetRef"),
            (SECURITY, "  selector: @\n  rules: [{}]\n", "selector"),
            (
                SECURITY,
                "  selector: {matchLabels: @}\n  rules: [{}]\n",
                "selector.matchLabels",
            ),
            (peers, "  selector: @\n  mtls: {mode: STRICT}\n", "selector"),
            (peers, "  mtls: @\n", "mtls"),
            (peers, "  portLevelMtls: @\n", "portLevelMtls"),
        ] {
            let errors = errors_of(&object(kind, &spec.replace('@', null)));
            let name = field.rsplit('.').next().unwrap();
            let column = 3 + spec.find(name).unwrap() - 2;
            let wanted = format!(
                "f.yaml:6:{column}: spec.{field}: {name} is empty; give it fields, or remove it if it is to say nothing"
            );
            assert_eq!(errors, [wanted], "{spec}");
        }
    }
    // `{}` is a selector of everything, as in Istio.
    let all = object(SECURITY, "  selector: {}\n  rules: [{}]\n");
    assert!(parse("f.yaml", &all).is_ok());
}

#[test]
fn what_a_sidecar_could_not_use_is_refused_here() {
    let matched = |regex: &str| {
        with_rule_fields(&format!(
            "    match:\n    - uri:\n        regex: \"{}\"\n",
            regex.escape_default()
        ))
    };
    for (regex, wanted) in [
        (
            r"(?:\w{100}){5}",
            "is too large: compiled it takes more than 1048576 bytes",
        ),
        (
            "(?x)a # c",
            "ends in a comment of (?x); leave the comment out, or end its line",
        ),
        ("a)(b", "is not a regular expression"),
    ] {
        let errors = errors_of(&matched(regex)).join("\n");
        assert!(errors.contains(wanted), "{errors}");
        let place = "f.yaml:14:16: spec.http[0].match[0].uri.regex: ";
        assert!(errors.starts_with(place), "{errors}");
    }
    for regex in ["(?x)a # c\n", "[a-z]{1000}|b", r"\w{20}"] {
        assert!(parse("f.yaml", &matched(regex)).is_ok(), "{regex}");
    }
    let quota = |dimensions: usize| {
        let all: Vec<String> = (0..dimensions)
            .map(|at| format!("d{at}: source.namespace"))
            .collect();
        let all = all.join(", ");
        format!("{MIXER}quota\nmetadata: {{name: a}}\nspec: {{dimensions: {{{all}}}}}\n")
    };
    assert!(parse("f.yaml", &quota(32)).is_ok());
    assert_eq!(
        errors_of(&quota(33)),
        ["f.yaml:4:20: spec.dimensions: a quota of 33 dimensions; give it at most 32"]
    );
}

#[test]
fn faults_of_other_kinds_are_told_exactly() {
    let rule = format!("{MIXER}rule");
    let memquota = format!("{MIXER}memquota");
    let handler = format!("{MIXER}handler");
    let dr = "apiVersion: networking.istio.io/v1\nkind: DestinationRule";
    let se = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry";
    let pa = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication";
    let cases: &[(&str, &str, &str)] = &[
        (
            &rule,
            "  match: source.labels[\"app\"] == 5\n  actions: [{handler: a.denier, instances: [b.checknothing]}]\n",
            "f.yaml:6:34: spec.match: 5 is a whole number; == wants a text here, as on its left",
        ),
        (
            &rule,
            "  match: \"source.labls[\\\"app\\\"] == \\\"x\\\"\"\n  actions: [{handler: a.denier, instances: [b.checknothing]}]\n",
            "f.yaml:6:10: spec.match: there is no attribute source.labls (character 1 of the text); did you mean source.labels?",
        ),
        (
            &rule,
            "  match: 'request.size > 5'\n  actions: [{handler: a.denier, instances: [b.checknothing]}]\n",
            "f.yaml:6:24: spec.match: > is not supported yet; the operators are == != && || | and [ ]",
        ),
        (
            &rule,
            "  actions: [{handler: a.denier, instances: []}]\n",
            "f.yaml:6:44: spec.actions[0].instances: instances has no entries; an action hands at least one instance to its handler, e.g. [NAME.checknothing]",
        ),
        (
            &memquota,
            "  quotas: [{name: a, maxAmount: 5}]\n",
            "f.yaml:6:12: spec.quotas[0]: without validDuration this is an allocation quota, which is not supported yet; write validDuration: 1s",
        ),
        (
            &memquota,
            "  quotas: [{name: a.b.c.d, maxAmount: 5, validDuration: 1s}]\n",
            "f.yaml:6:19: spec.quotas[0].name: \"a.b.c.d\" does not name a quota instance; write NAME.quota.NAMESPACE, e.g. requestcount.quota.istio-system",
        ),
        (
            &memquota,
            "  quotas: [{name: a#b.quota.c, maxAmount: 5, validDuration: 1s}]\n",
            "f.yaml:6:19: spec.quotas[0].name: \"a#b.quota.c\" does not name a quota instance; write NAME.quota.NAMESPACE, e.g. requestcount.quota.istio-system",
        ),
        (
            &handler,
            "  compiledAdapter: redisquota\n  params: {}\n",
            "f.yaml:6:20: spec.compiledAdapter: compiledAdapter \"redisquota\" is not supported yet; write memquota or denier",
        ),
        (
            SECURITY,
            "  action: CUSTOM\n",
            "f.yaml:6:11: spec.action: action CUSTOM is not supported yet; write ALLOW, DENY or AUDIT",
        ),
        (
            SECURITY,
            "  rules:\n  - from:\n    - source:\n        principals: [\"a*b\"]\n",
            "f.yaml:9:22: spec.rules[0].from[0].source.principals[0]: \"a*b\" has a * in the middle, which matches only itself; write abc*, *abc, * or abc",
        ),
        (
            SECURITY,
            "  rules:\n  - from:\n    - source:\n        ipBlocks: [10.0.0.0/33]\n",
            "f.yaml:9:20: spec.rules[0].from[0].source.ipBlocks[0]: \"10.0.0.0/33\": its prefix length is not a number that fits; write e.g. 10.0.0.0/8",
        ),
        (
            SECURITY,
            "  rules:\n  - to:\n    - operation: {ports: [80]}\n",
            "f.yaml:8:27: spec.rules[0].to[0].operation.ports[0]: a text is wanted, this is a number; write \"80\" in quotes",
        ),
        (
            SECURITY,
            "  rules:\n  - when:\n    - {key: \"request.auth.claims[x]\", values: [y]}\n",
            "f.yaml:8:13: spec.rules[0].when[0].key: the condition \"request.auth.claims[x]\" is not supported yet; the keys are request.headers[NAME], source.ip, source.namespace, source.principal, destination.port",
        ),
        (
            pa,
            "  portLevelMtls: {80: {mode: STRICT}}\n",
            "f.yaml:6:18: spec.portLevelMtls: portLevelMtls without a selector; ports belong to workloads: write selector: {matchLabels: {app: ...}}",
        ),
        (
            dr,
            "  host: a\n  trafficPolicy:\n    loadBalancer: {simple: LEAST_REQUESTS}\n",
            "f.yaml:8:28: spec.trafficPolicy.loadBalancer.simple: \"LEAST_REQUESTS\" is not known here; write one of LEAST_REQUEST, LEAST_CONN, UNSPECIFIED, ROUND_ROBIN and RANDOM",
        ),
        (
            dr,
            "  host: a\n  trafficPolicy:\n    outlierDetection: {maxEjectionPercent: 200}\n",
            "f.yaml:8:44: spec.trafficPolicy.outlierDetection.maxEjectionPercent: 200 is out of range; write a whole number from 0 to 100",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: NONE\n  ports: [{number: 80, name: http}]\n  endpoints: [{address: 1.1.1.1}]\n",
            "f.yaml:7:15: spec.resolution: resolution NONE is not supported yet; write STATIC with endpoints by address, DNS or DNS_ROUND_ROBIN",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: dns\n  ports: [{number: 80, name: http}]\n",
            "f.yaml:7:15: spec.resolution: \"dns\" is not known here; write STATIC, DNS or DNS_ROUND_ROBIN",
        ),
        (
            se,
            "  hosts: [\"*.a.com\"]\n  resolution: DNS\n  ports: [{number: 80, name: http}]\n",
            "f.yaml:6:11: spec.hosts[0]: \"*.a.com\" is no name that can be resolved; write endpoints: [{address: api.example.com}], or a host without *",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: DNS_ROUND_ROBIN\n  ports: [{number: 80, name: http}]\n  endpoints: [{address: a.com}, {address: b.com}]\n",
            "f.yaml:9:33: spec.endpoints[1]: 2 endpoints are too many here; this resolution has at most 1",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: STATIC\n  ports: [{number: 80, name: http}]\n  endpoints: [{address: b.com}]\n",
            "f.yaml:9:25: spec.endpoints[0].address: \"b.com\" is not an IP address; write an address, or resolution: DNS above",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: DNS\n  ports: [{number: 80, name: http}]\n  endpoints: [{address: 10.0.0.256}]\n",
            "f.yaml:9:25: spec.endpoints[0].address: \"10.0.0.256\" is not an IP address; write an address or a host name, e.g. api.example.com",
        ),
        (
            se,
            "  hosts: [\"http://a.com\"]\n  resolution: STATIC\n  ports: [{number: 80, name: http}]\n  endpoints: [{address: 1.1.1.1}]\n",
            "f.yaml:6:11: spec.hosts[0]: \"http://a.com\" is not a host: it is a URL or has a port; write e.g. ratings, *.example.com or *",
        ),
        (
            se,
            "  hosts: [a.com]\n  resolution: STATIC\n  ports: [{number: 80, name: x, protocol: HTPP}]\n  endpoints: [{address: a.b}]\n",
            "f.yaml:8:43: spec.ports[0].protocol: \"HTPP\" is not a protocol carried here; did you mean HTTP?",
        ),
        (
            "apiVersion: ringmesh.io/v1\nkind: MeshSettings",
            "  defaultTimeout: 1s\n",
            "f.yaml:4:3: metadata: MeshSettings stands in the namespace default; write metadata: {name: mesh, namespace: istio-system}",
        ),
    ];
    let mut wrong = String::new();
    for (head, spec, message) in cases {
        compare(&mut wrong, &errors_of(&object(head, spec))[0], message);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn faults_of_documents_are_told_exactly() {
    let good = with_rule_fields("");
    let second = |text: &str| format!("# first\n{good}---\n{text}");
    let cases: &[(String, &str)] = &[
        (
            "a: [1\n".into(),
            "f.yaml:1:4: this is not YAML: unclosed bracket '['; put the text right; YAML indents with spaces",
        ),
        (
            "a:\n\t- b\n".into(),
            "f.yaml:2:2: this is not YAML: tabs disallowed within this context (block indentation); put the text right; YAML indents with spaces",
        ),
        (
            "- a\n".into(),
            "f.yaml:1:1: this is a list; write a mapping with apiVersion, kind, metadata and spec",
        ),
        (
            "apiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: a}\nspec: {}\n".into(),
            "f.yaml:2:7: kind: the kind \"VirtualServices\" is not supported yet; did you mean VirtualService?",
        ),
        (
            "apiVersion: networking.istio.io/v2\nkind: VirtualService\nmetadata: {name: a}\nspec: {}\n".into(),
            "f.yaml:1:13: apiVersion: networking.istio.io has no version \"v2\" here; the versions are v1alpha3, v1beta1 and v1",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n".into(),
            "f.yaml:1:13: apiVersion: the API group \"v1\" is not known; the groups are networking.istio.io, security.istio.io, config.istio.io and ringmesh.io",
        ),
        (
            "kind: VirtualService\n".into(),
            "f.yaml:1:1: apiVersion: apiVersion is missing; write e.g. networking.istio.io/v1",
        ),
        (
            good.replace("name: ratings", "name: Ratings!"),
            "f.yaml:4:9: metadata.name: \"Ratings!\" is not a name; use small letters, digits, '-' and '.', at most 253",
        ),
        (
            second("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec:\n  hosts: []\n  http: [{directResponse: {status: 1}}]\n"),
            "f.yaml:18:10: spec.hosts: hosts has no entries; write hosts: [ratings]",
        ),
        (
            second(&format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: b}}\nspec:\n  hosts: [b]\n  http: [{{directResponse: {{status: 503, body: {{string: {}}}}}}}]\n", "x".repeat(65_537))),
            "f.yaml:19:56: spec.http[0].directResponse.body.string: this body is 65537 bytes long; write at most 65536 bytes, or route to a server that has it",
        ),
        (
            second(&good),
            "f.yaml:14:1: VirtualService ratings.default is given twice, first at line 1; keep one of them",
        ),
    ];
    let mut wrong = String::new();
    for (text, message) in cases {
        compare(&mut wrong, &errors_of(text)[0], message);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn several_faults_are_all_told_in_order() {
    let text = with_rule_fields("    timeout: 10x\n    retries: {attempts: x}\n    bogus: 1\n");
    let lines: Vec<u32> = match parse("f", &text) {
        Err(RuleErrors(errors)) => errors.iter().map(|e| e.place.line).collect(),
        Ok(_) => panic!("accepted"),
    };
    assert_eq!(lines, [12, 13, 14]);
}

#[test]
fn the_users_own_files_are_accepted_byte_for_byte() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rules");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let objects = parse(&name, &text).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!objects.is_empty());
        for object in objects {
            let again = parse_document(&name, object.first_line, &object.text);
            let again = again.unwrap().unwrap();
            assert_eq!(again.key, object.key);
            assert_eq!(format!("{:?}", again.spec), format!("{:?}", object.spec));
        }
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn documents_are_split_where_yaml_splits_them() {
    let good = with_rule_fields("");
    for text in [
        format!("---\n{good}"),
        format!("# a comment\n---\n{good}---\n# nothing\n---\n"),
        format!("{good}...\n"),
        format!("\u{feff}{good}"),
        good.replace('\n', "\r\n"),
        "--- {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: ratings}, \
         spec: {hosts: [a], http: [{directResponse: {status: 200}}]}}"
            .to_owned(),
    ] {
        let objects = parse("f", &text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        assert_eq!(objects.len(), 1, "{text}");
        assert_eq!(objects[0].key.to_string(), "VirtualService ratings.default");
    }
    // A marker inside a block scalar ends it, by YAML's own rule; indented it does not.
    let kept = with_rule_fields("    name: |\n      a\n      ---\n      b\n");
    assert_eq!(parse("f", &kept).unwrap().len(), 1);
}

#[test]
fn bombs_are_refused() {
    let mut aliases = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..12 {
        let last = n - 1;
        let copies = vec![format!("*a{last}"); 10].join(",");
        aliases.push_str(&format!("a{n}: &a{n} [{copies}]\n"));
    }
    assert!(parse("f", &aliases).is_err());
    assert!(parse("f", &"[".repeat(10_000)).is_err());
    assert!(parse("f", &"- ".repeat(10_000)).is_err());
    assert!(parse("f", &"{a: ".repeat(10_000)).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse("f", &text);
    }

    #[test]
    fn no_damage_to_a_good_file_panics(
        at in 0_usize..400,
        cut in 0_usize..20,
        put in "[\\x00-\\x7f]{0,6}",
    ) {
        let good = include_str!("../../../examples/rules/quota-complete.yaml");
        let at = at.min(good.len());
        let end = (at + cut).min(good.len());
        let text = format!("{}{put}{}", &good[..at], &good[end..]);
        if let Err(RuleErrors(errors)) = parse("f", &text) {
            prop_assert!(!errors.is_empty());
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            for error in errors {
                prop_assert!(error.place.line >= 1 && error.place.line <= lines, "{}", error);
            }
        }
    }

    #[test]
    fn yaml_like_text_never_panics(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "apiVersion: ", "networking.istio.io/v1", "\n", "kind: ", "VirtualService", "metadata:",
                "  name: a", "spec:", "  http:", "  - ", "- ", "route: ", "[", "]", "{", "}", ": ", "&a ",
                "*a", "<<: ", "'", "\"", "|", ">", "# ", "---", "!!str ", "? ", "\t", "é", "10s", "null",
            ]),
            0..40,
        ),
    ) {
        let _ = parse("f", &pieces.concat());
    }
}
