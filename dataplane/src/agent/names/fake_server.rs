//! A name server of the tests' own, on loopback, whose manners each test decides.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa, Cname};

/// What a record of an answer says.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    At(IpAddr),
    Alias(&'static str),
}

/// A question as it arrived.
pub(crate) struct Asked<'a> {
    pub(crate) message: &'a Message<[u8]>,
    pub(crate) name: String,
    pub(crate) rtype: Rtype,
    pub(crate) over_tcp: bool,
}

impl Asked<'_> {
    /// An answer of records: owner, what it says, time to live.
    pub(crate) fn records(&self, records: &[(&str, Says, u32)]) -> Vec<u8> {
        let builder = MessageBuilder::new_vec();
        let mut answer = builder.start_answer(self.message, Rcode::NOERROR).unwrap();
        for (owner, says, ttl) in records {
            let owner: Name<Vec<u8>> = owner.parse().unwrap();
            let pushed = match says {
                Says::At(IpAddr::V4(v4)) => answer.push((&owner, *ttl, A::new(*v4))),
                Says::At(IpAddr::V6(v6)) => answer.push((&owner, *ttl, Aaaa::new(*v6))),
                Says::Alias(target) => {
                    let target: Name<Vec<u8>> = target.parse().unwrap();
                    answer.push((&owner, *ttl, Cname::new(target)))
                }
            };
            pushed.unwrap();
        }
        answer.finish()
    }

    /// The addresses that fit the family asked for.
    pub(crate) fn addresses(&self, all: &[&str], ttl: u32) -> Vec<u8> {
        let fitting = all.iter().map(|one| one.parse::<IpAddr>().unwrap());
        let fitting = fitting.filter(|ip| ip.is_ipv4() == (self.rtype == Rtype::A));
        let records: Vec<_> = fitting
            .map(|ip| (self.name.as_str(), Says::At(ip), ttl))
            .collect();
        self.records(&records)
    }

    /// An answer without records.
    pub(crate) fn code(&self, rcode: Rcode) -> Vec<u8> {
        let builder = MessageBuilder::new_vec();
        builder.start_answer(self.message, rcode).unwrap().finish()
    }

    /// "Ask over TCP."
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut bytes = self.code(Rcode::NOERROR);
        bytes[2] |= 0b10;
        bytes
    }
}

/// Answers in datagrams; over TCP in one message of the first.
type Manners = dyn Fn(&Asked<'_>) -> Vec<Vec<u8>> + Send;

pub(crate) struct FakeServer {
    pub(crate) at: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    manners: Arc<Mutex<Box<Manners>>>,
    over: Arc<AtomicBool>,
}

impl FakeServer {
    pub(crate) fn start(manners: impl Fn(&Asked<'_>) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let (udp, tcp) = sockets();
        let server = Self {
            at: udp.local_addr().unwrap(),
            asked: Arc::default(),
            manners: Arc::new(Mutex::new(Box::new(manners))),
            over: Arc::default(),
        };
        let (asked, manners) = (Arc::clone(&server.asked), Arc::clone(&server.manners));
        let over = Arc::clone(&server.over);
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut bytes) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                asked.fetch_add(1, Ordering::Relaxed);
                for answer in answer(&manners, &bytes[..len], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let (manners, over) = (Arc::clone(&server.manners), Arc::clone(&server.over));
        std::thread::spawn(move || {
            while let Ok((mut conn, _)) = tcp.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let mut length = [0; 2];
                if conn.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                if conn.read_exact(&mut bytes).is_err() {
                    continue;
                }
                for answer in answer(&manners, &bytes, true) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    let _ = conn.write_all(&[&length, answer.as_slice()].concat());
                }
            }
        });
        server
    }

    /// From now on it behaves like this.
    pub(crate) fn turn(&self, manners: impl Fn(&Asked<'_>) -> Vec<Vec<u8>> + Send + 'static) {
        *self.manners.lock().unwrap() = Box::new(manners);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Both threads look once more.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], self.at);
        }
        let _ = std::net::TcpStream::connect(self.at);
    }
}

/// The same port for both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn answer(manners: &Mutex<Box<Manners>>, bytes: &[u8], over_tcp: bool) -> Vec<Vec<u8>> {
    let Ok(message) = Message::from_slice(bytes) else {
        return Vec::new();
    };
    let Ok(question) = message.sole_question() else {
        return Vec::new();
    };
    let asked = Asked {
        message,
        name: question.qname().to_string(),
        rtype: question.qtype(),
        over_tcp,
    };
    manners.lock().unwrap()(&asked)
}
