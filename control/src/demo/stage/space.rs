//! A network namespace with a cable to another one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use super::{Result, Stage, cleanup};

/// A namespace with a cable to another one, so that a service's virtual address leaves by a real
/// interface, as on a real machine.
#[derive(Debug)]
pub struct Space {
    name: String,
    world: String,
}

impl Space {
    /// Makes it, with `addresses` (v4, of 10.88.0.0/24) on its cable; the other end has 10.88.0.254.
    ///
    /// # Errors
    /// `ip` refused.
    pub fn make(what: &str, addresses: &[IpAddr]) -> Result<Self> {
        let id = format!("{}-{what}", std::process::id());
        let space = Self {
            name: format!("rmd-h-{id}"),
            world: format!("rmd-w-{id}"),
        };
        for name in [&space.name, &space.world] {
            cleanup::netns(name);
            ip(&["netns", "add", name])?;
        }
        let here = |words: &[&str]| ip(&[&["-n", &space.name], words].concat());
        here(&[
            "link",
            "add",
            "c0",
            "type",
            "veth",
            "peer",
            "name",
            "c1",
            "netns",
            &space.world,
        ])?;
        for address in addresses {
            here(&["addr", "add", &format!("{address}/24"), "dev", "c0"])?;
        }
        here(&["link", "set", "lo", "up"])?;
        here(&["link", "set", "c0", "up"])?;
        ip(&[
            "-n",
            &space.world,
            "addr",
            "add",
            "10.88.0.254/24",
            "dev",
            "c1",
        ])?;
        ip(&["-n", &space.world, "link", "set", "c1", "up"])?;
        here(&["route", "add", "default", "via", "10.88.0.254"])?;
        Ok(space)
    }

    /// Its name for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace at the other end of the cable.
    #[must_use]
    pub fn world(&self) -> &str {
        &self.world
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// `ip netns exec` shows this file as /etc/hosts to what starts from now on.
    ///
    /// # Errors
    /// It could not be written.
    pub fn hosts(&self, lines: &str) -> Result<()> {
        let write = || {
            std::fs::create_dir_all(self.etc())?;
            std::fs::write(
                self.etc().join("hosts"),
                format!("127.0.0.1 localhost\n{lines}"),
            )
        };
        write().map_err(|error| format!("{}: {error}", self.etc().display()))
    }

    fn exec(&self, program: &std::ffi::OsStr, words: &[&str]) -> Result<String> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .arg(program)
            .args(words)
            .output()
            .map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!(
            "{} {}: {}",
            program.display(),
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }

    /// Runs `ringmesh intercept WORDS` inside.
    ///
    /// # Errors
    /// The tool's words.
    pub fn intercept(&self, stage: &Stage, words: &[&str]) -> Result<()> {
        let tool = stage.bins.path("ringmesh");
        self.exec(tool.as_os_str(), &[&["intercept"], words].concat())
            .map(|_| ())
    }

    /// Lines of ours in any table of the namespace, rules of policy routing among them.
    ///
    /// # Errors
    /// A listing failed.
    pub fn rules(&self) -> Result<Vec<String>> {
        let mut text = self.exec("nft".as_ref(), &["list", "tables"])?;
        for tool in ["iptables-save", "ip6tables-save"] {
            for table in ["nat", "mangle"] {
                text += &self.exec(tool.as_ref(), &["-t", table])?;
            }
        }
        for family in ["-4", "-6"] {
            text += &self.exec("ip".as_ref(), &[family, "rule"])?;
        }
        let words = ["ringmesh", "RINGMESH", "lookup 133"];
        let ours = |line: &&str| words.iter().any(|word| line.contains(word));
        Ok(text.lines().filter(ours).map(str::to_owned).collect())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        for name in [&self.name, &self.world] {
            // It may not have been made.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
            cleanup::netns_gone(name);
        }
        let _ = std::fs::remove_dir_all(self.etc());
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(words)
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
