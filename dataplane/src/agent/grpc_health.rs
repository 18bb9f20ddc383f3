//! gRPC health checking v1 (grpc/doc/health-checking.md): `Health/Check` of one service, on a connection of its own.
//!
//! The two messages are one field each; a code generator for them would be larger than they are.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client;
use http::{Method, Request};
use tokio::net::TcpStream;

use crate::http2::grpc;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer looked at; a right one has seven.
const ANSWER_BYTES_MAX: usize = 1024;
/// A header list of the app's: it has nothing to say in it.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Whether `service` (empty: the server as a whole) is SERVING.
///
/// # Errors
/// There is no connection, or the answer is not one; the text says which.
pub(super) async fn is_serving(app: SocketAddr, service: &str) -> io::Result<bool> {
    let socket = TcpStream::connect(app).await?;
    let broken = |error: h2::Error| io::Error::other(format!("HTTP/2: {error}"));
    let (sender, connection) = client::Builder::new()
        .enable_push(false)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .handshake::<_, Bytes>(socket)
        .await
        .map_err(broken)?;
    // Ends with the check, however that ends.
    let mut carrying = tokio::task::JoinSet::new();
    carrying.spawn(async move {
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{app}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "ringmesh-check")
        .body(())
        .map_err(io::Error::other)?;
    let (response, mut stream) = sender.send_request(request, false).map_err(broken)?;
    let question = grpc::health_request(service)
        .ok_or_else(|| io::Error::other("the service's name is too long"))?;
    stream.send_data(question.into(), true).map_err(broken)?;

    let response = response.await.map_err(broken)?;
    if response.status() != 200 {
        return Err(io::Error::other(format!("answers {}", response.status())));
    }
    let told = |fields: &http::HeaderMap| {
        let value = fields.get("grpc-status")?;
        grpc::status(value.as_bytes())
    };
    let mut status = told(response.headers());
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broken)?;
        let _ = body.flow_control().release_capacity(piece.len());
        if answer.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        answer.extend_from_slice(&piece);
    }
    if let Some(trailers) = body.trailers().await.map_err(broken)? {
        status = told(&trailers).or(status);
    }
    match status {
        Some(0) => grpc::health_serving(&answer)
            .ok_or_else(|| io::Error::other("the answer is no HealthCheckResponse")),
        Some(5) => Err(io::Error::other(format!("knows no service {service:?}"))),
        Some(12) => Err(io::Error::other("does not implement grpc.health.v1.Health")),
        Some(status) => Err(io::Error::other(format!("grpc-status {status}"))),
        None => Err(io::Error::other("the answer has no grpc-status")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Response};
    use tokio::net::TcpListener;

    use super::super::health::{Seen, check};
    use crate::settings::AppCheck;
    use crate::vacant::Vacant;

    use super::*;

    /// What a server says: bytes, `grpc-status` in the trailers, and whether it is all in the head.
    struct Says(&'static [u8], Option<&'static str>, u16);

    async fn serve(listener: &TcpListener, says: &Says) -> Vec<u8> {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().path(), PATH);
        assert_eq!(request.headers()["te"], "trailers");
        let mut asked = Vec::new();
        let answering = async {
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                asked.extend_from_slice(&piece);
            }
            let head = Response::builder().status(says.2).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let _ = stream.send_data(Bytes::from_static(says.0), false);
            let mut trailers = HeaderMap::new();
            if let Some(status) = says.1 {
                trailers.insert("grpc-status", HeaderValue::from_static(status));
            }
            let _ = stream.send_trailers(trailers);
        };
        let carrying = async { while connection.accept().await.is_some() {} };
        let both = async { tokio::join!(answering, carrying) };
        both.await;
        asked
    }

    #[test]
    fn servers_are_told_apart_by_what_they_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let vacant = Vacant::new([127, 0, 0, 1]);
            let (listener, app) = (vacant.tokio_listener(), vacant.at);
            let how = AppCheck::Grpc {
                service: "shop.Cart".into(),
            };
            for (says, wanted) in [
                (Says(&[0, 0, 0, 0, 2, 8, 1], Some("0"), 200), ""),
                (
                    Says(&[0, 0, 0, 0, 2, 8, 2], Some("0"), 200),
                    "is not serving",
                ),
                // proto3 leaves 0 out: UNKNOWN.
                (Says(&[0, 0, 0, 0, 0], Some("0"), 200), "is not serving"),
                (
                    Says(&[0, 0, 0, 0, 9, 8, 1], Some("0"), 200),
                    "no HealthCheckResponse",
                ),
                (Says(b"", Some("5"), 200), "knows no service \"shop.Cart\""),
                (Says(b"", Some("12"), 200), "does not implement"),
                (Says(b"", None, 200), "no grpc-status"),
                (Says(b"", None, 404), "answers 404"),
            ] {
                let (seen, asked) = tokio::join!(check(how.clone(), app), serve(&listener, &says));
                assert_eq!(asked, b"\x00\x00\x00\x00\x0b\x0a\x09shop.Cart");
                match seen {
                    Seen::Well => assert_eq!(wanted, ""),
                    Seen::Ill(why) => {
                        assert!(!wanted.is_empty() && why.contains(wanted), "{why}");
                    }
                    Seen::Gone(why) => panic!("{why}"),
                }
            }
            // Not HTTP/2 at all; then nobody.
            let (seen, ()) = tokio::join!(check(how.clone(), app), async {
                use tokio::io::AsyncWriteExt as _;
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            });
            assert!(matches!(seen, Seen::Ill(_)), "{seen:?}");
            drop(listener);
            assert!(matches!(check(how, app).await, Seen::Gone(_)));
        });
    }
}
