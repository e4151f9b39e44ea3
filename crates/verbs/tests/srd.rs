//! Scalable reliable datagrams on a device in software that is like Amazon's EFA: not seen on hardware.

use sinew_verbs::ah::AddressHandle;
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Hub, Member, Operation, Side};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::{Endpoint, Operations, Path, Srd};
use sinew_verbs::work::Status;
use sinew_verbs::{Error, Library, ProtectionDomain};
use sinew_verbs_fake::{Call, Control, DeviceOptions, Efa, FakeDevice, Options, Refusal};
use std::time::{Duration, Instant};

const QKEY: u32 = 0x77;

struct Two {
    hub: Hub<Srd>,
    pd: ProtectionDomain,
    a: Member,
    b: Member,
    to_a: Endpoint,
    to_b: Endpoint,
    handle: AddressHandle,
    control: Control,
}

fn opened(device: DeviceOptions) -> (Context, Control) {
    let (library, control) = FakeDevice::new(Options { devices: vec![device], ..Options::default() });
    (Library::with(library).devices().unwrap().open("fake0").unwrap(), control)
}

impl Two {
    fn new() -> Self {
        let (context, control) = opened(DeviceOptions::efa(0));
        let pd = context.protection_domain().unwrap();
        let mut hub = Hub::<Srd>::new(&context, 64).unwrap();
        let mut make = || {
            let prepared =
                hub.queue_pair(&pd).qkey(QKEY).send_elements(2).inline_capacity(32).build().unwrap();
            let member = hub.add(prepared).unwrap();
            hub.activate(member).unwrap();
            member
        };
        let (a, b) = (make(), make());
        let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
        let path = Path::to_endpoint(&to_b, &context.choose_gid(None).unwrap()).unwrap();
        let handle = pd.address_handle(&path).unwrap();
        Self { hub, pd, a, b, to_a, to_b, handle, control }
    }

    fn post(&mut self, operation: Operation<Srd>, qkey: u32) {
        let operation = operation.to(&self.handle, self.to_b.qp_num, qkey);
        self.hub.post(self.a, operation).unwrap();
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

    /// The ends of a message: of its send, and of its receive.
    fn both(&mut self) -> (Completed, Completed) {
        let (one, other) = (self.next(), self.next());
        if one.side == Side::Send { (one, other) } else { (other, one) }
    }
}

#[test]
fn a_reliable_datagram_arrives_without_a_header_and_says_whose_it_is() {
    let mut two = Two::new();
    for (number, inline) in [(1u32, false), (2, true)] {
        two.hub.post_receive(two.b, two.pd.allocate(100).unwrap(), 7).unwrap();
        let message = two.pd.adopt(b"reliable".to_vec()).unwrap();
        let operation = Operation::send_with_immediate(message, number);
        two.post(if inline { operation.inline() } else { operation }, QKEY);
        let (sent, received) = two.both();
        sent.result.unwrap();
        let success = received.result.unwrap();
        assert_eq!(
            (success.len, success.source, success.immediate),
            (Some(8), Some(two.to_a.qp_num), Some(number))
        );
        assert_eq!(&received.held.into_buffer().unwrap()[..8], b"reliable");
    }
}

#[test]
fn a_peers_memory_is_written_and_read_by_requests_that_name_a_way_and_the_memory() {
    let mut two = Two::new();
    let exposed =
        two.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::READ | RemoteAccess::WRITE).unwrap();
    let part = exposed.remote().slice(8, 5).unwrap();
    let message = two.pd.adopt(b"write".to_vec()).unwrap();
    two.post(Operation::write(message, part), QKEY);
    two.next().result.unwrap();
    let mut bytes = [0; 5];
    exposed.read_at(8, &mut bytes).unwrap();
    assert_eq!(&bytes, b"write");
    let place = two.pd.allocate(5).unwrap();
    two.post(Operation::read(place, part), QKEY);
    let read = two.next();
    read.result.unwrap();
    assert_eq!(&*read.held.into_buffer().unwrap(), b"write");
    two.hub.post_receive(two.b, two.pd.allocate(8).unwrap(), 0).unwrap();
    let message = two.pd.adopt(b"again".to_vec()).unwrap();
    two.post(Operation::write_with_immediate(message, part, 9), QKEY);
    let (sent, received) = two.both();
    sent.result.unwrap();
    assert_eq!(received.result.unwrap().immediate, Some(9));
    assert!(two.control.faults().is_empty(), "{:?}", two.control.faults());
}

#[test]
fn a_write_is_not_inline_as_the_device_has_no_room_for_its_bytes() {
    let mut two = Two::new();
    let exposed = two.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::WRITE).unwrap();
    let part = exposed.remote().slice(0, 5).unwrap();
    let to = (two.handle.clone(), two.to_b.qp_num);
    let write = |bytes| Operation::write(bytes, part).to(&to.0, to.1, QKEY).inline();
    let refused = two.hub.post(two.a, write(two.pd.adopt(b"write".to_vec()).unwrap())).unwrap_err();
    assert!(matches!(refused.error, Error::Invalid { .. }), "{}", refused.error);
    assert_eq!(two.control.calls(Call::WrStart), 0, "the device is not asked");
}

#[test]
fn what_one_peer_refuses_stops_nothing_that_goes_to_others() {
    let mut two = Two::new();
    let exposed = two.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::READ).unwrap();
    let message = two.pd.adopt(b"write".to_vec()).unwrap();
    two.post(Operation::write(message, exposed.remote().slice(0, 5).unwrap()), QKEY);
    assert_eq!(two.next().result.unwrap_err().status, Status::REMOTE_ACCESS);
    two.hub.post_receive(two.b, two.pd.allocate(8).unwrap(), 0).unwrap();
    let message = two.pd.adopt(b"next".to_vec()).unwrap();
    two.post(Operation::send(message), QKEY);
    let (sent, received) = two.both();
    sent.result.unwrap();
    received.result.unwrap();
}

#[test]
fn a_queue_pair_is_made_for_what_the_device_does_and_for_sends_by_the_older_function() {
    let only = Efa { reads: true, writes: false };
    let (context, _control) = opened(DeviceOptions { efa: Some(only), ..DeviceOptions::efa(0) });
    let queue = context.completion_queue(128).build().unwrap();
    let reads = context.protection_domain().unwrap().queue_pair::<Srd>(&queue).build_raw().unwrap();
    assert_eq!(reads.operations(), Operations::SEND | Operations::SEND_IMMEDIATE | Operations::READ);

    let (context, control) = opened(DeviceOptions::efa(0));
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(128).build().unwrap();
    let sends = Operations::SEND | Operations::SEND_IMMEDIATE;
    let all = pd.queue_pair::<Srd>(&queue).build_raw().unwrap();
    assert_eq!(all.operations(), sends | Operations::READ | Operations::WRITE | Operations::WRITE_IMMEDIATE);
    let legacy = pd.queue_pair::<Srd>(&queue).extended(false).build_raw().unwrap();
    assert_eq!((legacy.operations(), legacy.as_raw_extended()), (sends, None));
    assert_eq!(control.calls(Call::CreateDriverQp), 1);
    control.refuse(Call::CreateSrdQp, Refusal::once(libc::ENOMEM));
    let error = pd.queue_pair::<Srd>(&queue).build_raw().unwrap_err();
    assert_eq!(
        (error.errno(), error.to_string().contains("efadv_create_qp_ex")),
        (Some(libc::ENOMEM), true),
        "{error}"
    );
}

#[test]
fn where_there_are_none_it_is_said_why_and_what_to_do() {
    // A device of another maker, where libefa is there.
    let (context, _control) = opened_beside_efa();
    let queue = context.completion_queue(64).build().unwrap();
    let pd = context.protection_domain().unwrap();
    let error = pd.queue_pair::<Srd>(&queue).build_raw().unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { .. }) && error.to_string().contains("take RC or UD"),
        "{error}"
    );
    // No libefa.
    let (context, _control) = opened(DeviceOptions::numbered(0));
    let queue = context.completion_queue(64).build().unwrap();
    let pd = context.protection_domain().unwrap();
    let error = pd.queue_pair::<Srd>(&queue).build_raw().unwrap_err();
    assert!(matches!(error, Error::Library(_)) && error.to_string().contains("libefa"), "{error}");
}

fn opened_beside_efa() -> (Context, Control) {
    let devices = vec![DeviceOptions::numbered(0), DeviceOptions::efa(1)];
    let (library, control) = FakeDevice::new(Options { devices, ..Options::default() });
    (Library::with(library).devices().unwrap().open("fake0").unwrap(), control)
}

#[test]
fn a_shared_receive_queue_is_refused_before_the_device_is_asked() {
    let (context, control) = opened(DeviceOptions { max_srq: 8, ..DeviceOptions::efa(0) });
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    let shared = pd.shared_receive_queue(4).build().unwrap();
    let error = pd.queue_pair::<Srd>(&queue).shared_receive_queue(&shared).build_raw().unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert_eq!(control.calls(Call::CreateSrdQp), 0);
}
