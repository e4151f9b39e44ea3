//! Channels on a real device: each level of posting, deadlines, peers that do not answer, and what comes after.

mod common;

use common::channels as pair;
use sinew_verbs::Error;
use sinew_verbs::channel::{ScopeError, Work};
use sinew_verbs::hub::Operation;
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::work::Status;
use std::convert::Infallible;
use std::time::Duration;

#[test]
fn blocking_send_and_receive_between_two_threads() {
    let Some((pd, mut a, mut b)) = pair(module_path!()) else { return };
    std::thread::scope(|threads| {
        let receiver = threads.spawn(|| {
            let mut place = pd.allocate(64).unwrap();
            for round in 0..20u8 {
                let success = b.receive(place.scatter().unwrap()).unwrap();
                assert_eq!(success.len, Some(5));
                assert_eq!(place[..5], [round; 5]);
                b.send(&[place.gather(1).unwrap()]).unwrap();
            }
        });
        let mut message = pd.allocate(5).unwrap();
        for round in 0..20 {
            message.fill(round);
            a.send(&[message.gather(5).unwrap()]).unwrap();
            let mut answer = pd.allocate(8).unwrap();
            assert_eq!(a.receive(answer.scatter().unwrap()).unwrap().len, Some(1));
        }
        receiver.join().unwrap();
    });
}

#[test]
fn buffers_of_a_ring_are_used_again_inside_a_scope() {
    let Some((pd, mut a, mut b)) = pair(module_path!()) else { return };
    let mut to = vec![0; 4 * 8];
    let mut from = vec![0; 2 * 8];
    let mut to = pd.borrow(&mut to).unwrap();
    let mut from = pd.borrow(&mut from).unwrap();
    let (to_key, to) = to.split();
    let (from_key, from) = from.split();
    let received = b.scope(|receiving| {
        let mut ring = std::collections::VecDeque::new();
        for place in to.chunks_mut(8) {
            ring.push_back(receiving.post(Work::receive(to_key.scatter(place)?))?);
        }
        a.scope(|sending| {
            let mut free: Vec<_> = from.chunks_mut(8).collect();
            let mut out = std::collections::VecDeque::new();
            let mut received = Vec::new();
            for round in 0..100u64 {
                let piece = match free.pop() {
                    Some(piece) => piece,
                    None => {
                        let oldest: sinew_verbs::channel::Pending<'_, '_> =
                            out.pop_front().expect("one is out");
                        oldest.wait()?.places.into_bytes()
                    }
                };
                piece.copy_from_slice(&round.to_ne_bytes());
                out.push_back(sending.post(Work::send_lent(from_key.scatter(piece)?))?);
                let place = ring.pop_front().expect("one is posted").wait()?.places.into_bytes();
                received.push(u64::from_ne_bytes(place.try_into().expect("8 bytes")));
                ring.push_back(receiving.post(Work::receive(to_key.scatter(place)?))?);
            }
            drop(ring);
            for _ in 0..4 {
                sending.post(Work::send([]))?.wait()?;
            }
            Ok::<_, Error>(received)
        })
        .map_err(|error| Error::Peer { cause: error.to_string() })
    });
    assert_eq!(received.expect("both scopes end well"), (0..100).collect::<Vec<_>>());
}

#[test]
fn remote_memory_is_read_written_and_counted() {
    let Some((pd, mut a, _b)) = pair(module_path!()) else { return };
    let exposed = pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
    let remote = exposed.remote();
    let mut buffer = pd.allocate(16).unwrap();
    buffer.fill(3);
    a.write(&[buffer.gather(16).unwrap()], remote).unwrap();
    buffer.fill(0);
    a.read(buffer.scatter().unwrap(), remote).unwrap();
    assert_eq!(buffer[..], [3; 16]);
    let word = remote.element::<u64>(7).unwrap();
    assert_eq!(a.fetch_add(word, 5).unwrap(), 0);
    assert_eq!(a.compare_swap(word, 5, 9).unwrap(), 5);
    assert_eq!(a.fetch_add(word, 0).unwrap(), 9);
}

#[test]
fn a_receive_that_nobody_answers_ends_at_its_deadline_and_the_channel_can_be_connected_anew() {
    let Some((pd, mut a, b)) = pair(module_path!()) else { return };
    a.set_deadline(Some(Duration::from_millis(50)));
    let mut place = pd.allocate(8).unwrap();
    let error = a.receive(place.scatter().unwrap()).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let error = a.send(&[]).unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    let a = a.reset().map_err(|(_, error)| error).unwrap();
    let b = b.reset().map_err(|(_, error)| error).unwrap();
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    let mut a = a.handshake(&to_b).map_err(|(_, error)| error).unwrap();
    let b = b.handshake(&to_a).map_err(|(_, error)| error).unwrap();
    a.set_deadline(Some(Duration::from_secs(10)));
    let receive = b.submit_receive(pd.allocate(8).unwrap()).unwrap();
    place.fill(4);
    a.send(&[place.gather(8).unwrap()]).unwrap();
    let finished = receive.wait(Duration::from_secs(10)).map_err(|(_, error)| error).unwrap();
    assert_eq!(finished.held.into_buffer().unwrap()[..], [4; 8]);
}

#[test]
fn a_scope_waits_for_what_was_not_waited_for_and_tells_its_failures() {
    let Some((pd, mut a, b)) = pair(module_path!()) else { return };
    let receive = b.submit_receive(pd.allocate(8).unwrap()).unwrap();
    let piece = pd.allocate(8).unwrap();
    a.scope(|scope| {
        let _ = scope.post(Work::send(piece.gather(8)?))?;
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(receive.wait(Duration::from_secs(10)).is_ok());
    let closed = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap().remote();
    let failed = a.scope(|scope| {
        let _ = scope.post(Work::write(piece.gather(8)?, closed))?;
        Ok::<_, Error>(())
    });
    let Err(ScopeError::Failed(failures)) = failed else { panic!("{failed:?}") };
    assert!(
        matches!(failures[..], [Error::Work(error)] if error.status == Status::REMOTE_ACCESS),
        "{failures:?}"
    );
    assert!(a.broken().is_some());
}

#[test]
fn a_panic_in_a_scope_goes_on_after_everything_has_ended() {
    let Some((pd, mut a, _b)) = pair(module_path!()) else { return };
    a.set_deadline(Some(Duration::from_millis(50)));
    let mut place = pd.allocate(8).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        a.scope(|scope| -> Result<(), Infallible> {
            let _ = scope.post(Work::receive(place.scatter().unwrap()));
            panic!("on purpose");
        })
    }));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert!(a.broken().is_some(), "the receive was cut short");
}

#[test]
fn a_result_that_is_dropped_parks_its_memory_until_it_has_ended() {
    let Some((pd, a, b)) = pair(module_path!()) else { return };
    drop(b.submit_receive(pd.allocate(8).unwrap()).unwrap());
    assert_eq!(b.parked_bytes(), 8);
    let sent = a.submit(Operation::send(pd.allocate(8).unwrap())).unwrap();
    assert!(sent.wait(Duration::from_secs(10)).is_ok());
    let driver = b.driver();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while b.parked_bytes() > 0 {
        assert!(std::time::Instant::now() < deadline);
        driver.progress().unwrap();
    }
}

#[test]
fn futures_are_woken_by_a_driver() {
    let Some((pd, a, b)) = pair(module_path!()) else { return };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let driver = b.driver();
        let stop = &done;
        threads.spawn(move || driver.run(|| stop.load(std::sync::atomic::Ordering::Acquire)));
        let receive = b.submit_receive(pd.allocate(8).unwrap()).unwrap();
        let waiting = threads.spawn(move || block_on(receive));
        let sent = a.submit(Operation::send(pd.allocate(8).unwrap())).unwrap();
        assert!(sent.wait(Duration::from_secs(10)).is_ok());
        assert_eq!(waiting.join().unwrap().unwrap().result.unwrap().len, Some(8));
        done.store(true, std::sync::atomic::Ordering::Release);
    });
}

/// Runs a future, asleep until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}
