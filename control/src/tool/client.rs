//! One request to control over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::admin::api::Problem;

/// How long a control service may take to start.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// Its socket is looked for this often meanwhile.
const START_POLL: Duration = Duration::from_millis(50);

fn is_starting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Speaks to one control service.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the service at `socket`. Connects with each request.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// GET.
    ///
    /// # Errors
    /// [`Failure`], ready to be shown.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Vec::new())
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// [`Failure`], ready to be shown.
    pub fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Failure::failed(e.to_string()))?;
        self.ask(Method::POST, path, body)
    }

    /// DELETE.
    ///
    /// # Errors
    /// [`Failure`], ready to be shown.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, Vec::new())
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::failed(e.to_string()))?;
        let (status, bytes) = runtime.block_on(self.exchange(method, path, body))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| {
                Failure::failed(format!(
                    "control answered something this tool does not understand ({e}); are both of \
                     the same version?"
                ))
            });
        }
        let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
            code: status.to_string(),
            message: String::from_utf8_lossy(&bytes).into_owned(),
            errors: Vec::new(),
        });
        let input = matches!(
            status,
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST
        );
        Err(Failure {
            status: if input { 2 } else { 1 },
            message: problem.message,
            errors: problem.errors,
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = self.connect().await.map_err(|e| self.no_connection(&e))?;
        let broken =
            |e: hyper::Error| Failure::failed(format!("control ended the connection: {e}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "control")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Failure::failed(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(broken)?
            .to_bytes();
        connection.abort();
        Ok((status, bytes))
    }

    /// A control that was started a moment ago has no socket yet, or the one of the run before.
    async fn connect(&self) -> io::Result<tokio::net::UnixStream> {
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            match tokio::net::UnixStream::connect(&self.socket).await {
                Err(error) if is_starting(&error) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(START_POLL).await;
                }
                done => return done,
            }
        }
    }

    fn no_connection(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        let advice = match error.kind() {
            io::ErrorKind::NotFound => {
                "is ringmesh-control running? --control or RINGMESH_CONTROL names another socket"
            }
            io::ErrorKind::ConnectionRefused => {
                "the socket is left from a control service that is gone: start ringmesh-control"
            }
            io::ErrorKind::PermissionDenied => {
                "you may not use it: become root, or a member of the socket's group"
            }
            _ => "--control or RINGMESH_CONTROL names another socket",
        };
        Failure::failed(format!("{socket}: {error}; {advice}"))
    }
}

/// A word as part of a path.
pub(super) fn segment(word: &str) -> String {
    let mut out = String::new();
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
