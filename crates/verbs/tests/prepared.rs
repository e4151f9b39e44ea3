//! Prepared requests: posted again and again, ended as one, their memory never lost. On a device inside the process.

mod fake;

use fake::{Fake, Pair};
use sinew_verbs::Error;
use sinew_verbs::hub::{Held, Hub, Operation, Prepared, Side};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::{Path, Rc, Ud};
use sinew_verbs::work::Status;
use sinew_verbs_fake::{Call, Kind, Refusal};

fn sends(fake: &Fake, count: usize) -> Vec<Operation<Rc>> {
    let send = |place| {
        let send = Operation::send(fake.pd.allocate(8).unwrap());
        if place + 1 == count { send } else { send.unsignaled() }
    };
    (0..count).map(send).collect()
}

fn prepared(fake: &Fake, count: usize) -> Prepared<Rc> {
    Prepared::new(&fake.pd, sends(fake, count)).map_err(|rejected| rejected.error).unwrap()
}

/// Both ways to post: extended, and by a list.
fn both(test: impl Fn(&Fake, Pair)) {
    for extended in [true, false] {
        let fake = Fake::new();
        let pair = Pair::with(&fake, extended);
        test(&fake, pair);
        fake.finish();
    }
}

#[test]
fn messages_arrive_in_order_each_time_and_the_requests_come_back_once() {
    both(|fake, mut pair| {
        let mut batch = prepared(fake, 4).tag(77);
        // An interpreter is slow.
        for round in 0..if cfg!(miri) { 2 } else { 50_u8 } {
            for place in 0..4 {
                batch.bytes_mut(place).unwrap().copy_from_slice(&[round + place as u8; 8]);
                pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), place as u64).unwrap();
            }
            pair.hub.post_prepared(pair.a, batch).unwrap();
            assert_eq!(pair.hub.in_flight(pair.a).unwrap(), (4, 0));
            let mut back = None;
            let mut received = Vec::new();
            while let Some(ended) = pair.hub.poll().unwrap() {
                assert!(ended.result().is_ok());
                match ended.side() {
                    Side::Send => {
                        assert_eq!((ended.tag(), ended.member()), (77, pair.a));
                        assert!(back.replace(ended.into_prepared().unwrap()).is_none(), "once");
                    }
                    Side::Receive => received.push(ended.into_buffer().unwrap()[0]),
                }
            }
            assert_eq!(received, (round..round + 4).collect::<Vec<_>>());
            batch = back.unwrap();
            assert_eq!(batch.bytes(3).unwrap(), [round + 3; 8]);
        }
        assert_eq!(batch.into_held().len(), 4);
        assert!(pair.hub.is_idle() && pair.hub.strays() == 0);
    });
}

#[test]
fn other_operations_stand_between_them() {
    both(|fake, mut pair| {
        let region = fake.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
        let mut five = fake.pd.allocate(8).unwrap();
        five.fill(5);
        let operations = vec![
            Operation::write(five, region.remote()),
            Operation::read(fake.pd.allocate(8).unwrap(), region.remote()).unsignaled(),
            Operation::fetch_add(fake.pd.allocate(8).unwrap(), region.remote(), 1),
        ];
        let mut batch = Prepared::new(&fake.pd, operations).map_err(|rejected| rejected.error).unwrap();
        for _ in 0..3 {
            pair.hub
                .post(pair.a, Operation::write(fake.pd.allocate(8).unwrap(), region.remote()).tag(1))
                .unwrap();
            pair.hub.post_prepared(pair.a, batch.tag(2)).unwrap();
            pair.hub
                .post(pair.a, Operation::write(fake.pd.allocate(8).unwrap(), region.remote()).tag(3))
                .unwrap();
            let mut tags = Vec::new();
            let mut back = None;
            while let Some(ended) = pair.hub.poll().unwrap() {
                ended.result().unwrap();
                tags.push(ended.tag());
                back = ended.into_prepared().or(back);
            }
            assert_eq!(tags, [1, 2, 3]);
            batch = back.unwrap();
            assert_eq!(batch.bytes(1).unwrap(), [5; 8], "what was written was read");
            assert_eq!(batch.bytes(2).unwrap(), [5; 8], "and added to");
        }
        drop((batch, region));
    });
}

#[test]
fn the_first_failure_is_told_and_the_memory_comes_back() {
    both(|fake, mut pair| {
        let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
        let remote = region.remote();
        // The second names memory that is not there any more.
        let gone = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap().remote();
        let write = |remote| Operation::write(fake.pd.allocate(8).unwrap(), remote);
        let batch = Prepared::new(&fake.pd, vec![write(remote), write(gone), write(remote), write(remote)]);
        let batch = batch.map_err(|rejected| rejected.error).unwrap();
        pair.hub.post_prepared(pair.a, batch).unwrap();
        let ended = pair.hub.poll().unwrap().unwrap();
        assert_eq!(ended.result().unwrap_err().status, Status::REMOTE_ACCESS);
        let batch = ended.into_prepared().unwrap();
        assert!(pair.hub.poll().unwrap().is_none());
        // The next post begins anew: what it says is of this time.
        assert!(pair.hub.reset(pair.a).unwrap().is_empty());
        let rejected = pair.hub.post_prepared(pair.a, batch).unwrap_err();
        assert!(rejected.error.to_string().contains("not connected"), "{rejected}");
        drop((rejected, region));
    });
}

#[test]
fn what_is_refused_comes_back_whole() {
    both(|fake, mut pair| {
        let elsewhere = fake.context.protection_domain().unwrap();
        let operations = sends(fake, 1);
        let rejected = Prepared::new(&elsewhere, operations).unwrap_err();
        assert!(rejected.error.to_string().contains("another protection domain"), "{rejected}");
        assert_eq!(rejected.operation.len(), 1);
        assert!(matches!(
            Prepared::<Rc>::new(&fake.pd, Vec::new()).unwrap_err().error,
            Error::Invalid { .. }
        ));
        let many = Prepared::new(&fake.pd, sends(fake, 257)).unwrap_err();
        assert_eq!(many.operation.len(), 257);

        // No room for all of them: none is posted.
        let depth = pair.hub.queue_pair_of(pair.a).unwrap().depths().send as usize;
        let rejected = pair.hub.post_prepared(pair.a, prepared(fake, depth + 1)).unwrap_err();
        assert!(matches!(rejected.error, Error::Full { .. }), "{rejected}");
        assert_eq!(rejected.operation.unwrap().len(), depth + 1);
        assert_eq!(pair.hub.in_flight(pair.a).unwrap(), (0, 0));
        let gone = pair.a;
        drop(pair.hub.remove(gone).unwrap());
        let rejected = pair.hub.post_prepared(gone, prepared(fake, 2)).unwrap_err();
        assert_eq!(rejected.operation.unwrap().into_held().len(), 2);
        drop(elsewhere);
    });
}

#[test]
fn a_post_that_the_device_refuses_gives_all_back_and_one_that_it_may_have_taken_keeps_all() {
    // By a list the driver names the one that it refused: the first.
    let fake = Fake::new();
    let mut pair = Pair::with(&fake, false);
    fake.control.refuse(Call::PostSend, Refusal::once(libc::EINVAL));
    let rejected = pair.hub.post_prepared(pair.a, prepared(&fake, 3)).unwrap_err();
    assert_eq!(rejected.operation.unwrap().len(), 3);
    assert_eq!(pair.hub.in_flight(pair.a).unwrap(), (0, 0));
    drop(pair);
    fake.finish();

    let fake = Fake::new();
    let mut pair = Pair::with(&fake, true);
    fake.control.refuse(Call::WrComplete, Refusal::once(libc::EIO));
    let rejected = pair.hub.post_prepared(pair.a, prepared(&fake, 3)).unwrap_err();
    assert!(rejected.operation.is_none(), "the device may have it");
    let back = pair.hub.remove(pair.a).unwrap();
    let [Held::Buffers(buffers)] = &back[..] else { panic!("{back:?}") };
    assert_eq!(buffers.len(), 3);
    drop((back, pair));
    fake.finish();
}

#[test]
fn memory_that_is_out_stays_until_the_queue_pair_has_ended() {
    both(|fake, mut pair| {
        // Nobody receives: the sends stay out.
        let batch = prepared(fake, 3);
        let bytes = batch.bytes(1).unwrap().as_ptr_range();
        pair.hub.post_prepared(pair.a, batch).unwrap();
        assert!(pair.hub.poll().unwrap().is_none());
        assert!(fake.control.may_touch(bytes.clone()));
        let back = pair.hub.remove(pair.a).unwrap();
        assert!(!fake.control.may_touch(bytes));
        let [Held::Buffers(buffers)] = &back[..] else { panic!("{back:?}") };
        assert_eq!(buffers.len(), 3);
        pair.hub.post_prepared(pair.b, prepared(fake, 2)).unwrap();
        drop((back, pair));
    });
}

#[test]
fn what_was_lent_and_forgotten_is_told_again() {
    both(|fake, mut pair| {
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), 4).unwrap();
        pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap()).tag(9)).unwrap();
        let mut tags = Vec::new();
        for _ in 0..3 {
            let ended = pair.hub.poll().unwrap().unwrap();
            tags.push(ended.tag());
            std::mem::forget(ended);
        }
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
        let ended = pair.ended();
        assert_eq!(ended.len(), 2);
        drop((ended, pair));
    });
}

#[test]
fn the_ways_of_datagrams_stay_as_long_as_the_requests() {
    let fake = Fake::new();
    let mut hub = Hub::<Ud>::new(&fake.context, 16).unwrap();
    let prepared = hub.queue_pair(&fake.pd).send_depth(4).receive_depth(4).build().unwrap();
    let number = prepared.endpoint().unwrap().qp_num;
    let member = hub.add(prepared).unwrap();
    hub.activate(member).unwrap();
    let handle = fake.pd.address_handle(&Path::local(1, 1)).unwrap();
    let send = |_| Operation::send(fake.pd.allocate(8).unwrap()).to(&handle, number, 0x1111_1111);
    let mut batch = Prepared::new(&fake.pd, (0..2).map(send).collect()).unwrap();
    drop(handle);
    for _ in 0..2 {
        assert_eq!(fake.control.live().get(&Kind::AddressHandle), Some(&1));
        for _ in 0..2 {
            hub.post_receive(member, fake.pd.allocate(48).unwrap(), 5).unwrap();
        }
        hub.post_prepared(member, batch).unwrap();
        let (mut back, mut received) = (None, 0);
        while let Some(ended) = hub.poll().unwrap() {
            ended.result().unwrap();
            received += u32::from(ended.side() == Side::Receive);
            back = ended.into_prepared().or(back);
        }
        assert_eq!(received, 2);
        batch = back.unwrap();
    }
    drop(batch);
    assert_eq!(fake.control.live().get(&Kind::AddressHandle), None);
    drop(hub);
    fake.finish();
}
