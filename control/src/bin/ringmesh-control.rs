//! `ringmesh-control`: the control service.

// Standard output may fail: `ringmesh_tuning::stdout`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use ringmesh_control::lease::QuotaAuthority;
use ringmesh_control::publish::close;
use ringmesh_control::registry::Guards;
use ringmesh_control::rules::{At, CaFiles, ControlFile, check_svid_life, parse_control};
use ringmesh_control::service::{Control, Settings, plan, roots};
use ringmesh_control::svid::{Given, Lives, Passphrase, parse_trust_domain};
use ringmesh_control::time::parse_life;
use ringmesh_control::{admin, publish};
use ringmesh_tuning::stdout;
use tokio::signal::unix::{SignalKind, signal};

const ABOUT: &str = "\
The control service of a mesh: registry, rules, certificate authority, telemetry sink.

It serves sidecars over QUIC, operators over a unix socket (the tool `ringmesh`), and monitoring
over HTTP. Everything it must remember is in --data-dir; the first start creates it, with a new
certificate authority. Nothing on a request's way ever waits for it: sidecars go on without it.

When it serves, it prints one line to stdout:
  ready mesh=ADDRESS metrics=ADDRESS api=PATH
HUP reads the files of a CA that was given (`ca` in --config) again.
TERM stops it (sidecars keep their endpoints for 15 s after the next start), a second TERM at once.";

const EXAMPLES: &str = "\
Examples:
  ringmesh-control --data-dir /var/lib/ringmesh-control
  ringmesh-control --data-dir /tmp/c --listen-mesh 127.0.0.1:0 --listen-metrics 127.0.0.1:0
  ringmesh --control /var/lib/ringmesh-control/api.sock token create --node reviews-v3-1 \\
      --service reviews --service-account reviews --label version=v3";

#[derive(Parser, Debug)]
#[command(version, about = "The control service of a mesh", long_about = ABOUT, after_help = EXAMPLES)]
struct Args {
    /// Where everything is kept: store, certificate authority, logs, API socket.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings from a file; flags win over it (docs/control-yaml.md). Keys: trust_domain, svid_life,
    /// node_life, listen: {mesh, api, metrics}, ca: {certificate, key, roots} (PEM files of a CA to
    /// sign with in place of our own), ca_passphrase_file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for sidecars, QUIC over UDP [default: 0.0.0.0:15012].
    #[arg(long, value_name = "ADDR")]
    listen_mesh: Option<SocketAddr>,
    /// Path of the API's unix socket [default: DATA_DIR/api.sock].
    #[arg(long, value_name = "PATH")]
    listen_api: Option<PathBuf>,
    /// Address for /metrics and /healthz [default: 127.0.0.1:15014].
    #[arg(long, value_name = "ADDR")]
    listen_metrics: Option<SocketAddr>,
    /// Trust domain of every identity; fixed by the first start [default: mesh.local].
    #[arg(long, value_name = "NAME", value_parser = parse_trust_domain)]
    trust_domain: Option<String>,
    /// Life of workload certificates, e.g. 24h or 5s [default: 24h].
    #[arg(long, value_name = "LIFE", value_parser = parse_life)]
    svid_life: Option<Duration>,
    /// Life of node credentials [default: 90d].
    #[arg(long, value_name = "LIFE", value_parser = parse_life)]
    node_life: Option<Duration>,
    /// File whose first line is the passphrase of the CA's keys; nobody but its owner may read it (0600). Keys of our
    /// own CA that have none yet are put under it [default: the systemd credential ca-passphrase, if there is one].
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
    /// What to log, to stderr: error, warn, info, debug, trace, or per module.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "RINGMESH_LOG"
    )]
    log: String,
}

struct Plan {
    settings: Settings,
    mesh: SocketAddr,
    api: PathBuf,
    metrics: SocketAddr,
}

fn read_file(path: &Path) -> Result<ControlFile, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    parse_control(&shown.to_string(), &text).map_err(|errors| errors.to_string())
}

/// The files of a CA that was given, relative to the file that names them. Each must be there.
fn given(config: &Path, ca: CaFiles) -> Result<Given, String> {
    let beside = config.parent().unwrap_or(Path::new(""));
    let file = |named: At<PathBuf>| {
        let path = beside.join(&named.value);
        match std::fs::File::open(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(format!(
                "{}:{}: {}: {error}; name a PEM file that can be read",
                config.display(),
                named.place,
                path.display()
            )),
        }
    };
    Ok(Given {
        certificate: file(ca.certificate)?,
        key: file(ca.key)?,
        roots: file(ca.roots)?,
    })
}

/// Where the passphrase of the CA's keys is: where it was said to be, or a credential from systemd.
fn passphrase(said: Option<PathBuf>) -> Passphrase {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match (said, credentials) {
        (Some(file), Some(credentials)) if file.starts_with(&credentials) => {
            Passphrase::credential(file)
        }
        (Some(file), _) => Passphrase::file(file),
        (None, Some(credentials)) => {
            let file = credentials.join("ca-passphrase");
            match file.exists() {
                true => Passphrase::credential(file),
                false => Passphrase::default(),
            }
        }
        (None, None) => Passphrase::default(),
    }
}

fn plan_of(args: &Args) -> Result<Plan, String> {
    let file = args
        .config
        .as_deref()
        .map(read_file)
        .transpose()?
        .unwrap_or_default();
    let lives = Lives::default();
    let lives = Lives {
        workload: args.svid_life.or(file.svid_life).unwrap_or(lives.workload),
        node: args.node_life.or(file.node_life).unwrap_or(lives.node),
    };
    check_svid_life(lives.workload).map_err(|why| format!("--svid-life: {why}"))?;
    let ca = match (&args.config, file.ca) {
        (Some(config), Some(ca)) => Some(given(config, ca)?),
        _ => None,
    };
    let beside = args.config.as_deref().and_then(Path::parent);
    let at = |path: PathBuf| beside.map_or(path.clone(), |beside| beside.join(path));
    let said = args.ca_passphrase_file.clone();
    let ca_passphrase = passphrase(said.or(file.ca_passphrase_file.map(at)));
    let domain = args.trust_domain.clone().or(file.trust_domain);
    let default_mesh = SocketAddr::from(([0, 0, 0, 0], 15_012));
    let default_metrics = SocketAddr::from(([127, 0, 0, 1], 15_014));
    Ok(Plan {
        settings: Settings {
            data_dir: args.data_dir.clone(),
            trust_domain: domain.unwrap_or_else(|| "mesh.local".to_owned()),
            lives,
            guards: Guards::default(),
            ca,
            ca_passphrase,
        },
        mesh: args.listen_mesh.or(file.mesh).unwrap_or(default_mesh),
        api: args
            .listen_api
            .clone()
            .or(file.api)
            .unwrap_or_else(|| args.data_dir.join("api.sock")),
        metrics: args
            .listen_metrics
            .or(file.metrics)
            .unwrap_or(default_metrics),
    })
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wrong = |why: &str| {
        ringmesh_tuning::errln!("ringmesh-control: {why}");
        ExitCode::from(2)
    };
    let Ok(filter) = tracing_subscriber::EnvFilter::try_new(&args.log) else {
        return wrong(&format!(
            "--log: {:?} is not a filter; try info or debug",
            args.log
        ));
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let plan = match plan_of(&args) {
        Ok(plan) => plan,
        Err(why) => return wrong(&why),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(plan));
            // Work on the disk that is under way is one transaction: done or not.
            runtime.shutdown_timeout(Duration::from_secs(2));
            outcome
        }
        Err(error) => Err(error.to_string().into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { status, why }) => {
            ringmesh_tuning::errln!("ringmesh-control: {why}");
            ExitCode::from(status)
        }
    }
}

/// Why it ended, and the exit status.
struct Stop {
    status: u8,
    why: String,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self { status: 1, why }
    }
}

async fn run(plan: Plan) -> Result<(), Stop> {
    let at = |what: String| move |e: std::io::Error| format!("{what}: {e}");
    let control = Control::start(&plan.settings).map_err(|error| Stop {
        status: if error.is_wrong_input() { 2 } else { 1 },
        why: error.to_string(),
    })?;
    let api = admin::bind(&plan.api).map_err(at(plan.api.display().to_string()))?;
    let metrics = tokio::net::TcpListener::bind(plan.metrics)
        .await
        .map_err(at(format!("{} (metrics)", plan.metrics)))?;
    let endpoint = publish::bind(&control, plan.mesh).map_err(|e| e.to_string())?;
    let mut term = signal(SignalKind::terminate()).map_err(at("signals".into()))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(at("signals".into()))?;
    let mut hup = signal(SignalKind::hangup()).map_err(at("signals".into()))?;
    let mesh_address = endpoint.local_addr().map_err(at("mesh address".into()))?;
    let metrics_address = metrics.local_addr().map_err(at("metrics address".into()))?;

    let mut tasks = tokio::task::JoinSet::new();
    let [a, b, c, d] = std::array::from_fn(|_| Arc::clone(&control));
    let authority = QuotaAuthority::start(control.registered(), control.quotas());
    let quotas = Arc::clone(&authority);
    tasks.spawn(async move {
        let served = admin::serve(a, quotas, api).await;
        served.map_err(|e| format!("API: {e}"))
    });
    tasks.spawn(async move {
        let served = admin::serve_metrics(b, metrics).await;
        served.map_err(|e| format!("metrics: {e}"))
    });
    let links = publish::serve(Arc::clone(&control), endpoint.clone(), Some(authority));
    tasks.spawn(async move {
        links.await;
        Ok(())
    });
    tasks.spawn(async move {
        plan::run(c).await;
        Ok(())
    });
    tasks.spawn(async move {
        roots::run(d).await;
        Ok(())
    });

    let api = plan.api.display();
    stdout::try_write(format_args!(
        "ready mesh={mesh_address} metrics={metrics_address} api={api}\n"
    ))
    .map_err(at("standard output".into()))?;

    let ended = loop {
        tokio::select! {
            _ = term.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hup.recv() => {
                let control = Arc::clone(&control);
                let read = tokio::task::spawn_blocking(move || control.read_ca_again("HUP"));
                if let Err(error) = read.await {
                    tracing::error!(%error, "HUP");
                }
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(Err(why)) => break Err(why),
                Ok(Ok(())) => break Err("a part of the service ended by itself".to_owned()),
                Err(error) => break Err(error.to_string()),
            },
        }
    };
    tracing::info!("stopping");
    let _ = std::fs::remove_file(&plan.api);
    endpoint.close(close::STOPPING.into(), b"control stops");
    // Let the close reach the sidecars, so that they look for us again at once; not for long, and
    // not against a second signal.
    tokio::select! {
        () = endpoint.wait_idle() => {}
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    ended.map_err(Stop::from)
}
