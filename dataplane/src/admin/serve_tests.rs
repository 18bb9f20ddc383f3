use std::sync::Arc;

use ringmesh_wire::report::{Series, SeriesValue};
use ringmesh_wire::snapshot::{
    Body, Endpoint, EndpointPort, EndpointState, Endpoints, Mesh, MtlsMode, OnQuotaUnavailable,
    OutboundMode,
};
use ringmesh_wire::{NodeId, Revision, ServiceId, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::admin::Face;
use crate::agent::credentials::Credentials;
use crate::ring::SendZc;
use crate::ring::tests::picked;
use crate::settings::Listeners;

fn face() -> Face {
    Face {
        node: "n".into(),
        service: "s.default".into(),
        boot: 7,
        listeners: Listeners {
            inbound_mode: crate::settings::InboundMode::Redirect,
            outbound: None,
            inbound: None,
            mesh: None,
            admin: None,
        },
        shards: 1,
        listening: 0,
        draining: false,
        session: None,
        trouble: None,
        locked_out: false,
        snapshot: None,
        origin: "file",
        refused: None,
        credentials: Credentials::default(),
        renew_at: None,
        health: Vec::new(),
        series: Vec::new(),
        quota: serde_json::Value::Null,
        names: std::collections::BTreeMap::new(),
        names_awaited: false,
        rings: vec![None],
    }
}

fn snapshot() -> Snapshot {
    let mesh = Body::Mesh(Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: 15_000,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    });
    let endpoints = Body::Endpoints(Endpoints {
        service: ServiceId::new("ratings", "default"),
        endpoints: vec![Endpoint {
            node: Some(NodeId("ratings-1".into())),
            address: "10.0.0.9".parse().unwrap(),
            ports: vec![EndpointPort {
                service_port: 9080,
                app_port: 9080,
            }],
            mesh_port: Some(15_008),
            identity: None,
            labels: std::collections::BTreeMap::new(),
            region: String::new(),
            zone: String::new(),
            weight: 1,
            state: EndpointState::Ready,
        }],
    });
    let sections = vec![
        mesh.seal("").unwrap(),
        endpoints.seal("ratings.default").unwrap(),
    ];
    Snapshot::new(Revision(3), NodeId("n".into()), sections).unwrap()
}

/// Status and body of a request over an already open connection.
async fn ask<S>(mut conn: S, method: &str, path: &str) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    conn.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    conn.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

#[test]
fn reads_show_what_the_agent_wrote() {
    on_runtime(async {
        let board = Board::new(face());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(on_loopback(listener, board.clone()));
        let get = async |path: &str| {
            let conn = tokio::net::TcpStream::connect(at).await.unwrap();
            ask(conn, "GET", path).await
        };
        assert_eq!(get("/healthz").await, (200, "ok\n".into()));
        let (status, body) = get("/readyz").await;
        assert_eq!(status, 503);
        assert!(
            body.contains("listeners") && body.contains("configuration"),
            "{body}"
        );
        {
            let mut face = board.face();
            face.listening = 1;
            face.snapshot = Some(Arc::new(snapshot()));
            face.series = vec![Series {
                name: "ringmesh_requests_total".into(),
                labels: Vec::new(),
                value: SeriesValue::Counter(5),
            }];
        }
        assert_eq!(get("/readyz").await, (200, "ready\n".into()));
        let (_, body) = get("/metrics").await;
        assert_eq!(
            body,
            "# TYPE ringmesh_requests_total counter\nringmesh_requests_total 5\n"
        );
        let (_, body) = get("/config").await;
        let config: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(config["revision"], 3);
        assert_eq!(config["sections"][1]["name"], "ratings.default");
        assert_eq!(config["sections"][1]["hash"].as_str().unwrap().len(), 32);
        let (_, body) = get("/endpoints").await;
        let endpoints: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(endpoints["ratings.default"][0]["address"], "10.0.0.9");
        assert_eq!(endpoints["ratings.default"][0]["state"], "ready");
        assert_eq!(get("/certs").await.0, 200);
        assert_eq!(get("/quota").await.0, 200);
        let (_, body) = get("/ring").await;
        assert_eq!(body, r#"{"shards":[{"shard":0}]}"#, "it has not told yet");
        let picked = picked(SendZc::From(32_768));
        board.face().rings = vec![Some(picked)];
        let ring: serde_json::Value = serde_json::from_str(&get("/ring").await.1).unwrap();
        let ring = &ring["shards"][0];
        assert_eq!(ring["flags"]["defer_taskrun"], true);
        assert_eq!(ring["flags"]["coop_taskrun"], false);
        assert_eq!(ring["recv_limit"], "cancel");
        assert_eq!(ring["groups"]["bulk"]["buffer_bytes"], 65_536);
        assert_eq!(ring["groups"]["bulk"]["buffers_max"], picked.bulk.max);
        assert_eq!(ring["splice"]["pipes_max"], 64);
        let send_zc = serde_json::json!({ "state": "on", "min_bytes": 32_768 });
        assert_eq!(ring["send_zc"], send_zc);
        board.face().draining = true;
        assert_eq!(get("/readyz").await.0, 503);
        // Nothing can be changed here.
        assert_eq!(get("/drain").await.0, 404);
        let conn = tokio::net::TcpStream::connect(at).await.unwrap();
        assert_eq!(ask(conn, "POST", "/drain").await.0, 404);
    });
}

#[test]
fn writes_go_by_the_owners_socket_alone() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        // What a killed process left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind_socket(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (orders, mut received) = mpsc::channel(1);
        let level: SetLevel = Arc::new(|level| match level {
            "debug" => Ok(()),
            other => Err(format!("{other} is no level")),
        });
        tokio::spawn(on_socket(listener, Board::new(face()), orders, level));
        let post = async |path_and_query: &str| {
            let conn = tokio::net::UnixStream::connect(&path).await.unwrap();
            ask(conn, "POST", path_and_query).await
        };
        assert_eq!(post("/drain").await.0, 202);
        assert_eq!(received.recv().await, Some(Order::Drain));
        assert_eq!(post("/log?level=debug").await.0, 200);
        assert_eq!(post("/log?level=loud").await.0, 400);
        assert_eq!(post("/healthz").await.0, 405);
        // A second sidecar on the same directory is told so.
        let error = bind_socket(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}
