//! Credits under any interleaving of messages, freeing and limits that come late, twice or out of order.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Envelope,
    Deliver,
    Free(usize),
    Announce,
    /// Deliver the limit at this place of all that were ever announced: late, again, or in order.
    Hear(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..300_u64).prop_map(Step::Send),
        2 => Just(Step::Envelope),
        5 => Just(Step::Deliver),
        4 => any::<usize>().prop_map(Step::Free),
        3 => Just(Step::Announce),
        3 => any::<usize>().prop_map(Step::Hear),
    ];
    prop::collection::vec(step, 0..400)
}

/// One session with one endpoint; the session's window is smaller or larger than the endpoint's.
struct World {
    send: [Sender; 2],
    receive: [Receiver; 2],
    windows: [(u64, u64); 2],
    /// Cost in bytes, or 0 for an envelope.
    flying: VecDeque<u64>,
    held: Vec<u64>,
    announced: [Vec<(u64, u64)>; 2],
}

impl World {
    fn new(windows: [(u64, u64); 2]) -> Self {
        Self {
            send: windows.map(|(bytes, envelopes)| Sender::new(bytes, envelopes)),
            receive: windows.map(|(bytes, envelopes)| Receiver::new(bytes, envelopes)),
            windows,
            flying: VecDeque::new(),
            held: Vec::new(),
            announced: [Vec::new(), Vec::new()],
        }
    }

    fn send(&mut self, len: u64) -> Take {
        let [endpoint, session] = &mut self.send;
        let answer = try_take_message(endpoint, session, len);
        if answer == Take::Taken {
            self.flying.push_back(message_cost(len));
        }
        answer
    }

    fn envelope(&mut self) -> Take {
        let [endpoint, session] = &mut self.send;
        let answer = try_take_envelope(endpoint, session);
        if answer == Take::Taken {
            self.flying.push_back(0);
        }
        answer
    }

    fn deliver(&mut self) {
        let Some(cost) = self.flying.pop_front() else { return };
        for receiver in &mut self.receive {
            let count = if cost == 0 { receiver.envelopes.receive(1) } else { receiver.bytes.receive(cost) };
            count.expect("a sender that keeps to its credit never overruns");
        }
        self.held.push(cost);
        self.check();
    }

    fn free(&mut self, choice: usize) {
        if self.held.is_empty() {
            return;
        }
        let cost = self.held.swap_remove(choice % self.held.len());
        for receiver in &mut self.receive {
            if cost == 0 {
                receiver.envelopes.free(1);
            } else {
                receiver.bytes.free(cost);
            }
        }
    }

    fn announce(&mut self) {
        for (receiver, announced) in self.receive.iter_mut().zip(&mut self.announced) {
            announced.extend(receiver.poll_announcement());
        }
    }

    fn hear(&mut self, choice: usize) {
        for (sender, announced) in self.send.iter_mut().zip(&self.announced) {
            if !announced.is_empty() {
                let (bytes, envelopes) = announced[choice % announced.len()];
                sender.raise(bytes, envelopes);
            }
        }
    }

    /// The oracle: what is held in fact, from the list of it.
    fn check(&self) {
        let bytes: u64 = self.held.iter().sum();
        let envelopes = self.held.iter().filter(|cost| **cost == 0).count() as u64;
        for (receiver, window) in self.receive.iter().zip(self.windows) {
            assert!(bytes <= window.0 && envelopes <= window.1);
            assert_eq!((receiver.bytes.held(), receiver.envelopes.held()), (bytes, envelopes));
        }
    }

    fn settle(&mut self) {
        while !self.flying.is_empty() {
            self.deliver();
        }
        while !self.held.is_empty() {
            self.free(0);
        }
        self.announce();
        for (sender, announced) in self.send.iter_mut().zip(&self.announced) {
            if let Some((bytes, envelopes)) = announced.last() {
                sender.raise(*bytes, *envelopes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_interleaving_exceeds_a_window_and_none_waits_for_ever(
        steps in steps(),
        endpoint in (128..1000_u64, 1..6_u64),
        session in (128..1500_u64, 1..9_u64),
    ) {
        let mut world = World::new([endpoint, session]);
        for step in &steps {
            match step {
                Step::Send(len) => {
                    world.send(*len);
                }
                Step::Envelope => {
                    world.envelope();
                }
                Step::Deliver => world.deliver(),
                Step::Free(choice) => world.free(*choice),
                Step::Announce => world.announce(),
                Step::Hear(choice) => world.hear(*choice),
            }
        }
        world.settle();
        let largest = endpoint.0.min(session.0) / 2 - MESSAGE_OVERHEAD;
        prop_assert_eq!(world.send(largest + 1), Take::Never);
        prop_assert_eq!(world.send(largest), Take::Taken);
        prop_assert_eq!(world.envelope(), Take::Taken);
    }

    #[test]
    fn hostile_limits_never_take_credit_away_nor_overflow(
        limits in prop::collection::vec(prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)], 0..20),
        costs in prop::collection::vec(prop_oneof![0..u64::MAX, 0..1000_u64], 0..20),
    ) {
        let mut credit = SendCredit::new(1000);
        for (limit, cost) in limits.iter().zip(&costs) {
            let before = credit.available();
            credit.raise(*limit);
            prop_assert!(credit.available() >= before);
            credit.try_take(*cost);
        }
        let mut granted = ReceiveCredit::new(1000);
        for cost in costs {
            let held = granted.held();
            if granted.receive(cost).is_err() {
                prop_assert_eq!(granted.held(), held);
            }
            prop_assert!(granted.held() <= 1000);
            granted.free(cost);
            granted.announce();
        }
    }
}

#[test]
fn a_limit_is_announced_after_half_a_window_and_not_before() {
    let mut credit = ReceiveCredit::new(1000);
    for _ in 0..4 {
        credit.receive(100).expect("granted");
        credit.free(100);
        assert!(!credit.is_due());
    }
    credit.receive(100).expect("granted");
    assert!(!credit.is_due());
    credit.free(100);
    assert!(credit.is_due());
    assert_eq!(credit.announce(), 1500);
    assert!(!credit.is_due());
}

#[test]
fn an_overrun_is_told_with_both_numbers_and_counts_nothing() {
    let mut credit = ReceiveCredit::new(100);
    credit.receive(60).expect("granted");
    let overrun = credit.receive(60).expect_err("too much");
    assert_eq!(overrun, Overrun { received: 120, limit: 100 });
    assert_eq!(overrun.to_string(), "the peer sent 120 where 100 was granted: it broke the protocol");
    credit.receive(40).expect("granted");
}

#[test]
fn a_reserve_is_a_part_of_the_window_and_never_less_than_two_envelopes() {
    assert_eq!(reserve_of_bytes(1600), 100);
    assert_eq!(reserve_of_bytes(15), 0);
    let envelopes = [0, 1, 127, 128, 256, 383, 384, 12_800].map(reserve_of_envelopes);
    assert_eq!(envelopes, [2, 2, 2, 2, 2, 2, 3, 100]);
}

#[test]
fn a_sender_knows_what_it_can_take_now_and_ever() {
    let mut credit = SendCredit::new(1000);
    assert!(credit.can_ever(500) && !credit.can_ever(501));
    assert_eq!((credit.affordable(), credit.sent()), (500, 0));
    assert_eq!(credit.try_take(300), Take::Taken);
    assert_eq!(credit.try_take(300), Take::Taken);
    assert_eq!((credit.sent(), credit.available(), credit.affordable()), (600, 400, 400));
    assert!(credit.affords(400) && !credit.affords(401) && !credit.affords(501));
    assert_eq!((credit.try_take(401), credit.try_take(501)), (Take::Wait, Take::Never));
    credit.take_afforded(150);
    assert_eq!((credit.sent(), credit.affordable()), (750, 250));
    credit.give_back(50);
    assert_eq!(credit.sent(), 700);
    credit.give_back(9999);
    assert_eq!((credit.sent(), credit.available()), (0, 1000));
}

#[test]
fn only_a_greater_limit_is_news() {
    let mut credit = SendCredit::new(10);
    assert!(!credit.raise(10) && !credit.raise(9) && credit.raise(11));
    let mut sender = Sender::new(10, 10);
    assert!(sender.raise(11, 10), "bytes");
    assert!(sender.raise(11, 11), "envelopes");
    assert!(!sender.raise(11, 11), "neither");
}

/// What passes through without being held is counted as one that came and was freed.
#[test]
fn what_passes_counts_as_received_and_freed() {
    let (mut held, mut passed) = (ReceiveCredit::new(1000), ReceiveCredit::new(1000));
    for cost in [1, 200, 250, 48] {
        held.receive(cost).expect("granted");
        held.free(cost);
        passed.pass(cost).expect("granted");
        assert_eq!(held, passed);
    }
    assert!(!passed.is_due());
    assert_eq!(passed.pass(502), Err(Overrun { received: 1001, limit: 1000 }));
    assert_eq!(held, passed, "an overrun counts nothing");
    passed.pass(501).expect("all of it");
    assert_eq!(passed.pass(1), Err(Overrun { received: 1001, limit: 1000 }));
    assert_eq!(passed.held(), 0);
}

#[test]
fn headroom_ends_at_the_limit_or_where_a_new_one_is_due() {
    let mut credit = ReceiveCredit::new(1000);
    assert_eq!(credit.headroom(), 500, "until half a window is free");
    credit.pass_allowed(200);
    assert_eq!((credit.headroom(), credit.held()), (300, 0));
    credit.receive(700).expect("granted");
    assert_eq!((credit.headroom(), credit.held()), (100, 700), "until the limit");
    credit.pass_allowed(100);
    assert_eq!((credit.headroom(), credit.held(), credit.is_due()), (0, 700, false));
    credit.free(200);
    assert!(credit.is_due());
    assert_eq!(credit.headroom(), 0);
    assert_eq!((credit.announced(), credit.announce(), credit.announced()), (1000, 1500, 1500));
    assert_eq!(credit.announce(), 1500, "nothing new");
    assert_eq!(credit.headroom(), 500);
}

#[test]
fn the_smallest_windows_announce_too() {
    for window in [1, 2, 3] {
        let mut credit = ReceiveCredit::new(window);
        assert!(!credit.is_due(), "{window}: nothing is news yet");
        credit.receive(1).expect("granted");
        credit.free(1);
        assert!(credit.is_due(), "{window}");
        assert_eq!(credit.announce(), window + 1);
    }
}
