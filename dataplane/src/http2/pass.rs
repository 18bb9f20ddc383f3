//! Heads that arrived in HTTP/2 and leave in it nearly as they came.
//!
//! They were spelled and judged like any other ([`super::head`]); where nothing the encoder writes would
//! differ from what came, the fields themselves are handed on, which spares writing them, reading them
//! back and building a table of them. Pure; that both ways say the same is what the tests hold.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Method, StatusCode, Uri, Version};

use super::head;
use crate::http1::{ClientCert, Known, Request, RequestPlan, Response, ResponsePlan};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What [`head::request`] would read of what `plan` writes, without either: for a head that arrived in HTTP/2
/// as `parts`, was spelled and judged as `request`, and leaves nearly as it came. Crumbs of a cookie stay
/// apart. `None`: too much of it changes.
#[must_use]
pub fn request(
    mut parts: http::request::Parts,
    plan: &RequestPlan<'_>,
    request: &Request<'_>,
    trailers: bool,
) -> Option<http::Request<()>> {
    if !plan.keeps_all(request) || parts.method == Method::CONNECT {
        return None;
    }
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    // Both are there in all but odd requests.
    (uri.authority.as_ref()).and(uri.path_and_query.as_ref())?;
    uri.scheme = Some(Scheme::HTTP);
    parts.uri = Uri::from_parts(uri).ok()?;
    parts.version = Version::HTTP_2;
    let fields = &mut parts.headers;
    // `:authority` says it.
    fields.remove(http::header::HOST);
    if request.field(Known::Te).is_some() {
        fields.remove(http::header::TE);
    }
    if trailers {
        fields.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(id) = plan.request_id {
        fields.insert(REQUEST_ID, HeaderValue::from_str(id).ok()?);
    }
    match plan.client_cert {
        ClientCert::Keep => {}
        ClientCert::Strip => {
            fields.remove(CLIENT_CERT);
        }
        ClientCert::Say(proven) => {
            fields.insert(CLIENT_CERT, HeaderValue::from_str(proven).ok()?);
        }
    }
    mark_new_each_time(fields);
    Some(http::Request::from_parts(parts, ()))
}

/// What [`head::response`] would read of what `plan` writes, without either: for a head that arrived in HTTP/2
/// with `fields`, was spelled and judged as `response`, and leaves as it came. `None`: it does not.
#[must_use]
pub fn response(
    mut fields: HeaderMap,
    plan: &ResponsePlan<'_>,
    response: &Response<'_>,
) -> Option<http::Response<()>> {
    if !plan.keeps_all(response) {
        return None;
    }
    // Was not spelled: it means nothing in a response.
    fields.remove(http::header::HOST);
    mark_new_each_time(&mut fields);
    let mut passed = http::Response::new(());
    *passed.status_mut() = StatusCode::from_u16(response.status()).ok()?;
    *passed.headers_mut() = fields;
    Some(passed)
}

fn mark_new_each_time(fields: &mut HeaderMap) {
    for (name, value) in fields {
        if head::is_new_each_time(name) {
            value.set_sensitive(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::uri::{Authority, PathAndQuery};
    use proptest::prelude::*;

    use super::*;
    use crate::http1::{Edits, Framing, RequestHead, ResponseHead, Version as Http};
    use crate::http2::head::tests::fields;

    const PROVEN: &str = "By=spiffe://mesh/ns/a/sa/b;URI=spiffe://mesh/ns/a/sa/c";

    fn asked(path: &str, authority: Option<&str>, fields: HeaderMap) -> http::request::Parts {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = PathAndQuery::try_from(path).ok();
        if let Some(authority) = authority {
            uri.scheme = Some(Scheme::HTTPS);
            uri.authority = Authority::try_from(authority).ok();
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = Uri::from_parts(uri).unwrap_or_default();
        parts.version = Version::HTTP_2;
        parts.headers = fields;
        parts
    }

    /// With crumbs joined, as they are where the head was written.
    fn joined(mut fields: HeaderMap) -> HeaderMap {
        let crumbs: Vec<_> = fields.get_all(http::header::COOKIE).iter().collect();
        if crumbs.len() > 1 {
            let crumbs: Vec<&[u8]> = crumbs.iter().map(|crumb| crumb.as_bytes()).collect();
            let cookie = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).unwrap();
            fields.insert(http::header::COOKIE, cookie);
        }
        fields
    }

    /// What is written and read back, and what is handed on, if it is.
    fn both_ways(
        parts: &http::request::Parts,
        plan: &RequestPlan<'_>,
        ended: bool,
    ) -> Option<(http::Request<()>, Option<http::Request<()>>)> {
        let (mut spelled, mut parser) = (Vec::new(), RequestHead::new());
        head::put_request(parts, ended, &mut parser, &mut spelled).ok()?;
        let request_seen = parser.view(&spelled);
        let plan = RequestPlan {
            framing: request_seen.framing(),
            ..*plan
        };
        let trailers = request_seen.field(Known::Te) == Some(b"trailers");
        let mut written = Vec::new();
        plan.put(&request_seen, &mut written).ok()?;
        let written = head::request(&Bytes::from(written), trailers)?;
        let passed = request(parts.clone(), &plan, &request_seen, trailers);
        Some((written, passed))
    }

    fn same(written: &http::Request<()>, passed: http::Request<()>) {
        assert_eq!(passed.method(), written.method());
        assert_eq!(passed.uri(), written.uri());
        assert_eq!(passed.version(), written.version());
        let (passed, written) = (joined(passed.into_parts().0.headers), written.headers());
        assert_eq!(&passed, written);
        for name in [REQUEST_ID, HeaderName::from_static("traceparent")] {
            let sensitive = |fields: &HeaderMap| -> Vec<bool> {
                let values = fields.get_all(&name).iter();
                values.map(HeaderValue::is_sensitive).collect()
            };
            assert_eq!(sensitive(&passed), sensitive(written), "{name}");
        }
    }

    #[test]
    fn a_plain_request_is_handed_on() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("traceparent", "00-1-2-01"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-client-cert", "forged"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        let parts = asked("/a.B/C?d", Some("app:80"), fields);
        let mut plan = RequestPlan {
            path: Some("/a.B/C"),
            request_id: Some("7"),
            ..RequestPlan::default()
        };
        for client_cert in [ClientCert::Keep, ClientCert::Strip, ClientCert::Say(PROVEN)] {
            plan.client_cert = client_cert;
            let (written, passed) = both_ways(&parts, &plan, false).unwrap();
            let passed = passed.expect("nothing of it changes");
            assert_eq!(passed.uri().scheme(), Some(&Scheme::HTTP));
            assert!(passed.headers()["x-request-id"].is_sensitive());
            assert!(passed.headers()["traceparent"].is_sensitive());
            assert_eq!(passed.headers()["te"], "trailers");
            same(&written, passed);
        }
    }

    #[test]
    fn a_request_that_changes_is_not() {
        let parts = asked("/a/b", Some("app"), HeaderMap::new());
        let ops = ringmesh_wire::snapshot::HeaderOps::default();
        let edits = [Edits::request(&ops)];
        let plain = RequestPlan::default();
        for plan in [
            RequestPlan {
                path: Some("/c"),
                ..plain
            },
            RequestPlan {
                host: Some("other"),
                ..plain
            },
            RequestPlan {
                edits: &edits,
                ..plain
            },
        ] {
            let (_, passed) = both_ways(&parts, &plan, true).unwrap();
            assert!(passed.is_none(), "{plan:?}");
        }
        let (_, passed) = both_ways(&parts, &plain, true).unwrap();
        assert!(passed.is_some());
        let mut spaced = HeaderMap::new();
        spaced.insert("x-a", HeaderValue::from_static(" 1"));
        let (_, passed) = both_ways(&asked("/", Some("app"), spaced), &plain, true).unwrap();
        assert!(passed.is_none(), "what was judged has no space there");
    }

    proptest! {
        #[test]
        fn a_request_is_handed_on_as_it_would_be_written(
            fields in fields(),
            path in "/[!-~]{0,20}",
            authority in prop::option::of("[a-z]{1,8}(:[0-9]{1,4})?"),
            ended in any::<bool>(),
            id in any::<bool>(),
            cert in 0..3,
        ) {
            let parts = asked(&path, authority.as_deref(), fields);
            let plan = RequestPlan {
                request_id: id.then_some("7"),
                client_cert: match cert {
                    0 => ClientCert::Keep,
                    1 => ClientCert::Strip,
                    _ => ClientCert::Say(PROVEN),
                },
                ..RequestPlan::default()
            };
            if let Some((written, Some(passed))) = both_ways(&parts, &plan, ended) {
                same(&written, passed);
            }
        }

        #[test]
        fn a_response_is_handed_on_as_it_would_be_written(
            fields in fields(),
            status in 200_u16..600,
            head_only in any::<bool>(),
        ) {
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = StatusCode::from_u16(status).unwrap();
            parts.headers = fields;
            let (mut spelled, mut parser) = (Vec::new(), ResponseHead::new());
            if head::put_response(&parts, &mut parser, &mut spelled).is_err() {
                return Ok(());
            }
            let seen = parser.view(&spelled);
            let method = if head_only { "HEAD" } else { "GET" };
            let framing = match seen.next(method, false) {
                Ok(crate::http1::Next::Body(Framing::UntilClose)) => Framing::Chunked,
                Ok(crate::http1::Next::Body(framing)) => framing,
                _ => return Ok(()),
            };
            let plan = ResponsePlan {
                to: Http::Http11,
                framing,
                tells_length_only: head_only || status == 304,
                keep_alive: true,
                upgrade: false,
                edits: &[],
            };
            let mut written = Vec::new();
            plan.put(&seen, &mut written).unwrap();
            let written = head::response(&Bytes::from(written));
            if let Some(passed) = response(parts.headers.clone(), &plan, &seen) {
                let written = written.unwrap();
                prop_assert_eq!(passed.status(), written.status());
                prop_assert_eq!(&joined(passed.into_parts().0.headers), written.headers());
            }
        }
    }
}
