//! Looks at the host and changes it. The only part of capture that runs programs.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::cgroup::{self, SeenCgroup};
use super::change::{Change, Seen, SeenIptables, Step, Tool};
use super::routing::{SeenRouting, TABLE};
use super::spec::{Backend, Name};
use super::{iptables, nft};
use crate::probe::{Binaries, Tproxy, has_module};

/// A host (or a network namespace of it) whose rules we read and change.
#[derive(Clone, Debug)]
pub struct Host {
    binaries: Binaries,
    /// Words put before every program: `ip netns exec NAME`.
    prefix: Vec<String>,
}

/// Why a change could not be made. What was applied before has been taken back.
#[derive(Debug)]
pub enum ApplyError {
    /// The program is not installed.
    NoTool {
        /// Its name.
        program: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// The program could not be started.
    Start(PathBuf, std::io::Error),
    /// The program refused; its own words.
    Refused {
        /// The program.
        program: PathBuf,
        /// What it printed.
        said: String,
    },
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTool { program, package } => {
                write!(
                    f,
                    "{program} is not installed; would be right: apt-get install {package}"
                )
            }
            Self::Start(program, error) => {
                write!(f, "{} could not be started: {error}", program.display())
            }
            Self::Refused { program, said } => {
                write!(f, "{} refused: {}", program.display(), said.trim())?;
                if said.contains("ermitted") || said.contains("ermission denied") {
                    f.write_str("; would be right: run it as root (CAP_NET_ADMIN)")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ApplyError {}

impl Host {
    /// This host, with the programs `binaries` names.
    #[must_use]
    pub const fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            prefix: Vec::new(),
        }
    }

    /// A named network namespace of this host (`ip netns`).
    #[must_use]
    pub fn in_netns(binaries: Binaries, netns: &str) -> Self {
        let prefix = ["ip", "netns", "exec", netns].map(str::to_owned).to_vec();
        Self { binaries, prefix }
    }

    /// nftables if it is installed, else iptables.
    #[must_use]
    pub const fn preferred(&self) -> Backend {
        if self.binaries.nft.is_some() || self.binaries.iptables_restore.is_none() {
            Backend::Nftables
        } else {
            Backend::Iptables
        }
    }

    /// What of `name` is there now, in every backend that is installed.
    ///
    /// # Errors
    /// A listing program failed: better no answer than a wrong one.
    pub fn see(&self, name: &Name) -> Result<Seen, ApplyError> {
        let mut seen = Seen::default();
        if let Some(program) = &self.binaries.nft {
            let table = nft::table_of(name);
            let tables = self.read(program, &["list", "tables"])?;
            if tables
                .lines()
                .any(|line| line.trim() == format!("table inet {table}"))
            {
                seen.nftables = Some(self.read(program, &["list", "table", "inet", &table])?);
            }
            let chains = self.read(program, &["list", "chains", "inet"])?;
            seen.routing_shared = nft::others_are_tproxy(&chains, name);
        }
        for (program, lines) in [
            (&self.binaries.iptables_save, &mut seen.v4),
            (&self.binaries.ip6tables_save, &mut seen.v6),
        ] {
            if let Some(program) = program {
                let [nat, mangle] =
                    iptables::TABLES.map(|table| self.read(program, &["-t", table]));
                let mangle = mangle?;
                *lines = SeenIptables::pick(&nat?, &mangle, name);
                seen.routing_shared |= iptables::others_are_tproxy(&mangle, name);
            }
        }
        seen.routing_v4 = self.routing("-4");
        seen.routing_v6 = self.routing("-6");
        seen.cgroup = self.cgroup(&seen);
        Ok(seen)
    }

    /// The number of the cgroup at `path` (v2, below the root); `None` if there is none or no hierarchy is
    /// to be seen, as in another namespace.
    #[must_use]
    pub fn cgroup_number(&self, path: &str) -> Option<u64> {
        self.is_here().then(|| cgroup::number(path)).flatten()
    }

    /// Whether there is certainly no cgroup at `path`: a hierarchy is to be seen, and it is not in it.
    #[must_use]
    pub fn lacks_cgroup(&self, path: &str) -> bool {
        self.is_here() && cgroup::at(path) == SeenCgroup::Gone
    }

    fn cgroup(&self, seen: &Seen) -> SeenCgroup {
        let listing = seen.nftables.as_deref();
        match seen.cgroup_of_iptables() {
            // `ip netns exec` has mounts of its own, without cgroups.
            _ if !self.is_here() => SeenCgroup::Unknown,
            Some((path, _)) => cgroup::at(path),
            None if listing.is_some_and(nft::holds_unnamed_cgroup) => cgroup::unnamed(),
            None => SeenCgroup::Unknown,
        }
    }

    /// Whether programs run in our own namespaces.
    const fn is_here(&self) -> bool {
        self.prefix.is_empty()
    }

    /// What TPROXY mode needs and whether it is there, for [`crate::doctor`]. What cannot be listed counts
    /// as absent.
    #[must_use]
    pub fn tproxy(&self) -> Tproxy {
        let list = |program: &Option<PathBuf>, args: &[&str]| {
            let listed = program.as_ref().map(|program| self.read(program, args));
            listed.and_then(Result::ok).unwrap_or_default()
        };
        let module = match self.preferred() {
            Backend::Nftables => "nft_tproxy",
            Backend::Iptables => "xt_TPROXY",
        };
        let chains = list(&self.binaries.nft, &["list", "chains", "inet"]);
        let mangle = ["-t", "mangle"];
        Tproxy {
            module: has_module(module),
            capturing: nft::any_is_tproxy(&chains)
                || iptables::any_is_tproxy(&list(&self.binaries.iptables_save, &mangle))
                || iptables::any_is_tproxy(&list(&self.binaries.ip6tables_save, &mangle)),
            routed: self.routing("-4").works() || self.routing("-6").works(),
        }
    }

    /// A family that `ip` cannot list is not routed here. Without `ip` nothing is known, and what needs
    /// it will say so.
    fn routing(&self, family: &str) -> SeenRouting {
        let table = TABLE.to_string();
        let Some(program) = &self.binaries.ip else {
            return SeenRouting::read("", "");
        };
        match self.read(program, &[family, "-N", "rule", "show"]) {
            // A table without a route does not exist, which is an error to `ip`.
            Ok(rules) => {
                let routes = [family, "route", "show", "table", &table];
                SeenRouting::read(&rules, &self.read(program, &routes).unwrap_or_default())
            }
            Err(_) => SeenRouting::default(),
        }
    }

    /// Makes the change: every step is first tried with the program's own dry run, then applied; if
    /// one fails, those before it are undone.
    ///
    /// # Errors
    /// The first refusal. The host is then as it was, except that rules the change replaced are gone.
    pub fn apply(&self, change: &Change) -> Result<(), ApplyError> {
        for step in &change.steps {
            self.feed(step.tool, &step.input, true)?;
        }
        for (index, step) in change.steps.iter().enumerate() {
            if let Err(error) = self.feed(step.tool, &step.input, false) {
                self.undo(&change.steps[..index]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn undo(&self, steps: &[Step]) {
        for step in steps.iter().rev().filter(|step| !step.undo.is_empty()) {
            // Best effort: the first error is the one to tell; `down` finds what is left by name.
            let _ = self.feed(step.tool, &step.undo, false);
        }
    }

    fn feed(&self, tool: Tool, input: &str, dry: bool) -> Result<(), ApplyError> {
        let (program, mut args) = self.program(tool)?;
        match tool {
            _ if !dry => {}
            Tool::Nft => args.push("--check"),
            Tool::IptablesRestore | Tool::Ip6tablesRestore => args.push("--test"),
            // Has no dry run.
            Tool::Ip4 | Tool::Ip6 => return Ok(()),
        }
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let start = |error| ApplyError::Start(program.to_owned(), error);
        let mut child = command.spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that refuses early closes its input; its own words tell more than EPIPE.
            let _ = stdin.write_all(input.as_bytes());
        }
        check(program, &child.wait_with_output().map_err(start)?).map(|_| ())
    }

    fn read(&self, program: &Path, args: &[&str]) -> Result<String, ApplyError> {
        let output = self
            .command(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| ApplyError::Start(program.to_owned(), error))?;
        check(program, &output)
    }

    fn command(&self, program: &Path) -> Command {
        let Some((first, rest)) = self.prefix.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    fn program(&self, tool: Tool) -> Result<(&Path, Vec<&'static str>), ApplyError> {
        let (path, program, package, args) = match tool {
            Tool::Nft => (&self.binaries.nft, "nft", "nftables", vec!["-f", "-"]),
            // -w: wait for the lock that old iptables takes, at most 5 s.
            Tool::IptablesRestore => (
                &self.binaries.iptables_restore,
                "iptables-restore",
                "iptables",
                vec!["--noflush", "-w", "5"],
            ),
            Tool::Ip6tablesRestore => (
                &self.binaries.ip6tables_restore,
                "ip6tables-restore",
                "iptables",
                vec!["--noflush", "-w", "5"],
            ),
            Tool::Ip4 => (
                &self.binaries.ip,
                "ip",
                "iproute2",
                vec!["-4", "-batch", "-"],
            ),
            Tool::Ip6 => (
                &self.binaries.ip,
                "ip",
                "iproute2",
                vec!["-6", "-batch", "-"],
            ),
        };
        match path {
            Some(path) => Ok((path, args)),
            None => Err(ApplyError::NoTool { program, package }),
        }
    }
}

fn check(program: &Path, output: &Output) -> Result<String, ApplyError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = if said.trim().is_empty() {
        output.status.to_string()
    } else {
        said
    };
    Err(ApplyError::Refused {
        program: program.to_owned(),
        said,
    })
}
