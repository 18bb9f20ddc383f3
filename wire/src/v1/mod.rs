//! Schema version 1.
//!
//! Frozen once released. bincode is positional: never reorder or remove a field, append enum
//! variants only; anything else is `v2/` with `From` both ways.

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
pub use session::{Ack, AppHealth, Hello, Nack, PortHealth, Push, Registration, Reject, Welcome};
pub use snapshot::{Section, SectionHash, SectionKey, SectionKind, Snapshot};
pub use svid::{Enroll, Issued, Renew};
