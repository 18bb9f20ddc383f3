//! Schema version 1, and what version 2 appends to it ([`snapshot::Names`], [`Resolved`]).
//!
//! Frozen once released. bincode is positional: never reorder or remove a field, append enum
//! variants only, under a new version number; anything else is a new module with `From` both ways.
//! A message is written in the oldest version that can say it, and to a reader of an older version
//! goes without what that does not know ([`Snapshot::for_version`]).

pub mod expr;
pub mod lease;
pub mod report;
pub mod session;
pub mod snapshot;
pub mod svid;

pub use expr::{Expr, ExprNode, NodeIndex, Value};
pub use lease::{
    BucketId, Busy, Held, HeldRule, LeaseDown, LeaseUp, Lent, RecallKind, SLOTS, Units,
};
pub use report::{LogAck, LogBatch, Report};
pub use session::{
    Ack, AppHealth, Hello, Nack, PortHealth, Push, Registration, Reject, Resolved, ResolvedName,
    Welcome,
};
pub use snapshot::{Section, SectionHash, SectionKey, SectionKind, Snapshot};
pub use svid::{Enroll, Issued, Renew};
