//! Messages just at the lengths at which the way changes, on every lane, in every form, into buffers of every fit; and options at
//! the ends of their ranges: an engine that is built works.

mod common;

use common::{Pair, content, options, pair_with};
use sinew::{Endpoint, Engine, EngineOptions, Match, OpError, Peer, Progress};
use std::time::Duration;

/// One below, at and one above each length at which something changes.
const LENGTHS: [usize; 25] = [
    0, 1, 39, 40, 41, 55, 56, 57, 1023, 1024, 1025, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535, 65_536,
    65_537, 262_145, 1_048_575, 1_048_576, 1_048_577, 3_000_001,
];

fn exchange(to: &Peer, at: &Endpoint, len: usize, tag: u64, form: usize) {
    let data = content(len, tag ^ len as u64);
    let send = match form % 3 {
        0 => to.post_send(tag, data.clone()).unwrap(),
        1 => {
            let mut buf = to.alloc(len).unwrap();
            buf.as_mut_slice().expect("writable").copy_from_slice(&data);
            to.post_send(tag, buf).unwrap()
        }
        _ => to.message(tag).immediate(!tag).post(data.clone()).unwrap(),
    };
    let room = match form % 4 {
        0 => len,
        1 => len + 1,
        2 => len.saturating_sub(1),
        _ => 0,
    };
    if form % 5 == 4 {
        match at.recv_message(tag, room) {
            Ok(message) => assert_eq!((message.to_vec(), message.info().tag), (data, tag)),
            Err(OpError::Truncated { message_len, buffer_len, .. }) => {
                assert!(room < len && message_len == len as u64 && buffer_len == room, "{len} {room} {form}");
            }
            Err(error) => panic!("{len} {room} {form}: {error}"),
        }
    } else {
        let mut buf = vec![0xee; room + 8];
        let (mine, canary) = buf.split_at_mut(room);
        let result = match form % 5 {
            0 => at.recv(tag, mine),
            1 => at.scope(|scope| scope.recv(Match::tag(tag), mine).unwrap().wait().0),
            2 => loop {
                match at.try_recv(tag, mine) {
                    Err(OpError::WouldBlock) => std::thread::yield_now(),
                    other => break other,
                }
            },
            _ => {
                let mut receives = [sinew::Receive::new(tag, mine)];
                at.recv_all(&mut receives).unwrap();
                receives[0].result().cloned().expect("it has ended")
            }
        };
        match result {
            Ok(info) => {
                assert_eq!((info.len, info.tag, info.immediate), (len, tag, (form % 3 == 2).then_some(!tag)));
                assert!(mine[..len] == data, "{len} {room} {form}");
            }
            Err(OpError::Truncated { message_len, buffer_len, .. }) => {
                assert!(room < len && message_len == len as u64 && buffer_len == room, "{len} {room} {form}");
                assert!(mine == &data[..room], "{len} {room} {form}: the beginning");
            }
            Err(error) => panic!("{len} {room} {form}: {error}"),
        }
        assert_eq!(canary, [0xee; 8], "{len} {room} {form}: written behind the buffer");
    }
    if let Err(failed) = send.wait() {
        panic!("{len} {room} {form}: sent: {failed}");
    }
}

fn every_length(p: &Pair) {
    for (number, &len) in LENGTHS.iter().enumerate() {
        // Each of 60 combinations meets some length, and each length some of them.
        for form in (0..10).map(|form| form * 7) {
            let tag = [0, 1, u64::MAX, 1 << 63, 7][(form + number) % 5];
            exchange(&p.to_b, &p.b, len, tag, form + number);
        }
    }
    assert_eq!((p.b.counters().posted, p.b.counters().unexpected), (0, 0));
}

fn each_progress(lane: &str) {
    let ways = [Progress::Caller, Progress::Thread { cpu: None }];
    for there in ways {
        every_length(&pair_with(lane, Progress::Thread { cpu: None }, there, options()));
    }
}

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [each_progress] }

/// Whether engines with these options can be built; those that can must be of use.
fn built(options: EngineOptions) -> bool {
    let builder = |options| {
        Engine::builder().domain("edges").progress(Progress::Thread { cpu: None }).options(options).build()
    };
    let (Ok(here), Ok(there)) = (builder(options.clone()), builder(options)) else { return false };
    let p = common::connected(here, there);
    for (form, len) in [0, 8, 41, 5000, 70_000, 1_500_000].into_iter().enumerate() {
        for form in [form, form + 5] {
            exchange(&p.to_b, &p.b, len, 5, form);
        }
    }
    let back = p.b.connect(p.a.address()).unwrap();
    exchange(&back, &p.a, 100_000, 6, 0);
    true
}

#[test]
fn options_at_the_ends_of_their_ranges_are_refused_or_work() {
    type Set = fn(EngineOptions, usize) -> EngineOptions;
    let sizes: [(&str, Set); 7] = [
        ("eager_max", EngineOptions::eager_max),
        ("send_buffer", EngineOptions::send_buffer),
        ("half_open_max", EngineOptions::half_open_max),
        ("endpoint_window", EngineOptions::endpoint_window),
        ("session_window", EngineOptions::session_window),
        ("endpoint_envelopes", EngineOptions::endpoint_envelopes),
        ("session_envelopes", EngineOptions::session_envelopes),
    ];
    for (name, set) in sizes {
        for value in [0, 1, usize::MAX] {
            let refused = value == 0 && name.ends_with("envelopes");
            assert_eq!(built(set(options(), value)), !refused, "{name} {value}");
        }
    }
    type SetTime = fn(EngineOptions, Duration) -> EngineOptions;
    let times: [(&str, SetTime); 5] = [
        ("connect_timeout", EngineOptions::connect_timeout),
        ("handshake_timeout", EngineOptions::handshake_timeout),
        ("peer_timeout", EngineOptions::peer_timeout),
        ("stagger", EngineOptions::stagger),
        ("spin", EngineOptions::spin),
    ];
    for (name, set) in times {
        assert!(built(set(options(), Duration::MAX)), "{name}");
        if name != "connect_timeout" {
            let refused = name.ends_with("timeout");
            assert_eq!(built(set(options(), Duration::ZERO)), !refused, "{name} 0");
        }
    }
}
