//! Making a ring, with less than the best, and failing well.

use super::*;

#[test]
fn every_way_to_run_completions_serves() {
    for task_run in [TaskRun::Defer, TaskRun::Cooperative, TaskRun::Plain] {
        let ring = ring_with(&RingPlan {
            task_run,
            ..RingPlan::default()
        });
        assert_eq!(ring.picked().task_run, task_run);
        let to = echo_server(&ring);
        let talk = client(to, |stream| {
            write_all(&stream, b"hello");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            read_all(&stream).unwrap()
        });
        assert_eq!(join(&ring, talk), b"hello");
    }
}

#[test]
fn what_was_picked_can_be_told() {
    let told = ring().picked().to_string();
    assert!(told.starts_with("defer_taskrun single_issuer"), "{told}");
}

#[test]
fn errors_name_the_cause_and_the_fix() {
    for (errno, words) in [
        (libc::EPERM, "sysctl kernel.io_uring_disabled=0"),
        (libc::ENOSYS, "seccomp"),
        (libc::ENOMEM, "ulimit -l"),
        (libc::EMFILE, "ulimit -n"),
        (libc::EFAULT, "io_uring_setup"),
    ] {
        let error = RingError::at("io_uring_setup", std::io::Error::from_raw_os_error(errno));
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_table_of_tasks_is_bounded() {
    let ring = ring_with(&RingPlan {
        tasks_max: 3,
        ..RingPlan::default()
    });
    for _ in 0..3 {
        assert!(ring.spawn(std::future::pending()));
    }
    assert!(!ring.spawn(std::future::pending()));
    ring.close();
    assert!(ring.spawn(async {}));
}

#[test]
fn output_buffers_are_bounded_and_come_home() {
    let ring = ring_with(&RingPlan {
        bufs_max: 2,
        ..RingPlan::default()
    });
    let first = ring.buf().unwrap();
    let second = ring.buf().unwrap();
    assert!(ring.buf().is_none());
    let mut chunk = first.freeze();
    drop(second);
    assert!(ring.buf().is_some());
    drop(chunk.split_to(0));
    assert!(ring.buf().is_some());
    drop(chunk);
    let both = [ring.buf().unwrap(), ring.buf().unwrap()];
    ring.trim();
    drop(both);
    ring.trim();
    assert!(ring.buf().is_some_and(|buf| buf.is_empty()));
}

#[test]
fn a_closed_ring_gives_its_descriptors_back() {
    let before = open_descriptors();
    for _ in 0..5 {
        let ring = ring();
        let to = echo_server(&ring);
        let inner = ring.clone();
        drive(&ring, async move {
            let socket = Socket::connect(&inner, to).await.unwrap();
            socket.send(Chunk::from_static(b"x").into()).await.unwrap();
            assert_eq!(&*socket.recv().await.unwrap(), b"x");
        });
    }
    // Other tests of this process open descriptors of their own: a leak would be five at least.
    let deadline = std::time::Instant::now() + PATIENCE;
    while open_descriptors() > before + 4 {
        assert!(std::time::Instant::now() < deadline, "descriptors leak");
        std::thread::yield_now();
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
