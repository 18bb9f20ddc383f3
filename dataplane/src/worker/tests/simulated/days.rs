//! Long times: what happens once an hour, seen in a moment.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::talk::{Line, Reader, Simulated};
use super::super::{draft, draft_at};
use super::stage::{Stage, client, listen, pause, plan};
use crate::ring::{Ring, Weather};

const HOUR: Duration = Duration::from_secs(3_600);

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

/// A head that came within the time, or nothing.
async fn head_within<L: Line>(
    ring: &Ring,
    reader: &mut Reader<L>,
    time: Duration,
) -> Option<String> {
    tokio::select! {
        biased;
        head = reader.head() => head,
        () = pause(ring, time) => None,
    }
}

/// Closes a connection that was silent for `keep`, as soon as it was.
async fn close_when_idle(ring: Ring, line: Simulated, keep: Duration) {
    let mut reader = Reader::new(line);
    while let Some(head) = head_within(&ring, &mut reader, keep).await {
        if reader.body(&head).await.is_none() {
            return;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if reader.line.write(answer).await.is_err() {
            return;
        }
    }
}

/// A day of requests that may not be sent twice, at gaps around the keep-alive time of the server: none meets
/// the end of a connection.
#[test]
fn in_a_day_no_request_meets_a_server_that_closes() {
    const KEEP: Duration = Duration::from_secs(5);
    let stage = Stage::set(&plan(4, None), &draft(address(9)));
    let ring = stage.ring.clone();
    listen(&stage.ring, address(9), move |line| {
        close_when_idle(ring.clone(), line, KEEP)
    });
    let answered = Rc::new(Cell::new(0_u32));
    for number in 0..3 {
        let (ring, answered) = (stage.ring.clone(), Rc::clone(&answered));
        let mut rng = fastrand::Rng::with_seed(number);
        let asking = async move {
            let line = client(&ring).await.unwrap();
            let mut reader = Reader::new(line);
            let end = ring.now() + 24 * HOUR;
            while ring.now() < end {
                let request = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi";
                reader.line.write(request).await.unwrap();
                let head = reader.head().await.unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                reader.body(&head).await.unwrap();
                answered.set(answered.get() + 1);
                // Around the whole of it, around what the pool believes to be safe, and far beyond.
                let part = match rng.u8(..4) {
                    0 => rng.u32(990..1_010),
                    1 => rng.u32(850..900),
                    2 => rng.u32(0..1_000),
                    _ => rng.u32(1_000..4_000),
                };
                pause(&ring, KEEP * part / 1_000).await;
            }
        };
        assert!(stage.ring.spawn(asking));
    }
    let ring = stage.ring.clone();
    stage.play(25 * HOUR, async move {
        pause(&ring, 24 * HOUR + HOUR / 2).await;
    });
    assert!(answered.get() > 30_000, "{} requests", answered.get());
    assert_eq!(stage.log().len(), answered.get() as usize);
    stage.end();
}

/// An app that never answers: the client hears of it at the route's timeout (15 s), not before and hardly later.
#[test]
fn a_timeout_comes_when_it_is_due() {
    const TIMEOUT: Duration = Duration::from_secs(15);
    /// There and back on the slowest way, and the tick of a timer.
    const AT_MOST_LATER: Duration = Duration::from_millis(100);
    for seed in 0..50 {
        let stage = Stage::set(&plan(seed, None), &draft(address(9)));
        listen(&stage.ring, address(9), move |line| async move {
            let mut reader = Reader::new(line);
            while reader.head().await.is_some() {}
        });
        let ring = stage.ring.clone();
        let asking = async move {
            let mut reader = Reader::new(client(&ring).await.unwrap());
            let begun = ring.now();
            let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
            reader.line.write(request).await.unwrap();
            let head = reader.head().await.unwrap();
            (head, ring.now().since(begun))
        };
        let (head, took) = stage.play(HOUR, asking);
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        let due = TIMEOUT..TIMEOUT + AT_MOST_LATER;
        assert!(due.contains(&took), "seed {seed}: {took:?}");
        stage.end();
    }
}

/// A client that asked for the connection's end and reads late: it gets all of the answer, then the end. Never a
/// reset, though nobody may wait for it behind the last byte.
#[test]
fn behind_the_last_answer_a_slow_client_gets_all_of_it() {
    for seed in 0..120 {
        let weather = (seed % 2 == 0).then_some(Weather::Windy(seed));
        let mut draft = draft(address(9));
        draft.mesh.default_timeout_ms = 24 * 3_600_000;
        let stage = Stage::set(&plan(seed, weather), &draft);
        let len = [100, 60_000, 200_000, 1_500_000][seed as usize / 2 % 4];
        listen(&stage.ring, address(9), move |line| async move {
            let mut reader = Reader::new(line);
            while reader.head().await.is_some() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                let mut answer = head.into_bytes();
                answer.resize(answer.len() + len, b'a');
                if reader.line.write(&answer).await.is_err() {
                    return;
                }
            }
        });
        let ring = stage.ring.clone();
        let reading = async move {
            let mut line = client(&ring).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
            line.write(request).await.unwrap();
            // Longer than bytes may linger whose socket is gone.
            pause(&ring, Duration::from_secs(12)).await;
            let mut came = 0;
            loop {
                let piece = line.read().await.unwrap();
                if piece.is_empty() {
                    return came;
                }
                came += piece.len();
                pause(&ring, Duration::from_millis(20)).await;
            }
        };
        let came = stage.play(24 * HOUR, reading);
        assert!(
            (len + 20..len + 500).contains(&came),
            "seed {seed}: {came} of {len}"
        );
        stage.end();
    }
}

/// What became of the requests of the rough hours below.
#[derive(Default)]
struct Tally {
    /// Asked by a client that stayed to hear.
    asked: Cell<u64>,
    whole: Cell<u64>,
    /// Of clients that left.
    left: Cell<u64>,
    refused: Cell<u64>,
    broken: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// An app as apps are on bad days.
async fn rough_app(ring: Ring, line: Simulated, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut reader = Reader::new(line);
    while let Some(head) = reader.head().await {
        if reader.body(&head).await.is_none() {
            return;
        }
        let len = match rng.u8(..4) {
            0 => rng.usize(0..200_000),
            _ => rng.usize(0..2_000),
        };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + len, b'a');
        match rng.u8(..32) {
            0 => return reader.line.break_off(),
            1 => return,
            2 => {
                let part = rng.usize(..answer.len());
                let _ = reader.line.write(&answer[..part]).await;
                return reader.line.break_off();
            }
            3 => {
                let part = rng.usize(..answer.len());
                let _ = reader.line.write(&answer[..part]).await;
                return;
            }
            // Longer than anybody waits, now and then.
            4 => pause(&ring, Duration::from_secs(rng.u64(1..20))).await,
            5..12 => pause(&ring, Duration::from_millis(rng.u64(1..400))).await,
            _ => {}
        }
        if reader.line.write(&answer).await.is_err() {
            return;
        }
        if rng.u8(..16) == 0 {
            return;
        }
    }
}

/// One client: some requests on one connection, until it breaks or the client has enough.
async fn rough_client(ring: Ring, tally: Rc<Tally>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let Some(line) = client(&ring).await else {
        return count(&tally.refused);
    };
    let mut reader = Reader::new(line);
    for _ in 0..rng.u8(1..8) {
        let len = if rng.bool() { rng.usize(0..40_000) } else { 0 };
        let method = if rng.bool() { "GET" } else { "PUT" };
        let mut request =
            format!("{method} / HTTP/1.1\r\nHost: app\r\nContent-Length: {len}\r\n\r\n")
                .into_bytes();
        request.resize(request.len() + len, b'b');
        match rng.u8(..32) {
            // Leaves in the middle of it, or before the answer.
            0 => {
                count(&tally.left);
                let part = rng.usize(..request.len());
                let _ = reader.line.write(&request[..part]).await;
                return reader.line.break_off();
            }
            1 => {
                count(&tally.left);
                let _ = reader.line.write(&request).await;
                pause(&ring, Duration::from_millis(rng.u64(..50))).await;
                return reader.line.break_off();
            }
            _ => {}
        }
        count(&tally.asked);
        // A failed write says no more than that the answer is early, or the connection gone.
        let _ = reader.line.write(&request).await;
        let begun = ring.now();
        let answer = async {
            let head = reader.head().await?;
            let status = head.split(' ').nth(1)?.parse::<u16>().ok()?;
            assert!(matches!(status, 200 | 502..=504), "{head}");
            reader.body(&head).await?;
            Some(head)
        };
        let whole = answer.await;
        let took = ring.now().since(begun);
        // The route's timeout and a slow answer behind it.
        assert!(took < Duration::from_secs(25), "{took:?} of {whole:?}");
        let Some(head) = whole else {
            return count(&tally.broken);
        };
        count(&tally.whole);
        if head
            .to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n")
        {
            return;
        }
        pause(&ring, Duration::from_millis(rng.u64(..3_000))).await;
    }
}

/// Hours of clients and apps that come, go, break off, answer by halves, late and never: every request has an
/// end and a line in the log, and nothing is left.
fn rough_hours(seed: u64, weather: Option<Weather>, hours: u32) {
    let stage = Stage::set(&plan(seed, weather), &draft_at(&[address(7), address(8)]));
    for host in [7, 8] {
        let (ring, mut number) = (stage.ring.clone(), u64::from(host) << 32);
        listen(&stage.ring, address(host), move |line| {
            number += 1;
            rough_app(ring.clone(), line, number)
        });
    }
    let tally = Rc::new(Tally::default());
    let (ring, told) = (stage.ring.clone(), Rc::clone(&tally));
    let coming = async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        let end = ring.now() + hours * HOUR;
        while ring.now() < end {
            let one = rough_client(ring.clone(), Rc::clone(&told), rng.u64(..));
            assert!(ring.spawn(one));
            pause(&ring, Duration::from_millis(rng.u64(..12_000))).await;
        }
        // The last ones are heard to their end.
        pause(&ring, HOUR / 4).await;
    };
    stage.play((hours + 1) * HOUR, coming);
    let Tally {
        asked,
        whole,
        left,
        broken,
        ..
    } = &*tally;
    println!(
        "seed {seed}: {} asked, {} whole, {} left, {} broken",
        asked.get(),
        whole.get(),
        left.get(),
        broken.get()
    );
    assert_eq!(
        asked.get(),
        whole.get() + broken.get(),
        "seed {seed}: somebody still waits"
    );
    let lines = stage.log().len() as u64;
    // Of a client that left, a head that had not come whole is no request; in a storm neither is one that broke.
    let sure = whole.get() + if weather.is_none() { broken.get() } else { 0 };
    let most = asked.get() + left.get();
    assert!(
        (sure..=most).contains(&lines),
        "seed {seed}: {lines} lines for {sure} to {most} requests"
    );
    assert!(
        whole.get() > 300 && broken.get() > 3 && left.get() > 3,
        "seed {seed}: too quiet"
    );
    stage.end();
}

#[test]
fn after_rough_hours_nothing_is_left() {
    for seed in 0..3 {
        rough_hours(seed, None, 2);
    }
}

#[test]
fn after_rough_hours_in_a_storm_nothing_is_left() {
    for seed in 0..3 {
        rough_hours(seed, Some(Weather::Stormy(seed)), 2);
    }
}
