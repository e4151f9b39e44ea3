//! Turns of progress: which lanes are looked at and how often, what a look at descriptors finds, timers, and when there is time to
//! sleep.

use super::Rig;
use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::core::table::Key;
use crate::core::{BUDGET, Core, Owner};
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

/// A frame that needs no answer.
fn word() -> (Header, Vec<u8>) {
    (Header::control(Kind::WITHDRAW, 1), Vec::new())
}

fn brings(line: &Line, frames: usize) {
    line.wire().state().arriving.extend((0..frames).map(|_| word()));
}

fn polls(line: &Line) -> u32 {
    std::mem::take(&mut line.wire().state().polls)
}

fn looks(site: &Site) -> u32 {
    std::mem::take(&mut site.world.state().looks)
}

fn owner_of_listener(site: &Site) -> u32 {
    site.core(|core| core.owners.iter().position(|owner| *owner == Owner::Domain(0)).unwrap() as u32)
}

/// A turn in which its lane has something: one in memory, or a socket that holds frames back.
fn busy_turn(site: &Site, memory_polled: bool) -> usize {
    site.core(|core| {
        if !memory_polled {
            let lane = core.hot_socket.unwrap();
            core.lanes.get_mut(lane).unwrap().behind = true;
            core.behind.push_back(lane);
        }
        core.turn(1)
    })
}

/// A lane in memory, as it is after a word from the peer, and one over a socket.
fn both() -> (Site, Line, Line) {
    let (memory, socket) = (Net::new("shared", 100), Net::new("one", 1000));
    memory.state().memory_polled = true;
    let site = Site::new([&memory, &socket]);
    let (_, hot) = site.session(&memory, &Peer::new(LESS));
    let (_, cold) = site.session(&socket, &Peer::new(GREATER));
    site.core(|core| core.idle_turns = 0);
    site.core(|core| core.turns = 0);
    looks(&site);
    for line in [&hot, &cold] {
        polls(line);
    }
    (site, hot, cold)
}

#[test]
fn a_turn_without_anything_looks_at_memory_each_time_and_at_the_rest_now_and_then() {
    let (site, hot, cold) = both();
    for _ in 0..127 {
        assert_eq!(site.core(|core| core.turn(1)), 0);
    }
    assert_eq!((polls(&hot), polls(&cold), looks(&site)), (127, 0, 0));
    assert_eq!(site.core(|core| core.turn(1)), 0);
    assert_eq!((polls(&hot), polls(&cold), looks(&site)), (1, 1, 1));
    // What the socket has is found then, and descriptors need not be asked.
    brings(&cold, 1);
    for turn in 1..=128 {
        let found = site.core(|core| core.turn(1));
        assert_eq!(found, usize::from(turn == 128));
    }
    assert_eq!(looks(&site), 0);
    // A turn that found something begins the count anew.
    for _ in 0..100 {
        site.core(|core| core.turn(1));
    }
    brings(&hot, 1);
    assert_eq!(site.core(|core| core.turn(1)), 1);
    for _ in 0..127 {
        site.core(|core| core.turn(1));
    }
    assert_eq!(looks(&site), 0);
    site.core(|core| core.turn(1));
    assert_eq!(looks(&site), 1);
}

#[test]
fn without_memory_each_turn_looks_at_the_socket_that_was_busy_last_or_at_descriptors() {
    let (one, two) = (Net::new("one", 1000), Net::new("two", 1000));
    let site = Site::new([&one, &two]);
    let (_, first) = site.session(&one, &Peer::new(LESS));
    let (_, second) = site.session(&two, &Peer::new(GREATER));
    site.core(|core| (core.idle_turns, core.turns) = (0, 0));
    looks(&site);
    polls(&first);
    polls(&second);
    for _ in 0..127 {
        assert_eq!(site.core(|core| core.turn(1)), 0);
    }
    assert_eq!((polls(&first), polls(&second), looks(&site)), (0, 127, 0));
    site.core(|core| core.turn(1));
    assert_eq!((polls(&second), looks(&site)), (1, 1));
    // What it brings is counted, and each frame is one of a budget.
    brings(&second, 3);
    assert_eq!(site.core(|core| core.turn(2)), 2);
    assert!(site.core(|core| core.socket_has_more()));
    assert_eq!(site.core(|core| core.turn(2)), 1);
    assert!(!site.core(|core| core.socket_has_more()));
    // Once it is gone each turn asks descriptors.
    site.fails(&second, ErrorKind::Broken);
    looks(&site);
    for _ in 0..5 {
        site.core(|core| core.turn(1));
    }
    assert_eq!(looks(&site), 5);
    brings(&first, 1);
    let owner = first.state().owner;
    site.world.state().ready.push(sinew_transport::Event {
        key: sinew_transport::PollKey { owner, sub: 0 },
        readable: true,
        writable: false,
        closed: false,
    });
    assert_eq!(site.core(|core| core.turn(1)), 1);
    assert_eq!(first.wire().state().events, 1);
    polls(&first);
    site.core(|core| core.turn(1));
    assert_eq!(polls(&first), 1, "that one was busy last");
}

#[test]
fn descriptors_and_cooled_lanes_are_not_forgotten_while_others_are_busy() {
    for memory_polled in [true, false] {
        let net = Net::new("one", 1000);
        net.state().memory_polled = memory_polled;
        let site = Site::new([&net]);
        let (_, line) = site.session(&net, &Peer::new(LESS));
        site.core(|core| (core.idle_turns, core.turns) = (0, 0));
        looks(&site);
        let often = if memory_polled { 4096 } else { 512 };
        let turns = |count: u32| {
            for _ in 0..count {
                brings(&line, 1);
                assert_eq!(busy_turn(&site, memory_polled), 1);
            }
        };
        turns(often - 1);
        assert_eq!(looks(&site), 0);
        turns(1);
        assert_eq!(looks(&site), 1);
        // What the look finds is counted with the rest.
        turns(often - 1);
        let (_, other) = (Line::to(&net).state().connecting = true, owner_of_listener(&site));
        let key = sinew_transport::PollKey { owner: other, sub: 0 };
        let event = sinew_transport::Event { key, readable: true, writable: false, closed: false };
        site.world.state().ready = vec![event];
        brings(&line, 1);
        assert_eq!(busy_turn(&site, memory_polled), 2);
    }
}

/// A lane in memory that was cooled is heated when its domain says that it has something: soon while nothing else happens, and not
/// never while something does. What is found counts as done.
#[test]
fn a_cooled_lane_that_has_something_is_heated() {
    for busy in [false, true] {
        let (memory, other) = (Net::new("shared", 100), Net::new("second", 100));
        memory.state().memory_polled = true;
        other.state().memory_polled = true;
        let site = Site::new([&memory, &other]);
        let (_, hot) = site.session(&memory, &Peer::new(LESS));
        let (_, cooled) = site.session(&other, &Peer::new(GREATER));
        let lane = site.lane(&cooled);
        site.core(|core| {
            core.lanes.get_mut(lane).unwrap().hot = false;
            core.hot.retain(|&hot| hot != lane);
            (core.idle_turns, core.turns) = (0, 0);
        });
        brings(&cooled, 2);
        other.state().warm = vec![cooled.state().owner];
        let often = if busy { 64 } else { 2 };
        for turn in 1..=often {
            brings(&hot, usize::from(busy));
            let found = site.core(|core| core.turn(1));
            let expected = usize::from(busy) + if turn == often { 2 } else { 0 };
            assert_eq!(found, expected, "{turn}");
        }
        assert!(site.core(|core| core.hot.contains(&lane)));
    }
}

#[test]
fn what_is_ready_is_handled_by_whom_it_is_for_and_counted() {
    let (net, other) = (Net::new("one", 1000), Net::new("shared", 100));
    other.state().memory_polled = true;
    let site = Site::new([&net, &other]);
    let (_, line) = site.session(&net, &Peer::new(LESS));
    let (_, cooled) = site.session(&other, &Peer::new(GREATER));
    let owner = line.state().owner;
    assert_eq!(site.happens(owner), 0);
    brings(&line, 2);
    assert_eq!(site.happens(owner), 2);
    assert_eq!(line.wire().state().events, 2);
    assert!(site.core(|core| core.astir.contains(&core.hot_socket.unwrap())));
    // A listener: links, and lanes of its domain that were cooled.
    assert_eq!((site.looks_at(&net), net.state().events.len()), (0, 1));
    for _ in 0..3 {
        Line::to(&net).state().connecting = true;
    }
    assert_eq!(site.looks_at(&net), 3);
    brings(&cooled, 2);
    other.state().warm = vec![cooled.state().owner, 77, 0];
    Line::to(&net);
    assert_eq!(site.looks_at(&net), 3, "one link and two frames");
    // A link that moves is one thing done.
    site.connect(None, &[net.at("there")], crate::core::Purpose::Connect);
    let link = net.line();
    let links = link.state().owner;
    assert_eq!(site.happens(links), 1);
    let all = [links, owner].map(|owner| sinew_transport::Event {
        key: sinew_transport::PollKey { owner, sub: 0 },
        readable: true,
        writable: false,
        closed: false,
    });
    brings(&line, 2);
    assert_eq!(site.core(|core| core.dispatch(&all)), 3);
    // Nobody's, and the engine's own, which wakes sleepers.
    assert_eq!(site.happens(999), 0);
    site.core(|core| {
        core.effects.clear();
        assert_eq!(core.owners[0], Owner::Waker);
    });
    let woken = site.core(|core| {
        let key = sinew_transport::PollKey { owner: 0, sub: 0 };
        core.dispatch(&[sinew_transport::Event { key, readable: true, writable: false, closed: false }]);
        core.effects.any()
    });
    assert!(woken);
}

#[test]
fn a_look_at_descriptors_says_what_it_has_done_and_runs_timers_once_in_a_millisecond() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (_, line) = site.session(&net, &Peer::new(LESS));
    let look = || site.core(|core| core.look(Some(Duration::ZERO)));
    site.later(Duration::from_secs(1));
    assert_eq!(look(), 0);
    line.wire().state().timer = Some(site.now());
    site.core(|core| core.stir(core.hot_socket.unwrap()));
    brings(&line, 2);
    let key = sinew_transport::PollKey { owner: line.state().owner, sub: 0 };
    let event = sinew_transport::Event { key, readable: true, writable: false, closed: false };
    site.world.state().ready = vec![event];
    assert_eq!(look(), 2);
    let timed = || line.wire().state().timed.len();
    assert_eq!(timed(), 0, "they have just been looked at");
    site.later(Duration::from_micros(999));
    look();
    assert_eq!(timed(), 0);
    site.later(Duration::from_micros(1));
    assert_eq!((look(), timed()), (0, 1));
    look();
    assert_eq!(timed(), 1);
    site.later(Duration::from_millis(1));
    look();
    assert_eq!(timed(), 2);
}

#[test]
fn lanes_are_timed_while_they_want_it_and_fail_by_it() {
    let (one, two) = (Net::new("one", 1000), Net::new("two", 1000));
    let site = Site::new([&one, &two]);
    let (_, first) = site.session(&one, &Peer::new(LESS));
    let (_, second) = site.session(&two, &Peer::new(GREATER));
    let lanes = [site.lane(&first), site.lane(&second)];
    let astir = || site.core(|core| core.astir.clone());
    let stirs = || lanes.iter().for_each(|lane| site.core(|core| core.stir(*lane)));
    site.passes_ms(0);
    assert_eq!((astir(), site.timer()), (vec![], None), "nothing to wait for");
    stirs();
    first.wire().state().timer = Some(site.now() + Duration::from_millis(30));
    second.wire().state().timer = Some(site.now() + Duration::from_millis(20));
    assert_eq!(site.timer_ms(), Some(20));
    site.passes_ms(20);
    assert_eq!((first.wire().state().timed.len(), second.wire().state().timed.len()), (0, 1));
    site.passes_ms(10);
    assert_eq!((first.wire().state().timed.len(), second.wire().state().timed.len()), (1, 2));
    first.wire().state().timer = None;
    site.passes_ms(1);
    assert_eq!(astir(), [lanes[1]]);
    stirs();
    assert_eq!(astir().len(), 2);
    second.wire().state().timed_out = true;
    site.passes_ms(1);
    assert!(site.core(|core| core.lanes.get(lanes[1]).is_none() && core.lanes.get(lanes[0]).is_some()));
    assert_eq!(astir(), [Key::NONE; 0]);
}

#[test]
fn there_is_time_to_sleep_when_nothing_is_left_anywhere() {
    let (memory, socket) = (Net::new("shared", 100), Net::new("one", 1000));
    memory.state().memory_polled = true;
    let site = Site::new([&memory, &socket]);
    let (_, hot) = site.session(&memory, &Peer::new(LESS));
    let (_, cold) = site.session(&socket, &Peer::new(GREATER));
    let arm = || site.core(Core::arm);
    assert!(arm());
    assert!(memory.state().armed.0 && socket.state().armed.0);
    site.core(Core::disarm);
    assert!(!memory.state().armed.0 && !socket.state().armed.0);
    brings(&hot, 1);
    assert!(!arm(), "a frame in memory");
    site.core(|core| core.turn(1));
    assert!(arm());
    brings(&cold, 2);
    let lane = site.lane(&cold);
    site.core(|core| core.poll_lane(lane, 1));
    assert!(!arm(), "a frame that a socket holds back");
    assert_eq!(site.core(Core::progress), 1);
    assert!(arm());
    socket.state().busy = true;
    assert!(!arm(), "a doorbell");
    socket.state().busy = false;
    memory.state().busy = true;
    assert!(!arm());
}

/// The caller of one turn may not come again, and no descriptor tells of what a lane holds back.
#[test]
fn what_a_turn_leaves_in_a_lane_wakes_whoever_sleeps() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (_, line) = site.session(&net, &Peer::new(LESS));
    let wakes = |frames: usize| {
        brings(&line, frames);
        site.core(|core| {
            let done = core.progress();
            assert_eq!(done, frames.min(BUDGET));
            let any = core.effects.any();
            core.effects.clear();
            any
        })
    };
    assert!(!wakes(0) && !wakes(1));
    assert!(wakes(BUDGET + 3));
    // They are taken at the next turn, and counted.
    assert_eq!(site.core(Core::progress), 3);
    assert!(site.core(|core| core.behind.is_empty()));
}

/// Two lanes at once, and one that holds frames back: all that a turn has found is what it says.
#[test]
fn what_all_lanes_bring_is_counted() {
    let (site, hot, cold) = both();
    brings(&cold, 5);
    let lane = site.lane(&cold);
    site.core(|core| core.poll_lane(lane, 1));
    brings(&hot, 3);
    assert_eq!(site.core(|core| core.turn(2)), 4);
    assert_eq!(site.core(|core| core.turn(2)), 3);
    assert_eq!(site.core(|core| core.turn(2)), 0);
}

#[test]
fn what_waits_to_be_sent_is_sent_by_the_next_turn_and_asked_for_within_a_millisecond() {
    let (rig, _lane, wire) = Rig::carried([0; 16]);
    let session = rig.session;
    rig.core(Core::progress);
    wire.take();
    let holds = || rig.core(|core| core.holds_back());
    assert!(!holds());
    let control = |core: &mut Core| core.send_control(session, Header::control(Kind::WITHDRAW, 5), []);
    rig.core(|core| {
        wire.state().full = true;
        control(core);
    });
    assert!(holds());
    rig.core(|core| core.send_staged());
    assert!(holds(), "there was no room");
    let now = rig.core(|core| core.surroundings.now());
    let due = rig.core(|core| core.next_timer(now)).unwrap();
    assert_eq!(due - now, Duration::from_millis(1));
    wire.state().full = false;
    rig.core(|core| core.send_staged());
    assert!(!holds());
    assert_eq!(wire.of(Kind::WITHDRAW).len(), 1);
    assert_eq!(rig.core(|core| core.next_timer(now)), None);
    // Credit that is waited for, likewise; a time that has passed is over.
    rig.core(|core| core.starved_at = Some(now + Duration::from_millis(7)));
    assert_eq!(rig.core(|core| core.next_timer(now)).map(|at| at - now), Some(Duration::from_millis(7)));
    let later = now + Duration::from_millis(7);
    assert_eq!(rig.core(|core| core.next_timer(later)), None);
    assert_eq!(rig.core(|core| core.starved_at), None);
}

#[test]
fn a_message_waits_for_others_while_one_waits() {
    let (rig, ..) = Rig::hot();
    let holds = || rig.core(|core| core.holds_back());
    assert!(!holds());
    rig.core(|core| core.permits.to_send.staged_only = true);
    assert!(holds());
    rig.core(|core| core.permits.to_send.staged_only = false);
    assert!(!holds());
}
