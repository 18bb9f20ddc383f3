//! In steady state a plain keep-alive request allocates nothing on its shard.

use super::*;

const WARM_UP: usize = 500;
const MEASURED: usize = 2_000;

#[test]
fn a_kept_alive_request_allocates_nothing() {
    let (upstream, _) = hello();
    // What a request passes in earnest: a route with matches, timeout and header changes.
    let mut route = to(&[("app", "", 1)]);
    route.timeout_ms = Some(5_000);
    route.headers.request_set = vec![("x-set".into(), "1".into())];
    route.headers.response_add = vec![("x-added".into(), "2".into())];
    let draft = draft(upstream).http("app", vec![route]);
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let (sender, receiver) = std::sync::mpsc::channel();
    let bed = Bed::start_turning(
        &draft,
        Role::Outbound,
        ConnLimits::default(),
        RingPlan::default(),
        move |ring, is_done| {
            let turn_until = |goal: usize| {
                while count.load(Ordering::SeqCst) < goal && !is_done() {
                    let _ = ring.turn(Park::Until(ring.now().plus_ms(50)));
                }
            };
            // The count counts: making connections and pools does allocate.
            let begun = allocation_counter::measure(|| turn_until(WARM_UP));
            assert!(begun.count_total > 0);
            let allocated = allocation_counter::measure(|| turn_until(WARM_UP + MEASURED));
            sender.send(allocated).unwrap();
            while !is_done() {
                let _ = ring.turn(Park::Free);
            }
        },
    );
    let mut client = bed.client();
    let request = b"GET /a/b?c HTTP/1.1\r\nHost: app\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
    let want = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-added: 2\r\n\r\nhello";
    let mut answer = vec![0; want.len()];
    for _ in 0..WARM_UP + MEASURED {
        client.write_all(request).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), want);
        answered.fetch_add(1, Ordering::SeqCst);
    }
    let allocated = receiver.recv_timeout(PATIENCE).unwrap();
    let per_request = allocated.count_total as f64 / MEASURED as f64;
    assert!(per_request < 0.01, "{per_request} a request: {allocated:?}");
}
