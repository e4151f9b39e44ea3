//! What was found wrong in the `ibverbs` crate (R1 to R15), and is not so here; on a device inside the process.
//!
//! | finding | test |
//! |---|---|
//! | R1 invalid values of enumerations | `r1_…` |
//! | R2 misaligned references | `r2_…` |
//! | R3 data races with peers in safe code | `r3_…`; `tests/compile_fail/exposed_memory_is_no_slice.rs` |
//! | R4 extended verbs only | `r4_…` |
//! | R5 atomics demanded of every device | `r5_…` |
//! | R6 locks of the device held over code of the user | `r6_…` |
//! | R7 panics instead of errors | `r7_…` |
//! | R8 waits that end early | `r8_…`; `a_wait_ends_at_its_deadline_and_not_before` for what is left below a millisecond |
//! | R9 port 1 must be up | `r9_…` |
//! | R10 handshake | `r10_…` |
//! | R11 connection manager | `cm::tests::r11` |
//! | R12 what was missing | `r12_…`; groups: `cm_device::a_group_s_messages_…`; ECE and rates: `rates_and_extensions_…`; extended connections, raw packets, domains for one thread: `tests/extended.rs` |
//! | R13 no safe level | the hub and channels themselves: `tests/hub.rs`, `tests/channel.rs`; `r13_…` for what is chosen by itself |
//! | R14 a lock for each event, calls that are not batched | `r14_…` |
//! | R15 what its CI could not run | `findings::r15_…`: the guest (`tests/queue_pairs.rs`, `tests/hub.rs`) runs atomics, UC, UD and inline on a real kernel's device |
#![allow(unsafe_code, reason = "raw posts, as a program at the unsafe level makes them")]

mod fake;

use fake::{Channels, Fake, Pair, must_end, range};
use sinew_verbs::cq::WorkCompletion;
use sinew_verbs::device::{AsyncEventType, Element, Gid};
use sinew_verbs::hub::{Hub, Operation, Side};
use sinew_verbs::memory::{Memory, RegistrationFlags, RemoteAccess, RemoteKey, RemoteRegion};
use sinew_verbs::qp::state::AttributeMask;
use sinew_verbs::qp::{Rc, ReceiveRequest, Uc};
use sinew_verbs::work::Status;
use sinew_verbs::{Channel, Error};
use sinew_verbs_fake::{Alteration, Call, DeviceOptions, PortOptions, Refusal};
use sinew_verbs_sys as sys;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(50);

#[test]
fn r1_values_that_nobody_knows_are_numbers_with_a_name() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    fake.control.alter_next(pair.cq, Alteration { status: Some(999), ..Alteration::default() });
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    let ended = pair.ended();
    let error = ended.iter().find_map(|ended| ended.result.err()).unwrap();
    assert_eq!(format!("{:?}", error.status), "Unknown(999)");
    fake.control.set_port(0, 1, sys::IbvPortState(77));
    assert!(fake.context.port(1).unwrap().state().to_string().contains("77"));
    let events = fake.context.async_events().unwrap();
    while events.event().unwrap().is_some() {}
    fake.control.raise(0, sys::IbvEventType(4321), None);
    let event = events.event().unwrap().unwrap();
    assert_eq!(event.event_type, AsyncEventType::from_raw(4321));
    assert!(matches!(event.element, Element::Unknown(_)));
    // An attribute that is not there is nothing, not a value of zero.
    let asked = pair.hub.queue_pair_of(pair.a).unwrap().query(AttributeMask::STATE).unwrap();
    assert!(asked.mtu().is_none());
}

#[test]
fn r2_a_gid_is_used_at_any_address() {
    let mut bytes = [0u8; 32];
    let gid: Gid = "fe80::1:2:3:4".parse().unwrap();
    for at in 0..16 {
        bytes[at..at + 16].copy_from_slice(&gid.bytes());
        let copy = Gid::from_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((copy, copy.interface_id()), (gid, gid.interface_id()));
    }
    #[repr(C, packed)]
    struct Odd(u8, Gid);
    let odd = Odd(1, gid);
    let copy = odd.1;
    assert_eq!((odd.0, copy.subnet_prefix()), (1, gid.subnet_prefix()));
}

#[test]
fn r3_memory_that_is_a_slice_is_nobody_else_s() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let buffer = fake.pd.allocate(64).unwrap();
    let mut borrowed = vec![0; 64];
    let bytes = range(&borrowed);
    let region = fake.pd.borrow(&mut borrowed).unwrap();
    assert!(!fake.control.is_exposed(range(&buffer)));
    assert!(!fake.control.is_exposed(bytes.clone()));
    // Also a peer that guesses the key comes to nothing.
    let guessed = RemoteRegion::new(range(&buffer).start as u64, 64, RemoteKey(buffer.lkey())).unwrap();
    pair.hub.post(pair.a, Operation::write(fake.pd.allocate(8).unwrap(), guessed)).unwrap();
    let error = pair.ended()[0].result.unwrap_err();
    assert_eq!(error.status, Status::REMOTE_ACCESS);
    assert_eq!(buffer[..], [0; 64]);
    // Parts of it share nothing, and lie one behind the other.
    let pool = fake.pd.pool_of(Memory::zeroed(64).unwrap(), 16).unwrap();
    let (first, second) = fake.pd.allocate(24).unwrap().split_at(8).unwrap();
    assert_eq!(range(&first).end, range(&second).start);
    let pool: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(pool.len(), 4);
    let mut parts: Vec<_> = [first, second].into_iter().chain(pool).collect();
    for (number, part) in (1..).zip(&mut parts) {
        part.fill(number);
    }
    for (number, part) in (1..).zip(&parts) {
        assert!(part.iter().all(|byte| *byte == number), "part {number}");
    }
    // Windows would open it, and so it takes none.
    for flags in [RegistrationFlags::WINDOW_BIND, RegistrationFlags::ZERO_BASED, RegistrationFlags::all()] {
        let error = fake.pd.adopt_memory(Memory::zeroed(8).unwrap(), flags).unwrap_err();
        assert!(error.to_string().contains("opens it to peers"), "{error}");
    }
    // Forgotten, it is a registration that nobody can name.
    std::mem::forget(region);
    assert!(!fake.control.is_exposed(bytes));
}

#[test]
fn r4_devices_without_anything_extended_do_the_same() {
    let devices = [
        DeviceOptions::legacy(0),
        DeviceOptions { extended_qp: false, ..DeviceOptions::default() },
        DeviceOptions { extended_cq: false, ..DeviceOptions::default() },
    ];
    for device in devices {
        let fake = Fake::with(device);
        let mut pair = Pair::new(&fake);
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 1).unwrap();
        let sent = fake.pd.adopt(b"extended".to_vec()).unwrap();
        pair.hub.post(pair.a, Operation::send_with_immediate(sent, 9)).unwrap();
        let received = pair.ended().into_iter().find(|ended| ended.side == Side::Receive).unwrap();
        assert_eq!(received.result.unwrap().immediate, Some(9));
        assert_eq!(&received.held.into_buffer().unwrap()[..], b"extended");
        drop(pair);
        fake.finish();
    }
}

#[test]
fn r5_a_device_without_atomics_has_reliable_connections_without_them() {
    let device = DeviceOptions { atomics: sys::IbvAtomicCap::NONE, ..DeviceOptions::default() };
    let fake = Fake::with(device);
    let mut pair = Pair::new(&fake);
    let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
    pair.hub.post(pair.a, Operation::write(fake.pd.allocate(8).unwrap(), region.remote())).unwrap();
    assert!(pair.ended()[0].result.is_ok());
    let atomic = Operation::fetch_add(fake.pd.allocate(8).unwrap(), region.remote(), 1);
    let refused = pair.hub.post(pair.a, atomic).unwrap_err();
    assert!(matches!(refused.error, Error::Unsupported { .. }), "{refused}");
}

#[test]
fn r6_a_poll_inside_the_loop_does_not_deadlock() {
    must_end(|| {
        for extended in [false, true] {
            let fake = Fake::new();
            let fields =
                if extended { sinew_verbs::cq::Fields::TIMESTAMP } else { sinew_verbs::cq::Fields::empty() };
            let queue = fake.context.completion_queue(64).fields(fields).build().unwrap();
            let make = || fake.pd.queue_pair::<Rc>(&queue).build().unwrap();
            let (a, b) = (make(), make());
            let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
            let mut a = a.connect(&to_b).map_err(|(_, error)| error).unwrap();
            let b = b.connect(&to_a).map_err(|(_, error)| error).unwrap();
            let mut place = fake.pd.allocate(8).unwrap();
            for wr_id in 0..4 {
                let mut list = [place.scatter().unwrap()];
                // SAFETY: the memory outlives the queue pair, which flushes below.
                unsafe { a.post_receives(&mut [ReceiveRequest::new(wr_id, &mut list)]) }.unwrap();
            }
            a.fail().unwrap();
            let (mut outer, mut inner) = (queue.poller(2), queue.poller(1));
            let mut b = Some(b);
            let mut seen = 0;
            for completion in outer.poll().unwrap() {
                assert_eq!(completion.status(), Status::FLUSHED);
                assert!(!fake.control.locks_held());
                seen += 1 + inner.poll().unwrap().len();
                assert_eq!(queue.poll_into(&mut [WorkCompletion::EMPTY; 0]).unwrap(), 0);
                drop(b.take());
            }
            assert_eq!(seen, 4);
            drop((a, outer, inner, queue, place));
            fake.finish();
        }
    });
}

#[test]
fn r6_a_batch_that_panics_holds_no_lock() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let mut operations = std::iter::from_fn(|| -> Option<Operation<Rc>> { panic!("on purpose") });
    assert!(catch_unwind(AssertUnwindSafe(|| pair.hub.post_batch(pair.a, &mut operations))).is_err());
    assert!(!fake.control.locks_held());
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    drop(pair);
    fake.finish();
}

#[test]
fn r7_what_a_device_cannot_do_is_an_error_and_no_drop_panics() {
    let fake = Fake::with(DeviceOptions { memory_windows: false, ..DeviceOptions::legacy(0) });
    let stamps = fake.context.completion_queue(8).fields(sinew_verbs::cq::Fields::TIMESTAMP).build();
    assert!(matches!(stamps, Err(Error::Unsupported { .. })), "{stamps:?}");
    let window = fake.pd.memory_window(sinew_verbs::memory::WindowType::Two);
    assert!(matches!(window, Err(Error::Unsupported { .. })), "{window:?}");
    assert!(sinew_verbs::qp::config::RetryCount::new(8).is_err());
    assert!(sinew_verbs::qp::config::RnrRetry::limited(7).is_err());
    let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
    assert!(region.part(4..9).is_err());
    let pair = Pair::new(&fake);
    let queue = fake.context.completion_queue(8).build().unwrap();
    let shared = fake.pd.shared_receive_queue(4).build().unwrap();
    let channel = fake.context.completion_channel().unwrap();
    let calls = [
        Call::DestroyQp,
        Call::DestroyCq,
        Call::DestroySrq,
        Call::DestroyCompChannel,
        Call::DeregMr,
        Call::DeallocPd,
        Call::CloseDevice,
    ];
    for call in calls {
        fake.control.refuse(call, Refusal::always(libc::EBUSY));
    }
    let Fake { control, library, context, pd } = fake;
    drop((pair, queue, shared, channel, region, pd, context));
    assert!(library.leaked_objects() >= 6);
    assert_eq!(control.faults(), []);
}

#[test]
fn r8_a_wait_survives_signals_and_keeps_its_deadline() {
    static CAUGHT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn caught(_: libc::c_int) {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler counts only; the action is whole and without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = caught as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let fake = Fake::new();
    let channel = fake.context.completion_channel().unwrap();
    let wanted = Duration::from_millis(200);
    let ended = AtomicBool::new(false);
    // SAFETY: answers the calling thread.
    let waiter = unsafe { libc::pthread_self() } as usize;
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // SAFETY: the thread waits for this one.
                unsafe { libc::pthread_kill(waiter as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let start = Instant::now();
        let (answer, waited) = (channel.wait(Some(wanted)), start.elapsed());
        // Before anything is judged: a failure ends this test, too.
        ended.store(true, Ordering::Relaxed);
        assert!(answer.unwrap().is_none());
        assert!(waited >= wanted);
    });
    assert!(CAUGHT.load(Ordering::Relaxed) > 0, "no signal came");
}

#[test]
fn r9_a_device_opens_whatever_its_ports_are() {
    let ports = vec![PortOptions::infiniband(1).down(), PortOptions::infiniband(2)];
    let fake = Fake::with(DeviceOptions { ports, ..DeviceOptions::default() });
    let choice = fake.context.choose_gid(None).unwrap();
    assert_eq!(choice.port, 2, "{}", choice.explanation);
    assert!(choice.explanation.contains("not port 1"), "{}", choice.explanation);
    drop(Pair::new(&fake));
    let down = vec![PortOptions::infiniband(1).down()];
    let fake = Fake::with(DeviceOptions { ports: down, ..DeviceOptions::default() });
    assert_eq!(fake.context.ports().unwrap().len(), 1);
    fake.finish();
}

#[test]
fn r10_a_handshake_checks_before_it_changes_anything_and_starts_anywhere() {
    let fake = Fake::with(DeviceOptions::roce(1));
    let make = || Channel::builder(&fake.pd).build().unwrap();
    let (a, b) = (make(), make());
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    assert!(to_a.psn != to_b.psn, "by chance once in 16 million");
    let without = sinew_verbs::qp::Endpoint { gid: None, ..to_b };
    let (a, error) = a.handshake(&without).unwrap_err();
    assert!(matches!(error, Error::Peer { .. }), "{error}");
    // Nothing has changed: the same ends connect.
    let Channels { mut a, b, .. } = Channels::connect(a, b);
    let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
    let piece = fake.pd.allocate(8).unwrap();
    let refused = a.write(&[piece.gather(8).unwrap()], region.remote()).unwrap_err();
    assert!(matches!(refused, Error::Work(_)), "{refused}");
    drop((a, b, piece, region));
    assert!(Channel::builder(&fake.pd).gid_index(300).build().is_err(), "it is not cut to 8 bits");
    fake.finish();
}

#[test]
fn r12_events_of_the_device_queues_and_windows_are_there() {
    let fake = Fake::new();
    let events = fake.context.async_events().unwrap();
    let pair = Pair::new(&fake);
    fake.control.break_qp(pair.a_qp);
    let event = events.event().unwrap().unwrap();
    assert_eq!(event.event_type, AsyncEventType::QUEUE_PAIR_FATAL);
    assert_eq!(event.element, Element::QueuePair(pair.a_qp));
    fake.control.set_port(0, 1, sys::IbvPortState::DOWN);
    let event = events.event().unwrap().unwrap();
    assert_eq!((event.event_type, event.element), (AsyncEventType::PORT_ERROR, Element::Port(1)));
    let queue = fake.context.completion_queue(8).build().unwrap();
    queue.resize(100).unwrap();
    assert!(queue.entries() >= 100);
    queue.moderate(4, 10).unwrap();
    let shared = fake.pd.shared_receive_queue(8).build().unwrap();
    // There are fewer than 2 receives, so it tells at once, and once.
    shared.set_limit(2).unwrap();
    let event = events.event().unwrap().unwrap();
    assert_eq!(event.event_type, AsyncEventType::SHARED_RECEIVE_QUEUE_LIMIT);
    assert_eq!(event.element, Element::SharedReceiveQueue(shared.id()));
    assert_eq!(shared.attributes().unwrap().limit, 0);
    let window = fake.pd.memory_window(sinew_verbs::memory::WindowType::One).unwrap();
    let memory = fake.context.device_memory(64, 0).unwrap();
    drop((pair, events, queue, shared, window, memory));
    fake.finish();
}

#[test]
fn r13_ports_and_gids_are_chosen_and_queues_sized_by_default() {
    for device in [DeviceOptions::default(), DeviceOptions::roce(1)] {
        let fake = Fake::with(device);
        let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
        let mut place = fake.pd.allocate(8).unwrap();
        let receive = b.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
        a.send(&[place.gather(8).unwrap()]).unwrap();
        assert!(receive.wait(SOON).unwrap().result.is_ok());
        assert!(matches!(b.receive(place.scatter().unwrap()), Err(Error::TimedOut { .. })));
        drop((a, b, place));
        fake.finish();
    }
}

#[test]
fn r14_events_are_acknowledged_in_bulk_and_batches_are_one_call() {
    let fake = Fake::new();
    let channel = fake.context.completion_channel().unwrap();
    let mut hub = Hub::<Uc>::with_channel(&fake.context, 64, &channel, 5).unwrap();
    let prepared = hub.queue_pair(&fake.pd).build().unwrap();
    let member = hub.add(prepared).unwrap();
    let own = hub.endpoint(member).unwrap();
    hub.connect(member, &own).unwrap();
    let before = fake.control.calls(Call::WrComplete) + fake.control.calls(Call::PostSend);
    let mut batch = (0..8).map(|_| Operation::send(fake.pd.allocate(8).unwrap()));
    assert_eq!(hub.post_batch(member, &mut batch).unwrap(), 8);
    assert_eq!(fake.control.calls(Call::WrComplete) + fake.control.calls(Call::PostSend), before + 1);
    let mut events = 0;
    for _ in 0..50 {
        while hub.poll().unwrap().is_some() {}
        hub.arm(false).unwrap();
        hub.post(member, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
        let event = channel.wait(Some(Duration::from_secs(20))).unwrap().unwrap();
        assert_eq!(event.cookie, 5);
        events += 1;
    }
    assert!(fake.control.calls(Call::AckCqEvents) <= events / 50);
    let shared = fake.pd.shared_receive_queue(8).build().unwrap();
    let mut places: Vec<_> = (0..8).map(|_| fake.pd.allocate(8).unwrap()).collect();
    let mut lists: Vec<_> = places.iter_mut().map(|place| [place.scatter().unwrap()]).collect();
    let mut requests: Vec<_> =
        lists.iter_mut().zip(0..).map(|(list, wr_id)| ReceiveRequest::new(wr_id, list)).collect();
    // SAFETY: the places outlive the shared queue, which is dropped before them.
    unsafe { shared.post_receives(&mut requests) }.unwrap();
    assert_eq!(fake.control.calls(Call::PostSrqRecv), 1);
    let mut poller = hub.queue_pair_of(member).unwrap().send_completion_queue().poller(4);
    let mut completions = poller.poll().unwrap();
    while completions.next().is_some() {}
    assert!(completions.next().is_none() && completions.next().is_none(), "fused");
    drop((shared, hub, poller, channel, places));
    fake.finish();
}
