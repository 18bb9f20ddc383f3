//! Messages by chance, and what each end is to get of them.

use proptest::prelude::*;

/// One exchange as both ends see it.
#[derive(Debug, Clone)]
pub(in crate::worker::tests) struct Message {
    pub(in crate::worker::tests) method: &'static str,
    /// The client is of HTTP/1.0, and asks to keep its connection.
    old: bool,
    /// The target is in absolute form, and Host says something else.
    absolute: bool,
    /// What the request carries.
    pub(in crate::worker::tests) upload: Option<Body>,
    pub(in crate::worker::tests) leave: Leave,
    pub(in crate::worker::tests) answer: Answered,
    /// The connection stops being HTTP with this one, which is the last then.
    pub(in crate::worker::tests) tunnel: Option<Tunnel>,
}

#[derive(Debug, Clone)]
pub(in crate::worker::tests) struct Body {
    len: usize,
    framing: Framing,
}

/// How a body says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker::tests) enum Framing {
    Length,
    /// Bytes of each chunk, and how many of [`TRAILERS`] follow.
    Chunked(usize, usize),
    /// With its connection; of answers only.
    Close,
}

/// Fields behind a chunked body, and whether they may stand there (RFC 9110 section 6.5.1).
const TRAILERS: [(&str, bool); 4] = [
    ("x-end: 1\r\n", true),
    ("Content-Length: 7\r\n", false),
    ("X-Sum: a, b\r\n", true),
    ("x-end: 2\r\n", true),
];

/// Whether a request asks for leave to send its body (RFC 9110 section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker::tests) enum Leave {
    NotAsked,
    /// Asked, and sent without waiting for it.
    NotAwaited,
    Awaited,
    /// Awaited, and never given: the last of its connection.
    Refused,
}

#[derive(Debug, Clone)]
pub(in crate::worker::tests) struct Answered {
    pub(in crate::worker::tests) status: u16,
    /// 103 before it.
    pub(in crate::worker::tests) hints: bool,
    body: Body,
}

/// Bytes after 101, or after the 200 to CONNECT. The client ends first, then the app.
#[derive(Debug, Clone)]
pub(in crate::worker::tests) struct Tunnel {
    /// Of the client: behind its request, and after the answer.
    early: usize,
    late: usize,
    /// Of the app: with its 101 (or the first it says), and after the client's end.
    greeting: usize,
    farewell: usize,
}

/// What an end gets: body and trailers, or the bytes of a tunnel.
#[derive(Debug, Clone, Default)]
pub(in crate::worker::tests) struct Content {
    pub(in crate::worker::tests) bytes: Vec<u8>,
    pub(in crate::worker::tests) trailers: String,
}

impl Content {
    /// Lines in an order and spelling that HTTP/2 does not change; those of one name stay in theirs.
    fn trailer_lines(&self) -> Vec<(String, String)> {
        let line = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let mut lines: Vec<_> = self.trailers.lines().map(line).collect();
        lines.sort_by(|one, other| one.0.cmp(&other.0));
        lines
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.trailer_lines() == other.trailer_lines()
    }
}

impl Eq for Content {}

/// What the client does, in this order.
#[derive(Debug)]
pub(in crate::worker::tests) enum Step {
    Send(Vec<u8>),
    /// For 100, 101 or the 200 to CONNECT; after anything else it says no more.
    AwaitLeave,
    /// Ends its direction.
    Finish,
}

fn body(framing: impl Strategy<Value = Framing>) -> impl Strategy<Value = Body> {
    let len = prop_oneof![Just(0_usize), 1..200_usize, 1_000..40_000_usize];
    (len, framing).prop_map(|(len, framing)| Body { len, framing })
}

fn chunked() -> impl Strategy<Value = Framing> {
    (1..9_000_usize, 0..=TRAILERS.len()).prop_map(|(piece, count)| Framing::Chunked(piece, count))
}

/// A few pieces that are too long to be copied together: each takes a place in a send.
fn in_few_pieces() -> impl Strategy<Value = Body> {
    (1..=8_usize, 513..1_500_usize, 0..=TRAILERS.len()).prop_map(|(pieces, piece, count)| Body {
        len: pieces * piece,
        framing: Framing::Chunked(piece, count),
    })
}

fn message() -> impl Strategy<Value = Message> {
    let method = prop_oneof![
        Just("GET"),
        Just("HEAD"),
        Just("POST"),
        Just("PUT"),
        Just("DELETE")
    ];
    let upload = body(prop_oneof![Just(Framing::Length), chunked()]);
    let leave = prop_oneof![
        4 => Just(Leave::NotAsked),
        1 => Just(Leave::NotAwaited),
        1 => Just(Leave::Awaited)
    ];
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(204), 1 => Just(304), 1 => Just(404)];
    let framing = prop_oneof![
        2 => Just(Framing::Length),
        2 => chunked(),
        1 => Just(Framing::Close)
    ];
    let answer = prop_oneof![2 => body(framing), 1 => in_few_pieces()];
    let absolute = prop::bool::weighted(0.25);
    (
        (method, absolute),
        upload,
        leave,
        status,
        any::<bool>(),
        answer,
    )
        .prop_map(|((method, absolute), upload, leave, status, hints, body)| {
            let uploads = matches!(method, "POST" | "PUT");
            Message {
                method,
                old: false,
                absolute,
                upload: uploads.then_some(upload),
                leave: if uploads { leave } else { Leave::NotAsked },
                answer: Answered {
                    status,
                    hints,
                    body,
                },
                tunnel: None,
            }
        })
}

/// As a client of HTTP/1.0 asks: a body has a length, leave is not asked for.
fn of_http10(mut message: Message) -> Message {
    message.old = true;
    message.leave = Leave::NotAsked;
    if let Some(upload) = &mut message.upload {
        upload.framing = Framing::Length;
    }
    message
}

/// One that others may follow.
fn followed() -> impl Strategy<Value = Message> {
    (message(), prop::bool::weighted(0.2)).prop_map(|(message, old)| {
        // To HTTP/1.0 what has no length goes until the end of the connection.
        let has_end = message.is_bodiless() || message.answer.body.framing == Framing::Length;
        match old && has_end {
            true => of_http10(message),
            false => message,
        }
    })
}

fn tunnel() -> impl Strategy<Value = Message> {
    // The last is enough for the bytes to be spliced.
    let len = || prop_oneof![3 => Just(0_usize), 3 => 1..9_000_usize, 1 => 270_000..330_000_usize];
    let connect = any::<bool>();
    (connect, len(), len(), len(), len()).prop_map(|(connect, early, late, greeting, farewell)| {
        Message {
            method: if connect { "CONNECT" } else { "GET" },
            old: false,
            absolute: false,
            upload: None,
            leave: Leave::NotAsked,
            answer: Answered {
                status: if connect { 200 } else { 101 },
                hints: false,
                body: Body {
                    len: 0,
                    framing: Framing::Length,
                },
            },
            tunnel: Some(Tunnel {
                early,
                late,
                greeting,
                farewell,
            }),
        }
    })
}

/// Refused before its body was sent.
fn refused() -> impl Strategy<Value = Message> {
    message().prop_map(|message| Message {
        method: "PUT",
        upload: Some(Body {
            len: 100,
            framing: Framing::Length,
        }),
        leave: Leave::Refused,
        ..message
    })
}

/// What goes over one connection; what ends it, if anything does, stands last.
pub(in crate::worker::tests) fn messages(max: usize) -> impl Strategy<Value = Vec<Message>> {
    let last = prop_oneof![
        2 => Just(None),
        2 => tunnel().prop_map(Some),
        1 => refused().prop_map(Some),
        1 => message().prop_map(|message| Some(of_http10(message)))
    ];
    (proptest::collection::vec(followed(), 1..max), last).prop_map(|(mut messages, last)| {
        messages.extend(last);
        messages
    })
}

/// The same for an app that speaks HTTP/2. Tunnels and connections that end with an answer are not HTTP/2's.
pub(in crate::worker::tests) fn messages_for_http2(
    max: usize,
) -> impl Strategy<Value = Vec<Message>> {
    let last = prop_oneof![
        3 => Just(None),
        1 => message().prop_map(|message| Some(of_http10(message)))
    ];
    (proptest::collection::vec(followed(), 1..max), last).prop_map(|(mut messages, last)| {
        messages.extend(last);
        messages
    })
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + (at % 23) as u8).collect()
}

impl Body {
    /// What an app that speaks HTTP/2 says of the length, sends in frames of data and in trailers.
    pub(in crate::worker::tests) fn in_http2(
        &self,
    ) -> (Option<usize>, Vec<Vec<u8>>, Vec<&'static str>) {
        let content = content(self.len);
        match self.framing {
            Framing::Length => (Some(self.len), vec![content], Vec::new()),
            Framing::Close => (None, vec![content], Vec::new()),
            Framing::Chunked(piece, count) => {
                let pieces = content.chunks(piece).map(<[u8]>::to_vec).collect();
                let lines = TRAILERS[..count].iter().map(|(line, _)| *line).collect();
                (None, pieces, lines)
            }
        }
    }

    /// Framing field and bytes.
    fn written(&self) -> (String, Vec<u8>) {
        let content = content(self.len);
        let (piece, count) = match self.framing {
            Framing::Length => return (format!("Content-Length: {}\r\n", self.len), content),
            Framing::Close => return (String::new(), content),
            Framing::Chunked(piece, count) => (piece, count),
        };
        let mut bytes = Vec::new();
        for piece in content.chunks(piece) {
            bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n");
        for (line, _) in &TRAILERS[..count] {
            bytes.extend(line.bytes());
        }
        bytes.extend(b"\r\n");
        ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
    }

    fn delivered(&self) -> Content {
        let count = match self.framing {
            Framing::Chunked(_, count) => count,
            Framing::Length | Framing::Close => 0,
        };
        let pass = TRAILERS[..count].iter().filter(|(_, passes)| *passes);
        Content {
            bytes: content(self.len),
            trailers: pass.map(|(line, _)| *line).collect(),
        }
    }
}

impl Message {
    /// What the client does for it.
    pub(in crate::worker::tests) fn steps(&self, number: usize) -> Vec<Step> {
        let (framing, body) = self.upload.as_ref().map(Body::written).unwrap_or_default();
        let expect = match self.leave {
            Leave::NotAsked => "",
            Leave::NotAwaited | Leave::Awaited | Leave::Refused => "Expect: 100-continue\r\n",
        };
        let upgrade = match self.tunnel {
            Some(_) => "Connection: upgrade\r\nUpgrade: bytes\r\n",
            None => "",
        };
        let method = self.method;
        let version = if self.old { "1.0" } else { "1.1" };
        let stay = if self.old {
            "Connection: keep-alive\r\n"
        } else {
            ""
        };
        let (target, host) = match (method, self.absolute) {
            ("CONNECT", _) => ("app:80".to_owned(), "app:80"),
            (_, true) => (format!("http://app/{number}"), "elsewhere"),
            (_, false) => (format!("/{number}"), "app"),
        };
        let head = format!(
            "{method} {target} HTTP/{version}\r\nHost: {host}\r\n{stay}{expect}{upgrade}{framing}\r\n"
        );
        let head = head.into_bytes();
        match (&self.tunnel, self.leave) {
            (Some(tunnel), _) => {
                let said = content(tunnel.early + tunnel.late);
                let (early, late) = said.split_at(tunnel.early);
                // The app is told which message it is by the first bytes of the tunnel.
                let first = match self.connects() {
                    true => format!("CONNECT /{number} \r\n\r\n").into_bytes(),
                    false => Vec::new(),
                };
                let (first, first_late) = match tunnel.early {
                    0 => (Vec::new(), first),
                    _ => (first, Vec::new()),
                };
                vec![
                    Step::Send([&head, &first, early].concat()),
                    Step::AwaitLeave,
                    Step::Send([&first_late, late].concat()),
                    Step::Finish,
                ]
            }
            (None, Leave::NotAsked | Leave::NotAwaited) => vec![Step::Send([head, body].concat())],
            (None, Leave::Awaited | Leave::Refused) => {
                vec![Step::Send(head), Step::AwaitLeave, Step::Send(body)]
            }
        }
    }

    /// Whether it asks for a connection.
    pub(in crate::worker::tests) fn connects(&self) -> bool {
        self.method == "CONNECT"
    }

    /// Whether the answer goes on to the end of the client's connection.
    pub(in crate::worker::tests) fn ends_client(&self) -> bool {
        self.old && !self.is_bodiless() && self.answer.body.framing != Framing::Length
    }

    /// The body of the answer.
    pub(in crate::worker::tests) fn answer_body(&self) -> &Body {
        &self.answer.body
    }

    /// Whether the client waits for 100, 101 or a tunnel.
    pub(in crate::worker::tests) fn waits(&self) -> bool {
        self.tunnel.is_some() || matches!(self.leave, Leave::Awaited | Leave::Refused)
    }

    /// Whether the app gives leave to send.
    pub(in crate::worker::tests) fn leave_is_given(&self) -> bool {
        matches!(self.leave, Leave::NotAwaited | Leave::Awaited)
    }

    /// Statuses the client is told before that of the answer.
    pub(in crate::worker::tests) fn interims(&self) -> Vec<u16> {
        // HTTP/1.0 knows none.
        if self.old {
            return Vec::new();
        }
        let leave = self.leave_is_given().then_some(100);
        leave
            .into_iter()
            .chain(self.answer.hints.then_some(103))
            .collect()
    }

    /// What the app is to get.
    pub(in crate::worker::tests) fn arrives(&self) -> Content {
        if let Some(tunnel) = &self.tunnel {
            return Content {
                bytes: content(tunnel.early + tunnel.late),
                trailers: String::new(),
            };
        }
        let upload = self.upload.as_ref().filter(|_| self.body_comes());
        upload.map(Body::delivered).unwrap_or_default()
    }

    /// Whether the app is to take a body.
    pub(in crate::worker::tests) fn body_comes(&self) -> bool {
        self.upload.is_some() && self.leave != Leave::Refused
    }

    /// What the app answers; of a tunnel its 101, where it is asked for one, and its greeting.
    pub(in crate::worker::tests) fn answer(&self) -> Vec<u8> {
        if let Some(tunnel) = &self.tunnel {
            let head = match self.connects() {
                true => "",
                false => "HTTP/1.1 101 Told\r\nConnection: upgrade\r\nUpgrade: bytes\r\n\r\n",
            };
            return [head.as_bytes(), &content(tunnel.greeting)].concat();
        }
        let Answered {
            status,
            hints,
            body,
        } = &self.answer;
        let mut bytes = Vec::new();
        if *hints {
            bytes.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        }
        let (framing, body) = body.written();
        // RFC 9110 section 6.4.1: these never have a body; 204 no framing either.
        let framing = if *status == 204 { "" } else { &framing };
        let close = if self.closes() {
            "Connection: close\r\n"
        } else {
            ""
        };
        bytes.extend(format!("HTTP/1.1 {status} Told\r\n{close}{framing}\r\n").bytes());
        if !self.is_bodiless() {
            bytes.extend(body);
        }
        bytes
    }

    /// What the app says once the client has ended a tunnel.
    pub(in crate::worker::tests) fn farewell(&self) -> Vec<u8> {
        self.tunnel
            .as_ref()
            .map_or(Vec::new(), |tunnel| content(tunnel.farewell))
    }

    /// The app ends its connection behind this answer.
    pub(in crate::worker::tests) fn closes(&self) -> bool {
        self.answer.body.framing == Framing::Close || self.leave == Leave::Refused
    }

    pub(in crate::worker::tests) fn is_bodiless(&self) -> bool {
        self.method == "HEAD" || matches!(self.answer.status, 204 | 304)
    }

    /// What the client is to get.
    pub(in crate::worker::tests) fn delivered(&self) -> Content {
        match &self.tunnel {
            Some(tunnel) => Content {
                bytes: [content(tunnel.greeting), content(tunnel.farewell)].concat(),
                trailers: String::new(),
            },
            None if self.is_bodiless() => Content::default(),
            None if self.old => Content {
                trailers: String::new(),
                ..self.answer.body.delivered()
            },
            None => self.answer.body.delivered(),
        }
    }
}
