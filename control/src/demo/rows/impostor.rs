//! Someone with a valid certificate of another service answers at ratings' address.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::stage::{Result, wait};

pub(super) fn play(cast: &mut Cast) -> Result<Seen> {
    let config = Arc::new(config(&cast.details.sidecar.state)?);
    let at = cast.ratings.sidecar.mesh();
    cast.ratings.sidecar.process.kill();
    let impostor = Impostor::stand(at, &config)?;
    let answer = cast.reviews_v2.call("ratings", "/ratings/impostor", &[])?;
    let (handshakes, requests) = impostor.leave();
    cast.ratings.sidecar.restart()?;
    cast.ratings.sidecar.wait_ready()?;
    let back = wait::until("ratings back", Duration::from_secs(15), || {
        match cast
            .reviews_v2
            .call("ratings", "/ratings/back", &[])?
            .status
        {
            200 => Ok(200),
            status => Err(status.to_string()),
        }
    })?;
    let reason = answer
        .header("x-ringmesh-reason")
        .unwrap_or("no reason")
        .to_owned();
    Ok(Seen::new(
        answer.status == 503 && reason == "identity_mismatch" && handshakes > 0 && requests == 0,
        format!(
            "{} {reason}; the impostor was dialled {handshakes} times and received {requests} requests; {back} when ratings is back",
            answer.status
        ),
    ))
}

struct Impostor {
    stop: Arc<AtomicBool>,
    dialled: Arc<AtomicU32>,
    requests: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Impostor {
    fn stand(at: SocketAddr, config: &Arc<ServerConfig>) -> Result<Self> {
        let listener = wait::until("the impostor's place", Duration::from_secs(3), || {
            TcpListener::bind(at).map_err(|error| error.to_string())
        })?;
        listener
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        let (stop, dialled, requests) = (Arc::default(), Arc::default(), Arc::default());
        let thread = std::thread::spawn({
            let (stop, dialled, requests) = (
                Arc::clone(&stop),
                Arc::clone(&dialled),
                Arc::clone(&requests),
            );
            let config = Arc::clone(config);
            move || serve(&listener, &config, &stop, &dialled, &requests)
        });
        Ok(Self {
            stop,
            dialled,
            requests,
            thread,
        })
    }

    fn leave(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic there has told its own story.
        let _ = self.thread.join();
        (
            self.dialled.load(Ordering::Relaxed),
            self.requests.load(Ordering::Relaxed),
        )
    }
}

fn serve(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    stop: &AtomicBool,
    dialled: &AtomicU32,
    requests: &AtomicU32,
) {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut conn, _)) = listener.accept() else {
            wait::pass(Duration::from_millis(5));
            continue;
        };
        dialled.fetch_add(1, Ordering::Relaxed);
        let patient = conn
            .set_nonblocking(false)
            .and_then(|()| conn.set_read_timeout(Some(Duration::from_secs(2))));
        if let (Ok(()), Ok(mut tls)) = (patient, rustls::ServerConnection::new(Arc::clone(config)))
        {
            // Any application byte is a request that should never have been sent.
            let mut byte = [0];
            if matches!(
                rustls::Stream::new(&mut tls, &mut conn).read(&mut byte),
                Ok(1)
            ) {
                requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn config(state: &Path) -> Result<ServerConfig> {
    let read = |error: rustls_pki_types::pem::Error| {
        format!("details' certificate in {}: {error}", state.display())
    };
    let chain = CertificateDer::pem_file_iter(state.join("svid.pem"))
        .and_then(Iterator::collect)
        .map_err(read)?;
    let key = PrivateKeyDer::from_pem_file(state.join("svid.key")).map_err(read)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ringmesh_wire::ALPN_MESH_HTTP1.to_vec()];
    Ok(config)
}
