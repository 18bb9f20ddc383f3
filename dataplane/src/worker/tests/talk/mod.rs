//! Conversations by chance, on the real kernel and in a simulated network: what a client and an app say, and
//! what a simple model says that each of them is to hear.

mod line;
mod model;
mod reader;

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub(super) use self::line::{Line, Simulated, block_on};
use self::model::Step;
pub(super) use self::model::{Content, Message, messages, messages_for_http2};
pub(super) use self::reader::Reader;

/// What the app found that does not fit the model.
pub(super) type Wrong = Arc<Mutex<Vec<String>>>;

/// The app on one connection: answers each request by its number. Where things break (`breaks`), what arrives
/// may be cut off.
pub(super) async fn attend<L: Line>(line: L, messages: &[Message], breaks: bool, wrong: &Wrong) {
    let mut reader = Reader::new(line);
    while let Some(head) = reader.head().await {
        let number = head
            .split(['/', ' '])
            .nth(2)
            .and_then(|n| n.parse::<usize>().ok());
        let Some(message) = number.and_then(|number| messages.get(number)) else {
            wrong.lock().unwrap().push(head);
            return;
        };
        let served = serve(&mut reader, &head, message, breaks, wrong).await;
        if served.is_none() {
            return;
        }
    }
}

/// Takes the rest of one request and answers it; nothing if the connection is over then.
async fn serve<L: Line>(
    reader: &mut Reader<L>,
    head: &str,
    message: &Message,
    breaks: bool,
    wrong: &Wrong,
) -> Option<()> {
    if message.leave_is_given() {
        let leave = b"HTTP/1.1 100 Continue\r\n\r\n";
        reader.line.write(leave).await.ok()?;
    }
    let wanted = message.arrives();
    let got = if message.tunnel.is_some() {
        // Both directions at once: the client may say much before it hears anything.
        let answer = message.answer();
        let speak = async move |mut line: L| {
            let _ = line.write(&answer).await;
        };
        let bytes = reader.line.also().beside(speak, reader.rest()).await;
        Content {
            bytes,
            trailers: String::new(),
        }
    } else if message.body_comes() {
        reader.body(head).await?
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
    reader.line.write(&said).await.ok()?;
    (message.tunnel.is_none() && !message.closes()).then_some(())
}

/// An answer as the client got it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got {
    interims: Vec<u16>,
    pub(super) status: u16,
    pub(super) content: Content,
}

impl Got {
    /// What the model says of `message`.
    pub(super) fn wanted(message: &Message) -> Self {
        Self {
            interims: message.interims(),
            status: message.answer.status,
            content: message.delivered(),
        }
    }

    /// Whether this is an answer that may come where connections break: the app's, our own 5xx, or the
    /// beginning of what went through a tunnel.
    pub(super) fn may_be(&self, message: &Message) -> bool {
        let wanted = Self::wanted(message);
        let ours = matches!(self.status, 502..=504);
        let cut = self.status == wanted.status
            && message.tunnel.is_some()
            && wanted.content.bytes.starts_with(&self.content.bytes);
        let theirs = (self.status, &self.content) == (wanted.status, &wanted.content);
        ours || cut || theirs
    }

    /// For messages of failed tests: not all the bytes.
    pub(super) fn told(&self) -> String {
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
pub(super) async fn converse<L: Line>(
    line: L,
    messages: &[Message],
    pieces: u64,
) -> Vec<Option<Got>> {
    let steps: Vec<Step> = (0..).zip(messages).flat_map(|(n, m)| m.steps(n)).collect();
    // Whether leave was given, for each message that waits for it.
    let (leave, given) = unbounded_channel();
    let speaking = line.also();
    let mut reader = Reader::new(line);
    let hear_all = async move {
        let mut answers = Vec::new();
        for message in messages {
            let got = hear(&mut reader, message, &leave).await;
            if got.is_none() {
                // It may be waiting: for good, now.
                let _ = leave.send(false);
                reader.line.leave();
            }
            answers.push(got);
        }
        answers
    };
    let speak = move |line| speak(line, steps, given, pieces);
    speaking.beside(speak, hear_all).await
}

/// Goes through the steps until one cannot be done.
async fn speak<L: Line>(
    mut line: L,
    steps: Vec<Step>,
    mut given: UnboundedReceiver<bool>,
    pieces: u64,
) {
    let mut rng = fastrand::Rng::with_seed(pieces);
    for step in steps {
        let bytes = match step {
            Step::Send(bytes) => bytes,
            Step::AwaitLeave if given.recv().await == Some(true) => continue,
            Step::AwaitLeave => return,
            Step::Finish => {
                line.finish();
                continue;
            }
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rng.usize(1..=rest.len().min(30_000)));
            if line.write(piece).await.is_err() {
                return;
            }
            rest = more;
        }
    }
}

/// Reads the answer to `message`, and tells `leave` what it waits for.
async fn hear<L: Line>(
    reader: &mut Reader<L>,
    message: &Message,
    leave: &UnboundedSender<bool>,
) -> Option<Got> {
    let mut interims = Vec::new();
    let mut waits = message.waits();
    let mut over = false;
    let opens = |status: u16| status == 101 || message.connects() && status == 200;
    loop {
        let head = reader.head().await?;
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
                bytes: reader.rest().await,
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
                    bytes: reader.until_end().await?,
                    trailers: String::new(),
                }
            }
            _ => reader.body(&head).await?,
        };
        if over {
            // What it waited to send will not come, and nothing behind it.
            reader.line.leave();
        }
        return Some(Got {
            interims,
            status,
            content,
        });
    }
}
