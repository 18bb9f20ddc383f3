//! Room for descriptors: a connection is one, and many a system starts programs with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::problem::Problem;

/// Descriptors besides connections.
const OTHERS: u64 = 256;

/// Raises the limit of this process, and of those it starts, as far as it may.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    // As it was, then: who needs more will say so.
    let _ = setrlimit(Resource::Nofile, all);
}

/// Raises the limit of this process, and of those it starts, to hold `connections`.
pub(crate) fn make_room(connections: u32) -> Result<(), Problem> {
    let wanted = u64::from(connections) + OTHERS;
    raise();
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    // Past the hard limit only with CAP_SYS_RESOURCE.
    let more = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    setrlimit(Resource::Nofile, more).map_err(|_| {
        Problem::Yours(format!(
            "{connections} connections need {wanted} descriptors, and at most {} are allowed: raise the hard limit (ulimit -Hn) or ask for fewer",
            maximum.unwrap_or_default()
        ))
    })
}
