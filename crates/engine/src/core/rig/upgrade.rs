//! Better lanes: when a session with traffic is looked at, how lanes are measured, which candidates are tried, and how often.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::core::Purpose;
use crate::core::lanes::RECENT;
use crate::core::table::Key;
use crate::{EngineOptions, Security};
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

/// Two transports, of which the far one carries the session, whose peer can be dialled by both.
fn far(id: [u8; 16]) -> (Site, Net, Net, Peer, Key, Line) {
    far_with(id, EngineOptions::default())
}

fn far_with(id: [u8; 16], options: EngineOptions) -> (Site, Net, Net, Peer, Key, Line) {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::with([&near, &far], Security::Open, options);
    let peer = Peer::at(id, &[far.at("f"), near.at("n")]);
    let (session, line) = site.session(&far, &peer);
    far.places();
    quiet(&site, session);
    (site, near, far, peer, session, line)
}

/// Forgets what looks there were.
fn quiet(site: &Site, session: Key) {
    site.core(|core| {
        let session = core.sessions.get_mut(session).unwrap();
        (session.traffic, session.watch) = (0, Default::default());
    });
}

/// The peer sends something that counts.
fn speaks(site: &Site, line: &Line) {
    site.comes(line, Header::control(Kind::WITHDRAW, 1));
}

/// Traffic for so long, with a look at timers each 10 ms.
fn flows(site: &Site, line: &Line, ms: u64) {
    for _ in 0..ms / 10 {
        speaks(site, line);
        site.passes_ms(10);
    }
}

/// Answers all probes, of which there are so many.
fn answers(site: &Site, line: &Line) -> usize {
    let answered = std::iter::repeat_with(|| site.answers_probe(line, Duration::from_micros(2)));
    answered.take_while(|answered| *answered).count()
}

fn probes(line: &Line) -> usize {
    line.wire().of(Kind::PROBE).len()
}

#[test]
fn a_session_is_looked_at_each_tenth_of_a_second_while_it_has_traffic() {
    let (site, near, _far, _peer, session, line) = far(LESS);
    site.passes_ms(0);
    assert_eq!(site.timer(), None);
    speaks(&site, &line);
    assert_eq!(site.timer(), None, "no time is set before timers are run");
    site.passes_ms(0);
    assert_eq!(site.timer_ms(), Some(100));
    site.passes_ms(99);
    assert_eq!((probes(&line), near.places()), (0, vec![]));
    site.passes_ms(1);
    assert_eq!((probes(&line), near.places()), (1, vec!["n".to_owned()]));
    // Nothing has come since.
    site.passes_ms(100);
    site.passes_ms(100);
    assert_eq!(probes(&line), 0);
    assert!(!site.core(|core| core.lively.contains(&session)));
    assert!(!site.core(|core| core.sessions.get(session).unwrap().lively));
    // The answer to the look is traffic of no session: nothing is looked at for it.
    speaks(&site, &line);
    assert!(site.core(|core| core.lively.contains(&session)));
}

#[test]
fn between_two_looks_is_a_tenth_of_a_second_however_much_traffic_there_is() {
    let (site, _near, _far, _peer, _session, line) = far(LESS);
    speaks(&site, &line);
    site.passes_ms(0);
    site.passes_ms(100);
    assert!(answers(&site, &line) > 0);
    for _ in 0..9 {
        speaks(&site, &line);
        site.passes_ms(11);
        assert_eq!(answers(&site, &line), 0);
    }
    speaks(&site, &line);
    site.passes_ms(1);
    assert!(answers(&site, &line) > 0);
}

#[test]
fn a_lane_that_may_still_bring_something_keeps_its_session_in_the_list() {
    let (site, _near, _far, _peer, session, line) = far(LESS);
    speaks(&site, &line);
    line.wire().state().timer = Some(site.now() + Duration::from_secs(100));
    let mut looks = 0;
    for _ in 0..5 {
        site.passes_ms(100);
        looks += usize::from(answers(&site, &line) > 0);
    }
    assert_eq!(site.core(|core| core.lively.clone()), [session], "its traffic would not be told anew");
    assert_eq!(looks, 1, "without traffic it is not looked at");
    assert_eq!(site.core(|core| core.upgrade_timer()), None);
    line.wire().state().timer = None;
    site.passes_ms(100);
    site.passes_ms(100);
    assert_eq!(site.core(|core| core.lively.clone()), [Key::NONE; 0]);
}

#[test]
fn sessions_are_looked_at_each_in_its_own_time() {
    let net = Net::new("far", 9000);
    let site = Site::new([&net]);
    let sessions: Vec<(Key, Line)> =
        [LESS, [0; 15].into_iter().chain([2]).collect::<Vec<u8>>().try_into().unwrap()]
            .into_iter()
            .map(|id| site.session(&net, &Peer::new(id)))
            .collect();
    for (session, _) in &sessions {
        quiet(&site, *session);
    }
    speaks(&site, &sessions[0].1);
    site.passes_ms(0);
    site.passes_ms(40);
    speaks(&site, &sessions[1].1);
    site.passes_ms(0);
    assert_eq!(site.timer_ms(), Some(60));
    site.passes_ms(60);
    assert_eq!(sessions.iter().map(|(_, line)| probes(line)).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(site.timer_ms(), Some(40));
    site.passes_ms(40);
    assert_eq!(sessions.iter().map(|(_, line)| probes(line)).collect::<Vec<_>>(), [0, 1]);
}

/// Of two engines one decides, and nothing is to be chosen where the application has.
#[test]
fn who_does_not_decide_looks_for_nothing_nor_does_anybody_for_a_pinned_session() {
    let (site, near, _far, _peer, _session, line) = far(GREATER);
    flows(&site, &line, 500);
    assert_eq!((probes(&line), near.places()), (0, vec![]));
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&near, &far]);
    let peer = Peer::at(LESS, &[far.at("f"), near.at("n")]);
    site.connect(None, &[far.at("f")], Purpose::Pinned);
    let line = far.line();
    peer.answers(&site, &line);
    site.proves(&line, Duration::from_micros(2));
    site.carries(&line);
    line.wire().take();
    flows(&site, &line, 500);
    assert_eq!((probes(&line), near.places()), (0, vec![]));
}

#[test]
fn candidates_that_should_be_better_are_tried_later_and_later() {
    let (site, near, far, _peer, _session, line) = far(LESS);
    near.state().refuses = None;
    let mut waits = vec![];
    let mut since = site.now();
    while waits.len() < 10 {
        flows(&site, &line, 10);
        if !near.state().dialled.is_empty() {
            let dialled = near.line();
            site.fails(&dialled, ErrorKind::Refused);
            waits.push((site.now() - since).as_millis());
            since = site.now();
        }
    }
    // The first when it has been looked at once; from then on at the looks at which the wait is over.
    assert_eq!(waits[1..8], [100, 200, 400, 800, 1600, 3200, 6400]);
    assert_eq!(waits[8..], [10_000, 10_000]);
    assert_eq!(far.places(), [""; 0], "what it has is no candidate");
}

#[test]
fn a_trial_that_nobody_answers_is_over_after_three_seconds() {
    // Its link would have longer.
    let options = EngineOptions::default().handshake_timeout(Duration::from_secs(60));
    let (site, near, _far, _peer, _session, line) = far_with(LESS, options);
    flows(&site, &line, 110);
    let dialled = near.line();
    dialled.state().connecting = true;
    assert_eq!(site.core(|core| core.connects.len()), 1);
    for _ in 0..29 {
        site.passes_ms(100);
    }
    assert!(dialled.is_open());
    site.passes_ms(99);
    assert!(dialled.is_open());
    assert_eq!(site.timer_ms(), Some(1));
    site.passes_ms(1);
    assert!(!dialled.is_open());
    assert_eq!(site.core(|core| core.connects.len()), 0);
}

/// A dial that fails in the call leaves nothing behind, nor does one that finds nothing better.
#[test]
fn a_trial_that_fails_at_once_leaves_nothing() {
    let (site, near, _far, _peer, _session, line) = far(LESS);
    near.state().refuses = Some(ErrorKind::Refused);
    flows(&site, &line, 310);
    assert_eq!(site.core(|core| core.connects.len()), 0);
}

#[test]
fn the_session_moves_to_a_better_lane_once_that_is_proven() {
    let (site, near, far, peer, session, line) = far(LESS);
    flows(&site, &line, 110);
    let better = near.line();
    let engine = peer.answers(&site, &better);
    assert_eq!(
        (engine.hello.expected_engine, engine.hello.expected_incarnation),
        (peer.id, peer.incarnation)
    );
    site.proves(&better, Duration::from_nanos(200));
    line.wire().take();
    site.listens(&better);
    site.core(crate::core::Core::progress);
    let active = site.core(|core| core.sessions.get(session).unwrap().active);
    assert_eq!(active, Some(site.lane(&better)));
    // From then on nothing is better, and nothing is dialled.
    let resumes = better.wire().of(Kind::SWITCH);
    assert_eq!(resumes.len(), 1);
    let received = site.core(|core| core.sessions.get(session).unwrap().received);
    site.comes(&better, Header { dst: 2, ..Header::control(Kind::SWITCH, received) });
    flows(&site, &better, 2000);
    assert!(probes(&better) > 0, "it is looked at");
    assert_eq!((near.places(), far.places()), (vec![], vec![]));
}

#[test]
fn what_stands_by_is_measured_and_not_tried_again() {
    let (site, near, _far, peer, session, line) = far(LESS);
    flows(&site, &line, 110);
    let second = near.line();
    peer.answers(&site, &second);
    site.proves(&second, Duration::from_millis(50));
    site.listens(&second);
    site.core(crate::core::Core::progress);
    flows(&site, &line, 2000);
    let lanes = site.core(|core| core.sessions.get(session).unwrap().lanes.clone());
    assert_eq!(lanes, [site.lane(&line), site.lane(&second)]);
    assert!(probes(&second) > 0, "it may become better");
    assert_eq!(near.places(), [""; 0]);
}

/// A look is four round trips, of which the shortest counts; eight looks are remembered.
#[test]
fn what_counts_is_the_shortest_round_trip_of_each_of_the_last_looks() {
    let (site, _near, _far, _peer, _session, line) = far(LESS);
    let lane = site.lane(&line);
    let recent = || site.core(|core| core.lanes.get(lane).unwrap().proof.recent);
    let us = Duration::from_micros;
    speaks(&site, &line);
    site.passes_ms(0);
    site.passes_ms(100);
    for trip in [40, 20, 30, 50] {
        assert!(site.answers_probe(&line, us(trip)));
    }
    assert!(!site.answers_probe(&line, us(1)), "that is one look");
    assert_eq!(recent()[..2], [Some(20_000), None]);
    for look in 1..=RECENT as u64 {
        speaks(&site, &line);
        site.passes_ms(100);
        for trip in [200, 100 + look, 300, 400] {
            assert!(site.answers_probe(&line, us(trip)), "{look}");
        }
    }
    let expected: Vec<_> = (1..=RECENT as u64).rev().map(|look| Some((100 + look) * 1000)).collect();
    assert_eq!(recent()[..], expected, "the newest first, and the oldest is forgotten");
    // An answer that comes late is of the look that asked; there is none beside it.
    speaks(&site, &line);
    site.passes_ms(100);
    speaks(&site, &line);
    site.passes_ms(100);
    assert_eq!(probes(&line), 1);
}

#[test]
fn lanes_that_stand_by_are_measured_and_unproven_ones_are_not() {
    let (site, near, _far, peer, _session, line) = far(LESS);
    let near_line = {
        flows(&site, &line, 110);
        near.line()
    };
    peer.answers(&site, &near_line);
    assert_eq!(probes(&near_line), 1, "its first one");
    line.wire().take();
    flows(&site, &line, 300);
    assert_eq!(probes(&near_line), 0, "it is not proven yet");
}

/// A session without a lane wants no look: its time would have come all the while.
#[test]
fn a_session_without_a_lane_is_not_waited_for() {
    let (site, _near, far, _peer, session, line) = far(LESS);
    speaks(&site, &line);
    site.passes_ms(0);
    far.state().refuses = Some(ErrorKind::TimedOut);
    site.fails(&line, ErrorKind::Broken);
    site.core(|core| {
        let session = core.sessions.get_mut(session).unwrap();
        session.watch.look_at = Some(core.surroundings.now());
        session.traffic = 1;
    });
    assert_eq!(site.core(|core| core.upgrade_timer()), None);
    site.core(|core| core.sessions.get_mut(session).unwrap().traffic = 0);
    assert_eq!(site.core(|core| core.upgrade_timer()), None);
}
