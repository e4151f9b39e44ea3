//! Promises about messages that are sent from several places at once, on each lane.

mod common;

use common::{content, pair, pair_with, until};
use sinew::{OpError, Progress};
use std::io::IoSlice;
use std::time::Duration;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    parts_of_odd_sizes_arrive_as_one_message,
    a_gathered_message_is_cut_short_by_a_short_buffer,
    a_gathered_message_that_times_out_is_taken_back,
    a_gathered_message_waits_for_credit,
] }

on_lanes! { shm_cut = "shm", uds_cut = "uds", tcp_cut = "tcp"; [a_gathered_message_outlives_its_lane] }

/// Parts of these sizes, each with content of its own.
fn parts_of(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().enumerate().map(|(at, &len)| content(len, at as u64 + len as u64)).collect()
}

fn slices(parts: &[Vec<u8>]) -> Vec<IoSlice<'_>> {
    parts.iter().map(|part| IoSlice::new(part)).collect()
}

const MIB: usize = 1 << 20;

fn shapes() -> Vec<Vec<usize>> {
    let odd = [0, 1, 39, 40, 41, 4095, 16_384, 16_385, 65_537, 0, MIB, 1];
    let mut shapes: Vec<Vec<usize>> = vec![
        vec![],
        vec![0, 0, 0],
        vec![1, 0, 39],
        odd.to_vec(),
        odd.iter().rev().copied().collect(),
        vec![MIB, 1, MIB - 1],
        vec![0, 300_000],
        vec![200_000, 0],
        // Many short ones, which are copied together, and many that are just long enough.
        vec![13; 5000],
        vec![4097; 100],
        vec![16_385; 40],
        (0..40).map(|at| if at % 2 == 0 { 1 } else { 66_666 }).collect(),
    ];
    for first in odd {
        shapes.push(vec![first, 100_000, first]);
        shapes.push(vec![100_000, first, 100_000]);
    }
    shapes
}

fn parts_of_odd_sizes_arrive_as_one_message(lane: &str) {
    let p = pair(lane);
    let shapes = shapes();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (tag, sizes) in shapes.iter().enumerate() {
                let parts = parts_of(sizes);
                p.to_b.message(tag as u64).send_slices(&slices(&parts)).unwrap();
                p.to_b.message(tag as u64).immediate(!(tag as u64)).send_slices(&slices(&parts)).unwrap();
            }
            // Nobody else makes this engine's progress: what its lane still holds goes out here.
            p.to_b.flush().unwrap();
        });
        let mut buf = vec![0; 4 * MIB];
        for (tag, sizes) in shapes.iter().enumerate() {
            let whole = parts_of(sizes).concat();
            for immediate in [None, Some(!(tag as u64))] {
                buf[..whole.len()].fill(0xee);
                let got = p.b.recv(tag as u64, &mut buf).unwrap();
                assert_eq!((got.len, got.immediate), (whole.len(), immediate), "parts of {sizes:?}");
                assert!(buf[..got.len] == whole[..], "content of {sizes:?}");
            }
        }
    });
}

fn a_gathered_message_is_cut_short_by_a_short_buffer(lane: &str) {
    let p = pair(lane);
    let sizes = [100_000, 39, 100_000];
    let parts = parts_of(&sizes);
    let whole = parts.concat();
    for room in [0, 1, 99_999, 100_000, 100_001, 100_039, 150_000] {
        std::thread::scope(|scope| {
            scope.spawn(|| p.to_b.message(1).send_slices(&slices(&parts)).unwrap());
            let mut buf = vec![0xee; room + 8];
            let error = p.b.recv(1, &mut buf[..room]).unwrap_err();
            assert!(matches!(error, OpError::Truncated { message_len: 200_039, .. }), "{error}");
            assert!(buf[..room] == whole[..room], "the beginning is there");
            assert_eq!(buf[room..], [0xee; 8]);
        });
    }
}

fn a_gathered_message_that_times_out_is_taken_back(lane: &str) {
    let p =
        pair_with(lane, Progress::Thread { cpu: None }, Progress::Thread { cpu: None }, common::options());
    let parts = parts_of(&[100_000, 1, 100_000]);
    let message = p.to_b.message(1).timeout(Duration::from_millis(50));
    let error = message.send_slices(&slices(&parts)).unwrap_err();
    assert!(matches!(error, OpError::TimedOut { .. }), "{error}");
    drop(parts);
    until("it is withdrawn", || p.b.probe(1).is_none());
    p.to_b.send(1, b"next").unwrap();
    assert_eq!(p.b.recv(1, &mut [0; 8]).unwrap().len, 4);
}

fn a_gathered_message_waits_for_credit(lane: &str) {
    let options = common::options().endpoint_window(4096usize).session_window(8192usize);
    let p = pair_with(lane, Progress::Caller, Progress::Thread { cpu: None }, options);
    let parts = parts_of(&[10, 0, 300, 1]);
    let whole = parts.concat();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                p.to_b.message(1).send_slices(&slices(&parts)).unwrap();
            }
            p.to_b.flush().unwrap();
        });
        let mut buf = [0; 400];
        for _ in 0..200 {
            let got = p.b.recv(1, &mut buf).unwrap();
            assert!(buf[..got.len] == whole[..]);
        }
    });
}

fn a_gathered_message_outlives_its_lane(lane: &str) {
    let p = pair(lane);
    let parts = parts_of(&[700_000, 39, 1, 1_300_000, 4096, 600_000]);
    let whole = parts.concat();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10 {
                p.to_b.message(1).send_slices(&slices(&parts)).unwrap();
            }
        });
        let mut buf = vec![0; whole.len()];
        for round in 0..10 {
            let receive = p.b.post_recv(1, std::mem::take(&mut buf)).unwrap();
            until("the lane can be cut", || p.here.cut(&p.to_b));
            let received = receive.wait().unwrap();
            assert!(received.buf.as_slice() == whole, "content of {round}");
            buf = received.buf.into_vec();
        }
    });
}
