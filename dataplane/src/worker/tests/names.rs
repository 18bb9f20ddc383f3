//! Endpoints by name: nobody before the first answer, then one endpoint per address or one for all.

use ringmesh_wire::snapshot::Resolution;

use super::*;
use crate::vacant::Vacant;

/// A service that answers with its own address, at several addresses of loopback and one port.
fn at_many<const N: usize>(last: [u8; N]) -> (u16, [Arc<AtomicUsize>; N]) {
    let (port, counts, _) = at_many_but(last, []);
    (port, counts)
}

/// The same, and where it refuses.
fn at_many_but<const N: usize, const M: usize>(
    last: [u8; N],
    refusing: [u8; M],
) -> (u16, [Arc<AtomicUsize>; N], [Vacant; M]) {
    let (listeners, vacant) = std::iter::repeat_with(|| one_port(last, refusing))
        .find_map(Result::ok)
        .unwrap();
    let port = listeners[0].local_addr().unwrap().port();
    let mut listeners = listeners.into_iter();
    let counts = std::array::from_fn(|_| {
        let (listener, count) = (listeners.next().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            let at = listener.local_addr().unwrap().ip().to_string();
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let at = at.clone();
                std::thread::spawn(move || {
                    while read_head(&mut stream).is_some() {
                        let len = at.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{at}");
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        count
    });
    (port, counts, vacant)
}

/// # Errors
/// The port that is free at the first address is somebody's at another.
fn one_port<const N: usize, const M: usize>(
    last: [u8; N],
    refusing: [u8; M],
) -> std::io::Result<([TcpListener; N], [Vacant; M])> {
    let at = |last, port| SocketAddr::from(([127, 0, 0, last], port));
    let first = TcpListener::bind(at(last[0], 0))?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    for last in &last[1..] {
        listeners.push(TcpListener::bind(at(*last, port))?);
    }
    let vacant = refusing.map(|last| Vacant::at(at(last, port)));
    let vacant: Vec<_> = vacant.into_iter().collect::<Result<_, _>>()?;
    let all = |_| unreachable!("as many as were asked for");
    Ok((
        listeners.try_into().unwrap_or_else(all),
        vacant
            .try_into()
            .unwrap_or_else(|_| unreachable!("likewise")),
    ))
}

fn draft(resolution: Resolution, port: u16) -> Draft {
    Draft::new()
        .service("app", &[80])
        .named("app", resolution, &["app.example"], port)
}

fn loads<const N: usize>(counts: &[Arc<AtomicUsize>; N]) -> [usize; N] {
    std::array::from_fn(|at| counts[at].load(Ordering::SeqCst))
}

#[test]
fn before_the_first_answer_it_is_503_and_says_so() {
    let (port, counts) = at_many([1]);
    let draft = draft(Resolution::Each, port);
    let bed = Bed::start(&draft, Role::Outbound);
    let answer = bed.get("app");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("x-ringmesh-reason: name_unresolved\r\n"),
        "{answer}"
    );
    assert_eq!(bed.log()[0]["reason"], "name_unresolved");
    let resolved = draft.answer("app.example", "127.0.0.1", &["127.0.0.1"]);
    bed.configure(resolved.tables());
    assert!(bed.get("app").ends_with("127.0.0.1"));
    assert_eq!(loads(&counts), [1]);
}

#[test]
fn each_address_is_an_endpoint_and_one_that_fails_is_tried_elsewhere() {
    let (port, counts, _refusing) = at_many_but([1, 2], [3]);
    let mut draft = draft(Resolution::Each, port);
    draft.at("app").policy.balance = ringmesh_wire::snapshot::Balance::RoundRobin;
    let three = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let draft = draft.answer("app.example", "127.0.0.1", &three);
    let bed = Bed::start(&draft, Role::Outbound);
    for _ in 0..6 {
        let answer = bed.get("app");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let both = loads(&counts);
    assert!(both.iter().all(|count| *count > 0), "{both:?}");
}

#[test]
fn as_one_endpoint_a_connection_goes_to_the_first_that_answers_and_outlives_other_addresses() {
    let (port, counts, _refusing) = at_many_but([2, 3], [1]);
    let draft = draft(Resolution::One, port);
    let first = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let answered = draft.clone().answer("app.example", "127.0.0.1", &first);
    let bed = Bed::start(&answered, Role::Outbound);
    for _ in 0..3 {
        let answer = bed.get("app");
        assert!(answer.ends_with("127.0.0.2"), "{answer}");
    }
    assert_eq!(loads(&counts), [1, 0]);
    let log = bed.log();
    assert_eq!(
        log[0]["endpoint"],
        format!("127.0.0.2:{port}"),
        "{}",
        log[0]
    );
    assert_eq!(log[0]["attempts"], 1, "it is one endpoint: {}", log[0]);
    // The name leads elsewhere now, and the pooled connection still serves.
    let other = draft.answer("app.example", "127.0.0.1", &["127.0.0.3"]);
    bed.configure(other.tables());
    assert!(bed.get("app").ends_with("127.0.0.2"));
    assert_eq!(loads(&counts), [1, 0]);
    // Two at once: the second needs a new connection, to where the name leads now.
    let mut clients: Vec<TcpStream> = (0..2).map(|_| bed.client()).collect();
    let request = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\n\r\n";
    for client in &mut clients {
        client.write_all(request).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while loads(&counts)[1] == 0 {
        assert!(Instant::now() < until, "{:?}", loads(&counts));
        pause();
    }
    assert_eq!(loads(&counts)[0], 1);
}

#[test]
fn what_stands_for_many_addresses_shares_no_connection_with_an_endpoint_at_its_anchor() {
    let (port, counts) = at_many([1, 2]);
    let draft = Draft::new()
        .service("one", &[80])
        .service("each", &[80])
        .named("one", Resolution::One, &["one.example"], port)
        .named("each", Resolution::Each, &["each.example"], port)
        .answer("one.example", "127.0.0.1", &["127.0.0.2"])
        .answer("each.example", "127.0.0.1", &["127.0.0.1"]);
    let bed = Bed::start(&draft, Role::Outbound);
    for _ in 0..2 {
        assert!(bed.get("one").ends_with("127.0.0.2"));
        assert!(bed.get("each").ends_with("127.0.0.1"));
    }
    assert_eq!(loads(&counts), [1, 1]);
}

#[test]
fn a_name_that_leads_back_here_is_a_loop() {
    let bed = Bed::start(&draft(Resolution::One, 1), Role::Outbound);
    let here = bed.at;
    let both = ["127.0.0.1", "127.0.0.9"];
    let draft = draft(Resolution::One, here.port()).answer("app.example", "127.0.0.9", &both);
    bed.configure(draft.tables());
    let answer = bed.get("app");
    assert!(answer.starts_with("HTTP/1.1 508 "), "{answer}");
}

#[test]
fn opaque_connections_go_to_the_first_that_answers_too() {
    let (port, counts, _refusing) = at_many_but([2], [1]);
    let mut draft = draft(Resolution::One, port);
    let service = draft.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Tcp;
    let draft = draft.answer("app.example", "127.0.0.1", &["127.0.0.1", "127.0.0.2"]);
    let bed = Bed::start(&draft, Role::Outbound);
    assert!(bed.get("anything").ends_with("127.0.0.2"));
    assert_eq!(loads(&counts), [1]);
}
