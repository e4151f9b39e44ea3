//! What no device here has, at work on the device in software: memory of another device, memory on the device, pages on demand, a
//! second port, times of completions. Not seen on hardware.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use sinew_verbs::cq::Fields;
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Hub, Member, Operation, Side};
use sinew_verbs::memory::{Advice, Memory, RegistrationFlags, RemoteAccess};
use sinew_verbs::qp::Rc;
use sinew_verbs::{Error, Library, ProtectionDomain};
use sinew_verbs_fake::{Control, DeviceOptions, FakeDevice, Options};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

fn opened(device: DeviceOptions) -> (Context, Control) {
    let (library, control) = FakeDevice::new(Options { devices: vec![device], ..Options::default() });
    (Library::with(library).devices().unwrap().open("fake0").unwrap(), control)
}

/// Two connected queue pairs of one hub.
struct Pair {
    hub: Hub<Rc>,
    pd: ProtectionDomain,
    a: Member,
    b: Member,
}

impl Pair {
    fn new(context: &Context, port: u8) -> Self {
        let pd = context.protection_domain().unwrap();
        let mut hub = Hub::new(context, 64).unwrap();
        let mut make = || {
            let prepared = hub.queue_pair(&pd).remote_access(RemoteAccess::all()).port(port).build().unwrap();
            assert_eq!(prepared.choice().port, port);
            hub.add(prepared).unwrap()
        };
        let (a, b) = (make(), make());
        let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
        hub.connect(a, &to_b).unwrap();
        hub.connect(b, &to_a).unwrap();
        Self { hub, pd, a, b }
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

    /// What arrives of an operation that sends.
    fn received(&mut self, operation: Operation<Rc>) -> Vec<u8> {
        self.hub.post_receive(self.b, self.pd.allocate(64).unwrap(), 0).unwrap();
        self.hub.post(self.a, operation).unwrap();
        let ended = [self.next(), self.next()];
        let received = ended.into_iter().find(|ended| ended.side == Side::Receive).unwrap();
        let len = received.result.unwrap().len.unwrap() as usize;
        received.held.into_buffer().unwrap()[..len].to_vec()
    }
}

#[test]
fn memory_of_another_device_is_sent_from_and_written_to() {
    let (context, control) = opened(DeviceOptions::numbered(0));
    let mut pair = Pair::new(&context, 1);
    let descriptor = memfd_create("dmabuf", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&descriptor, 3 << 12).unwrap();
    let file = std::fs::File::from(descriptor.try_clone().unwrap());
    file.write_all_at(b"of another device", 4096 + 8).unwrap();
    let access = RemoteAccess::READ | RemoteAccess::WRITE;
    let region = pair.pd.register_dmabuf(descriptor.as_fd(), 4096, 4096, 0x7000, access).unwrap();
    drop(descriptor);
    assert_eq!(pair.received(Operation::send(region.part(8..25).unwrap())), b"of another device");

    // A peer names it from the address on that it was given.
    let remote = region.remote().slice(100, 5).unwrap();
    assert_eq!(remote.addr(), 0x7000 + 100);
    let bytes = pair.pd.adopt(b"write".to_vec()).unwrap();
    pair.hub.post(pair.a, Operation::write(bytes, remote)).unwrap();
    pair.next().result.unwrap();
    let mut back = [0; 5];
    file.read_exact_at(&mut back, 4096 + 100).unwrap();
    assert_eq!(&back, b"write");

    for (offset, len, iova) in [(4096, 3 << 12, 0), (0, 4096, u64::MAX), (u64::MAX, 1, 0)] {
        let refused = pair.pd.register_dmabuf(file.as_fd(), offset, len, iova, access);
        assert!(refused.is_err(), "{len} bytes from {offset}, named from {iova:#x} on");
    }
    drop((region, pair, context));
    assert!(control.live().is_empty() && control.faults().is_empty(), "{:?}", control.faults());
}

#[test]
fn memory_on_the_device_is_written_by_a_peer_and_sent_from() {
    let (context, control) = opened(DeviceOptions::numbered(0));
    let mut pair = Pair::new(&context, 1);
    let memory = context.device_memory(256, 3).unwrap();
    let region = memory.register(&pair.pd, 64..192, RemoteAccess::WRITE).unwrap();
    let bytes = pair.pd.adopt(b"on the device".to_vec()).unwrap();
    pair.hub.post(pair.a, Operation::write(bytes, region.remote().slice(16, 13).unwrap())).unwrap();
    pair.next().result.unwrap();
    let mut back = [0; 13];
    memory.read_at(64 + 16, &mut back).unwrap();
    assert_eq!(&back, b"on the device");
    assert_eq!(pair.received(Operation::send(region.part(23..29).unwrap())), b"device");
    drop((region, memory, pair, context));
    assert!(control.live().is_empty() && control.faults().is_empty(), "{:?}", control.faults());
}

#[test]
fn memory_that_is_paged_on_demand_carries_messages_and_takes_advice() {
    let (context, _control) = opened(DeviceOptions::numbered(0));
    let mut pair = Pair::new(&context, 1);
    let memory = Memory::try_from(b"on demand".to_vec()).unwrap();
    let buffer = pair.pd.adopt_memory(memory, RegistrationFlags::ON_DEMAND).unwrap();
    for advice in [Advice::Prefetch, Advice::PrefetchWrite, Advice::PrefetchPresent] {
        buffer.advise(advice, true).unwrap();
    }
    assert_eq!(pair.received(Operation::send(buffer)), b"on demand");

    let (context, _control) = opened(DeviceOptions { on_demand: false, ..DeviceOptions::numbered(0) });
    let pd = context.protection_domain().unwrap();
    assert_eq!(context.attributes().unwrap().on_demand_paging().general, 0);
    let memory = Memory::zeroed(64).unwrap();
    let refused = pd.adopt_memory(memory, RegistrationFlags::ON_DEMAND).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
}

#[test]
fn the_second_port_carries_messages_and_is_chosen_when_the_first_is_down() {
    let (first, second) = (DeviceOptions::numbered(0), DeviceOptions::roce(1));
    for first_is_down in [false, true] {
        let down = first.ports[0].clone().down();
        let port = if first_is_down { down } else { first.ports[0].clone() };
        let ports = vec![port, second.ports[0].clone()];
        let (context, _control) = opened(DeviceOptions { ports, ..DeviceOptions::numbered(0) });
        assert_eq!(context.ports().unwrap().len(), 2);
        assert_eq!(context.choose_gid(None).unwrap().port, if first_is_down { 2 } else { 1 });
        let mut pair = Pair::new(&context, 2);
        let message = pair.pd.adopt(b"by the second".to_vec()).unwrap();
        assert_eq!(pair.received(Operation::send(message)), b"by the second");
    }
}

#[test]
fn completions_tell_when_they_happened_in_their_order_and_the_clock_runs() {
    let (context, _control) = opened(DeviceOptions::numbered(0));
    let pd = context.protection_domain().unwrap();
    for fields in [Fields::TIMESTAMP, Fields::WALL_CLOCK] {
        let queue = context.completion_queue(64).fields(fields).build().unwrap();
        let make = || pd.queue_pair::<Rc>(&queue).build().unwrap();
        let (a, b) = (make(), make());
        let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
        let mut a = a.connect(&to_b).map_err(|(_, error)| error).unwrap();
        let _b = b.connect(&to_a).map_err(|(_, error)| error).unwrap();
        post_writes(&mut a);
        let mut poller = queue.poller(8);
        let told: Vec<_> = poller.poll().unwrap().map(|one| (one.timestamp(), one.wall_clock_ns())).collect();
        assert_eq!(told.len(), 3);
        let is_wall = fields == Fields::WALL_CLOCK;
        assert!(told.iter().all(|(device, wall)| device.is_some() != is_wall && wall.is_some() == is_wall));
        assert!(told.windows(2).all(|two| two[0] < two[1]), "{told:?}");
    }
    let first = context.clock().unwrap();
    assert!(context.clock().unwrap() > first);

    let (context, _control) = opened(DeviceOptions { timestamps: false, ..DeviceOptions::numbered(0) });
    let refused = context.completion_queue(64).fields(Fields::TIMESTAMP).build().unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert!(matches!(context.clock(), Err(Error::Unsupported { .. })));
}

/// Three writes of nothing.
#[expect(unsafe_code, reason = "writes without memory")]
fn post_writes(qp: &mut sinew_verbs::qp::QueuePair<Rc>) {
    use sinew_verbs::memory::RemoteRegion;
    use sinew_verbs::qp::SendRequest;
    let nowhere = RemoteRegion::new(0, 0, sinew_verbs::memory::RemoteKey(0)).unwrap();
    let write = |number| SendRequest::write(number, &[], nowhere).signaled();
    // SAFETY: they name no memory.
    unsafe { qp.post(&mut [write(1), write(2), write(3)]) }.unwrap();
}
