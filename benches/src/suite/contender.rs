//! Who takes part: proxies of others as a mesh would have to configure them, and ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use crate::process;

/// One way to carry the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// No proxy at all.
    Direct,
    Haproxy,
    /// TCP with `option splice-auto`.
    HaproxySplice,
    /// Two of them with HTTP/2 between.
    HaproxyH2,
    Nginx,
    Envoy,
    /// Envoy with JSON access log, local rate limit and RBAC.
    EnvoyMesh,
    Ringmesh,
}

impl Contender {
    /// As tables and plots call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "HAProxy",
            Self::HaproxySplice => "HAProxy + splice",
            Self::HaproxyH2 => "HAProxy, h2 between",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::EnvoyMesh => "Envoy + mesh features",
            Self::Ringmesh => "ringmesh",
        }
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Our release binaries.
    pub(crate) bin: PathBuf,
    /// Envoy, if it could be had.
    pub(crate) envoy: PathBuf,
}

impl Programs {
    /// The version of a contender's program.
    ///
    /// # Errors
    /// Why it is absent.
    pub(crate) fn version(&self, contender: Contender) -> Result<String, String> {
        let nginx = || said("nginx", "-v").map(|text| after(&text, "nginx/"));
        match contender {
            Contender::Direct => Ok(String::new()),
            Contender::Haproxy | Contender::HaproxySplice | Contender::HaproxyH2 => {
                said("haproxy", "-v").map(|text| after(&text, "version "))
            }
            Contender::Nginx => nginx(),
            Contender::Envoy | Contender::EnvoyMesh => {
                let text = said(&self.envoy, "--version")?;
                Ok(text.split('/').nth_back(3).unwrap_or("unknown").to_owned())
            }
            Contender::Ringmesh => {
                let proxy = self.bin.join("ringmesh-proxy");
                said(&proxy, "--version").map(|text| after(&text, "ringmesh-proxy "))
            }
        }
    }
}

/// What `program flag` says first, wherever it says it.
fn said(program: impl AsRef<Path>, flag: &str) -> Result<String, String> {
    let program = program.as_ref();
    let output = Command::new(program)
        .arg(flag)
        .env("PATH", process::path())
        .output()
        .map_err(|error| format!("{} could not be started: {error}", program.display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty());
    match first {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(format!("{} {flag} failed", program.display())),
    }
}

fn after(text: &str, label: &str) -> String {
    let rest = text.split_once(label).map_or(text, |(_, rest)| rest);
    let word = rest.split_whitespace().next().unwrap_or("unknown");
    // Debian's own revision is noise here.
    word.split('-').next().unwrap_or(word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_cut_out_of_what_programs_say() {
        let haproxy = "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/";
        assert_eq!(after(haproxy, "version "), "2.6.12");
        assert_eq!(after("nginx version: nginx/1.22.1", "nginx/"), "1.22.1");
    }

    #[test]
    fn what_is_not_there_is_absent_with_a_reason() {
        let programs = Programs {
            root: PathBuf::new(),
            bin: PathBuf::from("/nowhere"),
            envoy: PathBuf::from("/nowhere/envoy"),
        };
        let why = programs.version(Contender::EnvoyMesh).unwrap_err();
        assert!(
            why.starts_with("/nowhere/envoy could not be started"),
            "{why}"
        );
        assert_eq!(programs.version(Contender::Direct), Ok(String::new()));
    }
}
