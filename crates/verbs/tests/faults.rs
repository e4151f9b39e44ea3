//! What safe code, a device that lies, and panics at bad moments do to memory: nothing that a program could not bear.
#![allow(unsafe_code, reason = "completions and posts of a device that lies, or beside a hub")]

mod fake;

use fake::lies::{completion, endless, poll_by, too_many};
use fake::{Channels, Fake, Pair, must_end, range};
use sinew_verbs::channel::{Channel, ScopeError, Work};
use sinew_verbs::hub::{Held, Hub, Operation, Prepared};
use sinew_verbs::memory::{Memory, MemoryWindow, RegistrationFlags, RemoteAccess, WindowType};
use sinew_verbs::qp::Rc;
use sinew_verbs::qp::state::State;
use sinew_verbs::{Error, work::Status};
use sinew_verbs_fake::{Alteration, Call, DeviceOptions, Hold, Kind, Refusal};
use sinew_verbs_sys as sys;
use std::ffi::c_int;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);

/// Wakes by a panic.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's panic");
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counts(AtomicUsize);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn a_waker_that_panics_while_unpolled_work_is_dropped_does_not_free_what_the_device_has() {
    let fake = Fake::new();
    let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
    let mut first = a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
    assert!(poll(&mut first, &Waker::from(Arc::new(Panics))).is_pending());
    let mut place = fake.pd.allocate(8).unwrap();
    let bytes = range(&place);
    // SAFETY: not forgotten.
    let pending = unsafe { a.post_unpolled(Work::receive(place.scatter().unwrap())) }.unwrap();
    b.send(&[fake.pd.allocate(8).unwrap().gather(8).unwrap()]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(pending))).is_err(), "the panic goes on");
    fake.control.freed(bytes);
    assert_eq!(fake.control.touches_after_free(), []);
    drop((first, a, b, place));
    fake.finish();
}

#[test]
fn a_waker_that_panics_while_a_scope_ends_does_not_free_what_the_device_has() {
    let fake = Fake::new();
    let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
    let mut first = a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
    assert!(poll(&mut first, &Waker::from(Arc::new(Panics))).is_pending());
    let mut place = fake.pd.allocate(8).unwrap();
    let bytes = range(&place);
    let scatter = place.scatter().unwrap();
    let message = fake.pd.allocate(8).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        a.scope(|scope| {
            std::mem::forget(scope.post(Work::receive(scatter))?);
            b.send(&[message.gather(8)?])
        })
    }));
    assert!(panicked.is_err());
    fake.control.freed(bytes);
    assert_eq!(fake.control.touches_after_free(), []);
    drop((first, a, b, place, message));
    fake.finish();
}

#[test]
fn a_waker_that_panics_takes_no_wake_from_others() {
    let fake = Fake::new();
    let Channels { a, mut b, .. } = Channels::new(&fake, SOON);
    let counts = Arc::new(Counts::default());
    let mut receives: Vec<_> =
        (0..3).map(|_| a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap()).collect();
    for (place, receive) in receives.iter_mut().enumerate() {
        let waker = if place == 0 { Waker::from(Arc::new(Panics)) } else { Waker::from(counts.clone()) };
        assert!(poll(receive, &waker).is_pending());
    }
    let message = fake.pd.allocate(8).unwrap();
    for _ in 0..3 {
        b.send(&[message.gather(8).unwrap()]).unwrap();
    }
    let driver = a.driver();
    assert!(catch_unwind(AssertUnwindSafe(|| driver.progress())).is_err());
    assert_eq!(counts.0.load(Ordering::Relaxed), 2);
    for receive in &mut receives {
        assert!(poll(receive, Waker::noop()).is_ready());
    }
}

/// A waker whose copying uses the channel.
struct Recurses(Channel);

static RECURSES: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: made of an `Arc` that is kept until the waker is dropped.
        let recurses = unsafe { &*data.cast::<Recurses>() };
        let _ = recurses.0.driver().progress();
        let _ = recurses.0.parked_bytes();
        // SAFETY: as above.
        unsafe { Arc::increment_strong_count(data.cast::<Recurses>()) };
        RawWaker::new(data, &RECURSES)
    },
    // SAFETY: the count that the waker has.
    |data| drop(unsafe { Arc::from_raw(data.cast::<Recurses>()) }),
    |_| {},
    // SAFETY: the count that the waker has.
    |data| drop(unsafe { Arc::from_raw(data.cast::<Recurses>()) }),
);

#[test]
fn a_waker_may_use_its_channel_while_it_is_copied() {
    must_end(|| {
        let fake = Fake::new();
        let Channels { a, b, .. } = Channels::new(&fake, SOON);
        let mut receive = a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
        let recurses = Arc::new(Recurses(a));
        // SAFETY: the table keeps the rules of wakers; the count is the waker's.
        let waker = unsafe { Waker::new(Arc::into_raw(recurses).cast(), &RECURSES) };
        assert!(poll(&mut receive, &waker).is_pending());
        drop((receive, waker, b));
        fake.finish();
    });
}

#[test]
fn whoever_takes_a_channels_events_leaves_nobody_asleep() {
    must_end(|| {
        let fake = Fake::new();
        let Channels { mut a, mut b, .. } = Channels::new(&fake, Duration::from_secs(3600));
        let driver = a.driver();
        let stop = AtomicBool::new(false);
        let mut place = fake.pd.allocate(8).unwrap();
        let message = fake.pd.allocate(8).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    driver.clear().unwrap();
                    driver.progress().unwrap();
                }
            });
            let (mut a, mut place) = (&mut a, &mut place);
            for _ in 0..20 {
                let waiting = threads.spawn(move || {
                    a.receive(place.scatter().unwrap()).unwrap();
                    (a, place)
                });
                // Whether it sleeps by then is left to chance: there are several rounds.
                std::thread::sleep(Duration::from_millis(2));
                b.send(&[message.gather(8).unwrap()]).unwrap();
                (a, place) = waiting.join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn inline_operations_read_no_addresses_that_are_not_this_process_s() {
    for legacy in [false, true] {
        let fake = if legacy { Fake::with(DeviceOptions::legacy(0)) } else { Fake::new() };
        let mut pair = Pair::new(&fake);
        let region = fake
            .pd
            .expose_with(Memory::zeroed(64).unwrap(), RemoteAccess::READ, RegistrationFlags::ZERO_BASED)
            .unwrap();
        let part = region.part(0..8).unwrap();
        let part = Operation::send(part).inline();
        let read = Operation::read(fake.pd.allocate(8).unwrap(), region.remote()).inline();
        for operation in [part, read] {
            let refused = pair.hub.post(pair.a, operation).unwrap_err();
            assert!(matches!(refused.error, Error::Invalid { .. }), "{refused}");
        }
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
        pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap()).inline()).unwrap();
        assert!(pair.ended().iter().all(|ended| ended.result.is_ok()) && pair.hub.is_idle());
        drop((pair, region));
        fake.finish();
    }
}

#[test]
fn the_answer_of_an_atomic_has_a_place_of_eight_bytes_or_is_refused() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let region = fake.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
    for len in [0, 1, 7, 16] {
        let buffer = fake.pd.allocate(16).unwrap();
        let operation = Operation::fetch_add(buffer, region.remote(), 1).len(len);
        let refused = pair.hub.post(pair.a, operation).unwrap_err();
        assert!(refused.error.to_string().contains("8 bytes"), "{refused}");
    }
    let halves = vec![fake.pd.allocate(4).unwrap(), fake.pd.allocate(4).unwrap()];
    assert!(pair.hub.post(pair.a, Operation::compare_swap(halves, region.remote(), 0, 1)).is_err());
    let Channels { mut a, .. } = Channels::new(&fake, SOON);
    let mut small = fake.pd.allocate(4).unwrap();
    let refused = a.run(Work::fetch_add(small.scatter().unwrap(), region.remote(), 1)).unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    let mut word = fake.pd.allocate(8).unwrap();
    // The peer is gone with its channel: only that it was posted is looked at.
    assert!(matches!(
        a.run(Work::fetch_add(word.scatter().unwrap(), region.remote(), 1)),
        Err(Error::TimedOut { .. } | Error::Work(_))
    ));
}

/// A peer writes and reads the first three bytes of each word, while two threads write the others, and look at all.
#[test]
fn threads_and_a_peer_in_the_same_exposed_words_neither_race_nor_lose_a_byte() {
    const WORDS: usize = 4;
    let rounds = if cfg!(miri) { 3_u8 } else { 100 };
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let region = fake.pd.expose(Memory::zeroed(WORDS * 8).unwrap(), RemoteAccess::all()).unwrap();
    std::thread::scope(|threads| {
        for own in [3..6, 6..8] {
            let region = region.clone();
            threads.spawn(move || {
                let mut seen = [0; WORDS * 8];
                for round in 1..=rounds {
                    for word in 0..WORDS {
                        region.write_at(word * 8 + own.start, &vec![round; own.len()]).unwrap();
                        let whole = region.load(word * 8, Ordering::Relaxed).unwrap().to_ne_bytes();
                        assert!(whole[own.clone()].iter().all(|byte| *byte == round), "{whole:?} in {round}");
                    }
                    region.read_at(1, &mut seen[1..]).unwrap();
                    assert!(seen.chunks(8).all(|word| word[own.start] == round), "{seen:?} in {round}");
                }
            });
        }
        for round in 1..=rounds {
            let mut bytes = fake.pd.allocate(3).unwrap();
            for word in 0..WORDS as u64 {
                bytes.fill(round);
                let place = region.remote().slice(word * 8, 3).unwrap();
                pair.hub.post(pair.a, Operation::write(bytes, place)).unwrap();
                bytes = pair.ended().remove(0).held.into_buffer().unwrap();
                bytes.fill(0);
                pair.hub.post(pair.a, Operation::read(bytes, place)).unwrap();
                bytes = pair.ended().remove(0).held.into_buffer().unwrap();
                assert_eq!(bytes[..], [round; 3]);
            }
        }
    });
    let mut all = [0; WORDS * 8];
    region.read_at(0, &mut all).unwrap();
    assert_eq!(all, [rounds; WORDS * 8]);
    drop((pair, region));
    fake.finish();
}

#[test]
fn a_shared_receive_that_is_told_of_twice_ends_no_later_one() {
    let fake = Fake::new();
    let mut hub = Hub::<Rc>::new(&fake.context, 64).unwrap();
    hub.share_receives(&fake.pd, 1, 1).unwrap();
    let mut make =
        || hub.queue_pair(&fake.pd).receive_depth(0).build().map(|prepared| hub.add(prepared).unwrap());
    let (a, b) = (make().unwrap(), make().unwrap());
    let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
    hub.connect(a, &to_b).unwrap();
    hub.connect(b, &to_a).unwrap();
    let first = fake.pd.allocate(8).unwrap();
    hub.post_shared_receive(first, 1).unwrap();
    let told = fake.control.in_flight()[0].wr_id;
    hub.post(a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    let mut ended = Vec::new();
    while let Some(completed) = hub.poll().unwrap() {
        ended.push(completed.take());
    }
    assert_eq!(ended.len(), 2);
    hub.post_shared_receive(fake.pd.allocate(8).unwrap(), 2).unwrap();
    fake.control.forge(*fake.control.completion_queues().last().unwrap(), completion(told, to_b.qp_num));
    assert!(hub.poll().unwrap().is_none());
    assert_eq!(hub.strays(), 1);
    drop((hub, ended));
    fake.finish();
}

#[test]
fn completions_of_others_requests_end_none_of_a_hubs() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let buffer = fake.pd.allocate(8).unwrap();
    let bytes = range(&buffer);
    fake.control.hold(pair.a_qp, Hold::REQUESTS);
    pair.hub.post(pair.a, Operation::send(buffer)).unwrap();
    // The number that the hub gave its first send, from a queue pair that somebody else made to report here.
    fake.control.forge(pair.cq, completion(0, pair.b_qp + 100));
    assert!(pair.ended().is_empty());
    assert_eq!(pair.hub.strays(), 1);
    assert!(fake.control.may_touch(bytes));
    drop(pair);
    fake.finish();
}

#[test]
fn a_completion_with_an_unknown_number_or_told_twice_ends_nothing() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    for _ in 0..4 {
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    }
    for wr_id in [u64::MAX, 1 << 62, 77, 1 << 63 | 9] {
        fake.control.forge(pair.cq, completion(wr_id, pair.b_qp));
    }
    assert!(pair.ended().is_empty());
    assert_eq!(pair.hub.strays(), 4);
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    let ended = pair.ended();
    assert_eq!(ended.len(), 2);
    fake.control.forge(pair.cq, completion(0, pair.a_qp));
    assert!(pair.ended().is_empty());
    assert_eq!((pair.hub.strays(), pair.hub.in_flight(pair.b).unwrap()), (5, (0, 3)));
    // One that comes under another number: its own request stays out, with its memory.
    fake.control.alter_next(pair.cq, Alteration { wr_id: Some(5555), ..Alteration::default() });
    fake.control.hold(pair.b_qp, Hold::INCOMING);
    fake.control.break_qp(pair.a_qp);
    drop((pair, ended));
    fake.finish();
}

#[test]
fn a_device_that_makes_completions_up_keeps_nobody() {
    must_end(|| {
        let fake = Fake::with(DeviceOptions::legacy(0));
        let mut pair = Pair::new(&fake);
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
        poll_by(&fake, endless);
        assert!(pair.hub.poll().unwrap().is_none());
        assert!(pair.hub.strays() >= 64);
        assert_eq!(pair.hub.remove(pair.b).unwrap().len(), 1);
        let Channels { mut a, .. } = Channels::new(&fake, SOON);
        assert!(matches!(a.run(Work::receive_word()), Err(Error::TimedOut { .. })));
    });
}

#[test]
fn a_device_that_tells_of_more_than_was_asked_for_has_failed() {
    let fake = Fake::with(DeviceOptions::legacy(0));
    let mut pair = Pair::new(&fake);
    poll_by(&fake, too_many);
    for _ in 0..2 {
        assert!(matches!(pair.hub.poll(), Err(Error::Call { .. })));
    }
    drop(pair.hub.remove(pair.a).unwrap());
}

#[test]
fn what_a_device_refuses_to_end_keeps_its_memory_for_ever() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let buffer = fake.pd.allocate(8).unwrap();
    let bytes = range(&buffer);
    pair.hub.post_receive(pair.b, buffer, 0).unwrap();
    fake.control.refuse(Call::DestroyQp, Refusal::always(libc::EIO));
    assert!(pair.hub.remove(pair.b).is_err());
    assert_eq!(pair.hub.in_flight(pair.b).unwrap(), (0, 1), "it is still a member");
    drop(pair);
    fake.control.refuse(Call::DeregMr, Refusal::always(libc::EBUSY));
    assert!(fake.control.may_touch(bytes));
    assert_eq!(fake.control.touches_after_free(), []);
    let Fake { control, library, context, pd } = fake;
    drop((pd, context));
    assert!(library.leaked_objects() >= 2);
    let live = control.live();
    assert_eq!(live.get(&Kind::QueuePair), Some(&2));
    assert_eq!(live.get(&Kind::ProtectionDomain), Some(&1), "parents of what stays stay");
    assert_eq!(control.faults(), []);
}

#[test]
fn an_iterator_that_panics_in_a_batch_leaves_nothing_posted() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let mut count = 0;
    let mut operations = std::iter::from_fn(|| {
        count += 1;
        assert!(count < 4, "on purpose");
        Some(Operation::send(fake.pd.allocate(8).unwrap()))
    });
    let panicked = catch_unwind(AssertUnwindSafe(|| pair.hub.post_batch(pair.a, &mut operations)));
    assert!(panicked.is_err());
    assert_eq!(fake.control.in_flight(), []);
    assert!(!fake.control.locks_held());
    assert_eq!(pair.hub.in_flight(pair.a).unwrap(), (0, 0));
    for _ in 0..16 {
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
        pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
        assert_eq!(pair.ended().len(), 2);
    }
    drop(pair);
    fake.finish();
}

#[test]
fn a_pool_registers_once_and_its_buffers_come_back_from_their_operations() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let pool = fake.pd.pool(4, 32).unwrap();
    let registered = fake.control.calls(Call::RegMr);
    assert_eq!((pool.count(), pool.buffer_len(), pool.available()), (4, 32, 4));
    for round in 0..50u8 {
        let mut sent = pool.take().unwrap();
        sent.fill(round);
        pair.hub.post_receive(pair.b, pool.take().unwrap(), 0).unwrap();
        pair.hub.post(pair.a, Operation::send(sent)).unwrap();
        assert_eq!(pool.available(), 2, "two are out");
        for ended in pair.ended() {
            ended.result.unwrap();
            assert_eq!(ended.held.into_buffer().unwrap()[..], [round; 32]);
        }
        assert_eq!(pool.available(), 4);
    }
    let all: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((all.len(), pool.available()), (4, 0));
    assert_eq!(fake.control.calls(Call::RegMr), registered, "nothing is registered for an operation");
    // Buffers outlive their pool, and the registration with them.
    drop(pool);
    assert_eq!(fake.control.calls(Call::DeregMr), 0);
    drop(all);
    assert_eq!(fake.control.calls(Call::DeregMr), 1);
    drop(pair);
    fake.finish();
}

#[test]
fn nothing_to_post_is_no_failure_of_a_full_queue() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    fake.control.hold(pair.a_qp, Hold::REQUESTS);
    let word = || Operation::send(Held::Nothing);
    assert_eq!(pair.hub.post_batch(pair.a, &mut std::iter::repeat_with(word)).unwrap(), 16);
    let mut many = std::iter::repeat_with(word).take(3);
    let full = pair.hub.post_batch(pair.a, &mut many).unwrap_err();
    assert!(full.error.is_retryable() && full.posted == 0 && full.held.is_empty(), "{full}");
    assert_eq!(many.len(), 3, "what did not fit stays in the iterator");
    assert_eq!(pair.hub.post_batch(pair.a, &mut std::iter::empty()).unwrap(), 0);
    let gone = pair.b;
    pair.hub.remove(gone).unwrap();
    assert!(pair.hub.post_batch(gone, &mut std::iter::empty()).is_err(), "a member that is gone");
    drop(pair);
    fake.finish();
}

#[test]
fn handles_of_members_that_are_gone_name_nothing() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let gone = pair.a;
    pair.hub.remove(gone).unwrap();
    let prepared = pair.hub.queue_pair(&fake.pd).build().unwrap();
    let successor = pair.hub.add(prepared).unwrap();
    assert_ne!(gone, successor);
    assert!(pair.hub.post(gone, Operation::send(fake.pd.allocate(8).unwrap())).is_err());
    assert!(pair.hub.post_receive(gone, fake.pd.allocate(8).unwrap(), 0).is_err());
    assert!(pair.hub.post_batch(gone, &mut std::iter::empty()).is_err());
    assert!(pair.hub.fail(gone).is_err() && pair.hub.reset(gone).is_err() && pair.hub.remove(gone).is_err());
    assert!(pair.hub.endpoint(gone).is_err() && pair.hub.in_flight(gone).is_err());
    drop(pair);
    fake.finish();
}

#[test]
fn everything_is_dropped_in_any_order_and_clones_keep_what_they_need() {
    for order in 0..6 {
        let Fake { control, library, context, pd } = Fake::new();
        let fake = Fake { control, library: library.clone(), context: context.clone(), pd: pd.clone() };
        let mut pair = Pair::new(&fake);
        pair.hub.post_receive(pair.b, pd.allocate(8).unwrap(), 0).unwrap();
        let queue = pair.hub.queue_pair_of(pair.a).unwrap().send_completion_queue().clone();
        let buffer = pd.allocate(8).unwrap();
        let region = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
        let mut parts: Vec<Box<dyn std::any::Any>> = vec![
            Box::new(pair),
            Box::new(buffer),
            Box::new(region),
            Box::new(pd),
            Box::new(context),
            Box::new((queue, library)),
        ];
        parts.rotate_left(order);
        for part in parts {
            drop(part);
            assert_eq!(fake.control.faults(), []);
        }
        fake.finish();
    }
}

#[test]
fn safe_code_does_not_reset_a_queue_pair_below_its_hub() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    let reset = sinew_verbs::qp::Attributes::new().set_state(sinew_verbs::qp::state::State::RESET);
    let error = pair.hub.queue_pair_of(pair.b).unwrap().modify(&reset).unwrap_err();
    assert!(error.to_string().contains("Hub::reset"), "{error}");
    assert_eq!(pair.hub.in_flight(pair.b).unwrap(), (0, 1));
    assert_eq!(pair.hub.reset(pair.b).unwrap().len(), 1);
    drop(pair);
    fake.finish();
}

#[test]
fn a_queue_pair_that_cannot_be_asked_when_it_is_adopted_does_not_stay() {
    let fake = Fake::new();
    let mut hub = Hub::<Rc>::new(&fake.context, 64).unwrap();
    let before = fake.control.queue_pairs();
    let qp = hub.queue_pair(&fake.pd).build_raw().unwrap();
    fake.control.refuse(Call::QueryQp, Refusal::once(libc::EIO));
    assert_eq!(hub.adopt(qp).unwrap_err().errno(), Some(libc::EIO));
    assert_eq!(fake.control.queue_pairs(), before);
    drop(hub);
    fake.finish();
}

#[test]
fn memory_registered_in_another_domain_fails_as_work_and_is_not_touched() {
    let fake = Fake::new();
    let other = fake.context.protection_domain().unwrap();
    let Channels { mut a, b, .. } = Channels::new(&fake, SOON);
    let mut place = other.allocate(8).unwrap();
    let region = fake.pd.expose(Memory::try_from(vec![7; 8]).unwrap(), RemoteAccess::all()).unwrap();
    let failed = a.read(place.scatter().unwrap(), region.remote()).unwrap_err();
    assert!(matches!(&failed, Error::Work(error) if error.status == Status::LOCAL_PROTECTION), "{failed}");
    assert_eq!(place[..], [0; 8]);
    assert!(a.broken().is_some());
    drop((a, b, place, region, other));
    fake.finish();
}

/// Runs this test again in a process of its own, and says how that ended.
fn in_a_process(test: &str) -> Option<std::process::ExitStatus> {
    if std::env::var_os("SINEW_VERBS_FAULT").is_some_and(|name| name == test) {
        return None;
    }
    let answer = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("SINEW_VERBS_FAULT", test)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&answer.stderr).contains("the process ends here"), "{answer:?}");
    Some(answer.status)
}

#[test]
fn the_process_ends_before_borrowed_memory_is_free_that_the_device_will_not_let_go() {
    use std::os::unix::process::ExitStatusExt;
    let name = "the_process_ends_before_borrowed_memory_is_free_that_the_device_will_not_let_go";
    if let Some(status) = in_a_process(name) {
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        return;
    }
    let fake = Fake::new();
    let Channels { mut a, a_qp, .. } = Channels::new(&fake, SOON);
    fake.control.hold(a_qp, Hold::EVERYTHING);
    fake.control.refuse(Call::DestroyQp, Refusal::always(libc::EIO));
    let mut place = fake.pd.allocate(8).unwrap();
    let answer = a.receive(place.scatter().unwrap());
    panic!("returned while the device has the memory: {answer:?}");
}

#[test]
fn a_device_that_does_not_flush_is_ended_by_destroying_its_queue_pair() {
    let fake = Fake::new();
    let Channels { mut a, b, a_qp, .. } = Channels::new(&fake, SOON);
    fake.control.hold(a_qp, Hold::EVERYTHING);
    let mut place = fake.pd.allocate(8).unwrap();
    let bytes = range(&place);
    let ended: Result<(), ScopeError<Error>> = a.scope(|scope| {
        std::mem::forget(scope.post(Work::receive(place.scatter()?))?);
        Ok(())
    });
    assert!(matches!(ended, Err(ScopeError::Failed(_))), "{ended:?}");
    fake.control.freed(bytes);
    assert!(!fake.control.queue_pairs().contains(&a_qp));
    assert!(matches!(a.send(&[]), Err(Error::Broken { .. })));
    let a = a.reset().map_err(|(_, error)| error).unwrap();
    assert!(a.endpoint().is_ok(), "a queue pair was made anew");
    drop((a, b, place));
    fake.finish();
}

#[test]
fn memory_of_a_post_that_failed_in_the_device_stays_until_its_end_is_known() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    fake.control.refuse(Call::WrComplete, Refusal::once(libc::EIO));
    let rejected = pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap_err();
    assert!(matches!(rejected.error, Error::Call { .. }), "{rejected}");
    assert!(rejected.operation.into_held().into_buffer().is_none(), "the device may have it");
    assert_eq!(pair.hub.in_flight(pair.a).unwrap(), (1, 0));
    let back = pair.hub.remove(pair.a).unwrap();
    assert_eq!(back.len(), 1);
    assert!(back.into_iter().all(|held| held.into_buffer().is_some()));
}

#[test]
fn memory_of_no_bytes_is_no_element_as_devices_take_it_for_two_gigabytes() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let empty = || {
        let (empty, rest) = fake.pd.allocate(8).unwrap().split_at(0).unwrap();
        assert!(empty.is_empty());
        (empty, rest)
    };
    let (none, place) = empty();
    pair.hub.post_receive(pair.b, vec![none, place], 0).unwrap();
    let (none, message) = empty();
    pair.hub.post(pair.a, Operation::send(vec![none, message])).unwrap();
    let (none, rest) = empty();
    pair.hub.post_receive(pair.b, none, 0).unwrap();
    pair.hub.post(pair.a, Operation::send(rest).len(0)).unwrap();
    let ended = pair.ended();
    assert_eq!(ended.len(), 4);
    assert!(ended.iter().all(|ended| ended.result.is_ok()), "{ended:?}");
    let Channels { mut a, b, .. } = Channels::new(&fake, SOON);
    let (mut none, mut place) = empty();
    let received = b.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
    a.send(&[none.gather(0).unwrap(), place.gather(8).unwrap()]).unwrap();
    assert_eq!(received.wait(SOON).unwrap().result.unwrap().len, Some(8));
    let sent = b.submit(Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    let done = a.run(Work::receive([none.scatter().unwrap(), place.scatter().unwrap()])).unwrap();
    assert_eq!(done.places.into_vec().iter().map(|place| place.len()).collect::<Vec<_>>(), [0, 8]);
    sent.wait(SOON).unwrap().result.unwrap();
    drop((a, b, none, place, ended, pair));
    fake.finish();
}

#[test]
fn receives_told_of_in_any_order_leave_no_place_taken() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    for _ in 0..4 {
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    }
    // What the hub's second member was told of: its receives are of the second place.
    let mut ended = Vec::new();
    for (number, left) in [(1, 4), (0, 2), (3, 2), (0, 2), (2, 0)] {
        fake.control.forge(pair.cq, completion(1 << 63 | 1 << 32 | number, pair.b_qp));
        ended.extend(pair.ended());
        assert_eq!(pair.hub.in_flight(pair.b).unwrap(), (0, left), "after {number}");
    }
    assert_eq!((ended.len(), pair.hub.strays()), (4, 1));
    assert!(ended.iter().all(|ended| !ended.held.is_empty()));
    assert!(pair.hub.is_idle());
    drop(pair);
    drop(ended);
    fake.finish();
}

/// A device that takes a receive, fails all the same, and does not say which one it refused.
unsafe extern "C" fn fails_and_says_nothing(
    _: *mut sys::ibv_qp,
    _: *mut sys::ibv_recv_wr,
    _: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    libc::EIO
}

unsafe extern "C" fn fails_and_says_nothing_of_a_shared_one(
    _: *mut sys::ibv_srq,
    _: *mut sys::ibv_recv_wr,
    _: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    libc::EIO
}

#[test]
fn memory_of_a_receive_that_failed_in_the_device_stays_until_its_end_is_known() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let mut shared = Hub::<Rc>::new(&fake.context, 8).unwrap();
    shared.share_receives(&fake.pd, 2, 1).unwrap();
    let Channels { mut a, b, .. } = Channels::new(&fake, SOON);
    // SAFETY: the device is open, and nobody else calls it meanwhile.
    unsafe {
        (*fake.context.as_raw()).ops.post_recv = Some(fails_and_says_nothing);
        (*fake.context.as_raw()).ops.post_srq_recv = Some(fails_and_says_nothing_of_a_shared_one);
    }
    let rejected = pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap_err();
    assert!(matches!(rejected.error, Error::Call { .. }), "{rejected}");
    assert!(rejected.operation.into_buffer().is_none(), "the device may have it");
    assert_eq!(pair.hub.in_flight(pair.b).unwrap(), (0, 1));
    assert_eq!(pair.hub.queue_pair_of(pair.b).unwrap().state().unwrap(), State::ERR);
    assert!(pair.hub.remove(pair.b).unwrap().into_iter().all(|held| held.into_buffer().is_some()));
    let rejected = shared.post_shared_receive(fake.pd.allocate(8).unwrap(), 0).unwrap_err();
    assert!(rejected.operation.into_buffer().is_none() && !shared.is_idle());
    // What is borrowed is not given back before the queue pair has ended.
    let mut place = fake.pd.allocate(8).unwrap();
    assert!(matches!(a.receive(place.scatter().unwrap()), Err(Error::TimedOut { .. })));
    assert!(fake.control.calls(Call::DestroyQp) >= 2);
    drop((a, b, pair, shared));
}

/// Asks a window for its key when it is woken.
struct Asks(MemoryWindow);

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let _ = self.0.key();
    }
}

#[test]
fn a_waker_may_ask_a_window_while_it_is_bound() {
    must_end(|| {
        let fake = Fake::new();
        let Channels { mut a, b, a_qp, .. } = Channels::new(&fake, SOON);
        let window = fake.pd.memory_window(WindowType::Two).unwrap();
        let (memory, flags) = (Memory::zeroed(64).unwrap(), RegistrationFlags::WINDOW_BIND);
        let region = fake.pd.expose_with(memory, RemoteAccess::empty(), flags).unwrap();
        fake.control.hold(a_qp, Hold::COMPLETIONS);
        let mut send = a.submit(Operation::send(Held::Nothing)).unwrap();
        let receive = b.submit_receive(Held::Nothing).unwrap();
        let asks = Waker::from(Arc::new(Asks(window.clone())));
        assert!(poll(&mut send, &asks).is_pending());
        fake.control.hold(a_qp, Hold::NOTHING);
        a.bind_window(&window, &region, 0..8, RemoteAccess::READ).unwrap();
        assert!(poll(&mut send, &asks).is_ready());
        drop((send, receive, asks, a, b, window, region));
        fake.finish();
    });
}

#[test]
fn what_a_device_did_not_take_is_not_told_of_as_done() {
    for device in [DeviceOptions::default(), DeviceOptions::legacy(0)] {
        let fake = Fake::with(device);
        let mut pair = Pair::new(&fake);
        // The second is longer than what is inline: the device refuses it, after it took the first or before.
        let write = |len| Operation::send(fake.pd.allocate(len).unwrap()).unsignaled().inline();
        let prepared = Prepared::new(&fake.pd, vec![write(8), write(4096), write(8)]).unwrap();
        assert!(
            pair.hub.post_prepared(pair.a, prepared).unwrap_err().operation.is_none(),
            "some may be taken"
        );
        let after = pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap_err();
        assert!(matches!(after.error, Error::Invalid { .. }), "{}", after.error);
        assert!(pair.ended().iter().all(|ended| ended.result.is_err()));
        assert_eq!(pair.hub.reset(pair.a).unwrap().len(), 1, "its memory");
        drop((pair, after));
        fake.finish();
    }
}
