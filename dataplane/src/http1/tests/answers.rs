//! Answers of the mesh itself.

use super::*;
use crate::reason::Reason;

fn text(answer: &Answer<'_>) -> String {
    let mut out = Vec::new();
    answer.put(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn answers_say_why() {
    assert_eq!(
        text(&Answer::of(Reason::AuthzDenied)),
        "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\nx-ringmesh-reason: authz_denied\r\n\
         content-length: 19\r\n\r\nRBAC: access denied"
    );
    let quota = text(&Answer::quota_exhausted("requestcount.quota.istio-system"));
    assert!(quota.starts_with("HTTP/1.1 429 Too Many Requests\r\n"));
    assert!(quota.ends_with(
        "\r\n\r\nRESOURCE_EXHAUSTED:Quota is exhausted for: requestcount.quota.istio-system"
    ));
    let refused = text(&Answer::refusal(&HeadFault::CodingUnknown.refusal()));
    assert!(refused.starts_with("HTTP/1.1 501 Not Implemented\r\n"));
    assert!(refused.contains("x-ringmesh-reason: unknown_coding\r\n"));
    assert!(refused.contains("connection: close\r\n"));
}

#[test]
fn every_reason_has_a_readable_answer() {
    for reason in Reason::ALL {
        let answer = Answer::of(reason);
        let bytes = text(&answer);
        let (head, parsed) = response(bytes.as_bytes());
        let Parsed::Head(len) = parsed else {
            panic!("{reason:?}: {parsed:?}");
        };
        let view = head.view(bytes.as_bytes());
        assert_eq!(view.status(), answer.status);
        assert_eq!(view.keep_alive(), answer.keep_alive);
        let body = (bytes.len() - len) as u64;
        assert_eq!(
            view.next("GET", false),
            Ok(Next::Body(Framing::Length(body)))
        );
        if reason != Reason::None {
            let said = view.fields().find(|(name, _)| *name == "x-ringmesh-reason");
            assert_eq!(said.map(|(_, code)| code), Some(reason.code().as_bytes()));
        }
    }
}

#[test]
fn heads_alone_and_further_fields() {
    let head_only = Answer {
        head_only: true,
        ..Answer::of(Reason::NoRoute)
    };
    let got = text(&head_only);
    assert!(
        got.contains("content-length: 8\r\n") && got.ends_with("\r\n\r\n"),
        "{got}"
    );
    let redirect = Answer {
        status: 301,
        fields: &[("location", "http://a/b"), ("x", "a\r\nb: c")],
        ..Answer::of(Reason::None)
    };
    assert_eq!(
        text(&redirect),
        "HTTP/1.1 301 Moved Permanently\r\nlocation: http://a/b\r\ncontent-length: 0\r\n\r\n"
    );
}
