//! Does the local app answer? Asked once a second, so that control withdraws an endpoint whose app
//! is gone and brings it back.

use std::net::SocketAddr;
use std::time::Duration;

use ringmesh_wire::limits::HEALTH_DETAIL_BYTES_MAX;
use ringmesh_wire::session::PortHealth;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::grpc_health::is_serving;
use crate::settings::{AppCheck, AppPort};

/// Between two checks.
const EVERY: Duration = Duration::from_secs(1);
/// For one check; less than the interval, so that checks never pile up.
const TIMEOUT: Duration = Duration::from_millis(900);
/// Bytes of an answer looked at: a status line is far shorter.
const STATUS_LINE_BYTES_MAX: usize = 256;
/// A refused connection is certain; a slow or strange answer must come twice before it counts.
const SOFT_FAILURES: u32 = 2;

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It answers.
    Well,
    /// It answers slowly or strangely.
    Ill(String),
    /// Nothing listens.
    Gone(String),
}

/// From single checks to a judgement (pure).
#[derive(Debug, Clone, Default)]
pub struct Judge {
    healthy: bool,
    ill_in_a_row: u32,
    detail: String,
}

impl Judge {
    /// Takes a check; true where the judgement changed.
    pub fn take(&mut self, seen: Seen) -> bool {
        let before = self.healthy;
        match seen {
            Seen::Well => {
                self.healthy = true;
                self.ill_in_a_row = 0;
                self.detail.clear();
            }
            Seen::Gone(why) => {
                self.healthy = false;
                self.ill_in_a_row = SOFT_FAILURES;
                self.detail = why;
            }
            Seen::Ill(why) => {
                self.ill_in_a_row = self.ill_in_a_row.saturating_add(1);
                if self.ill_in_a_row >= SOFT_FAILURES {
                    self.healthy = false;
                }
                self.detail = why;
            }
        }
        self.healthy != before
    }

    /// Whether the app answers.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy
    }
}

/// As much of what a check saw as control takes.
fn told(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(HEALTH_DETAIL_BYTES_MAX)]
}

/// Checks all ports for ever and tells every change, and the first judgement in any case.
pub async fn watch(ports: Vec<AppPort>, tell: mpsc::Sender<Vec<PortHealth>>) {
    if ports.is_empty() {
        return;
    }
    let mut judges = vec![Judge::default(); ports.len()];
    let mut first = true;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let checks: Vec<_> = ports
            .iter()
            .map(|port| tokio::spawn(check(port.check.clone(), port.app)))
            .collect();
        let mut changed = first;
        for (judge, check) in judges.iter_mut().zip(checks) {
            let seen = check
                .await
                .unwrap_or_else(|error| Seen::Ill(error.to_string()));
            changed |= judge.take(seen);
        }
        first = false;
        if changed {
            let health = ports.iter().zip(&judges).map(|(port, judge)| PortHealth {
                port: port.port,
                healthy: judge.healthy,
                detail: told(&judge.detail).to_owned(),
            });
            if tell.send(health.collect()).await.is_err() {
                return;
            }
        }
    }
}

/// One check.
pub async fn check(how: AppCheck, app: SocketAddr) -> Seen {
    let asking = async {
        match how {
            AppCheck::None => Seen::Well,
            AppCheck::Tcp => match TcpStream::connect(app).await {
                Ok(_) => Seen::Well,
                Err(error) => Seen::Gone(format!("{app}: {error}")),
            },
            AppCheck::Http { path } => match get(&path, app).await {
                Ok(status) if (200..400).contains(&status) => Seen::Well,
                Ok(status) => Seen::Ill(format!("{app}{path} answers {status}")),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    Seen::Gone(format!("{app}: {error}"))
                }
                Err(error) => Seen::Ill(format!("{app}{path}: {error}")),
            },
            AppCheck::Grpc { service } => match is_serving(app, &service).await {
                Ok(true) => Seen::Well,
                Ok(false) => Seen::Ill(format!("{app}: {service:?} is not serving")),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    Seen::Gone(format!("{app}: {error}"))
                }
                Err(error) => Seen::Ill(format!("{app}: {error}")),
            },
        }
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Seen::Ill(format!("{app} does not answer in time")))
}

/// Status of a GET.
async fn get(path: &str, app: SocketAddr) -> std::io::Result<u16> {
    let mut conn = TcpStream::connect(app).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {app}\r\nuser-agent: ringmesh-check\r\nconnection: close\r\n\r\n"
    );
    conn.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(STATUS_LINE_BYTES_MAX);
    while answer.len() < STATUS_LINE_BYTES_MAX && !answer.contains(&b'\n') {
        if conn.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status_of(&answer).ok_or_else(|| std::io::Error::other("the answer is not HTTP/1"))
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5)?;
    if rest.get(1) != Some(&b' ') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vacant::Vacant;

    fn on_runtime<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test)
    }

    #[test]
    fn gone_counts_at_once_and_ill_the_second_time() {
        let mut judge = Judge::default();
        assert!(judge.take(Seen::Well));
        assert!(!judge.take(Seen::Ill("slow".into())));
        assert!(!judge.take(Seen::Well));
        assert!(!judge.take(Seen::Ill("slow".into())));
        assert!(judge.take(Seen::Ill("slow".into())));
        assert!(judge.take(Seen::Well));
        assert!(judge.take(Seen::Gone("refused".into())));
        assert!(!judge.healthy());
    }

    #[test]
    fn what_control_would_refuse_as_too_long_is_cut_between_characters() {
        assert_eq!(told("refused"), "refused");
        let long = format!("x{}", "\u{e9}".repeat(HEALTH_DETAIL_BYTES_MAX));
        assert_eq!(told(&long).len(), HEALTH_DETAIL_BYTES_MAX - 1);
        assert!(long.starts_with(told(&long)));
    }

    #[test]
    fn a_status_line_is_read_and_nothing_else_is() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for bad in [
            &b""[..],
            b"HTTP/2 200",
            b"HTTP/1.1 2x0 ",
            b"SSH-2.0",
            b"HTTP/1.1\t200",
        ] {
            assert_eq!(status_of(bad), None);
        }
    }

    #[test]
    fn real_apps_are_told_apart() {
        on_runtime(async {
            let vacant = Vacant::new([127, 0, 0, 1]);
            let (listener, app) = (vacant.tokio_listener(), vacant.at);
            let answers = [
                ("HTTP/1.1 204 No Content\r\n\r\n", true),
                ("HTTP/1.1 500 Oh\r\n\r\n", false),
                ("hello\n", false),
                ("", false),
            ];
            for (answer, good) in answers {
                let http = AppCheck::Http { path: "/h".into() };
                let asked = tokio::spawn(check(http, app));
                let (mut conn, _) = listener.accept().await.unwrap();
                let mut request = [0; 10];
                conn.read_exact(&mut request).await.unwrap();
                assert!(request.starts_with(b"GET /h HTT"));
                conn.write_all(answer.as_bytes()).await.unwrap();
                drop(conn);
                assert_eq!(asked.await.unwrap() == Seen::Well, good, "{answer:?}");
            }
            assert_eq!(check(AppCheck::Tcp, app).await, Seen::Well);
            drop(listener);
            assert!(matches!(check(AppCheck::Tcp, app).await, Seen::Gone(_)));
            let http = AppCheck::Http { path: "/".into() };
            assert!(matches!(check(http, app).await, Seen::Gone(_)));
        });
    }

    #[test]
    fn a_change_is_told_and_so_is_the_first_judgement() {
        on_runtime(async {
            let vacant = Vacant::new([127, 0, 0, 1]);
            let (listener, app) = (vacant.tokio_listener(), vacant.at);
            let port = AppPort {
                name: "http".into(),
                port: 80,
                app,
                protocol: ringmesh_wire::snapshot::Protocol::Http1,
                check: AppCheck::Tcp,
            };
            let (tell, mut told) = mpsc::channel(4);
            tokio::spawn(watch(vec![port], tell));
            let healthy = |health: Option<Vec<PortHealth>>| health.unwrap()[0].healthy;
            assert!(healthy(told.recv().await));
            drop(listener);
            assert!(!healthy(told.recv().await));
        });
    }
}
