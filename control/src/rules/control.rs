//! `control.yaml`: the settings of the control service (docs/control-yaml.md).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::cursor::{Cursor, Report};
use super::error::RuleErrors;
use super::node;
use super::place::At;

/// What the file says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlFile {
    /// Trust domain of every identity.
    pub trust_domain: Option<String>,
    /// Life of workload certificates.
    pub svid_life: Option<Duration>,
    /// Life of node credentials.
    pub node_life: Option<Duration>,
    /// Address for sidecars (UDP).
    pub mesh: Option<SocketAddr>,
    /// The API's unix socket.
    pub api: Option<PathBuf>,
    /// Address of /metrics and /healthz.
    pub metrics: Option<SocketAddr>,
    /// A CA to sign with in place of our own.
    pub ca: Option<CaFiles>,
    /// File with the passphrase of the CA's keys, as written: relative to this one.
    pub ca_passphrase_file: Option<PathBuf>,
}

/// PEM files, as written: relative to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// The signing certificate, and behind it those that lead to a root.
    pub certificate: At<PathBuf>,
    /// Its key.
    pub key: At<PathBuf>,
    /// The roots.
    pub roots: At<PathBuf>,
}

/// Reads `control.yaml`. An empty file says nothing.
///
/// # Errors
/// Everything wrong with it.
pub fn parse_control(file: &str, text: &str) -> Result<ControlFile, RuleErrors> {
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_blank) {
        return Ok(ControlFile::default());
    }
    let report = Report::new(file, 1, text);
    let node = match node::read(text) {
        Ok(node) => node,
        Err(error) => {
            report.fail(
                report.place(error.spot, ""),
                format!("this is not YAML: {}", error.what),
                "put the text right; YAML indents with spaces",
            );
            return Err(RuleErrors(report.finish()));
        }
    };
    match control(&Cursor::root(&node, &report)) {
        Some(found) if report.is_clean() => Ok(found),
        _ => Err(RuleErrors(report.finish())),
    }
}

fn control(at: &Cursor<'_>) -> Option<ControlFile> {
    let fields = at.fields(
        &[
            "trust_domain",
            "svid_life",
            "node_life",
            "listen",
            "ca",
            "ca_passphrase_file",
        ],
        &[],
    )?;
    let mut found = ControlFile {
        trust_domain: fields.get("trust_domain").and_then(|at| trust_domain(&at)),
        svid_life: fields.get("svid_life").and_then(|at| at.life()),
        node_life: fields.get("node_life").and_then(|at| at.life()),
        ..ControlFile::default()
    };
    if let (Some(life), Some(at)) = (found.svid_life, fields.get("svid_life"))
        && let Err(why) = check_svid_life(life)
    {
        at.fail(why, "write at least 2s");
    }
    let listen = fields.get("listen");
    if let Some(listen) = listen.and_then(|at| at.fields(&["mesh", "api", "metrics"], &[])) {
        found.mesh = listen.get("mesh").and_then(|at| address(&at));
        found.metrics = listen.get("metrics").and_then(|at| address(&at));
        found.api = listen.get("api").and_then(|at| Some(path(&at)?.value));
    }
    found.ca = fields.get("ca").and_then(|at| ca(&at));
    let passphrase = fields.get("ca_passphrase_file");
    found.ca_passphrase_file = passphrase.and_then(|at| Some(path(&at)?.value));
    Some(found)
}

/// Certificates count in seconds, and half of the life is for renewal.
///
/// # Errors
/// Why it is too short.
pub fn check_svid_life(life: Duration) -> Result<(), String> {
    match life < Duration::from_secs(2) {
        true => Err("certificates count in seconds: at least 2s is needed".to_owned()),
        false => Ok(()),
    }
}

fn trust_domain(at: &Cursor<'_>) -> Option<String> {
    let text = at.string()?;
    crate::svid::parse_trust_domain(&text)
        .map_err(|why| at.fail(why, "write a name as of DNS, e.g. mesh.local"))
        .ok()
}

fn address(at: &Cursor<'_>) -> Option<SocketAddr> {
    let text = at.string()?;
    let found = text.parse().ok();
    if found.is_none() {
        at.fail(
            format!("{text:?} is not an address and port"),
            "write an IP address and a port in quotes, e.g. \"0.0.0.0:15012\"",
        );
    }
    found
}

fn path(at: &Cursor<'_>) -> Option<At<PathBuf>> {
    Some(at.text()?.map(PathBuf::from))
}

fn ca(at: &Cursor<'_>) -> Option<CaFiles> {
    let fields = at.fields(&["certificate", "key", "roots"], &[])?;
    let file = |name: &str, what: &str| fields.require(name, what).and_then(|at| path(&at));
    let certificate = file(
        "certificate",
        "write the PEM file of the signing certificate",
    );
    let key = file("key", "write the PEM file of its key");
    let roots = file("roots", "write the PEM file of the roots to trust");
    Some(CaFiles {
        certificate: certificate?,
        key: key?,
        roots: roots?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_says_the_defaults() {
        let page = include_str!("../../../docs/control-yaml.md");
        let (_, rest) = page.split_once("```yaml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        let read = parse_control("control.yaml", example).unwrap();
        let lives = crate::svid::Lives::default();
        assert_eq!(read.trust_domain.as_deref(), Some("mesh.local"));
        assert_eq!(read.svid_life, Some(lives.workload));
        assert_eq!(read.node_life, Some(lives.node));
        assert_eq!(read.mesh, "0.0.0.0:15012".parse().ok());
        assert_eq!(read.metrics, "127.0.0.1:15014".parse().ok());
        assert!(read.ca.is_some() && read.ca_passphrase_file.is_some());
        assert_eq!(
            parse_control("c", "# nothing\n\n").unwrap(),
            ControlFile::default()
        );
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_what_would_be_right() {
        for (text, wanted) in [
            (
                "svid_life: 10\n",
                "c:1:12: svid_life: 10 has no unit; write 10s",
            ),
            (
                "svid_life: soon\n",
                "c:1:12: svid_life: \"soon\" is not a duration; write",
            ),
            (
                "svid_life: 1s\n",
                "c:1:12: svid_life: certificates count in seconds",
            ),
            (
                "colour: 1\n",
                "c:1:1: colour: unknown field \"colour\"; the fields here are",
            ),
            (
                "\nsvid_lief: 5s\n",
                "c:2:1: svid_lief: unknown field \"svid_lief\"; did you mean svid_life?",
            ),
            (
                "listen: {mesh: \"1.2.3.4:99999\"}\n",
                "c:1:16: listen.mesh: \"1.2.3.4:99999\" is not an address and port",
            ),
            ("listen: {msh: x}\n", "c:1:10: listen.msh: unknown field"),
            ("trust_domain: A b\n", "c:1:15: trust_domain: "),
            ("ca: {certificate: x.pem, key: y.pem}\n", "roots"),
            ("- a\n", "c:1:1: "),
        ] {
            let said = parse_control("c", text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
            assert_eq!(said.matches("c:").count(), 1, "{text}: {said}");
        }
    }
}
