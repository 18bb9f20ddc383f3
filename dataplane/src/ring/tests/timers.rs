//! Timers and wake-ups.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use super::*;

#[test]
fn timers_fire_in_order_and_never_early() {
    let ring = ring();
    let fired = Rc::new(RefCell::new(Vec::new()));
    for delay_ms in [30_u64, 1, 7, 80, 7, 0, 64] {
        let (inner, fired) = (ring.clone(), Rc::clone(&fired));
        let at = ring.now().plus_ms(delay_ms);
        assert!(ring.spawn(async move {
            inner.sleep_until(at).await;
            assert!(inner.now() >= at);
            fired.borrow_mut().push(delay_ms);
        }));
    }
    until(&ring, || fired.borrow().len() == 7);
    assert_eq!(*fired.borrow(), [0, 1, 7, 7, 30, 64, 80]);
    assert_eq!(ring.next_timer(), Mono::NEVER);
}

#[test]
fn a_dropped_timer_leaves_nothing_to_wake_for() {
    let ring = ring();
    let inner = ring.clone();
    drive(&ring, async move {
        let mut sleep = inner.sleep_until(inner.now().plus_ms(50));
        let first = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut sleep).poll(cx)));
        assert!(first.await.is_pending());
        assert_ne!(inner.next_timer(), Mono::NEVER);
        drop(sleep);
        assert_eq!(inner.next_timer(), Mono::NEVER);
    });
}

#[test]
fn a_deadline_can_be_moved_both_ways() {
    let ring = ring();
    for (first_ms, then_ms) in [(5, 40), (60_000, 5)] {
        let inner = ring.clone();
        drive(&ring, async move {
            let start = inner.now();
            let mut sleep = inner.sleep_until(start.plus_ms(first_ms));
            let first = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut sleep).poll(cx)));
            assert!(first.await.is_pending());
            sleep.reset(start.plus_ms(then_ms));
            sleep.await;
            assert!(inner.now() >= start.plus_ms(then_ms));
            assert!(inner.now() < start.plus_ms(30_000));
        });
    }
}

#[test]
fn the_bell_wakes_a_ring_that_sleeps() {
    let ring = ring();
    let remote = ring.remote();
    let rung = Rc::new(Cell::new(0));
    for _ in 0..2 {
        let (inner, rung) = (ring.clone(), Rc::clone(&rung));
        assert!(ring.spawn(async move {
            inner.rung().await;
            rung.set(rung.get() + 1);
        }));
    }
    ring.turn(Park::No);
    let ringer = std::thread::spawn(move || {
        remote.wake();
        remote.wake();
    });
    while rung.get() < 2 {
        // Without a bound: only the bell can end this.
        ring.turn(Park::Free);
    }
    ringer.join().unwrap();
}

#[test]
fn a_waker_works_from_another_thread() {
    let ring = ring();
    let (to_thread, wakers) = std::sync::mpsc::channel();
    let waker_thread = std::thread::spawn(move || {
        let mut woken = 0;
        while let Ok(waker) = wakers.recv() {
            std::task::Waker::wake(waker);
            woken += 1;
        }
        woken
    });
    let mut polls = 0;
    drive(
        &ring,
        poll_fn(move |cx| {
            polls += 1;
            if polls == 100 {
                return Poll::Ready(());
            }
            to_thread.send(cx.waker().clone()).unwrap();
            Poll::Pending
        }),
    );
    assert_eq!(join(&ring, waker_thread), 99);
}

#[test]
fn a_task_that_wakes_itself_does_not_keep_others_waiting() {
    let ring = ring();
    let stop = Rc::new(Cell::new(false));
    let busy = Rc::clone(&stop);
    assert!(ring.spawn(poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        if busy.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })));
    let inner = ring.clone();
    drive(&ring, async move {
        inner.sleep_until(inner.now().plus_ms(5)).await;
    });
    stop.set(true);
}

#[test]
fn an_idle_ring_sleeps() {
    let ring = ring();
    ring.turn(Park::No);
    let before = ring.now();
    let turn = ring.turn(Park::Until(before.plus_ms(30)));
    assert_eq!(turn, Turn::default());
    assert!(ring.now() >= before.plus_ms(30));
}
