//! Peers that mean harm or are broken: what they send ends their own lane with a reason and nothing else.

mod common;

use common::*;
use sinew_transport::{ErrorKind, RECORD_LEN, Role};
use sinew_transport_tcp::{BORROWED_MAX, FRAME_MAX, StreamOptions};
use sinew_wire::frame::stream::{self, HEADER_LEN};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A lane whose other end is a bare socket.
fn lane_and_socket(net: &mut Net) -> (End, TcpStream) {
    let (mut link, mut socket) = net.accept_socket();
    socket.write_all(&[9; RECORD_LEN]).unwrap();
    let mut record = [0; RECORD_LEN];
    wait("the record", || link.try_recv(&mut record).unwrap());
    assert_eq!(record, [9; RECORD_LEN]);
    (End::new(lane(link, Role::Acceptor, 11, PEER_TIMEOUT)), socket)
}

fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = stream::encode(header, body.len() as u32).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

const ACK: Kind = Kind(192);
const ASK: Kind = Kind(193);

/// Sends bytes behind one good frame and says how the lane ended.
fn ended_by(bytes: &[u8]) -> sinew_transport::LaneError {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    socket.write_all(&frame(&eager(1), b"good")).unwrap();
    socket.write_all(bytes).unwrap();
    let error = end.error();
    assert_eq!(end.sink.frames, [(eager(1), b"good".to_vec())], "what came whole before is handed up");
    assert_eq!(end.lane.poll(&mut end.sink, 64), Err(error.clone()), "and the answer stays the same");
    assert_eq!(end.lane.next_timer(), None);
    error
}

#[test]
fn a_length_beyond_the_limit_ends_the_lane_before_a_byte_of_it_is_read() {
    for (kind, len) in [
        (Kind::EAGER, FRAME_MAX + 1),
        (Kind::EAGER, u32::MAX as usize),
        (Kind::DATA, BORROWED_MAX + 1),
        (Kind::DATA, u32::MAX as usize),
        (Kind(150), FRAME_MAX + 1),
        (ACK, 1),
        (ASK, 8),
        (Kind(255), 1),
    ] {
        let error = ended_by(&stream::encode(&Header { kind, ..eager(0) }, len as u32));
        assert_eq!(error.kind, ErrorKind::Protocol, "{kind:?} {len}: {error}");
        assert!(error.hint.contains(&len.to_string()), "{error}");
    }
}

#[test]
fn garbage_is_found_out_by_the_first_header() {
    let mut random = Random(99);
    for _ in 0..50 {
        let mut garbage = random.bytes(4096);
        garbage[0] |= 1;
        let error = ended_by(&garbage);
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    }
    let error = ended_by(&[0; 100]);
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
}

#[test]
fn an_acknowledgement_of_frames_never_sent_ends_the_lane() {
    for count in [1, u64::MAX] {
        let error = ended_by(&frame(&Header::control(ACK, count), &[]));
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    }
}

#[test]
fn an_acknowledgement_that_goes_backwards_ends_the_lane() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    for at in 0..3 {
        end.lane.try_post(&eager(at), &[]).unwrap();
    }
    end.lane.flush().unwrap();
    socket.write_all(&frame(&Header::control(ACK, 2), &[])).unwrap();
    wait("the acknowledgement", || {
        end.turn();
        end.lane.unacknowledged() == 1
    });
    socket.write_all(&frame(&Header::control(ACK, 1), &[])).unwrap();
    assert_eq!(end.error().kind, ErrorKind::Protocol);
    let rest = end.lane.recover();
    assert_eq!(rest.iter().map(|frame| frame.header.tag).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_lane_that_is_closed_acknowledges_what_it_handed_up_and_leaves_its_last_words_to_be_read() {
    for family in [Family::V4, Family::Uds] {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut end, mut other) = ends(&mut net);
        for at in 0..3 {
            other.lane.try_post(&eager(at), &[IoSlice::new(b"heard")]).unwrap();
        }
        other.lane.flush().unwrap();
        wait("the frames", || {
            end.turn();
            end.sink.frames.len() == 3
        });
        end.lane.try_post(&eager(7), &[IoSlice::new(&[7; 5000])]).unwrap();
        // Nobody reads this: a socket that is closed over it resets its connection.
        other.lane.try_post(&eager(9), &[IoSlice::new(&[9; 100])]).unwrap();
        other.lane.flush().unwrap();
        drop(end);
        let error = other.error();
        assert_eq!(error.kind, ErrorKind::Broken, "{error}");
        assert!(error.code.is_none(), "an end, and no reset: {error}");
        assert_eq!(other.sink.frames, [(eager(7), vec![7; 5000])], "{family:?}");
        let kept: Vec<u64> = other.lane.recover().iter().map(|frame| frame.header.tag).collect();
        assert_eq!(kept, [9], "{family:?}");
    }
}

#[test]
fn unknown_lane_frames_are_skipped_when_they_say_that_they_may_be() {
    let error = ended_by(&frame(&Header::control(Kind(200), 0), &[]));
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    let optional = Header { flags: Flags::OPTIONAL, ..Header::control(Kind(200), 0) };
    socket.write_all(&frame(&optional, &[])).unwrap();
    socket.write_all(&frame(&eager(1), b"after")).unwrap();
    wait("the frame behind it", || {
        end.turn();
        end.sink.frames.len() == 1
    });
}

#[test]
fn lane_bits_of_the_flags_never_reach_the_sink() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    socket.write_all(&frame(&Header { flags: Flags(0xdf), ..eager(1) }, b"x")).unwrap();
    wait("the frame", || {
        end.turn();
        end.sink.frames.len() == 1
    });
    assert_eq!(end.sink.frames[0].0.flags, Flags(0x0f));
}

#[test]
fn a_stream_cut_anywhere_hands_up_the_whole_frames_and_ends_as_broken() {
    let bodies = [vec![1; 10], vec![], vec![2; 3000], vec![3; 100]];
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for (at, body) in bodies.iter().enumerate() {
        let header = if at == 2 { Header::data(2, 0) } else { eager(at as u64) };
        bytes.extend(frame(&header, body));
        ends.push(bytes.len());
    }
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let near: Vec<usize> = ends.iter().flat_map(|end| end.saturating_sub(2)..end + 2).collect();
    for cut in (0..60).chain(near).filter(|cut| *cut <= bytes.len()) {
        let (mut end, mut socket) = lane_and_socket(&mut net);
        socket.write_all(&bytes[..cut]).unwrap();
        drop(socket);
        assert_eq!(end.error().kind, ErrorKind::Broken);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(end.sink.frames.len(), whole, "cut at {cut}");
    }
}

#[test]
fn a_stream_that_comes_byte_by_byte_means_the_same() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    socket.set_nodelay(true).unwrap();
    let mut bytes = frame(&eager(1), b"small");
    bytes.extend(frame(&Header::data(2, 77), &[5; 200]));
    bytes.extend(frame(&eager(3), &[]));
    for byte in &bytes {
        socket.write_all(&[*byte]).unwrap();
        end.turn();
    }
    wait("all frames", || {
        end.turn();
        end.sink.frames.len() == 3
    });
    assert_eq!(end.sink.frames[1], (Header::data(2, 77), vec![5; 200]));
}

#[test]
fn a_pad_is_skipped_and_one_of_a_wrong_length_ends_the_lane() {
    const PADDED: Flags = Flags(0x20);
    let padded = |header: Header, pad: u8, body: &[u8]| {
        let header = Header { flags: PADDED, ..header };
        let mut bytes = stream::encode(&header, body.len() as u32).to_vec();
        bytes.push(pad);
        bytes.resize(HEADER_LEN + usize::from(pad.max(1)), 0xcc);
        bytes.extend_from_slice(body);
        bytes
    };
    for pad in [0, 65, 255] {
        let error = ended_by(&padded(eager(1), pad, b"x"));
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    }
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    socket.set_nodelay(true).unwrap();
    let mut bytes = padded(Header::data(1, 0), 1, &[1; 100]);
    bytes.extend(padded(Header::data(2, 0), 64, &[2; 100]));
    bytes.extend(padded(eager(3), 17, b"three"));
    for byte in &bytes {
        socket.write_all(&[*byte]).unwrap();
        end.turn();
    }
    wait("all frames", || {
        end.turn();
        end.sink.frames.len() == 3
    });
    let bodies: Vec<&[u8]> = end.sink.frames.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [&[1; 100][..], &[2; 100], b"three"]);
}

#[test]
fn a_half_closed_peer_is_heard_to_its_last_frame() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    socket.write_all(&frame(&eager(1), b"last words")).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(end.error().kind, ErrorKind::Broken);
    assert_eq!(end.sink.frames, [(eager(1), b"last words".to_vec())]);
}

#[test]
fn a_failed_write_ends_the_lane_only_after_what_had_arrived_is_handed_up() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    for at in 0..10 {
        socket.write_all(&frame(&eager(at), b"x")).unwrap();
    }
    // Unread bytes at the closing side make it a reset.
    end.lane.try_post(&eager(1), &[]).unwrap();
    end.lane.flush().unwrap();
    wait("the frame to be there", || socket.peek(&mut [0; 64]).unwrap() > 0);
    drop(socket);
    wait("the write to fail or the peer's frames to be gone", || {
        for _ in 0..10 {
            let _ = end.lane.try_post(&eager(2), &[]);
            end.lane.flush().unwrap();
        }
        true
    });
    assert_eq!(end.error().kind, ErrorKind::Broken);
    assert_eq!(end.sink.frames.len(), 10);
    assert!(!end.lane.recover().is_empty());
}

#[test]
fn small_frames_posted_together_leave_in_few_segments_and_a_lone_one_leaves_at_once() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    let received = |socket: &TcpStream| data_segments_in(socket);
    end.lane.try_post(&eager(0), &[std::io::IoSlice::new(&[0; 8])]).unwrap();
    end.lane.flush().unwrap();
    let mut one = [0; HEADER_LEN + 8];
    socket.read_exact(&mut one).unwrap();
    let before = received(&socket);
    for at in 1..=1000u64 {
        end.lane.try_post(&eager(at), &[std::io::IoSlice::new(&at.to_le_bytes())]).unwrap();
    }
    end.lane.flush().unwrap();
    let mut all = vec![0; 1000 * (HEADER_LEN + 8)];
    socket.read_exact(&mut all).unwrap();
    let segments = received(&socket) - before;
    assert!((1..=4).contains(&segments), "1000 frames came in {segments} segments");
    assert_eq!(&all[all.len() - 8..], 1000u64.to_le_bytes());
}

/// `tcpi_data_segs_in` of `TCP_INFO`: what one write gives is one segment on loopback, up to 64 KiB.
#[allow(unsafe_code)]
fn data_segments_in(socket: &TcpStream) -> u32 {
    use std::os::fd::AsRawFd;
    const OFFSET: usize = 152;
    let mut info = [0u8; 232];
    let mut len = 232 as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(rc, 0);
    assert!(len as usize >= OFFSET + 4, "TCP_INFO is too short here");
    u32::from_ne_bytes(info[OFFSET..OFFSET + 4].try_into().unwrap())
}

#[test]
fn acknowledgements_travel_with_data_and_a_lone_one_comes_after_a_while() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    // A ping-pong: what comes back are the answers, and an acknowledgement only with some of them.
    let mut got = Vec::new();
    for at in 0..70u64 {
        socket.write_all(&frame(&eager(at), &[])).unwrap();
        wait("the frame", || {
            end.lane.poll(&mut end.sink, 64).unwrap();
            end.lane.flush().unwrap();
            end.sink.frames.len() as u64 == at + 1
        });
        end.lane.try_post(&eager(at), &[]).unwrap();
        end.lane.flush().unwrap();
        let mut answer = [0; HEADER_LEN];
        socket.read_exact(&mut answer).unwrap();
        let (header, _) = stream::decode(&answer).unwrap();
        got.push(header.kind);
        if header.kind == ACK {
            socket.read_exact(&mut answer).unwrap();
        }
    }
    let acknowledgements = got.iter().filter(|kind| **kind == ACK).count();
    assert!((1..=8).contains(&acknowledgements), "{acknowledgements} for 70 frames");
    // The last frames are acknowledged by a timer.
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut last = None;
    wait("the lone acknowledgement", || {
        end.turn();
        let mut header = [0; HEADER_LEN];
        if socket.read_exact(&mut header).is_ok() {
            last = Some(stream::decode(&header).unwrap().0);
        }
        last.is_some_and(|header| header == Header::control(ACK, 70))
    });
}

#[test]
fn an_asked_acknowledgement_comes_with_the_next_turn_without_a_timer() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut end, mut socket) = lane_and_socket(&mut net);
    for by_flag in [true, false] {
        let already = end.sink.frames.len() as u64;
        let flags = if by_flag { Flags(0x10) } else { Flags(0) };
        let mut bytes = frame(&Header { flags, ..eager(1) }, b"x");
        if !by_flag {
            bytes.extend(frame(&Header::control(ASK, 0), &[]));
        }
        socket.write_all(&bytes).unwrap();
        wait("the frame", || {
            end.lane.poll(&mut end.sink, 64).unwrap();
            end.lane.flush().unwrap();
            end.sink.frames.len() as u64 == already + 1
        });
        // The request may have come apart from the frame.
        socket.set_nonblocking(true).unwrap();
        let mut header = [0; HEADER_LEN];
        wait("the acknowledgement", || {
            end.lane.poll(&mut end.sink, 64).unwrap();
            end.lane.flush().unwrap();
            socket.read(&mut header).is_ok()
        });
        socket.set_nonblocking(false).unwrap();
        assert_eq!(stream::decode(&header).unwrap().0, Header::control(ACK, already + 1));
    }
}

#[test]
fn mutated_streams_in_any_pieces_hand_up_or_end_the_lane_and_never_more() {
    let mut random = Random(0xfeed);
    let mut net = Net::new(Family::V4, StreamOptions::default());
    for _ in 0..300 {
        let (mut end, mut socket) = lane_and_socket(&mut net);
        socket.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        for at in 0..20 {
            let kind = [Kind::EAGER, Kind::DATA, ACK, ASK, Kind(220), Kind::DONE][random.below(6) as usize];
            let len = if kind.0 >= 192 { 0 } else { random.below(300) as usize };
            let tag = if kind == ACK { 0 } else { at };
            bytes.extend(frame(&Header { kind, flags: Flags::OPTIONAL, ..eager(tag) }, &random.bytes(len)));
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, 0),
            }
            if bytes.is_empty() {
                bytes.push(1);
            }
        }
        let mut rest = &bytes[..];
        let mut over = None;
        while !rest.is_empty() && over.is_none() {
            let (now, later) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
            if socket.write_all(now).is_err() {
                break;
            }
            rest = later;
            over = turn(&mut end.lane, &mut end.sink).err();
        }
        drop(socket);
        let error = over.unwrap_or_else(|| end.error());
        assert!(matches!(error.kind, ErrorKind::Protocol | ErrorKind::Broken), "{error}");
        assert!(end.sink.frames.len() <= 21);
    }
}
