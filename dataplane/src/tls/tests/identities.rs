//! Whom a certificate belongs to, and which are refused.

use super::*;

fn identify_params(params: &CertificateParams) -> Result<crate::view::PeerIdentity, PeerRefusal> {
    identify(&House::new().sign(params).0, now(), &trust())
}

#[test]
fn a_workload_is_known_by_its_certificate() {
    let peer = identify_params(&workload("reviews-sa", "reviews", "v3")).unwrap();
    assert_eq!(
        peer.spiffe.as_str(),
        "spiffe://mesh.local/ns/default/sa/reviews-sa"
    );
    assert_eq!(peer.service, ServiceId::new("reviews", "default"));
    assert_eq!(peer.labels.get("version").map(String::as_str), Some("v3"));
}

/// digitalSignature, as a BIT STRING, in an extension (RFC 5280 section 4.2.1.3) that is not critical.
fn key_usage_not_critical() -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80])
}

/// One rule broken at a time.
#[test]
fn every_rule_is_kept() {
    type Spoil = fn(&mut CertificateParams);
    let cases: &[(&str, Spoil, PeerRefusal)] = &[
        (
            "expired",
            |p| p.not_after = (SystemTime::now() - Duration::from_secs(2)).into(),
            PeerRefusal::Expired,
        ),
        (
            "not valid yet",
            |p| p.not_before = (SystemTime::now() + Duration::from_secs(60)).into(),
            PeerRefusal::NotYetValid,
        ),
        (
            "an authority",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            PeerRefusal::Authority,
        ),
        (
            "no key usage",
            |p| p.key_usages.clear(),
            PeerRefusal::KeyUsage,
        ),
        (
            "may sign certificates",
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            PeerRefusal::KeyUsage,
        ),
        (
            "key usage that may be overlooked",
            |p| {
                p.key_usages.clear();
                p.custom_extensions.push(key_usage_not_critical());
            },
            PeerRefusal::KeyUsage,
        ),
        (
            "may sign revocation lists",
            |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
            PeerRefusal::KeyUsage,
        ),
        (
            "for another use than signing",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            PeerRefusal::KeyUsage,
        ),
        (
            "for servers only",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            PeerRefusal::ExtendedKeyUsage,
        ),
        (
            "for clients only",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            PeerRefusal::ExtendedKeyUsage,
        ),
        (
            "for any use",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            PeerRefusal::ExtendedKeyUsage,
        ),
        (
            "no names",
            |p| p.subject_alt_names.clear(),
            PeerRefusal::UriNames(0),
        ),
        (
            "no URI",
            |p| {
                p.subject_alt_names.remove(0);
            },
            PeerRefusal::UriNames(0),
        ),
        (
            "two URIs",
            |p| {
                p.subject_alt_names
                    .push(uri("spiffe://mesh.local/ns/default/sa/other"));
            },
            PeerRefusal::UriNames(2),
        ),
        (
            "no SPIFFE ID",
            |p| p.subject_alt_names = vec![uri("https://mesh.local/reviews")],
            PeerRefusal::NotAWorkload("https://mesh.local/reviews".into()),
        ),
        (
            "a node credential",
            |p| p.subject_alt_names = vec![uri("spiffe://mesh.local/node/node-1")],
            PeerRefusal::NotAWorkload("spiffe://mesh.local/node/node-1".into()),
        ),
        (
            "another trust domain",
            |p| p.subject_alt_names = vec![uri("spiffe://evil.local/ns/default/sa/reviews-sa")],
            PeerRefusal::TrustDomain("evil.local".into()),
        ),
        (
            "no attributes",
            |p| p.custom_extensions.clear(),
            PeerRefusal::Attributes("the certificate names no service".into()),
        ),
    ];
    for (case, spoil, want) in cases {
        let mut params = workload("reviews-sa", "reviews", "v3");
        spoil(&mut params);
        assert_eq!(identify_params(&params), Err(want.clone()), "{case}");
    }
    // No extended key usage at all is as good as both.
    let mut params = workload("reviews-sa", "reviews", "v3");
    params.extended_key_usages.clear();
    assert!(identify_params(&params).is_ok());
    let mut params = workload("reviews-sa", "reviews", "v3");
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &ATTRIBUTES_OID,
        b"service=reviews".to_vec(),
    )];
    assert!(matches!(
        identify_params(&params),
        Err(PeerRefusal::Attributes(_))
    ));
}

#[test]
fn revoked_serials_are_refused_with_and_without_leading_zeroes() {
    let (cert, _) = House::new().sign(&workload("a", "a", "v1"));
    for serial in [vec![7, 7], vec![0, 7, 7]] {
        let trust = PeerTrust {
            revoked_serials: vec![vec![1], serial],
            ..trust()
        };
        assert_eq!(identify(&cert, now(), &trust), Err(PeerRefusal::Revoked));
    }
    let other = PeerTrust {
        revoked_serials: vec![vec![7], vec![7, 7, 0]],
        ..trust()
    };
    assert!(identify(&cert, now(), &other).is_ok());
}

#[test]
fn broken_certificates_are_refused_and_never_panic() {
    let (cert, _) = House::new().sign(&workload("a", "a", "v1"));
    for cut in 0..cert.len() {
        assert_eq!(
            identify(&cert[..cut], now(), &trust()),
            Err(PeerRefusal::Malformed)
        );
    }
    let longer = [&cert[..], b"x"].concat();
    assert_eq!(
        identify(&longer, now(), &trust()),
        Err(PeerRefusal::Malformed)
    );
    for at in 0..cert.len() {
        let mut bytes = cert.to_vec();
        bytes[at] ^= 0x55;
        // The signature is the chain's business; here only: no panic.
        let _ = identify(&bytes, now(), &trust());
    }
}

#[test]
fn material_says_what_does_not_fit() {
    let house = House::new();
    let own = workload("a", "a", "v1");
    let material = house.material(&own).unwrap();
    assert_eq!(material.own().service, ServiceId::new("a", "default"));
    assert!(material.not_after_unix_s() > now());

    // Peers refuse the chain when any part of it has ended.
    let (leaf, key) = house.sign(&own);
    let mut sooner = own.clone();
    sooner.not_after = (SystemTime::now() + Duration::from_secs(60)).into();
    let chain = vec![leaf, house.sign(&sooner).0];
    let material = TlsMaterial::build(chain, key, &house.roots(), trust()).unwrap();
    assert!(material.not_after_unix_s() <= now() + 60);
    assert!(!format!("{material:?}").contains("key"));

    let (cert, _) = house.sign(&own);
    let (_, other_key) = house.sign(&own);
    let built = TlsMaterial::build(vec![cert.clone()], other_key, &house.roots(), trust());
    assert!(matches!(built, Err(MaterialError::Key(_))), "{built:?}");
    let (cert, key) = house.sign(&own);
    let built = TlsMaterial::build(vec![cert], key, &[], trust());
    assert!(matches!(built, Err(MaterialError::Roots(_))), "{built:?}");
    let mut spoiled = own.clone();
    spoiled.custom_extensions.clear();
    let built = house.material(&spoiled);
    assert!(
        matches!(built, Err(MaterialError::Own(PeerRefusal::Attributes(_)))),
        "{built:?}"
    );
}
