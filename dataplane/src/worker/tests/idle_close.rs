//! Servers that close idle connections: no request may meet the end of one.

use super::*;

/// What the server below has seen.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    /// Requests that came when it was closing.
    late: AtomicUsize,
    /// Requests without an answer yet, and the most there were.
    under_way: AtomicUsize,
    most: AtomicUsize,
}

/// Closes a connection `keep` after its last answer, and is deaf to what comes within `deaf` before:
/// the worst moment, made as long as a test needs it. Answers after `hold`, so that requests close in time
/// are under way together, each on a connection of its own.
fn closing_after(
    keep: Duration,
    deaf: Duration,
    hold: Duration,
) -> (SocketAddr, Arc<AtomicUsize>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let tell = Arc::clone(&seen);
    let (at, connections) = server(move |_, mut stream| {
        loop {
            let speaks_within = |time| {
                stream.set_read_timeout(Some(time)).unwrap();
                matches!(stream.peek(&mut [0]), Ok(1))
            };
            // By when it came, however late this thread is woken.
            if !speaks_within(keep - deaf) {
                // Closed with the request unread: the kernel answers with a reset.
                if speaks_within(deaf) {
                    tell.late.fetch_add(1, Ordering::SeqCst);
                }
                return;
            }
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let Some(head) = read_head(&mut stream) else {
                return;
            };
            if head.starts_with("POST") {
                stream.read_exact(&mut [0; 2]).unwrap();
            }
            tell.requests.fetch_add(1, Ordering::SeqCst);
            let under_way = tell.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            tell.most.fetch_max(under_way, Ordering::SeqCst);
            gap(hold);
            tell.under_way.fetch_sub(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(answer).unwrap();
        }
    });
    (at, connections, seen)
}

fn post(bed: &Bed, host: &str) -> String {
    bed.ask(&format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi"
    ))
}

/// Services `s0`, `s1`..., each at a server of its own.
fn services(upstreams: &[SocketAddr]) -> Draft {
    let mut draft = Draft::new();
    for (n, upstream) in upstreams.iter().enumerate() {
        let name = format!("s{n}");
        draft = draft.service(&name, &[80]).endpoint_with(
            &name,
            &upstream.ip().to_string(),
            &[],
            |endpoint| {
                endpoint.mesh_port = None;
                endpoint.ports[0].app_port = upstream.port();
            },
        );
    }
    draft
}

/// Lets that much time pass: the gap between two requests is the subject here.
fn gap(time: Duration) {
    std::thread::park_timeout(time);
}

/// Per mille of a server's keep-alive time between the requests of a client.
type Gaps = Vec<u32>;

/// Sends requests with gaps around the server's keep-alive time, each client of each service its own gaps, and
/// demands that all are answered. Gives the most requests each service had under way.
fn straddle(
    keep: Duration,
    deaf: Duration,
    hold: Duration,
    services_gaps: &[Vec<Gaps>],
) -> Vec<usize> {
    let servers: Vec<_> = (services_gaps.iter())
        .map(|_| closing_after(keep, deaf, hold))
        .collect();
    let upstreams: Vec<_> = servers.iter().map(|(at, ..)| *at).collect();
    let bed = Bed::start(&services(&upstreams), Role::Outbound);
    std::thread::scope(|scope| {
        for (n, clients) in services_gaps.iter().enumerate() {
            for (client, gaps) in clients.iter().enumerate() {
                let bed = &bed;
                scope.spawn(move || {
                    let host = format!("s{n}");
                    for (nth, permille) in gaps.iter().enumerate() {
                        let answer = match n % 4 {
                            0 => bed.get(&host),
                            _ => post(bed, &host),
                        };
                        assert!(
                            answer.ends_with("hello"),
                            "{host}, client {client}, request {nth}: {answer}"
                        );
                        gap(keep * *permille / 1_000);
                    }
                });
            }
        }
    });
    let posts = servers.iter().enumerate().filter(|(n, _)| n % 4 != 0);
    for (n, (_, _, seen)) in posts {
        assert_eq!(seen.late.load(Ordering::SeqCst), 0, "s{n}");
    }
    let most = |(_, _, seen): &(_, _, Arc<Seen>)| seen.most.load(Ordering::SeqCst);
    servers.iter().map(most).collect()
}

/// [`straddle`] with one client per service, in percent.
fn straddle_alone(keep: Duration, deaf: Duration, gaps_percent: &[[u32; 6]]) {
    let permille = |gaps: &[u32; 6]| vec![gaps.iter().map(|percent| percent * 10).collect()];
    let gaps: Vec<_> = gaps_percent.iter().map(permille).collect();
    straddle(keep, deaf, Duration::ZERO, &gaps);
}

/// [`straddle`] with crowds of clients, so that each service has idle connections of many ages, all of
/// them near the server's closing edge.
fn straddle_in_crowds(keep: Duration, deaf: Duration, hold: Duration, rounds: usize) {
    let mut rng = fastrand::Rng::with_seed(9);
    let gaps: Vec<Vec<Gaps>> = [8, 12, 8, 16]
        .map(|clients| {
            let mut gaps = || (0..rounds).map(|_| rng.u32(970..=1_010)).collect();
            (0..clients).map(|_| gaps()).collect()
        })
        .to_vec();
    let most = straddle(keep, deaf, hold, &gaps);
    // Else it was no crowd.
    assert!(most.iter().all(|most| *most >= 3), "{most:?}");
}

#[test]
fn requests_that_straddle_a_keep_alive_time_are_all_answered() {
    let gaps = [
        [97, 98, 99, 97, 110, 98],
        [97, 98, 99, 97, 110, 98],
        [99, 99, 99, 99, 99, 99],
        [60, 70, 80, 97, 98, 99],
        [130, 98, 98, 98, 98, 98],
        [110, 97, 50, 97, 120, 98],
        [30, 97, 30, 97, 30, 97],
    ];
    straddle_alone(
        Duration::from_millis(1_500),
        Duration::from_millis(75),
        &gaps,
    );
}

#[test]
fn requests_every_five_seconds_to_a_five_second_server_are_all_answered() {
    let gaps = [
        [2, 97, 100, 1, 1, 1],
        [1, 99, 98, 1, 1, 1],
        [1, 100, 99, 1, 1, 1],
        [1, 98, 97, 1, 1, 1],
        [1, 101, 99, 1, 1, 1],
        [50, 50, 99, 1, 1, 1],
    ];
    straddle_alone(Duration::from_secs(5), Duration::from_millis(200), &gaps);
}

#[test]
fn crowds_that_straddle_a_keep_alive_time_are_all_answered() {
    straddle_in_crowds(
        Duration::from_millis(1_500),
        Duration::from_millis(75),
        Duration::from_millis(50),
        8,
    );
}

#[test]
fn crowds_every_five_seconds_at_a_five_second_server_are_all_answered() {
    straddle_in_crowds(
        Duration::from_secs(5),
        Duration::from_millis(200),
        Duration::from_millis(100),
        4,
    );
}

#[test]
fn what_is_known_to_be_safe_is_used_again() {
    let (upstream, connections, _) = closing_after(PATIENCE, Duration::ZERO, Duration::ZERO);
    let bed = Bed::start(&services(&[upstream]), Role::Outbound);
    // Each gap is one that an idle connection was seen to live.
    for _ in 0..3 {
        assert!(post(&bed, "s0").ends_with("hello"));
        gap(Duration::from_millis(400));
    }
    let opened = connections.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert!(post(&bed, "s0").ends_with("hello"));
        gap(Duration::from_millis(200));
    }
    assert!(opened <= 3);
    assert_eq!(connections.load(Ordering::SeqCst), opened);
}

#[test]
fn an_idle_connection_that_its_server_closed_is_dropped_at_once() {
    let (tell, told) = std::sync::mpsc::channel();
    let (upstream, _) = server(move |_, mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        gap(Duration::from_millis(200));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let begun = Instant::now();
        let end = stream.read(&mut [0]);
        let _ = tell.send((matches!(end, Ok(0)), begun.elapsed()));
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    assert!(bed.get("app").ends_with("hello"));
    let (ended, took) = told.recv_timeout(PATIENCE).unwrap();
    assert!(ended);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_idle_timeout_of_the_rules_closes_first() {
    let (tell, told) = std::sync::mpsc::channel();
    let (upstream, _) = server(move |_, mut stream| {
        let _ = read_head(&mut stream);
        // Before: what is written wakes the sidecar.
        let begun = Instant::now();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let end = stream.read(&mut [0]);
        let _ = tell.send((matches!(end, Ok(0)), begun.elapsed()));
    });
    let mut draft = draft(upstream);
    draft.at("app").policy.idle_timeout_ms = 400;
    let bed = Bed::start(&draft, Role::Outbound);
    assert!(bed.get("app").ends_with("hello"));
    let (ended, took) = told.recv_timeout(PATIENCE).unwrap();
    assert!(ended);
    assert!(took >= Duration::from_millis(380), "{took:?}");
    // Far below the bound that holds without a rule.
    assert!(took < Duration::from_secs(15), "{took:?}");
}
