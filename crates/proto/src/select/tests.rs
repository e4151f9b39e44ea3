//! Which path is taken when, and what the table says.

use super::*;

const SHM: Hint = Hint { latency_ns: 100, per_byte_ps: 40 };
const TCP: Hint = Hint { latency_ns: 4_000, per_byte_ps: 150 };

fn measured(rtt_ns: u64) -> Measured {
    Measured { rtt_ns, bandwidth: None }
}

fn two() -> (Candidates, CandidateId, CandidateId) {
    let mut candidates = Candidates::default();
    let tcp = candidates.add("tcp", "tcp:10.0.0.1:4000", TCP);
    let shm = candidates.add("shm", "shm:/run/a.sock", SHM);
    (candidates, shm, tcp)
}

#[test]
fn the_cheapest_by_hint_is_dialled_first_and_each_once() {
    let (mut candidates, shm, tcp) = two();
    assert_eq!(candidates.next_to_dial(), Some(shm));
    candidates.set(shm, State::Dialling);
    assert_eq!(candidates.next_to_dial(), Some(tcp));
    candidates.set(tcp, State::Dialling);
    assert_eq!(candidates.next_to_dial(), None);
    assert_eq!(candidates.add("shm", "shm:/run/a.sock", TCP), shm);
}

#[test]
fn only_what_was_verified_is_ever_chosen() {
    let (mut candidates, shm, tcp) = two();
    assert_eq!((candidates.best(), candidates.should_switch()), (None, None));
    assert!(!candidates.activate(shm));
    candidates.set(tcp, State::Verified(measured(8_000)));
    assert_eq!(candidates.should_switch(), Some(tcp));
    assert!(candidates.activate(tcp));
    assert_eq!(candidates.should_switch(), None);
}

#[test]
fn a_better_path_takes_over_and_a_slowed_one_is_left() {
    let (mut candidates, shm, tcp) = two();
    candidates.set(tcp, State::Active(measured(8_000)));
    candidates.set(shm, State::Verified(measured(200)));
    assert_eq!(candidates.should_switch(), Some(shm));
    assert!(candidates.activate(shm));
    assert_eq!(candidates.active(), Some(shm));
    assert!(matches!(candidates.candidate(tcp).map(|it| &it.state), Some(State::Verified(_))));
    assert_eq!(candidates.should_switch(), None);
    for _ in 0..40 {
        candidates.observe_rtt(shm, 2_000_000);
    }
    assert_eq!(candidates.should_switch(), Some(tcp));
    for _ in 0..200 {
        candidates.observe_rtt(shm, 200);
    }
    assert_eq!(candidates.should_switch(), None);
}

#[test]
fn a_path_that_is_better_by_less_than_the_margin_does_not_take_over() {
    let mut candidates = Candidates::new(0);
    let first = candidates.add("tcp", "tcp:a:1", TCP);
    let second = candidates.add("tcp", "tcp:b:1", TCP);
    candidates.set(first, State::Active(measured(2_300)));
    candidates.set(second, State::Verified(measured(2_000)));
    assert_eq!(candidates.best(), Some(second));
    assert_eq!(candidates.should_switch(), None);
    candidates.set(first, State::Active(measured(2_302)));
    assert_eq!(candidates.should_switch(), Some(second));
}

#[test]
fn measured_bandwidth_replaces_the_hint_for_large_messages() {
    let mut candidates = Candidates::new(1 << 20);
    let slow = candidates.add("shm", "shm:x", SHM);
    let fast = candidates.add("tcp", "tcp:a:1", TCP);
    candidates.set(slow, State::Verified(Measured { rtt_ns: 200, bandwidth: Some(1_000_000_000) }));
    candidates.set(fast, State::Verified(Measured { rtt_ns: 8_000, bandwidth: None }));
    assert_eq!(candidates.best(), Some(fast));
    candidates.observe_bandwidth(slow, 25_000_000_000);
    assert_eq!(candidates.best(), Some(slow));
    candidates.observe_bandwidth(slow, 0);
    assert_eq!(candidates.best(), Some(slow));
}

#[test]
fn when_all_were_refused_or_lost_it_says_so() {
    let (mut candidates, shm, tcp) = two();
    assert!(!candidates.is_exhausted());
    candidates.set(shm, State::Refused("permission denied".into()));
    assert!(!candidates.is_exhausted());
    candidates.set(tcp, State::Lost("the connection broke".into()));
    assert!(candidates.is_exhausted());
    assert_eq!(candidates.best(), None);
}

#[test]
fn the_table_names_every_candidate_its_verdict_and_the_reason() {
    let (mut candidates, shm, tcp) = two();
    assert_eq!(Candidates::default().explain().to_string(), "no path is known");
    let uds = candidates.add("uds", "pid 4711", TCP);
    candidates.add("tcp", "tcp:10.0.0.2:4000", TCP);
    candidates.set(shm, State::Refused("memfd_create: permission\n denied".into()));
    candidates.set(tcp, State::Active(Measured { rtt_ns: 8_200, bandwidth: Some(6_400_000_000) }));
    candidates.set(uds, State::Verified(measured(30_000)));
    let explain = candidates.explain();
    let expected = "   path               verdict   latency  bandwidth  reason
*  tcp:10.0.0.1:4000  active    4.10 us  6.40 GB/s
   uds pid 4711       verified  15.0 us          -
   tcp:10.0.0.2:4000  untried         -          -
   shm:/run/a.sock    refused         -          -  memfd_create: permission  denied";
    assert_eq!(explain.to_string(), expected);
    assert_eq!(explain.rows.iter().filter(|row| row.chosen).count(), 1);
    assert_eq!(explain.rows[0].latency_ns, Some(4_100));
}

#[test]
fn extreme_values_are_survived() {
    let (mut candidates, shm, tcp) = two();
    candidates.set(shm, State::Verified(Measured { rtt_ns: u64::MAX, bandwidth: Some(1) }));
    candidates.set(tcp, State::Active(Measured { rtt_ns: u64::MAX, bandwidth: Some(u64::MAX) }));
    candidates.observe_rtt(shm, 0);
    candidates.observe_rtt(tcp, u64::MAX);
    let _ = (candidates.should_switch(), candidates.explain().to_string());
    candidates.set(CandidateId(99), State::Dialling);
    candidates.observe_rtt(CandidateId(99), 1);
    assert!(candidates.candidate(CandidateId(99)).is_none());
}
