//! One connection to whichever of several addresses answers first (RFC 8305, Happy Eyeballs).
//!
//! Attempts begin one after another, so that the usual case is one attempt to the first address. The
//! next begins when the last has failed, or has not answered for [`ATTEMPT_DELAY`]; those before it go
//! on. The first connection wins, and dropping the others has the ring cancel them.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::ring::{Ring, Socket};

/// RFC 8305 section 5: 250 ms is recommended, less than 100 ms forbidden for a fixed delay. Shorter
/// would open connections in vain wherever a round trip takes that long.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

type Attempt<'a> = Pin<Box<dyn Future<Output = io::Result<Socket>> + 'a>>;

/// Connects to one of `among`, in its order. Dropped, it gives up on all.
///
/// # Errors
/// The last failure, once every attempt has failed.
pub(super) async fn first(ring: &Ring, among: &[SocketAddr]) -> io::Result<Socket> {
    let mut to_try = among.iter();
    let mut under_way: Vec<Attempt<'_>> = Vec::with_capacity(among.len());
    let mut next_due = pin!(ring.sleep_until(ring.now()));
    let mut last_fault = None;
    poll_fn(|cx| {
        loop {
            let mut failed = false;
            let mut at = 0;
            while let Some(attempt) = under_way.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(socket)) => return Poll::Ready(Ok(socket)),
                    Poll::Ready(Err(fault)) => {
                        last_fault = Some(fault);
                        failed = true;
                        drop(under_way.remove(at));
                    }
                    Poll::Pending => at += 1,
                }
            }
            let due = failed || next_due.as_mut().poll(cx).is_ready();
            if due && let Some(to) = to_try.next() {
                under_way.push(Box::pin(Socket::connect(ring, *to)));
                next_due.as_mut().reset(ring.now() + ATTEMPT_DELAY);
                continue;
            }
            if under_way.is_empty() && to_try.as_slice().is_empty() {
                let fault = last_fault.take();
                return Poll::Ready(Err(fault.unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to try")
                })));
            }
            return Poll::Pending;
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

    use super::*;
    use crate::ring::tests::{drive, ring, until};
    use crate::time::Mono;
    use crate::vacant::Vacant;

    fn loopback(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((loopback(1), 0)).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// A listener whose queue is full: the kernel drops every further SYN.
    fn silent() -> (Vec<TcpStream>, socket2::Socket, SocketAddr) {
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
        socket
            .bind(&SocketAddr::new(loopback(1), 0).into())
            .unwrap();
        socket.listen(0).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(conn) = TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
            queued.push(conn);
        }
        (queued, socket, at)
    }

    fn race(among: Vec<SocketAddr>) -> (io::Result<SocketAddr>, Duration) {
        let ring = ring();
        let inner = ring.clone();
        let out = drive(&ring, async move {
            let begun: Mono = inner.now();
            let won = first(&inner, &among).await;
            let won = won.map(|socket| socket.peer_addr());
            (won, inner.now().since(begun))
        });
        // The losers' operations are ended, so nothing of them is left in the ring.
        until(&ring, || ring.conns() == 0);
        out
    }

    #[test]
    fn the_first_that_answers_wins_and_the_next_begins_after_the_delay() {
        let (_kept, at) = listener();
        let (other, beside) = listener();
        other.set_nonblocking(true).unwrap();
        let (won, _) = race(vec![at, beside]);
        assert_eq!(won.unwrap(), at);
        assert!(other.accept().is_err(), "the second was not tried");
        let (_queued, _full, silent) = silent();
        let (won, took) = race(vec![silent, at, beside]);
        assert_eq!(won.unwrap(), at);
        assert!(took >= ATTEMPT_DELAY, "{took:?}");
        assert!(other.accept().is_err(), "the third was not tried");
    }

    #[test]
    fn after_a_failure_the_next_begins_at_once() {
        let (_kept, at) = listener();
        let (one, two) = (Vacant::new(loopback(1)), Vacant::new(loopback(1)));
        // The quickest of some: the machine may stall.
        let took = (0..5).map(|_| {
            let (won, took) = race(vec![one.at, two.at, at]);
            assert_eq!(won.unwrap(), at);
            took
        });
        let took = took.min().unwrap();
        assert!(took < ATTEMPT_DELAY, "{took:?}");
    }

    #[test]
    fn where_none_answers_the_last_failure_is_told() {
        let (one, two) = (Vacant::new(loopback(1)), Vacant::new(loopback(1)));
        let (won, _) = race(vec![one.at, two.at]);
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new()).0.is_err());
    }

    #[test]
    fn given_up_nothing_is_left() {
        let (_queued, _full, silent) = silent();
        let ring = ring();
        let inner = ring.clone();
        let won = drive(&ring, async move {
            let mut give_up = pin!(inner.sleep_until(inner.now() + 2 * ATTEMPT_DELAY));
            let among = [silent, silent, silent];
            crate::wait::or_timeout(Box::pin(first(&inner, &among)), give_up.as_mut()).await
        });
        assert!(won.is_none());
        until(&ring, || ring.conns() == 0);
    }
}
