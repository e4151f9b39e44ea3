//! Golden bytes of the stream lane: `docs/wire/stream.md` as numbers. A change here is a change of the wire.
#![allow(unsafe_code)]

mod common;

use common::*;
use sinew_transport::{RECORD_LEN, Role, Token};
use sinew_transport_tcp::StreamOptions;
use sinew_wire::frame::stream::HEADER_LEN;
use sinew_wire::frame::{Flags, Header};
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::ptr::NonNull;

fn lane_and_socket(net: &mut Net) -> (End, TcpStream) {
    let (mut link, socket) = net.accept_socket();
    assert!(link.try_send(&[0x5a; RECORD_LEN]).unwrap());
    (End::new(lane(link, Role::Acceptor, 11, PEER_TIMEOUT)), socket)
}

#[rustfmt::skip]
const EAGER: [u8; 29] = [
    5, 0, 0, 0, 1, 1, 0x67, 0x51, 7, 0, 0, 0, 9, 0, 0, 0, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01,
    b'h', b'e', b'l', b'l', b'o',
];
#[rustfmt::skip]
const DATA: [u8; 24] = [
    0, 0x10, 0, 0, 4, 0x20, 0x9b, 0x50, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
];
#[rustfmt::skip]
const ACK: [u8; 24] = [
    0, 0, 0, 0, 192, 0, 0xd5, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
];
#[rustfmt::skip]
const ASK: [u8; 24] = [
    0, 0, 0, 0, 193, 0, 0x70, 0xa6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn a_lane_says_exactly_these_bytes() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    let mut record = [0; RECORD_LEN];
    socket.read_exact(&mut record).unwrap();
    assert_eq!(record, [0x5a; RECORD_LEN]);

    let header = Header { flags: Flags::IMMEDIATE, ..eager(0x0123_4567_89ab_cdef) };
    end.lane.try_post(&header, &[IoSlice::new(b"hel"), IoSlice::new(b"lo")]).unwrap();
    end.lane.flush().unwrap();
    let mut bytes = [0; EAGER.len()];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, EAGER);

    // A body at the start of a page gets a pad of 40 bytes, so that it begins 64 bytes into the write.
    let memory = vec![0x77; 3 * 4096];
    let page = memory.as_ptr().align_offset(4096);
    let body = NonNull::from(&memory[page]);
    // SAFETY: 4096 bytes from `page` on lie inside `memory`, which outlives the lane's use and is not written.
    unsafe { end.lane.try_post_borrowed(&Header::data(3, 0x1_0000), body, 4096, Token(1)) }.unwrap();
    end.lane.flush().unwrap();
    let mut bytes = vec![0; HEADER_LEN + 40 + 4096];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..24], DATA);
    let mut pad = [0; 40];
    pad[0] = 40;
    assert_eq!(bytes[24..64], pad);
    assert!(bytes[64..].iter().all(|&byte| byte == 0x77));

    end.lane.request_acknowledgement();
    end.lane.flush().unwrap();
    let mut bytes = [0; 24];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, ASK);

    socket.write_all(&EAGER).unwrap();
    socket.write_all(&ASK).unwrap();
    wait("the frame", || {
        end.turn();
        end.sink.frames == [(header, b"hello".to_vec())]
    });
    socket.set_nonblocking(true).unwrap();
    wait("the acknowledgement", || {
        end.turn();
        socket.read(&mut bytes).is_ok()
    });
    assert_eq!(bytes, ACK);
}
