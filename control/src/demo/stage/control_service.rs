//! The control service as a process, and the tool run against it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Launch, NodePlan, Process, Result, Stage};

const START_PATIENCE: Duration = Duration::from_secs(20);

/// A running control service.
#[derive(Debug)]
pub struct ControlService {
    /// The process.
    pub process: Process,
    /// Where sidecars reach it.
    pub mesh: SocketAddr,
    launch: Launch,
    api: PathBuf,
    tool: PathBuf,
    dir: PathBuf,
    name: String,
}

/// How a run of the tool ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Exit status; -1 when ended by a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Output of a run that did it.
    ///
    /// # Errors
    /// What the tool said when it did not.
    pub fn done(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.out);
        }
        Err(format!("exit {}: {}{}", self.code, self.out, self.err))
    }
}

impl ControlService {
    /// Starts it on address `last` of the stage's block. `config` is the text of `control.yaml`.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(stage: &Stage, name: &str, last: u8, config: &str) -> Result<Self> {
        Self::start_in(stage, name, stage.block.ip(last), config, None)
    }

    /// Starts it in a network namespace.
    ///
    /// # Errors
    /// It did not start.
    pub fn start_in(
        stage: &Stage,
        name: &str,
        ip: std::net::IpAddr,
        config: &str,
        netns: Option<&str>,
    ) -> Result<Self> {
        let data = stage.dir().join(name);
        let mesh = SocketAddr::new(ip, 15012);
        let config = stage.file(&format!("{name}.yaml"), config)?;
        let launch = Launch::new(stage.bins.path("ringmesh-control"))
            .arg("--data-dir")
            .arg(&data)
            .arg("--listen-mesh")
            .arg(mesh.to_string())
            .arg("--listen-metrics")
            .arg(SocketAddr::new(ip, 15014).to_string())
            .arg("--config")
            .arg(config)
            .in_netns(netns);
        let mut service = Self {
            process: Process::start(name, &launch, stage.dir())?,
            mesh,
            launch,
            api: data.join("api.sock"),
            tool: stage.bins.path("ringmesh"),
            dir: stage.dir().to_owned(),
            name: name.to_owned(),
        };
        service.wait_ready()?;
        Ok(service)
    }

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// It did not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Process::start(&self.name, &self.launch, &self.dir)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let (api, tool) = (self.api.clone(), self.tool.clone());
        self.process.ready("its API answering", START_PATIENCE, || {
            run(&tool, &api, &["get"])?.done().map(|_| ())
        })
    }

    /// Runs `ringmesh --control SOCKET WORDS`.
    ///
    /// # Errors
    /// The tool could not be started.
    pub fn tool(&self, words: &[&str]) -> Result<Ran> {
        run(&self.tool, &self.api, words)
    }

    /// Applies a file and waits until all live sidecars hold it.
    ///
    /// # Errors
    /// The tool's words.
    pub fn apply(&self, file: &Path) -> Result<String> {
        self.tool(&["apply", "--wait", "-f", &file.to_string_lossy()])?
            .done()
    }

    /// Deletes the objects of a file and waits until all live sidecars hold that.
    ///
    /// # Errors
    /// The tool's words.
    pub fn delete(&self, file: &Path) -> Result<String> {
        self.tool(&["delete", "--wait", "-f", &file.to_string_lossy()])?
            .done()
    }

    /// A join token for a node.
    ///
    /// # Errors
    /// The tool's words.
    pub fn token(&self, node: &NodePlan) -> Result<String> {
        let account = &node.service;
        let mut words = vec![
            "token",
            "create",
            "--node",
            &node.name,
            "--service",
            &node.service,
        ];
        words.extend(["--namespace", "default", "--service-account", account]);
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        for label in &labels {
            words.extend(["--label", label]);
        }
        let text = self.tool(&words)?.done()?;
        Ok(text.trim().to_owned())
    }

    /// Its metrics page.
    #[must_use]
    pub const fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.mesh.ip(), 15014)
    }
}

fn run(tool: &Path, api: &Path, words: &[&str]) -> Result<Ran> {
    let output = Command::new(tool)
        .arg("--control")
        .arg(api)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", tool.display()))?;
    Ok(Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
