//! Credit: counted to the byte, held while a message waits, given back, and news to whoever waits for it.

use super::inbound::{answers, eager, envelope, is_up, rig};
use super::{Rig, words};
use crate::completion::Match;
use crate::core::Started;
use crate::core::op::Memory;
use sinew_wire::frame::{Flags, Header, Kind};

/// As the peer counts it, whichever way the message has come.
#[test]
fn credit_is_announced_when_half_a_window_has_been_received() {
    for places in [false, true] {
        let (rig, lane, wire) = rig();
        wire.state().places = places;
        let windows = rig.core(|core| core.config.windows);
        let (cost, mut spent) = (4000 + 64, 0);
        let comes = |flags| {
            let key = rig.post(Match::any_tag(), 4096);
            let said = answers(&rig, lane, &wire, eager(1, flags), &[1; 4000]);
            assert_eq!(rig.got(key), Some(vec![1; 4000]));
            rig.core(|core| core.ops.remove(key));
            said
        };
        let said = loop {
            let said = comes(Flags(0));
            spent += cost;
            if spent >= windows.endpoint_bytes.min(windows.session_bytes) / 2 {
                break said;
            }
            assert!(said.is_empty(), "{spent}, placed: {places}");
        };
        let numbers: Vec<(u32, u64)> = said
            .iter()
            .filter(|(header, _)| header.kind == Kind::CREDIT)
            .map(|(header, body)| (header.dst, u64::from_le_bytes(body[..8].try_into().unwrap())))
            .collect();
        let (session, endpoint) = (windows.session_bytes + spent, windows.endpoint_bytes + spent);
        assert_eq!(numbers, [(0, session), (1, endpoint)], "placed: {places}");
        // What is paid from the reserve is the endpoint's alone.
        let said = comes(Flags::RESERVE);
        let numbers: Vec<(u32, &[u8])> = said.iter().map(|(header, body)| (header.dst, &body[..])).collect();
        assert_eq!(numbers.len(), 2, "it is half spent by one");
        assert_eq!(numbers[0].1[..8], words(&[session]));
        assert_eq!(numbers[1].1[..8], words(&[endpoint]));
        assert_eq!(numbers[1].1[16..24], words(&[windows.endpoint_bytes / 16 + cost]));
        let counted = rig.core(|core| {
            core.endpoint(1).map(|endpoint| (endpoint.messages_received, endpoint.bytes_received))
        });
        assert_eq!(counted, Some((spent / cost + 1, (spent / cost + 1) * 4000)));
    }
}

#[test]
fn what_waits_for_a_receive_holds_its_credit_until_it_is_taken() {
    let (rig, lane, wire) = rig();
    let window = rig.core(|core| core.config.windows.endpoint_bytes);
    let cost = 4000 + 64;
    for _ in 0..window / cost {
        assert!(answers(&rig, lane, &wire, eager(1, Flags(0)), &[1; 4000]).is_empty());
    }
    let mut announced = Vec::new();
    for taken in 1..=window / cost {
        let memory = Memory::Owned(vec![0; 4096].into());
        let started = rig.core(|core| core.start_recv(1, Match::any_tag(), memory, None));
        assert!(matches!(started, Started::Done(Ok(_), ..)));
        rig.core(|core| core.progress());
        if !wire.of(Kind::CREDIT).is_empty() {
            announced.push(taken);
        }
    }
    assert_eq!(announced.first(), Some(&(window / 2).div_ceil(cost)), "with half of it");
    assert!(is_up(&rig));
}

#[test]
fn credit_has_two_numbers_at_least() {
    let (rig, lane, wire) = rig();
    let flow = rig.core(|core| core.sessions.get_mut(rig.session).unwrap().flow_to(8)) as usize;
    let credit = |dst| Header { dst, ..Header::control(Kind::CREDIT, 0) };
    let bytes = |rig: &Rig| {
        rig.core(|core| {
            let session = core.sessions.get(rig.session).unwrap();
            let flow = &session.flows[flow];
            [
                session.bytes,
                session.envelopes,
                flow.bytes,
                flow.envelopes,
                flow.reserve_bytes,
                flow.reserve_envelopes,
            ]
            .map(|credit| credit.available())
        })
    };
    let before = bytes(&rig);
    rig.comes(lane, &wire, credit(0), &words(&[before[0] + 1, before[1] + 2]));
    rig.comes(lane, &wire, credit(8), &words(&[before[2] + 3, before[3] + 4]));
    assert_eq!(
        bytes(&rig),
        [before[0] + 1, before[1] + 2, before[2] + 3, before[3] + 4, before[4], before[5]]
    );
    rig.comes(lane, &wire, credit(8), &words(&[0, 0, before[4] + 5, before[5] + 6]));
    rig.comes(lane, &wire, credit(9), &words(&[1 << 40; 4]));
    assert_eq!(
        bytes(&rig)[2..],
        [before[2] + 3, before[3] + 4, before[4] + 5, before[5] + 6],
        "limits only go up"
    );
    assert!(is_up(&rig));
    rig.comes(lane, &wire, credit(0), &words(&[1, 2])[..15]);
    assert!(!is_up(&rig));
}

#[test]
fn envelopes_from_the_reserve_are_counted_apart() {
    let (rig, lane, wire) = rig();
    let windows = rig.core(|core| core.config.windows);
    let mut number = 0;
    let mut announce = |flags| {
        number += 1;
        rig.comes(lane, &wire, envelope(1, flags), &words(&[number, 1000]));
        is_up(&rig)
    };
    assert!(announce(Flags::RESERVE) && announce(Flags::RESERVE));
    for _ in 0..windows.endpoint_envelopes {
        assert!(announce(Flags(0)));
    }
    let counted = rig
        .core(|core| core.endpoint(1).map(|endpoint| (endpoint.messages_received, endpoint.bytes_received)));
    assert_eq!(counted, Some((windows.endpoint_envelopes + 2, (windows.endpoint_envelopes + 2) * 1000)));
    assert!(!announce(Flags::RESERVE), "it has two");
}

/// Whoever sleeps until there is credit is woken by each kind of it, and by no more than there is.
#[test]
fn each_kind_of_credit_is_news_once() {
    let (rig, lane, wire) = rig();
    let limits = rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        let flow = session.flow_to(8) as usize;
        let flow = &session.flows[flow];
        [flow.bytes, flow.envelopes, flow.reserve_bytes, flow.reserve_envelopes]
            .map(|credit| credit.available())
    });
    let whole = rig.core(|core| {
        let session = core.sessions.get(rig.session).unwrap();
        [session.bytes, session.envelopes].map(|credit| credit.available())
    });
    let is_news = |dst, numbers: &[u64]| {
        let header = Header { dst, ..Header::control(Kind::CREDIT, 0) };
        wire.state().arriving.push_back((header, words(numbers)));
        rig.core(|core| {
            core.effects = crate::core::Effects::default();
            core.poll_lane(lane, 64);
            core.effects.any()
        })
    };
    assert!(!is_news(8, &limits) && !is_news(0, &whole) && !is_news(9, &[1 << 40; 4]));
    let mut now = limits;
    for kind in 0..4 {
        now[kind] += 1;
        assert!(is_news(8, &now), "{kind}");
        assert!(!is_news(8, &now), "{kind} again");
    }
    let mut now = whole;
    for kind in 0..2 {
        now[kind] += 1;
        assert!(is_news(0, &now), "{kind} of all");
        assert!(!is_news(0, &now), "{kind} of all again");
    }
}

#[test]
fn what_waits_for_credit_goes_when_it_comes() {
    let (rig, lane, wire) = rig();
    let window = rig.core(|core| core.config.windows.endpoint_bytes);
    let fits = window / 4064;
    let send = || {
        rig.core(|core| {
            let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
            let header = Header { src: 1, ..eager(5, Flags(0)) };
            core.start_send(rig.session, flow, header, None, Memory::Owned(vec![1; 4000].into()), false);
            core.progress();
        });
    };
    (0..=fits).for_each(|_| send());
    assert_eq!(wire.of(Kind::EAGER).len() as u64, fits);
    rig.core(|core| core.progress());
    assert!(wire.take().is_empty());
    let credit = Header { dst: 5, ..Header::control(Kind::CREDIT, 0) };
    rig.comes(lane, &wire, credit, &words(&[window + 4064, 0]));
    rig.core(|core| core.progress());
    assert_eq!(wire.of(Kind::EAGER).len(), 1);
}

/// Nothing else sets the session going again: neither bytes nor time will do for them.
#[test]
fn what_waits_for_envelopes_goes_when_they_come() {
    let (rig, lane, wire) = rig();
    let granted = rig.core(|core| core.config.windows.endpoint_envelopes);
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        for _ in 0..=granted {
            let (header, memory) = (Header { src: 1, ..eager(5, Flags(0)) }, vec![1; 5000]);
            core.start_send(rig.session, flow, header, None, Memory::Owned(memory.into()), false);
        }
        core.progress();
    });
    assert_eq!(wire.of(Kind::ENVELOPE).len() as u64, granted);
    rig.core(|core| core.progress());
    assert!(wire.take().is_empty());
    let credit = Header { dst: 5, ..Header::control(Kind::CREDIT, 0) };
    rig.comes(lane, &wire, credit, &words(&[0, granted + 1]));
    rig.core(|core| core.progress());
    assert_eq!(wire.of(Kind::ENVELOPE).len(), 1);
}

/// A message is as dear when it is taken as when it came, whatever it is kept in, and gives back what it was paid from.
#[test]
fn each_message_gives_its_own_credit_back() {
    let (rig, lane, wire) = rig();
    // Others hold theirs meanwhile.
    for flags in [Flags(0), Flags::RESERVE] {
        rig.comes(lane, &wire, eager(1, flags.with(Flags::UNTAGGED)), &[1; 900]);
    }
    for (len, flags) in [(10, Flags(0)), (1000, Flags(0)), (10, Flags::RESERVE), (1000, Flags::RESERVE)] {
        let credit = || {
            rig.core(|core| {
                let windows = core.config.windows;
                let session = core.sessions.get_mut(rig.session).unwrap().granted_bytes.announce();
                let flow = core.endpoint(1).unwrap().inflow(rig.session, &windows);
                [session, flow.bytes.announce(), flow.reserve_bytes.announce()]
            })
        };
        let before = credit();
        rig.comes(lane, &wire, eager(1, flags), &vec![1; len]);
        assert_eq!(credit(), before);
        let memory = Memory::Owned(vec![0; len].into());
        let taken = rig.core(|core| core.start_recv(1, Match::any_tag(), memory, None));
        assert!(matches!(taken, Started::Done(Ok(_), ..)));
        let mut after = before;
        let counts: &[usize] = if flags == Flags::RESERVE { &[2] } else { &[0, 1] };
        counts.iter().for_each(|&at| after[at] += len as u64 + 64);
        assert_eq!(credit(), after, "{len} {flags:?}");
    }
}

#[test]
fn envelopes_of_several_endpoints_come_back_together() {
    let (rig, lane, wire) = rig();
    assert_eq!(rig.core(|core| core.create_endpoint(None)).unwrap(), 2);
    let windows = rig.core(|core| core.config.windows);
    let half = windows.session_envelopes / 2;
    assert!(half / 2 < windows.endpoint_envelopes / 2, "the endpoints have less to say");
    for number in 0..half {
        rig.comes(lane, &wire, envelope(1 + number as u32 % 2, Flags(0)), &words(&[number, 1000]));
    }
    for number in 0..half {
        let said = answers(&rig, lane, &wire, Header::control(Kind::WITHDRAW, number), &[]);
        let credit: Vec<&[u8]> =
            said.iter().filter(|(header, _)| header.dst == 0).map(|(_, body)| &body[8..16]).collect();
        if number + 1 < half {
            assert!(credit.is_empty(), "{number} of {half}");
        } else {
            assert_eq!(credit, [words(&[windows.session_envelopes + half])]);
        }
    }
}
