//! Servers that people run, each on a port of its own until it is dropped.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use ringmesh_tests::ports::free_port;
use ringmesh_tests::{SOON, grpc_python, repository, wait};

use crate::standalone::LOCAL;

/// A server of others.
pub(crate) struct Server {
    process: Child,
    input: Option<ChildStdin>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// node, with a script of `tests/clients`.
    pub(crate) fn node(script: &str) -> Self {
        Self::script("node", script)
    }

    /// `grpc_server.py`.
    pub(crate) fn grpcio() -> Self {
        Self::script(grpc_python(), "grpc_server.py")
    }

    /// It says its port, and ends with its input.
    fn script(program: impl AsRef<OsStr>, script: &str) -> Self {
        let mut process = Command::new(program)
            .arg(repository("tests/clients").join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(script);
        let mut port = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output)
            .read_line(&mut port)
            .expect("its port");
        let address = (LOCAL, port.trim().parse().expect("a port")).into();
        Self {
            input: process.stdin.take(),
            process,
            address,
        }
    }

    /// nghttpd without TLS: serves the files in `folder`, echoes uploads, and ends each answer with
    /// the trailer `x-trailer: seen`.
    pub(crate) fn nghttpd(folder: &Path) -> Self {
        Self::on_a_port("nghttpd", |command, port| {
            command
                .args(["--no-tls", "--echo-upload", "--trailer", "x-trailer: seen"])
                .args(["--address", &LOCAL.to_string(), "--htdocs"])
                .args([folder.as_os_str(), OsStr::new(port)]);
        })
    }

    /// Redis, without a disk.
    pub(crate) fn redis() -> Self {
        Self::on_a_port("redis-server", |command, port| {
            command
                .args(["--bind", &LOCAL.to_string(), "--port", port])
                .args(["--save", "", "--protected-mode", "no"]);
        })
    }

    fn on_a_port(program: &str, set: impl FnOnce(&mut Command, &str)) -> Self {
        let address = SocketAddr::from((LOCAL, free_port()));
        // Should this process die before it is dropped, the kernel ends it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]);
        set(&mut command, &address.port().to_string());
        let process = command.stdout(Stdio::null()).spawn().expect(program);
        let server = Self {
            process,
            input: None,
            address,
        };
        wait::until_true(program, SOON, || TcpStream::connect(address).is_ok()).expect(program);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match self.input.take() {
            Some(input) => drop(input),
            None => drop(self.process.kill()),
        }
        let _ = self.process.wait();
    }
}
