//! Principals of a policy, in the trust domain of this mesh.

use ringmesh_wire::v1::snapshot::{AuthzRule, Pattern};

/// What rules call the mesh's own trust domain, whatever its name. As in Istio, where policies written
/// for one mesh hold in another.
const OWN: &str = "cluster.local/";

/// The key of a condition whose values are principals.
const KEY: &str = "source.principal";

/// The rules, with the mesh's trust domain where they say `cluster.local`: taken by the word a DENY would
/// match nobody.
pub(super) fn in_mesh(rules: &[AuthzRule], trust_domain: &str) -> Vec<AuthzRule> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        for source in &mut rule.from {
            rename(&mut source.principals, trust_domain);
            rename(&mut source.not_principals, trust_domain);
        }
        for condition in rule.when.iter_mut().filter(|when| when.key == KEY) {
            rename(&mut condition.values, trust_domain);
            rename(&mut condition.not_values, trust_domain);
        }
    }
    rules
}

fn rename(patterns: &mut [Pattern], trust_domain: &str) {
    for pattern in patterns {
        let (Pattern::Exact(text) | Pattern::Prefix(text)) = pattern else {
            continue;
        };
        if let Some(rest) = text.strip_prefix(OWN) {
            *text = format!("{trust_domain}/{rest}");
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmesh_wire::v1::snapshot::{Condition, Source};

    use super::*;

    #[test]
    fn cluster_local_is_the_mesh_and_every_other_word_is_itself() {
        let exact = |text: &str| Pattern::Exact(text.to_owned());
        let prefix = |text: &str| Pattern::Prefix(text.to_owned());
        let rule = AuthzRule {
            from: vec![Source {
                principals: vec![
                    exact("cluster.local/ns/a/sa/b"),
                    prefix("cluster.local/ns/a/"),
                    exact("other.test/ns/a/sa/b"),
                    exact("cluster.locality/ns/a/sa/b"),
                    Pattern::Suffix("/sa/b".to_owned()),
                    Pattern::Present,
                ],
                not_principals: vec![exact("cluster.local/ns/c/sa/d")],
                namespaces: vec![exact("cluster.local/")],
                ..Source::default()
            }],
            to: vec![],
            when: ["source.principal", "request.headers[x]"]
                .map(|key| Condition {
                    key: key.to_owned(),
                    values: vec![exact("cluster.local/ns/a/sa/b")],
                    not_values: vec![prefix("cluster.local/ns/")],
                })
                .into(),
        };
        let [found] = &in_mesh(&[rule], "mesh.test")[..] else {
            panic!("one rule");
        };
        let [source] = &found.from[..] else {
            panic!("one source");
        };
        assert_eq!(
            source.principals,
            [
                exact("mesh.test/ns/a/sa/b"),
                prefix("mesh.test/ns/a/"),
                exact("other.test/ns/a/sa/b"),
                exact("cluster.locality/ns/a/sa/b"),
                Pattern::Suffix("/sa/b".to_owned()),
                Pattern::Present,
            ]
        );
        assert_eq!(source.not_principals, [exact("mesh.test/ns/c/sa/d")]);
        assert_eq!(source.namespaces, [exact("cluster.local/")]);
        let [principal, header] = &found.when[..] else {
            panic!("two conditions");
        };
        assert_eq!(principal.values, [exact("mesh.test/ns/a/sa/b")]);
        assert_eq!(principal.not_values, [prefix("mesh.test/ns/")]);
        assert_eq!(header.values, [exact("cluster.local/ns/a/sa/b")]);
        assert_eq!(header.not_values, [prefix("cluster.local/ns/")]);
    }
}
