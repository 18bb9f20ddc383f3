use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use ringmesh_wire::{Enroll, Issued, NodeId, Renew};

use super::issuer::REPEAT_MS;
use super::*;
use crate::store::{Binding, Book, Disk};

fn csr() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    // A request that asks for more than it may have: nothing of it may come through.
    params.subject_alt_names = vec![rcgen::SanType::DnsName(
        "control.ringmesh".try_into().unwrap(),
    )];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap();
    request.der().to_vec()
}

fn binding(node: &str) -> Binding {
    Binding {
        node: NodeId(node.into()),
        namespace: "default".into(),
        service_account: "reviews-sa".into(),
        service: "reviews".into(),
        labels: BTreeMap::from([("version".to_owned(), "v3".to_owned())]),
    }
}

struct House {
    dir: tempfile::TempDir,
    issuer: Issuer,
    now: SystemTime,
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ca = Arc::new(
        Authority::open(
            &dir.path().join("ca"),
            "mesh.local",
            &Passphrase::default(),
            now,
        )
        .unwrap(),
    );
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    House {
        dir,
        issuer: Issuer::new(ca, book, Lives::default()),
        now,
    }
}

impl House {
    fn token(&self, node: &str, life: Duration) -> JoinToken {
        let made = self
            .issuer
            .create_token(binding(node), life, "root", self.now);
        made.unwrap()
    }

    fn enroll(&self, token: &JoinToken, node: &str, at: SystemTime) -> Result<Issued, Refusal> {
        let request = Enroll {
            token_id: token.id.clone(),
            token_secret: token.secret.clone(),
            node: NodeId(node.into()),
            workload_csr: csr(),
            node_csr: csr(),
        };
        self.issuer.enroll(&request, at)
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_workload_certificate_says_what_the_token_says_and_nothing_the_request_asked() {
    let house = house();
    let token = house.token("reviews-v3-1", DAY);
    let issued = house.enroll(&token, "reviews-v3-1", house.now).unwrap();
    let leaf = &issued.workload_chain[0];
    let peer = Peer::from_der(leaf).unwrap();
    assert_eq!(peer.node, NodeId("reviews-v3-1".into()));
    assert_eq!(
        peer.id.as_str(),
        "spiffe://mesh.local/ns/default/sa/reviews-sa"
    );
    let expected = Purpose::Workload {
        attributes: binding("x").attributes(),
    };
    assert_eq!(peer.purpose, expected);

    let (_, cert) = x509_parser::parse_x509_certificate(leaf).unwrap();
    let basic = cert.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && !basic.value.ca);
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
    let extended = cert.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && extended.value.client_auth);
    let san = cert.subject_alternative_name().unwrap().unwrap();
    assert_eq!(san.value.general_names.len(), 2, "one URI, one DNS name");
    let attributes = cert
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == "1.3.6.1.4.1.58888.1.1")
        .unwrap();
    assert!(!attributes.critical);
    assert_eq!(
        attributes.value,
        b"service=reviews.default\nlabel.version=v3\n"
    );
    let seconds = |t: SystemTime| (unix_ms(t) / 1_000) as i64;
    let validity = cert.validity();
    assert_eq!(validity.not_before.timestamp(), seconds(house.now) - 60);
    assert_eq!(validity.not_after.timestamp(), seconds(house.now + DAY));
    assert_eq!(cert.raw_serial().len(), 16);

    let node = Peer::from_der(&issued.node_chain[0]).unwrap();
    assert_eq!(node.id.as_str(), "spiffe://mesh.local/node/reviews-v3-1");
    assert_eq!(node.purpose, Purpose::Node);
}

#[test]
fn openssl_verifies_the_chain_strictly() {
    if !has_openssl() {
        return;
    }
    let house = house();
    let token = house.token("n1", DAY);
    let issued = house.enroll(&token, "n1", house.now).unwrap();
    let pem = |name: &str, der: &[u8]| {
        let path = house.dir.path().join(name);
        std::fs::write(&path, pem(der)).unwrap();
        path
    };
    let root = pem("root.pem", &issued.roots[0]);
    let sub = pem("sub.pem", &issued.workload_chain[1]);
    for (name, chain) in [
        ("workload", &issued.workload_chain),
        ("node", &issued.node_chain),
    ] {
        let leaf = pem("leaf.pem", &chain[0]);
        let out = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .arg(&root)
            .arg("-untrusted")
            .arg(&sub)
            .arg(&leaf)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.success(), "{name}: {said}");
    }
}

/// Whether openssl takes `leaf` strictly, for a client, under `roots` by way of `between`.
fn strictly(dir: &Path, leaf: &[u8], between: &[Vec<u8>], roots: &[&[u8]]) -> String {
    let put = |name: &str, certs: &[&[u8]]| {
        let path = dir.join(name);
        let text: String = certs.iter().map(|der| pem(der)).collect();
        std::fs::write(&path, text).unwrap();
        path
    };
    let between: Vec<&[u8]> = between.iter().map(Vec::as_slice).collect();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args([
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-no-CApath",
        "-no-CAstore",
    ]);
    openssl.arg("-CAfile").arg(put("roots-of-test.pem", roots));
    if !between.is_empty() {
        openssl
            .arg("-untrusted")
            .arg(put("between-of-test.pem", &between));
    }
    let out = openssl
        .arg(put("leaf-of-test.pem", &[leaf]))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    match out.status.success() {
        true => String::new(),
        false => said,
    }
}

fn good(chain: &[Vec<u8>], root: &[u8], now: SystemTime) -> Result<(), rustls::Error> {
    let chain: Vec<_> = chain.iter().map(|der| der.as_slice().into()).collect();
    verify_chain(&chain, &[root.to_vec().into()], now)
}

fn has_openssl() -> bool {
    let has = std::process::Command::new("openssl")
        .arg("version")
        .output()
        .is_ok();
    if !has {
        eprintln!("skipped: openssl is not installed");
    }
    has
}

#[test]
fn one_root_takes_the_others_place_and_every_chain_stays_good() {
    if !has_openssl() {
        return;
    }
    let house = house();
    let dir = house.dir.path();
    let authority = house.issuer.authority();
    let skew = Duration::from_secs(60);
    let step = |at: SystemTime, everywhere: bool| {
        let facts = house.issuer.facts(at, everywhere).unwrap();
        authority.step(&facts, skew, at).unwrap()
    };
    let old_token = house.token("n1", DAY * 300);
    let unused = house.token("n2", DAY * 300);
    let old = house.enroll(&old_token, "n1", house.now).unwrap();
    let old_root = old.roots[0].clone();
    authority.announce(house.now).unwrap().unwrap();
    assert!(
        authority.announce(house.now).unwrap().is_none(),
        "one at a time"
    );
    let [first, new_root] = authority.trusted().try_into().unwrap();
    assert_eq!(first, old_root);

    // Announced: the old one signs, and what is issued brings both roots.
    let peer = Peer::from_der(&old.workload_chain[0]).unwrap();
    let renew = Renew {
        workload_csr: csr(),
        node_csr: None,
    };
    let during = house.issuer.renew(&renew, &peer, house.now).unwrap();
    assert_eq!(during.roots.len(), 2);
    assert_eq!(
        strictly(
            dir,
            &during.workload_chain[0],
            &during.workload_chain[1..],
            &[&old_root]
        ),
        ""
    );
    assert!(step(house.now, false).is_none());
    // It survives a restart in between.
    let again = Authority::open(
        &dir.join("ca"),
        "mesh.local",
        &Passphrase::default(),
        house.now,
    )
    .unwrap();
    assert_eq!(again.trusted(), authority.trusted());

    let switched = house.now + Duration::from_secs(5);
    step(switched, true).unwrap();
    assert_eq!(authority.trusted(), [new_root.clone(), old_root.clone()]);
    let later = switched + Duration::from_millis(1);
    let after = house.issuer.renew(&renew, &peer, later).unwrap();
    assert_eq!(
        strictly(
            dir,
            &after.workload_chain[0],
            &after.workload_chain[1..],
            &[&new_root]
        ),
        ""
    );
    assert_ne!(
        strictly(
            dir,
            &after.workload_chain[0],
            &after.workload_chain[1..],
            &[&old_root]
        ),
        ""
    );
    // Control itself is recognised by whoever knows only one of them: a machine that was off, and a
    // token that was made before.
    let (own, _) = house.issuer.ca().own(DAY, switched).unwrap();
    for root in [&old_root, &new_root] {
        good(&own.chain, root, switched).unwrap();
        assert!(
            own.chain.contains(root),
            "a token's pin is found in the chain"
        );
    }
    let stranger = Ca::open(
        &dir.join("other"),
        "mesh.local",
        &Passphrase::default(),
        house.now,
    )
    .unwrap();
    assert!(good(&own.chain, stranger.root_der(), switched).is_err());
    // openssl does not look for a second way; each of the two is good by itself.
    let [leaf, sub, _, bridge, _] = &own.chain[..] else {
        panic!("leaf, intermediate, root, bridge, root of before");
    };
    assert_eq!(
        strictly(dir, leaf, std::slice::from_ref(bridge), &[&old_root]),
        ""
    );
    assert_eq!(
        strictly(dir, leaf, std::slice::from_ref(sub), &[&new_root]),
        ""
    );
    house.enroll(&unused, "n2", later).unwrap();

    // Withdrawn when the last SVID under it has ended, known to the link for as long as node
    // credentials.
    let svids_end = house.now + Lives::default().workload + skew;
    assert!(step(svids_end - Duration::from_secs(2), true).is_none());
    step(svids_end, false).unwrap();
    assert_eq!(authority.trusted(), std::slice::from_ref(&new_root));
    assert_eq!(authority.known(), [new_root.clone(), old_root.clone()]);
    let nodes_end = house.now + Lives::default().node + skew;
    assert!(step(nodes_end - Duration::from_secs(2), false).is_none());
    step(nodes_end, false).unwrap();
    assert_eq!(authority.known(), std::slice::from_ref(&new_root));
    assert!(
        !dir.join("ca/root.key").exists(),
        "a key that signs nothing is gone"
    );
    let again = Authority::open(
        &dir.join("ca"),
        "mesh.local",
        &Passphrase::default(),
        switched,
    )
    .unwrap();
    assert_eq!(again.issuing().root_der(), new_root);
}

/// A CA that others run: a root and an intermediate, made by openssl.
fn foreign_ca(dir: &Path, uri: &str) -> Given {
    let run = |args: &[&str]| {
        let out = std::process::Command::new("openssl")
            .args(args)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let ext = format!(
        "[root]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\n[sub]\nbasicConstraints=critical,CA:TRUE,pathlen:0\n\
         keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n\
         authorityKeyIdentifier=keyid\nsubjectAltName=URI:{uri}\n[leaf]\n\
         basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    );
    std::fs::write(dir.join("ext.cnf"), ext).unwrap();
    for name in ["root", "sub", "leaf"] {
        run(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            &format!("{name}.key"),
        ]);
        run(&[
            "req",
            "-new",
            "-key",
            &format!("{name}.key"),
            "-subj",
            &format!("/O=Shop/CN={name}"),
            "-out",
            &format!("{name}.csr"),
        ]);
    }
    run(&[
        "x509",
        "-req",
        "-in",
        "root.csr",
        "-signkey",
        "root.key",
        "-days",
        "30",
        "-extfile",
        "ext.cnf",
        "-extensions",
        "root",
        "-out",
        "root.pem",
    ]);
    for name in ["sub", "leaf"] {
        run(&[
            "x509",
            "-req",
            "-in",
            &format!("{name}.csr"),
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "20",
            "-extfile",
            "ext.cnf",
            "-extensions",
            name,
            "-out",
            &format!("{name}.pem"),
        ]);
    }
    Given {
        certificate: dir.join("sub.pem"),
        key: dir.join("sub.key"),
        roots: dir.join("root.pem"),
    }
}

#[test]
fn a_ca_of_somebody_else_signs_and_its_chain_is_good() {
    if !has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let given = foreign_ca(dir.path(), "spiffe://mesh.local");
    let at = |name: &str| dir.path().join(name);
    let now = SystemTime::now();
    let authority = Authority::given(&given, "mesh.local", &Passphrase::default(), now).unwrap();
    let book = Book::new(Arc::new(Disk::in_memory().unwrap()));
    let house = House {
        dir: tempfile::tempdir().unwrap(),
        issuer: Issuer::new(Arc::new(authority), book, Lives::default()),
        now,
    };
    let token = house.token("n1", DAY);
    let issued = house.enroll(&token, "n1", now).unwrap();
    assert_eq!(token.root_sha256, sha256_hex(&issued.roots[0]));
    for chain in [&issued.workload_chain, &issued.node_chain] {
        assert_eq!(chain.len(), 2, "leaf and signing certificate");
        assert_eq!(
            strictly(dir.path(), &chain[0], &chain[1..], &[&issued.roots[0]]),
            ""
        );
    }
    let refused = house.issuer.authority().announce(now);
    assert!(matches!(refused, Err(CaError::Given)));

    // A root that signs by itself; its chain is the leaf alone.
    let alone = Given {
        certificate: at("root.pem"),
        key: at("root.key"),
        ..given.clone()
    };
    let ca = Authority::given(&alone, "mesh.local", &Passphrase::default(), now)
        .unwrap()
        .issuing();
    let (own, _) = ca.own(DAY, now).unwrap();
    assert_eq!(own.chain.len(), 2, "leaf and root");

    // What is wrong is told by file.
    let other = tempfile::tempdir().unwrap();
    let foreign = foreign_ca(other.path(), "spiffe://other.domain");
    let wrong = |change: &dyn Fn(&mut Given)| {
        let mut given = given.clone();
        change(&mut given);
        Authority::given(&given, "mesh.local", &Passphrase::default(), now)
            .unwrap_err()
            .to_string()
    };
    let told = wrong(&|given| given.key = at("root.key"));
    assert!(told.contains("root.key: is not the key of"), "{told}");
    let told = wrong(&|given| given.roots = other.path().join("root.pem"));
    assert!(
        told.contains("sub.pem: what it signs is not good under"),
        "{told}"
    );
    let told = wrong(&|given| (given.certificate, given.key) = (at("leaf.pem"), at("leaf.key")));
    assert!(
        told.contains("leaf.pem: the first certificate is not a CA's"),
        "{told}"
    );
    let told = wrong(&|given| given.certificate = at("sub.key"));
    assert!(told.contains("sub.key: holds no certificate"), "{told}");
    let told = wrong(&|given| given.key = at("sub.pem"));
    assert!(told.contains("openssl pkcs8"), "{told}");
    let told = wrong(&|given| given.roots = at("nothing.pem"));
    assert!(told.contains("nothing.pem: "), "{told}");
    // Read again, they are looked at as at start, and what is wrong changes nothing.
    let held = Authority::given(&given, "mesh.local", &Passphrase::default(), now).unwrap();
    let before = (
        held.trusted(),
        held.issuing().own(DAY, now).unwrap().0.chain.len(),
    );
    let put = |from: &Path, to: &str| std::fs::copy(from, at(to)).unwrap();
    let good = dir.path().join("kept.pem");
    std::fs::rename(at("sub.pem"), &good).unwrap();
    for (wrong, told) in [
        (at("nothing.pem"), "sub.pem: "),
        (at("leaf.pem"), "the first certificate is not a CA's"),
        (
            other.path().join("sub.pem"),
            "is made for spiffe://other.domain",
        ),
    ] {
        if wrong.exists() {
            put(&wrong, "sub.pem");
        }
        let error = held.read_again(now).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(held.trusted(), before.0);
    }
    put(&good, "sub.pem");
    assert!(held.read_again(now).unwrap());
    assert_eq!(held.trusted(), before.0);
    // Another root signs when it has been told, and not before.
    let new = tempfile::tempdir().unwrap();
    foreign_ca(new.path(), "spiffe://mesh.local");
    let now = SystemTime::now();
    let old_root = std::fs::read_to_string(at("root.pem")).unwrap();
    let new_root = std::fs::read_to_string(new.path().join("root.pem")).unwrap();
    for name in ["sub.pem", "sub.key"] {
        put(&new.path().join(name), name);
    }
    std::fs::write(at("root.pem"), format!("{new_root}{old_root}")).unwrap();
    let error = held.read_again(now).unwrap_err().to_string();
    assert!(
        error.contains("root.pem: the first root is not in force"),
        "{error}"
    );
    std::fs::write(at("root.pem"), format!("{old_root}{new_root}")).unwrap();
    assert!(held.read_again(now).unwrap());
    std::fs::write(at("root.pem"), format!("{new_root}{old_root}")).unwrap();
    assert!(held.read_again(now).unwrap());
    assert_eq!(held.issuing().root_der(), held.trusted()[0]);
    assert_ne!(held.trusted()[0], before.0[0]);
    // Our own CA has no such files.
    let own = tempfile::tempdir().unwrap();
    let own = Authority::open(own.path(), "mesh.local", &Passphrase::default(), now).unwrap();
    assert!(!own.read_again(now).unwrap());

    let domain = Authority::given(&foreign, "mesh.local", &Passphrase::default(), now);
    let told = domain.unwrap_err().to_string();
    assert!(told.contains("is made for spiffe://other.domain"), "{told}");
}

fn pem(der: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("openssl")
        .args(["x509", "-inform", "DER", "-outform", "PEM"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(der).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn tokens_used_wrongly_are_refused_with_the_reason() {
    let house = house();
    let good = house.token("n1", DAY);
    let refused = |token: &JoinToken, node: &str, at: SystemTime| {
        house.enroll(token, node, at).unwrap_err().code
    };
    let mut other_id = good.clone();
    other_id.id = "0".repeat(16);
    assert_eq!(refused(&other_id, "n1", house.now), "token_unknown");
    let mut guessed = good.clone();
    guessed.secret = "0".repeat(64);
    assert_eq!(refused(&guessed, "n1", house.now), "token_unknown");
    assert_eq!(refused(&good, "n2", house.now), "token_node_mismatch");
    assert_eq!(refused(&good, "n1", house.now + DAY), "token_expired");
    house.enroll(&good, "n1", house.now).unwrap();
    assert_eq!(refused(&good, "n1", house.now), "token_used");
}

#[test]
fn an_answer_that_was_lost_is_given_again_to_who_asked_and_for_a_while() {
    let house = house();
    let token = house.token("n1", Duration::from_secs(1));
    let request = Enroll {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        node: NodeId("n1".into()),
        workload_csr: csr(),
        node_csr: csr(),
    };
    let refused = |request: &Enroll, at| house.issuer.enroll(request, at).unwrap_err().code;
    let first = house.issuer.enroll(&request, house.now).unwrap();
    // Also after the token has expired: it was used in time.
    let later = house.now + Duration::from_secs(500);
    let again = house.issuer.enroll(&request, later).unwrap();
    assert_ne!(first.workload_chain, again.workload_chain);
    let mut other = request.clone();
    other.workload_csr = csr();
    assert_eq!(refused(&other, later), "token_used");
    // Counted from the first use, not from the last.
    let too_late = house.now + Duration::from_millis(REPEAT_MS);
    assert_eq!(refused(&request, too_late), "token_used");
    let node = NodeId("n1".into());
    let revoked = house.issuer.revoke(&node, "root", later).unwrap();
    assert_eq!(revoked.len(), 4, "what was issued twice is revoked twice");
    assert_eq!(refused(&request, later), "token_used");
}

#[test]
fn a_refused_request_does_not_spend_the_token() {
    let house = house();
    let token = house.token("n1", DAY);
    let mut request = Enroll {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        node: NodeId("n1".into()),
        workload_csr: vec![0x30, 0x03, 1, 2, 3],
        node_csr: csr(),
    };
    let refused = house.issuer.enroll(&request, house.now).unwrap_err();
    assert_eq!(refused.code, "csr_invalid");
    // A request whose signature does not fit its key proves possession of nothing.
    let mut forged = csr();
    let last = forged.len() - 3;
    forged[last] ^= 0x55;
    request.workload_csr = forged;
    let refused = house.issuer.enroll(&request, house.now).unwrap_err();
    assert_eq!(refused.code, "csr_invalid");
    house.enroll(&token, "n1", house.now).unwrap();
}

#[test]
fn names_that_would_pass_for_control_get_no_token() {
    let house = house();
    for node in [
        "control.ringmesh",
        "Control.RINGMESH",
        "p80.reviews.default.ringmesh",
        "",
        "a b",
        "a/b",
    ] {
        let made = house
            .issuer
            .create_token(binding(node), DAY, "root", house.now);
        assert_eq!(made.unwrap_err().code, "binding_invalid", "{node:?}");
    }
}

#[test]
fn a_service_that_no_rule_could_name_gets_no_token() {
    let house = house();
    let make = |service: &str, namespace: &str| {
        let binding = Binding {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            ..binding("n1")
        };
        let made = house.issuer.create_token(binding, DAY, "root", house.now);
        made.map(|_| ()).map_err(|refusal| refusal.code)
    };
    for (service, namespace) in [
        ("Reviews", "default"),
        ("reviews.v1", "default"),
        ("-reviews", "default"),
        ("reviews", "Default"),
        ("reviews", "a.b"),
        ("reviews", ""),
    ] {
        assert_eq!(
            make(service, namespace),
            Err("binding_invalid"),
            "{service}.{namespace}"
        );
    }
    assert_eq!(make("my_reviews-2", "team_a"), Ok(()));
}

#[test]
fn renewal_keeps_what_the_token_bound_and_revocation_ends_it() {
    let house = house();
    let token = house.token("n1", DAY);
    let issued = house.enroll(&token, "n1", house.now).unwrap();
    let by_node = Peer::from_der(&issued.node_chain[0]).unwrap();
    let by_svid = Peer::from_der(&issued.workload_chain[0]).unwrap();
    let renew = Renew {
        workload_csr: csr(),
        node_csr: None,
    };
    let later = house.now + DAY * 30;
    let renewed = house.issuer.renew(&renew, &by_node, later).unwrap();
    let fresh = Peer::from_der(&renewed.workload_chain[0]).unwrap();
    assert_eq!(fresh.purpose, by_svid.purpose);
    assert_ne!(fresh.serial, by_svid.serial);
    assert!(renewed.node_chain.is_empty());

    let revoked = house
        .issuer
        .revoke(&NodeId("n1".into()), "root", later)
        .unwrap();
    let serials: Vec<&str> = revoked.iter().map(|r| r.serial.as_str()).collect();
    assert!(serials.contains(&by_node.serial.as_str()));
    assert!(serials.contains(&fresh.serial.as_str()));
    assert!(
        !serials.contains(&by_svid.serial.as_str()),
        "it had expired"
    );
    let refused = house.issuer.renew(&renew, &by_node, later).unwrap_err();
    assert_eq!(refused.code, "revoked");
    let mut stranger = by_node;
    stranger.node = NodeId("n9".into());
    let refused = house.issuer.renew(&renew, &stranger, later).unwrap_err();
    assert_eq!(refused.code, "node_unknown");
}

/// None of them may be missing on the record: a revocation would not reach it.
#[test]
fn certificates_issued_at_once_are_all_revoked() {
    let house = house();
    let token = house.token("n1", DAY);
    let issued = house.enroll(&token, "n1", house.now).unwrap();
    let peer = Peer::from_der(&issued.node_chain[0]).unwrap();
    let renewed: Vec<Issued> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    let renew = Renew {
                        workload_csr: csr(),
                        node_csr: Some(csr()),
                    };
                    house.issuer.renew(&renew, &peer, house.now).unwrap()
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let node = NodeId("n1".into());
    let revoked = house.issuer.revoke(&node, "root", house.now).unwrap();
    let chains = renewed
        .iter()
        .flat_map(|one| [&one.workload_chain, &one.node_chain]);
    for chain in chains {
        let serial = Peer::from_der(&chain[0]).unwrap().serial;
        assert!(revoked.iter().any(|r| r.serial == serial), "{serial}");
    }
}

#[test]
fn the_ca_survives_reopening_and_its_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let house = house();
    let dir = house.dir.path().join("ca");
    let again = Ca::open(&dir, "mesh.local", &Passphrase::default(), house.now).unwrap();
    assert_eq!(again.root_der(), house.issuer.ca().root_der());
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
    assert!(Ca::open(&dir, "other.domain", &Passphrase::default(), house.now).is_err());
    let much_later = house.now + DAY * 600;
    let renewed = Ca::open(&dir, "mesh.local", &Passphrase::default(), much_later).unwrap();
    let (own, _) = renewed.own(DAY, much_later).unwrap();
    assert_eq!(own.chain.len(), 3, "leaf, intermediate, root");
    let (_, sub) = x509_parser::parse_x509_certificate(&own.chain[1]).unwrap();
    assert!(
        sub.validity().not_after.timestamp() as u64 > unix_ms(much_later) / 1_000,
        "an intermediate near its end is replaced"
    );
}

fn ends(der: &[u8]) -> SystemTime {
    let (_, cert) = x509_parser::parse_x509_certificate(der).unwrap();
    let seconds = u64::try_from(cert.validity().not_after.timestamp()).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn nothing_outlives_what_signed_it() {
    let house = house();
    let ca = house.issuer.ca();
    let last = ca.ends().intermediate;
    assert!(last < ca.ends().root);
    let node = Leaf::Node {
        node: NodeId("n1".into()),
    };
    let signed = |life, at| ca.sign(&csr(), &node, life, at);
    // As long as there is room, the life asked for; then as long as the signer lives; then nothing.
    let whole = signed(DAY * 90, last - DAY * 91).unwrap();
    assert_eq!(ends(&whole.chain[0]), last - DAY);
    let cut = signed(DAY * 90, last - DAY * 30).unwrap();
    assert_eq!(ends(&cut.chain[0]), last);
    assert_eq!(
        cut.not_after, last,
        "records and revocations go by the same end"
    );
    assert!(matches!(signed(DAY, last), Err(CaError::Ended)));
    let (own, _) = ca.own(DAY * 90, last - DAY).unwrap();
    assert_eq!(own.not_after, last);
}

#[test]
fn an_intermediate_is_renewed_while_control_runs_and_what_the_old_one_signed_stays_good() {
    let house = house();
    let authority = house.issuer.authority();
    let old_root = authority.trusted().remove(0);
    let step = |at, everywhere| {
        let facts = house.issuer.facts(at, everywhere).unwrap();
        authority.step(&facts, DAY, at).unwrap().unwrap()
    };
    // Two roots, so that there is a bridge that must follow.
    authority.announce(house.now).unwrap().unwrap();
    step(house.now, true);
    let root = authority.trusted().remove(0);
    let end = authority.issuing().ends().intermediate;

    let early = end - DAY * 181;
    assert!(!authority.renew_intermediate(early).unwrap());
    let late = end - DAY * 179;
    let before = authority.issuing().own(DAY * 90, late).unwrap().0;
    assert!(authority.renew_intermediate(late).unwrap());
    assert!(!authority.renew_intermediate(late).unwrap(), "once");
    let after = authority.issuing().own(DAY * 90, late).unwrap().0;
    assert_ne!(before.chain[1], after.chain[1]);
    assert!(ends(&after.chain[1]) > late + DAY * 700);
    for at in [late, late + DAY * 89] {
        good(&before.chain, &root, at).unwrap();
        good(&after.chain, &root, at).unwrap();
        good(&after.chain, &old_root, at).unwrap();
    }
    // A restart finds the same.
    let again = Authority::open(
        &house.dir.path().join("ca"),
        "mesh.local",
        &Passphrase::default(),
        late,
    )
    .unwrap();
    assert_eq!(
        again.issuing().own(DAY, late).unwrap().0.chain[1..],
        after.chain[1..]
    );

    // Near the root's end a new one is no gain: it would end with the root, as this one does.
    let root_end = authority.issuing().ends().root;
    let near = root_end - DAY * 100;
    assert!(authority.renew_intermediate(near).unwrap());
    assert_eq!(authority.issuing().ends().intermediate, root_end);
    assert!(!authority.renew_intermediate(near + DAY).unwrap());
}

#[test]
fn a_ca_that_was_given_is_told_to_end_soon() {
    if !has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let given = foreign_ca(dir.path(), "spiffe://mesh.local");
    let at = |name: &str| dir.path().join(name);
    let now = SystemTime::now();
    let authority = Authority::given(&given, "mesh.local", &Passphrase::default(), now).unwrap();
    let end = ends(&certificate_of(&at("sub.pem")));
    assert_eq!(authority.issuing().ends().intermediate, end);
    assert!(authority.issuing().ends().root > end);
    // Made for 20 days.
    assert_eq!(authority.given_ends_in(DAY, end - DAY * 5), None);
    assert_eq!(authority.given_ends_in(DAY, end - DAY * 3), Some(DAY * 3));
    let life = DAY * 6;
    assert_eq!(
        authority.given_ends_in(life, end - DAY * 5),
        Some(DAY * 5),
        "what it signs is cut short already"
    );
    assert_eq!(
        authority.given_ends_in(DAY, end + DAY),
        Some(Duration::ZERO)
    );
    let own = Authority::open(
        &dir.path().join("own"),
        "mesh.local",
        &Passphrase::default(),
        now,
    )
    .unwrap();
    assert_eq!(own.given_ends_in(DAY, now + DAY * 10_000), None);
    assert!(!authority.renew_intermediate(end).unwrap());
}

fn write_passphrase(path: &Path, text: &str, mode: u32) -> Passphrase {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    Passphrase::file(path.to_owned())
}

fn is_sealed(key: &Path) -> bool {
    let text = std::fs::read_to_string(key).unwrap();
    text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
        && !text.contains("BEGIN PRIVATE KEY")
}

#[test]
fn keys_of_our_own_ca_are_put_under_a_passphrase_and_open_by_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let now = SystemTime::now();
    let open = |passphrase: &Passphrase| Authority::open(&ca, "mesh.local", passphrase, now);
    let told = |passphrase: &Passphrase| open(passphrase).unwrap_err().to_string();

    // Made without one, with a second root on its way.
    let before = open(&Passphrase::default()).unwrap();
    before.announce(now).unwrap().unwrap();
    let keys = [
        "root.key",
        "intermediate.key",
        "1/root.key",
        "1/intermediate.key",
    ];
    assert!(keys.iter().all(|key| !is_sealed(&ca.join(key))));
    let file = dir.path().join("passphrase");
    let right = write_passphrase(&file, "correct horse\nsecond line\n", 0o600);
    let after = open(&right).unwrap();
    assert_eq!(after.trusted(), before.trusted());
    assert_eq!(
        after.issuing().own(DAY, now).unwrap().0.chain[1..],
        before.issuing().own(DAY, now).unwrap().0.chain[1..]
    );
    assert!(keys.iter().all(|key| is_sealed(&ca.join(key))));
    let sealed = std::fs::read(ca.join("root.key")).unwrap();
    open(&right).unwrap();
    assert_eq!(std::fs::read(ca.join("root.key")).unwrap(), sealed, "once");
    if has_openssl() {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["pkey", "-noout", "-passin", "pass:correct horse", "-in"]);
        assert!(
            openssl
                .arg(ca.join("1/root.key"))
                .status()
                .unwrap()
                .success()
        );
    }

    // What comes later is under it from the beginning.
    let facts = Facts {
        now_ms: unix_ms(now),
        trusted_everywhere: true,
        workloads_end_ms: 0,
        nodes_end_ms: 0,
    };
    after.step(&facts, DAY, now).unwrap().unwrap();
    let late = after.issuing().ends().intermediate - DAY;
    assert!(after.renew_intermediate(late).unwrap());
    assert!(is_sealed(&ca.join("1/intermediate.key")));

    let said = told(&Passphrase::default());
    assert!(
        said.contains(".key: the key is under a passphrase"),
        "{said}"
    );
    assert!(said.contains("--ca-passphrase-file"), "{said}");
    let wrong = write_passphrase(&dir.path().join("wrong"), "battery staple", 0o600);
    let said = told(&wrong);
    assert!(said.contains("does not open this key"), "{said}");
    assert!(!said.contains("battery"), "{said}");
    let loose = write_passphrase(&dir.path().join("loose"), "correct horse", 0o640);
    let said = told(&loose);
    assert!(said.contains("chmod 600"), "{said}");
    open(&Passphrase::credential(dir.path().join("loose"))).unwrap();
    let empty = write_passphrase(&dir.path().join("empty"), "\n", 0o600);
    let said = told(&empty);
    assert!(said.contains("holds no passphrase"), "{said}");
    let long = write_passphrase(&dir.path().join("long"), &"x".repeat(5_000), 0o600);
    let said = told(&long);
    assert!(said.contains("4 KiB"), "{said}");
    let said = told(&Passphrase::file(dir.path().join("none")));
    assert!(said.contains("none: No such file"), "{said}");
    let cut = sealed.len() - 100;
    std::fs::write(ca.join("1/root.key"), &sealed[..cut]).unwrap();
    let said = told(&right);
    assert!(said.contains("1/root.key: "), "{said}");
}

#[test]
fn the_key_of_a_ca_that_was_given_may_be_under_a_passphrase() {
    if !has_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plain = foreign_ca(dir.path(), "spiffe://mesh.local");
    let at = |name: &str| dir.path().join(name);
    for (name, how) in [
        ("rounds.key", &["-v2", "aes-256-cbc", "-iter", "10000"][..]),
        ("scrypt.key", &["-v2", "aes-128-cbc", "-scrypt"]),
    ] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["pkcs8", "-topk8", "-passout", "pass:correct horse", "-in"]);
        openssl
            .arg(at("sub.key"))
            .arg("-out")
            .arg(at(name))
            .args(how);
        assert!(openssl.status().unwrap().success());
        let given = Given {
            key: at(name),
            ..plain.clone()
        };
        let now = SystemTime::now();
        let open =
            |passphrase: &Passphrase| Authority::given(&given, "mesh.local", passphrase, now);
        let file = at("passphrase");
        let authority = open(&write_passphrase(&file, "correct horse\r\n", 0o600)).unwrap();
        authority.issuing().own(DAY, now).unwrap();
        // Read again on HUP, with the passphrase of then.
        write_passphrase(&file, "another", 0o600);
        let said = authority.read_again(now).unwrap_err().to_string();
        assert!(
            said.contains(name) && said.contains("does not open"),
            "{said}"
        );
        write_passphrase(&file, "correct horse", 0o400);
        assert!(authority.read_again(now).unwrap());
        let said = open(&Passphrase::default()).unwrap_err().to_string();
        assert!(said.contains("under a passphrase"), "{said}");
    }
    // Somebody else's file is not ours to write: without a passphrase it stays so.
    let passphrase = Passphrase::file(at("passphrase"));
    Authority::given(&plain, "mesh.local", &passphrase, SystemTime::now()).unwrap();
    assert!(!is_sealed(&at("sub.key")));
}

fn certificate_of(path: &Path) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    let der = rustls_pki_types::CertificateDer::from_pem_file(path).unwrap();
    der.to_vec()
}

#[test]
fn a_token_reads_back_and_nothing_else_is_one() {
    let token = JoinToken::mint(b"root").unwrap();
    assert_eq!(JoinToken::parse(&format!(" {token}\n")).unwrap(), token);
    assert!(!format!("{token:?}").contains(&token.secret));
    for bad in [
        "",
        "a.b.c",
        "a.b",
        &format!("{token}.x"),
        &format!("{token}0"),
    ] {
        assert!(JoinToken::parse(bad).is_err(), "{bad:?}");
    }
}
