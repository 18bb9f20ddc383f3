//! A name server on loopback whose answers a test changes while it runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Rtype};
use domain::rdata::A;

/// Most bytes of a question (RFC 1035 section 4.2.1).
const DATAGRAM_BYTES_MAX: usize = 512;

/// Answers every name with the same addresses, all of IPv4; ends with its value.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens, over UDP.
    pub address: SocketAddr,
    /// `None`: SERVFAIL.
    says: Arc<Mutex<Option<Vec<Ipv4Addr>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NameServer {
    /// At any port of `ip`; it fails until told otherwise.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn start(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("listen");
        let address = socket.local_addr().expect("address");
        let says = Arc::<Mutex<Option<Vec<Ipv4Addr>>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (told, over) = (Arc::clone(&says), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; DATAGRAM_BYTES_MAX];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let says = told.lock().expect("not poisoned").clone();
                if let Some(answer) = answer(&bytes[..len], says.as_deref()) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            address,
            says,
            stop,
            thread: Some(thread),
        }
    }

    /// From now on every name leads to these; nothing may be kept.
    ///
    /// # Panics
    /// Its thread has panicked.
    pub fn say(&self, addresses: &[Ipv4Addr]) {
        *self.says.lock().expect("not poisoned") = Some(addresses.to_vec());
    }
}

impl Drop for NameServer {
    /// Its port is closed behind it.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let woken = UdpSocket::bind((self.address.ip(), 0))
            .and_then(|socket| socket.send_to(&[], self.address));
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], says: Option<&[Ipv4Addr]>) -> Option<Vec<u8>> {
    let message = Message::from_slice(question).ok()?;
    let question = message.sole_question().ok()?;
    let code = match says {
        Some(_) => Rcode::NOERROR,
        None => Rcode::SERVFAIL,
    };
    let mut answer = MessageBuilder::new_vec().start_answer(message, code).ok()?;
    let wanted = question.qtype() == Rtype::A;
    for address in says.unwrap_or_default().iter().filter(|_| wanted) {
        let record = (question.qname(), 0_u32, A::new(*address));
        answer.push(record).ok()?;
    }
    Some(answer.finish())
}
