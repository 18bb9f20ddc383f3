//! What this machine can do, and skipping with a printed reason where it cannot.
//!
//! `RINGMESH_REQUIRE=root,netns,uring,node,mariadb,redis,nghttp,grpcio,allocations,valgrind` makes an absent ability a failure; `RINGMESH_SKIPS` names a
//! file that gets a line per skipped test, for the counts at the end of `make test`.

use std::io::Write as _;

use ringmesh_tuning::probe::{self, Uring};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Something a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Effective root.
    Root,
    /// Network namespaces with rules in them.
    Netns,
    /// io_uring.
    Uring,
    /// Node.js, for its HTTP client.
    Node,
    /// MariaDB's server and client.
    Mariadb,
    /// Redis' server and client.
    Redis,
    /// The tools of nghttp2: nghttp, nghttpd, h2load.
    Nghttp,
    /// A python with grpcio.
    Grpcio,
    /// A sidecar that counts its allocations.
    Allocations,
    /// As many open files as the largest test needs; raises the limit as far as it may.
    Descriptors,
    /// Valgrind, on the processor the instruction budgets are for.
    Valgrind,
}

impl Ability {
    const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Netns => "netns",
            Self::Uring => "uring",
            Self::Node => "node",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Nghttp => "nghttp",
            Self::Grpcio => "grpcio",
            Self::Allocations => "allocations",
            Self::Descriptors => "descriptors",
            Self::Valgrind => "valgrind",
        }
    }

    fn lacking(self) -> Option<String> {
        let facts = probe::gather();
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Netns if !(facts.capabilities.net_admin && facts.capabilities.sys_admin) => {
                Some("no right to make network namespaces".to_owned())
            }
            Self::Netns
                if facts.binaries.nft.is_none() || facts.binaries.iptables_save.is_none() =>
            {
                Some("nft or iptables is not installed".to_owned())
            }
            Self::Netns => None,
            Self::Node => starts("node"),
            Self::Mariadb => ["mariadb-install-db", "mariadbd", "mariadb"]
                .iter()
                .find_map(|program| starts(program)),
            Self::Redis => starts("redis-server").or_else(|| starts("redis-cli")),
            Self::Nghttp => ["nghttp", "nghttpd", "h2load"]
                .iter()
                .find_map(|program| starts(program)),
            Self::Grpcio => grpcio(),
            Self::Descriptors => room_for(DESCRIPTORS),
            Self::Valgrind if !cfg!(target_arch = "x86_64") => {
                Some("the instruction budgets are for x86_64".to_owned())
            }
            Self::Valgrind => starts("valgrind"),
            Self::Allocations => (!cfg!(feature = "count-allocations")).then(|| {
                "built without --features ringmesh-tests/count-allocations, as `make test` does"
                    .to_owned()
            }),
            Self::Uring => match facts.uring {
                Uring::Usable { .. } => None,
                Uring::Refused { error, .. } => Some(format!("io_uring is refused: {error}")),
            },
        }
    }
}

/// Of one process: 11,000 connections, and twice that for those a sidecar passes on.
const DESCRIPTORS: u64 = 13_000;

/// Raises the limit of open files, of this process and those it starts; says why if that is not
/// enough.
fn room_for(wanted: u64) -> Option<String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return None;
    }
    let more = Rlimit {
        current: Some(wanted),
        maximum: maximum.map(|maximum| maximum.max(wanted)),
    };
    // Past the hard limit only with CAP_SYS_RESOURCE.
    setrlimit(Resource::Nofile, more).err().map(|_| {
        format!(
            "{wanted} open files are needed and at most {} allowed (ulimit -Hn)",
            maximum.unwrap_or_default()
        )
    })
}

/// Why a program does not start, if it does not.
fn starts(program: &str) -> Option<String> {
    let ran = std::process::Command::new(program)
        .arg("--version")
        .output();
    ran.err()
        .map(|error| format!("{program} does not start: {error}"))
}

/// Why there is no grpcio, if there is none.
fn grpcio() -> Option<String> {
    let python = crate::grpc_python();
    let ran = std::process::Command::new(&python)
        .args(["-c", "import grpc"])
        .output();
    match ran {
        Ok(output) if output.status.success() => None,
        _ => Some(format!(
            "{} has no grpcio: run scripts/deps",
            python.display()
        )),
    }
}

/// Whether the calling test can run; if not, says why.
///
/// # Panics
/// An absent ability is named in `RINGMESH_REQUIRE`.
#[must_use]
pub fn has(needed: &[Ability]) -> bool {
    let required = std::env::var("RINGMESH_REQUIRE").unwrap_or_default();
    for ability in needed {
        let Some(reason) = ability.lacking() else {
            continue;
        };
        let name = ability.name();
        assert!(
            !required.split(',').any(|word| word == name),
            "RINGMESH_REQUIRE wants {name}, but: {reason}"
        );
        skip(&reason);
        return false;
    }
    true
}

fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("RINGMESH_SKIPS") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        let written = file.and_then(|mut file| writeln!(file, "{test}: {reason}"));
        written.expect("RINGMESH_SKIPS");
    }
}
