//! Children of a process that has registered memory: the option that makes them safe, and what a device writes while one lives.
#![allow(unsafe_code, reason = "fork")]

mod common;
mod fake;

use fake::Fake;
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::{Error, Library};
use sinew_verbs_fake::{Call, Refusal};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::Ordering;

#[test]
fn the_option_is_the_librarys_and_its_refusal_is_told() {
    let fake = Fake::new();
    assert_eq!(fake.control.calls(Call::ForkInit), 0, "nobody asks for it by itself");
    fake.library.fork_init().unwrap();
    assert_eq!(fake.control.calls(Call::ForkInit), 1);
    fake.control.refuse(Call::ForkInit, Refusal::once(libc::EINVAL));
    let error = fake.library.fork_init().unwrap_err();
    assert!(matches!(error, Error::Call { .. }) && error.to_string().contains("ibv_fork_init"), "{error}");
    assert_eq!(error.errno(), Some(libc::EINVAL));
    fake.finish();
}

/// A child that lives until the value is dropped, and touches nothing.
struct Child {
    number: libc::pid_t,
    writer: Option<std::io::PipeWriter>,
}

impl Child {
    fn start() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (own, others) = (reader.as_raw_fd(), writer.as_raw_fd());
        // SAFETY: the child calls functions that a signal handler may call, and ends.
        let number = unsafe { libc::fork() };
        assert!(number >= 0, "{}", std::io::Error::last_os_error());
        if number == 0 {
            let mut byte = 0_u8;
            // SAFETY: own descriptors and an own byte; the read ends with the parent's end of the pipe.
            unsafe {
                libc::close(others);
                libc::read(own, (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
        }
        Self { number, writer: Some(writer) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.writer.take());
        let mut status = 0;
        // SAFETY: an own child, which ends now.
        let ended = unsafe { libc::waitpid(self.number, &raw mut status, 0) };
        assert!(std::thread::panicking() || (ended == self.number && status == 0), "{ended} {status}");
    }
}

/// A page that parent and child share is copied when one of them writes it: without care the device would go on with the child's.
#[test]
fn what_a_peer_writes_while_a_child_lives_is_seen_by_the_parent() {
    match Library::open() {
        Ok(library) => library.fork_init().expect("nothing is registered yet"),
        Err(error) => println!("{error}"),
    }
    let Some((pd, mut a, _b)) = common::channels(module_path!()) else { return };
    let exposed = pd.expose(Memory::zeroed(4096).unwrap(), RemoteAccess::all()).unwrap();
    let mut source = pd.allocate(8).unwrap();
    let child = Child::start();
    for round in 1..=3_u64 {
        // The parent writes first: this is when a shared page would be copied.
        exposed.store(8, round, Ordering::Release).unwrap();
        source.copy_from_slice(&round.to_ne_bytes());
        a.write(&[source.gather(8).unwrap()], exposed.remote()).unwrap();
        let mut place = pd.allocate(16).unwrap();
        a.read(place.scatter().unwrap(), exposed.remote().slice(0, 16).unwrap()).unwrap();
        assert_eq!(place[..8], round.to_ne_bytes(), "what the device has");
        assert_eq!(place[8..], round.to_ne_bytes(), "the device reads what the parent wrote");
        assert_eq!(
            exposed.load(0, Ordering::Acquire).unwrap(),
            round,
            "the parent sees what the device wrote"
        );
    }
    drop(child);
}
