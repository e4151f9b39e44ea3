//! What was found wrong in `ibverbs-rs` (I1 to I21), and is not so here; on a device inside the process.
//!
//! | finding | test |
//! |---|---|
//! | I1 no RoCE | `i1_…` |
//! | I2 hangs without end | `i2_…` |
//! | I3 unpolled work does not keep its queue pair | `i3_…` |
//! | I4 a poll error gives memory back early | `i4_…`; `scope_matrix::the_device_fails_to_poll` |
//! | I5 completion queues overrun | `i5_…` |
//! | I6 its example deadlocks | `i6_…` |
//! | I7 buffers cannot be used again; one is posted twice | `i7_…`; `tests/compile_fail/a_place_is_not_posted_twice.rs` |
//! | I8 long scopes grow | `i8_…`; `tests/allocations.rs` |
//! | I9 one request a doorbell, no inline, no sleep | `i9_…` |
//! | I10 channels stay on their thread | `i10_…` |
//! | I11 a queue pair leaks when its port cannot be asked | `i11_…` |
//! | I12 a fixed MTU, no patience with a late peer | `i12_…` |
//! | I13 memory goes before its registration | `i13_…` |
//! | I14 memory order of barriers | `network::barrier::tests::i14_…` |
//! | I15 a full queue poisons a barrier | `network::barrier::tests::i15_…` |
//! | I16 the exchange of endpoints | `network::exchange::tests::{bytes, sockets}::i16_…` |
//! | I17 every rank ships everything | `network::exchange::tests::{bytes, sockets}::i17_…` |
//! | I18 memory outside of this process is of no use here | `i18_…`, with memory of the device: no DMA-BUF on the device inside the process |
//! | I19 a registration outlives its memory | `i19_…`; `tests/compile_fail/registered_memory_is_not_freed.rs`, `memory_outlives_its_scope.rs` |
//! | I20 a failed queue pair is the end; failures get lost | `i20_…` |
//! | I21 reliable connections only, error numbers lost, lengths of sends | `i21_…` |
#![allow(unsafe_code, reason = "unpolled work, and memory with an owner of its own")]

mod fake;

use fake::{Channels, Fake, Pair, must_end, range};
use sinew_verbs::channel::{Channel, ScopeError, Work};
use sinew_verbs::hub::{Hub, Operation, Side};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::config::Mtu;
use sinew_verbs::qp::state::AttributeMask;
use sinew_verbs::qp::{Endpoint, Rc, Uc, Ud};
use sinew_verbs::work::Status;
use sinew_verbs::{Error, MultiChannel};
use sinew_verbs_fake::{Call, Control, DeviceOptions, Hold, Kind, Refusal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);

#[test]
fn i1_channels_work_over_ethernet() {
    let fake = Fake::with(DeviceOptions::roce(1));
    let Channels { a, mut b, .. } = Channels::new(&fake, SOON);
    let received = a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
    let message = fake.pd.adopt(b"ethernet".to_vec()).unwrap();
    b.send(&[message.gather(8).unwrap()]).unwrap();
    let received = received.wait(SOON).unwrap();
    assert_eq!(&received.held.into_buffer().unwrap()[..], b"ethernet");
    drop((a, b, message));
    fake.finish();
}

#[test]
fn i2_every_wait_ends_also_while_a_panic_goes_on() {
    must_end(|| {
        let fake = Fake::new();
        for hold in [Hold::NOTHING, Hold::REQUESTS, Hold::EVERYTHING] {
            let Channels { mut a, b, a_qp, .. } = Channels::new(&fake, SOON);
            fake.control.hold(a_qp, hold);
            let mut place = fake.pd.allocate(8).unwrap();
            let bytes = range(&place);
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                a.scope(|scope| -> Result<(), Error> {
                    std::mem::forget(scope.post(Work::receive(place.scatter()?))?);
                    panic!("on purpose")
                })
            }));
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
            fake.control.freed(bytes);
            let a = a.reset().map_err(|(_, error)| error).unwrap();
            let b = b.reset().map_err(|(_, error)| error).unwrap();
            let Channels { mut a, mut b, a_qp, .. } = Channels::connect(a, b);
            fake.control.hold(a_qp, hold);
            assert!(matches!(a.run(Work::receive_word()), Err(Error::TimedOut { .. })));
            // SAFETY: not forgotten.
            let pending = unsafe { b.post_unpolled(Work::receive(place.scatter().unwrap())) }.unwrap();
            drop(pending);
            assert!(b.broken().is_some());
            drop((a, b, place));
        }
        fake.finish();
    });
}

#[test]
fn i3_unpolled_work_outlives_its_channel() {
    must_end(|| {
        let fake = Fake::new();
        let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
        let mut places = [fake.pd.allocate(8).unwrap(), fake.pd.allocate(8).unwrap()];
        let bytes = range(&places[1]);
        let [first, second] = &mut places;
        // SAFETY: neither is forgotten.
        let (first, second) = unsafe {
            (
                a.post_unpolled(Work::receive(first.scatter().unwrap())).unwrap(),
                a.post_unpolled(Work::receive(second.scatter().unwrap())).unwrap(),
            )
        };
        drop(a);
        let message = fake.pd.allocate(8).unwrap();
        b.send(&[message.gather(8).unwrap()]).unwrap();
        assert_eq!(first.wait().unwrap().success.len, Some(8));
        assert!(fake.control.may_touch(bytes.clone()));
        drop(second);
        fake.control.freed(bytes);
        drop((b, message, places));
        fake.finish();
    });
}

#[test]
fn i3_unpolled_work_with_one_of_several_peers_outlives_their_channels() {
    must_end(|| {
        let fake = Fake::new();
        let all = MultiChannel::builder(&fake.pd, 2).deadline(Some(SOON)).build().unwrap();
        let endpoints = all.endpoints().unwrap();
        let peers: Vec<_> = endpoints.iter().map(|_| Channel::builder(&fake.pd).build().unwrap()).collect();
        let to_peers: Vec<_> = peers.iter().map(|peer| peer.endpoint().unwrap()).collect();
        let mut all = all.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
        let connect = |(peer, own): (sinew_verbs::channel::PreparedChannel, _)| {
            peer.handshake(own).map_err(|(_, error)| error).unwrap()
        };
        let mut peers: Vec<_> = peers.into_iter().zip(&endpoints).map(connect).collect();
        let mut places = [fake.pd.allocate(8).unwrap(), fake.pd.allocate(8).unwrap()];
        let bytes = range(&places[0]);
        let [silent, heard] = &mut places;
        // SAFETY: neither is forgotten.
        let (silent, heard) = unsafe {
            (
                all.post_unpolled(0, Work::receive(silent.scatter().unwrap())).unwrap(),
                all.post_unpolled(1, Work::receive(heard.scatter().unwrap())).unwrap(),
            )
        };
        // SAFETY: as above.
        assert!(unsafe { all.post_unpolled(2, Work::receive_word()) }.is_err(), "there are two");
        drop(all);
        let message = fake.pd.allocate(8).unwrap();
        peers[1].send(&[message.gather(8).unwrap()]).unwrap();
        assert_eq!(heard.wait().unwrap().success.len, Some(8));
        assert!(fake.control.may_touch(bytes.clone()));
        drop(silent);
        fake.control.freed(bytes);
        drop((peers, message, places));
        fake.finish();
    });
}

#[test]
fn i4_a_poll_error_does_not_release_a_borrow() {
    let fake = Fake::new();
    let Channels { mut a, mut b, a_qp, .. } = Channels::new(&fake, SOON);
    fake.control.hold(a_qp, Hold::COMPLETIONS);
    let mut place = fake.pd.allocate(8).unwrap();
    let bytes = range(&place);
    let scatter = place.scatter().unwrap();
    let ended = a.scope(|scope| {
        let mut pending = scope.post(Work::receive(scatter))?;
        fake.control.refuse(Call::PollCq, Refusal::always(libc::EIO));
        for _ in 0..3 {
            let answer = pending.poll();
            assert!(matches!(answer, Some(Err(Error::Call { .. }))), "{answer:?}");
            assert!(fake.control.may_touch(bytes.clone()), "it is still out");
        }
        Ok::<(), Error>(())
    });
    let Err(ScopeError::Failed(failures)) = ended else { panic!("{ended:?}") };
    assert!(matches!(failures[0], Error::Call { .. }), "{failures:?}");
    fake.control.freed(bytes);
    assert_eq!(fake.control.touches_after_free(), []);
    // The same for a call that blocks.
    let mut other = fake.pd.allocate(8).unwrap();
    let bytes = range(&other);
    assert!(b.receive(other.scatter().unwrap()).is_err());
    fake.control.freed(bytes);
    assert_eq!(fake.control.touches_after_free(), []);
    fake.control.refuse_nothing();
    drop((a, b, place, other));
    fake.finish();
}

#[test]
fn i4_a_hub_keeps_what_is_out_over_a_poll_error() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    fake.control.refuse(Call::PollCq, Refusal { times: 3, ..Refusal::always(libc::EIO) });
    for _ in 0..3 {
        assert!(matches!(pair.hub.poll(), Err(Error::Call { .. })));
        assert!(!pair.hub.is_idle());
    }
    assert_eq!(pair.ended().len(), 2);
    drop(pair);
    fake.finish();
}

#[test]
fn i5_a_completion_queue_cannot_overrun() {
    let fake = Fake::new();
    let mut hub = Hub::<Rc>::new(&fake.context, 40).unwrap();
    let entries = hub_entries(&fake, &mut hub);
    let mut members = Vec::new();
    let error = loop {
        let prepared = hub.queue_pair(&fake.pd).send_depth(10).receive_depth(10).build();
        match prepared {
            Ok(prepared) => members.push(hub.add(prepared).unwrap()),
            Err(error) => break error,
        }
        assert!(members.len() as u32 * 20 <= entries, "more than the completion queue has room for");
    };
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(members.len() as u32 * 20 <= entries);
    // It is not made shorter than what they have reserved, whatever the device would do.
    let reserved = members.len() as u32 * 20;
    let queue = hub.queue_pair_of(members[0]).unwrap().send_completion_queue().clone();
    let error = queue.resize(reserved - 1).unwrap_err();
    assert!(error.to_string().contains(&format!("need {reserved}")), "{error}");
    assert_eq!(fake.control.calls(Call::ResizeCq), 0);
    queue.resize(reserved).unwrap();
    drop(queue);
    let endpoints: Vec<_> = members.iter().map(|member| hub.endpoint(*member).unwrap()).collect();
    for (place, member) in members.iter().enumerate() {
        hub.connect(*member, &endpoints[place ^ 1]).unwrap();
    }
    // Everything is filled, nothing polled until nothing more is taken.
    for _ in 0..5 {
        for member in &members {
            while hub.post_receive(*member, fake.pd.allocate(8).unwrap(), 0).is_ok() {}
        }
        for member in &members {
            while hub.post(*member, Operation::send(fake.pd.allocate(8).unwrap())).is_ok() {}
        }
        let mut ended = 0;
        while let Some(completed) = hub.poll().unwrap() {
            assert!(completed.result().is_ok());
            ended += 1;
        }
        assert_eq!(ended, members.len() * 20);
    }
    // What a removed member left in the queue takes no room from its successor.
    for _ in 0..10 {
        let gone = members.pop().unwrap();
        while hub.post_receive(gone, fake.pd.allocate(8).unwrap(), 0).is_ok() {}
        hub.fail(gone).unwrap();
        assert_eq!(hub.remove(gone).unwrap().len(), 10);
        let prepared = hub.queue_pair(&fake.pd).send_depth(10).receive_depth(10).build().unwrap();
        members.push(hub.add(prepared).unwrap());
    }
    drop(hub);
    fake.finish();
}

/// Entries that the queue got.
fn hub_entries(fake: &Fake, hub: &mut Hub<Rc>) -> u32 {
    let prepared = hub.queue_pair(&fake.pd).send_depth(1).receive_depth(1).build().unwrap();
    let member = hub.add(prepared).unwrap();
    let entries = hub.queue_pair_of(member).unwrap().send_completion_queue().entries();
    drop(hub.remove(member).unwrap());
    entries
}

#[test]
fn i6_one_thread_sends_to_itself_and_a_receive_before_that_ends() {
    let fake = Fake::new();
    let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
    let mut place = fake.pd.allocate(8).unwrap();
    let message = fake.pd.adopt(b"loopback".to_vec()).unwrap();
    let scatter = place.scatter().unwrap();
    let answer = a.scope(|scope| {
        let pending = scope.post(Work::receive(scatter))?;
        b.send(&[message.gather(8)?])?;
        Ok::<_, Error>(pending.wait()?.places.into_bytes().to_vec())
    });
    assert_eq!(answer.unwrap(), b"loopback");
    // The example of the other: a blocking receive before anything was sent.
    assert!(matches!(a.receive(place.scatter().unwrap()), Err(Error::TimedOut { .. })));
}

#[test]
fn i7_a_buffer_is_used_again_as_soon_as_its_operation_has_ended() {
    let fake = Fake::new();
    let Channels { mut a, mut b, .. } = Channels::new(&fake, SOON);
    let mut storage = [0; 16];
    let bytes = range(&storage);
    let mut region = fake.pd.borrow(&mut storage).unwrap();
    let (key, all) = region.split();
    let mut place = &mut all[..8];
    let message = fake.pd.allocate(8).unwrap();
    a.scope(|scope| {
        for round in 0..100u8 {
            let pending = scope.post(Work::receive(key.scatter(place)?))?;
            b.send(&[message.gather(8)?])?;
            place = pending.wait()?.places.into_bytes();
            assert!(!fake.control.may_touch(bytes.clone()));
            place[0] = round;
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    drop((a, b, message, region));
    assert_eq!(storage[0], 99);
    fake.finish();
}

#[test]
fn i8_long_scopes_do_not_grow() {
    // No more places than operations at once: the same few numbers come again, also of those that nobody waited for.
    let fake = Fake::new();
    let Channels { mut a, mut b, .. } = Channels::new(&fake, Duration::from_secs(20));
    let (piece, mut place) = (fake.pd.allocate(8).unwrap(), fake.pd.allocate(8).unwrap());
    let gather = piece.gather(8).unwrap();
    a.scope(|scope| {
        for round in 0..2000 {
            let sent = scope.post(Work::send(gather))?;
            b.receive(place.scatter()?)?;
            match round % 3 {
                0 => {
                    sent.wait()?;
                }
                1 => drop(sent),
                _ => {
                    let empty = scope.post(Work::send(&[][..]))?;
                    b.run(Work::receive_word())?;
                    drop(sent);
                    empty.wait()?;
                }
            }
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(a.parked_bytes(), 0);
    drop((a, b, piece, place));
    fake.finish();
}

#[test]
fn i9_a_doorbell_rings_for_many_unsignaled_and_inline_requests() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
    let before = fake.control.calls(Call::WrComplete);
    let mut batch = (0..16u64).map(|tag| {
        let write = Operation::write(fake.pd.allocate(8).unwrap(), region.remote()).inline().tag(tag);
        if tag == 15 { write } else { write.unsignaled() }
    });
    assert_eq!(pair.hub.post_batch(pair.a, &mut batch).unwrap(), 16);
    assert_eq!(fake.control.calls(Call::WrComplete), before + 1);
    let ended: Vec<_> = pair.ended().into_iter().map(|ended| ended.tag).collect();
    assert_eq!(ended, (0..16).collect::<Vec<_>>());
    let qp = pair.hub.queue_pair_of(pair.a).unwrap();
    let depth = qp.query(AttributeMask::MAX_QP_RD_ATOMIC).unwrap().initiator_depth().unwrap();
    assert!(depth > 1, "{depth} reads at once");
    drop(pair);
    // Where all are signaled, one that is not says how it ended all the same.
    for (all, completes) in [(true, 1), (false, 0)] {
        let mut hub = Hub::<Rc>::new(&fake.context, 16).unwrap();
        let of = hub.queue_pair(&fake.pd).send_depth(4).receive_depth(0).remote_access(RemoteAccess::WRITE);
        let prepared = of.signal_all(all).build().unwrap();
        let member = hub.add(prepared).unwrap();
        let own = hub.endpoint(member).unwrap();
        hub.connect(member, &own).unwrap();
        let write = Operation::write(fake.pd.allocate(8).unwrap(), region.remote()).unsignaled();
        hub.post(member, write).unwrap();
        let mut told = 0;
        while let Some(ended) = hub.poll().unwrap() {
            told += i32::from(ended.completion().is_some());
        }
        assert_eq!(told, completes, "all of them signaled: {all}");
    }
    drop(region);
    // A wait sleeps: it polls for a while, and then as good as never.
    let Channels { mut a, .. } = Channels::new(&fake, Duration::from_millis(500));
    let before = fake.control.calls(Call::PollCq);
    let arms = fake.control.calls(Call::ReqNotifyCq);
    assert!(a.run(Work::receive_word()).is_err());
    assert!(fake.control.calls(Call::ReqNotifyCq) > arms);
    assert!(fake.control.calls(Call::PollCq) - before < 100_000);
}

#[test]
fn i10_channels_and_their_operations_move_between_threads() {
    fn moves<T: Send>() {}
    moves::<Channel>();
    moves::<MultiChannel>();
    moves::<Hub<Rc>>();
    moves::<sinew_verbs::channel::Submitted>();
    moves::<sinew_verbs::channel::PendingWork<'_>>();
    moves::<sinew_verbs::channel::Driver>();
    let fake = Fake::new();
    let Channels { a, mut b, .. } = Channels::new(&fake, SOON);
    let received = a.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
    let message = fake.pd.allocate(8).unwrap();
    let a = std::thread::spawn(move || {
        b.send(&[message.gather(8).unwrap()]).unwrap();
        a
    })
    .join()
    .unwrap();
    let driver = a.driver();
    driver.run(|| !received.is_out()).unwrap();
    assert!(received.wait(SOON).unwrap().result.is_ok());
}

#[test]
fn i11_nothing_leaks_whichever_call_fails_on_the_way_to_a_channel() {
    let calls = [
        Call::QueryPort,
        Call::QueryGidTable,
        Call::QueryDevice,
        Call::CreateCompChannel,
        Call::CreateCq,
        Call::CreateQpEx,
        Call::ModifyQp,
        Call::RegMr,
    ];
    for call in calls {
        for after in 0..4 {
            let fake = Fake::new();
            fake.control.refuse(call, Refusal::after(after, libc::EIO));
            if let Ok(channel) = Channel::builder(&fake.pd).build()
                && let Ok(endpoint) = channel.endpoint()
            {
                drop(channel.handshake(&endpoint));
            }
            fake.control.refuse_nothing();
            fake.finish();
        }
    }
}

#[test]
fn i12_the_mtu_is_the_ports_and_a_late_peer_is_waited_for() {
    let fake = Fake::with(DeviceOptions::roce(1));
    let mut pair = Pair::new(&fake);
    let qp = pair.hub.queue_pair_of(pair.a).unwrap();
    let given =
        qp.query(AttributeMask::PATH_MTU | AttributeMask::RNR_RETRY | AttributeMask::RETRY_CNT).unwrap();
    assert_eq!(given.mtu(), Some(Mtu::B1024));
    assert_eq!(given.as_raw().retry_cnt, 6);
    // A message before its receive is there arrives when it is.
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    assert!(pair.ended().is_empty());
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    assert!(pair.ended().iter().all(|ended| ended.result.is_ok()) && pair.hub.is_idle());
}

/// Memory that looks, when it goes, whether its registration has gone before.
struct Watched {
    control: Arc<Control>,
    bytes: Box<[u8; 64]>,
    was_last: Arc<AtomicBool>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let regions = self.control.live().get(&Kind::MemoryRegion).copied().unwrap_or(0);
        self.control.freed(self.bytes.as_ptr_range());
        self.was_last.store(regions == 0, Ordering::Relaxed);
    }
}

#[test]
fn i13_a_registration_ends_before_its_memory_goes() {
    let Fake { control, library, context, pd } = Fake::new();
    let control = Arc::new(control);
    for exposed in [false, true] {
        let was_last = Arc::new(AtomicBool::new(false));
        let mut bytes = Box::new([0; 64]);
        let start = NonNull::new(bytes.as_mut_ptr()).unwrap();
        let owner = Watched { control: control.clone(), bytes, was_last: was_last.clone() };
        // SAFETY: the bytes are the owner's, and nobody uses them meanwhile.
        let memory = unsafe { Memory::from_raw(start, 64, Box::new(owner)) }.unwrap();
        if exposed {
            let region = pd.expose(memory, RemoteAccess::all()).unwrap();
            assert!(
                control.is_exposed(start.as_ptr().cast_const()..start.as_ptr().wrapping_add(64).cast_const())
            );
            drop(region);
        } else {
            drop(pd.adopt_memory(memory, sinew_verbs::memory::RegistrationFlags::empty()).unwrap());
        }
        assert!(was_last.load(Ordering::Relaxed), "its registration was still there");
    }
    drop((pd, context, library));
    assert_eq!(control.faults(), []);
}

#[test]
fn i18_memory_of_the_device_is_sent_from_and_received_into() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let memory = fake.context.device_memory(64, 0).unwrap();
    memory.write_at(0, b"on the device").unwrap();
    let region = memory.register(&fake.pd, 0..64, RemoteAccess::empty()).unwrap();
    pair.hub.post_receive(pair.b, region.part(32..45).unwrap(), 0).unwrap();
    pair.hub.post(pair.a, Operation::send(region.part(0..13).unwrap())).unwrap();
    assert!(pair.ended().iter().all(|ended| ended.result.is_ok()));
    let mut copy = [0; 13];
    memory.read_at(32, &mut copy).unwrap();
    assert_eq!(&copy, b"on the device");
    drop((pair, region, memory));
    fake.finish();
}

#[test]
fn i19_a_borrowed_registration_ends_with_its_borrow_and_makes_no_element_of_other_memory() {
    let fake = Fake::new();
    let mut storage = vec![0; 96];
    let (before, rest) = storage.split_at_mut(32);
    let (own, behind) = rest.split_at_mut(32);
    let mut region = fake.pd.borrow(own).unwrap();
    assert_eq!(fake.control.live().get(&Kind::MemoryRegion), Some(&1));
    let (key, bytes) = region.split();
    assert_eq!(key.gather(bytes).unwrap().len(), 32);
    let other = [0; 8];
    for other in [&other[..], &before[31..], &behind[..1], before, behind] {
        assert!(matches!(key.gather(other), Err(Error::Invalid { .. })), "{} bytes beside it", other.len());
    }
    assert!(matches!(key.scatter(&mut behind[..1]), Err(Error::Invalid { .. })));
    drop(region);
    assert_eq!(fake.control.live().get(&Kind::MemoryRegion), None);
    storage.push(1);
    fake.finish();
}

#[test]
fn i20_a_failed_connection_is_brought_back_and_every_failure_is_told() {
    let fake = Fake::new();
    let Channels { mut a, b, .. } = Channels::new(&fake, SOON);
    let closed = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
    let piece = fake.pd.allocate(8).unwrap();
    let failed = a.write(&[piece.gather(8).unwrap()], closed.remote()).unwrap_err();
    assert!(matches!(&failed, Error::Work(error) if error.status == Status::REMOTE_ACCESS), "{failed}");
    assert!(a.broken().unwrap().contains("REM_ACCESS"), "{:?}", a.broken());
    let a = a.reset().map_err(|(_, error)| error).unwrap();
    let b = b.reset().map_err(|(_, error)| error).unwrap();
    let Channels { mut a, b, .. } = Channels::connect(a, b);
    let mut place = fake.pd.allocate(8).unwrap();
    a.read(place.scatter().unwrap(), closed.remote()).unwrap();
    drop(b.broken());
    // The closure's failure hides none of the operations'.
    let gather = piece.gather(8).unwrap();
    let ended: Result<(), _> = a.scope(|scope| {
        drop(scope.post(Work::write(gather, closed.remote()))?);
        Err(Error::Peer { cause: "said so".to_owned() })
    });
    let Err(ScopeError::Closure { failures, .. }) = ended else { panic!("{ended:?}") };
    assert_eq!(failures.len(), 1);
    // One peer's failure hides nothing of the others.
    let mut all = MultiChannel::builder(&fake.pd, 3).deadline(Some(SOON)).build().unwrap();
    let mut peers = Vec::new();
    let mut endpoints = Vec::new();
    for own in all.endpoints().unwrap() {
        let peer = Channel::builder(&fake.pd).build().unwrap();
        endpoints.push(peer.endpoint().unwrap());
        peers.push(peer.handshake(&own).map_err(|(_, error)| error).unwrap());
    }
    let mut all = match all.handshake(&endpoints) {
        Ok(all) => all,
        Err((again, error)) => {
            all = again;
            panic!("{all:?}: {error}")
        }
    };
    for peer in [0, 2] {
        std::mem::forget(peers[peer].submit_receive(fake.pd.allocate(8).unwrap()).unwrap());
    }
    let answers = all.multicast_send(0..4, gather);
    assert_eq!(answers.len(), 4);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(Error::TimedOut { .. })), "{answers:?}");
    assert!(matches!(answers[3], Err(Error::Invalid { .. })), "{answers:?}");
    assert!(all.broken(0).is_none() && all.broken(1).is_some());
}

#[test]
fn i21_every_service_is_there_and_errors_keep_their_numbers() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap())).unwrap();
    for ended in pair.ended() {
        let wanted = (ended.side == Side::Receive).then_some(8);
        assert_eq!(ended.result.unwrap().len, wanted, "{:?}", ended.side);
    }
    for errno in [libc::EINVAL, libc::ENOMEM, libc::EPERM, libc::ENOENT, libc::EXDEV] {
        fake.control.refuse(Call::RegMr, Refusal::once(errno));
        assert_eq!(fake.pd.allocate(8).unwrap_err().errno(), Some(errno));
    }
    let unreliable = Hub::<Uc>::new(&fake.context, 64).unwrap();
    let datagrams = Hub::<Ud>::new(&fake.context, 64).unwrap();
    unreliable.queue_pair(&fake.pd).build().unwrap();
    datagrams.queue_pair(&fake.pd).build().unwrap();
    drop((pair, unreliable, datagrams));
    fake.finish();
}

#[test]
fn i12_what_the_peer_can_limits_what_is_asked_of_it() {
    let fake = Fake::new();
    let mut hub = Hub::<Rc>::new(&fake.context, 64).unwrap();
    for (mtu, reads) in [(Mtu::B256, 3), (Mtu::B4096, 0), (Mtu::B4096, u8::MAX)] {
        let prepared =
            hub.queue_pair(&fake.pd).send_depth(4).receive_depth(4).initiator_depth(9).build().unwrap();
        let member = hub.add(prepared).unwrap();
        let own = hub.endpoint(member).unwrap();
        hub.connect(member, &Endpoint { mtu, responder_resources: reads, ..own }).unwrap();
        let told = hub.queue_pair_of(member).unwrap().query(AttributeMask::QUERY).unwrap();
        assert_eq!((told.mtu(), told.initiator_depth()), (Some(mtu), Some(reads.min(9))));
        drop(hub.remove(member).unwrap());
    }
    drop(hub);
    fake.finish();
}

/// Two ranks with a place for one operation each, and what they told each other.
#[cfg(feature = "network")]
fn two_ranks(fake: &Fake) -> ([sinew_verbs::network::Node; 2], [sinew_verbs::network::Introduction; 2]) {
    use sinew_verbs::network::Node;
    let make = |rank| Node::builder(&fake.pd, rank, 2).send_depth(1).receive_depth(1).build().unwrap();
    let (zero, one) = (make(0), make(1));
    let told = [zero.introductions().unwrap()[1].unwrap(), one.introductions().unwrap()[0].unwrap()];
    let zero = zero.handshake(&[None, Some(told[1])]).map_err(|(_, error)| error).unwrap();
    let one = one.handshake(&[Some(told[0]), None]).map_err(|(_, error)| error).unwrap();
    ([zero, one], told)
}

#[cfg(feature = "network")]
#[test]
fn i15_a_full_queue_is_waited_for_and_the_barrier_goes_on() {
    use sinew_verbs::network::barrier::BarrierError;
    let fake = Fake::new();
    let ([mut zero, mut one], told) = two_ranks(&fake);
    let target = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
    let qp = told[1].endpoint.qp_num;
    fake.control.hold(qp, Hold::REQUESTS);
    // The one place of the queue is taken, and its operation does not end.
    let out = one.submit(0, Operation::write(fake.pd.allocate(8).unwrap(), target.remote())).unwrap();
    for _ in 0..3 {
        let error = one.barrier_all(Duration::from_millis(20)).unwrap_err();
        assert!(
            matches!(error, BarrierError::TimedOut { rank: 0, queue_full: true, epoch: 1, .. }),
            "{error}"
        );
    }
    fake.control.release(qp);
    let other =
        std::thread::spawn(move || zero.barrier_all(Duration::from_secs(60)).map(|epoch| (epoch, zero)));
    assert_eq!(one.barrier_all(Duration::from_secs(60)).unwrap(), 1);
    let (epoch, zero) = other.join().unwrap().unwrap();
    assert_eq!(epoch, 1, "the barrier that was entered before is the one that is passed");
    drop((out, zero, one, target));
    fake.finish();
}

#[cfg(feature = "network")]
#[test]
fn i15_what_a_rank_told_before_its_connection_was_cut_is_told_again() {
    use sinew_verbs::network::barrier::BarrierError;
    let fake = Fake::new();
    let ([mut zero, mut one], told) = two_ranks(&fake);
    // What rank 0 tells does not arrive: it has passed, and rank 1 has not.
    fake.control.hold(told[0].endpoint.qp_num, Hold::REQUESTS);
    let soon = Duration::from_millis(20);
    assert!(one.barrier_all(soon).is_err());
    assert_eq!(zero.barrier_all(Duration::from_secs(60)).unwrap(), 1);
    let error = one.barrier_all(soon).unwrap_err();
    assert!(matches!(error, BarrierError::TimedOut { rank: 0, queue_full: false, epoch: 1, .. }), "{error}");
    let (to_zero, to_one) = (zero.reset(1).unwrap(), one.reset(0).unwrap());
    fake.control.release(told[0].endpoint.qp_num);
    let (to_zero, to_one) = (zero.introduction(to_zero), one.introduction(to_one));
    one.reconnect(0, &to_zero).unwrap();
    zero.reconnect(1, &to_one).unwrap();
    assert_eq!(one.barrier_all(Duration::from_secs(10)).unwrap(), 1, "rank 0 does not enter it again");
    drop((zero, one));
    fake.finish();
}
