//! From the command line to a running sidecar: settings, listeners, shards, agent.
//!
//! Everything that can be wrong in what a person wrote is found before anything is started.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmesh_tuning::placement::Shards;
use ringmesh_wire::snapshot::MtlsMode;
use socket2::{Domain, Socket, Type};

use crate::admin::serve::SetLevel;
use crate::admin::{Board, Face};
use crate::agent::credentials::Credentials;
use crate::agent::run::{AgentPlan, LOG_BUFFER_BYTES};
use crate::agent::svid::UnixMs;
use crate::agent::token::JoinToken;
use crate::agent::{bell, files, last_good, run};
use crate::settings::{InboundMode, Listeners, Settings};
use crate::tables::{Tables, Workload, WorkloadPort};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sidecar.yaml`.
    pub config: PathBuf,
    /// Standalone: the compiled configuration.
    pub snapshot: Option<PathBuf>,
    /// Overrides `shards:`.
    pub shards: Option<Shards>,
}

/// Why there is no running sidecar; says the exit status.
#[derive(Debug)]
pub enum Stop {
    /// The input is wrong: 2.
    Input(String),
    /// It could not be done: 1.
    Failed(String),
}

impl Stop {
    /// The exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Reads and checks everything a person wrote. Touches no port.
///
/// # Errors
/// [`Stop::Input`].
pub fn check(options: &Options) -> Result<Settings, Stop> {
    let mut settings =
        Settings::load(&options.config).map_err(|error| Stop::Input(error.to_string()))?;
    if let Some(shards) = options.shards {
        settings.shards = shards;
    }
    let config = options.config.display();
    match (&settings.control, &options.snapshot) {
        (None, None) => Err(Stop::Input(format!(
            "{config}: control: missing, and no --snapshot is given; name a control service, or \
             serve a file made by `ringmesh compile`"
        ))),
        (Some(_), Some(_)) => Err(Stop::Input(format!(
            "{config}: control: --snapshot is for a sidecar without control service; leave out one \
             of them"
        ))),
        (None, Some(file)) => {
            let refuse = |why: String| Stop::Input(why);
            let snapshot = last_good::load(file, &settings.node)
                .map_err(|error| refuse(error.to_string()))?
                .ok_or_else(|| refuse(format!("{}: there is no such file", file.display())))?;
            Tables::build(&snapshot, &workload(&settings))
                .map_err(|error| refuse(format!("{}: {error}", file.display())))?;
            Ok(settings)
        }
        (Some(control), None) => {
            let remote = control
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|host| !host.is_loopback());
            if remote
                && settings
                    .advertise
                    .is_some_and(|address| address.is_loopback())
            {
                return Err(Stop::Input(format!(
                    "{config}: advertise: a loopback address, but control is remote; an address \
                     other hosts can reach"
                )));
            }
            Ok(settings)
        }
    }
}

/// As [`check`], and whether there is something to join control with: certificates of before, or a token.
///
/// # Errors
/// [`Stop::Input`].
pub fn check_all(options: &Options) -> Result<Settings, Stop> {
    let settings = check(options)?;
    let Some(control) = &settings.control else {
        return Ok(settings);
    };
    // What is damaged there counts as absent at a start too.
    let (held, _) = Credentials::load(&settings.state_dir);
    if held.for_control(UnixMs::now()).is_none() {
        let command = settings.token_command();
        JoinToken::load(control.token_file.as_deref(), &command).map_err(|why| {
            let (line, column) = control.token_place;
            Stop::Input(format!(
                "{}:{line}:{column}: {why}",
                options.config.display()
            ))
        })?;
    }
    Ok(settings)
}

/// The workload, as rules see it.
#[must_use]
pub fn workload(settings: &Settings) -> Workload {
    let ports = settings.ports.iter().map(|port| WorkloadPort {
        name: port.name.clone(),
        number: port.port,
        protocol: port.protocol,
        app: port.app,
        // Set from the snapshot when tables are built.
        mtls: MtlsMode::Strict,
    });
    Workload {
        service: settings.service.clone(),
        service_account: settings.service_account.clone(),
        labels: settings.labels.clone(),
        ports: ports.collect(),
    }
}

/// An address that every shard will listen on: held from before the first shard listens until the
/// process ends, so that port 0 is one port for all of them and nobody else takes it in between.
#[derive(Debug)]
struct Reserved {
    _socket: Socket,
    at: SocketAddr,
}

/// The kernel takes down the rings of a killed process after it is gone, listeners and all: a
/// sidecar that is started again at once has to wait for that (seen: tens of milliseconds).
const FREED_WITHIN: Duration = Duration::from_secs(5);

/// Tries until the address is free, for a while.
fn bound<T>(what: &str, at: SocketAddr, bind: impl Fn() -> io::Result<T>) -> Result<T, Stop> {
    let deadline = Instant::now() + FREED_WITHIN;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            other => {
                return other.map_err(|error| {
                    Stop::Failed(format!("cannot listen on {at} ({what}): {error}"))
                });
            }
        }
    }
}

fn reserve(what: &str, at: SocketAddr) -> Result<Reserved, Stop> {
    let socket = |reuse_port: bool| {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        if at.is_ipv6() {
            // As the shards' own: what has the port in IPv4 is no obstacle.
            socket.set_only_v6(true)?;
        }
        socket.bind(&at.into())?;
        Ok(socket)
    };
    // Shards share the port by SO_REUSEPORT, and so would a second sidecar by mistake: without it
    // the kernel says whether somebody listens there already.
    drop(bound(what, at, || socket(false))?);
    let (socket, local) = bound(what, at, || {
        let socket = socket(true)?;
        let local = socket.local_addr()?;
        Ok((socket, local))
    })?;
    Ok(Reserved {
        _socket: socket,
        at: local.as_socket().unwrap_or(at),
    })
}

/// Whether sockets of this process may stand for other hosts' addresses and carry a mark, which TPROXY
/// takes. Asked before anything is begun: each connection would fail on its own otherwise.
fn may_speak_for_others(config: &Path) -> Result<(), Stop> {
    let tried = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
        socket.set_ip_transparent_v4(true)?;
        socket.set_mark(ringmesh_tuning::intercept::APP_MARK)
    });
    tried.map_err(|error| {
        Stop::Failed(format!(
            "{}: listeners.inbound_mode: tproxy needs the capability CAP_NET_ADMIN, and the kernel says: \
             {error}; AmbientCapabilities=CAP_NET_ADMIN in the unit gives it, and inbound_mode: redirect \
             does without",
            config.display()
        ))
    })
}

/// Runs a sidecar until it is told to stop.
///
/// # Errors
/// [`Stop`].
pub fn run(options: Options, level: SetLevel) -> Result<(), Stop> {
    crate::shard::prepare_process();
    let settings = check(&options)?;
    files::make_dir(&settings.state_dir)
        .map_err(|error| Stop::Failed(format!("{}: {error}", settings.state_dir.display())))?;
    if settings.listeners.inbound_mode == InboundMode::Tproxy {
        may_speak_for_others(&options.config)?;
    }
    let hold = |what, at: Option<SocketAddr>| at.map(|at| reserve(what, at)).transpose();
    let outbound = hold("outbound", settings.listeners.outbound)?;
    let inbound = hold("inbound", settings.listeners.inbound)?;
    let mesh = hold("mesh", settings.listeners.mesh)?;
    let admin = settings.listeners.admin;
    let admin = admin.map(|at| bound("admin", at, || TcpListener::bind(at)));
    let admin = admin.transpose()?;
    let at = |reserved: &Option<Reserved>| reserved.as_ref().map(|reserved| reserved.at);
    let listeners = Listeners {
        outbound: at(&outbound),
        inbound: at(&inbound),
        inbound_mode: settings.listeners.inbound_mode,
        mesh: at(&mesh),
        admin: admin.as_ref().and_then(|admin| admin.local_addr().ok()),
    };
    let (bell, listener) =
        bell::bell().map_err(|error| Stop::Failed(format!("the shards' bell: {error}")))?;
    let (shards, doors) = shards::start(&settings, &listeners, &bell)?;
    let boot = fastrand::u64(..);
    let board = Board::new(Face {
        node: settings.node.0.clone(),
        service: settings.service.to_string(),
        boot,
        listeners,
        shards: doors.len(),
        listening: 0,
        draining: false,
        session: None,
        trouble: None,
        locked_out: false,
        snapshot: None,
        origin: "",
        refused: None,
        credentials: Credentials::default(),
        renew_at: None,
        health: Vec::new(),
        series: Vec::new(),
        quota: serde_json::Value::Null,
        names: std::collections::BTreeMap::new(),
        names_awaited: false,
        rings: vec![None; doors.len()],
    });
    tracing::info!(
        node = %settings.node,
        service = %settings.service,
        version = env!("CARGO_PKG_VERSION"),
        shards = doors.len(),
        ?listeners,
        "starting"
    );
    let plan = AgentPlan {
        workload: workload(&settings),
        settings,
        snapshot_file: options.snapshot,
        doors,
        listener,
        admin,
        board,
        boot,
        level,
    };
    let outcome = run::run(plan).map_err(Stop::Failed);
    shards::wait_for(shards);
    outcome
}

mod shards {
    //! Starting the shards, each with the worker room's loop.

    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use ringmesh_quota::Home;
    use ringmesh_tuning::{huge_pages, open_files, plan, probe};

    use super::{InboundMode, LOG_BUFFER_BYTES, Listeners, Settings, Stop, bell};
    use crate::accept::Role;
    use crate::agent::doors::{Doors, Send};
    use crate::balance::ShardShare;
    use crate::exchange::ConnLimits;
    use crate::ring::{RingPlan, SEND_BYTES_MAX, TaskRun};
    use crate::settings::ZERO_COPY_MIN_BYTES_MAX;
    use crate::shard::{self, Peers, ToShard};
    use crate::worker::{self, WorkerPlan};

    const _: () = assert!(
        ZERO_COPY_MIN_BYTES_MAX == SEND_BYTES_MAX,
        "the settings' bound is the ring's largest send"
    );

    /// Log buffers that go back and forth between a shard and the agent. At 90,000 lines a second
    /// all of them last for some 150 ms in which the agent gets no CPU, because it shares a shard's;
    /// after that lines are dropped and counted. What is not needed takes no memory.
    const LOG_BUFFERS: usize = 8;

    /// Open files of the process that are no connections of a shard: rings, listeners, the agent's
    /// sockets, files.
    const OTHER_FILES: u64 = 256;
    /// A shard with room for fewer sockets is of no use.
    const SOCKETS_MIN: u64 = 64;

    /// Raises the limit of open files as far as it may and tells how many sockets a shard may have,
    /// so that it sheds before accept fails: an eighth of its part is left to upstream connections of
    /// those it has accepted, and to pipes.
    fn sockets_max(shards: usize) -> Result<u32, Stop> {
        let shards = shards.max(1) as u64;
        let both_sides = 2 * u64::from(ConnLimits::default().conns_max);
        let files = open_files::raise(OTHER_FILES + shards * both_sides);
        let part = files.saturating_sub(OTHER_FILES) / shards;
        let sockets = part - part / 8;
        if sockets < SOCKETS_MIN {
            return Err(Stop::Failed(format!(
                "{files} open files are too few for {shards} shards: raise the limit \
                 (LimitNOFILE= of the unit, ulimit -n) to {} or more, or ask for fewer shards",
                OTHER_FILES + shards * (SOCKETS_MIN + SOCKETS_MIN / 4)
            )));
        }
        tracing::info!(files, shards, sockets_per_shard = sockets, "open files");
        Ok(u32::try_from(sockets).unwrap_or(u32::MAX))
    }

    pub(super) fn start(
        settings: &Settings,
        listeners: &Listeners,
        bell: &bell::Bell,
    ) -> Result<(Vec<Shard>, Doors), Stop> {
        let host = plan::plan(&probe::gather(), settings.shards)
            .map_err(|obstacles| Stop::Failed(obstacles.join("\n")))?;
        for missing in &host.degraded {
            tracing::warn!("{missing}");
        }
        // Before the receive buffers are reserved, of which most are never touched.
        if let Err(error) = huge_pages::refuse() {
            tracing::warn!(%error, "huge pages stay allowed: resident memory may be some MiB more");
        }
        let task_run = match host.ring.defer_taskrun {
            true => TaskRun::Defer,
            false => TaskRun::Cooperative,
        };
        let ring_plan = RingPlan {
            task_run,
            zero_copy_min_bytes: settings.zero_copy_min_bytes,
            ..RingPlan::default()
        };
        let worker_plan = WorkerPlan {
            share: ShardShare::WHOLE,
            listeners: [
                (Role::Outbound, listeners.outbound),
                (Role::Inbound, listeners.inbound),
                (Role::Mesh, listeners.mesh),
            ]
            .into_iter()
            .filter_map(|(role, at)| Some((role, at?)))
            .collect(),
            tproxy: listeners.inbound_mode == InboundMode::Tproxy,
            limits: ConnLimits {
                sockets_max: sockets_max(host.shards.len())?,
                kept_bytes_max: settings.kept_memory,
                idle_timeout_ms: as_ms(settings.idle_timeout),
                tcp_idle_timeout_ms: as_ms(settings.tcp_idle_timeout),
                ..ConnLimits::default()
            },
            quota_home: Home {
                shard: 0,
                shards: 1,
                standalone: settings.control.is_none(),
            },
            log_bytes: settings.access_log.as_ref().map_or(0, |_| LOG_BUFFER_BYTES),
            unix_us: unix_us(),
            seed: fastrand::u64(..),
        };
        let shards = u16::try_from(host.shards.len()).unwrap_or(u16::MAX);
        let bell = bell.clone();
        let notify: Arc<dyn Fn() + std::marker::Send + Sync> = Arc::new(move || bell.ring());
        let (handles, collected) =
            shard::spawn_shards(&host.shards, &ring_plan, &notify, &move |seat| {
                let index = seat.index;
                let mut plan = worker_plan.clone();
                plan.share = ShardShare {
                    shard: index.into(),
                    shards: shards.into(),
                };
                plan.quota_home.shard = index;
                plan.quota_home.shards = shards;
                plan.seed = plan
                    .seed
                    .wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9));
                worker::run(seat, plan)
            })
            .map_err(|error| Stop::Failed(error.to_string()))?;
        let all: Arc<[_]> = handles.iter().map(|shard| shard.mailbox.clone()).collect();
        if all.len() > 1 {
            for (own, shard) in handles.iter().enumerate() {
                // The inbox is empty: there is room.
                let peers = Peers::new(own, Arc::clone(&all));
                let _ = shard.mailbox.send(ToShard::Peers(peers));
            }
        }
        let mut sends: Vec<Send> = Vec::new();
        let handles: Vec<Shard> = handles.into_iter().map(Arc::new).collect();
        for handle in handles.iter().cloned() {
            if settings.access_log.is_some() {
                for _ in 1..LOG_BUFFERS {
                    // The inbox is empty: there is room.
                    let _ = handle.mailbox.send(ToShard::LogSpare(Vec::new()));
                }
            }
            sends.push(Box::new(move |message| handle.mailbox.send(message)));
        }
        Ok((handles, Doors::new(sends, move || collected.take())))
    }

    /// A shard that was started.
    pub(super) type Shard = Arc<shard::ShardHandle<ToShard>>;

    /// For the shards' last words to the kernel.
    const STOP_TIMEOUT: Duration = Duration::from_secs(2);

    /// Gives the shards, told to stop already, time to close what they have: an answer that was
    /// accepted for sending is still sent. One that hangs dies with the process.
    pub(super) fn wait_for(shards: Vec<Shard>) {
        let (tell, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for shard in shards.into_iter().filter_map(Arc::into_inner) {
                if let Err(error) = shard.join() {
                    tracing::error!(%error, "a shard has not ended well");
                }
            }
            let _ = tell.send(());
        });
        if ended.recv_timeout(STOP_TIMEOUT).is_err() {
            tracing::warn!("a shard does not end");
        }
    }

    /// Whole milliseconds; settings hold no time that does not fit.
    fn as_ms(time: Duration) -> u64 {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_us() -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_wildcard_takes_no_ipv4() {
        let other = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let at = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
        let reserved = reserve("mesh", at).expect("the other family has it");
        assert_eq!(reserved.at, at);
    }
}
