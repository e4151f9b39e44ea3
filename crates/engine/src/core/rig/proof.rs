//! How a lane is proven, and what it is remembered by.

use super::site::{LESS, Net, Peer, Site};
use crate::core::Purpose;
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

const US: fn(u64) -> Duration = Duration::from_micros;

#[test]
fn a_lane_is_proven_by_four_small_round_trips_and_a_full_one() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    Peer::new(LESS).answers(&site, &line);
    let lane = site.lane(&line);
    let proof = || {
        site.core(|core| {
            let proof = &core.lanes.get(lane).unwrap().proof;
            (proof.rtt_ns, proof.full_rtt_ns, proof.verified)
        })
    };
    let mut nonces = vec![];
    for (at, (trip, len)) in [(40, 8), (20, 8), (30, 8), (50, 8), (900, 4096)].into_iter().enumerate() {
        let posted = line.wire().take();
        let [(probe, body)] = &posted[..] else { panic!("one at a time: {posted:?}") };
        assert_eq!((probe.kind, body.len()), (Kind::PROBE, len), "{at}");
        assert!(!proof().2);
        nonces.push(probe.tag);
        // An answer to something else is none.
        site.comes(&line, Header::control(Kind::PROBE_REPLY, probe.tag ^ 1));
        assert!(line.wire().take().is_empty());
        site.later(US(trip));
        site.comes(&line, Header::control(Kind::PROBE_REPLY, probe.tag));
    }
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 5, "nobody can answer what was not asked yet");
    assert_eq!(proof(), (Some(20_000), Some(900_000), true), "the shortest, and the full one");
    assert_eq!(line.wire().of(Kind::RESUME).len(), 1);
    site.carries(&line);
    let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
    let row = site.core(|core| core.explain_session(session).rows[0].clone());
    assert_eq!((row.rtt_ns, row.full_rtt_ns), (Some(20_000), Some(900_000)));
    // A reply to nothing measures nothing that is long.
    site.comes(&line, Header::control(Kind::PROBE_REPLY, nonces[0]));
}

#[test]
fn a_probe_of_the_peer_is_answered_by_as_many_bytes() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (_, line) = site.session(&net, &Peer::new(LESS));
    let lane = site.lane(&line);
    // Or by as many as one frame has here.
    for (asks, answers) in [(100, 100), (4096, 4096), (5000, 4096)] {
        line.wire().state().arriving.push_back((Header::control(Kind::PROBE, 5), vec![1; asks]));
        site.core(|core| core.poll_lane(lane, 64));
        let posted = line.wire().take();
        assert_eq!(posted.len(), 1);
        assert_eq!((posted[0].0, posted[0].1.len()), (Header::control(Kind::PROBE_REPLY, 5), answers));
    }
}

#[test]
fn a_lane_on_which_no_full_frame_comes_back_is_given_up_when_its_time_is_over() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    site.later(Duration::from_secs(1));
    Peer::new(LESS).answers(&site, &line);
    (0..4).for_each(|_| assert!(site.answers_probe(&line, Duration::ZERO)));
    assert_eq!(site.timer_ms(), Some(3000), "from when it became a lane");
    site.passes_ms(2999);
    assert!(line.is_open());
    site.passes_ms(1);
    assert!(!line.is_open() || site.core(|core| core.lanes.len()) == 0);
    let text = site.core(|core| core.told_of(connect));
    assert!(text.contains("probe") && text.contains("small frames pass, full ones may not"), "{text}");
    // It is tried again, as somebody may be there.
    assert!(site.stands(connect).is_none());
}

#[test]
fn a_lane_that_is_proven_has_no_deadline_any_more() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (session, line) = site.session(&net, &Peer::new(LESS));
    site.passes_ms(0);
    assert_eq!(site.timer(), None);
    assert!(site.core(|core| core.unproven.is_empty()));
    site.passes_ms(10_000);
    assert!(line.is_open());
    assert!(site.core(|core| core.sessions.get(session).unwrap().is_up()));
}

#[test]
fn a_lane_that_ends_before_it_is_proven_is_a_candidate_that_failed() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a"), net.at("b")], Purpose::Connect);
    let line = net.line();
    Peer::new(LESS).answers(&site, &line);
    site.fails(&line, ErrorKind::Refused);
    assert_eq!(net.places(), ["b"], "the next one is dialled at once");
    let text = site.core(|core| core.told_of(connect));
    assert!(text.starts_with("  one    one:a: poll"), "{text}");
    assert_eq!(site.core(|core| core.sessions.len()), 0);
}
