//! What a connection makes the shard keep, charged to the shard's budget.
//!
//! Up to [`limits::KEPT_BYTES_FREE`] of a connection are free: small calls need nothing of the budget, and go
//! on where it is used up. Above it whoever brings more than there is room for loses the connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use h2::RecvStream;

use super::held::Held;
use super::limits;
use crate::budget::{Budget, Charge, NoRoom};

/// Of one connection, shared with its streams.
#[derive(Debug)]
pub struct Account {
    held: RefCell<Held>,
    /// Of a header block that is not whole.
    block_bytes: Cell<usize>,
    charge: Charge,
    /// There was no room for what came.
    overdrawn: Cell<bool>,
}

impl Account {
    /// Of a client's connection.
    #[must_use]
    pub fn of_client(budget: &Rc<Budget>) -> Rc<Self> {
        Self::new(budget, Held::of_client())
    }

    /// Of a connection to a server.
    #[must_use]
    pub fn of_server(budget: &Rc<Budget>) -> Rc<Self> {
        Self::new(budget, Held::of_server())
    }

    fn new(budget: &Rc<Budget>, held: Held) -> Rc<Self> {
        Rc::new(Self {
            held: RefCell::new(held),
            block_bytes: Cell::new(0),
            charge: Charge::new(budget),
            overdrawn: Cell::new(false),
        })
    }

    /// `note` notes what is coming, and tells how much of a header block is not whole.
    ///
    /// # Errors
    /// [`NoRoom`], from then on and for ever.
    pub(super) fn receive(&self, note: impl FnOnce(&mut Held) -> usize) -> Result<(), NoRoom> {
        self.block_bytes.set(note(&mut self.held.borrow_mut()));
        let charged = self.charge();
        if charged.is_err() {
            self.overdrawn.set(true);
        }
        match self.overdrawn.get() {
            true => Err(NoRoom),
            false => Ok(()),
        }
    }

    /// The part of a stream that the peer has begun, from when it is known; `None` where nothing can come.
    #[must_use]
    pub fn part_of(self: &Rc<Self>, stream: &RecvStream) -> Option<Part> {
        (!stream.is_end_stream()).then(|| Part::open(self, stream.stream_id().as_u32()))
    }

    pub(super) fn is_overdrawn(&self) -> bool {
        self.overdrawn.get()
    }

    /// See [`Held::settle`].
    pub(super) fn settle(&self) {
        self.held.borrow_mut().settle();
        self.relieve();
    }

    fn charge(&self) -> Result<(), NoRoom> {
        let kept = self.held.borrow().bytes() + self.block_bytes.get();
        self.charge
            .set(kept.saturating_sub(limits::KEPT_BYTES_FREE))
    }

    /// Less is held than before.
    fn relieve(&self) {
        // Only more could find no room, and that is told by what brings it.
        let _ = self.charge();
    }
}

/// One stream's part of it, for as long as somebody takes care of the stream.
#[derive(Debug)]
pub struct Part {
    account: Rc<Account>,
    id: u32,
}

impl Part {
    pub(super) fn open(account: &Rc<Account>, id: u32) -> Self {
        account.held.borrow_mut().open(id);
        Self {
            account: Rc::clone(account),
            id,
        }
    }

    pub(super) fn pass_on(&self, bytes: usize) {
        self.account.held.borrow_mut().pass_on(self.id, bytes);
        self.account.relieve();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.account.held.borrow_mut().close(self.id);
        self.account.relieve();
    }
}
