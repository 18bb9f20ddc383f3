//! The whole worker over a ring that faults: random message sequences give what a simple model says,
//! and in a storm every request still has one end that is told.

mod http2_app;
mod model;
mod reader;

use std::net::Shutdown;
use std::sync::mpsc;

use proptest::prelude::*;

use self::model::{Content, Message, Step, messages, messages_for_http2};
use self::reader::Reader;
use super::*;

/// What the app found that does not fit the model.
type Wrong = Arc<std::sync::Mutex<Vec<String>>>;

/// The app: answers each request by its number. In a storm (`breaks`) what arrives may be cut off.
fn app(messages: &Arc<Vec<Message>>, breaks: bool, wrong: &Wrong) -> SocketAddr {
    let (messages, wrong) = (Arc::clone(messages), Arc::clone(wrong));
    server(move |_, stream| {
        stream.set_nodelay(true).unwrap();
        let mut reader = Reader::new(stream);
        while let Some(head) = reader.head() {
            let number = head
                .split(['/', ' '])
                .nth(2)
                .and_then(|n| n.parse::<usize>().ok());
            let Some(message) = number.and_then(|number| messages.get(number)) else {
                wrong.lock().unwrap().push(head);
                return;
            };
            if serve(&mut reader, &head, message, breaks, &wrong).is_none() {
                return;
            }
        }
    })
    .0
}

/// Takes the rest of one request and answers it; nothing if the connection is over then.
fn serve(
    reader: &mut Reader,
    head: &str,
    message: &Message,
    breaks: bool,
    wrong: &Wrong,
) -> Option<()> {
    if message.leave_is_given() {
        let leave = b"HTTP/1.1 100 Continue\r\n\r\n";
        reader.stream.write_all(leave).ok()?;
    }
    let wanted = message.arrives();
    let got = if message.tunnel.is_some() {
        // Both directions at once: the client may say much before it hears anything.
        let mut speaking = reader.stream.try_clone().unwrap();
        let answer = message.answer();
        std::thread::scope(|scope| {
            scope.spawn(move || speaking.write_all(&answer));
            Content {
                bytes: reader.rest(),
                trailers: String::new(),
            }
        })
    } else if message.body_comes() {
        reader.body(head)?
    } else {
        Content::default()
    };
    let cut = breaks && message.tunnel.is_some() && wanted.bytes.starts_with(&got.bytes);
    let asks_app = message.connects() || head.to_ascii_lowercase().contains("\r\nhost: app\r\n");
    if !head.starts_with(message.method) || !asks_app || (got != wanted && !cut) {
        let (len, trailers) = (got.bytes.len(), &got.trailers);
        let line = format!("{message:?}: {head}{len} bytes, {trailers:?}");
        wrong.lock().unwrap().push(line);
    }
    let said = match message.tunnel {
        Some(_) => message.farewell(),
        None => message.answer(),
    };
    reader.stream.write_all(&said).ok()?;
    (message.tunnel.is_none() && !message.closes()).then_some(())
}

/// An answer as the client got it.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    interims: Vec<u16>,
    status: u16,
    content: Content,
}

impl Got {
    /// What the model says of `message`.
    fn wanted(message: &Message) -> Self {
        Self {
            interims: message.interims(),
            status: message.answer.status,
            content: message.delivered(),
        }
    }

    /// For messages of failed tests: not all the bytes.
    fn told(&self) -> String {
        let Self {
            interims,
            status,
            content,
        } = self;
        let (len, trailers) = (content.bytes.len(), &content.trailers);
        let begin = content.bytes.get(..40.min(len)).unwrap_or_default();
        format!(
            "{interims:?} {status}, {len} bytes ({}), trailers {trailers:?}",
            begin.escape_ascii()
        )
    }
}

/// Sends all messages pipelined on one connection, in pieces, and reads the answers.
fn converse(bed: &Bed, messages: &[Message], pieces: u64) -> Vec<Option<Got>> {
    let client = bed.client();
    client.set_nodelay(true).unwrap();
    let sending = client.try_clone().unwrap();
    let steps = (0..).zip(messages).flat_map(|(n, m)| m.steps(n)).collect();
    // Whether leave was given, for each message that waits for it.
    let (leave, given) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || speak(sending, steps, &given, pieces));
        let mut reader = Reader::new(client);
        let answers = messages.iter().map(|message| {
            let got = hear(&mut reader, message, &leave);
            if got.is_none() {
                // It may be waiting: for good, now.
                let _ = leave.send(false);
                let _ = reader.stream.shutdown(Shutdown::Both);
            }
            got
        });
        answers.collect()
    })
}

/// Goes through the steps until one cannot be done.
fn speak(mut stream: TcpStream, steps: Vec<Step>, given: &mpsc::Receiver<bool>, pieces: u64) {
    let mut rng = fastrand::Rng::with_seed(pieces);
    for step in steps {
        let bytes = match step {
            Step::Send(bytes) => bytes,
            Step::AwaitLeave if given.recv() == Ok(true) => continue,
            Step::AwaitLeave => return,
            Step::Finish => {
                let _ = stream.shutdown(Shutdown::Write);
                continue;
            }
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rng.usize(1..=rest.len().min(30_000)));
            if stream.write_all(piece).is_err() {
                return;
            }
            rest = more;
        }
    }
}

/// Reads the answer to `message`, and tells `leave` what it waits for.
fn hear(reader: &mut Reader, message: &Message, leave: &mpsc::Sender<bool>) -> Option<Got> {
    let mut interims = Vec::new();
    let mut waits = message.waits();
    let mut over = false;
    let opens = |status: u16| status == 101 || message.connects() && status == 200;
    loop {
        let head = reader.head()?;
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        if std::mem::take(&mut waits) {
            if status == 103 {
                waits = true;
            } else {
                over = status >= 200 && !opens(status);
                leave.send(!over).ok()?;
            }
        }
        let content = match status {
            _ if opens(status) => Content {
                bytes: reader.rest(),
                trailers: String::new(),
            },
            ..200 => {
                interims.push(status);
                continue;
            }
            204 | 304 => Content::default(),
            _ if message.method == "HEAD" => Content::default(),
            _ if message.ends_client()
                && !head.to_ascii_lowercase().contains("\r\ncontent-length:") =>
            {
                Content {
                    bytes: reader.until_end()?,
                    trailers: String::new(),
                }
            }
            _ => reader.body(&head)?,
        };
        if over {
            // What it waited to send will not come, and nothing behind it.
            let _ = reader.stream.shutdown(Shutdown::Both);
        }
        return Some(Got {
            interims,
            status,
            content,
        });
    }
}

/// Lines of the log, once there are `count` of them: a line may follow what the client saw.
fn logged(bed: &Bed, count: usize) -> usize {
    let until = Instant::now() + PATIENCE;
    let mut lines = 0;
    while lines < count && Instant::now() < until {
        lines += bed.log().len();
    }
    lines + bed.log().len()
}

/// In wind or calm: each answer is the one the app gave to that request.
fn equal_the_model(
    draft: &Draft,
    wrong: &Wrong,
    messages: &[Message],
    seed: u64,
) -> Result<(), TestCaseError> {
    // Some faults need bytes that arrive together, which wind tears apart.
    let bed = match seed % 4 {
        0 => Bed::start(draft, Role::Outbound),
        _ => Bed::start_in(draft, Weather::Windy(seed)),
    };
    for (number, (message, got)) in messages
        .iter()
        .zip(converse(&bed, messages, seed))
        .enumerate()
    {
        let told = got.as_ref().map(Got::told);
        let as_modelled = got.is_some_and(|got| got == Got::wanted(message));
        prop_assert!(as_modelled, "{number}: {message:?} got {told:?}");
    }
    prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
    prop_assert_eq!(logged(&bed, messages.len()), messages.len());
    Ok(())
}

/// In a storm connections break, ours and the app's: an answer is the app's or our own 5xx, what
/// came through a tunnel is the beginning of what was said, and after the storm's victims others are served.
fn are_the_apps_or_our_own(
    draft: &Draft,
    wrong: &Wrong,
    messages: &[Message],
    seed: u64,
) -> Result<(), TestCaseError> {
    let bed = Bed::start_in(draft, Weather::Stormy(seed));
    for round in 0..4 {
        let begun = Instant::now();
        for (message, got) in messages.iter().zip(converse(&bed, messages, seed + round)) {
            // The connection broke: everything after is lost too.
            let Some(got) = got else { break };
            let wanted = Got::wanted(message);
            let ours = matches!(got.status, 502..=504);
            let cut = got.status == wanted.status
                && message.tunnel.is_some()
                && wanted.content.bytes.starts_with(&got.content.bytes);
            let theirs = (got.status, &got.content) == (wanted.status, &wanted.content);
            prop_assert!(ours || cut || theirs, "{message:?} got {}", got.told());
        }
        // The route's timeout is 15 s: a break must be noticed when it happens, not by that.
        let took = begun.elapsed();
        prop_assert!(took < Duration::from_secs(12), "somebody waited: {took:?}");
    }
    prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
    Ok(())
}

/// A draft whose app speaks HTTP/2.
fn draft_http2(app: SocketAddr) -> Draft {
    let mut draft = draft(app);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    draft
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// In wind nobody notices anything.
    #[test]
    fn message_sequences_in_wind_equal_the_model(messages in messages(12), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        equal_the_model(&draft(app(&messages, false, &wrong)), &wrong, &messages, seed)?;
    }

    #[test]
    fn in_a_storm_an_answer_is_the_apps_or_our_own(messages in messages(6), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        are_the_apps_or_our_own(&draft(app(&messages, true, &wrong)), &wrong, &messages, seed)?;
    }

    #[test]
    fn message_sequences_to_http2_in_wind_equal_the_model(
        messages in messages_for_http2(12),
        seed in any::<u64>()
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let draft = draft_http2(http2_app::start(&messages, &wrong, seed % 3 > 0));
        equal_the_model(&draft, &wrong, &messages, seed)?;
    }

    #[test]
    fn in_a_storm_an_answer_is_the_http2_apps_or_our_own(
        messages in messages_for_http2(6),
        seed in any::<u64>()
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let draft = draft_http2(http2_app::start(&messages, &wrong, seed % 3 > 0));
        are_the_apps_or_our_own(&draft, &wrong, &messages, seed)?;
    }
}
