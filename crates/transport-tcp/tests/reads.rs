//! What the short way over a socket is made of: frames that are posted alone, and reads between polls.

mod common;

use common::*;
use sinew_transport::{ErrorKind, Peek, Role, UnacknowledgedBody};
use sinew_transport_tcp::{FRAME_MAX, StreamOptions};
use std::io::IoSlice;
use std::time::Duration;

/// What one read shows: the number and body of a frame, or whether a poll is needed.
fn read(end: &mut End, take: bool) -> Result<(u64, Vec<u8>), bool> {
    match end.lane.read(take, 3) {
        Peek::Frame(frame) => Ok((frame.header.tag, frame.body.to_vec())),
        Peek::Nothing => Err(false),
        Peek::Poll => Err(true),
    }
}

/// Reads until the system has something.
fn read_soon(end: &mut End, take: bool) -> Result<(u64, Vec<u8>), bool> {
    let mut take = take;
    let mut there = Err(false);
    wait("something to come", || {
        there = read(end, std::mem::take(&mut take));
        there != Err(false)
    });
    there
}

#[test]
fn a_frame_that_is_posted_alone_is_with_the_system_at_once_and_kept_until_it_is_acknowledged() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        let lens = [0, 8, 2047, 2048, 4096, 8192, FRAME_MAX];
        let bodies: Vec<Vec<u8>> = lens.iter().map(|&len| Random(7 + len as u64).bytes(len)).collect();
        for (number, body) in bodies.iter().enumerate() {
            assert_eq!(one.lane.post_through(&eager(number as u64), body), Ok(true));
            wait("it to come", || {
                other.turn();
                other.sink.frames.len() > number
            });
            assert_eq!(&other.sink.frames[number].1, body, "{family:?} {number}");
        }
        assert_eq!(one.lane.post_through(&eager(9), &vec![0; FRAME_MAX + 1]), Ok(false));
        assert_eq!(other.lane.unacknowledged(), 0);
        drop(other);
        let kept = one.lane.recover();
        assert_eq!(kept.len(), bodies.len(), "nothing was asked for, and nothing acknowledged");
        for (frame, body) in kept.iter().zip(&bodies) {
            assert!(matches!(&frame.body, UnacknowledgedBody::Owned(bytes) if bytes == body));
        }
        assert_eq!(one.lane.post_through(&eager(9), b"late"), Ok(false));
    }
}

#[test]
fn a_full_lane_posts_nothing_alone() {
    let mut net = Net::new(Family::Uds, StreamOptions::default());
    let (mut one, mut other) = ends(&mut net);
    let body = vec![3; 4096];
    let mut posted = 0;
    while one.lane.post_through(&eager(posted), &body).unwrap() {
        posted += 1;
    }
    assert!(one.lane.is_held_up() && posted > 100);
    wait("all that was posted", || {
        one.turn();
        other.turn();
        other.sink.frames.len() as u64 == posted && one.lane.unacknowledged() == 0
    });
    assert!(
        other
            .sink
            .frames
            .iter()
            .enumerate()
            .all(|(at, (header, got))| header.tag == at as u64 && *got == body)
    );
}

#[test]
fn a_read_shows_the_frame_that_came_alone_and_no_poll_hands_it_up_again() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        assert_eq!(read(&mut other, false), Err(false));
        for number in 0..100_u64 {
            let body = number.to_le_bytes();
            assert_eq!(one.lane.post_through(&eager(number), &body), Ok(true));
            assert_eq!(read_soon(&mut other, number > 0), Ok((number, body.to_vec())), "{family:?}");
            assert_eq!(read(&mut other, false), Ok((number, body.to_vec())), "it was not taken");
        }
        other.lane.take_peeked();
        assert!(!other.lane.has_more());
        one.lane.request_acknowledgement();
        wait("its acknowledgement", || {
            one.turn();
            other.turn();
            one.lane.unacknowledged() == 0
        });
        assert!(other.sink.frames.is_empty());
    }
}

#[test]
fn what_comes_together_or_in_part_is_left_to_the_next_poll() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        for number in 0..2 {
            one.lane.try_post(&eager(number), &[IoSlice::new(b"together")]).unwrap();
        }
        one.lane.flush().unwrap();
        assert_eq!(read_soon(&mut other, false), Err(true));
        assert!(other.lane.has_more(), "no descriptor tells of them any more");
        assert_eq!(other.lane.poll(&mut other.sink, 1), Ok(1));
        assert_eq!(read(&mut other, false), Ok((1, b"together".to_vec())), "from memory");
        other.lane.take_peeked();
        // A long one, of which there is a part first, or all: polls read it to its place.
        let body = Random(5).bytes(40_000);
        assert_eq!(one.lane.post_through(&eager(2), &body), Ok(true));
        assert_eq!(read_soon(&mut other, false), Err(true));
        wait("the long one", || {
            other.turn();
            other.sink.frames.len() == 2
        });
        assert_eq!(other.sink.frames[1], (eager(2), body));
    }
}

#[test]
fn the_end_that_a_read_finds_the_next_poll_tells() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (one, mut other) = ends(&mut net);
        drop(one);
        assert_eq!(read_soon(&mut other, false), Err(true));
        let error = other.lane.poll(&mut other.sink, 64).unwrap_err();
        assert_eq!((error.kind, error.code.is_none()), (ErrorKind::Broken, true), "{family:?}: {error}");
        assert_eq!(read(&mut other, false), Err(true));
    }
}

/// The system says only once that a connection was reset: what a read was told the next poll tells.
#[test]
fn why_a_connection_failed_is_told_though_a_read_has_heard_of_it() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (link, socket) = net.accept_socket();
    let mut end = End::new(lane(link, Role::Acceptor, 11, Duration::from_secs(60)));
    assert_eq!(read(&mut end, false), Err(false));
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(read_soon(&mut end, false), Err(true));
    let error = end.lane.poll(&mut end.sink, 64).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Broken);
    assert!(error.code.is_some(), "{error}");
}
