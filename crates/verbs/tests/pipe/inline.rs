//! Inline sends of pipes: the bytes are the caller's again at once, places are counted, failures told.

use super::fake::lies::completion;
use super::fake::{Fake, range};
use super::{Pipes, both, bytes, common, ended, one, received};
use sinew_verbs::Error;
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::Rc;
use sinew_verbs::work::Status;
use sinew_verbs_fake::{Alteration, Call, Hold, Refusal};
use std::time::{Duration, Instant};

#[test]
fn inline_bytes_are_the_callers_again_at_once_and_arrive_in_order_with_others() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
        for _ in 0..5 {
            b.post_receive(one(fake)).unwrap();
        }
        let mut word = [1_u8; 8];
        a.post_inline(&word, Verb::send().unsignaled()).unwrap();
        assert!(!fake.control.may_touch(range(&word)));
        word.fill(2);
        let mut buffer = one(fake);
        buffer.fill(9);
        a.post(buffer, Verb::send().unsignaled()).unwrap();
        a.post_inline(&word[..3], Verb::send_with_immediate(5).len(2)).unwrap();
        a.post_inline(b"abc", Verb::write_with_immediate(region.remote(), 6)).unwrap();
        a.post_inline(&[], Verb::send()).unwrap();
        word.fill(3);
        let came = received(&mut b);
        let wanted = [
            (1, Some(8), None),
            (9, Some(8), None),
            (2, Some(2), Some(5)),
            (0, Some(3), Some(6)),
            (0, Some(0), None),
        ];
        assert_eq!(came, wanted);
        let mut there = [0; 4];
        region.read_at(0, &mut there).unwrap();
        assert_eq!(there, *b"abc\0");
        assert_eq!(bytes(&ended(&mut a)), [9]);
        assert!(a.is_idle() && a.strays() == 0);
        drop((a, b, region));
    });
}

#[test]
fn inline_sends_take_places_and_give_them_back_when_they_are_known_to_have_ended() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        let signaled = |place: u32| place.is_multiple_of(8);
        for round in 0..6_u8 {
            for _ in 0..32 {
                b.post_receive(one(fake)).unwrap();
            }
            // Buffers and inline ones in turn, until there is no place.
            for place in 0..32_u32 {
                let verb = if signaled(place + 1) { Verb::send() } else { Verb::send().unsignaled() };
                if place % 3 == u32::from(round) % 3 {
                    a.post(one(fake), verb).unwrap();
                } else {
                    a.post_inline(&[round], verb).unwrap();
                }
            }
            assert_eq!(a.in_flight().0, 32);
            for full in [
                a.post_inline(&[0], Verb::send()).unwrap_err(),
                a.post(one(fake), Verb::send()).unwrap_err().error,
                a.post_all(&mut vec![one(fake)], |_| Verb::send()).unwrap_err(),
            ] {
                assert!(matches!(full, Error::Full { depth: 32, .. }), "{full}");
            }
            let back = ended(&mut a);
            let buffers = (0..32).filter(|place| place % 3 == u32::from(round) % 3).count();
            assert_eq!((back.len(), a.in_flight()), (buffers, (0, 0)), "round {round}");
            let came: Vec<_> = received(&mut b).into_iter().map(|(byte, ..)| byte).collect();
            assert_eq!(came.len(), 32);
        }
        assert_eq!((a.strays(), fake.control.faults()), (0, vec![]));
        drop((a, b));
    });
}

#[test]
fn an_unsignaled_inline_send_ends_with_a_buffer_behind_it_and_a_full_queue_finds_that_out() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        for _ in 0..64 {
            b.post_receive(one(fake)).unwrap_or(());
        }
        for _ in 0..31 {
            a.post_inline(b"x", Verb::send().unsignaled()).unwrap();
        }
        a.post(one(fake), Verb::send()).unwrap();
        let run = a.poll().unwrap();
        assert_eq!((run.result(), run.len()), (Ok(()), 1));
        drop(run);
        assert!(a.is_idle());
        drop(received(&mut b));
        for _ in 0..32 {
            b.post_receive(one(fake)).unwrap();
        }
        // Each way to post finds the places.
        let mut list: Vec<_> = (0..10).map(|_| one(fake)).collect();
        assert_eq!(a.post_all(&mut list, |_| Verb::send().unsignaled()).unwrap(), 10);
        for _ in 0..21 {
            a.post_inline(b"y", Verb::send().unsignaled()).unwrap();
        }
        a.post_inline(b"z", Verb::send()).unwrap();
        assert_eq!(ended(&mut a).len(), 10);
        for _ in 0..32 {
            b.post_receive(one(fake)).unwrap_or(());
        }
        assert_eq!(a.in_flight(), (0, 0));
        drop((a, b));
    });
}

#[test]
fn what_cannot_be_inline_is_refused_and_says_why() {
    both(|fake, Pipes { mut a, b, .. }| {
        let most = a.queue_pair().depths().inline as usize;
        assert!(most >= 64);
        let too_much = vec![0; most + 1];
        let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
        let refused = [
            (a.post_inline(&too_much, Verb::send()), "inline_capacity"),
            (a.post_inline(b"ab", Verb::send().len(3)), "3 bytes of 2"),
            (a.post_inline(b"ab", Verb::read(region.remote())), "takes nothing"),
        ];
        for (answer, why) in refused {
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(why), "{error}");
        }
        assert_eq!((a.in_flight(), fake.control.calls(Call::PostSend)), ((0, 0), 0));
        let mut without = Pipe::<Rc>::new(&fake.pd, 4, 1, |qp| Ok(qp)).unwrap();
        assert_eq!(without.queue_pair().depths().inline, 0);
        assert!(matches!(without.post_inline(&[1], Verb::send()), Err(Error::Invalid { .. })));
        let mut new = Pipe::<Rc>::new(&fake.pd, 4, 1, |qp| Ok(qp.inline_capacity(8))).unwrap();
        let error = new.post_inline(&[1], Verb::send()).unwrap_err();
        assert!(error.to_string().contains("not connected"), "{error}");
        drop((a, b, without, new, region));
    });
}

#[test]
fn an_inline_send_that_fails_is_told_once_in_its_turn() {
    both(|fake, mut pipes| {
        for _ in 0..3 {
            let gone = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap().remote();
            let there = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
            let a = &mut pipes.a;
            a.post(one(fake), Verb::write(there.remote())).unwrap();
            a.post_inline(b"a", Verb::write(there.remote())).unwrap();
            a.post_inline(b"b", Verb::write(gone)).unwrap();
            a.post_inline(b"c", Verb::write(there.remote()).unsignaled()).unwrap();
            a.post(one(fake), Verb::write(there.remote()).unsignaled()).unwrap();
            let run = a.poll().unwrap();
            assert_eq!((run.result(), run.len()), (Ok(()), 1));
            drop(run);
            for (status, len) in [(Status::REMOTE_ACCESS, 0), (Status::FLUSHED, 0), (Status::FLUSHED, 1)] {
                let run = a.poll().unwrap();
                assert_eq!((run.result().unwrap_err().status, run.len()), (status, len));
            }
            let run = a.poll().unwrap();
            assert_eq!((run.result(), run.len()), (Ok(()), 0));
            drop(run);
            assert_eq!((a.in_flight(), a.strays()), ((0, 0), 0));
            assert!(pipes.a.reset().unwrap().is_empty() && pipes.b.reset().unwrap().is_empty());
            pipes.connect();
        }
        drop(pipes);
    });
}

#[test]
fn a_completion_of_an_inline_send_that_is_not_out_ends_nothing() {
    let fake = Fake::new();
    let Pipes { mut a, mut b, a_qp, b_qp, a_sent } = Pipes::new(&fake, 8, true);
    for _ in 0..4 {
        b.post_receive(one(&fake)).unwrap();
    }
    a.post_inline(b"x", Verb::send()).unwrap();
    assert!(ended(&mut a).is_empty() && a.is_idle());
    fake.control.hold(a_qp, Hold::REQUESTS);
    let buffer = one(&fake);
    let out = range(&buffer);
    a.post(buffer, Verb::send()).unwrap();
    a.post_inline(b"y", Verb::send()).unwrap();
    // The one that has ended, the next that was not posted, and one of ours from somebody else's queue pair.
    for (wr_id, qp_num) in [(1 << 63, a_qp), (1 << 63 | 2, a_qp), (1 << 63 | 1, b_qp)] {
        fake.control.forge(a_sent, completion(wr_id, qp_num));
    }
    assert!(ended(&mut a).is_empty());
    assert_eq!((a.strays(), a.in_flight()), (3, (2, 0)));
    assert!(fake.control.may_touch(out));
    fake.control.release(a_qp);
    assert_eq!(ended(&mut a).len(), 1);
    assert!(a.is_idle());
    // A number that no inline send has: its own stays out, and its place is taken.
    fake.control.alter_next(a_sent, Alteration { wr_id: Some(1 << 63 | 99), ..Alteration::default() });
    a.post_inline(b"z", Verb::send()).unwrap();
    assert!(ended(&mut a).is_empty());
    assert_eq!((a.strays(), a.in_flight()), (4, (1, 0)));
    drop((a, b));
    fake.finish();
}

#[test]
fn an_inline_send_of_which_nobody_knows_whether_the_device_took_it_ends_the_pipe() {
    let fake = Fake::new();
    let mut pipes = Pipes::new(&fake, 8, true);
    fake.control.refuse(Call::WrComplete, Refusal::once(libc::EIO));
    assert!(matches!(pipes.a.post_inline(b"x", Verb::send()), Err(Error::Call { .. })));
    assert_eq!(pipes.a.in_flight(), (1, 0));
    assert!(pipes.a.post_inline(b"x", Verb::send()).is_err(), "nothing is sent after it");
    assert!(pipes.a.reset().unwrap().is_empty() && pipes.a.is_idle());
    drop(pipes.b.reset().unwrap());
    pipes.connect();
    pipes.b.post_receive(one(&fake)).unwrap();
    pipes.a.post_inline(b"x", Verb::send()).unwrap();
    assert_eq!(received(&mut pipes.b), [(b'x', Some(1), None)]);
    drop(pipes);
    fake.finish();
}

#[test]
fn inline_bytes_go_over_a_device_from_memory_that_is_not_registered() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    for extended in [false, true] {
        let make = || {
            Pipe::<Rc>::new(&pd, 8, 16, |qp| {
                Ok(qp.extended(extended).inline_capacity(64).remote_access(RemoteAccess::all()))
            })
            .unwrap()
        };
        let (mut a, mut b) = (make(), make());
        assert!(a.queue_pair().depths().inline >= 64);
        let region = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
        for _ in 0..16 {
            b.post_receive(pd.allocate(64).unwrap()).unwrap();
        }
        let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
        a.connect(&to_b).unwrap();
        b.connect(&to_a).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut word = [0; 64];
        for round in 0..15_u8 {
            word.fill(round);
            let verb = if round % 4 == 3 { Verb::send() } else { Verb::send().unsignaled() };
            while let Err(error) = a.post_inline(&word, verb) {
                assert!(matches!(error, Error::Full { .. }) && Instant::now() < deadline, "{error}");
                a.poll().unwrap().result().unwrap();
            }
            // It is written again at once.
            word.fill(0xff);
        }
        while let Err(error) = a.post_inline(b"end", Verb::write_with_immediate(region.remote(), 1)) {
            assert!(matches!(error, Error::Full { .. }) && Instant::now() < deadline, "{error}");
            a.poll().unwrap().result().unwrap();
        }
        let mut came = Vec::new();
        while came.len() < 16 {
            if let Some(received) = b.poll_received().unwrap() {
                received.result.unwrap();
                came.push(received.buffer[63]);
            }
            assert!(Instant::now() < deadline, "nothing comes");
        }
        assert_eq!(came[..15], (0..15).collect::<Vec<_>>());
        let mut there = [0; 3];
        region.read_at(0, &mut there).unwrap();
        assert_eq!(there, *b"end");
        while !a.is_idle() {
            a.poll().unwrap().result().unwrap();
            assert!(Instant::now() < deadline, "nothing ends");
        }
    }
}
