//! Whose hello it is.

use proptest::prelude::*;

use super::*;

/// The first flight of a client that offers these protocols.
fn first_flight(offered: &[&[u8]]) -> Vec<u8> {
    let house = House::new();
    let material = house.material(&workload("a", "a", "v1")).unwrap();
    let mut config = (*client_config(&material, Inner::Http1)).clone();
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    let name = "p9080.reviews.default.ringmesh".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_sidecar_is_told_from_an_app_whatever_the_segments() {
    for (offered, whose) in [
        (vec![Inner::Http1.alpn()], Hello::Mesh),
        (vec![Inner::Tcp.alpn()], Hello::Mesh),
        (vec![&b"http/1.1"[..], Inner::Http1.alpn()], Hello::Mesh),
        (vec![&b"h2"[..], b"http/1.1"], Hello::Foreign),
        (vec![], Hello::Foreign),
    ] {
        let bytes = first_flight(&offered);
        for cut in 0..bytes.len() {
            assert_eq!(hello(&bytes[..cut]), Hello::NeedMore, "{offered:?} {cut}");
        }
        assert_eq!(hello(&bytes), whose, "{offered:?}");
        let more = [&bytes[..], b"and more"].concat();
        assert_eq!(hello(&more), whose, "{offered:?}");
    }
    assert_eq!(
        hello(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"),
        Hello::Foreign
    );
    assert_eq!(hello(b"GET / HTTP/1.1\r\n\r\n"), Hello::Foreign);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = hello(&bytes);
    }

    #[test]
    fn no_damage_panics(at in 0_usize..300, with in any::<u8>()) {
        let mut bytes = first_flight(&[Inner::Http1.alpn()]);
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = hello(&bytes);
    }

    /// As the fuzz target has it: more bytes never change what was decided.
    #[test]
    fn what_is_decided_stays_decided(
        at in 0_usize..300,
        with in any::<u8>(),
        cut in 0_usize..300,
        more in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut bytes = first_flight(&[Inner::Http1.alpn()]);
        let len = bytes.len();
        bytes[at % len] = with;
        let early = hello(&bytes[..cut % (len + 1)]);
        bytes.extend(more);
        prop_assert!(early == Hello::NeedMore || early == hello(&bytes));
    }
}
