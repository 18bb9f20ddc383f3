//! What io_uring can really do here: asked of the kernel, not read off its version, because
//! seccomp filters and distribution back-ports make version numbers lie.

use io_uring::{IoUring, Probe, opcode};
use serde::Serialize;

/// The operations the sidecar's ring uses, by name and number, and whether it can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Op {
    /// Name as in `io_uring_enter(2)`, without the prefix.
    pub name: &'static str,
    /// Opcode number.
    pub code: u8,
    /// The sidecar does not start without it.
    pub required: bool,
}

const fn op(name: &'static str, code: u8, required: bool) -> Op {
    Op {
        name,
        code,
        required,
    }
}

const OPS: [Op; 12] = [
    op("ACCEPT", opcode::Accept::CODE, true),
    op("CONNECT", opcode::Connect::CODE, true),
    op("RECV", opcode::Recv::CODE, true),
    op("SEND", opcode::Send::CODE, true),
    op("SENDMSG", opcode::SendMsg::CODE, true),
    op("READ", opcode::Read::CODE, true),
    op("ASYNC_CANCEL", opcode::AsyncCancel::CODE, true),
    op("POLL_ADD", opcode::PollAdd::CODE, true),
    op("SHUTDOWN", opcode::Shutdown::CODE, false),
    op("SEND_ZC", opcode::SendZc::CODE, false),
    op("SENDMSG_ZC", opcode::SendMsgZc::CODE, false),
    op("SPLICE", opcode::Splice::CODE, false),
];

/// The outcome of making a small ring and asking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Uring {
    /// A ring could be made.
    Usable {
        /// Operations we know of that this kernel lacks.
        missing: Vec<Op>,
        /// SINGLE_ISSUER with DEFER_TASKRUN is accepted (6.1).
        defer_taskrun: bool,
        /// SINGLE_ISSUER is accepted (6.0).
        single_issuer: bool,
        /// COOP_TASKRUN is accepted (5.19).
        coop_taskrun: bool,
        /// NO_SQARRAY is accepted (6.6).
        no_sqarray: bool,
        /// The wait takes a timeout argument (EXT_ARG, 5.11): without it no timer can work.
        ext_arg: bool,
    },
    /// No ring can be made.
    Refused {
        /// The kernel's errno; 0 when it gave none.
        errno: i32,
        /// Its text.
        error: String,
    },
}

pub(super) fn probe() -> Uring {
    let ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => {
            return Uring::Refused {
                errno: error.raw_os_error().unwrap_or(0),
                error: error.to_string(),
            };
        }
    };
    let mut answer = Probe::new();
    // A kernel without the probe operation (< 5.6) has none of what we need either.
    let asked = ring.submitter().register_probe(&mut answer).is_ok();
    let missing = OPS
        .into_iter()
        .filter(|op| !asked || !answer.is_supported(op.code))
        .collect();
    Uring::Usable {
        missing,
        defer_taskrun: accepts(|b| {
            b.setup_single_issuer().setup_defer_taskrun();
        }),
        single_issuer: accepts(|b| {
            b.setup_single_issuer();
        }),
        coop_taskrun: accepts(|b| {
            b.setup_coop_taskrun();
        }),
        no_sqarray: accepts(|b| {
            b.setup_no_sqarray();
        }),
        ext_arg: ring.params().is_feature_ext_arg(),
    }
}

fn accepts(set: impl FnOnce(&mut io_uring::Builder)) -> bool {
    let mut builder = IoUring::builder();
    set(&mut builder);
    builder.build(8).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a host that has io_uring the required operations are there; elsewhere the refusal has a text.
    #[test]
    fn the_probe_answers() {
        match probe() {
            Uring::Usable {
                missing, ext_arg, ..
            } => {
                assert!(ext_arg);
                assert!(missing.iter().all(|op| !op.required), "{missing:?}");
            }
            Uring::Refused { error, .. } => assert!(!error.is_empty()),
        }
    }
}
