//! ringmesh and HAProxy in turn: one thread each on CPU 0, 64 keep-alive connections, 128 bytes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::figures::Round;
use crate::process::Running;
use crate::report::{Contender, Report};

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one round, seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// The repository, for examples/standalone.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Where the release binaries are.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

const ANSWER_BYTES: usize = 128;

impl Compare {
    pub(crate) fn run(&self) -> io::Result<()> {
        for command in ["taskset", "wrk", "nginx", "haproxy"] {
            if !is_there(command) {
                return Err(io::Error::other(format!(
                    "{command} is missing: run `make deps`"
                )));
            }
        }
        let scratch = tempfile::tempdir()?;
        let (upstream_at, haproxy_at, ours_at) = (free_port()?, free_port()?, free_port()?);
        let cpus = std::thread::available_parallelism()?.get();
        let others = if cpus > 1 {
            format!("1-{}", cpus - 1)
        } else {
            "0".to_owned()
        };

        let config = nginx_config(scratch.path(), upstream_at)?;
        let mut upstream = Running::start(
            "nginx",
            &others,
            &["nginx", "-c", &config, "-g", "daemon off;"],
        )?;
        upstream.ready(upstream_at)?;
        let config = haproxy_config(scratch.path(), haproxy_at, upstream_at)?;
        let mut haproxy = Running::start("haproxy", "0", &["haproxy", "-f", &config])?;
        haproxy.ready(haproxy_at)?;
        let script = self.root.join("examples/standalone/run");
        let bin = fs::canonicalize(&self.bin)?;
        let state = scratch.path().join("ringmesh");
        let mut ours = Running::start(
            "ringmesh",
            "0",
            &[
                "env",
                "SHARDS=1",
                &format!("BIN={}", bin.display()),
                &format!("STATE={}", state.display()),
                &script.display().to_string(),
                &ours_at.port().to_string(),
                &upstream_at.to_string(),
                "http",
            ],
        )?;
        ours.ready(ours_at)?;

        let mut contenders = vec![
            Contender {
                name: "HAProxy",
                version: version("haproxy", "-v"),
                rounds: Vec::new(),
            },
            Contender {
                name: "ringmesh, examples/standalone",
                version: env!("CARGO_PKG_VERSION").to_owned(),
                rounds: Vec::new(),
            },
        ];
        let proxies = [(&haproxy, haproxy_at), (&ours, ours_at)];
        for (_, at) in proxies {
            self.load(&others, at, 1)?;
        }
        for round in 1..=self.rounds {
            for (contender, (proxy, at)) in contenders.iter_mut().zip(proxies) {
                let before = proxy.cpu_us()?;
                let load = self.load(&others, at, self.seconds)?;
                let cpu_us = proxy.cpu_us()?.saturating_sub(before);
                #[expect(clippy::cast_precision_loss, reason = "figures for people")]
                let cpu_us = cpu_us as f64 / load.requests as f64;
                eprintln!(
                    "round {round}: {:<30} {cpu_us:6.1} us/request, {:7.0} requests/s",
                    contender.name, load.rps
                );
                contender.rounds.push(Round {
                    cpu_us,
                    rps: load.rps,
                    p50_us: load.p50_us,
                    p99_us: load.p99_us,
                });
            }
        }
        let report = Report {
            machine: format!("Machine: {cpus} CPUs, {}.", version("uname", "-sr")),
            load: format!(
                "Load: wrk, {} keep-alive connections, {ANSWER_BYTES}-byte answers from nginx, {} rounds of {} s in turn; one proxy thread on CPU 0, load and upstream on CPU {others}.",
                self.connections, self.rounds, self.seconds
            ),
            contenders,
            absent: Vec::new(),
        };
        println!("{}", report.write(&self.out)?);
        Ok(())
    }

    fn load(&self, cpus: &str, at: SocketAddr, seconds: u32) -> io::Result<Load> {
        let output = Command::new("taskset")
            .args(["-c", cpus, "wrk", "--latency", "-t1"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{seconds}s"))
            .arg(format!("http://{at}/"))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Load::parse(&text)
            .ok_or_else(|| io::Error::other(format!("wrk against {at} did not go well:\n{text}")))
    }
}

/// What wrk saw.
#[derive(Debug, PartialEq)]
struct Load {
    requests: u64,
    rps: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Load {
    /// Reads wrk's text; `None` if it holds errors or is not whole.
    fn parse(text: &str) -> Option<Self> {
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            return None;
        }
        let after = |label: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(label))
                .map(str::trim)
        };
        let requests = text.lines().find(|line| line.contains("requests in"))?;
        Some(Self {
            requests: requests.split_whitespace().next()?.parse().ok()?,
            rps: after("Requests/sec:")?.parse().ok()?,
            p50_us: micros(after("50%")?)?,
            p99_us: micros(after("99%")?)?,
        })
    }
}

fn micros(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.strip_suffix('s')?, 1e6)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn is_there(command: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default();
    paths
        .split(':')
        .any(|dir| Path::new(dir).join(command).is_file())
}

fn version(command: &str, flag: &str) -> String {
    let output = Command::new(command)
        .arg(flag)
        .output()
        .map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    let first = text.lines().next().unwrap_or("unknown");
    first
        .trim_start_matches("HAProxy version ")
        .split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn nginx_config(dir: &Path, at: SocketAddr) -> io::Result<String> {
    let path = dir.join("nginx.conf");
    let body = "x".repeat(ANSWER_BYTES);
    let dir = dir.display();
    fs::write(
        &path,
        format!(
            "worker_processes 1;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  \
             keepalive_requests 100000000;\n  client_body_temp_path {dir}/b;\n  \
             proxy_temp_path {dir}/p;\n  fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  \
             scgi_temp_path {dir}/s;\n  server {{ listen {at}; location / {{ return 200 \"{body}\"; }} }}\n}}\n"
        ),
    )?;
    Ok(path.display().to_string())
}

fn haproxy_config(dir: &Path, at: SocketAddr, upstream: SocketAddr) -> io::Result<String> {
    let path = dir.join("haproxy.cfg");
    fs::write(
        &path,
        format!(
            "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  \
             timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
             option http-keep-alive\n  http-reuse always\nfrontend in\n  bind {at}\n  \
             default_backend out\nbackend out\n  server app {upstream}\n"
        ),
    )?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 4s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
        Latency Distribution\n     50%    1.20ms\n     75%    1.40ms\n     90%    2.00ms\n     \
        99%  812.00us\n  40000 requests in 4.00s, 10.00MB read\nRequests/sec:  10000.50\n";

    #[test]
    fn wrk_is_read() {
        let load = Load::parse(GOOD).unwrap();
        assert_eq!(
            load,
            Load {
                requests: 40_000,
                rps: 10_000.5,
                p50_us: 1_200.0,
                p99_us: 812.0
            }
        );
    }

    #[test]
    fn errors_do_not_pass_for_figures() {
        assert_eq!(
            Load::parse(&format!("{GOOD}  Non-2xx or 3xx responses: 3\n")),
            None
        );
        assert_eq!(Load::parse("unable to connect"), None);
    }
}
