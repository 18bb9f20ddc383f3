//! The agent's loop: one task that owns everything, fed by the tasks around it.
//!
//! Facts come in (signals, the bell of the shards, news of the link, ticks); the session, the
//! keeper and the publisher say what follows; this file carries it out. It never waits for one
//! thing alone, so nothing it does may take long: disk writes here are small and rare, the access
//! log has a thread of its own.

mod certificates;
mod configuration;
mod control;
mod ending;
mod leases;
mod names;
mod refusal;
mod shards;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmesh_wire::report::Series;
use ringmesh_wire::session::{PortHealth, RegisteredPort};
use ringmesh_wire::snapshot::{Body, Resolution};
use ringmesh_wire::{CLOSE_LEAVING, NodeId, Registration, Report, Revision, SectionKind, Snapshot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::bell;
use super::doors::Doors;
use super::figures::Figures;
use super::health;
use super::keeper::{Keeper, Step};
use super::last_good;
use super::lease::Leases;
use super::link::{self, Fresh, Keys, LinkNumber, News, Place, Running};
use super::log_file::LogFile;
use super::log_forward::Forward;
use super::names::book::Lookup;
use super::publish::Publisher;
use super::quic::{Link, LinkError};
use super::session::{Input, Ourselves, Output, Phase, Session, Tell};
use super::svid::UnixMs;
use super::token::JoinToken;
use crate::admin::serve::{self, SetLevel};
use crate::admin::{Board, Order};
use crate::ring;
use crate::settings::{Control, Settings};
use crate::shard::{FromShard, ToShard};
use crate::tables::Workload;
use crate::telemetry::{self, Changes, Stats};
use crate::time::Mono;

/// Statistics, gauges and overdue sends are looked after this often.
const TICK: Duration = Duration::from_secs(1);
/// The same while every shard is quiet: what is left to do can wait.
const QUIET_TICK: Duration = Duration::from_secs(2);
/// Quota leases are looked after this often: a heartbeat is due every 400 ms.
const LEASE_TICK: Duration = Duration::from_millis(100);
/// A configuration is acknowledged when its quotas are leased, or after this.
const LEASE_PATIENCE: Duration = Duration::from_secs(2);
/// A certificate request that takes longer has failed.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(5);
/// From leaving until every caller's sidecar has the endpoint withdrawn: a push takes some tens of
/// milliseconds; a busy control gets ten times that. Meanwhile new calls are still served.
const HEARD_OF_WITHIN: Duration = Duration::from_millis(500);
/// After the last exchange: for the shards' last figures and log lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A shard's lines are handed over in buffers of this size. Buffers of half the size, handed over half full,
/// cost 3 % more CPU per request at 115,000 a second: agent and writer are woken on a shard's CPU.
pub const LOG_BUFFER_BYTES: usize = 512 * 1024;

/// Everything the agent is made of.
pub struct AgentPlan {
    /// `sidecar.yaml`.
    pub settings: Settings,
    /// Serve this file rather than what control says.
    pub snapshot_file: Option<PathBuf>,
    /// The workload, as rules see it.
    pub workload: Workload,
    /// The shards.
    pub doors: Doors,
    /// Rung by the shards.
    pub listener: bell::Listener,
    /// Where the admin reads stand.
    pub admin: Option<std::net::TcpListener>,
    /// What people see.
    pub board: Board,
    /// Random per process start.
    pub boot: u64,
    /// Changes the log level.
    pub level: SetLevel,
}

impl std::fmt::Debug for AgentPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentPlan")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Runs until TERM has been obeyed.
///
/// # Errors
/// Why the sidecar cannot do its work.
pub fn run(plan: AgentPlan) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for the agent: {error}"))?;
    runtime.block_on(async { Agent::start(plan)?.run().await })
}

/// Where a configuration came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Control,
    LastGood,
    File,
    /// What is in force, with other addresses.
    Names,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::LastGood => "last_good",
            Self::File => "file",
            Self::Names => "names",
        }
    }
}

/// Why certificates were asked for.
type Issue = Result<Fresh, LinkError>;

struct Live {
    running: Running,
    /// When the identity it was made with ends: after that control refuses renewals on it.
    identity_expires: UnixMs,
    changes: Changes,
    /// A log batch is under way: the next is made of what its acknowledgement leaves.
    logging: bool,
}

struct Agent {
    settings: Settings,
    snapshot_file: Option<PathBuf>,
    board: Board,
    started: Instant,
    boot: u64,
    doors: Doors,
    publisher: Publisher,
    publishing: Option<(Arc<Snapshot>, Origin)>,
    /// `None`: standalone.
    session: Option<Session>,
    keeper: Keeper,
    live: Option<Live>,
    leases: Leases,
    names: names::Names,
    /// In force, but not yet acknowledged: its quotas are not leased yet.
    unleased: Option<(Revision, Instant)>,
    connecting: Option<AbortHandle>,
    connecting_expires: UnixMs,
    link_number: u64,
    /// A certificate request is under way.
    certifying: bool,
    /// Keys a certificate was asked for with the join token, until there is one.
    joining: Option<Arc<Keys>>,
    /// Name of the token that is being asked with.
    joining_with: Option<String>,
    /// The token that was used or refused last.
    spent: Option<refusal::Spent>,
    /// Control refuses the certificates we hold.
    locked_out: Option<refusal::LockedOut>,
    stats: Vec<Option<Stats>>,
    /// Shards that were asked for their figures at the last tick and have not answered.
    asked: usize,
    /// When the shards are asked again, and what else is done regularly.
    next_tick: Instant,
    /// Shards with nothing new to tell until they say so.
    quiet: Vec<bool>,
    figures: Figures,
    report_sequence: u64,
    log_file: Option<LogFile>,
    forward: Option<Forward>,
    stopping: Option<Stopping>,
    /// The link that was left for good.
    left: Option<Link>,
    ready_told: bool,
    last_trouble: String,
    news: mpsc::UnboundedSender<(LinkNumber, News)>,
    issues: mpsc::UnboundedSender<Issue>,
    inputs: Option<Inputs>,
}

#[derive(Debug)]
struct Stopping {
    /// Shards with nothing open any more.
    drained: BTreeSet<usize>,
    /// Until then callers may not have heard that we leave, and what they send is still served.
    heard_of_by: Option<Instant>,
    until: Instant,
    /// Figures told since the shards were asked for their last; `None` before.
    last_words: Option<usize>,
    /// `drain` was asked for, but the process is to stay.
    stay: bool,
}

struct Inputs {
    ear: bell::Ear,
    news: mpsc::UnboundedReceiver<(LinkNumber, News)>,
    issues: mpsc::UnboundedReceiver<Issue>,
    health: mpsc::Receiver<Vec<PortHealth>>,
    orders: mpsc::Receiver<Order>,
    names: mpsc::Receiver<(String, Lookup)>,
}

impl Agent {
    fn start(plan: AgentPlan) -> Result<Self, String> {
        let AgentPlan {
            settings,
            snapshot_file,
            workload,
            doors,
            listener,
            admin,
            board,
            boot,
            level,
        } = plan;
        let (news, news_queue) = mpsc::unbounded_channel();
        let (issues, issues_queue) = mpsc::unbounded_channel();
        let (orders, orders_queue) = mpsc::channel(8);
        let (tell_health, health_queue) = mpsc::channel(8);
        let (names, names_queue) = names::Names::new(&settings.dns);
        tokio::spawn(health::watch(settings.ports.clone(), tell_health));
        let socket_path = settings.state_dir.join("admin.sock");
        let socket = serve::bind_socket(&socket_path)
            .map_err(|error| format!("{}: {error}", socket_path.display()))?;
        tokio::spawn(report_end(serve::on_socket(
            socket,
            board.clone(),
            orders,
            level,
        )));
        if let Some(admin) = admin {
            tokio::spawn(report_end(serve::on_loopback(admin, board.clone())));
        }
        let ear = listener
            .on_runtime()
            .map_err(|error| format!("the shards' bell: {error}"))?;
        let (keeper, complaints) = Keeper::load(&settings.state_dir, fastrand::u64(..));
        for complaint in complaints {
            tracing::error!(%complaint, "a file of the state directory is not usable");
        }
        let log_file = open_log(&settings)?;
        let forward = settings
            .access_log
            .as_ref()
            .filter(|log| log.forward && settings.control.is_some())
            .map(|_| Forward::new(settings.node.clone(), boot));
        let shards = doors.len();
        let leases = Leases::new(
            settings.node.clone(),
            boot,
            u16::try_from(shards).unwrap_or(u16::MAX),
            settings.control.is_none(),
            ring::monotonic().0,
            news.clone(),
        );
        Ok(Self {
            publisher: Publisher::new(workload, shards),
            settings,
            snapshot_file,
            board,
            started: Instant::now(),
            boot,
            doors,
            publishing: None,
            session: None,
            keeper,
            live: None,
            leases,
            names,
            unleased: None,
            connecting: None,
            connecting_expires: UnixMs(0),
            link_number: 0,
            certifying: false,
            joining: None,
            joining_with: None,
            spent: None,
            locked_out: None,
            stats: vec![None; shards],
            asked: 0,
            next_tick: Instant::now(),
            quiet: vec![false; shards],
            figures: Figures::default(),
            report_sequence: 0,
            log_file,
            forward,
            stopping: None,
            left: None,
            ready_told: false,
            last_trouble: String::new(),
            news,
            issues,
            inputs: Some(Inputs {
                ear,
                news: news_queue,
                issues: issues_queue,
                health: health_queue,
                orders: orders_queue,
                names: names_queue,
            }),
        })
    }

    async fn run(mut self) -> Result<(), String> {
        let signals = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        let mut term = signals(SignalKind::terminate())?;
        let mut interrupt = signals(SignalKind::interrupt())?;
        let mut hang_up = signals(SignalKind::hangup())?;
        let mut lease_ticks = tokio::time::interval(LEASE_TICK);
        lease_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut inputs = self.inputs.take().ok_or("the agent was started twice")?;
        self.begin()?;
        loop {
            self.carry_out();
            if self.pass_on_stopping() {
                self.farewell().await;
                return Ok(());
            }
            let nap = self.nap();
            let next_tick = self.next_tick.into();
            tokio::select! {
                _ = term.recv() => self.terminate(),
                _ = interrupt.recv() => self.terminate(),
                _ = hang_up.recv() => self.hang_up(),
                rung = inputs.ear.rung() => {
                    rung.map_err(|error| format!("the shards' bell: {error}"))?;
                    self.hear_shards()?;
                }
                Some((number, news)) = inputs.news.recv() => self.hear_link(number, news),
                Some(issue) = inputs.issues.recv() => self.certified(issue),
                Some(health) = inputs.health.recv() => {
                    self.figures.health.clone_from(&health);
                    self.board.face().health.clone_from(&health);
                    self.tell_session(Input::Health(health));
                }
                Some(order) = inputs.orders.recv() => match order {
                    Order::Drain => self.drain(true),
                },
                Some((name, lookup)) = inputs.names.recv() => self.name_answered(&name, lookup),
                () = tokio::time::sleep_until(next_tick) => self.tick(),
                _ = lease_ticks.tick(), if self.leases.is_active() => self.tick_leases(),
                () = tokio::time::sleep(nap) => {
                    self.tell_session(Input::Wake);
                    self.renew_if_due();
                    self.tend_names();
                }
            }
        }
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long nothing is due by the clock.
    fn nap(&self) -> Duration {
        // The tick comes before, so that this wakes nobody without need.
        let mut nap = 2 * QUIET_TICK;
        if let Some(deadline) = self.session.as_ref().and_then(Session::deadline) {
            nap = nap.min(deadline.since(self.now()));
        }
        if let Some(renews_in) = self.renews_in() {
            nap = nap.min(renews_in);
        }
        if let Some(names) = self.names_nap() {
            nap = nap.min(names);
        }
        if let Some(stopping) = &self.stopping {
            let next = stopping.heard_of_by.unwrap_or(stopping.until);
            nap = nap.min(
                next.min(stopping.until)
                    .saturating_duration_since(Instant::now()),
            );
        }
        nap
    }

    /// The first configuration, and the session where there is a control.
    fn begin(&mut self) -> Result<(), String> {
        let last_good = self.settings.state_dir.join("last-good.rmsh");
        let start = match &self.snapshot_file {
            Some(file) => {
                let node = &self.settings.node;
                let snapshot = last_good::load(file, node).map_err(|error| error.to_string())?;
                let snapshot =
                    snapshot.ok_or_else(|| format!("{}: there is no such file", file.display()))?;
                Some((Arc::new(snapshot), Origin::File))
            }
            None => self
                .load_last_good(&last_good)
                .map(|snapshot| (snapshot, Origin::LastGood)),
        };
        let mut held = None;
        if let Some((snapshot, origin)) = start {
            match self.publish(&snapshot, origin) {
                Ok(()) => held = Some(snapshot),
                Err(why) if origin == Origin::File => return Err(why),
                Err(why) => {
                    tracing::error!(%why, "the last good configuration is not usable any more");
                }
            }
        }
        self.push_material();
        if let Some(control) = self.settings.control.clone() {
            let ourselves = self.ourselves();
            tracing::info!(control = %control.host, port = control.port, "connecting to control");
            self.session = Some(Session::new(ourselves, held, self.now()));
            self.tell_session(Input::Wake);
        }
        Ok(())
    }

    fn load_last_good(&self, path: &Path) -> Option<Arc<Snapshot>> {
        match last_good::load(path, &self.settings.node) {
            Ok(snapshot) => snapshot.map(Arc::new),
            Err(error) => {
                tracing::error!(%error, "the last good configuration is ignored");
                None
            }
        }
    }

    fn ourselves(&self) -> Ourselves {
        let settings = &self.settings;
        let port = |port: &crate::settings::AppPort| RegisteredPort {
            name: port.name.clone(),
            port: port.port,
            app_port: port.app.port(),
            protocol: port.protocol,
            healthy: false,
        };
        let listeners = self.board.face().listeners;
        let mesh_port = listeners.mesh.map_or(0, |mesh| mesh.port());
        let registration = (!settings.ports.is_empty()).then(|| Registration {
            service: settings.service.clone(),
            service_account: settings.service_account.clone(),
            labels: settings.labels.clone(),
            // The session puts the right one here.
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            mesh_port,
            ports: settings.ports.iter().map(port).collect(),
            region: settings.locality.region.clone(),
            zone: settings.locality.zone.clone(),
        });
        Ourselves {
            node: settings.node.clone(),
            boot: self.boot,
            build: format!("ringmesh-proxy {}", env!("CARGO_PKG_VERSION")),
            registration,
            advertise: settings.advertise,
        }
    }
}

fn open_log(settings: &Settings) -> Result<Option<LogFile>, String> {
    let path = settings
        .access_log
        .as_ref()
        .and_then(|log| log.path.clone());
    path.map(|path| {
        let shown = path.display().to_string();
        LogFile::open(path).map_err(|error| format!("access log {shown}: {error}"))
    })
    .transpose()
}

async fn report_end(serving: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "an admin listener has ended");
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
