//! Resumed handshakes: tickets of our own as a server, tickets of others as a client.
//!
//! A ticket saves both sides the certificates' signatures, not the look at the certificates: a
//! resumed session brings the peer's chain of the first handshake along, and it is examined again
//! as in a full one ([`super::identity`]).
//!
//! As a server nothing is stored: the session is in the ticket, sealed under keys that are made with
//! the material, live in this process only and are thrown away after ten minutes. So every shard
//! resumes what another began, and no other host does. As a client each shard has its own store.
//!
//! Invariants: sessions never outlive what they were made under. Another certificate, other roots or
//! another trust domain mean other ticket keys and an empty store ([`super::TlsMaterial::succeed`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::{GetRandomFailed, aws_lc_rs};
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, TicketRotator};

use super::material::TlsMaterial;

/// Ticket keys seal for this long and open for as long again: a ticket lives ten minutes at most.
/// Istio and Envoy have hours; a revoked or re-assigned peer is found by the second look in any case,
/// so this only bounds what a stolen ticket key opens.
const KEY_SECONDS: u32 = 300;

/// Endpoints whose tickets a shard keeps; beyond, one of them is forgotten. An endpoint has up to
/// eight tickets of about 3 KiB (the server's chain and ours, sealed): 6 MiB in the worst case.
const ENDPOINTS_MAX: usize = 256;
/// Of [`ClientSessionMemoryCache`]: up to this "size" it remembers one server.
const ONE_SERVER: usize = 1;

/// Fresh ticket keys.
pub(super) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    Ok(Arc::new(TicketRotator::new(KEY_SECONDS, keys)?))
}

fn keys() -> Result<Box<dyn ProducesTickets>, GetRandomFailed> {
    let inner = aws_lc_rs::Ticketer::new().map_err(|_| GetRandomFailed)?;
    Ok(Box::new(Keys(inner)))
}

/// The library's sealing of tickets, as [`TicketRotator`] wants to own it.
#[derive(Debug)]
struct Keys(Arc<dyn ProducesTickets>);

impl ProducesTickets for Keys {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        2 * KEY_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// Address and name asked for.
type Endpoint = (SocketAddr, Box<str>);

/// Sessions one shard may resume as a client, by endpoint and name asked for: two endpoints of one
/// service are two hosts, and neither opens the other's tickets.
#[derive(Debug, Default)]
pub struct Sessions {
    by_endpoint: RefCell<HashMap<Endpoint, Arc<ClientSessionMemoryCache>>>,
    /// [`TlsMaterial::lineage`] they belong to.
    lineage: Cell<u64>,
}

impl Sessions {
    /// `config` with the sessions of one endpoint. Copying it is a dozen pointers, a thousandth of
    /// the handshake that follows.
    pub(super) fn of(
        &self,
        material: &TlsMaterial,
        config: &ClientConfig,
        to: SocketAddr,
        sni: &str,
    ) -> Arc<ClientConfig> {
        let mut all = self.by_endpoint.borrow_mut();
        if self.lineage.replace(material.lineage()) != material.lineage() {
            all.clear();
        }
        let key = (to, Box::from(sni));
        if all.len() >= ENDPOINTS_MAX
            && !all.contains_key(&key)
            && let Some(any) = all.keys().next().cloned()
        {
            all.remove(&any);
        }
        let store = all
            .entry(key)
            .or_insert_with(|| Arc::new(ClientSessionMemoryCache::new(ONE_SERVER)));
        let mut config = config.clone();
        config.resumption = Resumption::store(Arc::clone(store) as _);
        Arc::new(config)
    }
}
