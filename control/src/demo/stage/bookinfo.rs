//! An app of `examples/bookinfo`, and what it says it received.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::http::{self, Conn};
use super::{Launch, Process, Result, Stage};

/// Where every app serves, on its own address.
pub(super) const APP_PORT: u16 = 9080;
const ADMIN_PORT: u16 = 9090;
const START_PATIENCE: Duration = Duration::from_secs(30);
const ADMIN_PATIENCE: Duration = Duration::from_secs(30);

/// One request that reached an app.
#[derive(Clone, Debug, Deserialize)]
pub struct Arrival {
    /// Microseconds of the machine's monotonic clock.
    pub at_us: u64,
    /// The caller's `User-Agent`.
    pub caller: String,
    /// Request target as received.
    pub target: String,
    /// `x-request-id`.
    pub request_id: String,
}

/// A running app.
#[derive(Debug)]
pub struct App {
    /// The process.
    pub process: Process,
    ip: IpAddr,
    netns: Option<String>,
}

impl App {
    /// Starts it and waits until it accepts.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(
        stage: &Stage,
        name: &str,
        service: &str,
        version: &str,
        ip: IpAddr,
        proxy: SocketAddr,
    ) -> Result<Self> {
        let launch =
            Self::launch(stage, service, version, ip).env("http_proxy", &format!("http://{proxy}"));
        let mut app = Self {
            process: Process::start(&format!("{name}.app"), &launch, stage.dir())?,
            ip,
            netns: None,
        };
        app.process.ready("accepting", START_PATIENCE, || {
            Conn::open(SocketAddr::new(ip, APP_PORT), ADMIN_PATIENCE)
        })?;
        Ok(app)
    }

    /// Starts it in a network namespace as a user, with no proxy set: for capture.
    ///
    /// # Errors
    /// It did not start.
    pub fn start_in(
        stage: &Stage,
        name: &str,
        service: &str,
        version: &str,
        ip: IpAddr,
        netns: &str,
        uid: u32,
    ) -> Result<Self> {
        let launch = Self::launch(stage, service, version, ip)
            .in_netns(Some(netns))
            .as_user(Some(uid));
        let process = Process::start(&format!("{name}.app"), &launch, stage.dir())?;
        let log = process.name().to_owned();
        let mut last = String::new();
        let ready = super::wait::until(&format!("{log} ready"), START_PATIENCE, || {
            last = process.log();
            if last.contains("ready") {
                Ok(())
            } else {
                Err(last.clone())
            }
        });
        ready.map(|()| Self {
            process,
            ip,
            netns: Some(netns.to_owned()),
        })
    }

    fn launch(stage: &Stage, service: &str, version: &str, ip: IpAddr) -> Launch {
        Launch::new(stage.bins.path("bookinfo"))
            .arg(service)
            .arg("--address")
            .arg(ip.to_string())
            .arg("--port")
            .arg(APP_PORT.to_string())
            .arg("--admin-port")
            .arg(ADMIN_PORT.to_string())
            .arg("--version")
            .arg(version)
    }

    /// Where it serves.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, APP_PORT)
    }

    /// How many requests reached it since the last reset.
    ///
    /// # Errors
    /// It did not answer.
    pub fn count(&self) -> Result<u64> {
        let answer = self.admin("GET", "/count")?;
        answer["count"]
            .as_u64()
            .ok_or_else(|| "no count".to_owned())
    }

    /// The requests that reached it since the last reset, in order.
    ///
    /// # Errors
    /// It did not answer.
    pub fn arrivals(&self) -> Result<Vec<Arrival>> {
        serde_json::from_value(self.admin("GET", "/arrivals")?).map_err(|error| error.to_string())
    }

    /// Forgets what arrived.
    ///
    /// # Errors
    /// It did not answer.
    pub fn reset(&self) -> Result<()> {
        self.admin("POST", "/reset").map(|_| ())
    }

    /// `ok`, `hang`, `slow/MS`, `status/CODE`.
    ///
    /// # Errors
    /// It did not answer.
    pub fn mode(&self, mode: &str) -> Result<()> {
        let answer = self.admin("POST", &format!("/mode/{mode}"))?;
        if answer["done"] == true {
            Ok(())
        } else {
            Err(format!("mode {mode}: {answer}"))
        }
    }

    fn admin(&self, method: &str, path: &str) -> Result<serde_json::Value> {
        let to = SocketAddr::new(self.ip, ADMIN_PORT);
        let ask = move |method: String, path: String| -> Result<http::Answer> {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
            Conn::open(to, ADMIN_PATIENCE)?.ask(request.as_bytes())
        };
        let (method, path) = (method.to_owned(), path.to_owned());
        let answer = match &self.netns {
            None => ask(method, path)?,
            Some(netns) => super::node::inside(netns, move || ask(method, path))??,
        };
        Ok(answer.json())
    }
}
