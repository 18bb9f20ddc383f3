//! What this kernel can do: sets a ring up with the best flags it takes and checks that every
//! operation we use is there.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::error::RingError;
use super::plan::{Picked, RingPlan, SendZc, TaskRun};

/// A ring with as much of the plan as the kernel takes.
pub(super) fn set_up(plan: &RingPlan) -> Result<(IoUring, Picked), RingError> {
    let mut refused = None;
    for picked in candidates(plan) {
        match build(plan, picked) {
            Ok(uring) => {
                check(&uring)?;
                return Ok((uring, picked));
            }
            // A flag this kernel does not know: try with fewer.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(RingError::at("io_uring_setup", error)),
        }
    }
    let error = refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
    Err(RingError::at("io_uring_setup", error))
}

/// From the newest kernel's flags to none, in the order in which kernels lost them.
fn candidates(plan: &RingPlan) -> impl Iterator<Item = Picked> {
    let wanted = plan.task_run;
    let pick = |task_run, no_sqarray, single_issuer, submit_all| Picked {
        task_run,
        single_issuer,
        submit_all,
        no_sqarray,
        registered_fd: false,
        recv_limit: false,
        heads: plan.heads,
        bulk: plan.bulk,
        pipes_max: plan.pipes_max,
        send_zc: SendZc::Off,
    };
    [
        pick(TaskRun::Defer, true, true, true),
        pick(TaskRun::Defer, false, true, true),
        pick(TaskRun::Cooperative, true, true, true),
        pick(TaskRun::Cooperative, false, true, true),
        pick(TaskRun::Cooperative, false, false, true),
        pick(TaskRun::Plain, true, true, true),
        pick(TaskRun::Plain, false, false, false),
    ]
    .into_iter()
    .skip_while(move |picked| match wanted {
        TaskRun::Defer => false,
        TaskRun::Cooperative => picked.task_run == TaskRun::Defer,
        TaskRun::Plain => picked.task_run != TaskRun::Plain,
    })
}

fn build(plan: &RingPlan, picked: Picked) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_clamp()
        .setup_cqsize(plan.cq_entries)
        .dontfork();
    match picked.task_run {
        TaskRun::Defer => builder.setup_defer_taskrun(),
        TaskRun::Cooperative => builder.setup_coop_taskrun(),
        TaskRun::Plain => &mut builder,
    };
    if picked.single_issuer {
        builder.setup_single_issuer();
    }
    if picked.submit_all {
        builder.setup_submit_all();
    }
    if picked.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(plan.sq_entries)
}

fn check(uring: &IoUring) -> Result<(), RingError> {
    let params = uring.params();
    for (has, what) in [
        (params.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (params.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (params.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (
            params.is_feature_submit_stable(),
            "IORING_FEAT_SUBMIT_STABLE",
        ),
    ] {
        if !has {
            return Err(RingError::TooOld(what));
        }
    }
    let mut probe = Probe::new();
    uring
        .submitter()
        .register_probe(&mut probe)
        .map_err(|error| RingError::at("IORING_REGISTER_PROBE", error))?;
    for (code, what) in [
        (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
        (opcode::Connect::CODE, "IORING_OP_CONNECT"),
        (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::Close::CODE, "IORING_OP_CLOSE"),
    ] {
        if !probe.is_supported(code) {
            return Err(RingError::TooOld(what));
        }
    }
    Ok(())
}

/// Whether the kernel has both sends without a copy. Whether they report copies is found by trying.
pub(super) fn has_send_zc(uring: &IoUring) -> bool {
    let mut probe = Probe::new();
    let asked = uring.submitter().register_probe(&mut probe).is_ok();
    asked && probe.is_supported(opcode::SendZc::CODE) && probe.is_supported(opcode::SendMsgZc::CODE)
}
