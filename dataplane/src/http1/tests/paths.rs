//! Path normalisation.

use super::path::{PathRules, normalise};
use proptest::prelude::*;

const PLAIN: PathRules = PathRules {
    merge_slashes: false,
    decode_slashes: false,
};
const ALL: PathRules = PathRules {
    merge_slashes: true,
    decode_slashes: true,
};

#[test]
fn one_spelling() {
    // (path, dot segments only, slashes merged, encoded slashes decoded)
    let cases = [
        ("/", "/", "/", "/"),
        ("/a/b.c", "/a/b.c", "/a/b.c", "/a/b.c"),
        ("/a/./b", "/a/b", "/a/b", "/a/b"),
        ("/a/../b", "/b", "/b", "/b"),
        ("/a/b/..", "/a/", "/a/", "/a/"),
        ("/a/b/.", "/a/b/", "/a/b/", "/a/b/"),
        ("/..", "/", "/", "/"),
        ("/../../a", "/a", "/a", "/a"),
        ("/a/.../b", "/a/.../b", "/a/.../b", "/a/.../b"),
        ("/.a/..b", "/.a/..b", "/.a/..b", "/.a/..b"),
        ("//a//b", "//a//b", "/a/b", "/a/b"),
        ("/a//../b", "/a/b", "/b", "/b"),
        ("/a\\b", "/a/b", "/a/b", "/a/b"),
        ("/a\\..\\b", "/b", "/b", "/b"),
        ("/a/%2e%2E/b", "/b", "/b", "/b"),
        ("/a/.%2e/b", "/b", "/b", "/b"),
        ("/%61dmin", "/admin", "/admin", "/admin"),
        ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"),
        ("/a%5cb", "/a%5cb", "/a%5cb", "/a/b"),
        ("/a%2F/b", "/a%2F/b", "/a%2F/b", "/a/b"),
        (
            "/%252e%252e/a",
            "/%252e%252e/a",
            "/%252e%252e/a",
            "/%252e%252e/a",
        ),
        ("/a%", "/a%", "/a%", "/a%"),
        ("/a%2", "/a%2", "/a%2", "/a%2"),
        ("/a%zz%20", "/a%zz%20", "/a%zz%20", "/a%zz%20"),
        ("*", "*", "*", "*"),
        ("", "", "", ""),
    ];
    let mut scratch = String::new();
    for (path, dots, merged, decoded) in cases {
        assert_eq!(normalise(path, PLAIN, &mut scratch), dots, "{path}");
        assert_eq!(
            normalise(path, PathRules::default(), &mut scratch),
            merged,
            "{path}"
        );
        assert_eq!(normalise(path, ALL, &mut scratch), decoded, "{path}");
    }
}

#[test]
fn what_does_not_change_is_not_copied() {
    let mut scratch = String::new();
    let path = "/productpage/1/reviews";
    let got = normalise(path, PathRules::default(), &mut scratch);
    assert!(std::ptr::eq(got, path));
    assert_eq!(scratch.capacity(), 0);
}

proptest! {
    #[test]
    fn normal_stays_normal(
        path in "/([a.%/\\\\]|%2[eEfF]|%5[cC]|%61|ä){0,12}",
        merge_slashes: bool,
        decode_slashes: bool,
    ) {
        let rules = PathRules { merge_slashes, decode_slashes };
        let (mut first, mut second) = (String::new(), String::new());
        let once = normalise(&path, rules, &mut first).to_string();
        prop_assert_eq!(normalise(&once, rules, &mut second), &once);
        prop_assert!(once.starts_with('/'));
        prop_assert!(once.len() <= path.len());
        prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
        prop_assert!(!once.contains('\\'));
        prop_assert!(!merge_slashes || !once.contains("//"));
    }
}
