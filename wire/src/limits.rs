//! Every maximum of the mesh link, in one place. Decoders refuse above them before allocating.

/// Payload bytes of one frame. The largest legitimate frame is a first snapshot push: 1,000
/// services with 10 endpoints each measure well under 2 MiB; 16 MiB leaves room for growth.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one snapshot section.
pub const SECTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sections of one snapshot: service, endpoints and routes for each of 10,000 services.
pub const SECTIONS_MAX: usize = 30_000;
/// Endpoints by name of one service.
pub const NAMED_ENDPOINTS_MAX: usize = 256;
/// Names of endpoints whose addresses one sidecar reports.
pub const RESOLVED_NAMES_MAX: usize = 1_024;
/// Ports a sidecar registers.
pub const REGISTERED_PORTS_MAX: usize = 512;
/// Addresses of one of them.
pub const RESOLVED_ADDRESSES_MAX: usize = 64;
/// Bytes of a name (node, service, namespace, account): the DNS limit of a full name.
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes of the software version that a sidecar says it is.
pub const BUILD_BYTES_MAX: usize = 256;
/// Bytes of what a check of the app saw, as told to control; a sidecar cuts what is longer.
pub const HEALTH_DETAIL_BYTES_MAX: usize = 1_024;
/// Nodes of one compiled expression.
pub const EXPR_NODES_MAX: usize = 1_024;
/// Nesting depth of one compiled expression; the evaluator recurses this deep at most.
pub const EXPR_DEPTH_MAX: usize = 64;
/// Compiled size of one regex of a route, bytes: enough for long alternations, little enough that a
/// hostile counted repetition is refused instead of eating a sidecar's memory.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;
/// Bytes of a SPIFFE ID (SPIFFE-ID section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;
/// Bytes of a DER certificate or signing request.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a quota's name in leases: `instance.quota.namespace@service.namespace#group`.
pub const QUOTA_NAME_BYTES_MAX: usize = 8 * NAME_BYTES_MAX;
/// Dimensions of one quota.
pub const LEASE_DIMENSIONS_MAX: usize = 32;
/// Bytes of one dimension's value in a bucket's name; a longer value stands there as its hash.
pub const LEASE_VALUE_BYTES_MAX: usize = 256;
/// Entries of one lease message; what is more travels in several.
pub const LEASE_ITEMS_MAX: usize = 4_096;
/// Groups of busy units in one message. A holder merges spends that are close together, so it
/// never has more (`ringmesh-quota`).
pub const LEASE_BUSY_MAX: usize = 1_024;

const _: () = assert!(SECTION_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
