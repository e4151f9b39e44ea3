//! Pipes: one queue pair, whose operations end in the order posted; no buffer is lost, and none is the caller's while the device may touch it. On a device inside the process.
#![allow(unsafe_code, reason = "a device that refuses a request in the middle of a list, a signal")]

mod common;
#[path = "pipe/events.rs"]
mod events;
mod fake;
#[path = "pipe/inline.rs"]
mod inline;

use fake::lies::{completion, endless, poll_by, too_many};
use fake::{Fake, must_end, range};
use sinew_verbs::Error;
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::{Buffer, Memory, RemoteAccess};
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::{Attributes, Rc};
use sinew_verbs::work::Status;
use sinew_verbs_fake::{Alteration, Call, DeviceOptions, Hold, Refusal};
use sinew_verbs_sys as sys;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Two pipes, connected to each other.
struct Pipes {
    a: Pipe<Rc>,
    b: Pipe<Rc>,
    a_qp: u32,
    b_qp: u32,
    /// Where the sends of `a` complete, as the control names it.
    a_sent: u32,
}

impl Pipes {
    fn new(fake: &Fake, depth: u32, extended: bool) -> Self {
        let make = || {
            Pipe::<Rc>::new(&fake.pd, depth, 32, |qp| {
                Ok(qp.extended(extended).inline_capacity(64).remote_access(RemoteAccess::all()))
            })
            .unwrap()
        };
        let a = make();
        let queues = fake.control.completion_queues();
        let a_sent = queues[queues.len() - 2];
        let mut pipes = Self { a_qp: a.endpoint().unwrap().qp_num, b_qp: 0, a, b: make(), a_sent };
        pipes.b_qp = pipes.b.endpoint().unwrap().qp_num;
        pipes.connect();
        pipes
    }

    fn connect(&mut self) {
        let (to_a, to_b) = (self.a.endpoint().unwrap(), self.b.endpoint().unwrap());
        self.a.connect(&to_b).unwrap();
        self.b.connect(&to_a).unwrap();
    }
}

fn buffers(fake: &Fake, count: u8) -> Vec<Buffer> {
    let buffer = |byte| {
        let mut buffer = fake.pd.allocate(8).unwrap();
        buffer.fill(byte);
        buffer
    };
    (0..count).map(buffer).collect()
}

fn one(fake: &Fake) -> Buffer {
    fake.pd.allocate(8).unwrap()
}

/// The first bytes.
fn bytes(buffers: &[Buffer]) -> Vec<u8> {
    buffers.iter().map(|buffer| buffer[0]).collect()
}

/// Both ways to post: extended, and by a list.
fn both(test: impl Fn(&Fake, Pipes)) {
    for extended in [true, false] {
        let fake = Fake::new();
        let pipes = Pipes::new(&fake, 32, extended);
        assert_eq!(pipes.a.queue_pair().as_raw_extended().is_some(), extended);
        test(&fake, pipes);
        fake.finish();
    }
}

/// All that has ended, each with success.
fn ended<E>(pipe: &mut Pipe<Rc, E>) -> Vec<Buffer> {
    let mut all = Vec::new();
    loop {
        let run = pipe.poll().unwrap();
        run.result().unwrap();
        if run.len() == 0 {
            return all;
        }
        run.append_to(&mut all);
    }
}

/// How many end now; they are dropped.
fn ended_now(pipe: &mut Pipe<Rc>) -> usize {
    pipe.poll().unwrap().len()
}

fn received<E>(pipe: &mut Pipe<Rc, E>) -> Vec<(u8, Option<u32>, Option<u32>)> {
    let mut all = Vec::new();
    while let Some(received) = pipe.poll_received().unwrap() {
        let success = received.result.unwrap();
        all.push((received.buffer[0], success.len, success.immediate));
    }
    all
}

#[test]
fn messages_arrive_in_order_and_buffers_come_back_once_in_the_order_posted() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        let mut free = buffers(fake, 20);
        for round in 0..50_u8 {
            for _ in 0..21 {
                b.post_receive(one(fake)).unwrap();
            }
            a.post(free.remove(0), Verb::send().unsignaled()).unwrap();
            let posted =
                a.post_all(
                    &mut free,
                    |place| if place == 18 { Verb::send() } else { Verb::send().unsignaled() },
                );
            assert_eq!((posted.unwrap(), free.len(), a.in_flight()), (19, 0, (20, 0)));
            let run = a.poll().unwrap();
            assert_eq!((run.result(), run.len()), (Ok(()), 20));
            run.append_to(&mut free);
            assert_eq!(bytes(&free), (0..20).collect::<Vec<_>>(), "round {round}");
            assert_eq!(a.poll().unwrap().len(), 0, "once");
            let came: Vec<_> = received(&mut b).into_iter().map(|(byte, ..)| byte).collect();
            assert_eq!(came, (0..20).collect::<Vec<_>>());
            assert_eq!(b.in_flight(), (0, 1));
            drop(b.reset().unwrap());
            drop(a.reset().unwrap());
            let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
            a.connect(&to_b).unwrap();
            b.connect(&to_a).unwrap();
        }
        assert!(a.is_idle() && a.strays() + b.strays() == 0);
    });
}

#[test]
fn writes_reads_words_and_parts_of_buffers_do_what_they_say() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        let region = fake.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
        let remote = region.remote();
        let mut list = buffers(fake, 4);
        list[0].fill(7);
        for _ in 0..4 {
            b.post_receive(one(fake)).unwrap();
        }
        let verbs = [
            Verb::write(remote).len(4),
            Verb::read(remote).fenced(),
            Verb::write_with_immediate(remote, 5).len(1),
            Verb::send_with_immediate(6).len(0).solicited(),
        ];
        assert_eq!(a.post_all(&mut list, |place| verbs[place]).unwrap(), 4);
        let back = ended(&mut a);
        assert_eq!(back[1][..], [7, 7, 7, 7, 0, 0, 0, 0], "only the first four were written");
        assert_eq!(received(&mut b), [(0, Some(1), Some(5)), (0, Some(0), Some(6))]);
        for verb in [Verb::send().len(3), Verb::send().len(0)] {
            a.post(one(fake), verb).unwrap();
        }
        drop(ended(&mut a));
        assert_eq!(received(&mut b), [(0, Some(3), None), (0, Some(0), None)]);
        // What cannot be an element by itself stands in the middle of a list.
        for _ in 0..5 {
            b.post_receive(one(fake)).unwrap();
        }
        let mut list = buffers(fake, 5);
        let posted =
            a.post_all(&mut list, |place| if place == 2 { Verb::send().len(0) } else { Verb::send() });
        assert_eq!(posted.unwrap(), 5);
        assert_eq!(bytes(&ended(&mut a)), [0, 1, 2, 3, 4]);
        let lengths: Vec<_> = received(&mut b).into_iter().map(|(_, len, _)| len.unwrap()).collect();
        assert_eq!(lengths, [8, 8, 0, 8, 8]);
        drop((back, a, b, region));
    });
}

#[test]
fn what_was_refused_stays_with_the_caller() {
    both(|fake, mut pipes| {
        let elsewhere = fake.context.protection_domain().unwrap();
        let foreign = || elsewhere.allocate(8).unwrap();
        let rejected = pipes.a.post(foreign(), Verb::send()).unwrap_err();
        assert!(rejected.error.to_string().contains("another protection domain"), "{rejected}");
        assert_eq!(rejected.operation.unwrap().len(), 8);
        let rejected = pipes.a.post(one(fake), Verb::send().len(9)).unwrap_err();
        assert!(
            matches!(rejected.error, Error::Invalid { .. }) && rejected.operation.is_some(),
            "{rejected}"
        );
        assert!(pipes.a.post_receive(foreign()).unwrap_err().operation.is_some());
        // Of a list: those before it are posted, and the next call says why.
        let mut list = buffers(fake, 2);
        list.push(foreign());
        list.extend(buffers(fake, 1));
        let verb = |_| Verb::send();
        assert_eq!(pipes.a.post_all(&mut list, verb).unwrap(), 2);
        assert!(matches!(pipes.a.post_all(&mut list, verb), Err(Error::Invalid { .. })));
        assert_eq!((list.len(), pipes.a.in_flight()), (2, (2, 0)));
        assert_eq!(pipes.a.post_all(&mut Vec::new(), verb).unwrap(), 0);
        // Before it is connected.
        let mut new = Pipe::<Rc>::new(&fake.pd, 4, 1, |qp| Ok(qp)).unwrap();
        let rejected = new.post(one(fake), Verb::send()).unwrap_err();
        assert!(rejected.error.to_string().contains("not connected"), "{rejected}");
        drop((pipes, list, new, rejected, elsewhere));
    });
}

#[test]
fn no_more_is_out_than_there_is_room_for_until_the_buffers_were_taken() {
    for extended in [true, false] {
        let fake = Fake::new();
        let Pipes { mut a, mut b, .. } = Pipes::new(&fake, 5, extended);
        for _ in 0..12 {
            b.post_receive(one(&fake)).unwrap();
        }
        let mut list = buffers(&fake, 12);
        assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 5);
        assert_eq!(bytes(&list), [5, 6, 7, 8, 9, 10, 11]);
        assert!(matches!(a.post_all(&mut list, |_| Verb::send()), Err(Error::Full { depth: 5, .. })));
        let rejected = a.post(one(&fake), Verb::send()).unwrap_err();
        assert!(matches!(rejected.error, Error::Full { .. }) && rejected.operation.is_some());
        // They have ended, and two were taken: there is room for two, and the others are told again.
        let mut run = a.poll().unwrap();
        assert_eq!((run.next().unwrap()[0], run.next().unwrap()[0], run.len()), (0, 1, 3));
        std::mem::forget(run);
        assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 2);
        assert_eq!(bytes(&ended(&mut a)), [2, 3, 4, 5, 6]);
        assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 5);
        assert_eq!(bytes(&ended(&mut a)), [7, 8, 9, 10, 11]);
        assert_eq!(received(&mut b).len(), 12);
        drop((a, b, rejected));
        fake.finish();
    }
}

#[test]
fn a_run_that_is_dropped_drops_what_was_not_taken() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        let pool = fake.pd.pool(4, 8).unwrap();
        let mut list: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        for _ in 0..4 {
            b.post_receive(one(fake)).unwrap();
        }
        a.post_all(&mut list, |_| Verb::send()).unwrap();
        let first = a.poll().unwrap().next().unwrap();
        assert_eq!((pool.available(), a.is_idle()), (3, true));
        drop((first, a, b));
        assert_eq!(pool.available(), 4);
    });
}

#[test]
fn what_failed_is_told_alone_after_those_before_it_and_the_pipe_serves_again_after_a_reset() {
    both(|fake, mut pipes| {
        let region = fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap();
        let there = Verb::write(region.remote());
        let gone =
            Verb::write(fake.pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::WRITE).unwrap().remote());
        for round in 0..3 {
            let a = &mut pipes.a;
            let verbs = [there.unsignaled(), there.unsignaled(), gone, there, there.unsignaled()];
            let mut list = buffers(fake, 5);
            assert_eq!(a.post_all(&mut list, |place| verbs[place]).unwrap(), 5);
            let run = a.poll().unwrap();
            assert_eq!((run.result(), run.len()), (Ok(()), 2), "round {round}");
            assert_eq!(bytes(&run.collect::<Vec<_>>()), [0, 1]);
            // Forgotten, it is told again, with its failure.
            for _ in 0..2 {
                let run = a.poll().unwrap();
                assert_eq!((run.result().unwrap_err().status, run.len()), (Status::REMOTE_ACCESS, 1));
                std::mem::forget(run);
            }
            assert_eq!(bytes(&a.poll().unwrap().collect::<Vec<_>>()), [2]);
            for byte in [3, 4] {
                let run = a.poll().unwrap();
                assert_eq!(run.result().unwrap_err().status, Status::FLUSHED);
                assert_eq!(bytes(&run.collect::<Vec<_>>()), [byte]);
            }
            assert_eq!(ended_now(a), 0);
            assert_eq!((a.in_flight(), a.strays()), ((0, 0), 0));
            assert!(pipes.a.reset().unwrap().is_empty() && pipes.b.reset().unwrap().is_empty());
            pipes.connect();
        }
        drop((pipes, region));
    });
}

#[test]
fn memory_that_is_out_is_the_devices_until_the_queue_pair_has_ended() {
    both(|fake, mut pipes| {
        // Nobody receives: the sends stay out.
        let mut list = buffers(fake, 3);
        let sent: Vec<_> = list.iter().map(|buffer| range(buffer)).collect();
        pipes.a.post_all(&mut list, |_| Verb::send()).unwrap();
        let place = one(fake);
        let to_receive = range(&place);
        pipes.a.post_receive(place).unwrap();
        assert_eq!(pipes.a.poll().unwrap().len(), 0);
        assert!(sent.iter().chain([&to_receive]).all(|bytes| fake.control.may_touch(bytes.clone())));
        let back = pipes.a.reset().unwrap();
        assert_eq!((back.len(), bytes(&back[..3])), (4, vec![0, 1, 2]), "sends first");
        assert!(!sent.iter().chain([&to_receive]).any(|bytes| fake.control.may_touch(bytes.clone())));
        pipes.connect_again();
        let mut list = back;
        pipes.a.post_all(&mut list, |_| Verb::send()).unwrap();
        drop(pipes);
        assert!(!sent.iter().any(|bytes| fake.control.may_touch(bytes.clone())));
        assert_eq!(fake.control.touches_after_free(), []);
    });
}

impl Pipes {
    /// After `a` was reset.
    fn connect_again(&mut self) {
        drop(self.b.reset().unwrap());
        self.connect();
    }
}

#[test]
fn a_pipe_that_is_forgotten_or_whose_device_refuses_to_end_it_keeps_its_memory_for_ever() {
    for forget in [true, false] {
        let fake = Fake::new();
        let Pipes { mut a, b, .. } = Pipes::new(&fake, 8, true);
        let buffer = one(&fake);
        let bytes = range(&buffer);
        a.post(buffer, Verb::send()).unwrap();
        if forget {
            std::mem::forget(a);
        } else {
            fake.control.refuse(Call::DestroyQp, Refusal::always(libc::EIO));
            drop(a);
            fake.control.refuse_nothing();
            assert!(fake.library.leaked_objects() > 0);
        }
        assert!(fake.control.may_touch(bytes));
        assert_eq!(fake.control.touches_after_free(), []);
        drop(b);
    }
}

#[test]
fn a_post_of_which_nobody_knows_what_the_device_took_keeps_its_buffers_and_ends_the_pipe() {
    for (extended, call) in [(true, Call::WrComplete), (false, Call::PostSend)] {
        for batch in [true, false] {
            let fake = Fake::new();
            let mut pipes = Pipes::new(&fake, 32, extended);
            if !extended {
                lose(&fake);
            } else {
                fake.control.refuse(call, Refusal::once(libc::EIO));
            }
            let mut list = buffers(&fake, 3);
            if batch {
                assert!(pipes.a.post_all(&mut list, |_| Verb::send()).is_err());
            } else {
                assert!(pipes.a.post(list.remove(0), Verb::send()).unwrap_err().operation.is_none());
                list.clear();
            }
            assert!(list.is_empty(), "the device may have them");
            let rejected = pipes.a.post(one(&fake), Verb::send()).unwrap_err();
            assert!(rejected.operation.is_some(), "nothing is sent after it");
            let mut back = pipes.a.reset().unwrap();
            let run = pipes.a.poll().unwrap();
            back.extend(run);
            assert_eq!(back.len(), if batch { 3 } else { 1 });
            keep(&fake);
            drop((pipes, back, rejected));
            fake.finish();
        }
    }
}

type Post =
    unsafe extern "C" fn(*mut sys::ibv_qp, *mut sys::ibv_send_wr, *mut *mut sys::ibv_send_wr) -> c_int;

std::thread_local! {
    /// The device's own function.
    static POST: std::cell::Cell<Option<Post>> = const { std::cell::Cell::new(None) };
}

fn post_by(fake: &Fake, post: Post) {
    // SAFETY: the device is open, and nobody else calls it meanwhile.
    let place = unsafe { &mut (*fake.context.as_raw()).ops.post_send };
    POST.set(*place);
    *place = Some(post);
}

/// As the device does by itself.
fn keep(fake: &Fake) {
    if let Some(own) = POST.take() {
        // SAFETY: as above.
        unsafe { (*fake.context.as_raw()).ops.post_send = Some(own) };
    }
}

/// A device that fails, and does not say of which request.
fn lose(fake: &Fake) {
    unsafe extern "C" fn loses(
        _: *mut sys::ibv_qp,
        _: *mut sys::ibv_send_wr,
        _: *mut *mut sys::ibv_send_wr,
    ) -> c_int {
        libc::EIO
    }
    post_by(fake, loses);
}

/// A device that refuses the third request of each list.
unsafe extern "C" fn third(
    qp: *mut sys::ibv_qp,
    list: *mut sys::ibv_send_wr,
    bad: *mut *mut sys::ibv_send_wr,
) -> c_int {
    let own = POST.get().expect("the device's own function");
    // SAFETY: the list is the caller's, and ends; so do its first two.
    unsafe {
        let second = (*list).next;
        if second.is_null() || (*second).next.is_null() {
            return own(qp, list, bad);
        }
        let next = std::mem::replace(&mut (*second).next, std::ptr::null_mut());
        let answer = own(qp, list, bad);
        (*second).next = next;
        assert_eq!(answer, 0);
        *bad = next;
    }
    libc::EINVAL
}

#[test]
fn a_device_that_refuses_a_request_in_the_middle_of_a_list_has_taken_those_before_it() {
    let fake = Fake::new();
    let Pipes { mut a, mut b, .. } = Pipes::new(&fake, 32, false);
    for _ in 0..5 {
        b.post_receive(one(&fake)).unwrap();
    }
    post_by(&fake, third);
    let mut list = buffers(&fake, 5);
    // Two, two, and one.
    assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 5);
    assert_eq!(fake.control.calls(Call::PostSend), 3);
    assert_eq!(bytes(&ended(&mut a)), [0, 1, 2, 3, 4]);
    keep(&fake);
    // The first is refused: nothing was posted, and why is told.
    fake.control.refuse(Call::PostSend, Refusal::always(libc::EINVAL));
    let mut list = buffers(&fake, 3);
    assert!(matches!(a.post_all(&mut list, |_| Verb::send()), Err(Error::Call { .. })));
    assert_eq!((bytes(&list), a.in_flight()), (vec![0, 1, 2], (0, 0)));
    assert!(a.post(one(&fake), Verb::send()).unwrap_err().operation.is_some());
    drop((a, b, list));
    fake.finish();
}

#[test]
fn a_panic_while_a_list_is_posted_posts_nothing_and_leaves_the_list() {
    both(|fake, Pipes { mut a, mut b, .. }| {
        for _ in 0..5 {
            b.post_receive(one(fake)).unwrap();
        }
        let mut list = buffers(fake, 5);
        let panics = |place| if place == 3 { panic!("of the caller") } else { Verb::send() };
        assert!(catch_unwind(AssertUnwindSafe(|| a.post_all(&mut list, panics))).is_err());
        assert_eq!((list.len(), a.in_flight()), (5, (0, 0)));
        assert!(!fake.control.locks_held());
        assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 5);
        assert_eq!(bytes(&ended(&mut a)), [0, 1, 2, 3, 4]);
        assert_eq!(received(&mut b).len(), 5);
    });
}

#[test]
fn a_completion_of_nothing_that_is_out_ends_nothing() {
    let fake = Fake::new();
    let Pipes { mut a, mut b, a_qp, b_qp, a_sent } = Pipes::new(&fake, 8, true);
    fake.control.hold(a_qp, Hold::REQUESTS);
    let mut list = buffers(&fake, 2);
    let bytes_out = range(&list[0]);
    a.post_all(&mut list, |_| Verb::send()).unwrap();
    // Numbers that nothing has, and one of ours from a queue pair of somebody else's.
    for (wr_id, qp_num) in [(u64::MAX, a_qp), (2, a_qp), (1 << 63, a_qp), (0, b_qp)] {
        fake.control.forge(a_sent, completion(wr_id, qp_num));
    }
    assert_eq!(ended_now(&mut a), 0);
    assert_eq!((a.strays(), a.in_flight()), (4, (2, 0)));
    assert!(fake.control.may_touch(bytes_out));
    fake.control.release(a_qp);
    for _ in 0..3 {
        b.post_receive(one(&fake)).unwrap();
    }
    assert_eq!(bytes(&ended(&mut a)), [0, 1]);
    // Told twice.
    fake.control.forge(a_sent, completion(1, a_qp));
    assert_eq!(ended_now(&mut a), 0);
    assert_eq!(a.strays(), 5);
    // A failure under an unknown number: its own request stays out, with its memory.
    fake.control.alter_next(a_sent, Alteration { wr_id: Some(5555), ..Alteration::default() });
    a.post(one(&fake), Verb::send()).unwrap();
    assert_eq!(ended_now(&mut a), 0);
    assert_eq!((a.strays(), a.in_flight()), (6, (1, 0)));
    drop((a, b));
    fake.finish();
}

#[test]
fn a_device_that_makes_completions_up_or_fails_keeps_nobody_and_frees_nothing() {
    must_end(|| {
        let fake = Fake::with(DeviceOptions::legacy(0));
        let Pipes { mut a, b, .. } = Pipes::new(&fake, 8, false);
        a.post(one(&fake), Verb::send()).unwrap();
        let own = poll_by(&fake, endless).expect("the device's own function");
        assert_eq!(a.poll().unwrap().len(), 0);
        assert!(a.poll_received().unwrap().is_none());
        assert!(a.strays() >= 16);
        poll_by(&fake, too_many);
        assert!(matches!(a.reset().map(|back| back.len()), Ok(1)), "also a queue that never empties is left");
        assert!(matches!(a.poll(), Err(Error::Call { .. })));
        poll_by(&fake, own);
        drop((a, b));
    });
}

#[test]
fn a_pipe_has_queues_of_its_own() {
    let fake = Fake::new();
    let deeper = Pipe::<Rc>::new(&fake.pd, 4, 1, |qp| Ok(qp.send_depth(3)));
    assert!(matches!(deeper, Err(Error::Invalid { .. })));
    let failed = Pipe::<Rc>::new(&fake.pd, 4, 1, |qp| qp.service_level(99));
    assert!(matches!(failed, Err(Error::Invalid { .. })));
    assert!(matches!(Pipe::<Rc>::new(&fake.pd, 0, 0, |qp| Ok(qp)), Err(Error::Invalid { .. })));
    drop((deeper, failed));
    fake.finish();
}

#[test]
fn a_pipe_may_go_to_another_thread() {
    let fake = Fake::new();
    let Pipes { mut a, mut b, .. } = Pipes::new(&fake, 8, true);
    b.post_receive(one(&fake)).unwrap();
    let buffer = one(&fake);
    let a = std::thread::spawn(move || {
        a.post(buffer, Verb::send()).unwrap();
        assert_eq!(ended(&mut a).len(), 1);
        a
    });
    drop((a.join().unwrap(), b));
    fake.finish();
}

#[test]
fn safe_code_does_not_reset_a_queue_pair_below_its_pipe() {
    both(|fake, mut pipes| {
        pipes.b.post_receive(one(fake)).unwrap();
        let reset = Attributes::new().set_state(State::RESET);
        let error = pipes.b.queue_pair().modify(&reset).unwrap_err();
        assert!(error.to_string().contains("Pipe::reset"), "{error}");
        assert_eq!((pipes.b.in_flight(), pipes.b.reset().unwrap().len()), ((0, 1), 1));
    });
}

#[test]
fn a_completion_with_the_number_of_another_queue_pair_ends_nothing() {
    both(|fake, mut pipes| {
        fake.control.hold(pipes.a_qp, Hold { requests: true, ..Hold::default() });
        pipes.a.post(one(fake), Verb::send()).unwrap();
        fake.control.forge(pipes.a_sent, completion(0, pipes.b_qp));
        assert_eq!(pipes.a.poll().unwrap().len(), 0);
        assert_eq!((pipes.a.strays(), pipes.a.in_flight()), (1, (1, 0)));
    });
}
