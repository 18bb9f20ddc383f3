//! What the fake kernel refuses to be party to.

use std::os::fd::{AsRawFd, IntoRawFd};

use io_uring::{opcode, squeue, types};

use super::entry::Asked;
use super::world::World;
use crate::ring::kernel::{Completion, Wait};

/// A world with one connection: the client's descriptor and the server's.
fn connected() -> (World, i32, i32) {
    let mut world = World::new(1);
    let (door, at) = world.listen("10.0.0.1:80".parse().unwrap()).unwrap();
    let accept = opcode::AcceptMulti::new(types::Fd(door.as_raw_fd())).build();
    ask(&mut world, &accept.user_data(1));
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let client = client.into_raw_fd();
    let to = socket2::SockAddr::from(at);
    let connect = opcode::Connect::new(types::Fd(client), to.as_ptr().cast(), to.len()).build();
    ask(&mut world, &connect.user_data(2));
    let told = hear(&mut world, 2);
    let server = told.iter().find(|done| done.user_data == 1).unwrap().result;
    (world, client, server)
}

fn ask(world: &mut World, entry: &squeue::Entry) {
    world.enter(vec![Asked::read(entry)], Wait::No, 0);
}

/// The next `count` completions.
fn hear(world: &mut World, count: usize) -> Vec<Completion> {
    world.enter(Vec::new(), Wait::Forever, count);
    let mut told = Vec::new();
    world.reap(&mut told, 256);
    told
}

fn send(fd: i32, bytes: &[u8]) -> squeue::Entry {
    opcode::SendZc::new(types::Fd(fd), bytes.as_ptr(), bytes.len() as u32)
        .build()
        .user_data(3)
}

#[test]
fn a_send_without_a_copy_has_two_completions() {
    let (mut world, client, _) = connected();
    let bytes = vec![1; 100];
    ask(&mut world, &send(client, &bytes));
    let told = hear(&mut world, 2);
    assert!(told[0].more() && told[0].result == 100, "{told:?}");
    assert!(told[1].is_notification() && !told[1].more(), "{told:?}");
}

#[test]
#[should_panic(expected = "lent memory was written to")]
fn lent_memory_is_not_to_be_written_to() {
    let (mut world, client, _) = connected();
    let mut bytes = vec![1; 100];
    ask(&mut world, &send(client, &bytes));
    bytes[7] = 2;
    hear(&mut world, 2);
}

#[test]
#[should_panic(expected = "closed while an operation names it")]
fn a_descriptor_is_not_closed_under_an_operation() {
    let (mut world, client, _) = connected();
    let recv = opcode::RecvMulti::new(types::Fd(client), 0).build();
    ask(&mut world, &recv.user_data(3));
    ask(&mut world, &opcode::Close::new(types::Fd(client)).build());
}

#[test]
#[should_panic(expected = "two receives on one socket")]
fn a_socket_has_one_receive() {
    let (mut world, _, server) = connected();
    for number in [3, 4] {
        let recv = opcode::RecvMulti::new(types::Fd(server), 0).build();
        ask(&mut world, &recv.user_data(number));
    }
}

#[test]
#[should_panic(expected = "the ring waits for what will never happen")]
fn a_wait_that_would_not_end_is_told() {
    let (mut world, client, _) = connected();
    let recv = opcode::RecvMulti::new(types::Fd(client), 0).build();
    ask(&mut world, &recv.user_data(3));
    hear(&mut world, 1);
}
