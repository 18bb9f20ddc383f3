//! The whole worker over a ring that faults: random message sequences give what a simple model says,
//! and in a storm every request still has one end that is told.

use proptest::prelude::*;

use super::*;

/// One exchange as both ends see it.
#[derive(Debug, Clone)]
struct Message {
    /// Method, and whether the request has a body.
    method: &'static str,
    upload: Option<Body>,
    answer: Answered,
}

#[derive(Debug, Clone)]
struct Body {
    len: usize,
    /// Bytes of each chunk; 0: with Content-Length.
    chunk: usize,
}

#[derive(Debug, Clone)]
struct Answered {
    status: u16,
    interim: bool,
    body: Body,
}

fn body() -> impl Strategy<Value = Body> {
    let len = prop_oneof![Just(0_usize), 1..200_usize, 1_000..40_000_usize];
    (len, prop_oneof![Just(0_usize), 1..9_000_usize]).prop_map(|(len, chunk)| Body { len, chunk })
}

fn message() -> impl Strategy<Value = Message> {
    let method = prop_oneof![
        Just("GET"),
        Just("HEAD"),
        Just("POST"),
        Just("PUT"),
        Just("DELETE")
    ];
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(204), 1 => Just(304), 1 => Just(404)];
    (method, body(), status, any::<bool>(), body()).prop_map(
        |(method, upload, status, interim, body)| Message {
            method,
            upload: matches!(method, "POST" | "PUT").then_some(upload),
            answer: Answered {
                status,
                interim,
                body,
            },
        },
    )
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| b'a' + (at % 23) as u8).collect()
}

impl Body {
    /// Framing field and bytes.
    fn written(&self) -> (String, Vec<u8>) {
        let content = content(self.len);
        if self.chunk == 0 {
            return (format!("Content-Length: {}\r\n", self.len), content);
        }
        let mut bytes = Vec::new();
        for piece in content.chunks(self.chunk) {
            bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        ("Transfer-Encoding: chunked\r\n".to_owned(), bytes)
    }
}

impl Message {
    fn request(&self, number: usize) -> Vec<u8> {
        let (framing, body) = self.upload.as_ref().map(Body::written).unwrap_or_default();
        let mut bytes = format!(
            "{} /{number} HTTP/1.1\r\nHost: app\r\n{framing}\r\n",
            self.method
        )
        .into_bytes();
        bytes.extend(body);
        bytes
    }

    /// What the app answers.
    fn answer(&self) -> Vec<u8> {
        let Answered {
            status,
            interim,
            body,
        } = &self.answer;
        let mut bytes = Vec::new();
        if *interim {
            bytes.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        }
        let (framing, body) = body.written();
        // RFC 9110 section 6.4.1: these never have a body; 204 no framing either.
        let bodiless = self.method == "HEAD" || matches!(status, 204 | 304);
        let framing = if *status == 204 { "" } else { &framing };
        bytes.extend(format!("HTTP/1.1 {status} Told\r\n{framing}\r\n").bytes());
        if !bodiless {
            bytes.extend(body);
        }
        bytes
    }

    /// Bytes of body the client is to get.
    fn delivered(&self) -> usize {
        let bodiless = self.method == "HEAD" || matches!(self.answer.status, 204 | 304);
        if bodiless { 0 } else { self.answer.body.len }
    }
}

/// Reads messages off a stream, bytes of a pipelined successor kept.
struct Reader {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Reader {
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 8192];
        match self.stream.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(len) => {
                self.bytes.extend_from_slice(&buffer[..len]);
                true
            }
        }
    }

    fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
                return String::from_utf8(head).ok();
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < len {
            if !self.fill() {
                return None;
            }
        }
        Some(self.bytes.drain(..len).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..end + 2).collect();
                return String::from_utf8(line).ok();
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The body that `head` announces.
    fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        let head = head.to_ascii_lowercase();
        if head.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let size = usize::from_str_radix(self.line()?.trim(), 16).ok()?;
                body.extend(self.exactly(size)?);
                self.exactly(2)?;
                if size == 0 {
                    return Some(body);
                }
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        self.exactly(length.map_or(Some(0), |length| length.trim().parse().ok())?)
    }
}

/// The app: answers each request by its number, and keeps what does not fit the model.
fn app(messages: &Arc<Vec<Message>>, wrong: &Arc<std::sync::Mutex<Vec<String>>>) -> SocketAddr {
    let (messages, wrong) = (Arc::clone(messages), Arc::clone(wrong));
    server(move |_, stream| {
        stream.set_nodelay(true).unwrap();
        let mut reader = Reader {
            stream,
            bytes: Vec::new(),
        };
        while let Some(head) = reader.head() {
            let number = head
                .split(['/', ' '])
                .nth(2)
                .and_then(|n| n.parse::<usize>().ok());
            let Some(message) = number.and_then(|number| messages.get(number)) else {
                wrong.lock().unwrap().push(head);
                return;
            };
            let Some(body) = reader.body(&head) else {
                return;
            };
            let len = message.upload.as_ref().map_or(0, |upload| upload.len);
            if !head.starts_with(message.method) || body != content(len) {
                wrong
                    .lock()
                    .unwrap()
                    .push(format!("{head}{} bytes", body.len()));
            }
            if reader.stream.write_all(&message.answer()).is_err() {
                return;
            }
        }
    })
    .0
}

/// Sends all messages pipelined on one connection, in pieces, and reads the answers.
fn converse(bed: &Bed, messages: &[Message], pieces: u64) -> Vec<Option<(u16, Vec<u8>)>> {
    let client = bed.client();
    client.set_nodelay(true).unwrap();
    let mut sending = client.try_clone().unwrap();
    let requests: Vec<u8> = (0..)
        .zip(messages)
        .flat_map(|(n, m)| m.request(n))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rng = fastrand::Rng::with_seed(pieces);
            let mut rest = &requests[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rng.usize(1..=rest.len().min(30_000)));
                if sending.write_all(piece).is_err() {
                    return;
                }
                rest = more;
            }
        });
        let mut reader = Reader {
            stream: client,
            bytes: Vec::new(),
        };
        let answers = messages.iter().map(|message| {
            loop {
                let head = reader.head()?;
                let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
                if status < 200 {
                    continue;
                }
                let bodiless = message.method == "HEAD" || matches!(status, 204 | 304);
                let body = if bodiless {
                    Some(Vec::new())
                } else {
                    reader.body(&head)
                };
                return Some((status, body?));
            }
        });
        answers.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// In wind nobody notices anything: each answer is the one the app gave to that request.
    #[test]
    fn message_sequences_in_wind_equal_the_model(
        messages in proptest::collection::vec(message(), 1..12),
        seed in any::<u64>(),
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let bed = Bed::start_in(&draft(app(&messages, &wrong)), Weather::Windy(seed));
        for (number, (message, got)) in
            messages.iter().zip(converse(&bed, &messages, seed)).enumerate()
        {
            let wanted = (message.answer.status, content(message.delivered()));
            let told = got.as_ref().map(|(status, body)| (*status, body.len()));
            prop_assert!(got.as_ref() == Some(&wanted), "{number}: {message:?} got {told:?}");
        }
        prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
        prop_assert_eq!(bed.log().len(), messages.len());
    }

    /// In a storm connections break, ours and the app's: an answer is the app's or our own 5xx, and
    /// after the storm's victims others are served.
    #[test]
    fn in_a_storm_an_answer_is_the_apps_or_our_own(
        messages in proptest::collection::vec(message(), 1..6),
        seed in any::<u64>(),
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let bed = Bed::start_in(&draft(app(&messages, &wrong)), Weather::Stormy(seed));
        let begun = Instant::now();
        for round in 0..4 {
            for (message, got) in messages.iter().zip(converse(&bed, &messages, seed + round)) {
                // The connection broke: everything after is lost too.
                let Some((status, body)) = got else { break };
                let wanted = content(message.delivered());
                let ours = matches!(status, 502..=504);
                prop_assert!(
                    ours || (status, &body) == (message.answer.status, &wanted),
                    "{message:?} got {status} and {} bytes", body.len()
                );
            }
        }
        prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
        // The route's timeout is 15 s: a break must be noticed when it happens, not by that.
        prop_assert!(begun.elapsed() < Duration::from_secs(10), "somebody waited for a timeout");
    }
}
