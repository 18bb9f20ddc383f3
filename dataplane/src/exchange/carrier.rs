//! What a try runs on: a connection of its own, or a stream on one of many.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;

use h2::client::SendRequest;
use ringmesh_wire::SpiffeId;

use super::head_in::{HeadBytes, HeadRead, HeadReader};
use crate::budget::{Budget, Kept};
use crate::http1::ResponseHead;
use crate::http2::{Outgoing, Piece, ReadHead};
use crate::upstream::{Lane, SharedLane};

/// What a try runs on.
pub(super) enum Carrier {
    /// A connection of its own.
    Own(Lane),
    /// A stream on a connection of many.
    Shared(SharedLane, SendRequest<Piece>),
}

impl Carrier {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Own(lane) => lane.address(),
            Self::Shared(lane, _) => lane.address(),
        }
    }

    pub(super) fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Own(lane) => lane.identity(),
            Self::Shared(lane, _) => lane.identity(),
        }
    }

    pub(super) fn reused(&self) -> bool {
        match self {
            Self::Own(lane) => lane.idle_for.is_some() || lane.joined,
            Self::Shared(lane, _) => lane.reused,
        }
    }
}

/// The next head of the answer, from wherever it comes.
pub(super) async fn read_head(
    carrier: &Carrier,
    outgoing: &OnceCell<Outgoing>,
    reader: &mut HeadReader,
    parser: &mut ResponseHead,
    budget: &Rc<Budget>,
) -> HeadRead {
    match (carrier, outgoing.get()) {
        (Carrier::Own(lane), _) => reader.read(parser, &lane.stream, budget).await,
        (Carrier::Shared(..), None) => HeadRead::Failed { begun: false },
        (Carrier::Shared(lane, _), Some(stream)) => match stream.read_head(parser).await {
            ReadHead::Head(_) if lane.is_misbegun() => HeadRead::Failed { begun: false },
            // Its fields are kept as they came, too.
            ReadHead::Head(bytes) => match Kept::whole(budget, bytes, true) {
                Ok(kept) => HeadRead::Head(HeadBytes::Gathered(kept)),
                Err(_) => HeadRead::NoRoom,
            },
            ReadHead::Refuse(fault) => HeadRead::Refuse(fault.bad_gateway()),
            ReadHead::Refused => HeadRead::NotProcessed,
            ReadHead::Failed => HeadRead::Failed { begun: false },
        },
    }
}
