//! An opaque service, and the way to it through a caller's sidecar.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::mesh::Mesh;
use crate::{NodePlan, SOON, Sidecar};

/// The service: port 7000, with a sidecar; its app sends back what it hears.
#[derive(Debug)]
pub struct Echo {
    /// What it is.
    pub plan: NodePlan,
    /// Its sidecar.
    pub sidecar: Sidecar,
}

/// Its port.
const ECHO_PORT: u16 = 7000;

impl Echo {
    /// Starts it as the next node of a mesh.
    ///
    /// # Panics
    /// It did not start.
    #[must_use]
    pub fn start(mesh: &Mesh) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let app = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut heard = [0; 4096];
                    while let Ok(len @ 1..) = stream.read(&mut heard) {
                        if stream.write_all(&heard[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let (plan, sidecar) = mesh.serve("echo", app, "{name: tcp, port: 7000,");
        Self { plan, sidecar }
    }
}

/// A connection to `echo` through a caller's sidecar. Its first answer has come.
///
/// # Errors
/// There is none.
pub fn tunnel(outbound: SocketAddr) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(outbound).map_err(failed)?;
    stream.set_read_timeout(Some(SOON)).map_err(failed)?;
    let ask = format!("CONNECT echo:{ECHO_PORT} HTTP/1.1\r\nhost: echo:{ECHO_PORT}\r\n\r\n");
    stream.write_all(ask.as_bytes()).map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(failed)?;
        head.extend(byte);
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(&head).into_owned());
    }
    ping(&mut stream).map_err(failed)?;
    Ok(stream)
}

/// A few bytes there and back.
///
/// # Errors
/// The connection is over.
pub fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}
