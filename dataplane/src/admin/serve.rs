//! The routes: reads on loopback, and the same with writes on a socket only the owner can open.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::{Board, prometheus};
use crate::agent::svid::UnixMs;

/// What people may tell a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// As TERM, but the process stays until TERM.
    Drain,
}

/// Sets the log filter; the error says what is wrong with it.
pub type SetLevel = std::sync::Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Routes that only look.
pub fn reads(board: Board) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/endpoints", get(endpoints))
        .route("/certs", get(certs))
        .route("/quota", get(quota))
        .route("/ring", get(ring))
        .with_state(board)
}

#[derive(Clone)]
struct Writes {
    orders: mpsc::Sender<Order>,
    level: SetLevel,
}

/// Routes that change something.
pub fn writes(orders: mpsc::Sender<Order>, level: SetLevel) -> Router {
    Router::new()
        .route("/drain", post(drain))
        .route("/log", post(log))
        .with_state(Writes { orders, level })
}

/// Serves the reads for ever.
///
/// # Errors
/// The system's.
pub async fn on_loopback(listener: std::net::TcpListener, board: Board) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    axum::serve(listener, reads(board)).await
}

/// Binds the socket (0600), replacing one that a process before us left.
///
/// # Errors
/// The system's; `AddrInUse` where another process answers on it.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another sidecar uses this state directory",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is the owner's alone; between bind and chmod nobody else can get here.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves reads and writes on the socket for ever.
///
/// # Errors
/// The system's.
pub async fn on_socket(
    listener: UnixListener,
    board: Board,
    orders: mpsc::Sender<Order>,
    level: SetLevel,
) -> io::Result<()> {
    axum::serve(listener, reads(board).merge(writes(orders, level))).await
}

async fn index() -> &'static str {
    "/healthz\n/readyz\n/metrics\n/config\n/endpoints\n/certs\n/quota\n/ring\n"
}

async fn readyz(State(board): State<Board>) -> Response {
    let missing = board.face().not_ready();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let body = Json(serde_json::json!({ "not_ready": missing }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics(State(board): State<Board>) -> impl IntoResponse {
    let text = prometheus::encode(&board.face().series);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

async fn config(State(board): State<Board>) -> Json<serde_json::Value> {
    Json(board.face().config())
}

async fn endpoints(State(board): State<Board>) -> Json<serde_json::Value> {
    Json(board.face().endpoints())
}

async fn certs(State(board): State<Board>) -> Json<serde_json::Value> {
    Json(board.face().certs(UnixMs::now()))
}

async fn quota(State(board): State<Board>) -> Json<serde_json::Value> {
    Json(board.face().quota())
}

async fn ring(State(board): State<Board>) -> Json<serde_json::Value> {
    Json(board.face().rings())
}

async fn drain(State(writes): State<Writes>) -> (StatusCode, &'static str) {
    match writes.orders.try_send(Order::Drain) {
        Ok(()) => (StatusCode::ACCEPTED, "draining\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy; try again\n"),
    }
}

#[derive(Deserialize)]
struct Level {
    level: String,
}

async fn log(State(writes): State<Writes>, Query(Level { level }): Query<Level>) -> Response {
    match (writes.level)(&level) {
        Ok(()) => format!("log level is {level} now\n").into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
