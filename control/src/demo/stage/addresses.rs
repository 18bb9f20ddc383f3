//! Claims a /24 of 127.0.0.0/8 that no other stage on this machine uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Result;

/// Held open as long as the block is ours. No node uses it.
const CLAIM_PORT: u16 = 15999;

/// 127.x.y.0/24.
#[derive(Debug)]
pub struct Block {
    second: u8,
    third: u8,
    _claim: TcpListener,
}

impl Block {
    /// Tries blocks in an order that differs per process until one is free.
    ///
    /// # Errors
    /// All are taken, or 127/8 is not routed to loopback here.
    pub fn claim() -> Result<Self> {
        // Never twice in one process: what was left behind on an address must not be met again.
        static CLAIMED: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_add(CLAIMED.fetch_add(1, Ordering::Relaxed) * 131);
        let mut last = String::new();
        for step in 0..4096_u32 {
            // Multiplied so that neighbours in pid do not walk the same path.
            let place = start
                .wrapping_mul(7919)
                .wrapping_add(step.wrapping_mul(257))
                % (200 * 256);
            let [.., third] = place.to_be_bytes();
            let second = u8::try_from(place / 256).unwrap_or(0) + 20;
            match TcpListener::bind((Ipv4Addr::new(127, second, third, 1), CLAIM_PORT)) {
                Ok(claim) => {
                    return Ok(Self {
                        second,
                        third,
                        _claim: claim,
                    });
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("no free block of 127.0.0.0/8: {last}"))
    }

    /// Address `last` of the block.
    #[must_use]
    pub const fn ip(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.second, self.third, last))
    }

    /// A port on address `last` of the block.
    #[must_use]
    pub const fn at(&self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(last), port)
    }

    /// For file names.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.second, self.third)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_differ() {
        let (one, two) = (
            Block::claim().expect("block"),
            Block::claim().expect("block"),
        );
        assert_ne!(one.ip(1), two.ip(1));
        let first = one.ip(1);
        drop(one);
        assert_ne!(Block::claim().expect("block").ip(1), first);
    }
}
