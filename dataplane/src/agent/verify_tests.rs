use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use ringmesh_wire::CONTROL_SERVER_NAME;

use super::*;

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(
    by: &CertifiedIssuer<'static, KeyPair>,
    dns: &str,
    uris: &[&str],
) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
    for uri in uris {
        let uri = (*uri).try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
    }
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, by).unwrap().der().clone()
}

fn verify(
    anchor: Anchor,
    leaf: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
) -> Result<(), String> {
    let name = ServerName::try_from(CONTROL_SERVER_NAME).unwrap();
    ControlVerifier::new(anchor)
        .verify_server_cert(leaf, chain, &name, &[], UnixTime::now())
        .map(drop)
        .map_err(|error| error.to_string())
}

const CONTROL: &str = "spiffe://mesh.local/control";

#[test]
fn the_hash_is_sha256() {
    let hex: String = sha256(b"abc").iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn the_pinned_root_makes_the_chain_good_and_no_other_does() {
    let (root, other) = (ca("root"), ca("root"));
    let good = leaf(&root, CONTROL_SERVER_NAME, &[CONTROL]);
    let pin = || Anchor::Pin(sha256(root.der()));
    assert_eq!(verify(pin(), &good, &[root.der().clone()]), Ok(()));

    // The pinned certificate is not in the chain at all.
    let why = verify(pin(), &good, &[other.der().clone()]).unwrap_err();
    assert!(why.contains("root_pin"), "{why}");
    let why = verify(pin(), &good, &[]).unwrap_err();
    assert!(why.contains("root_pin"), "{why}");

    // It is in the chain, but the leaf is somebody else's.
    let forged = leaf(&other, CONTROL_SERVER_NAME, &[CONTROL]);
    let chain = [other.der().clone(), root.der().clone()];
    assert!(verify(pin(), &forged, &chain).is_err());
}

#[test]
fn stored_roots_count_later() {
    let (root, other) = (ca("root"), ca("other"));
    let good = leaf(&root, CONTROL_SERVER_NAME, &[CONTROL]);
    let trust = |root: &CertifiedIssuer<'static, KeyPair>| Anchor::Roots(vec![root.der().clone()]);
    assert_eq!(verify(trust(&root), &good, &[]), Ok(()));
    assert!(verify(trust(&other), &good, &[root.der().clone()]).is_err());
    assert!(verify(Anchor::Roots(Vec::new()), &good, &[]).is_err());
}

#[test]
fn a_workload_cannot_pass_for_control() {
    let root = ca("root");
    let roots = || Anchor::Roots(vec![root.der().clone()]);
    let names: [&[&str]; 5] = [
        &["spiffe://mesh.local/ns/default/sa/reviews"],
        &["spiffe://mesh.local/ns/default/sa/control"],
        &["spiffe://mesh.local/node/control"],
        &[CONTROL, "spiffe://mesh.local/ns/default/sa/reviews"],
        &[],
    ];
    for uris in names {
        let bad = leaf(&root, CONTROL_SERVER_NAME, uris);
        let why = verify(roots(), &bad, &[]).unwrap_err();
        assert!(why.contains("identity"), "{uris:?}: {why}");
    }
    let bad = leaf(&root, "reviews-v1", &[CONTROL]);
    assert!(verify(roots(), &bad, &[]).is_err(), "wrong DNS name");
}

#[test]
fn an_expired_certificate_is_refused() {
    let root = ca("root");
    let mut params = CertificateParams::new(vec![CONTROL_SERVER_NAME.to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::URI(CONTROL.try_into().unwrap()));
    params.not_after = params.not_before + Duration::from_secs(60);
    let key = KeyPair::generate().unwrap();
    let old = params.signed_by(&key, &root).unwrap().der().clone();
    let why = verify(Anchor::Roots(vec![root.der().clone()]), &old, &[]).unwrap_err();
    assert!(why.to_lowercase().contains("expired"), "{why}");
}
