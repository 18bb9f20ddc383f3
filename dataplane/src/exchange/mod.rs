//! One request and its answer.
//!
//! Read [`pipeline`] first: it calls the rooms in their order. The others are its steps:
//!
//! ```text
//! serve     a downstream HTTP/1.1 connection: head after head
//! serve_http2  a downstream HTTP/2 connection: stream beside stream
//! serve_lanes  a downstream connection of lanes: each as an HTTP/1.1 connection
//! stream_tasks  the tasks that carry them, one stream after the other
//! pipeline  outbound: resolve, route, fault, policy of external services, tries
//!           inbound: policy, then the app
//! context   what each of its steps may look at
//! last_target  where the connection's last request was meant to go
//! tries     pick an endpoint, attempt, decide about another
//! attempt   one try at one endpoint: lane, request out, answer's head in
//! acquire   a lane for it, within the cluster's limits
//! patience  whether the client still waits, where nothing else would tell
//! borrow    room under a limit, of the other shards
//! sides     client and upstream, whatever they speak
//! respond   the answer's way to the client
//! answer    an answer of our own
//! body      request bodies: here, still coming, kept for a retry
//! tunnel    CONNECT
//! relay     opaque connections
//! early     a connection made before it is known what for
//! progress  when something last moved
//! note      the one Outcome
//! ```
//!
//! Invariants: every exchange ends in exactly one `Outcome`; nothing is borrowed from the shard
//! across an await; without a `Permit` there is no way to the app; after the first byte of an
//! answer went downstream nothing is tried again.

mod acquire;
mod acquire_lane;
mod acquire_shared;
mod answer;
mod attempt;
mod body;
pub mod borrow;
mod carrier;
mod context;
mod early;
mod flow;
mod head_in;
mod head_out;
mod last_target;
mod note;
mod patience;
pub mod pipeline;
mod plaintext;
mod progress;
mod record;
pub mod relay;
mod request_id;
mod respond;
mod send_request;
mod serve;
mod serve_http2;
mod serve_lanes;
mod sides;
mod state;
mod stream_tasks;
mod tries;
mod tunnel;
mod upgrade;

pub use answer::SHED_ANSWER;
pub use early::Early;
pub use flow::{Direction, Flow};
pub use plaintext::Enlisted;
pub use serve::{let_go, serve};
pub use serve_lanes::serve_lanes;
pub use state::{Active, ConnLimits, Counted, ShardState};
