//! Load over TLS, against a server of rustls: what the tool reports is what the server saw.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Long enough that a load that should end at once does not end by itself.
const LONG: &str = "120";

/// A CA, its certificates, and a folder with their files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

/// A certificate and key, and the files they are in.
struct Signed {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_file: String,
    key_file: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let file: PathBuf = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn ca(&self) -> String {
        let file = self.folder.path().join("ca.pem");
        file.to_str().unwrap().to_owned()
    }

    /// The CA's own, as if it were a server's.
    fn own(&self) -> Signed {
        Signed {
            chain: vec![self.root.clone()],
            key: PrivateKeyDer::try_from(self.issuer.key().serialize_der()).unwrap(),
            cert_file: self.ca(),
            key_file: self.file("ca.key", &self.issuer.key().serialize_pem()),
        }
    }

    fn sign(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            cert_file: self.file("own.pem", &cert.pem()),
            key_file: self.file("own.key", &key.serialize_pem()),
            chain: vec![cert.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A server's configuration; `clients` have to sign those who connect.
fn config(own: Signed, clients: Option<&Authority>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.root.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    builder.with_single_cert(own.chain, own.key).unwrap()
}

/// What a server saw.
#[derive(Default)]
struct Seen {
    full: AtomicU64,
    resumed: AtomicU64,
    answered: AtomicU64,
}

impl Seen {
    fn counts(&self) -> [u64; 3] {
        [&self.full, &self.resumed, &self.answered].map(|count| count.load(Ordering::SeqCst))
    }
}

#[derive(Clone, Copy)]
enum Speaks {
    Http,
    Echo,
    Source,
}

fn server(config: ServerConfig, speaks: Speaks) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
    let (config, counting) = (Arc::new(config), Arc::clone(&seen));
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let seen = Arc::clone(&counting);
            std::thread::spawn(move || {
                socket.set_nodelay(true).unwrap();
                let raw = socket.try_clone().unwrap();
                let mut stream = StreamOwned::new(tls, socket);
                // Errors are the client's end. An alert of ours must arrive: no reset before.
                let _ = serve(&mut stream, speaks, &seen);
                let _ = raw.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut &raw, &mut std::io::sink());
            });
        }
    });
    (at, seen)
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    speaks: Speaks,
    seen: &Seen,
) -> std::io::Result<()> {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let count = match stream.conn.handshake_kind() {
        Some(HandshakeKind::Resumed) => &seen.resumed,
        _ => &seen.full,
    };
    count.fetch_add(1, Ordering::SeqCst);
    let mut buffer = [0; 16 * 1024];
    let mut head = Vec::new();
    loop {
        if let Speaks::Source = speaks {
            stream.write_all(&buffer)?;
            continue;
        }
        let len = match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => len,
        };
        if let Speaks::Echo = speaks {
            stream.write_all(&buffer[..len])?;
            continue;
        }
        head.extend_from_slice(&buffer[..len]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            seen.answered.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
        }
    }
}

fn tool(arguments: &[&str]) -> Output {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .arg("load")
        .args(arguments)
        .output()
        .unwrap();
    let long: u64 = LONG.parse().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(long),
        "it ran to its end"
    );
    output
}

/// A load of a second, its result as JSON.
fn load(arguments: &[&str]) -> serde_json::Value {
    load_for("1", arguments)
}

fn load_for(seconds: &str, arguments: &[&str]) -> serde_json::Value {
    let short = ["-s", seconds, "--warmup", "0.1", "--json", "-"];
    let output = tool(&[arguments, &short].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["errors"], 0, "{found}");
    found
}

/// What a load that cannot go says, which it does at once, with the exit code for that.
fn refusal(arguments: &[&str]) -> String {
    let output = tool(&[arguments, &["-s", LONG]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

fn count(found: &serde_json::Value, kind: &str) -> u64 {
    found["tls"][kind]["count"].as_u64().unwrap()
}

#[test]
fn a_churning_load_resumes_and_both_ends_count_alike() {
    let authority = Authority::new("ours");
    let ca = authority.ca();
    for (more, version, resumes) in [
        (&[][..], "TLS 1.3", true),
        (&["--no-resume"], "TLS 1.3", false),
        (&["--tls-version", "1.2"], "TLS 1.2", true),
    ] {
        // A busy machine may take a while until anybody's second connection.
        let mut lengths = ["0.3", "3", "30"].into_iter();
        let (found, full, requests) = loop {
            let seconds = lengths.next().expect("a second connection of somebody");
            let own = authority.sign(&["127.0.0.1"]);
            let (at, seen) = server(config(own, None), Speaks::Http);
            let to = format!("https://{at}/some/path");
            let common = ["http", "--to", &to, "--ca", &ca, "-c", "3", "--churn"];
            let found = load_for(seconds, &[&common, more].concat());
            let (full, resumed) = (count(&found, "full"), count(&found, "resumed"));
            let requests = found["requests"].as_u64().unwrap();
            assert_eq!([full, resumed, requests], seen.counts(), "{found}");
            assert_eq!(found["connects"], requests, "{found}");
            if requests > 3 {
                break (found, full, requests);
            }
        };
        assert_eq!(full, if resumes { 3 } else { requests }, "{found}");
        assert_eq!(found["tls"]["version"], version);
        assert!(
            found["tls"]["full"]["p50_us"].as_f64().unwrap() > 0.0,
            "{found}"
        );
    }
}

#[test]
fn an_open_loop_keeps_its_rate_on_connections_that_shook_hands_once() {
    let authority = Authority::new("ours");
    let (at, seen) = server(config(authority.sign(&["app.test"]), None), Speaks::Http);
    let to = format!("https://{at}");
    let found = load_for(
        "0.3",
        &[
            "http",
            "--to",
            &to,
            "--ca",
            &authority.ca(),
            "--server-name",
            "app.test",
            "-c",
            "4",
            "--rate",
            "500",
        ],
    );
    // 0.4 s of 500 a second, each answered however late.
    assert_eq!(
        (&found["requests"], &found["measured"]),
        (&200.into(), &150.into())
    );
    assert_eq!(seen.counts(), [4, 0, 200]);
    assert_eq!((count(&found, "full"), count(&found, "resumed")), (4, 0));
    assert_eq!(
        found["tls"]["full"]["percentiles"]
            .as_array()
            .unwrap()
            .len(),
        17
    );
}

#[test]
fn a_certificate_that_is_refused_ends_the_load_at_once_and_says_why() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let (at, seen) = server(config(authority.sign(&["app.test"]), None), Speaks::Http);
    let to = format!("https://{at}");
    let (ca, wrong) = (authority.ca(), stranger.ca());

    let said = refusal(&[
        "http",
        "--to",
        &to,
        "--ca",
        &wrong,
        "--server-name",
        "app.test",
    ]);
    assert!(
        said.contains("the server's certificate is refused: none of --ca"),
        "{said}"
    );
    let said = refusal(&["http", "--to", &to, "--ca", &ca]);
    assert!(
        said.contains("app.test") && said.contains("--server-name"),
        "{said}"
    );
    assert_eq!(seen.counts(), [0, 0, 0]);

    // The root itself, as `openssl req -x509` makes servers' certificates.
    let (at, _) = server(config(authority.own(), None), Speaks::Http);
    let said = refusal(&["http", "--to", &format!("https://{at}"), "--ca", &ca]);
    assert!(said.contains("it is a CA's own"), "{said}");

    let found = load(&["http", "--to", &to, "--insecure", "-c", "1"]);
    assert!(found["requests"].as_u64().unwrap() > 0);
}

#[test]
fn mutual_tls_shows_a_certificate_or_says_that_one_is_wanted() {
    let [authority, clients, stranger] = ["servers", "clients", "neither"].map(Authority::new);
    let own = authority.sign(&["127.0.0.1"]);
    let (at, seen) = server(config(own, Some(&clients)), Speaks::Http);
    let (to, ca) = (format!("https://{at}"), authority.ca());
    let common = ["http", "--to", &to, "--ca", &ca, "-c", "2"];
    let with = |who: &Signed| {
        [
            &common[..],
            &["--cert", &who.cert_file, "--key", &who.key_file],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<String>>()
    };

    let said = refusal(&common);
    assert!(said.contains("it may want a certificate, --cert"), "{said}");
    let other = with(&stranger.sign(&["me"]));
    let said = refusal(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        said.contains("does not accept the certificate of --cert"),
        "{said}"
    );
    assert_eq!(seen.counts()[2], 0);

    let right = with(&clients.sign(&["me"]));
    load(&right.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(seen.counts()[2] > 0);
}

#[test]
fn the_protocol_inside_is_asked_for_by_name() {
    let authority = Authority::new("ours");
    let mut config = config(authority.sign(&["127.0.0.1"]), None);
    config.alpn_protocols = vec![b"inner/1".to_vec()];
    let (at, _) = server(config, Speaks::Http);
    let (to, ca) = (format!("https://{at}"), authority.ca());
    let common = ["http", "--to", &to, "--ca", &ca, "-c", "1"];
    let said = refusal(&common);
    assert!(
        said.contains("it speaks none of http/1.1; --alpn"),
        "{said}"
    );
    let found = load(&[&common[..], &["--alpn", "inner/1"]].concat());
    assert_eq!(found["tls"]["alpn"], "inner/1");
}

#[test]
fn balls_bulk_and_idle_connections_are_encrypted_too() {
    let authority = Authority::new("ours");
    let start = |speaks| {
        let (at, seen) = server(config(authority.sign(&["127.0.0.1"]), None), speaks);
        (at.to_string(), seen)
    };
    let ca = authority.ca();
    let (echo, _) = start(Speaks::Echo);
    let to = format!("tls://{echo}");
    // Several records a ball, and more than is encrypted ahead.
    let found = load(&[
        "ping", "--to", &to, "--ca", &ca, "-c", "2", "--bytes", "100000",
    ]);
    assert_eq!(
        (count(&found, "full"), &found["tls"]["alpn"]),
        (2, &serde_json::Value::Null)
    );
    let balls = found["requests"].as_u64().unwrap();
    assert!(
        balls > 0 && found["bytes"].as_u64().unwrap() == 100_000 * balls,
        "{found}"
    );

    let (source, seen) = start(Speaks::Source);
    let found = load(&[
        "bulk",
        "--to",
        &format!("tls://{source}"),
        "--ca",
        &ca,
        "-c",
        "2",
    ]);
    assert!(found["bytes"].as_u64().unwrap() > 1 << 20, "{found}");
    assert_eq!(seen.counts()[0], 2);

    let (http, seen) = start(Speaks::Http);
    let to = format!("https://{http}");
    let held = tool(&["idle", "--to", &to, "--ca", &ca, "-c", "20", "--hold", "0"]);
    assert_eq!(String::from_utf8_lossy(&held.stdout), "idle 20\n");
    assert_eq!(seen.counts(), [20, 0, 20]);
}

#[test]
fn text_tells_of_the_handshakes() {
    let authority = Authority::new("ours");
    let (at, _) = server(config(authority.sign(&["127.0.0.1"]), None), Speaks::Http);
    let to = format!("https://{at}");
    let ca = authority.ca();
    let short = ["-c", "2", "-s", "1", "--warmup", "0"];
    let output = tool(&[&["http", "--to", &to, "--ca", &ca][..], &short].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("TLS 1.3: 2 handshakes in full, 0 resumed, 0 failed"),
        "{said}"
    );
    assert!(said.contains("full handshake us: mean"), "{said}");
}

#[test]
fn what_is_wrong_with_a_file_or_a_target_is_told_where_it_is() {
    let authority = Authority::new("ours");
    let own = authority.sign(&["127.0.0.1"]);
    let (cert, key) = (own.cert_file.clone(), own.key_file.clone());
    let pem = std::fs::read_to_string(authority.ca()).unwrap();
    let odd = authority.file("odd.pem", &pem.replacen("\nM", "\n*", 1));
    let cut = authority.file("cut.pem", &pem[..pem.len() / 2]);
    let none = authority.file("none.pem", "hello\n");
    let other = authority.file("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let to = "https://127.0.0.1:1";
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_at = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut socket in plain.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for (arguments, wanted) in [
        (
            &["--to", to, "--ca", &odd][..],
            "odd.pem:2: '*' is not base64",
        ),
        (
            &["--to", to, "--ca", &cut],
            "cut.pem:1: -----END CERTIFICATE----- is missing",
        ),
        (
            &["--to", to, "--ca", &none],
            "none.pem: no certificate in it",
        ),
        (&["--to", to, "--ca", &key], "own.key: no certificate in it"),
        (
            &["--to", to, "--ca", "/nowhere.pem"],
            "/nowhere.pem is not readable",
        ),
        (
            &["--to", to, "--insecure", "--cert", &cert, "--key", &other],
            "other.key:1: not the key of the certificate at",
        ),
        (
            &["--to", to, "--insecure", "--cert", &cert, "--key", &cert],
            "own.pem: no private key in it",
        ),
        (
            &["--to", "127.0.0.1:1", "--insecure"],
            "--insecure is for TLS: write --to https://",
        ),
        (&["--to", "ftp://127.0.0.1:1"], "no load goes to ftp://"),
        (
            &[
                "--to",
                "https://127.0.0.1:1/a",
                "--path",
                "/b",
                "--insecure",
            ],
            "leave one out",
        ),
        (&["--to", to, "--insecure", "--alpn", "h2"], "h2load"),
        (
            &["--to", &plain_at, "--insecure"],
            "does it speak it on this port?",
        ),
    ] {
        let said = refusal(&[&["http"], arguments].concat());
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    let said = refusal(&["ping", "--to", "https://127.0.0.1:1/a", "--insecure"]);
    assert!(said.contains("only `load http` and `load idle`"), "{said}");
}
