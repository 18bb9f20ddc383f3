//! Exchanges in which somebody stops: a client in the middle of its request, one that reads nothing, a
//! server that takes nothing. They end, and whoever is not at fault is not blamed.

use ringmesh_wire::snapshot::Limits;

use super::limits::limited;
use super::*;

fn impatient() -> ConnLimits {
    ConnLimits {
        idle_timeout_ms: 1_500,
        ..ConnLimits::default()
    }
}

/// The first fault of the endpoint ejects it.
fn strict(upstream: SocketAddr) -> Draft {
    limited(upstream, Limits::default())
}

/// Takes bodies as long as they say, and answers `hello`.
fn reader() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.eq_ignore_ascii_case("content-length")).then(|| value.trim().parse().ok())?
            });
            let mut body = vec![0; length.unwrap_or(0)];
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            if stream.read_exact(&mut body).is_err() || stream.write_all(answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_client_that_stops_in_its_body_is_told_so_and_the_endpoint_stays() {
    let (upstream, _) = reader();
    let bed = Bed::start_with(&strict(upstream), Role::Outbound, impatient());
    let answer = bed.ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhel");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("x-ringmesh-reason: idle_timeout\r\n"),
        "{answer}"
    );
    assert!(bed.get("app").ends_with("hello"), "the endpoint stays");
}

#[test]
fn a_try_that_waits_for_its_client_is_no_fault_of_the_endpoint() {
    let (upstream, _) = reader();
    let mut draft = strict(upstream);
    let mut route = to(&[("app", "", 1)]);
    route.retry.attempts = 0;
    route.retry.per_try_timeout_ms = 1_500;
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    let answer = bed.ask("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhel");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(bed.get("app").ends_with("hello"), "the endpoint stays");
}

#[test]
fn a_server_that_takes_no_more_of_a_body_is_given_up() {
    let (upstream, _) = server(|number, mut stream| {
        let _ = read_head(&mut stream);
        if number > 0 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            return;
        }
        // Until the sidecar gives it up; what has come stays unread.
        let _ = stream.set_read_timeout(Some(PATIENCE));
        while !matches!(stream.take_error(), Ok(Some(_))) {
            pause();
        }
    });
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, impatient());
    let mut client = bed.client();
    let mut sending = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let head = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut piece = b"10000\r\n".to_vec();
        piece.resize(piece.len() + 0x10000, b'x');
        piece.extend_from_slice(b"\r\n");
        let mut sent = sending.write_all(head);
        while sent.is_ok() {
            sent = sending.write_all(&piece);
        }
    });
    let answer = read_head(&mut client).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    drop(client);
    writer.join().unwrap();
    let log = bed.log();
    assert_eq!(log[0]["reason"], "timeout", "{}", log[0]);
}

/// A body that goes on keeps alive an exchange whose answer does not.
#[test]
fn one_direction_that_moves_is_enough() {
    let (upstream, _) = server(|_, mut stream| {
        let _ = read_head(&mut stream);
        let begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(begin).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.extend_from_slice(&byte);
        }
        stream.write_all(b"3\r\nend\r\n0\r\n\r\n").unwrap();
    });
    let limits = ConnLimits {
        idle_timeout_ms: 1_500,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, limits);
    let mut client = bed.client();
    let head = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head).unwrap();
    assert!(read_head(&mut client).unwrap().starts_with("HTTP/1.1 200 "));
    // For longer than either direction may be silent alone.
    let until = Instant::now() + Duration::from_millis(2_000);
    while Instant::now() < until {
        client.write_all(b"1\r\nx\r\n").unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    client.write_all(b"0\r\n\r\n").unwrap();
    let mut rest = String::new();
    let mut byte = [0];
    while !rest.ends_with("0\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        rest.push(char::from(byte[0]));
    }
    assert!(rest.contains("end"), "{rest}");
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_its_exchange() {
    // More than the sockets of both sides take in.
    const BODY_BYTES: usize = 32 << 20;
    let (upstream, _) = server(|_, mut stream| {
        while read_head(&mut stream).is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
            if stream.write_all(head.as_bytes()).is_err()
                || stream.write_all(&vec![b'x'; BODY_BYTES]).is_err()
            {
                return;
            }
        }
    });
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, impatient());
    let mut client = bed.client();
    let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
    client.write_all(request).unwrap();
    let until = Instant::now() + PATIENCE;
    while client.take_error().unwrap().is_none() {
        assert!(Instant::now() < until, "it is not cut");
        pause();
    }
    let log = bed.log();
    assert_eq!(log[0]["reason"], "idle_timeout", "{}", log[0]);
}

/// The rule would have it tried again, and there is no more of it to send: the answer goes on as it came.
#[test]
fn an_answer_to_a_body_too_large_to_keep_goes_on_as_it_came() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (upstream, _) = server(move |_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            count.fetch_add(1, Ordering::SeqCst);
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok())
                .unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater";
            stream.write_all(answer).unwrap();
        }
    });
    let mut draft = draft(upstream);
    let mut route = to(&[("app", "", 1)]);
    route.retry.attempts = 2;
    route.retry.on = RetryOn {
        server_error: true,
        ..RetryOn::default()
    };
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    let mut tries = Vec::new();
    for length in [1_000, 200_000] {
        let body = "x".repeat(length);
        let request =
            format!("PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = bed.ask(&request);
        assert!(answer.starts_with("HTTP/1.1 503 Busy\r\n"), "{answer}");
        assert!(answer.ends_with("later"), "{answer}");
        tries.push(asked.swap(0, Ordering::SeqCst));
    }
    assert_eq!(tries, [3, 1]);
}

#[test]
fn an_answer_without_content_tells_no_length_even_to_head() {
    let (upstream, _) = server(|_, mut stream| {
        while read_head(&mut stream).is_some() {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for method in ["GET", "HEAD"] {
        let mut client = bed.client();
        client
            .write_all(format!("{method} / HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes())
            .unwrap();
        let head = read_head(&mut client).unwrap();
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert!(
            !head.to_ascii_lowercase().contains("content-length"),
            "{head}"
        );
    }
}

/// Towards the app no route says how long an answer may take, and who left with a FIN looks like one who waits.
#[test]
fn an_app_that_never_answers_does_not_hold_its_exchange() {
    let (told, hears) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let (app, _) = server(move |_, mut stream| {
        let _ = read_head(&mut stream);
        let end = stream.read(&mut [0]);
        told.lock().unwrap().send(end.unwrap_or(0)).unwrap();
    });
    let mut draft = Draft::new();
    draft.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Permissive;
    draft.workload.ports[0].app = app;
    let bed = Bed::start_with(&draft, Role::Inbound, impatient());
    let mut left = bed.client();
    left.write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
        .unwrap();
    left.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(0), "the app's side ends");
    let answer = read_answer(&mut left);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let log = bed.log();
    assert_eq!(log[0]["reason"], "timeout", "{}", log[0]);
}
