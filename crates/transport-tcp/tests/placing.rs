//! Whole messages that go to their place while they arrive, or are read to where one is expected.

mod common;

use common::*;
use sinew_transport::{Body, Header, Lane, LaneError, Placement, RECORD_LEN, Role, Sink, Token};
use sinew_transport_tcp::StreamOptions;
use sinew_wire::frame::{Kind, stream};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ptr::NonNull;

/// A sink with places for messages, one after the other.
#[derive(Default)]
struct Places {
    /// Asked for a place next, the last one first; taken out when it is given.
    places: Vec<Box<[u8]>>,
    /// Given, and not whole yet.
    given: Option<(Token, Box<[u8]>)>,
    /// Where a message is expected.
    expected: Option<Box<[u8]>>,
    asked: u64,
    /// What came: its body, and whether it lay where one was expected.
    came: Vec<(Header, Vec<u8>, bool)>,
}

// SAFETY: what was given out stays in `given`, untouched, until it is placed or the test has moved or revoked it; `expected` is
// touched by no poll but through the lane.
#[allow(unsafe_code)]
unsafe impl Sink for Places {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        let there = self.expected.as_ref().is_some_and(|expected| body.lies_in(expected.as_ptr(), 1));
        self.came.push((*header, body.to_vec(), there));
    }

    fn place(&mut self, _: &Header, _: usize) -> Placement {
        Placement::Discard
    }

    fn place_message(&mut self, header: &Header, len: usize) -> Option<(NonNull<u8>, Token)> {
        assert_eq!(header.kind, Kind::EAGER);
        self.asked += 1;
        let mut place = self.places.pop()?;
        assert!(place.len() >= len && self.given.is_none());
        let data = NonNull::new(place.as_mut_ptr()).unwrap();
        let token = Token(self.asked);
        self.given = Some((token, place));
        Some((data, token))
    }

    fn expected(&mut self) -> Option<(NonNull<u8>, usize)> {
        let place = self.expected.as_mut()?;
        Some((NonNull::new(place.as_mut_ptr()).unwrap(), place.len()))
    }

    fn placed(&mut self, header: &Header, len: usize) {
        let (_, place) = self.given.take().expect("placed without a place");
        self.came.push((*header, place[..len].to_vec(), false));
    }

    fn released(&mut self, _: Token) {}

    fn pulled(&mut self, _: Token, _: Result<(), LaneError>) {}
}

fn lane_and_socket(net: &mut Net) -> (Box<dyn Lane>, TcpStream) {
    let (mut link, mut socket) = net.accept_socket();
    socket.write_all(&[9; RECORD_LEN]).unwrap();
    let mut record = [0; RECORD_LEN];
    wait("the record", || link.try_recv(&mut record).unwrap());
    (lane(link, Role::Acceptor, 11, PEER_TIMEOUT), socket)
}

fn message(tag: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let body: Vec<u8> = (0..len).map(|at| (at as u64 * 7 + tag) as u8).collect();
    let mut bytes = stream::encode(&eager(tag), len as u32).to_vec();
    bytes.extend_from_slice(&body);
    (bytes, body)
}

/// Polls until the condition holds.
fn poll(lane: &mut Box<dyn Lane>, sink: &mut Places, what: &str, condition: impl Fn(&Places) -> bool) {
    wait(what, || {
        lane.poll(sink, 64).unwrap();
        condition(sink)
    });
}

/// Polls for a while, so that what was written may be read in parts; nothing depends on it.
fn settle(lane: &mut Box<dyn Lane>, sink: &mut Places) {
    for _ in 0..200 {
        lane.poll(sink, 64).unwrap();
        std::thread::yield_now();
    }
}

const LEN: usize = 40_000;

#[test]
fn a_message_goes_to_its_place_while_it_arrives_and_counts_when_it_is_whole() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut lane, mut socket) = lane_and_socket(&mut net);
    let mut sink = Places { places: vec![vec![0xee; LEN].into()], ..Places::default() };
    let (bytes, body) = message(1, LEN);
    socket.write_all(&bytes[..10_000]).unwrap();
    poll(&mut lane, &mut sink, "the place", |sink| sink.given.is_some());
    assert!(sink.came.is_empty(), "it is not whole");
    socket.write_all(&bytes[10_000..]).unwrap();
    poll(&mut lane, &mut sink, "the message", |sink| !sink.came.is_empty());
    assert!(sink.came[0] == (eager(1), body, false) && sink.asked == 1);
    lane.acknowledge();
    lane.flush().unwrap();
    let mut answer = [0; stream::HEADER_LEN];
    socket.read_exact(&mut answer).unwrap();
    let (header, _) = stream::decode(&answer).unwrap();
    assert_eq!((header.kind, header.tag), (Kind(192), 1), "one frame is acknowledged");
}

#[test]
#[allow(unsafe_code)]
fn a_message_that_is_moved_in_its_middle_never_touches_its_first_place_again() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut lane, mut socket) = lane_and_socket(&mut net);
    let mut sink = Places { places: vec![vec![0xee; LEN].into()], ..Places::default() };
    let (bytes, body) = message(1, LEN);
    socket.write_all(&bytes[..1_000]).unwrap();
    poll(&mut lane, &mut sink, "the place", |sink| sink.given.is_some());
    socket.write_all(&bytes[1_000..10_000]).unwrap();
    settle(&mut lane, &mut sink);
    let (first, mut old) = sink.given.take().expect("a place was given");
    let mut other: Box<[u8]> = vec![0xdd; LEN].into();
    // SAFETY: `other` goes to `given`, where it stays, untouched, until the message is whole.
    unsafe { lane.redirect(first, NonNull::new(other.as_mut_ptr()).unwrap(), Token(77)) };
    sink.given = Some((Token(77), other));
    old.fill(0x55);
    // A word that is not of the present target does nothing.
    lane.revoke(first);
    socket.write_all(&bytes[10_000..]).unwrap();
    poll(&mut lane, &mut sink, "the message", |sink| !sink.came.is_empty());
    assert!(sink.came[0].1 == body, "what had come came along");
    assert!(old.iter().all(|&byte| byte == 0x55), "written after it was given back");
    let (bytes, body) = message(2, 100);
    socket.write_all(&bytes).unwrap();
    poll(&mut lane, &mut sink, "the next one", |sink| sink.came.len() == 2);
    assert!(sink.came[1].1 == body);
}

#[test]
fn a_message_without_a_place_is_asked_for_once_and_comes_whole() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut lane, mut socket) = lane_and_socket(&mut net);
    let mut sink = Places::default();
    for tag in 1..=5 {
        let (bytes, body) = message(tag, LEN);
        for part in bytes.chunks(9_000) {
            socket.write_all(part).unwrap();
            settle(&mut lane, &mut sink);
        }
        poll(&mut lane, &mut sink, "the message", |sink| sink.came.len() as u64 == tag);
        assert!(sink.came[tag as usize - 1].1 == body);
        assert!(sink.asked <= tag, "asked {} times for {tag} messages", sink.asked);
    }
}

#[test]
fn what_is_read_to_where_another_message_was_expected_comes_as_if_it_had_not_been() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut lane, mut socket) = lane_and_socket(&mut net);
    let mut sink = Places { expected: Some(vec![0xee; LEN].into()), ..Places::default() };
    // Whole or in two parts, of the same length as the one before or not, short ones, and several at once.
    let lens = [LEN, LEN, LEN, 20_000, LEN, LEN, 0, 8, LEN, LEN, 200, LEN, 65_536, LEN, LEN];
    let mut expected = Vec::new();
    for (at, &len) in lens.iter().enumerate() {
        let (bytes, body) = message(at as u64, len);
        let cut = if at % 3 == 2 { bytes.len() / 2 } else { bytes.len() };
        socket.write_all(&bytes[..cut]).unwrap();
        settle(&mut lane, &mut sink);
        socket.write_all(&bytes[cut..]).unwrap();
        expected.push(body);
        poll(&mut lane, &mut sink, "the message", |sink| sink.came.len() == expected.len());
    }
    let (mut all, mut more) = (Vec::new(), 0);
    for tag in 100..120 {
        let (bytes, body) = message(tag, if tag % 4 == 0 { 33 } else { LEN });
        all.extend_from_slice(&bytes);
        expected.push(body);
        more += 1;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| socket.write_all(&all).unwrap());
        poll(&mut lane, &mut sink, "all of them", |sink| sink.came.len() == lens.len() + more);
    });
    for (at, (_, body, _)) in sink.came.iter().enumerate() {
        assert!(*body == expected[at], "message {at} arrived changed");
    }
    assert!(
        sink.came.iter().any(|(_, _, there)| *there),
        "some were read straight to where they were expected"
    );
}
