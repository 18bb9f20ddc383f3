use std::sync::atomic::{AtomicU16, Ordering};

use domain::base::iana::Rcode;

use super::super::fake_server::{Asked, FakeServer};
use super::*;

fn looked_up(servers: &[SocketAddr]) -> Lookup {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let id = || NEXT.fetch_add(1, Ordering::Relaxed);
    runtime.block_on(lookup(servers, "a.example", id))
}

fn addresses(of: &Result<Found, Fault>) -> Result<Vec<String>, Fault> {
    let shown = |found: &Found| found.addresses.iter().map(ToString::to_string).collect();
    of.as_ref().map(shown).map_err(|fault| *fault)
}

fn ok(all: &[&str]) -> Result<Vec<String>, Fault> {
    Ok(all.iter().map(|one| (*one).to_owned()).collect())
}

fn good(asked: &Asked<'_>) -> Vec<Vec<u8>> {
    vec![asked.addresses(&["127.0.0.1", "127.0.0.2", "::1"], 9)]
}

/// Nobody answers at its address: it hears only who never speaks, and no one else is given its port.
fn closed() -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    socket
}

#[test]
fn both_families_are_asked_for() {
    let server = FakeServer::start(good);
    let lookup = looked_up(&[server.at]);
    assert_eq!(addresses(&lookup.v4), ok(&["127.0.0.1", "127.0.0.2"]));
    assert_eq!(addresses(&lookup.v6), ok(&["::1"]));
    assert_eq!(server.asked(), 2);
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let many: Vec<String> = (1..=30).map(|last| format!("127.0.0.{last}")).collect();
    let wanted = many.clone();
    let server = FakeServer::start(move |asked| {
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        vec![match asked.over_tcp {
            true => asked.addresses(&many, 9),
            false => asked.truncated(),
        }]
    });
    let lookup = looked_up(&[server.at]);
    assert_eq!(addresses(&lookup.v4), Ok(wanted));
    assert_eq!(lookup.v6, Err(Fault::NoAddress));
}

#[test]
fn over_tcp_too_only_the_answer_counts() {
    let server = FakeServer::start(|asked| {
        let mut answer = asked.truncated();
        if asked.over_tcp {
            answer[0] ^= 1;
        }
        vec![answer]
    });
    assert_eq!(looked_up(&[server.at]).v4, Err(Fault::Malformed));
    let endless = FakeServer::start(|asked| vec![asked.truncated()]);
    assert_eq!(looked_up(&[endless.at]).v4, Err(Fault::Malformed));
}

#[test]
fn forgeries_before_the_answer_are_passed_over() {
    let server = FakeServer::start(|asked| {
        let mut forged = asked.addresses(&["127.0.0.66"], 9);
        forged[1] ^= 0x55;
        vec![forged.clone(), b"x".to_vec(), forged, good(asked).remove(0)]
    });
    let lookup = looked_up(&[server.at]);
    assert_eq!(addresses(&lookup.v4), ok(&["127.0.0.1", "127.0.0.2"]));
}

#[test]
fn a_flood_of_forgeries_ends_the_wait() {
    let server = FakeServer::start(|asked| {
        let mut forged = asked.addresses(&["127.0.0.66"], 9);
        forged[1] ^= 0x55;
        vec![forged; STRAYS_MAX]
    });
    assert_eq!(looked_up(&[server.at]).v4, Err(Fault::Malformed));
}

#[test]
fn the_next_server_is_asked_where_one_fails_and_not_where_it_denies() {
    let failing = FakeServer::start(|asked| vec![asked.code(Rcode::SERVFAIL)]);
    let broken = FakeServer::start(|asked| {
        let mut answer = good(asked).remove(0);
        answer.truncate(answer.len() - 2);
        vec![answer]
    });
    let denying = FakeServer::start(|asked| vec![asked.code(Rcode::NXDOMAIN)]);
    let server = FakeServer::start(good);
    let closed = closed();
    let nobody = closed.local_addr().unwrap();
    let lookup = looked_up(&[nobody, failing.at, server.at]);
    assert_eq!(addresses(&lookup.v6), ok(&["::1"]));
    let lookup = looked_up(&[broken.at, server.at]);
    assert_eq!(addresses(&lookup.v6), ok(&["::1"]));
    let before = server.asked();
    assert_eq!(looked_up(&[denying.at, server.at]).v4, Err(Fault::NoName));
    assert_eq!(server.asked(), before);
    assert_eq!(looked_up(&[failing.at]).v4, Err(Fault::ServerFailed));
    assert_eq!(looked_up(&[nobody]).v4, Err(Fault::Unreachable));
    assert_eq!(looked_up(&[]).v4, Err(Fault::Unreachable));
}

#[test]
fn a_lost_datagram_is_asked_for_again() {
    let server = FakeServer::start(good);
    let asked = std::sync::Arc::clone(&server.asked);
    // The first of each family is lost.
    server.turn(move |question| match asked.load(Ordering::Relaxed) > 2 {
        true => good(question),
        false => Vec::new(),
    });
    let lookup = looked_up(&[server.at]);
    assert_eq!(addresses(&lookup.v4), ok(&["127.0.0.1", "127.0.0.2"]));
    assert_eq!(server.asked(), 4);
}

#[test]
fn a_family_without_a_route_is_left_out_where_the_other_has_one() {
    let found = |to: &str| {
        Ok(Found {
            addresses: vec![to.parse().unwrap()],
            ttl: Duration::from_secs(9),
        })
    };
    let both = || (found("192.0.2.1"), found("fd00::1"));
    let routes = |v4: bool, v6: bool| {
        let (a, b) = both();
        without_unroutable(a, b, |to| if to.is_ipv4() { v4 } else { v6 })
    };
    let (v4, v6) = both();
    let all = Lookup {
        v4: v4.clone(),
        v6: v6.clone(),
    };
    let none = || Err(Fault::NoAddress);
    assert_eq!(routes(true, true), all);
    assert_eq!(
        routes(false, false),
        all,
        "the network is down: it will be back"
    );
    assert_eq!(routes(true, false), Lookup { v4, v6: none() });
    assert_eq!(routes(false, true), Lookup { v4: none(), v6 });
    assert!(has_route(Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn resolv_conf_names_the_servers() {
    let servers =
        |text: &str| -> Vec<String> { nameservers(text).iter().map(ToString::to_string).collect() };
    assert_eq!(
        servers(
            "# me\nsearch x\nnameserver 10.0.0.1 # one\n nameserver ::1\nnameserver\nnameserver x\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
        ),
        ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"]
    );
    assert_eq!(servers(""), ["127.0.0.1:53"]);
    assert_eq!(servers_of(Path::new("/nonexistent")).len(), 1);
}
