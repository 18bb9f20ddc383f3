//! A node: an app with its sidecar.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::bookinfo::APP_PORT;
use super::{App, ControlService, Launch, Process, Result, Stage, get};

const READY_PATIENCE: Duration = Duration::from_secs(30);

/// What a node is to be.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Unique in the mesh.
    pub name: String,
    /// Service it belongs to.
    pub service: String,
    /// Label `version`.
    pub version: String,
    /// All labels.
    pub labels: Vec<(String, String)>,
    /// Address of app and sidecar.
    pub ip: IpAddr,
    /// Address of the sidecar's admin port; must be a loopback one.
    pub admin: IpAddr,
    /// Address of the sidecar's outbound port.
    pub outbound: IpAddr,
}

impl NodePlan {
    /// The usual labels: `app` and `version`.
    #[must_use]
    pub fn new(service: &str, version: &str, instance: &str, ip: IpAddr) -> Self {
        let labels = [("app", service), ("version", version)];
        Self {
            name: format!("{service}-{}-{instance}", version.replace('.', "-")),
            service: service.to_owned(),
            version: version.to_owned(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
            ip,
            admin: ip,
            outbound: ip,
        }
    }

    /// `sidecar.yaml`. `app` is where the app listens; `None`: the sidecar only calls.
    #[must_use]
    pub fn settings(
        &self,
        app: Option<SocketAddr>,
        control: Option<SocketAddr>,
        state: &std::path::Path,
    ) -> String {
        let mut text = format!(
            "node: {}\nservice: {}\nservice_account: {}\nadvertise: {}\nlabels:\n",
            self.name, self.service, self.service, self.ip
        );
        for (key, value) in &self.labels {
            let _ = writeln!(text, "  {key}: {value:?}");
        }
        if let Some(app) = app {
            let _ = writeln!(
                text,
                "ports:\n  - {{name: http, port: {APP_PORT}, app: \"{app}\"}}"
            );
        }
        let at = |ip: IpAddr, port: u16| format!("\"{}\"", SocketAddr::new(ip, port));
        let _ = writeln!(
            text,
            "listeners: {{outbound: {}, inbound: {}, mesh: {}, admin: {}}}",
            at(self.outbound, 15001),
            at(self.ip, 15006),
            at(self.ip, 15008),
            at(self.admin, 15000)
        );
        if let Some(control) = control {
            let token = state.with_extension("token");
            let _ = writeln!(
                text,
                "control: {{address: \"{control}\", token_file: {:?}}}",
                token.display().to_string()
            );
        }
        let log = state.with_extension("access.log");
        let _ = writeln!(
            text,
            "shards: 1\nstate_dir: {:?}\naccess_log: {{path: {:?}}}",
            state.display().to_string(),
            log.display().to_string()
        );
        text
    }
}

/// A sidecar process with its files.
#[derive(Debug)]
pub struct Sidecar {
    /// The process.
    pub process: Process,
    /// `sidecar.yaml`.
    pub settings: PathBuf,
    /// State directory.
    pub state: PathBuf,
    /// Access log.
    pub log: PathBuf,
    plan: NodePlan,
    netns: Option<String>,
    launch: Launch,
    dir: PathBuf,
}

impl Sidecar {
    /// Starts one with a `sidecar.yaml` and more arguments.
    ///
    /// # Errors
    /// It could not be started.
    pub fn launch(
        stage: &Stage,
        plan: &NodePlan,
        settings: &str,
        more: &[&str],
        netns: Option<&str>,
    ) -> Result<Self> {
        let path = stage.file(&format!("{}.yaml", plan.name), settings)?;
        let state = stage.dir().join(&plan.name);
        let mut launch = Launch::new(stage.bins.path("ringmesh-proxy"))
            .arg("--config")
            .arg(&path)
            .in_netns(netns);
        for word in more {
            launch = launch.arg(word);
        }
        Ok(Self {
            process: Process::start(&plan.name, &launch, stage.dir())?,
            settings: path,
            log: state.with_extension("access.log"),
            state,
            plan: plan.clone(),
            netns: netns.map(str::to_owned),
            launch,
            dir: stage.dir().to_owned(),
        })
    }

    /// The same again, after it ended.
    ///
    /// # Errors
    /// It could not be started.
    pub fn restart(&mut self) -> Result<()> {
        let name = self.process.name().to_owned();
        self.process = Process::start(&name, &self.launch, &self.dir)?;
        Ok(())
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// It did not, or it ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        let (to, netns) = (self.admin(), self.netns.clone());
        self.process.ready("/readyz", READY_PATIENCE, || {
            let ask = move || get(to, "localhost", "/readyz", &[], Duration::from_secs(2));
            let answer = match &netns {
                None => ask()?,
                Some(netns) => inside(netns, ask)??,
            };
            if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.text()))
            }
        })
    }

    /// Where the app sends its calls.
    #[must_use]
    pub const fn outbound(&self) -> SocketAddr {
        SocketAddr::new(self.plan.outbound, 15001)
    }

    /// Where captured calls for the app arrive.
    #[must_use]
    pub const fn inbound(&self) -> SocketAddr {
        SocketAddr::new(self.plan.ip, 15006)
    }

    /// Mutual TLS.
    #[must_use]
    pub const fn mesh(&self) -> SocketAddr {
        SocketAddr::new(self.plan.ip, 15008)
    }

    /// Its admin port.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.plan.admin, 15000)
    }

    /// Records of its access log so far.
    #[must_use]
    pub fn records(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

/// An app and its sidecar.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub plan: NodePlan,
    /// The sidecar.
    pub sidecar: Sidecar,
    /// The app.
    pub app: App,
}

impl Node {
    /// Starts app and sidecar, with a token of `control`; does not wait for the sidecar.
    ///
    /// # Errors
    /// One of them could not be started.
    pub fn start(stage: &Stage, control: &ControlService, plan: NodePlan) -> Result<Self> {
        let state = stage.dir().join(&plan.name);
        let app_at = SocketAddr::new(plan.ip, APP_PORT);
        let proxy = SocketAddr::new(plan.ip, 15001);
        std::fs::write(state.with_extension("token"), control.token(&plan)?)
            .map_err(|error| error.to_string())?;
        let app = App::start(
            stage,
            &plan.name,
            &plan.service,
            &plan.version,
            plan.ip,
            proxy,
        )?;
        let settings = plan.settings(Some(app_at), Some(control.mesh), &state);
        let sidecar = Sidecar::launch(stage, &plan, &settings, &[], None)?;
        Ok(Self { plan, sidecar, app })
    }

    /// One call as this node's app makes it: to its sidecar, by plain name.
    ///
    /// # Errors
    /// No HTTP answer came.
    pub fn call(
        &self,
        service: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<super::Answer> {
        self.call_within(service, path, headers, Duration::from_secs(60))
    }

    /// [`Self::call`] with a patience.
    ///
    /// # Errors
    /// No HTTP answer came in time.
    pub fn call_within(
        &self,
        service: &str,
        path: &str,
        headers: &[(&str, &str)],
        patience: Duration,
    ) -> Result<super::Answer> {
        get(
            self.sidecar.outbound(),
            &format!("{service}:{APP_PORT}"),
            path,
            headers,
            patience,
        )
    }
}

/// Runs `work` on a thread inside a named network namespace.
///
/// # Errors
/// The namespace could not be entered.
pub fn inside<T: Send + 'static>(
    netns: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let path = format!("/run/netns/{netns}");
    let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("setns: {error}"))?;
        Ok(work())
    });
    thread
        .join()
        .map_err(|_| "a thread in the namespace panicked".to_owned())?
}
