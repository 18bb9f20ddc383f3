//! What gRPC calls come to in the log where they have no status of their own, and what is nobody's business
//! but gRPC's.

use bytes::Bytes;
use http::HeaderValue;

use super::http2::{Seen, bed, block_on, connect, grpc, read, request};
use super::*;

/// The access log, once it has a line.
async fn line(bed: &Bed) -> serde_json::Value {
    loop {
        if let Some(line) = bed.log().pop() {
            return line;
        }
        moment().await;
    }
}

async fn has_come(seen: &Seen, calls: usize) {
    while seen.calls.load(Ordering::SeqCst) < calls {
        moment().await;
    }
}

/// HTTP's 200 says nothing of a call: without a status it has failed.
#[test]
fn a_call_without_a_status_is_none_that_went_well() {
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        // The answer ends, and nothing says how the call did.
        let (response, _) = sender.send_request(grpc("/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let (bytes, _) = read(&mut body).await.unwrap();
        assert_eq!(bytes, b"hello");
        let log = line(&bed).await;
        assert_eq!(
            (&log["status"], &log["grpc_status"]),
            (&200.into(), &2.into()),
            "{log}"
        );
        // It is broken off.
        let mut sender = sender.ready().await.unwrap();
        let (response, mut upload) = sender.send_request(grpc("/reset/2"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        upload.send_data(Bytes::new(), true).unwrap();
        assert!(read(&mut body).await.is_err());
        let log = line(&bed).await;
        assert_eq!(log["grpc_status"], 14, "{log}");
        // The caller gives it up.
        let mut sender = sender.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(grpc("/hang"), true).unwrap();
        has_come(&seen, 3).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        let log = line(&bed).await;
        assert_eq!(
            (&log["status"], &log["grpc_status"]),
            (&499.into(), &1.into()),
            "{log}"
        );
    });
}

/// gRPC-web is another protocol: its fields pass as they came.
#[test]
fn the_timeout_of_grpc_web_is_not_touched() {
    let (bed, _) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut call = request("POST", "/headers");
        let fields = call.headers_mut();
        let kind = HeaderValue::from_static("application/grpc-web+proto");
        fields.insert("content-type", kind);
        fields.insert("grpc-timeout", HeaderValue::from_static("5S"));
        let (response, _) = sender.send_request(call, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let (seen, _) = read(&mut body).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("\"grpc-timeout\": \"5S\""), "{seen}");
    });
}
