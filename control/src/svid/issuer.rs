//! From a token or an old certificate to a new one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ringmesh_wire::codec::Validate;
use ringmesh_wire::ids::check_label;
use ringmesh_wire::{Enroll, Issued, NodeId, Reject, Renew, SpiffeId};

use super::authority::Authority;
use super::ca::{Ca, CaError, Leaf, Lives, Signed};
use super::peer::Peer;
use super::roots::Facts;
use super::token::{JoinToken, secret_matches, sha256_hex};
use super::unix_ms;
use crate::store::{
    Binding, Book, CertificateRecord, NodeRecord, Revocation, StoreError, TokenRecord, TokenState,
};

/// How long after a token's use the same request is answered again, milliseconds.
pub(super) const REPEAT_MS: u64 = 600_000;
/// Certificates of one node that have not expired: a sidecar needs four, and one that fails to keep what it
/// gets asks each minute for as long as a certificate lives.
const CERTIFICATES_MAX: usize = 1_024;

/// Why no certificate was issued, with a code that scripts may rely on.
#[derive(Debug)]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// What to do about it.
    pub message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.to_owned(),
            message: refusal.message,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new("store_failed", error.to_string())
    }
}

impl From<CaError> for Refusal {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Request(why) => Self::new("csr_invalid", why),
            other => Self::new("ca_failed", other.to_string()),
        }
    }
}

/// The CA together with its records.
#[derive(Debug, Clone)]
pub struct Issuer {
    authority: Arc<Authority>,
    book: Book,
    lives: Lives,
    /// Held from reading a node's record to writing it: a certificate that another request wrote over would
    /// be on no record, and no revocation would reach it.
    records: Arc<Mutex<()>>,
}

impl Issuer {
    /// Puts CA and records together.
    #[must_use]
    pub fn new(authority: Arc<Authority>, book: Book, lives: Lives) -> Self {
        Self {
            authority,
            book,
            lives,
            records: Arc::default(),
        }
    }

    fn records(&self) -> MutexGuard<'_, ()> {
        // What a panic left behind is in the store, whole or not at all.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who signs now.
    #[must_use]
    pub fn ca(&self) -> Arc<Ca> {
        self.authority.issuing()
    }

    /// The roots.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What the roots' next step depends on; `trusted_everywhere` is for others to say.
    ///
    /// # Errors
    /// The store's.
    pub fn facts(&self, now: SystemTime, trusted_everywhere: bool) -> Result<Facts, StoreError> {
        let since_ms = self
            .authority
            .succession()
            .waiting()
            .map_or(0, |one| one.since_ms);
        let mut facts = Facts {
            now_ms: unix_ms(now),
            trusted_everywhere,
            workloads_end_ms: 0,
            nodes_end_ms: 0,
        };
        for node in self.book.nodes()? {
            // Issued in the same millisecond: by either.
            for old in node.certificates.iter().filter(|c| c.issued_ms <= since_ms) {
                let end_ms = match old.purpose.as_str() {
                    "workload" => &mut facts.workloads_end_ms,
                    _ => &mut facts.nodes_end_ms,
                };
                *end_ms = (*end_ms).max(old.not_after_ms);
            }
        }
        Ok(facts)
    }

    /// How long workload certificates live.
    #[must_use]
    pub fn lives(&self) -> Lives {
        self.lives
    }

    /// Makes a token for `binding`, good for `life`.
    ///
    /// # Errors
    /// [`Refusal`] `binding_invalid` where a name could not stand in a certificate.
    pub fn create_token(
        &self,
        binding: Binding,
        life: Duration,
        who: &str,
        now: SystemTime,
    ) -> Result<JoinToken, Refusal> {
        check_binding(&binding, self.authority.trust_domain())?;
        let token = JoinToken::mint(self.ca().root_der())
            .map_err(|_| Refusal::new("ca_failed", "the system has no random numbers"))?;
        self.book.add_token(&TokenRecord {
            id: token.id.clone(),
            secret_sha256: sha256_hex(token.secret.as_bytes()),
            binding,
            created_ms: unix_ms(now),
            expires_ms: unix_ms(now + life),
            created_by: who.to_owned(),
            state: TokenState::Fresh,
        })?;
        Ok(token)
    }

    /// First certificates, for a token. Where the answer was lost, the same request is answered again: for
    /// [`REPEAT_MS`], and not after the node's certificates were revoked.
    ///
    /// # Errors
    /// [`Refusal`] `token_unknown` (also for a wrong secret, so that ids cannot be probed),
    /// `token_used`, `token_expired`, `token_node_mismatch`, `csr_invalid`.
    pub fn enroll(&self, request: &Enroll, now: SystemTime) -> Result<Issued, Refusal> {
        let _records = self.records();
        let now_ms = unix_ms(now);
        let unknown = || {
            Refusal::new(
                "token_unknown",
                "control knows no such token; make one with `ringmesh token create`",
            )
        };
        let token = self.book.token(&request.token_id)?.ok_or_else(unknown)?;
        if !secret_matches(&request.token_secret, &token.secret_sha256) {
            return Err(unknown());
        }
        if token.binding.node != request.node {
            return Err(Refusal::new(
                "token_node_mismatch",
                format!(
                    "the token is for node {}, not for {}",
                    token.binding.node, request.node
                ),
            ));
        }
        let used = || {
            Refusal::new(
                "token_used",
                "a token is used once; make another with `ringmesh token create`",
            )
        };
        let by_sha256 = sha256_hex(&[&request.workload_csr[..], &request.node_csr].concat());
        let earlier = self.book.node(&request.node)?;
        let used_at_ms = match &token.state {
            TokenState::Fresh => None,
            TokenState::Used {
                at_ms,
                by_sha256: by,
            } => {
                // Who has not the keys gains nothing by sending another's request again. What was revoked
                // stays so, and a node that has joined anew since did it with another token.
                let revoked = self.book.revocations()?;
                let is_good = |c: &CertificateRecord| revoked.iter().all(|r| r.serial != c.serial);
                let stands = earlier.as_ref().is_some_and(|node| {
                    node.enrolled_ms == *at_ms
                        && !node.certificates.is_empty()
                        && node.certificates.iter().all(is_good)
                });
                if *by != by_sha256 || now_ms >= at_ms + REPEAT_MS || !stands {
                    return Err(used());
                }
                Some(*at_ms)
            }
        };
        if used_at_ms.is_none() && now_ms >= token.expires_ms {
            return Err(Refusal::new(
                "token_expired",
                "the token has expired; make another with `ringmesh token create`",
            ));
        }
        let workload = self.sign_workload(&request.workload_csr, &token.binding, now)?;
        let node = self.sign_node(&request.node_csr, &token.binding, now)?;
        // Certificates of an earlier life of this node stay on record, so that they can be revoked.
        let mut certificates = earlier.map_or_else(Vec::new, |node| node.certificates);
        certificates.retain(|c| c.not_after_ms > now_ms);
        certificates.push(record(&workload, "workload", now));
        certificates.push(record(&node, "node", now));
        let record = NodeRecord {
            binding: token.binding.clone(),
            enrolled_ms: used_at_ms.unwrap_or(now_ms),
            certificates,
        };
        let state = TokenState::Used {
            at_ms: record.enrolled_ms,
            by_sha256,
        };
        match self.book.enroll(&token, &record, state) {
            Err(StoreError::Conflict { .. }) => return Err(used()),
            other => other?,
        }
        Ok(self.issued(workload, Some(node)))
    }

    /// New certificates for a peer that showed its SVID or node credential. What goes into them
    /// comes from the CA's record of the node.
    ///
    /// # Errors
    /// [`Refusal`] `node_unknown`, `revoked`, `csr_invalid`, `too_many_certificates`.
    pub fn renew(&self, request: &Renew, peer: &Peer, now: SystemTime) -> Result<Issued, Refusal> {
        let _records = self.records();
        let now_ms = unix_ms(now);
        let mut node = self.book.node(&peer.node)?.ok_or_else(|| {
            Refusal::new(
                "node_unknown",
                format!("control has no record of node {}; join again", peer.node),
            )
        })?;
        self.check_revoked(peer)?;
        node.certificates.retain(|c| c.not_after_ms > now_ms);
        if node.certificates.len() >= CERTIFICATES_MAX {
            return Err(Refusal::new(
                "too_many_certificates",
                format!(
                    "node {} holds {CERTIFICATES_MAX} certificates that have not expired; look why it asks so often",
                    peer.node
                ),
            ));
        }
        let workload = self.sign_workload(&request.workload_csr, &node.binding, now)?;
        let credential = request
            .node_csr
            .as_deref()
            .map(|csr| self.sign_node(csr, &node.binding, now))
            .transpose()?;
        node.certificates.push(record(&workload, "workload", now));
        if let Some(credential) = &credential {
            node.certificates.push(record(credential, "node", now));
        }
        self.book.put_node(&node)?;
        Ok(self.issued(workload, credential))
    }

    /// Refuses a revoked certificate.
    ///
    /// # Errors
    /// [`Refusal`] `revoked`.
    pub fn check_revoked(&self, peer: &Peer) -> Result<(), Refusal> {
        let revoked = self.book.revocations()?;
        if revoked.iter().any(|r| r.serial == peer.serial) {
            return Err(Refusal::new(
                "revoked",
                format!("certificate {} of {} is revoked", peer.serial, peer.node),
            ));
        }
        Ok(())
    }

    /// Revokes every certificate of `node` that has not expired and forgets the node, so that it
    /// must join again. Returns what was revoked.
    ///
    /// # Errors
    /// [`Refusal`] `node_unknown`.
    pub fn revoke(
        &self,
        node: &NodeId,
        who: &str,
        now: SystemTime,
    ) -> Result<Vec<Revocation>, Refusal> {
        let _records = self.records();
        let now_ms = unix_ms(now);
        let mut record = self.book.node(node)?.ok_or_else(|| {
            Refusal::new("node_unknown", format!("no node {node} has ever joined"))
        })?;
        let live = record.certificates.drain(..);
        let revoked: Vec<Revocation> = live
            .filter(|c| c.not_after_ms > now_ms)
            .map(|c| Revocation {
                serial: c.serial,
                node: node.clone(),
                when_ms: now_ms,
                who: who.to_owned(),
                not_after_ms: c.not_after_ms,
            })
            .collect();
        // Revocations first: a crash in between leaves a node that is revoked and known.
        self.book.revoke(&revoked, now_ms)?;
        self.book.put_node(&record)?;
        Ok(revoked)
    }

    fn sign_workload(
        &self,
        csr: &[u8],
        binding: &Binding,
        now: SystemTime,
    ) -> Result<Signed, Refusal> {
        let id = SpiffeId::workload(
            self.authority.trust_domain(),
            &binding.namespace,
            &binding.service_account,
        )
        .map_err(|e| Refusal::new("binding_invalid", e.to_string()))?;
        let leaf = Leaf::Workload {
            id,
            node: binding.node.clone(),
            attributes: binding.attributes(),
        };
        Ok(self.ca().sign(csr, &leaf, self.lives.workload, now)?)
    }

    fn sign_node(&self, csr: &[u8], binding: &Binding, now: SystemTime) -> Result<Signed, Refusal> {
        let leaf = Leaf::Node {
            node: binding.node.clone(),
        };
        Ok(self.ca().sign(csr, &leaf, self.lives.node, now)?)
    }

    fn issued(&self, workload: Signed, node: Option<Signed>) -> Issued {
        Issued {
            workload_chain: workload.chain,
            node_chain: node.map(|n| n.chain).unwrap_or_default(),
            roots: self.authority.trusted(),
        }
    }
}

fn record(signed: &Signed, purpose: &str, now: SystemTime) -> CertificateRecord {
    CertificateRecord {
        serial: signed.serial.clone(),
        purpose: purpose.to_owned(),
        issued_ms: unix_ms(now),
        not_after_ms: unix_ms(signed.not_after),
    }
}

fn check_binding(binding: &Binding, trust_domain: &str) -> Result<(), Refusal> {
    let invalid = |why: String| Refusal::new("binding_invalid", why);
    let shown = |e: ringmesh_wire::WireError| invalid(e.to_string());
    binding.node.validate().map_err(shown)?;
    check_label("service", &binding.service).map_err(shown)?;
    check_label("namespace", &binding.namespace).map_err(shown)?;
    binding.attributes().to_bytes().map_err(shown)?;
    SpiffeId::workload(trust_domain, &binding.namespace, &binding.service_account)
        .map_err(shown)?;
    SpiffeId::parse(&format!("spiffe://{trust_domain}/node/{}", binding.node)).map_err(shown)?;
    // The node's name becomes a DNS name in its certificate: it must not be control's own, nor a
    // name that a sidecar asks another for.
    let reserved = binding.node.0.to_ascii_lowercase();
    if reserved == "ringmesh" || reserved.ends_with(".ringmesh") {
        return Err(invalid(format!(
            "node {}: names under .ringmesh are reserved",
            binding.node
        )));
    }
    Ok(())
}
