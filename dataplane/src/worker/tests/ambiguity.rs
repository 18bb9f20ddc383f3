//! Every ambiguous message through the whole worker: bytes in, what the app saw, what the client saw,
//! whether its connection stayed, what was counted. docs/http1-strictness.md lists the same cases.

use std::fmt::Write as _;
use std::sync::Mutex;

use super::*;
use crate::http1::tests::bodies::CHUNKED;
use crate::http1::tests::decode_all;
use crate::http1::tests::heads::{REQUESTS, RESPONSES};
use crate::http1::{BodyFault, Framing};

/// What became of one request on a connection of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// What reached the app, request ids left out.
    seen: String,
    status: String,
    /// Of the answer, if it was ours.
    reason: String,
    /// A second request was answered on the same connection.
    kept: bool,
}

impl Outcome {
    fn refused(status: u16, reason: &str) -> Self {
        Self {
            seen: String::new(),
            status: status.to_string(),
            reason: reason.to_owned(),
            kept: false,
        }
    }

    fn passed(seen: &str) -> Self {
        Self {
            seen: seen.to_owned(),
            status: "200".to_owned(),
            reason: "-".to_owned(),
            kept: true,
        }
    }
}

/// An app that writes down what it gets, and the sidecar before it: any host is the app's.
struct Scene {
    bed: Bed,
    seen: Arc<Mutex<Vec<u8>>>,
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

impl Scene {
    fn new() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let book = Arc::clone(&seen);
        let (upstream, _) = server(move |_, mut stream| {
            stream.set_nodelay(true).unwrap();
            while let Some(head) = read_head_bytes(&mut stream) {
                book.lock().unwrap().extend_from_slice(&head);
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let end: &dyn Fn(&[u8]) -> bool = if text.contains("transfer-encoding") {
                    &is_whole_in_chunks
                } else {
                    let length = text.split("content-length: ").nth(1);
                    let length = length.and_then(|rest| rest.split("\r\n").next());
                    let length = length.map_or(0, |digits| digits.parse::<usize>().unwrap());
                    &move |body| body.len() == length
                };
                let mut body = Vec::new();
                while !end(&body) {
                    let mut byte = [0];
                    if !matches!(stream.read(&mut byte), Ok(1)) {
                        return;
                    }
                    body.push(byte[0]);
                }
                book.lock().unwrap().extend_from_slice(&body);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        let mut draft = draft(upstream);
        draft.at("app").hosts = vec!["*".into()];
        Self {
            bed: Bed::start(&draft, Role::Outbound),
            seen,
        }
    }

    /// Sends `pieces`, the worker having taken each before the next.
    fn outcome(&self, pieces: &[&[u8]], ends: bool) -> Outcome {
        self.seen.lock().unwrap().clear();
        let mut client = self.bed.client();
        client.set_nodelay(true).unwrap();
        for (at, piece) in pieces.iter().enumerate() {
            if at > 0 {
                self.bed.turned();
            }
            // After a refusal nobody may be listening.
            if client.write_all(piece).is_err() {
                break;
            }
        }
        if ends {
            let _ = client.shutdown(std::net::Shutdown::Write);
        }
        let head = read_head(&mut client).unwrap_or_default();
        let reason = head.split("x-ringmesh-reason: ").nth(1);
        let reason = reason.and_then(|rest| rest.split("\r\n").next());
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let _ = client.read_exact(&mut body);
        let seen = self.seen.lock().unwrap().clone();
        let mut more = Vec::new();
        if !ends && client.write_all(NEXT).is_ok() {
            let _ = client.shutdown(std::net::Shutdown::Write);
        }
        let _ = client.read_to_end(&mut more);
        Outcome {
            seen: in_one_chunk(without_request_id(&seen)),
            status: head.split(' ').nth(1).unwrap_or("none").to_owned(),
            reason: reason.unwrap_or("-").to_owned(),
            kept: more.ends_with(b"\r\n\r\nok"),
        }
    }

    /// Log lines since the last look.
    fn counted(&self) -> Vec<(String, String)> {
        let lines = self.bed.log();
        let spare = ToShard::LogSpare(Vec::new());
        self.bed.mailbox.send(spare).unwrap();
        lines
            .iter()
            .map(|line| {
                let reason = line["reason"].as_str().unwrap().to_owned();
                (line["status"].to_string(), reason)
            })
            .collect()
    }
}

impl Bed {
    /// Returns after the worker has looked at everything that had arrived.
    fn turned(&self) {
        self.mailbox.send(ToShard::Collect).unwrap();
        while !matches!(self.next(), FromShard::Stats(_) | FromShard::Quiet) {}
    }
}

/// Of a body with one canonical framing and without `0` as its data.
fn is_whole_in_chunks(body: &[u8]) -> bool {
    let last = body.starts_with(b"0\r\n") || body.windows(5).any(|five| five == b"\r\n0\r\n");
    last && body.ends_with(b"\r\n\r\n")
}

fn read_head_bytes(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    Some(bytes)
}

/// Chunks leave as they came; what is in them counts.
fn in_one_chunk(seen: String) -> String {
    const CHUNKED_FOLLOWS: &str = "transfer-encoding: chunked\r\n\r\n";
    let Some((head, body)) = seen.split_once(CHUNKED_FOLLOWS) else {
        return seen;
    };
    let Ok((payload, _, decoder)) = decode_all(Framing::Chunked, body.as_bytes(), 64) else {
        return seen;
    };
    let chunk = match payload.len() {
        0 => String::new(),
        len => format!("{len:x}\r\n{}\r\n", payload.escape_ascii()),
    };
    let trailers = decoder
        .trailers()
        .escape_ascii()
        .to_string()
        .replace("\\r\\n", "\r\n");
    format!("{head}{CHUNKED_FOLLOWS}{chunk}0\r\n{trailers}\r\n")
}

/// A character for each byte, whatever it is.
fn without_request_id(seen: &[u8]) -> String {
    let text: String = seen.iter().map(|byte| char::from(*byte)).collect();
    let lines = text.split_inclusive("\r\n");
    lines
        .filter(|line| !line.starts_with("x-request-id: "))
        .collect()
}

/// (case of [`REQUESTS`] that is accepted, the body that is sent behind it, what the app sees)
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("plain", "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "no space after the colon",
        "",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an empty line before",
        "",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an empty value",
        "",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n",
    ),
    (
        "a value of spaces",
        "",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n",
    ),
    (
        "obs-text in a value",
        "",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n\r\n",
    ),
    (
        "an unknown method",
        "",
        "BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("absolute", "", "GET /c HTTP/1.1\r\nHost: b\r\n\r\n"),
    (
        "absolute without path",
        "",
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    (
        "absolute with IPv6",
        "",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    ),
    // The tunnel is ours to open.
    ("authority for CONNECT", "", ""),
    ("CONNECT with an empty body", "", ""),
    (
        "asterisk for OPTIONS",
        "",
        "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
    ),
    ("no Host in 1.0", "", "GET / HTTP/1.1\r\nhost: \r\n\r\n"),
    ("an empty Host", "", "GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    (
        "a Host with port",
        "",
        "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ),
    (
        "a Host with an empty port",
        "",
        "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
    ),
    (
        "an IPv6 Host",
        "",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    ),
    (
        "a length",
        "hello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "equal lengths",
        "hello",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "equal lengths in one line",
        "hello",
        "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\nhello",
    ),
    (
        "chunked",
        "5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "Chunked",
        "5\r\nhello\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
];

/// The one accepted case whose body nobody can send here.
const ENDLESS: &str = "2^64 - 1";
/// Begins an HTTP/2 connection: only behind another request is it a bad request head.
const PREFACE: &str = "the HTTP/2 preface, behind a request";

/// Sent behind what is refused: must not be answered, nor reach the app.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Bytes of a case, and what has to become of them.
fn requests() -> impl Iterator<Item = (&'static str, Vec<u8>, Outcome)> {
    let cases = REQUESTS
        .iter()
        .filter(|(case, ..)| ![ENDLESS, PREFACE].contains(case));
    cases.map(|(case, head, want)| match want {
        Ok(()) => {
            let (_, body, seen) = ACCEPTED
                .iter()
                .find(|(accepted, ..)| accepted == case)
                .unwrap_or_else(|| panic!("{case}: say what the app sees"));
            let bytes = [head, body.as_bytes()].concat();
            let outcome = Outcome {
                // HTTP/1.0 closes unless it asks not to.
                kept: *case != "no Host in 1.0",
                ..Outcome::passed(seen)
            };
            (*case, bytes, outcome)
        }
        Err(fault) => {
            let refusal = fault.refusal();
            let outcome = Outcome::refused(refusal.status, refusal.reason.code());
            (*case, [head, SMUGGLED].concat(), outcome)
        }
    })
}

#[test]
fn each_request_has_its_one_outcome() {
    let scene = Scene::new();
    for (case, bytes, want) in requests() {
        let got = scene.outcome(&[&bytes], false);
        assert_eq!(got, want, "{case}");
        let counted = scene.counted();
        assert_eq!(counted[0], (want.status, want.reason), "{case}");
        // A tunnel is one exchange, whatever goes through it.
        let once = !want.kept || case.starts_with("authority") || case.starts_with("CONNECT");
        assert_eq!(counted.len(), if once { 1 } else { 2 }, "{case}");
    }
}

#[test]
fn wherever_a_request_is_cut_its_outcome_is_the_same() {
    let scene = Scene::new();
    for (case, bytes, want) in requests() {
        for cut in 1..bytes.len() {
            let (first, rest) = bytes.split_at(cut);
            let got = scene.outcome(&[first, rest], false);
            assert_eq!(got, want, "{case}, cut at {cut}");
        }
    }
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const UPLOAD_SEEN: &str = "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// Whatever is cut where: a good body arrives whole with its trailers, a bad one never does.
#[test]
fn each_chunked_body_has_its_one_outcome_wherever_it_is_cut() {
    let scene = Scene::new();
    let head = UPLOAD.as_bytes();
    for (input, want) in CHUNKED {
        let cuts = 1..input.len();
        let all = std::iter::once(None).chain(cuts.map(Some));
        for cut in all {
            let ends = matches!(want, Err(BodyFault::Truncated));
            let behind = if want.is_err() && !ends {
                SMUGGLED
            } else {
                b""
            };
            let first = [head, &input[..cut.unwrap_or(input.len())]].concat();
            let rest = [&input[cut.unwrap_or(input.len())..], behind].concat();
            let pieces: &[&[u8]] = match cut {
                None => &[&[first, rest].concat()],
                Some(_) => &[&first, &rest],
            };
            let case = format!("{} cut at {cut:?}", input.escape_ascii());
            match want {
                // What is left over is the beginning of a request, which has other tests.
                Ok((.., left)) if !left.is_empty() => {}
                Ok((payload, trailers, _)) => {
                    let got = scene.outcome(pieces, false);
                    let Some(body) = got.seen.strip_prefix(UPLOAD_SEEN) else {
                        panic!("{case}: {got:?}");
                    };
                    let (arrived, _, decoder) =
                        decode_all(Framing::Chunked, body.as_bytes(), 64).unwrap();
                    assert_eq!(&arrived, payload, "{case}");
                    assert_eq!(decoder.trailers(), *trailers, "{case}");
                    assert_eq!((&*got.status, got.kept), ("200", true), "{case}");
                }
                Err(_) => {
                    let got = scene.outcome(pieces, ends);
                    // The app may have seen the head, but no end of the body.
                    assert!(
                        // Perhaps the one of the case before, late.
                        got.seen.replace(UPLOAD_SEEN, "").is_empty(),
                        "{case}: {got:?}"
                    );
                    let got = Outcome {
                        seen: String::new(),
                        ..got
                    };
                    assert_eq!(got, Outcome::refused(400, "bad_body"), "{case}");
                }
            }
        }
    }
}

/// (case of [`RESPONSES`] that is accepted, what the client gets)
const FORWARDED: &[(&str, &str)] = &[
    ("plain", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    (
        "no reason",
        "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "no reason and no space",
        "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    // A reason phrase means nothing; one that is not text is left out.
    (
        "obs-text in the reason",
        "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "version 1.0",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a Host in an answer",
        "HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

/// A server that answers with what `answer` holds, in two pieces, and shows when it was left.
struct Answering {
    bed: Bed,
    answer: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
    /// Before the second piece.
    between: Arc<std::sync::Barrier>,
    left: std::sync::mpsc::Receiver<()>,
}

impl Answering {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let between = Arc::new(std::sync::Barrier::new(2));
        let (leaves, left) = std::sync::mpsc::channel();
        let leaves = Mutex::new(leaves);
        let (script, meet) = (Arc::clone(&answer), Arc::clone(&between));
        let (upstream, _) = server(move |_, mut stream| {
            stream.set_nodelay(true).unwrap();
            if read_head(&mut stream).is_none() {
                return;
            }
            let (first, rest) = script.lock().unwrap().clone();
            let _ = stream.write_all(&first);
            meet.wait();
            meet.wait();
            // Refused after the first piece, perhaps.
            let _ = stream.write_all(&rest);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            leaves.lock().unwrap().send(()).unwrap();
        });
        Self {
            bed: Bed::start(&draft(upstream), Role::Outbound),
            answer,
            between,
            left,
        }
    }

    /// What the client gets for an answer in two pieces, and whether its connection stays.
    fn through(&self, first: &[u8], rest: &[u8]) -> (String, bool) {
        *self.answer.lock().unwrap() = (first.to_vec(), rest.to_vec());
        let mut client = self.bed.client();
        let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
        client.write_all(request).unwrap();
        self.between.wait();
        self.bed.turned();
        self.between.wait();
        // A request that is refused needs no server.
        let refused = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n";
        let _ = client.write_all(refused);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all);
        self.left.recv_timeout(PATIENCE).unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        match all.split_once("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain\r\nx-ringmesh-reason: unknown_destination") {
            Some((answer, _)) => (answer.to_owned(), true),
            None => (all, false),
        }
    }
}

/// A bad answer is 502, and its connection is closed; the client's, whose request was whole, stays.
#[test]
fn each_answer_has_its_one_outcome_wherever_it_is_cut() {
    let scene = Answering::new();
    for (case, bytes, want) in RESPONSES {
        let all = std::iter::once(bytes.len()).chain(1..bytes.len());
        for cut in all {
            let (got, kept) = scene.through(&bytes[..cut], &bytes[cut..]);
            assert!(kept, "{case} cut at {cut}: {got}");
            if want.is_err() {
                assert!(
                    got.starts_with("HTTP/1.1 502 "),
                    "{case} cut at {cut}: {got}"
                );
                let reason = "x-ringmesh-reason: bad_response\r\n";
                assert!(got.contains(reason), "{case} cut at {cut}: {got}");
                continue;
            }
            let forwarded = FORWARDED.iter().find(|(accepted, _)| accepted == case);
            let (_, forwarded) =
                forwarded.unwrap_or_else(|| panic!("{case}: what is forwarded: {got:?}"));
            assert_eq!(got, *forwarded, "{case} cut at {cut}");
        }
    }
}

/// A body that breaks its framing never looks whole: 502 if nothing of the answer had left, else the
/// client's connection is cut.
#[test]
fn an_answer_whose_body_breaks_never_looks_whole() {
    let scene = Answering::new();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (input, want) in CHUNKED {
        if want.is_ok() {
            continue;
        }
        let case = input.escape_ascii();
        let (got, _) = scene.through(head, input);
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{case}: {got}");
        let (_, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(!is_whole_in_chunks(body.as_bytes()), "{case}: {got}");
        if *want == Err(BodyFault::Truncated) {
            continue;
        }
        let (got, kept) = scene.through(&[head, *input].concat(), b"");
        if got.starts_with("HTTP/1.1 200 ") {
            // Good chunks before the bad one.
            let (_, body) = got.split_once("\r\n\r\n").unwrap();
            assert!(!is_whole_in_chunks(body.as_bytes()), "{case}: {got}");
            continue;
        }
        assert!(got.starts_with("HTTP/1.1 502 ") && kept, "{case}: {got}");
    }
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http1-strictness.md");
const BEGIN: &str = "<!-- cases: written from the tests -->\n";

/// The document has every case with its outcome. `RINGMESH_WRITE_CASES=1` writes them anew.
#[test]
fn the_document_lists_every_case() {
    let mut cases = String::from(BEGIN);
    let mut section = |title: &str, rows: &[(String, String)]| {
        let _ = write!(cases, "\n### {title}\n| case | outcome |\n| --- | --- |\n");
        for (case, outcome) in rows {
            let _ = writeln!(cases, "| {} | {outcome} |", case.replace('|', "\\|"));
        }
    };
    let heads = REQUESTS.iter().map(|(case, _, want)| {
        let outcome = match want {
            Ok(()) => "forwarded".to_owned(),
            Err(fault) => {
                let refusal = fault.refusal();
                format!("{}, `{}`, close", refusal.status, refusal.reason.code())
            }
        };
        ((*case).to_owned(), outcome)
    });
    section("Request heads", &heads.collect::<Vec<_>>());
    let answers = RESPONSES.iter().map(|(case, _, want)| {
        let outcome = match want {
            Ok(()) => "forwarded",
            Err(_) => "502, `bad_response`, upstream closed",
        };
        ((*case).to_owned(), outcome.to_owned())
    });
    section("Answers' heads", &answers.collect::<Vec<_>>());
    let bodies = CHUNKED.iter().map(|(input, want)| {
        let outcome = match want {
            Ok(_) => "forwarded",
            Err(_) => "400, `bad_body`, close; in an answer 502 or cut",
        };
        (format!("`{}`", input.escape_ascii()), outcome.to_owned())
    });
    section("Chunked bodies", &bodies.collect::<Vec<_>>());
    let text = std::fs::read_to_string(DOCUMENT).unwrap();
    let (prose, listed) = text.split_once(BEGIN).unwrap_or((&text, ""));
    if std::env::var_os("RINGMESH_WRITE_CASES").is_some() {
        return std::fs::write(DOCUMENT, format!("{prose}{cases}")).unwrap();
    }
    assert!(
        *listed == cases[BEGIN.len()..],
        "{DOCUMENT} and the tests differ; RINGMESH_WRITE_CASES=1 writes the list anew"
    );
}
