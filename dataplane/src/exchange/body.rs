//! A request body on its way: what is here already, what still comes, and what may be sent again.

use super::head_out::HeadOut;
use super::progress::Progress;
use super::sides::{Inflow, OutFault, Outflow};
use crate::http1::{BodyDecoder, ChunkEncoder, Framing};
use crate::ring::{Chunk, Out, Ring};

/// Bytes of a request body kept for sending it again. As Linkerd's; Envoy keeps up to 1 MiB and
/// pays for it in memory on every request with a body.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// Pieces kept; many tiny ones would pin a receive buffer each.
const REPLAY_PIECES_MAX: usize = 32;
/// Pieces of up to so many bytes are joined with what is here behind them. Larger ones go as they came: what
/// copying costs, they save.
const JOIN_BYTES_MAX: usize = 256;

/// How a body ended badly.
#[derive(Debug, Clone, Copy)]
pub(super) enum BodyEnd {
    /// It breaks its framing.
    Fault,
    /// The connection it came on failed.
    Failed,
}

/// Where body pieces come from: the bytes behind the head, then the connection.
#[derive(Debug)]
pub(super) struct BodySource<'c> {
    inflow: Inflow<'c>,
    pending: &'c mut Chunk,
    decoder: &'c mut BodyDecoder,
    /// Payload bytes so far.
    pub bytes: u64,
    until_close: bool,
    /// The first of the pieces kept: most bodies are one, and need no list.
    kept_first: Option<Chunk>,
    kept_more: Vec<Chunk>,
    kept_bytes: usize,
    replayable: bool,
}

impl<'c> BodySource<'c> {
    /// A body that begins in `pending` and goes on in `inflow`.
    pub(super) fn new(
        inflow: Inflow<'c>,
        pending: &'c mut Chunk,
        decoder: &'c mut BodyDecoder,
        framing: Framing,
    ) -> Self {
        Self::read_as(inflow, pending, decoder, inflow.framing(framing))
    }

    /// As [`Self::new`], of an answer. One that has no body by its status or its request's method has none
    /// whatever frames follow: they would be taken for the next answer (RFC 9112 section 6.3).
    #[must_use]
    pub(super) fn of_answer(
        inflow: Inflow<'c>,
        pending: &'c mut Chunk,
        decoder: &'c mut BodyDecoder,
        framing: Framing,
    ) -> Self {
        match framing {
            Framing::None => Self::read_as(inflow, pending, decoder, Framing::None),
            _ => Self::new(inflow, pending, decoder, framing),
        }
    }

    fn read_as(
        inflow: Inflow<'c>,
        pending: &'c mut Chunk,
        decoder: &'c mut BodyDecoder,
        framing: Framing,
    ) -> Self {
        decoder.begin(framing);
        Self {
            inflow,
            pending,
            decoder,
            bytes: 0,
            until_close: framing == Framing::UntilClose,
            kept_first: None,
            kept_more: Vec::new(),
            kept_bytes: 0,
            replayable: true,
        }
    }

    /// Whether all of it was taken.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        self.decoder.is_over()
    }

    /// Whether nothing of it is still to come, and nothing behind it is here: what comes next on an HTTP/1.1
    /// connection is not this body's.
    #[must_use]
    pub(super) fn is_here(&self) -> bool {
        match self.is_over() {
            true => self.pending.is_empty(),
            false => self.decoder.is_last_part(self.pending.len() as u64),
        }
    }

    /// Whether everything taken so far can be sent again.
    #[must_use]
    pub(super) fn is_replayable(&self) -> bool {
        self.replayable
    }

    /// Pieces taken so far, for sending them again.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Chunk> {
        self.kept_first.iter().chain(&self.kept_more)
    }

    /// Trailer lines, once the body is over.
    #[must_use]
    pub(super) fn trailers(&self) -> &[u8] {
        self.inflow
            .trailers()
            .unwrap_or_else(|| self.decoder.trailers())
    }

    /// Whether bytes are here that are not this body's.
    #[must_use]
    pub(super) fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes the bytes that are here and not this body's: its successor, or a tunnel's first.
    #[must_use]
    pub(super) fn take_more(&mut self) -> Chunk {
        debug_assert!(self.is_over(), "they are the body's until it is over");
        std::mem::take(self.pending)
    }

    /// From here on nothing is kept: part of an answer went downstream, or nobody will ask.
    pub(super) fn forget_kept(&mut self) {
        self.replayable = false;
        self.kept_first = None;
        self.kept_more = Vec::new();
    }

    /// The next piece of payload that is already here; `None` if there is none.
    ///
    /// # Errors
    /// [`BodyEnd`].
    pub(super) fn ready(&mut self) -> Result<Option<Chunk>, BodyEnd> {
        let piece = self.ready_unkept()?;
        if let Some(piece) = &piece {
            self.keep(piece);
        }
        Ok(piece)
    }

    fn ready_unkept(&mut self) -> Result<Option<Chunk>, BodyEnd> {
        if self.pending.is_empty() && !self.decoder.is_over() {
            match self.inflow.try_recv() {
                None => return Ok(None),
                Some(Ok(chunk)) => self.take(chunk),
                Some(Err(_)) => return Err(BodyEnd::Failed),
            }
        }
        self.decode(usize::MAX)
    }

    /// Payload of up to `bytes_max` bytes out of what is pending.
    fn decode(&mut self, bytes_max: usize) -> Result<Option<Chunk>, BodyEnd> {
        while !self.pending.is_empty() && !self.decoder.is_over() {
            let here = &self.pending[..self.pending.len().min(bytes_max)];
            let decoded = self.decoder.decode(here);
            let decoded = decoded.map_err(|_| BodyEnd::Fault)?;
            self.pending.advance(decoded.skip);
            if decoded.payload > 0 {
                let piece = self.pending.split_to(decoded.payload);
                self.bytes += piece.len() as u64;
                if self.inflow.has_ended() {
                    self.decoder.begin(Framing::None);
                }
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// As [`Self::ready`]; a small piece takes those with it that are here behind it. Each would cost a frame
    /// or a send of its own, and servers take thousands of tiny frames for an attack.
    fn ready_joined(&mut self, ring: &Ring) -> Result<Option<Chunk>, BodyEnd> {
        let Some(first) = self.ready_unkept()? else {
            return Ok(None);
        };
        let piece = match first.len() <= JOIN_BYTES_MAX && !self.pending.is_empty() {
            true => self.join(first, ring)?,
            false => first,
        };
        self.keep(&piece);
        Ok(Some(piece))
    }

    /// What follows `first` and is here, copied behind it as far as one buffer reaches.
    fn join(&mut self, first: Chunk, ring: &Ring) -> Result<Chunk, BodyEnd> {
        let Some(mut joined) = ring.buf() else {
            return Ok(first);
        };
        let mut piece = first;
        // Never full: nothing longer than its room is asked for.
        while joined.extend_from_slice(&piece).is_ok() && joined.room() > 0 {
            match self.decode(joined.room())? {
                Some(next) => piece = next,
                None => break,
            }
        }
        Ok(joined.into())
    }

    /// The next piece of payload, waiting for it; `None` at the end. Safe to drop while it waits.
    ///
    /// # Errors
    /// [`BodyEnd`].
    pub(super) async fn next(&mut self, ring: &Ring) -> Result<Option<Chunk>, BodyEnd> {
        loop {
            if let Some(piece) = self.ready_joined(ring)? {
                return Ok(Some(piece));
            }
            if self.decoder.is_over() {
                return Ok(None);
            }
            let received = match self.bytes {
                0 => self.inflow.recv_first().await,
                _ => self.inflow.recv().await,
            };
            let chunk = received.map_err(|_| BodyEnd::Failed)?;
            if chunk.is_empty() {
                if self.until_close {
                    self.take(chunk);
                    return Ok(None);
                }
                return Err(BodyEnd::Fault);
            }
            self.take(chunk);
        }
    }

    /// Whether nothing at all follows what was taken, not even trailers.
    #[must_use]
    pub(super) fn is_at_end(&self) -> bool {
        self.is_over() && self.trailers().is_empty()
    }

    /// Takes received bytes; empty for the end that the connection or the frames say.
    fn take(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            self.decoder.begin(Framing::None);
        }
        *self.pending = chunk;
    }

    fn keep(&mut self, piece: &Chunk) {
        if !self.replayable {
            return;
        }
        self.kept_bytes += piece.len();
        if self.kept_bytes > REPLAY_BYTES_MAX || self.kept_more.len() + 1 >= REPLAY_PIECES_MAX {
            self.forget_kept();
        } else if self.kept_first.is_none() {
            self.kept_first = Some(piece.share());
        } else {
            self.kept_more.push(piece.share());
        }
    }
}

/// Writes body pieces in the framing that was announced.
#[derive(Debug)]
pub(super) struct BodySink {
    chunks: Option<ChunkEncoder>,
    ended: bool,
}

/// No buffer was left, or too many pieces for one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

impl BodySink {
    /// For a body of this framing, as announced.
    #[must_use]
    pub(super) fn new(framing: Framing) -> Self {
        let chunks = matches!(framing, Framing::Chunked).then(ChunkEncoder::new);
        Self {
            chunks,
            ended: false,
        }
    }

    /// Appends a piece behind a head.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn piece_into(
        &mut self,
        piece: Chunk,
        head: &mut HeadOut<'_>,
    ) -> Result<(), NoRoom> {
        if let Some(chunks) = &mut self.chunks {
            chunks.piece(piece.len(), head).map_err(|_| NoRoom)?;
        }
        head.push(piece).map_err(|_| NoRoom)
    }

    /// Appends the end behind a head.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn end_into(
        &mut self,
        trailers: &[u8],
        head: &mut HeadOut<'_>,
    ) -> Result<(), NoRoom> {
        self.ended = true;
        match &mut self.chunks {
            Some(chunks) => chunks.last(trailers, head).map_err(|_| NoRoom),
            None => Ok(()),
        }
    }

    /// One piece as a send of its own.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn piece(&mut self, piece: Chunk, ring: &Ring) -> Result<Out, NoRoom> {
        if self.chunks.is_none() {
            return Ok(Out::from(piece));
        }
        let mut out = HeadOut::new(ring);
        self.piece_into(piece, &mut out)?;
        Ok(out.finish())
    }

    /// Whether [`Self::end`] has nothing to say.
    pub(super) fn has_ended(&self) -> bool {
        self.ended || self.chunks.is_none()
    }

    /// The end as a send of its own; `None` if nothing is to be said or it was said.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub(super) fn end(&mut self, trailers: &[u8], ring: &Ring) -> Result<Option<Out>, NoRoom> {
        if self.has_ended() {
            return Ok(None);
        }
        let mut out = HeadOut::new(ring);
        self.end_into(trailers, &mut out)?;
        Ok(Some(out.finish()))
    }
}

/// Why pumping a request body stopped before its end.
#[derive(Debug)]
pub(super) enum PumpEnd {
    /// The client's side.
    Downstream(BodyEnd),
    /// The upstream does not take it.
    Upstream {
        /// All of it that was taken can be sent again.
        replayable: bool,
    },
    /// No buffer was left.
    NoRoom,
}

impl PumpEnd {
    fn of(fault: OutFault, source: &BodySource<'_>) -> Self {
        match fault {
            OutFault::Broken => Self::Upstream {
                replayable: source.is_replayable(),
            },
            OutFault::NoRoom => Self::NoRoom,
        }
    }
}

/// A body that was carried to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pumped {
    /// Behind it has arrived the client's next request, or a part of it.
    pub(super) has_more: bool,
    /// All of it can be sent again.
    pub(super) replayable: bool,
}

/// Carries the rest of a body, piece by piece as it comes.
///
/// # Errors
/// [`PumpEnd`].
pub(super) async fn pump(
    source: &mut BodySource<'_>,
    outflow: &mut Outflow<'_>,
    progress: &Progress<'_>,
    ring: &Ring,
) -> Result<Pumped, PumpEnd> {
    loop {
        progress.await_client(true);
        let next = source.next(ring).await.map_err(PumpEnd::Downstream)?;
        progress.await_client(false);
        progress.moved();
        let Some(piece) = next else { break };
        let last = source.is_at_end();
        let sent = outflow.piece(piece, last).await;
        sent.map_err(|fault| PumpEnd::of(fault, source))?;
        progress.moved();
    }
    let ended = outflow.end(source.trailers()).await;
    ended.map_err(|fault| PumpEnd::of(fault, source))?;
    Ok(Pumped {
        has_more: source.has_more(),
        replayable: source.is_replayable(),
    })
}
