//! Room for descriptors: a connection is one, and many a system starts programs with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::problem::Problem;

/// Descriptors besides connections.
const OTHERS: u64 = 256;

/// Raises the limit of this process, and of those it starts, to hold `connections`.
pub(crate) fn make_room(connections: u32) -> Result<(), Problem> {
    let wanted = u64::from(connections) + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let set = |current, maximum| {
        let limit = Rlimit {
            current: Some(current),
            maximum,
        };
        setrlimit(Resource::Nofile, limit)
    };
    if maximum.is_none_or(|maximum| maximum >= wanted) {
        return set(wanted, maximum).map_err(Problem::failed);
    }
    // Past the hard limit only with CAP_SYS_RESOURCE.
    set(wanted, Some(wanted)).map_err(|_| {
        Problem::Yours(format!(
            "{connections} connections need {wanted} descriptors, and at most {} are allowed: raise the hard limit (ulimit -Hn) or ask for fewer",
            maximum.unwrap_or_default()
        ))
    })
}
