//! Which heads are accepted, and what is owed for the others.

use super::*;
use crate::reason::Reason;
use crate::view::HeaderLookup;

/// (what the case shows, bytes, what comes of it)
pub(crate) type Case = (&'static str, &'static [u8], Result<(), HeadFault>);

pub(crate) const REQUESTS: &[Case] = &[
    // Lines.
    ("plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("no space after the colon", b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", Ok(())),
    ("an empty line before", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("many empty lines before", b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::EmptyLines)),
    ("bare LF before", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::BareLineFeed)),
    ("bare CR before", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(HeadFault::BareLineFeed)),
    ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(HeadFault::BareLineFeed)),
    ("bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(HeadFault::BareLineFeed)),
    ("LF LF", b"GET / HTTP/1.1\r\nHost: a\n\n", Err(HeadFault::BareLineFeed)),
    ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Err(HeadFault::Syntax)),
    ("bare CR in the target", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Err(HeadFault::Syntax)),
    ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Err(HeadFault::Syntax)),
    ("NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a folded line", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Err(HeadFault::Syntax)),
    ("a folded line with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Err(HeadFault::Syntax)),
    ("a space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", Err(HeadFault::Syntax)),
    ("a field without a name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Err(HeadFault::Syntax)),
    ("a field without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Err(HeadFault::Syntax)),
    ("a name that is no token", b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n", Err(HeadFault::Syntax)),
    ("an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", Ok(())),
    ("a value of spaces", b"GET / HTTP/1.1\r\nHost: a\r\nX:  \t \r\n\r\n", Ok(())),
    ("obs-text in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\r\n\r\n", Ok(())),
    // The request line.
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a space at its end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a tab between", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("no version", b"GET /\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("a method that is no token", b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("an unknown method", b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("garbage for a version", b"GET / FTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("lower case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Syntax)),
    ("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(HeadFault::Version)),
    ("version 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", Err(HeadFault::Version)),
    ("version 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Err(HeadFault::Version)),
    ("the HTTP/2 preface, behind a request", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(HeadFault::Http2Preface)),
    // Targets.
    ("a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Target)),
    ("not ASCII", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Target)),
    ("no slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Target)),
    ("absolute", b"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("absolute without path", b"GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("absolute with IPv6", b"GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
    ("absolute without Host", b"GET http://b/ HTTP/1.1\r\n\r\n", Err(HeadFault::HostMissing)),
    ("absolute without host", b"GET http:///c HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadFault::Target)),
    ("absolute with user information", b"GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("absolute https", b"GET https://b/ HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("absolute with a bad port", b"GET http://b:99999/ HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("authority for CONNECT", b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", Ok(())),
    ("CONNECT without port", b"CONNECT b HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("CONNECT with an empty port", b"CONNECT b: HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("CONNECT with a body", b"CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\nContent-Length: 5\r\n\r\n", Err(HeadFault::ConnectWithBody)),
    ("CONNECT with a chunked body", b"CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadFault::ConnectWithBody)),
    ("CONNECT with an empty body", b"CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\nContent-Length: 0\r\n\r\n", Ok(())),
    ("CONNECT with a path", b"CONNECT /b HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("authority for GET", b"GET b:443 HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    ("asterisk for OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", Ok(())),
    ("asterisk for GET", b"GET * HTTP/1.1\r\nHost: b\r\n\r\n", Err(HeadFault::Target)),
    // Host.
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", Err(HeadFault::HostMissing)),
    ("no Host in 1.0", b"GET / HTTP/1.0\r\n\r\n", Ok(())),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Ok(())),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Err(HeadFault::HostTwice)),
    ("the same Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Err(HeadFault::HostTwice)),
    ("two Hosts in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(HeadFault::HostTwice)),
    ("a list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Err(HeadFault::HostInvalid)),
    ("a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Err(HeadFault::HostInvalid)),
    ("a Host with user information", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Err(HeadFault::HostInvalid)),
    ("a Host with a word for a port", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Err(HeadFault::HostInvalid)),
    ("a Host with port", b"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", Ok(())),
    ("a Host with an empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Ok(())),
    ("an IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Ok(())),
    ("an unclosed IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Err(HeadFault::HostInvalid)),
    ("an IPv6 Host without brackets", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", Err(HeadFault::HostInvalid)),
    // Lengths.
    ("a length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Ok(())),
    ("equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Ok(())),
    ("equal lengths in one line", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Ok(())),
    ("lengths that differ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Err(HeadFault::LengthsDiffer)),
    ("lengths that differ in one line", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,6\r\n\r\n", Err(HeadFault::LengthsDiffer)),
    ("a length with a sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Err(HeadFault::Length)),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", Err(HeadFault::Length)),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", Err(HeadFault::Length)),
    ("a length with a space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", Err(HeadFault::Length)),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Err(HeadFault::Length)),
    ("a length and a comma", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\n", Err(HeadFault::Length)),
    ("2^64 - 1", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", Ok(())),
    ("2^64", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Err(HeadFault::Length)),
    // Codings.
    ("chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(())),
    ("Chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Ok(())),
    ("chunked and a length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadFault::LengthAndCoding)),
    ("a length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", Err(HeadFault::LengthAndCoding)),
    ("chunked in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadFault::CodingInHttp10)),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("chunked on two lines", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("chunked not last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("chunked and a comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", Err(HeadFault::CodingNotChunked)),
    ("gzip before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(HeadFault::CodingUnknown)),
    ("an unknown coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Err(HeadFault::CodingUnknown)),
    ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n", Err(HeadFault::CodingUnknown)),
    ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Err(HeadFault::CodingUnknown)),
    ("a vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Err(HeadFault::Syntax)),
];

pub(crate) const RESPONSES: &[Case] = &[
    (
        "plain",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Ok(()),
    ),
    ("no reason", b"HTTP/1.1 200 \r\n\r\n", Ok(())),
    ("no reason and no space", b"HTTP/1.1 200\r\n\r\n", Ok(())),
    (
        "obs-text in the reason",
        b"HTTP/1.1 200 \xe4\r\n\r\n",
        Ok(()),
    ),
    ("version 1.0", b"HTTP/1.0 200 OK\r\n\r\n", Ok(())),
    (
        "version 2.0",
        b"HTTP/2.0 200 OK\r\n\r\n",
        Err(HeadFault::Version),
    ),
    (
        "an empty line before",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "not HTTP at all",
        b"ICY 200 OK\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a status of two digits",
        b"HTTP/1.1 20 OK\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a status of four digits",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "status 099",
        b"HTTP/1.1 099 OK\r\n\r\n",
        Err(HeadFault::Status),
    ),
    (
        "status 600",
        b"HTTP/1.1 600 OK\r\n\r\n",
        Err(HeadFault::Status),
    ),
    (
        "bare LF",
        b"HTTP/1.1 200 OK\n\n",
        Err(HeadFault::BareLineFeed),
    ),
    (
        "bare CR in the reason",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a folded line",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a space before the colon",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "chunked and a length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        Err(HeadFault::LengthAndCoding),
    ),
    (
        "chunked in 1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Err(HeadFault::CodingInHttp10),
    ),
    (
        "lengths that differ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        Err(HeadFault::LengthsDiffer),
    ),
    (
        "a coding nobody asked for",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        Err(HeadFault::CodingUnknown),
    ),
    (
        "lengths that differ in one line",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        Err(HeadFault::LengthsDiffer),
    ),
    (
        "a length with a sign",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        Err(HeadFault::Length),
    ),
    (
        "an empty length",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        Err(HeadFault::Length),
    ),
    (
        "2^64",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        Err(HeadFault::Length),
    ),
    (
        "chunked twice",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        Err(HeadFault::CodingNotChunked),
    ),
    (
        "chunked not last",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        Err(HeadFault::CodingNotChunked),
    ),
    (
        "identity",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        Err(HeadFault::CodingNotChunked),
    ),
    (
        "NUL in a value",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a bare CR in a value",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "a field without a colon",
        b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
        Err(HeadFault::Syntax),
    ),
    (
        "bare LF after a field",
        b"HTTP/1.1 200 OK\r\nX: a\n\r\n",
        Err(HeadFault::BareLineFeed),
    ),
    (
        "a Host in an answer",
        b"HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\n\r\n",
        Ok(()),
    ),
];

fn outcome(parsed: Parsed, len: usize) -> Result<(), HeadFault> {
    match parsed {
        Parsed::Head(got) => {
            assert_eq!(got, len);
            Ok(())
        }
        Parsed::Refuse(refusal) => Err(refusal.fault),
        Parsed::Partial => panic!("a complete head was called partial"),
    }
}

#[test]
fn request_heads() {
    for (case, bytes, want) in REQUESTS {
        assert_eq!(outcome(request(bytes).1, bytes.len()), *want, "{case}");
        // What follows the head changes nothing.
        let more = [bytes, &b"more\r\n\r\n"[..]].concat();
        assert_eq!(
            outcome(request(&more).1, bytes.len()),
            *want,
            "{case}, more"
        );
    }
}

#[test]
fn response_heads() {
    for (case, bytes, want) in RESPONSES {
        assert_eq!(outcome(response(bytes).1, bytes.len()), *want, "{case}");
    }
}

/// However the bytes are cut, the verdict is the same; a head is never accepted early.
#[test]
fn splits_change_nothing() {
    for (case, bytes, want) in REQUESTS {
        let mut head = RequestHead::new();
        let mut last = Parsed::Partial;
        for len in 1..=bytes.len() {
            last = head.parse(&bytes[..len]);
            match last {
                Parsed::Partial => {}
                Parsed::Head(_) => assert_eq!(len, bytes.len(), "{case}: accepted early"),
                Parsed::Refuse(_) => break,
            }
        }
        assert_eq!(outcome(last, bytes.len()), *want, "{case}, byte by byte");
        for cut in 1..bytes.len() {
            let mut head = RequestHead::new();
            let verdict = match head.parse(&bytes[..cut]) {
                Parsed::Partial => head.parse(bytes),
                early => early,
            };
            assert_eq!(outcome(verdict, bytes.len()), *want, "{case}, cut at {cut}");
        }
    }
    for (case, bytes, want) in RESPONSES {
        for cut in 1..bytes.len() {
            let mut head = ResponseHead::new();
            let verdict = match head.parse(&bytes[..cut]) {
                Parsed::Partial => head.parse(bytes),
                early => early,
            };
            assert_eq!(outcome(verdict, bytes.len()), *want, "{case}, cut at {cut}");
        }
    }
}

#[test]
fn every_fault_owes_its_answer() {
    let cases = [
        (HeadFault::Syntax, 400, Reason::BadRequest),
        (HeadFault::HostTwice, 400, Reason::BadRequest),
        (HeadFault::LengthAndCoding, 400, Reason::BadRequest),
        (HeadFault::CodingNotChunked, 400, Reason::BadRequest),
        (HeadFault::CodingUnknown, 501, Reason::UnknownCoding),
        (HeadFault::TargetTooLong, 414, Reason::HeadTooLarge),
        (HeadFault::TooLarge, 431, Reason::HeadTooLarge),
        (HeadFault::TooManyFields, 431, Reason::HeadTooLarge),
        (HeadFault::Version, 505, Reason::UnsupportedProtocol),
        (HeadFault::Http2Preface, 505, Reason::UnsupportedProtocol),
    ];
    for (fault, status, reason) in cases {
        let refusal = fault.refusal();
        assert_eq!(
            (refusal.status, refusal.reason),
            (status, reason),
            "{fault:?}"
        );
        assert_eq!(fault.bad_gateway().status, 502);
    }
}

#[test]
fn bounds() {
    let fields = |n: usize| {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        for at in 1..n {
            bytes.extend_from_slice(format!("x-{at}: y\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    };
    let exact = fields(limits::FIELDS_MAX);
    assert_eq!(request(&exact).1, Parsed::Head(exact.len()));
    let refused = |bytes: &[u8]| match request(bytes).1 {
        Parsed::Refuse(refusal) => refusal.fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(&fields(limits::FIELDS_MAX + 1)),
        HeadFault::TooManyFields
    );

    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n - 1));
    let exact = target(limits::TARGET_BYTES_MAX);
    assert_eq!(request(exact.as_bytes()).1, Parsed::Head(exact.len()));
    assert_eq!(
        refused(target(limits::TARGET_BYTES_MAX + 1).as_bytes()),
        HeadFault::TargetTooLong
    );
    // A request line without an end.
    let endless = format!("GET /{}", "a".repeat(2 * limits::TARGET_BYTES_MAX));
    assert_eq!(refused(endless.as_bytes()), HeadFault::TargetTooLong);

    let head = |n: usize| {
        let rest = b"GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
            "y".repeat(n - rest)
        )
    };
    let exact = head(limits::HEAD_BYTES_MAX);
    assert_eq!(request(exact.as_bytes()).1, Parsed::Head(exact.len()));
    assert_eq!(
        refused(head(limits::HEAD_BYTES_MAX + 1).as_bytes()),
        HeadFault::TooLarge
    );
    // A head without an end, at the bound.
    let endless = &head(limits::HEAD_BYTES_MAX + 9).into_bytes()[..limits::HEAD_BYTES_MAX];
    assert_eq!(refused(endless), HeadFault::TooLarge);
    assert_eq!(
        request(&endless[..limits::HEAD_BYTES_MAX - 1]).1,
        Parsed::Partial
    );
}

#[test]
fn a_head_says_what_it_holds() {
    let bytes = b"POST /a/b?c=d&e HTTP/1.1\r\nhost: reviews:9080\r\nX-Request-Id: 7\r\n\
        Cookie: a=b\r\ngrpc-timeout: 5S\r\nX-One: first\r\nx-one: second\r\nContent-Length: 3\r\n\
        Expect: 100-Continue\r\n\r\nabc";
    let (head, parsed) = request(bytes);
    assert_eq!(parsed, Parsed::Head(bytes.len() - 3));
    let view = head.view(bytes);
    assert_eq!(view.method(), "POST");
    assert_eq!(view.target(), "/a/b?c=d&e");
    assert_eq!((view.path(), view.query()), ("/a/b", Some("c=d&e")));
    assert_eq!(view.authority(), "reviews:9080");
    assert_eq!(view.framing(), Framing::Length(3));
    assert_eq!(view.version(), Version::Http11);
    assert!(view.expects_continue());
    assert_eq!(view.first("host"), Some(&b"reviews:9080"[..]));
    assert_eq!(view.first("x-request-id"), Some(&b"7"[..]));
    assert_eq!(view.first("grpc-timeout"), Some(&b"5S"[..]));
    assert_eq!(view.first("x-one"), Some(&b"first"[..]));
    assert_eq!(view.first("cookie"), Some(&b"a=b"[..]));
    assert_eq!(view.first("x-two"), None);
    assert_eq!(view.first("te"), None);
    assert_eq!(view.fields().count(), 8);
    assert_eq!(view.fields().next(), Some(("host", &b"reviews:9080"[..])));
}

#[test]
fn targets_are_taken_apart() {
    let cases = [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "a",
            "/",
            None,
            TargetForm::Origin,
        ),
        (
            "GET /? HTTP/1.1\r\nHost: a\r\n\r\n",
            "a",
            "/",
            Some(""),
            TargetForm::Origin,
        ),
        (
            "GET /b?c?d HTTP/1.1\r\nHost: a\r\n\r\n",
            "a",
            "/b",
            Some("c?d"),
            TargetForm::Origin,
        ),
        (
            "GET http://b:80/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
            "b:80",
            "/c",
            Some("d"),
            TargetForm::Absolute,
        ),
        (
            "GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n",
            "b",
            "/",
            None,
            TargetForm::Absolute,
        ),
        (
            "GET http://b?d HTTP/1.1\r\nHost: a\r\n\r\n",
            "b",
            "/",
            Some("d"),
            TargetForm::Absolute,
        ),
        (
            "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
            "b",
            "*",
            None,
            TargetForm::Absolute,
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "a",
            "*",
            None,
            TargetForm::Asterisk,
        ),
        (
            "CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "b:1",
            "",
            None,
            TargetForm::Authority,
        ),
        ("GET / HTTP/1.0\r\n\r\n", "", "/", None, TargetForm::Origin),
    ];
    for (bytes, authority, path, query, form) in cases {
        let (head, parsed) = request(bytes.as_bytes());
        assert_eq!(parsed, Parsed::Head(bytes.len()), "{bytes}");
        let view = head.view(bytes.as_bytes());
        assert_eq!(view.authority(), authority, "{bytes}");
        assert_eq!((view.path(), view.query()), (path, query), "{bytes}");
        assert_eq!(view.form(), form, "{bytes}");
    }
}

#[test]
fn connections_stay_open_as_both_say() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, want) in cases {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let (head, _) = request(bytes.as_bytes());
        assert_eq!(head.view(bytes.as_bytes()).keep_alive(), want, "{bytes}");
        let bytes = format!("HTTP/{version} 200 OK\r\n{fields}\r\n");
        let (head, _) = response(bytes.as_bytes());
        assert_eq!(head.view(bytes.as_bytes()).keep_alive(), want, "{bytes}");
    }
}

#[test]
fn upgrades_are_asked_for_properly_or_not_at_all() {
    let cases: [(&str, &str, Option<&[u8]>); 7] = [
        (
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            Some(b"websocket"),
        ),
        (
            "1.1",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
            Some(b"websocket"),
        ),
        ("1.1", "Upgrade: websocket\r\n", None),
        ("1.1", "Connection: Upgrade\r\n", None),
        ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
        (
            "1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            None,
        ),
        (
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            None,
        ),
    ];
    for (version, fields, want) in cases {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let (head, _) = request(bytes.as_bytes());
        assert_eq!(head.view(bytes.as_bytes()).upgrade(), want, "{bytes}");
    }
}

#[test]
fn answers_have_the_body_their_status_allows() {
    let body = |framing| Ok(Next::Body(framing));
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        (
            "GET",
            200,
            "Content-Length: 5\r\n",
            false,
            body(Framing::Length(5)),
        ),
        ("GET", 200, chunked, false, body(Framing::Chunked)),
        ("GET", 200, "", false, body(Framing::UntilClose)),
        (
            "HEAD",
            200,
            "Content-Length: 5\r\n",
            false,
            body(Framing::None),
        ),
        ("HEAD", 200, chunked, false, body(Framing::None)),
        (
            "GET",
            204,
            "Content-Length: 5\r\n",
            false,
            body(Framing::None),
        ),
        (
            "GET",
            304,
            "Content-Length: 5\r\n",
            false,
            body(Framing::None),
        ),
        ("GET", 100, "", false, Ok(Next::Interim)),
        (
            "GET",
            103,
            "Content-Length: 5\r\n",
            false,
            Ok(Next::Interim),
        ),
        ("GET", 101, "Upgrade: websocket\r\n", true, Ok(Next::Tunnel)),
        (
            "GET",
            101,
            "Upgrade: websocket\r\n",
            false,
            Err(HeadFault::UpgradeUnasked),
        ),
        (
            "CONNECT",
            200,
            "Content-Length: 5\r\n",
            false,
            Ok(Next::Tunnel),
        ),
        (
            "CONNECT",
            403,
            "Content-Length: 5\r\n",
            false,
            body(Framing::Length(5)),
        ),
    ];
    for (method, status, fields, upgrade, want) in cases {
        let bytes = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let (head, parsed) = response(bytes.as_bytes());
        assert_eq!(parsed, Parsed::Head(bytes.len()));
        let next = head.view(bytes.as_bytes()).next(method, upgrade);
        assert_eq!(next, want, "{method} {bytes}");
    }
}

/// A parser is used again for the next request without remembering the last.
#[test]
fn a_parser_is_reused() {
    let mut head = RequestHead::new();
    let first =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert_eq!(head.parse(first), Parsed::Head(first.len()));
    let second = b"GET /x HTTP/1.1\r\nHost: b\r\n\r\n";
    assert_eq!(head.parse(second), Parsed::Head(second.len()));
    let view = head.view(second);
    assert_eq!((view.framing(), view.keep_alive()), (Framing::None, true));
    assert_eq!((view.path(), view.authority()), ("/x", "b"));
}

/// A parser that was left in the middle of a head reads another one after `reset`, even where that
/// one is no longer than what it had seen.
#[test]
fn a_half_read_head_is_forgotten() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    for left in 1..whole.len() + 20 {
        let mut head = ResponseHead::new();
        let half = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(left));
        assert_eq!(head.parse(half.as_bytes()), Parsed::Partial);
        head.reset();
        assert_eq!(head.parse(whole), Parsed::Head(whole.len() - 3), "{left}");
    }
}
