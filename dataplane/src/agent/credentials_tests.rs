use std::time::Duration;

use rcgen::{BasicConstraints, CertifiedIssuer, IsCa, SanType};

use super::*;

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a CA would do with the request, for `life` from now.
fn sign(
    ca: &CertifiedIssuer<'static, KeyPair>,
    csr: &[u8],
    uri: &str,
    life: Duration,
) -> Vec<Vec<u8>> {
    let csr = rcgen::CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
    let mut params = csr.params;
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + life).into();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let signed = params.signed_by(&csr.public_key, ca).unwrap();
    vec![signed.der().to_vec()]
}

const SVID: &str = "spiffe://mesh.local/ns/default/sa/reviews";
const NODE: &str = "spiffe://mesh.local/node/reviews-v3-1";
const HOUR: Duration = Duration::from_secs(3_600);

fn enrolled(dir: &Path, svid_life: Duration) -> Credentials {
    let ca = ca();
    let (workload, node) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
    let issued = Issued {
        workload_chain: sign(&ca, &workload.csr, SVID, svid_life),
        node_chain: sign(&ca, &node.csr, NODE, HOUR),
        roots: vec![ca.der().to_vec()],
    };
    let mut credentials = Credentials::default();
    credentials
        .accept(&issued, &workload, Some(&node), dir, UnixMs::now())
        .unwrap();
    credentials
}

#[test]
fn what_was_issued_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = enrolled(dir.path(), HOUR);
    let (after, complaints) = Credentials::load(dir.path());
    assert_eq!(complaints, Vec::<String>::new());
    let (a, b) = (before.svid.unwrap(), after.svid.as_ref().unwrap());
    assert_eq!(a.chain, b.chain);
    assert_eq!(a.key, b.key);
    assert_eq!(b.spiffe.as_str(), SVID);
    assert_eq!(a.life.expires, b.life.expires);
    assert_eq!(before.roots, after.roots);
    let shown = after.for_control(UnixMs::now()).unwrap();
    assert_eq!(shown.spiffe.as_str(), SVID);
    // Half of an hour, seen from the file's time: not from a notBefore dated back.
    let gap = a.life.obtained.0.abs_diff(b.life.obtained.0);
    assert!(gap < 60_000, "{gap}");
}

#[test]
fn an_expired_svid_gives_way_to_the_node_credential() {
    let dir = tempfile::tempdir().unwrap();
    let credentials = enrolled(dir.path(), Duration::from_secs(30));
    let later = UnixMs(UnixMs::now().0 + 31_000);
    let shown = credentials.for_control(later).unwrap();
    assert_eq!(shown.spiffe.as_str(), NODE);
    let much_later = UnixMs(later.0 + 4_000_000);
    assert!(credentials.for_control(much_later).is_none());
}

/// Peers refuse the chain from then on, whatever the leaf says.
#[test]
fn an_identity_ends_with_the_first_certificate_of_its_chain() {
    let request = KeyRequest::new().unwrap();
    let (short, long) = (Duration::from_secs(600), HOUR);
    let leaf = |life| sign(&ca(), &request.csr, SVID, life).remove(0);
    let above = |life| sign(&ca(), &KeyRequest::new().unwrap().csr, SVID, life).remove(0);
    let now = UnixMs::now();
    for (leaf, above) in [(leaf(short), above(long)), (leaf(long), above(short))] {
        let identity = request.fulfil(&[leaf, above], now).unwrap();
        let left = now.until(identity.life.expires);
        assert!(left <= short, "{left:?}");
        assert!(left > short - Duration::from_secs(60), "{left:?}");
        assert!(!identity.usable(UnixMs(now.0 + 601_000)));
    }
    let broken = request.fulfil(&[leaf(short), b"no certificate".to_vec()], now);
    assert!(broken.unwrap_err().contains("does not parse"));
}

#[test]
fn damage_is_told_and_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    enrolled(dir.path(), HOUR);
    // The key of another renewal beside this certificate: a crash between two files.
    std::fs::copy(dir.path().join("node.key"), dir.path().join("svid.key")).unwrap();
    let (credentials, complaints) = Credentials::load(dir.path());
    assert!(credentials.svid.is_none());
    assert!(credentials.node.is_some());
    assert!(complaints[0].contains("another key"), "{complaints:?}");

    std::fs::write(
        dir.path().join("node.pem"),
        b"-----BEGIN CERTIFICATE-----\nAAAA",
    )
    .unwrap();
    std::fs::write(dir.path().join("node.key"), b"\xff\xfe").unwrap();
    let (credentials, complaints) = Credentials::load(dir.path());
    assert!(credentials.node.is_none());
    assert_eq!(complaints.len(), 2, "{complaints:?}");
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca();
    let (asked, other) = (KeyRequest::new().unwrap(), KeyRequest::new().unwrap());
    let issued = Issued {
        workload_chain: sign(&ca, &other.csr, SVID, HOUR),
        node_chain: Vec::new(),
        roots: vec![ca.der().to_vec()],
    };
    let mut credentials = Credentials::default();
    let why = credentials
        .accept(&issued, &asked, None, dir.path(), UnixMs::now())
        .unwrap_err();
    assert!(why.contains("another key"), "{why}");
    assert!(credentials.svid.is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A certificate that cannot be written is in force all the same, and is written once there is room.
#[test]
fn a_state_directory_that_cannot_be_written_costs_no_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let mut credentials = enrolled(&gone, HOUR);
    assert!(credentials.svid.is_some() && credentials.node.is_some());
    assert!(credentials.is_unsaved());
    assert!(credentials.save(&gone).is_err());
    std::fs::create_dir(&gone).unwrap();
    credentials.save(&gone).unwrap();
    assert!(!credentials.is_unsaved());
    let (again, complaints) = Credentials::load(&gone);
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(again.svid.is_some() && again.node.is_some());
}

#[test]
fn pem_is_what_others_read() {
    for length in [0, 1, 2, 3, 47, 48, 49, 500] {
        let der: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let text = pem_block("CERTIFICATE", &der);
        let back = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        assert_eq!(back.as_ref(), der);
    }
}
