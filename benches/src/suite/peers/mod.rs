//! How each contender is started for each shape of the traffic: one proxy, or two with mutual TLS.

mod certs;
mod envoy;
mod haproxy;
mod nginx;
mod ringmesh;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use super::contender::{Contender, Programs};
use crate::problem::Problem;
use crate::process::Running;
use certs::Certs;
pub(super) use ringmesh::Books;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    Http1,
    /// Without TLS by prior knowledge, with TLS by ALPN.
    Http2,
    Tcp,
}

/// How many proxies are on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// Two, with mutual TLS between them.
    Pair,
    /// The second of two alone: the load speaks mutual TLS to it.
    Callee,
}

/// One side of a proxy.
#[derive(Debug, Clone, Copy)]
struct Side<'a> {
    at: SocketAddr,
    speech: Speech,
    /// Mutual TLS 1.3.
    tls: Option<&'a Certs>,
}

/// One proxy: where it listens and where it connects to.
#[derive(Debug, Clone, Copy)]
struct Hop<'a> {
    from: Side<'a>,
    to: Side<'a>,
}

/// A contender that serves.
#[derive(Debug)]
pub(super) struct Serving {
    /// Where the load goes.
    pub(super) at: SocketAddr,
    /// What is measured: these and their descendants.
    pub(super) roots: Vec<u32>,
    /// Ours keeps books, one a sidecar, and they must agree.
    pub(super) books: Vec<Books>,
    /// Whom it takes for the other proxy of a pair.
    pub(super) caller: Option<Caller>,
    processes: Vec<Running>,
}

/// What a load shows to pass for a proxy.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The name it asks for (SNI).
    pub(super) name: &'static str,
    pub(super) alpn: &'static str,
}

impl Caller {
    /// The arguments of `ringmesh-bench load handshakes` that say so.
    pub(super) fn arguments(&self) -> Vec<String> {
        let file = |path: &Path| path.display().to_string();
        let pairs = [
            ("--cert", file(&self.certificate)),
            ("--key", file(&self.key)),
            ("--server-name", self.name.to_owned()),
            ("--alpn", self.alpn.to_owned()),
        ];
        let flat = pairs.map(|(flag, value)| [flag.to_owned(), value]);
        flat.into_iter().flatten().collect()
    }
}

impl Serving {
    /// That one of its processes has ended, which none may.
    pub(super) fn check(&mut self) -> Result<(), Problem> {
        for process in &mut self.processes {
            if let Some(status) = process.ended()? {
                return Err(process.problem(&format!("ended: {status}")));
            }
        }
        Ok(())
    }
}

/// Why a contender does not serve.
#[derive(Debug)]
pub(super) enum NotServing {
    /// It cannot: not installed, or a thing it does not do.
    Absent(String),
    /// It should, and does not.
    Broken(Problem),
}

impl<E: Into<Problem>> From<E> for NotServing {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// What every start needs.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) programs: &'a Programs,
    /// An empty folder of this contender alone.
    pub(super) dir: &'a Path,
    /// CPUs of the proxies, as `taskset -c` takes them.
    pub(super) cpus: &'a str,
    /// Where the app answers.
    pub(super) upstream: SocketAddr,
}

/// Starts `contender` in front of `stage.upstream`.
pub(super) fn start(
    contender: Contender,
    speech: Speech,
    shape: Shape,
    stage: &Stage<'_>,
) -> Result<Serving, NotServing> {
    fs::create_dir_all(stage.dir)?;
    if contender == Contender::Direct {
        return Ok(Serving {
            at: stage.upstream,
            roots: Vec::new(),
            books: Vec::new(),
            caller: None,
            processes: Vec::new(),
        });
    }
    match (contender, shape) {
        (Contender::Ringmesh, Shape::One) => return ringmesh::standalone(speech, stage),
        (Contender::Ringmesh, Shape::Pair) => return ringmesh::pair(speech, stage),
        (Contender::Ringmesh, Shape::Callee) => return ringmesh::callee(speech, stage),
        (_, Shape::Pair) => return pair(contender, speech, stage),
        (_, Shape::Callee) => return callee(contender, speech, stage),
        (_, Shape::One) => {}
    }
    let side = |at| Side {
        at,
        speech,
        tls: None,
    };
    let hop = Hop {
        from: side(free_port()?),
        to: side(stage.upstream),
    };
    let process = start_hop(contender, hop, stage, "proxy")?;
    Ok(Serving {
        at: hop.from.at,
        roots: vec![process.pid()],
        books: Vec::new(),
        caller: None,
        processes: vec![process],
    })
}

/// The callee's proxy of others, without a caller's.
fn callee(contender: Contender, speech: Speech, stage: &Stage<'_>) -> Result<Serving, NotServing> {
    let certs = Certs::make(stage.dir)?;
    let side = |at, tls| Side { at, speech, tls };
    let hop = Hop {
        from: side(free_port()?, Some(&certs)),
        to: side(stage.upstream, None),
    };
    let process = start_hop(contender, hop, stage, "callee")?;
    Ok(Serving {
        at: hop.from.at,
        roots: vec![process.pid()],
        books: Vec::new(),
        caller: Some(Caller {
            certificate: certs.certificate.clone(),
            key: certs.key.clone(),
            name: certs::NAME,
            alpn: "http/1.1",
        }),
        processes: vec![process],
    })
}

/// Two proxies of others: the caller's and the callee's.
fn pair(contender: Contender, speech: Speech, stage: &Stage<'_>) -> Result<Serving, NotServing> {
    let certs = Certs::make(stage.dir)?;
    let plain = |at| Side {
        at,
        speech,
        tls: None,
    };
    let between = Side {
        at: free_port()?,
        speech: match contender {
            // This version of nginx speaks HTTP/2 to gRPC servers only.
            Contender::Haproxy | Contender::Nginx => speech,
            _ => Speech::Http2,
        },
        tls: Some(&certs),
    };
    let callee = Hop {
        from: between,
        to: plain(stage.upstream),
    };
    let caller = Hop {
        from: plain(free_port()?),
        to: between,
    };
    let processes = vec![
        start_hop(contender, callee, stage, "callee")?,
        start_hop(contender, caller, stage, "caller")?,
    ];
    Ok(Serving {
        at: caller.from.at,
        roots: processes.iter().map(Running::pid).collect(),
        books: Vec::new(),
        caller: None,
        processes,
    })
}

/// Starts one proxy of others; `role` tells two of them apart.
fn start_hop(
    contender: Contender,
    hop: Hop<'_>,
    stage: &Stage<'_>,
    role: &str,
) -> Result<Running, NotServing> {
    let dir = stage.dir.join(role);
    fs::create_dir_all(&dir)?;
    let envoy = stage.programs.envoy.display().to_string();
    let command: Vec<String> = match contender {
        Contender::Haproxy | Contender::HaproxySplice | Contender::HaproxyH2 => {
            let splice = contender == Contender::HaproxySplice;
            let config = write(&dir, "haproxy.cfg", &haproxy::config(hop, splice))?;
            ["haproxy", "-db", "-f", &config].map(str::to_owned).into()
        }
        Contender::Nginx => {
            let config = write(&dir, "nginx.conf", &nginx::config(hop, &dir)?)?;
            ["nginx", "-c", &config, "-g", "daemon off;"]
                .map(str::to_owned)
                .into()
        }
        Contender::Envoy | Contender::EnvoyMesh => {
            let log = (contender == Contender::EnvoyMesh).then(|| dir.join("access.log"));
            let config = write(&dir, "envoy.yaml", &envoy::config(hop, log.as_deref()))?;
            let options = ["--concurrency", "1", "--disable-hot-restart", "-l", "warn"];
            [&envoy, "-c", &config]
                .into_iter()
                .chain(options)
                .map(str::to_owned)
                .collect()
        }
        Contender::Direct | Contender::Ringmesh => {
            return Err(NotServing::Absent("no proxy of others".to_owned()));
        }
    };
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let output = dir.join("output");
    let mut process = Running::start(contender.title(), stage.cpus, &output, &[], &command)?;
    process.accepts(hop.from.at)?;
    Ok(process)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<String> {
    let path: PathBuf = dir.join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Below the ports that outgoing connections are given (ip_local_port_range): the load may have taken one of
/// those by the time its server starts.
const PORTS: Range<u32> = 30_000..32_768;

/// A port that nobody has now, and that this process has not been given before.
pub(super) fn free_port() -> io::Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    // Suites beside each other begin apart.
    let first = process::id().wrapping_mul(97) % span;
    for _ in PORTS {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (first + given) % span;
        let port = u16::try_from(port).map_err(io::Error::other)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr();
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
