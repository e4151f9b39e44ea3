//! What a device does not let go of, what nobody waits for any more, what is left in a queue. On a device inside the process.
#![allow(unsafe_code, reason = "memory with an owner that is seen to live")]

mod fake;

use fake::{Channels, Fake, Pair};
use sinew_verbs::cq::Fields;
use sinew_verbs::memory::{Memory, RegistrationFlags, RemoteAccess, WindowType};
use sinew_verbs::{Channel, Error};
use sinew_verbs_fake::{Call, Hold, Kind, Refusal};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn memory_whose_registration_a_device_does_not_end_is_never_freed() {
    let fake = Fake::new();
    let (alive, mut backing) = (Arc::new(()), vec![0_u8; 256]);
    let mut memory = || {
        let start = NonNull::new(backing.as_mut_ptr()).unwrap();
        // SAFETY: nobody looks at the bytes by their name.
        unsafe { Memory::from_raw(start, 256, Box::new(alive.clone())) }.unwrap()
    };
    let buffer = fake.pd.adopt(memory()).unwrap();
    let taken = fake.pd.adopt(memory()).unwrap();
    let pool = fake.pd.pool_of(memory(), 8).unwrap();
    let exposed = fake.pd.expose(memory(), RemoteAccess::all()).unwrap();
    fake.control.refuse(Call::DeregMr, Refusal::always(libc::EBUSY));
    drop((buffer, pool.take(), pool, exposed));
    assert!(taken.into_memory().unwrap().is_none(), "it is the device's");
    assert_eq!(Arc::strong_count(&alive), 5, "each of them");
    assert_eq!(fake.library.leaked_objects(), 4);
    let Fake { control, context, pd, .. } = fake;
    drop((pd, context));
    assert_eq!(control.live().get(&Kind::ProtectionDomain), Some(&1), "what a region needs stays with it");
    assert_eq!(control.faults(), []);
}

#[test]
fn what_was_parked_leaves_room_or_nothing_more_is_submitted() {
    let fake = Fake::new();
    let make = || Channel::builder(&fake.pd).parked_bytes_max(20).build().unwrap();
    let Channels { mut a, b, .. } = Channels::connect(make(), make());
    for parked in [16, 32] {
        drop(b.submit_receive(fake.pd.allocate(16).unwrap()).unwrap());
        assert_eq!(b.parked_bytes(), parked);
    }
    let rejected = b.submit_receive(fake.pd.allocate(16).unwrap()).unwrap_err();
    assert!(matches!(rejected.error, Error::Full { .. }), "{rejected}");
    assert!(rejected.error.to_string().contains("room for memory that nobody waits for"), "{rejected}");
    assert_eq!(rejected.operation.into_buffer().unwrap().len(), 16);
    // One that has ended is not parked any more.
    a.send(&[]).unwrap();
    b.driver().progress().unwrap();
    assert_eq!(b.parked_bytes(), 16);
    drop(b.submit_receive(fake.pd.allocate(16).unwrap()).unwrap());
    drop((a, b));
    fake.finish();
}

#[test]
fn what_a_member_that_is_gone_left_in_the_queue_takes_no_room_and_is_nobodys() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let entries = pair.hub.queue_pair_of(pair.a).unwrap().send_completion_queue().entries();
    // As of devices that leave the completions of a queue pair in the queue when it ends.
    pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 0).unwrap();
    for _ in 0..entries {
        let mut left = sinew_verbs_sys::ibv_wc::zeroed();
        (left.qp_num, left.wr_id) = (pair.b_qp, 1 << 63 | 1 << 32);
        fake.control.forge(pair.cq, left);
    }
    assert_eq!(pair.hub.remove(pair.b).unwrap().len(), 1);
    assert_eq!(pair.hub.strays(), u64::from(entries), "all were read, and are of nobody");
    while pair.hub.post_receive(pair.a, fake.pd.allocate(8).unwrap(), 7).is_ok() {}
    pair.hub.fail(pair.a).unwrap();
    let ended = pair.ended();
    assert!(!ended.is_empty() && ended.iter().all(|ended| ended.tag == 7), "{ended:?}");
    drop((ended, pair));
    fake.finish();
}

#[test]
fn an_atomic_that_is_not_answered_breaks_its_channel_and_its_place_stays_with_the_device() {
    let fake = Fake::new();
    let Channels { mut a, b, b_qp, .. } = Channels::new(&fake, Duration::from_millis(50));
    let word = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
    assert_eq!(a.fetch_add(word.remote(), 1).unwrap(), 0);
    fake.control.hold(b_qp, Hold::INCOMING);
    assert!(matches!(a.fetch_add(word.remote(), 1), Err(Error::TimedOut { .. })));
    assert!(a.broken().is_some());
    assert!(matches!(a.fetch_add(word.remote(), 1), Err(Error::Broken { .. })));
    assert_eq!(fake.control.in_flight(), [], "it was cut short");
    drop((a, b, word));
    fake.finish();
}

#[test]
fn a_poll_that_fails_behind_completions_gives_those_and_the_failure_after_them() {
    let fake = Fake::new();
    let queue = fake.context.completion_queue(64).fields(Fields::TIMESTAMP).build().unwrap();
    for number in [7, 8] {
        let mut wc = sinew_verbs_sys::ibv_wc::zeroed();
        wc.wr_id = number;
        fake.control.forge(*fake.control.completion_queues().last().unwrap(), wc);
    }
    fake.control.refuse(Call::NextPoll, Refusal::once(libc::EIO));
    let mut poller = queue.poller(8);
    let told: Vec<_> = poller.poll().unwrap().map(|completion| completion.wr_id()).collect();
    assert_eq!(told, [7]);
    assert_eq!(poller.poll().unwrap_err().errno(), Some(libc::EIO));
    let told: Vec<_> = poller.poll().unwrap().map(|completion| completion.wr_id()).collect();
    assert!(told == [8] || told == [7, 8], "{told:?}");
    drop((poller, queue));
    fake.finish();
}

#[test]
fn a_window_of_another_domain_is_refused_before_the_device_sees_it() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    let elsewhere = fake.context.protection_domain().unwrap();
    let window = elsewhere.memory_window(WindowType::Two).unwrap();
    let memory = Memory::zeroed(8).unwrap();
    let region = elsewhere.expose_with(memory, RemoteAccess::all(), RegistrationFlags::WINDOW_BIND).unwrap();
    let errors = [
        pair.hub.bind_window(pair.a, &window, &region, 0..8, RemoteAccess::READ, 0).unwrap_err(),
        pair.hub.close_window(pair.a, &window, 0).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("another protection domain"), "{error}");
    }
    assert!(pair.hub.is_idle());
    drop((pair, window, region, elsewhere));
    fake.finish();
}
