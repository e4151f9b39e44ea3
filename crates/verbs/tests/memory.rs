//! Memory on a real device: by its address, divided, borrowed; what a peer may do with it and what not; how it is registered.
#![allow(unsafe_code, reason = "memory by its address")]

mod common;

use sinew_verbs::hub::{Completed, Hub, Member, Operation, Side};
use sinew_verbs::memory::{Memory, PageSize, RegistrationFlags, RemoteAccess, RemoteRegion};
use sinew_verbs::qp::Rc;
use sinew_verbs::work::Status;
use sinew_verbs::{Error, ProtectionDomain};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// Two queue pairs of one hub, connected to each other; peers may do everything that a region permits.
struct Pair {
    hub: Hub<Rc>,
    a: Member,
    b: Member,
}

impl Pair {
    fn new(pd: &ProtectionDomain) -> Self {
        let mut hub = Hub::new(pd.context(), 64).unwrap();
        let [a, b] = [(); 2].map(|()| {
            let prepared = hub.queue_pair(pd).remote_access(RemoteAccess::all()).build().unwrap();
            hub.add(prepared).unwrap()
        });
        let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
        hub.connect(a, &to_b).unwrap();
        hub.connect(b, &to_a).unwrap();
        Self { hub, a, b }
    }

    fn next(&mut self) -> Completed {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(completed) = self.hub.poll().unwrap() {
                return completed.take();
            }
            assert!(Instant::now() < deadline, "nothing ends");
        }
    }

    /// How one operation of `a`'s ends.
    fn run(&mut self, operation: Operation<Rc>) -> Completed {
        self.hub.post(self.a, operation).unwrap();
        self.next()
    }

    /// A message that fills `into`, of `from`; the bytes that arrived there are looked at by the caller.
    fn carry(&mut self, from: impl Into<sinew_verbs::hub::Held>, into: impl Into<sinew_verbs::hub::Held>) {
        self.hub.post_receive(self.b, into, 0).unwrap();
        self.hub.post(self.a, Operation::send(from)).unwrap();
        let mut sides = [self.next(), self.next()].map(|ended| {
            ended.result.unwrap();
            ended.side
        });
        sides.sort_by_key(|side| *side == Side::Receive);
        assert_eq!(sides, [Side::Send, Side::Receive]);
    }
}

/// A domain, or the reason why the test is skipped.
fn domain(module: &str) -> Option<ProtectionDomain> {
    Some(common::device(module)?.protection_domain().unwrap())
}

#[test]
fn memory_by_its_address_is_sent_from_received_into_and_read_by_peers() {
    let Some(pd) = domain(module_path!()) else { return };
    let mut pair = Pair::new(&pd);
    let mut words: Box<[u64; 64]> = Box::new(std::array::from_fn(|place| place as u64));
    let start = NonNull::from(&mut words[..]).cast::<u8>();
    // SAFETY: the words are freed after the region and everything on it, and are looked at through their address only meanwhile.
    let region =
        unsafe { pd.register_raw(start, 512, RemoteAccess::READ, RegistrationFlags::empty()) }.unwrap();
    assert_eq!((region.len(), region.remote().len()), (512, 512));
    assert_eq!(region.remote().addr(), start.as_ptr() as u64);
    pair.carry(region.part(8..24).unwrap(), region.part(256..272).unwrap());
    let place = pd.allocate(16).unwrap();
    let read = pair.run(Operation::read(place, region.remote().slice(256, 16).unwrap()));
    read.result.unwrap();
    let seen = read.held.into_buffer().unwrap();
    assert_eq!(seen[..], [1u64.to_ne_bytes(), 2u64.to_ne_bytes()].concat());
    assert!(region.part(500..513).is_err() && region.part(usize::MAX - 1..usize::MAX).is_err());
    drop((pair, region));
    assert_eq!((words[31], words[32], words[33], words[34]), (31, 1, 2, 34));
}

#[test]
fn parts_of_a_buffer_are_used_by_themselves() {
    let Some(pd) = domain(module_path!()) else { return };
    let mut pair = Pair::new(&pd);
    let (mut first, second) = pd.allocate(96).unwrap().split_at(32).unwrap();
    first.copy_from_slice(&[9; 32]);
    pair.hub.post_receive(pair.b, second, 0).unwrap();
    pair.hub.post(pair.a, Operation::send(first)).unwrap();
    let (one, other) = (pair.next(), pair.next());
    let (sent, received) = if one.side == Side::Send { (one, other) } else { (other, one) };
    assert_eq!(received.result.unwrap().len, Some(32));
    assert_eq!(sent.held.into_buffer().unwrap()[..], [9; 32]);
    assert_eq!(received.held.into_buffer().unwrap()[..], [[9; 32], [0; 32]].concat());
}

/// Makes an operation on a peer's memory.
type Make<'a> = &'a dyn Fn(RemoteRegion) -> Operation<Rc>;

/// Whether an operation on a peer's memory is permitted; where it is not, the connection fails, and is made anew by the caller.
fn is_permitted(pair: &mut Pair, operation: Operation<Rc>) -> bool {
    match pair.run(operation).result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.status, Status::REMOTE_ACCESS, "{error}");
            false
        }
    }
}

#[test]
fn peers_do_what_a_region_permits_and_nothing_else() {
    let Some(pd) = domain(module_path!()) else { return };
    let word = || pd.allocate(8).unwrap();
    let operations: [(RemoteAccess, Make<'_>); 4] = [
        (RemoteAccess::READ, &|remote| Operation::read(word(), remote)),
        (RemoteAccess::WRITE, &|remote| Operation::write(word(), remote)),
        (RemoteAccess::ATOMIC, &|remote| Operation::fetch_add(word(), remote, 1)),
        (RemoteAccess::ATOMIC, &|remote| Operation::compare_swap(word(), remote, 0, 1)),
    ];
    let every = [RemoteAccess::empty(), RemoteAccess::READ, RemoteAccess::WRITE, RemoteAccess::ATOMIC];
    for access in every.into_iter().chain([RemoteAccess::all()]) {
        let exposed = pd.expose(Memory::zeroed(8).unwrap(), access).unwrap();
        for (wanted, operation) in &operations {
            let mut pair = Pair::new(&pd);
            let permitted = is_permitted(&mut pair, operation(exposed.remote()));
            assert_eq!(permitted, access.contains(*wanted), "{wanted:?} of a region with {access:?}");
        }
    }
}

#[test]
fn peers_do_what_a_queue_pair_permits_and_nothing_else() {
    let Some(pd) = domain(module_path!()) else { return };
    let exposed = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
    for access in [RemoteAccess::empty(), RemoteAccess::WRITE] {
        let mut pair = Pair::new(&pd);
        let qp = pair.hub.queue_pair_of(pair.b).unwrap();
        let attributes = sinew_verbs::qp::Attributes::new().set_access(access);
        qp.modify(&attributes.set_state(sinew_verbs::qp::state::State::RTS)).unwrap();
        let ended = pair.run(Operation::write(pd.allocate(8).unwrap(), exposed.remote())).result;
        assert_eq!(ended.is_ok(), access == RemoteAccess::WRITE, "{ended:?}");
    }
}

#[test]
fn relaxed_ordering_is_asked_for_and_dropped_where_nobody_knows_it() {
    let Some(pd) = domain(module_path!()) else { return };
    let mut pair = Pair::new(&pd);
    let memory = || Memory::zeroed(64).unwrap();
    let relaxed = pd.adopt_memory(memory(), RegistrationFlags::RELAXED_ORDERING).unwrap();
    let place = pd.adopt_memory(memory(), RegistrationFlags::RELAXED_ORDERING).unwrap();
    pair.carry(relaxed, place);
}

/// A message of the last bytes of this memory.
fn carries_its_end(pd: &ProtectionDomain, memory: Memory) {
    let mut pair = Pair::new(pd);
    let mut buffer = pd.adopt_memory(memory, RegistrationFlags::empty()).unwrap();
    let last = buffer.len() - 8;
    buffer[last..].copy_from_slice(b"the last");
    let (_, last) = buffer.split_at(last).unwrap();
    pair.hub.post_receive(pair.b, pd.allocate(8).unwrap(), 0).unwrap();
    pair.hub.post(pair.a, Operation::send(last)).unwrap();
    let ended = [pair.next(), pair.next()];
    let received = ended.into_iter().find(|ended| ended.side == Side::Receive).unwrap();
    assert_eq!(received.held.into_buffer().unwrap()[..], *b"the last");
}

#[test]
fn mapped_pages_and_large_ones_that_the_system_makes_carry_messages() {
    let Some(pd) = domain(module_path!()) else { return };
    for size in [PageSize::Normal, PageSize::Transparent] {
        carries_its_end(&pd, Memory::pages(1 << 21, size).unwrap());
    }
}

#[test]
fn large_pages_that_are_set_apart_carry_messages() {
    let Some(pd) = domain(module_path!()) else { return };
    match Memory::pages(1 << 21, PageSize::Huge2MiB) {
        Ok(memory) => carries_its_end(&pd, memory),
        Err(error) => {
            let reason = format!("this machine has set none apart: {error}");
            sinew_testing::record_skip("huge pages", module_path!(), &reason);
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_and_no_registration() {
    let Some(pd) = domain(module_path!()) else { return };
    // SAFETY: nothing is there, which the kernel finds out: no device and no peer gets a region.
    let registered = unsafe {
        let nowhere = NonNull::new(std::ptr::without_provenance_mut(4096)).unwrap();
        pd.register_raw(nowhere, 4096, RemoteAccess::all(), RegistrationFlags::empty())
    };
    let error = registered.unwrap_err();
    assert!(matches!(error, Error::Call { .. }) && error.errno().is_some(), "{error}");
    assert!(pd.allocate(0).is_err());
}
