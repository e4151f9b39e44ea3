//! Pipes that sleep: nothing that ends is slept over, a wait keeps its deadline, and what is taken at a shared channel is its owner's to tell.

use super::fake::lies::{completion, endless, poll_by};
use super::fake::{Fake, must_end};
use super::{Pipes, buffers, common, ended, one, received};
use sinew_verbs::Error;
use sinew_verbs::hub::{OwnEvents, Pipe, Verb};
use sinew_verbs::qp::config::{AckTimeout, RetryCount, RnrRetry};
use sinew_verbs::qp::{Endpoint, Rc};
use sinew_verbs::work::Status;
use sinew_verbs::{ProtectionDomain, Result};
use sinew_verbs_fake::{Call, Control, DeviceOptions};
use sinew_verbs_sys as sys;
use std::ffi::c_int;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything; the guest has one processor.
const PATIENCE: Duration = Duration::from_secs(30);

type Sleeper = Pipe<Rc, OwnEvents>;

fn sleeper(pd: &ProtectionDomain, depth: u32) -> Sleeper {
    Pipe::<Rc>::with_events(pd, depth, 32, |qp| {
        Ok(qp
            .inline_capacity(64)
            .ack_timeout(AckTimeout::from_code(13).unwrap())
            .retries(RetryCount::new(2).unwrap())
            .rnr_retries(RnrRetry::limited(6).unwrap()))
    })
    .unwrap()
}

/// Two that sleep, connected to each other.
fn sleepers(pd: &ProtectionDomain) -> (Sleeper, Sleeper) {
    let (mut a, mut b) = (sleeper(pd, 8), sleeper(pd, 8));
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    a.connect(&to_b).unwrap();
    b.connect(&to_a).unwrap();
    (a, b)
}

/// Sleeps until a receive has ended; sends that end meanwhile are taken.
fn next_word(pipe: &mut Sleeper) -> Result<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        pipe.poll()?.result().map_err(Error::from)?;
        if let Some(received) = pipe.poll_received()? {
            received.result.map_err(Error::from)?;
            let word = received.buffer[0];
            pipe.post_receive(received.buffer).map_err(|rejected| rejected.error)?;
            return Ok(word);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(pipe.wait(Some(left))? || !left.is_zero(), "nothing comes");
        assert!(!left.is_zero(), "nothing comes");
    }
}

fn is_readable(pipe: &impl AsFd) -> bool {
    let mut places = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut places, Some(&now)).unwrap() > 0
}

#[test]
fn a_wait_sees_what_ended_before_it_and_keeps_its_deadline() {
    let fake = Fake::new();
    let (mut a, mut b) = sleepers(&fake.pd);
    // Nothing is out: nothing can end.
    assert!(!a.wait(None).unwrap());
    a.post_receive(one(&fake)).unwrap();
    let (start, wanted) = (Instant::now(), Duration::from_millis(30));
    assert!(!a.wait(Some(wanted)).unwrap());
    assert!(start.elapsed() >= wanted);
    // It ends while nobody waits, before the queue is armed and after: either way no wait sleeps.
    for _ in 0..3 {
        b.post(one(&fake), Verb::send()).unwrap();
        must_be(true, a.wait(None));
        must_be(true, a.wait(Some(Duration::ZERO)));
        assert!(b.wait(None).unwrap() && b.poll().unwrap().len() == 1);
        let came = a.poll_received().unwrap().unwrap();
        a.post_receive(came.buffer).unwrap();
        must_be(false, a.wait(Some(Duration::ZERO)));
    }
    drop((a, b));
    fake.finish();
}

fn must_be(wanted: bool, answer: Result<bool>) {
    assert_eq!(answer.unwrap(), wanted);
}

#[test]
fn a_wait_sleeps_until_another_thread_sends_and_none_is_slept_over() {
    must_end(|| {
        let fake = Fake::new();
        let (mut a, mut b) = sleepers(&fake.pd);
        for pipe in [&mut a, &mut b] {
            for _ in 0..4 {
                pipe.post_receive(one(&fake)).unwrap();
            }
        }
        play(a, b, fake.pd.clone(), 2000);
        fake.finish();
    });
}

/// Two threads, each of which sleeps until the other has sent.
fn play(mut a: Sleeper, mut b: Sleeper, pd: ProtectionDomain, rounds: u32) {
    let there = pd.clone();
    let echo = std::thread::spawn(move || {
        for _ in 0..rounds {
            let mut answer = there.allocate(8).unwrap();
            answer.fill(next_word(&mut b).unwrap().wrapping_add(1));
            b.post(answer, Verb::send()).unwrap();
        }
        b
    });
    for round in 0..rounds {
        let mut buffer = pd.allocate(8).unwrap();
        buffer.fill(round as u8);
        a.post(buffer, Verb::send()).unwrap();
        assert_eq!(next_word(&mut a).unwrap(), (round as u8).wrapping_add(1));
    }
    drop(a);
    drop(echo.join().unwrap());
}

/// What a device does as soon as a queue was armed.
#[derive(Clone, Copy)]
enum Then {
    /// A message comes, into the next receive of the queue pair with this number, whose completions go there.
    Message(u32, *mut sys::ibv_cq),
    /// It tells of what there never was.
    Lie,
}

type Arm = unsafe extern "C" fn(*mut sys::ibv_cq, c_int) -> c_int;

std::thread_local! {
    /// The device's own function, who steers it, and what it does then.
    static ARM: std::cell::Cell<Option<(Arm, *const Control, Then)>> = const { std::cell::Cell::new(None) };
}

/// Arms, and then something happens, before who armed looks again.
unsafe extern "C" fn arms(cq: *mut sys::ibv_cq, solicited: c_int) -> c_int {
    let (own, control, then) = ARM.get().expect("the device's own function");
    // SAFETY: as for the device's own; the test keeps its control.
    let (answer, control) = unsafe { (own(cq, solicited), &*control) };
    match then {
        Then::Message(number, receives) => {
            assert!(receives != cq || control.inject(number, b"late", None), "there is a receive");
        }
        Then::Lie => {
            for queue in control.completion_queues() {
                control.forge(queue, completion(77, 77));
            }
        }
    }
    answer
}

/// From here on this thread's device does so.
fn then(fake: &Fake, then: Then) {
    // SAFETY: the device is open, and nobody else calls it meanwhile.
    let place = unsafe { &mut (*fake.context.as_raw()).ops.req_notify_cq };
    let own = match ARM.get() {
        Some((own, ..)) => own,
        None => place.replace(arms).expect("the device's own function"),
    };
    ARM.set(Some((own, &raw const fake.control, then)));
}

/// As the device does by itself.
fn as_ever(fake: &Fake) {
    if let Some((own, ..)) = ARM.take() {
        // SAFETY: as above.
        unsafe { (*fake.context.as_raw()).ops.req_notify_cq = Some(own) };
    }
}

#[test]
fn what_ends_between_arming_and_sleeping_is_seen_and_its_events_do_not_pile_up() {
    must_end(|| {
        let fake = Fake::new();
        let (mut a, b) = sleepers(&fake.pd);
        let qp = a.queue_pair();
        then(&fake, Then::Message(qp.number(), qp.receive_completion_queue().as_raw()));
        for _ in 0..20 {
            a.post_receive(one(&fake)).unwrap();
            must_be(true, a.wait(None));
            assert_eq!(a.poll_received().unwrap().unwrap().buffer[..4], *b"late");
        }
        as_ever(&fake);
        a.post_receive(one(&fake)).unwrap();
        must_be(false, a.wait(Some(Duration::ZERO)));
        assert!(!is_readable(&a), "one wait takes all that lie there");
        drop((a, b));
        fake.finish();
    });
}

fn ended_now(pipe: &mut Sleeper) -> usize {
    pipe.poll().unwrap().len()
}

#[test]
fn the_descriptor_is_readable_when_something_ends_after_a_wait_said_no() {
    let fake = Fake::new();
    let (mut a, mut b) = sleepers(&fake.pd);
    a.post_receive(one(&fake)).unwrap();
    for _ in 0..3 {
        must_be(false, a.wait(Some(Duration::ZERO)));
        assert!(!is_readable(&a));
        b.post(one(&fake), Verb::send()).unwrap();
        assert!(is_readable(&a));
        must_be(true, a.wait(Some(Duration::ZERO)));
        let came = a.poll_received().unwrap().unwrap();
        a.post_receive(came.buffer).unwrap();
        assert_eq!(ended_now(&mut b), 1);
    }
    drop((a, b));
    fake.finish();
}

#[test]
fn a_wait_tells_of_failures_and_of_inline_sends_and_loses_neither() {
    must_end(failures_and_inline_sends);
}

fn failures_and_inline_sends() {
    let fake = Fake::new();
    let (mut a, mut b) = sleepers(&fake.pd);
    // Nobody receives: it waits for the peer, until that is given up.
    a.post_inline(b"lost", Verb::send()).unwrap();
    a.post(one(&fake), Verb::send().unsignaled()).unwrap();
    must_be(false, a.wait(Some(Duration::from_millis(5))));
    fake.control.time_passes();
    must_be(true, a.wait(None));
    must_be(true, a.wait(None));
    let run = a.poll().unwrap();
    assert_eq!((run.result().unwrap_err().status, run.len()), (Status::RNR_RETRY_EXCEEDED, 0));
    drop(run);
    must_be(true, a.wait(None));
    let run = a.poll().unwrap();
    assert_eq!((run.result().unwrap_err().status, run.len()), (Status::FLUSHED, 1));
    drop(run);
    assert!(a.is_idle() && !a.wait(None).unwrap());
    // One that went well wakes too: there is room again.
    assert!(a.reset().unwrap().is_empty() && b.reset().unwrap().is_empty());
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    b.post_receive(one(&fake)).unwrap();
    a.connect(&to_b).unwrap();
    b.connect(&to_a).unwrap();
    a.post_inline(b"well", Verb::send()).unwrap();
    must_be(true, a.wait(None));
    assert!(a.poll().unwrap().len() == 0 && a.is_idle());
    assert_eq!(b.poll_received().unwrap().unwrap().buffer[..4], *b"well");
    drop((a, b));
    fake.finish();
}

#[test]
fn a_device_that_makes_completions_up_keeps_no_wait_beyond_its_deadline() {
    must_end(|| {
        let fake = Fake::with(DeviceOptions::legacy(0));
        let (mut a, b) = sleepers(&fake.pd);
        let queues = fake.control.completion_queues();
        a.post_receive(one(&fake)).unwrap();
        // Completions of nothing, with events of their own.
        let stop = AtomicBool::new(false);
        let answer = std::thread::scope(|threads| {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for queue in &queues {
                        fake.control.forge(*queue, completion(77, 77));
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let answer = a.wait(Some(Duration::from_millis(50)));
            stop.store(true, Ordering::Relaxed);
            answer
        });
        must_be(false, answer);
        assert!(a.strays() > 0);
        let own = poll_by(&fake, endless).expect("the device's own function");
        must_be(false, a.wait(Some(Duration::from_millis(5))));
        poll_by(&fake, own);
        // And an event of it as soon as one was taken.
        then(&fake, Then::Lie);
        for queue in fake.control.completion_queues() {
            fake.control.forge(queue, completion(77, 77));
        }
        must_be(false, a.wait(Some(Duration::from_millis(5))));
        as_ever(&fake);
        drop((a, b));
    });
}

#[test]
fn a_shared_channel_tells_whose_queues_have_something() {
    let fake = Fake::new();
    let channel = fake.context.completion_channel().unwrap();
    let make = |cookie| Pipe::<Rc>::with_channel(&fake.pd, 8, 8, &channel, cookie, |qp| Ok(qp)).unwrap();
    let (mut a, mut b) = (make(7), make(8));
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    a.connect(&to_b).unwrap();
    b.connect(&to_a).unwrap();
    b.post_receive(one(&fake)).unwrap();
    a.arm(false).unwrap();
    b.arm(false).unwrap();
    assert_eq!(channel.event().unwrap(), None);
    a.post(one(&fake), Verb::send()).unwrap();
    let mut cookies = [(); 2].map(|()| channel.wait(Some(PATIENCE)).unwrap().unwrap().cookie);
    cookies.sort_unstable();
    assert_eq!(cookies, [7, 8]);
    assert_eq!((a.poll().unwrap().len(), b.poll_received().unwrap().is_some()), (1, true));
    // Solicited ones alone wake who asks for those alone.
    for verb in [Verb::send(), Verb::send().solicited()] {
        b.post_receive(one(&fake)).unwrap();
        b.arm(true).unwrap();
        assert_eq!(channel.event().unwrap(), None);
        a.post(one(&fake), verb).unwrap();
    }
    assert_eq!(channel.event().unwrap().map(|event| event.cookie), Some(8));
    let elsewhere = fake.library.devices().unwrap().get(0).unwrap().open().unwrap();
    let foreign = elsewhere.completion_channel().unwrap();
    let refused = Pipe::<Rc>::with_channel(&fake.pd, 8, 8, &foreign, 0, |qp| Ok(qp));
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    drop((a, b, channel, foreign, elsewhere, refused));
    fake.finish();
}

#[test]
fn without_a_descriptor_there_is_no_pipe_that_sleeps() {
    let fake = Fake::new();
    fake.control.refuse(Call::CreateCompChannel, sinew_verbs_fake::Refusal::once(libc::EMFILE));
    let refused = Pipe::<Rc>::with_events(&fake.pd, 8, 8, |qp| Ok(qp)).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::EMFILE));
    fake.finish();
}

/// A thread that sends itself signals as long as this lives.
struct Signals<'t> {
    ended: &'t AtomicBool,
}

impl Drop for Signals<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

static CAUGHT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn caught(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// Does something while signals come to this thread, without `SA_RESTART`.
fn under_signals<T>(what: impl FnOnce() -> T) -> T {
    // SAFETY: the handler counts only; the action is whole.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = caught as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    // SAFETY: answers the calling thread.
    let waiter = unsafe { libc::pthread_self() } as usize;
    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // SAFETY: the thread waits for this one.
                unsafe { libc::pthread_kill(waiter as libc::pthread_t, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let _signals = Signals { ended: &ended };
        what()
    })
}

fn signals_do_not_end_a_wait(a: &mut Sleeper, b: &mut Sleeper, pd: &ProtectionDomain) {
    let (before, wanted) = (CAUGHT.load(Ordering::Relaxed), Duration::from_millis(100));
    a.post_receive(pd.allocate(8).unwrap()).unwrap();
    under_signals(|| {
        let start = Instant::now();
        must_be(false, a.wait(Some(wanted)));
        assert!(start.elapsed() >= wanted);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                b.post(pd.allocate(8).unwrap(), Verb::send()).unwrap();
            });
            must_be(true, a.wait(None));
        });
    });
    assert!(CAUGHT.load(Ordering::Relaxed) > before, "no signal came");
    assert!(a.poll_received().unwrap().is_some());
}

#[test]
fn signals_do_not_end_a_wait_and_do_not_move_its_deadline() {
    let fake = Fake::new();
    let (mut a, mut b) = sleepers(&fake.pd);
    signals_do_not_end_a_wait(&mut a, &mut b, &fake.pd);
    drop((a, b));
    fake.finish();
}

#[test]
fn two_threads_on_a_device_sleep_for_each_other_and_signals_disturb_neither() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let (mut a, mut b) = sleepers(&pd);
    signals_do_not_end_a_wait(&mut a, &mut b, &pd);
    for pipe in [&mut a, &mut b] {
        for _ in 0..4 {
            pipe.post_receive(pd.allocate(8).unwrap()).unwrap();
        }
    }
    must_end(move || play(a, b, pd, 500));
}

/// Another process, with a pipe connected to this one's.
struct Other {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Says to a process of this program that it is another's child.
const CHILD: &str = "SINEW_PIPE_CHILD";
const SAYS: &str = "endpoint ";

impl Other {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "events::other_process", "--ignored", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, to, from: BufReader::new(from) }
    }

    fn connect(&mut self, pipe: &mut Sleeper) {
        writeln!(self.to, "{}", pipe.endpoint().unwrap()).unwrap();
        let mut line = String::new();
        let endpoint: Endpoint = loop {
            line.clear();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "it said nothing");
            if let Some((_, endpoint)) = line.split_once(SAYS) {
                break endpoint.trim().parse().unwrap();
            }
        };
        pipe.connect(&endpoint).unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers each word with the next one, asleep between, until it is killed or its peer is silent.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let context = common::device(module_path!()).expect("a device, as the parent has one");
    let pd = context.protection_domain().unwrap();
    let mut pipe = sleeper(&pd, 8);
    for _ in 0..4 {
        pipe.post_receive(pd.allocate(8).unwrap()).unwrap();
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    pipe.connect(&line.trim().parse().unwrap()).unwrap();
    println!("{SAYS}{}", pipe.endpoint().unwrap());
    while let Ok(word) = next_word(&mut pipe) {
        pipe.post_inline(&[word.wrapping_add(1)], Verb::send()).unwrap();
    }
}

#[test]
fn two_processes_sleep_for_each_other_and_the_death_of_one_wakes_who_sends_to_it() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut pipe = sleeper(&pd, 8);
    for _ in 0..4 {
        pipe.post_receive(pd.allocate(8).unwrap()).unwrap();
    }
    let mut other = Other::start();
    other.connect(&mut pipe);
    for round in 0..200_u8 {
        pipe.post_inline(&[round], Verb::send()).unwrap();
        assert_eq!(next_word(&mut pipe).unwrap(), round.wrapping_add(1));
    }
    drop(other);
    // Who only receives learns nothing: the deadline ends it.
    drop(pipe.poll().unwrap());
    must_be(false, pipe.wait(Some(Duration::from_millis(50))));
    pipe.post(pd.allocate(8).unwrap(), Verb::send()).unwrap();
    must_be(true, pipe.wait(Some(PATIENCE)));
    let run = pipe.poll().unwrap();
    assert_eq!((run.result().unwrap_err().status, run.len()), (Status::RETRY_EXCEEDED, 1));
    drop(run);
    // The receives come back by flushing, with wake-ups too.
    for _ in 0..4 {
        must_be(true, pipe.wait(Some(PATIENCE)));
        let received = pipe.poll_received().unwrap().unwrap();
        assert_eq!(received.result.unwrap_err().status, Status::FLUSHED);
    }
    assert!(pipe.is_idle());
}

#[test]
fn what_a_pipe_of_a_device_does_by_a_shared_channel_is_told_there() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let channel = context.completion_channel().unwrap();
    let make = |cookie| Pipe::<Rc>::with_channel(&pd, 8, 8, &channel, cookie, |qp| Ok(qp)).unwrap();
    let (mut a, mut b) = (make(7), make(8));
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    b.post_receive(pd.allocate(8).unwrap()).unwrap();
    a.connect(&to_b).unwrap();
    b.connect(&to_a).unwrap();
    a.arm(false).unwrap();
    b.arm(false).unwrap();
    a.post(pd.allocate(8).unwrap(), Verb::send()).unwrap();
    let mut cookies = [(); 2].map(|()| channel.wait(Some(PATIENCE)).unwrap().unwrap().cookie);
    cookies.sort_unstable();
    assert_eq!(cookies, [7, 8]);
    assert_eq!((a.poll().unwrap().len(), b.poll_received().unwrap().is_some()), (1, true));
}

#[test]
fn pipes_with_and_without_events_take_turns_with_memory() {
    let fake = Fake::new();
    let Pipes { mut a, mut b, .. } = Pipes::new(&fake, 8, true);
    let (mut c, mut d) = sleepers(&fake.pd);
    for _ in 0..2 {
        b.post_receive(one(&fake)).unwrap();
        d.post_receive(one(&fake)).unwrap();
    }
    let mut list = buffers(&fake, 2);
    assert_eq!(a.post_all(&mut list, |_| Verb::send()).unwrap(), 2);
    let mut list = ended(&mut a);
    assert_eq!(c.post_all(&mut list, |_| Verb::send()).unwrap(), 2);
    assert!(c.wait(None).unwrap());
    // What the wait has read comes back as one run.
    assert_eq!(c.poll().unwrap().len(), 2);
    assert_eq!(received(&mut b).len() + received(&mut d).len(), 4);
    drop((a, b, c, d));
    fake.finish();
}
