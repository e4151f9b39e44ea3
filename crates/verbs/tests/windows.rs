//! Memory windows on a real device: by hand, by a hub, by a channel; what is open, to whom, and when no longer.

#![allow(unsafe_code)]

mod common;

use common::next;
use sinew_verbs::channel::Channel;
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::hub::{Held, Hub, Operation};
use sinew_verbs::memory::{
    ExposedRegion, Memory, MemoryWindow, RegistrationFlags, RemoteAccess, RemoteRegion, WindowType,
};
use sinew_verbs::qp::{QueuePair, Rc, SendRequest};
use sinew_verbs::work::{Opcode, Status};
use sinew_verbs::{Error, ProtectionDomain, Result};
use std::time::{Duration, Instant};

/// A window in a domain, or nothing after saying that the device has none.
fn window(pd: &ProtectionDomain, kind: WindowType) -> Option<MemoryWindow> {
    match pd.memory_window(kind) {
        Ok(window) => Some(window),
        Err(error) => {
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            sinew_testing::record_skip("windows", module_path!(), &error.to_string());
            None
        }
    }
}

/// Two connected queue pairs that post by hand.
fn pair(pd: &ProtectionDomain, queue: &CompletionQueue) -> Result<(QueuePair<Rc>, QueuePair<Rc>)> {
    let make = || pd.queue_pair::<Rc>(queue).remote_access(RemoteAccess::all()).build();
    let (a, b) = (make()?, make()?);
    let (to_a, to_b) = (a.endpoint()?, b.endpoint()?);
    Ok((a.connect(&to_b).map_err(|(_, error)| error)?, b.connect(&to_a).map_err(|(_, error)| error)?))
}

/// A region of a page for windows alone, byte n being n.
fn exposed(pd: &ProtectionDomain, flags: RegistrationFlags) -> ExposedRegion {
    let memory = Memory::zeroed(4096).expect("memory");
    let region = pd.expose_with(memory, RemoteAccess::empty(), flags).expect("a region");
    region.write_at(0, &(0..=u8::MAX).cycle().take(4096).collect::<Vec<_>>()).expect("inside");
    region
}

/// How a queue pair's read of its peer ends; where it does well, the bytes must be those from `start` on.
fn read_by(
    qp: &mut QueuePair<Rc>,
    queue: &CompletionQueue,
    remote: RemoteRegion,
    start: u8,
) -> WorkCompletion {
    let mut place = qp.protection_domain().allocate(remote.len() as usize).expect("a buffer");
    let mut list = [place.scatter().expect("a place")];
    // SAFETY: the place stays until the read has ended.
    unsafe { qp.post_one(SendRequest::read(7, &mut list, remote).signaled()) }.expect("a read");
    let read = next(queue);
    if read.ok().is_ok() {
        assert!(
            place.iter().zip(0usize..).all(|(byte, at)| *byte == start.wrapping_add(at as u8)),
            "{place:?}"
        );
    }
    read
}

#[test]
fn a_window_of_type_one_opens_its_part_of_a_region_and_holds_it() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let Some(window) = window(&pd, WindowType::One) else { return };
    let queue = context.completion_queue(64).build().expect("a queue");
    let (mut a, mut b) = pair(&pd, &queue).expect("queue pairs");
    let region = exposed(&pd, RegistrationFlags::WINDOW_BIND);
    let plain = exposed(&pd, RegistrationFlags::empty());
    // SAFETY: queue pairs and window are alive until their completions were polled.
    unsafe {
        for (region, range) in [(&plain, 0..8), (&region, 4000..5000), (&region, 5..5)] {
            let refused = window.bind(&mut b, 1, true, region, range.clone(), RemoteAccess::READ);
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{range:?}");
        }
        // A new key each time, and the old part is closed.
        let mut remotes = Vec::new();
        for range in [1024..1280, 256..512] {
            remotes.push(window.bind(&mut b, 1, true, &region, range, RemoteAccess::READ).expect("it binds"));
            let bound = next(&queue);
            assert_eq!((bound.wr_id(), bound.opcode()), (1, Some(Opcode::BIND_WINDOW)), "{bound:?}");
        }
        let remote = remotes[1];
        assert_eq!((remote.len(), remote.key()), (256, window.key()));
        // The region outlives its last handle, as the window is bound to it.
        drop(region);
        read_by(&mut a, &queue, remote, 0).ok().expect("the window is open");
        read_by(&mut a, &queue, remote.slice(100, 56).expect("a part"), 100).ok().expect("inside");
        window.unbind(&mut b, 2, true).expect("it closes");
        assert!(next(&queue).ok().is_ok());
        let refused = read_by(&mut a, &queue, remote, 0);
        assert_eq!(refused.status(), Status::REMOTE_ACCESS, "it is closed");
    }
    drop((a, b));
    drop(window);
    assert_eq!(context.library().leaked_objects(), 0);
}

#[test]
fn a_window_of_type_one_opens_nothing_beside_its_part_and_its_rights() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let queue = context.completion_queue(64).build().expect("a queue");
    let region = exposed(&pd, RegistrationFlags::WINDOW_BIND);
    // What is refused ends the connection: another one for each.
    let refused = |of: fn(RemoteRegion) -> RemoteRegion| {
        let Some(window) = window(&pd, WindowType::One) else { return };
        let (mut a, mut b) = pair(&pd, &queue).expect("queue pairs");
        // SAFETY: as above.
        let remote = unsafe { window.bind(&mut b, 1, true, &region, 256..512, RemoteAccess::WRITE) };
        let remote = remote.expect("it binds");
        assert!(next(&queue).ok().is_ok());
        let read = read_by(&mut a, &queue, of(remote), 0);
        assert_eq!(read.status(), Status::REMOTE_ACCESS);
    };
    refused(|remote| remote);
    refused(|remote| RemoteRegion::new(remote.addr() + 256, 8, remote.key()).expect("behind it"));
}

#[test]
fn a_window_of_type_two_is_bound_closed_and_bound_anew_by_requests() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let Some(window) = window(&pd, WindowType::Two) else { return };
    let queue = context.completion_queue(64).build().expect("a queue");
    let (mut a, mut b) = pair(&pd, &queue).expect("queue pairs");
    let region = exposed(&pd, RegistrationFlags::WINDOW_BIND);
    let mut last = window.key();
    for start in [0, 512, 64] {
        // SAFETY: queue pairs and window are alive until their completions were polled.
        let remote = unsafe { window.bind(&mut b, 1, true, &region, start..start + 128, RemoteAccess::READ) };
        let remote = remote.expect("it binds");
        let bound = next(&queue);
        assert_eq!((bound.wr_id(), bound.opcode()), (1, Some(Opcode::BIND_WINDOW)), "{bound:?}");
        assert_ne!(remote.key(), last);
        last = remote.key();
        read_by(&mut a, &queue, remote, start as u8).ok().expect("the window is open");
        // SAFETY: as above.
        unsafe { window.unbind(&mut b, 2, true) }.expect("it closes");
        let closed = next(&queue);
        assert_eq!((closed.wr_id(), closed.opcode()), (2, Some(Opcode::LOCAL_INVALIDATE)), "{closed:?}");
    }
    // SAFETY: as above.
    let remote = unsafe { window.bind(&mut b, 1, true, &region, 0..128, RemoteAccess::READ) };
    let remote = remote.expect("it binds");
    assert!(next(&queue).ok().is_ok());
    // SAFETY: as above.
    unsafe { window.unbind(&mut b, 2, true) }.expect("it closes");
    assert!(next(&queue).ok().is_ok());
    assert_eq!(read_by(&mut a, &queue, remote, 0).status(), Status::REMOTE_ACCESS, "it is closed");
    drop((a, b, region, window));
    assert_eq!(context.library().leaked_objects(), 0);
}

/// The next operation of a hub that ends: the window that it kept, and how it ended.
fn ended(hub: &mut Hub<Rc>) -> (Held, std::result::Result<(), Status>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(completed) = hub.poll().expect("the device answers") {
            let result = completed.result().map(drop).map_err(|error| error.status);
            return (completed.into_held(), result);
        }
        assert!(Instant::now() < deadline, "nothing ends");
    }
}

#[test]
fn a_hub_binds_a_window_that_its_peer_uses_and_either_side_closes() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let Some(window) = window(&pd, WindowType::Two) else { return };
    let mut hub = Hub::<Rc>::new(&context, 64).expect("a hub");
    let make = |hub: &mut Hub<Rc>| {
        let prepared = hub.queue_pair(&pd).remote_access(RemoteAccess::all()).build();
        hub.add(prepared.expect("a queue pair")).expect("a member")
    };
    let (a, b) = (make(&mut hub), make(&mut hub));
    let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
    hub.connect(a, &to_b).unwrap();
    hub.connect(b, &to_a).unwrap();
    let region = exposed(&pd, RegistrationFlags::WINDOW_BIND);
    let bind = |hub: &mut Hub<Rc>, start: usize, access| {
        let remote = hub.bind_window(b, &window, &region, start..start + 64, access, 5).expect("posted");
        let (held, result) = ended(hub);
        assert!(matches!(held, Held::Window(_)) && result.is_ok(), "{held:?}: {result:?}");
        remote
    };
    let read = |hub: &mut Hub<Rc>, remote| {
        hub.post(a, Operation::read(pd.allocate(64).unwrap(), remote)).unwrap();
        let (held, result) = ended(hub);
        result.map(|()| held.into_buffer().expect("a buffer")[0])
    };
    // Closed by its owner, and bound anew with a new key and other rights.
    let first = bind(&mut hub, 10, RemoteAccess::READ);
    assert_eq!(read(&mut hub, first), Ok(10));
    hub.close_window(b, &window, 6).expect("posted");
    assert!(ended(&mut hub).1.is_ok());
    let second = bind(&mut hub, 20, RemoteAccess::READ | RemoteAccess::WRITE);
    assert_ne!(first.key(), second.key());
    assert_eq!(read(&mut hub, second), Ok(20));
    let mut bytes = pd.allocate(64).unwrap();
    bytes.fill(0xee);
    hub.post(a, Operation::write(bytes, second)).unwrap();
    assert!(ended(&mut hub).1.is_ok());
    let mut written = [0; 66];
    region.read_at(19, &mut written).unwrap();
    assert!(written[0] == 19 && written[65] == 84 && written[1..65].iter().all(|byte| *byte == 0xee));
    // Taken away by the peer, with a message.
    hub.post_receive(b, pd.allocate(8).unwrap(), 0).unwrap();
    hub.post(a, Operation::send_with_invalidate(pd.allocate(8).unwrap(), second.key())).unwrap();
    assert!(ended(&mut hub).1.is_ok() && ended(&mut hub).1.is_ok());
    let third = bind(&mut hub, 200, RemoteAccess::READ);
    assert_eq!(read(&mut hub, third), Ok(200));
    // A key that was closed opens nothing.
    assert_eq!(read(&mut hub, second), Err(Status::REMOTE_ACCESS));
    let one = pd.memory_window(WindowType::One).expect("a window");
    let refused = hub.bind_window(b, &one, &region, 0..8, RemoteAccess::READ, 0);
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    // It is bound still: it goes before the queue pair that it is bound on.
    drop((window, one, hub, region));
    assert_eq!(context.library().leaked_objects(), 0);
}

#[test]
fn a_channel_lends_its_peer_a_window_and_takes_it_back() {
    let Some((pd, mut a, mut b)) = common::channels(module_path!()) else { return };
    let Some(window) = window(&pd, WindowType::Two) else { return };
    let region = exposed(&pd, RegistrationFlags::WINDOW_BIND);
    let mut place = pd.allocate(16).unwrap();
    let mut lend = |a: &mut Channel, b: &mut Channel, start: usize| {
        let remote = a.bind_window(&window, &region, start..start + 16, RemoteAccess::READ).expect("bound");
        b.read(place.scatter().unwrap(), remote).expect("it is open");
        assert_eq!(usize::from(place[0]), start);
        a.close_window(&window).expect("closed");
        remote
    };
    lend(&mut a, &mut b, 3);
    let remote = lend(&mut a, &mut b, 5);
    let refused = b.read(place.scatter().unwrap(), remote);
    assert!(
        matches!(&refused, Err(Error::Work(error)) if error.status == Status::REMOTE_ACCESS),
        "{refused:?}"
    );
    // Outside of the region nothing is bound, and nothing was posted.
    assert!(a.bind_window(&window, &region, 4090..4100, RemoteAccess::READ).is_err());
}
