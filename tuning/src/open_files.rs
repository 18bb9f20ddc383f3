//! The limit of open files: a socket is one, and many a system starts programs with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's soft limit to `wanted`, or to the hard limit if that is less, and tells what
/// it is then. The hard limit is the administrator's word and stays.
#[must_use]
pub fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < wanted) else {
        return current.unwrap_or(u64::MAX);
    };
    let more = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(more),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_or(current, |()| more)
}
