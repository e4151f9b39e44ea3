//! What the software devices of a kernel lack, on a real device: each is skipped by its name, with the device's reason.
//!
//! What is skipped on every machine of ours is still compared with what a program in C passes (`recorded`). Device memory, on-demand
//! paging, moderation and places in the machine are in `objects`.

mod common;

use sinew_verbs::cq::{CompletionQueue, Fields, WorkCompletion};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Hub, Operation, Side};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::flow::{Ethernet, FlowRule, Match};
use sinew_verbs::qp::{Path, RawPacket, Rc, ReceiveRequest, SendRequest, Srd, XrcSend};
use sinew_verbs::work::Status;
use sinew_verbs::{Error, ProtectionDomain};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Says that a test of something that the device lacks is skipped; any other failure is one.
fn skip(what: &str, error: &Error) {
    assert!(matches!(error, Error::Unsupported { .. } | Error::Library(_)), "{error}");
    sinew_testing::record_skip(what, module_path!(), &error.to_string());
}

fn next<S: sinew_verbs::qp::Service>(hub: &mut Hub<S>) -> Completed {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completed) = hub.poll().expect("the device answers") {
            return completed.take();
        }
        assert!(Instant::now() < deadline, "nothing ends");
    }
}

#[test]
fn a_reliable_datagram_goes_to_the_own_port_where_the_device_has_srd() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let mut hub = Hub::<Srd>::new(&context, 64).expect("a hub");
    let prepared = match hub.queue_pair(&pd).qkey(7).build() {
        Ok(prepared) => prepared,
        Err(error) => return skip("SRD", &error),
    };
    let member = hub.add(prepared).expect("room");
    hub.activate(member).expect("the way up");
    let endpoint = hub.endpoint(member).expect("an endpoint");
    let path = Path::to_endpoint(&endpoint, &context.choose_gid(None).expect("a port")).expect("a way");
    let handle = pd.address_handle(&path).expect("a handle");
    hub.post_receive(member, pd.allocate(64).expect("memory"), 0).expect("room");
    let message = pd.adopt(b"to the own port".to_vec()).expect("memory");
    hub.post(member, Operation::send(message).to(&handle, endpoint.qp_num, 7)).expect("room");
    for _ in 0..2 {
        let completed = next(&mut hub);
        let success = completed.result.expect("success");
        if completed.side == Side::Receive {
            assert_eq!(success.len, Some(15));
        }
    }
}

/// Two connected queue pairs on one port: one writes to memory that the other exposes.
fn written(context: &Context, pd: &ProtectionDomain, port: u8) {
    let mut hub = Hub::<Rc>::new(context, 64).expect("a hub");
    let mut make = || {
        let prepared = hub.queue_pair(pd).remote_access(RemoteAccess::all()).port(port).build();
        let prepared = prepared.expect("a queue pair");
        hub.add(prepared).expect("room")
    };
    let (a, b) = (make(), make());
    let (to_a, to_b) = (hub.endpoint(a).expect("an endpoint"), hub.endpoint(b).expect("an endpoint"));
    hub.connect(a, &to_b).expect("the way up");
    hub.connect(b, &to_a).expect("the way up");
    let memory = Memory::zeroed(4096).expect("memory");
    let exposed = pd.expose(memory, RemoteAccess::WRITE).expect("a region");
    let bytes = pd.adopt(vec![7; 64]).expect("a registration");
    hub.post(a, Operation::write(bytes, exposed.remote().slice(0, 64).expect("inside"))).expect("room");
    next(&mut hub).result.expect("success");
    let mut back = [0; 64];
    exposed.read_at(0, &mut back).expect("inside");
    assert_eq!(back, [7; 64]);
}

#[test]
fn a_device_has_as_many_ports_as_it_says_and_no_more() {
    let Some(context) = common::device(module_path!()) else { return };
    let count = context.attributes().expect("it answers").port_count();
    let numbers: Vec<_> = context.ports().expect("they answer").iter().map(|port| port.number()).collect();
    let all: Vec<_> = (1..=u8::try_from(count).expect("a number")).collect();
    assert_eq!(numbers, all);
    for none in [0, numbers.len() as u8 + 1] {
        assert!(context.port(none).is_err(), "port {none} of {count}");
    }
}

#[test]
fn the_second_port_carries_messages_where_there_is_one() {
    let Some(context) = common::device(module_path!()) else { return };
    let count = context.attributes().expect("it answers").port_count();
    if count < 2 {
        let reason = format!("{} has {count} port", context.name());
        return sinew_testing::record_skip("several ports", module_path!(), &reason);
    }
    let pd = context.protection_domain().expect("a domain");
    written(&context, &pd, 2);
}

#[test]
fn completions_tell_when_they_happened_where_the_device_has_a_clock() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    for fields in [Fields::TIMESTAMP, Fields::WALL_CLOCK] {
        let queue = match context.completion_queue(64).fields(fields).build() {
            Ok(queue) => queue,
            Err(error) => {
                skip("timestamps", &error);
                continue;
            }
        };
        // A queue pair that fails flushes its receives: completions without a peer.
        let mut prepared = pd.queue_pair::<Rc>(&queue).build().expect("a queue pair");
        let mut places = [];
        let mut receives = [sinew_verbs::qp::ReceiveRequest::new(1, &mut places)];
        post(&mut prepared, &mut receives);
        let qp = prepared.into_queue_pair();
        qp.fail().expect("the error state");
        let mut poller = queue.poller(4);
        let deadline = Instant::now() + PATIENCE;
        let stamp = loop {
            if let Some(completion) = poller.poll().expect("the device answers").next() {
                assert_eq!(completion.status(), Status::FLUSHED);
                break completion.timestamp().or(completion.wall_clock_ns());
            }
            assert!(Instant::now() < deadline, "nothing completes");
        };
        assert!(stamp.is_some(), "{fields:?}");
    }
}

#[expect(unsafe_code, reason = "a receive of no memory")]
fn post(
    prepared: &mut sinew_verbs::qp::PreparedQueuePair<Rc>,
    receives: &mut [sinew_verbs::qp::ReceiveRequest<'_>],
) {
    // SAFETY: it names no memory.
    unsafe { prepared.post_receives(receives) }.expect("room");
}

#[test]
fn the_devices_clock_runs_where_it_has_one() {
    let Some(context) = common::device(module_path!()) else { return };
    match context.clock() {
        Ok(first) => assert!(context.clock().expect("the same again") >= first),
        Err(error) => skip("a clock of the device", &error),
    }
}

/// Memory as a DMA-BUF, by the kernel's device for that.
#[expect(unsafe_code, reason = "a request of the kernel's that no library has")]
fn dmabuf(len: usize) -> Result<OwnedFd, String> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    use std::os::fd::{AsRawFd, FromRawFd};
    /// `struct udmabuf_create` of linux/udmabuf.h.
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    /// `UDMABUF_CREATE`: a write of that structure, number 0x42 of `u`.
    const CREATE: libc::c_ulong =
        1 << 30 | (size_of::<Create>() as libc::c_ulong) << 16 | (b'u' as libc::c_ulong) << 8 | 0x42;
    let device = File::options().read(true).write(true).open("/dev/udmabuf");
    let device = device.map_err(|error| format!("no DMA-BUF can be made here: /dev/udmabuf: {error}"))?;
    let memory = memfd_create("dmabuf", MemfdFlags::ALLOW_SEALING).map_err(|errno| errno.to_string())?;
    ftruncate(&memory, len as u64).map_err(|errno| errno.to_string())?;
    fcntl_add_seals(&memory, SealFlags::SHRINK).map_err(|errno| errno.to_string())?;
    let create = Create { memfd: memory.as_raw_fd().cast_unsigned(), flags: 1, offset: 0, size: len as u64 };
    // SAFETY: the request takes such a structure, which lives through the call.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), CREATE, &raw const create) };
    if made < 0 {
        return Err(format!("UDMABUF_CREATE: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: a new descriptor, which belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

#[test]
fn memory_of_another_device_is_registered_where_the_device_takes_dmabufs() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let access = RemoteAccess::READ | RemoteAccess::WRITE;
    // A device that takes none says so of any descriptor.
    let any = File::open("/dev/null").expect("it is everywhere");
    if let Err(error @ Error::Unsupported { .. }) = pd.register_dmabuf(any.as_fd(), 0, 4096, 0, access) {
        return skip("DMA-BUF", &error);
    }
    let buffer = match dmabuf(8192) {
        Ok(buffer) => buffer,
        Err(reason) => return sinew_testing::record_skip("DMA-BUF", module_path!(), &reason),
    };
    match pd.register_dmabuf(buffer.as_fd(), 4096, 4096, 0x7000, access) {
        Ok(region) => assert_eq!((region.len(), region.remote().addr()), (4096, 0x7000)),
        Err(error) => skip("DMA-BUF", &error),
    }
}

/// The numbers of as many completions as are expected, all successes.
fn told(queue: &CompletionQueue, expected: usize) -> Vec<u64> {
    let deadline = Instant::now() + PATIENCE;
    let mut numbers = Vec::new();
    while numbers.len() < expected {
        let mut places = [WorkCompletion::EMPTY; 4];
        let count = queue.poll_into(&mut places).expect("the device answers");
        for completion in &places[..count] {
            completion.ok().expect("success");
            numbers.push(completion.wr_id());
        }
        assert!(Instant::now() < deadline, "only {numbers:?} ended");
    }
    numbers.sort_unstable();
    numbers
}

#[test]
fn an_extended_connection_carries_messages_where_the_device_has_them() {
    let Some(context) = common::device(module_path!()) else { return };
    let domain = match context.xrc_domain(None) {
        Ok(domain) => domain,
        Err(error) => return skip("extended connections", &error),
    };
    let pd = context.protection_domain().expect("a domain");
    let queue = context.completion_queue(64).build().expect("a queue");
    let receives = pd.shared_receive_queue(4).extended(&domain, &queue).build().expect("a shared queue");
    let mut receiver = domain.receiver().build().expect("a receiver");
    let sender = pd.queue_pair::<XrcSend>(&queue).build().expect("a sender");
    receiver.connect(&sender.endpoint().expect("an endpoint")).expect("the way up");
    let way = sender.connect(&receiver.endpoint().expect("an endpoint"));
    let mut sender = way.map_err(|(_, error)| error).expect("the way up");
    let mut bytes = *b"by one connection__________________";
    let mut region = pd.borrow(&mut bytes).expect("memory");
    let (key, parts) = region.split();
    let (message, rest) = parts.split_at_mut(17);
    let mut place = [key.scatter(&mut rest[..17]).expect("a place")];
    let message = [key.gather(message).expect("a message")];
    // SAFETY: both end, by their completions, before their memory goes, and nobody looks at it meanwhile.
    unsafe {
        receives.post_receive(ReceiveRequest::new(1, &mut place)).expect("room");
        let number = receives.number().expect("a number");
        let request = SendRequest::send(2, &message).to_queue(number).signaled();
        sender.post(&mut [request]).expect("room");
    }
    assert_eq!(told(&queue, 2), [1, 2]);
    drop(region);
    assert_eq!(bytes[..17], bytes[17..34]);
}

#[test]
fn a_frame_is_sent_and_a_rule_put_in_force_where_the_device_has_raw_packets() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let queue = context.completion_queue(64).build().expect("a queue");
    let prepared = match pd.queue_pair::<RawPacket>(&queue).build() {
        Ok(prepared) => prepared,
        Err(error) => return skip("raw packets", &error),
    };
    let port = prepared.choice().port;
    let mut packets = prepared.activate().map_err(|(_, error)| error).expect("the way up");
    // A type that is nobody's (RFC 5342, local experiments), between addresses that are nobody's.
    let mine = Ethernet { ether_type: Match::exactly(0x88b5), ..Ethernet::default() };
    let rule = packets.steer(port, &FlowRule::new().ethernet(mine)).expect("a rule");
    let mut frame = [0; 64];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    let mut region = pd.borrow(&mut frame).expect("memory");
    let (key, bytes) = region.split();
    let frame = [key.gather(bytes).expect("a frame")];
    // SAFETY: it ends, by its completion, before its memory goes.
    unsafe { packets.post(&mut [SendRequest::send(3, &frame).signaled()]) }.expect("room");
    assert_eq!(told(&queue, 1), [3]);
    packets.end_steering(rule).expect("its end");
}

#[test]
fn what_is_made_for_one_thread_carries_messages_where_the_driver_has_thread_domains() {
    let Some(context) = common::device(module_path!()) else { return };
    let thread = match context.thread_domain() {
        Ok(thread) => thread,
        Err(error) => return skip("thread domains", &error),
    };
    let pd = context.protection_domain().expect("a domain");
    // SAFETY: this thread alone uses what is made in it.
    let pd = unsafe { pd.for_thread(&thread) }.expect("a domain for this thread");
    let mut hub = Hub::<Rc>::new(&context, 64).expect("a hub");
    let prepared = hub.queue_pair(&pd).build().expect("a queue pair");
    let own = hub.add(prepared).expect("room");
    hub.connect(own, &hub.endpoint(own).expect("an endpoint")).expect("the way to itself");
    hub.post_receive(own, pd.allocate(8).expect("memory"), 0).expect("room");
    hub.post(own, Operation::send(pd.allocate(8).expect("memory"))).expect("room");
    for _ in 0..2 {
        next(&mut hub).result.expect("success");
    }
}
