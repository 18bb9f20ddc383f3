//! The tasks around one link to control: connecting, the session stream, certificates, reports.
//!
//! Each task tells what happened as a [`News`] with the link's number; whoever listens ignores
//! news of a link it has given up. Nothing here decides anything.

use ringmesh_wire::codec;
use ringmesh_wire::frame::Kind;
use ringmesh_wire::{Enroll, Issued, LeaseDown, LogAck, LogBatch, NodeId, Renew, Report, Revision};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::credentials::{Identity, KeyRequest};
use super::lease::StreamNumber;
use super::quic::{FrameReader, FrameWriter, Link, LinkError};
use super::session::{Down, Up};
use super::token::JoinToken;
use super::verify::Anchor;

/// Close code of a connection that was made for one certificate only.
pub const CLOSE_DONE: u32 = 3;

/// Numbers links, so that late news of an old one can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkNumber(pub u64);

/// Where control is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// What a task tells.
#[derive(Debug)]
pub enum News {
    /// The link stands.
    Connected(Link),
    /// There is none.
    Failed(LinkError),
    /// Control said something on the session stream.
    Said(Box<Down>),
    /// The link is of no use any more.
    Ended(LinkError),
    /// A log batch is stored.
    Stored(LogAck),
    /// The quota authority said something on a lease stream.
    Leased(StreamNumber, Box<LeaseDown>),
    /// A lease stream ended; the link may well go on.
    LeaseEnded(StreamNumber),
}

/// Keys that certificates are asked for.
#[derive(Debug)]
pub struct Keys {
    /// The workload's.
    pub workload: KeyRequest,
    /// The node's, where a new one is due.
    pub node: Option<KeyRequest>,
}

impl Keys {
    /// New ones.
    ///
    /// # Errors
    /// [`LinkError::Setup`]: the crypto provider's.
    pub fn new(with_node: bool) -> Result<Self, LinkError> {
        let key = || KeyRequest::new().map_err(|error| LinkError::Setup(error.to_string()));
        Ok(Self {
            workload: key()?,
            node: with_node.then(key).transpose()?,
        })
    }
}

/// Freshly issued certificates and the keys they are for.
#[derive(Debug)]
pub struct Fresh {
    /// What control sent.
    pub issued: Issued,
    /// The keys.
    pub keys: Arc<Keys>,
}

/// First certificates for a join token and both `keys`, over a connection of its own. An answer may get
/// lost: asked again with the same keys, control answers again for some time, though the token is used.
///
/// # Errors
/// [`LinkError`].
pub async fn enroll(
    place: Place,
    token: JoinToken,
    node: NodeId,
    keys: Arc<Keys>,
) -> Result<Fresh, LinkError> {
    let anchor = Anchor::Pin(token.root_pin);
    let link = Link::connect(&place.host, place.port, anchor, None).await?;
    let node_csr = keys.node.as_ref().map(|key| key.csr.clone());
    let request = Enroll {
        token_id: token.id,
        token_secret: token.secret,
        node,
        workload_csr: keys.workload.csr.clone(),
        node_csr: node_csr.unwrap_or_default(),
    };
    let (mut writer, mut reader) = link.open().await?;
    writer.write(Kind::Enroll, Revision(0), &request).await?;
    let issued: Result<Issued, LinkError> = reader.expect(Kind::Issued).await;
    link.close(CLOSE_DONE, "enrolled");
    // Its roots need not hold the one the token vouches for: that may have been replaced since, and
    // control has just been recognised by it.
    Ok(Fresh {
        issued: issued?,
        keys,
    })
}

/// New certificates over a link that stands.
///
/// # Errors
/// [`LinkError`].
pub async fn renew(link: Link, with_node: bool) -> Result<Fresh, LinkError> {
    let keys = Arc::new(Keys::new(with_node)?);
    let request = Renew {
        workload_csr: keys.workload.csr.clone(),
        node_csr: keys.node.as_ref().map(|node| node.csr.clone()),
    };
    let (mut writer, mut reader) = link.open().await?;
    writer.write(Kind::Renew, Revision(0), &request).await?;
    let issued = reader.expect(Kind::Issued).await?;
    Ok(Fresh { issued, keys })
}

/// New certificates over a connection of its own, for when there is no link or the identity it was
/// made with has expired.
///
/// # Errors
/// [`LinkError`].
pub async fn renew_apart(
    place: Place,
    anchor: Anchor,
    identity: Arc<Identity>,
    with_node: bool,
) -> Result<Fresh, LinkError> {
    let link = Link::connect(&place.host, place.port, anchor, Some(&identity)).await?;
    let fresh = renew(link.clone(), with_node).await;
    link.close(CLOSE_DONE, "renewed");
    fresh
}

/// A link with its tasks. Dropping it ends the tasks and the connection.
#[derive(Debug)]
pub struct Running {
    /// Its number.
    pub number: LinkNumber,
    /// The connection.
    pub link: Link,
    session: mpsc::UnboundedSender<Up>,
    reports: mpsc::Sender<Report>,
    logs: mpsc::Sender<LogBatch>,
    _tasks: JoinSet<()>,
}

/// Where news goes.
pub type Tell = mpsc::UnboundedSender<(LinkNumber, News)>;

/// Connects and tells how it went.
pub async fn connect(
    number: LinkNumber,
    place: Place,
    anchor: Anchor,
    identity: Arc<Identity>,
    tell: Tell,
) {
    let news = match Link::connect(&place.host, place.port, anchor, Some(&identity)).await {
        Ok(link) => News::Connected(link),
        Err(error) => News::Failed(error),
    };
    let _ = tell.send((number, news));
}

impl Running {
    /// Starts the tasks of a link.
    #[must_use]
    pub fn start(number: LinkNumber, link: Link, tell: &Tell) -> Self {
        // What is sent here is bounded by what control sends us: one answer per push.
        let (session, session_queue) = mpsc::unbounded_channel();
        let (reports, reports_queue) = mpsc::channel(1);
        let (logs, logs_queue) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        let watched = |what: Task| {
            let tell = tell.clone();
            async move {
                if let Err(error) = what.await {
                    let _ = tell.send((number, News::Ended(error)));
                }
            }
        };
        let stream = run_session(number, link.clone(), session_queue, tell.clone());
        tasks.spawn(watched(Box::pin(stream)));
        tasks.spawn(watched(Box::pin(run_reports(link.clone(), reports_queue))));
        let logs_task = run_logs(number, link.clone(), logs_queue, tell.clone());
        tasks.spawn(watched(Box::pin(logs_task)));
        let end = link.clone();
        tasks.spawn(watched(Box::pin(async move { Err(end.closed().await) })));
        Self {
            number,
            link,
            session,
            reports,
            logs,
            _tasks: tasks,
        }
    }

    /// Sends on the session stream. A link that has ended tells so by its news.
    pub fn send(&self, up: Up) {
        let _ = self.session.send(up);
    }

    /// Sends a report, unless the one before is still under way; false then.
    #[must_use]
    pub fn report(&self, report: Report) -> bool {
        self.reports.try_send(report).is_ok()
    }

    /// Sends a log batch; acknowledged by [`News::Stored`]. False while one is under way.
    #[must_use]
    pub fn log(&self, batch: LogBatch) -> bool {
        self.logs.try_send(batch).is_ok()
    }
}

type Task = std::pin::Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

async fn run_session(
    number: LinkNumber,
    link: Link,
    mut queue: mpsc::UnboundedReceiver<Up>,
    tell: Tell,
) -> Result<(), LinkError> {
    let (mut writer, mut reader) = link.open().await?;
    let reading = async {
        loop {
            let down = read_down(&mut reader).await?;
            let _ = tell.send((number, News::Said(Box::new(down))));
        }
    };
    let writing = async {
        while let Some(up) = queue.recv().await {
            write_up(&mut writer, &up).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

/// Reads one message of the session stream.
async fn read_down(reader: &mut FrameReader) -> Result<Down, LinkError> {
    let Some((header, payload)) = reader.read().await? else {
        return Err(LinkError::Lost("control ended the session stream".into()));
    };
    Ok(match header.kind {
        Kind::Welcome => Down::Welcome(codec::decode(&payload)?),
        Kind::Reject => Down::Reject(codec::decode(&payload)?),
        Kind::Push => Down::Push(codec::decode(&payload)?),
        other => return Err(LinkError::Unexpected(other)),
    })
}

async fn write_up(writer: &mut FrameWriter, up: &Up) -> Result<(), LinkError> {
    match up {
        Up::Hello(hello) => writer.write(Kind::Hello, hello.revision, hello).await,
        Up::Register(registration) => {
            writer
                .write(Kind::Register, Revision(0), registration)
                .await
        }
        Up::AppHealth(health) => writer.write(Kind::AppHealth, Revision(0), health).await,
        Up::Ack(ack) => writer.write(Kind::Ack, ack.revision, ack).await,
        Up::Resolved(names) => writer.write(Kind::Resolved, Revision(0), names).await,
        Up::Nack(nack) => writer.write(Kind::Nack, nack.revision, nack).await,
    }
}

/// One stream for all reports of the link: values are cumulative, so their order matters.
async fn run_reports(link: Link, mut queue: mpsc::Receiver<Report>) -> Result<(), LinkError> {
    let mut stream = None;
    while let Some(report) = queue.recv().await {
        let writer = match &mut stream {
            Some(writer) => writer,
            none => none.insert(link.open_uni().await?),
        };
        writer.write(Kind::Report, Revision(0), &report).await?;
    }
    Ok(())
}

async fn run_logs(
    number: LinkNumber,
    link: Link,
    mut queue: mpsc::Receiver<LogBatch>,
    tell: Tell,
) -> Result<(), LinkError> {
    let mut stream = None;
    while let Some(batch) = queue.recv().await {
        let (writer, reader) = match &mut stream {
            Some(stream) => stream,
            none => none.insert(link.open().await?),
        };
        writer.write(Kind::LogBatch, Revision(0), &batch).await?;
        let ack: LogAck = reader.expect(Kind::LogAck).await?;
        let _ = tell.send((number, News::Stored(ack)));
    }
    Ok(())
}
