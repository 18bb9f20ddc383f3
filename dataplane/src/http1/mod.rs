//! HTTP/1.1 as a proxy has to read and write it: heads, bodies, the mesh's own answers.
//!
//! Pure: byte slices in, values and byte slices out; no I/O, no clock, no allocation per message in
//! steady state. Everything a peer may send is bounded by [`limits`].
//!
//! Reading order:
//! 1. [`RequestHead`] and [`ResponseHead`] are reusable parsers that hold ranges into the bytes they
//!    parsed, never the bytes; `view(bytes)` gives [`Request`] and [`Response`] to ask questions of.
//!    What came as something else than text is spelled and indexed at once ([`Spelling`]);
//! 2. [`Framing`] says how long a body is; [`BodyDecoder`] walks it over arriving slices and names
//!    the payload inside them, so that forwarding copies nothing;
//! 3. [`RequestPlan`] and [`ResponsePlan`] write a parsed head again, with one canonical framing and
//!    without what belongs to the hop; [`ChunkEncoder`] writes chunked bodies;
//! 4. [`Answer`] is an answer of the mesh itself;
//! 5. [`path`] makes one spelling of a path out of many.
//!
//! Invariants (docs/http1-strictness.md has the table of cases):
//! - a head that two recipients could read differently is refused, never repaired (RFC 9112 sections
//!   2.2, 5.1, 6.3, 11.2); what leaves has exactly one length and one Host;
//! - a field that `Connection` names is dropped unless losing it would change who is asked, what is
//!   allowed or how long the body is (`fields::PROTECTED`);
//! - every refusal closes the connection: after it nobody knows where the next request begins;
//! - peer bytes never reach a panic (proptests here, fuzz targets in `dataplane/fuzz`).

mod answer;
mod body;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod drive;
mod edits;
mod encode;
mod fault;
mod fields;
mod framing;
pub mod limits;
pub mod path;
mod request;
mod response;
mod sink;
mod spelling;
mod target;
#[cfg(test)]
pub(crate) mod tests;

pub use answer::{Answer, put_continue, put_tunnel_open};
pub(crate) use body::may_not_trail;
pub use body::{BodyDecoder, BodyFault, ChunkEncoder, Decoded};
pub use edits::{Edits, check_field};
pub use encode::{ClientCert, RequestPlan, ResponsePlan};
pub use fault::{HeadFault, Refusal};
pub use fields::{FieldIter, Known};
pub use framing::Framing;
pub use request::{Parsed, Request, RequestHead};
pub use response::{Next, Response, ResponseHead};
pub use sink::{Full, Sink, SliceSink};
pub use spelling::Spelling;
pub use target::TargetForm;

/// The two versions this room speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no interim answers, closes unless asked not to.
    Http10,
    /// HTTP/1.1.
    Http11,
}
