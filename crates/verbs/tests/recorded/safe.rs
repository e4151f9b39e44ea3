//! The scenarios by safe calls, each as the function of the same name in `program/`.
#![allow(unsafe_code, reason = "requests are posted by hand, so that each is the program's")]

use crate::program::Setup;
use sinew_verbs::cq::{CompletionQueue, Fields, WorkCompletion};
use sinew_verbs::device::Context;
use sinew_verbs::memory::{Advice, RegistrationFlags, RemoteAccess, WindowType};
use sinew_verbs::qp::config::{AckTimeout, PacketSequenceNumber};
use sinew_verbs::qp::flow::{Ethernet, FlowRule, Ipv4, Ipv6, Match, Ports};
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::{
    Attributes, DataOrder, Extensions, Path, PreparedQueuePair, QueuePair, RateLimit, RawPacket, Rc,
    ReceiveRequest, Route, SendRequest, Srd, Transfer, XrcSend,
};
use sinew_verbs::{Library, ProtectionDomain};

const QKEY: u32 = 0x77;

fn opened(library: &Library) -> Context {
    library.devices().expect("a list").open("fake0").expect("a device")
}

fn psn() -> PacketSequenceNumber {
    PacketSequenceNumber::new(0x1234).expect("24 bits")
}

fn poll(queue: &CompletionQueue, expected: usize) {
    let mut places = [WorkCompletion::EMPTY; 16];
    assert_eq!(queue.poll_into(&mut places).expect("the device answers"), expected);
    places[..expected].iter().for_each(|completion| completion.ok().expect("success"));
}

/// Two connected queue pairs of one port.
fn ends(
    pd: &ProtectionDomain,
    queue: &CompletionQueue,
    extended: bool,
    port: u8,
    access: RemoteAccess,
) -> [QueuePair<Rc>; 2] {
    let make = || -> PreparedQueuePair<Rc> {
        let builder = pd.queue_pair(queue).send_elements(2).receive_elements(2).inline_capacity(32);
        builder
            .extended(extended)
            .port(port)
            .gid_index(0)
            .psn(psn())
            .remote_access(access)
            .build()
            .expect("one")
    };
    let (a, b) = (make(), make());
    let (to_a, to_b) = (a.endpoint().expect("it"), b.endpoint().expect("it"));
    let a = a.connect(&to_b).map_err(|(_, error)| error).expect("the way up");
    [a, b.connect(&to_a).map_err(|(_, error)| error).expect("the way up")]
}

pub(crate) fn srd(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(128).build().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(1024).as_mut() }).unwrap();
    let exposed = pd.expose(setup.memory(1024, 4096), RemoteAccess::READ | RemoteAccess::WRITE).unwrap();
    let make = || {
        let builder = pd.queue_pair::<Srd>(&queue).send_elements(2).inline_capacity(32).qkey(QKEY).psn(psn());
        builder.port(1).gid_index(0).build().unwrap().activate().map_err(|(_, error)| error).unwrap()
    };
    let (mut a, mut b) = (make(), make());
    let choice = context.choose_gid(Some(1)).unwrap();
    let lid = context.port(1).unwrap().lid();
    let route = Route::new(choice.entry.unwrap().gid, 0).unwrap();
    let handle = pd.address_handle(&Path { lid, ..Path::global(1, route) }).unwrap();
    let to_b = handle.destination(b.number(), QKEY);

    let (key, bytes) = local.split();
    let (sent, rest) = bytes.split_at_mut(256);
    let (first, second) = sent.split_at_mut(64);
    let place = &mut rest[..64];
    let mut places = [key.scatter(place).unwrap()];
    for _ in 0..2 {
        // SAFETY: all of this waits for the completions before its memory goes; nobody looks at what is received.
        unsafe { b.post_receives(&mut [ReceiveRequest::new(0x51, &mut places)]) }.unwrap();
    }
    let message = [key.gather(&first[..16]).unwrap(), key.gather(&second[..8]).unwrap()];
    let one = [key.gather(&first[..16]).unwrap()];
    let remote = exposed.remote();
    let remote = (remote.slice(0, 16).unwrap(), remote.slice(0, 8).unwrap());
    let mut answer = key.gather(&second[..8]).unwrap().as_raw();
    // SAFETY: as above. The place that is read into is no place of another request by then.
    let mut read = unsafe { into_place(&mut answer) };
    let mut batch = [
        SendRequest::send_with_immediate(1, &message, 9).to(to_b).signaled(),
        SendRequest::write(2, &one, remote.0).to(to_b).signaled(),
        SendRequest::read(3, &mut read, remote.1).to(to_b).signaled(),
        SendRequest::send(4, &one).to(to_b).signaled().inline(),
    ];
    // SAFETY: as above.
    unsafe { a.post(&mut batch) }.unwrap();
    poll(&queue, 6);

    let builder = pd.queue_pair::<Srd>(&queue).extended(false).qkey(QKEY).psn(psn()).port(1).gid_index(0);
    let mut older = builder.build().unwrap().activate().map_err(|(_, error)| error).unwrap();
    // SAFETY: as above.
    unsafe { b.post_receives(&mut [ReceiveRequest::new(0x51, &mut places)]) }.unwrap();
    // SAFETY: as above.
    unsafe { older.post(&mut [SendRequest::send(5, &one).to(to_b).signaled()]) }.unwrap();
    poll(&queue, 2);

    drop((older, handle));
    drop((a, b));
    drop((exposed, local));
}

/// An element as a place: the program in C sends from and reads into the same bytes.
///
/// # Safety
/// Nobody else uses the bytes until the request has ended.
unsafe fn into_place(raw: &mut sinew_verbs_sys::ibv_sge) -> [sinew_verbs::memory::Scatter<'_>; 1] {
    // SAFETY: an element is the ABI's, without more.
    unsafe { std::mem::transmute(*raw) }
}

fn with_clock(library: &Library, setup: &Setup, fields: Fields) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let channel = context.completion_channel().unwrap();
    let queue = context.completion_queue(64).channel(&channel, 7).vector(1).fields(fields).build().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(64 << 10).as_mut() }).unwrap();
    let [mut a, mut b] = ends(&pd, &queue, true, 1, RemoteAccess::empty());
    queue.arm(false).unwrap();

    let (key, bytes) = local.split();
    let (sent, rest) = bytes.split_at_mut(256);
    let mut places = [key.scatter(&mut rest[..64]).unwrap()];
    let message = [key.gather(&sent[..16]).unwrap()];
    // SAFETY: all of this waits for the completions before its memory goes.
    unsafe {
        b.post_receives(&mut [ReceiveRequest::new(0x51, &mut places)]).unwrap();
        a.post(&mut [SendRequest::send_with_immediate(1, &message, 7).signaled()]).unwrap();
    }
    let mut poller = queue.poller(16);
    let mut count = 0;
    for completion in poller.poll().unwrap() {
        completion.ok().unwrap();
        let wall = fields == Fields::WALL_CLOCK;
        let stamp = if wall { completion.wall_clock_ns() } else { completion.timestamp() };
        assert!(stamp.is_some_and(|stamp| stamp > 0), "{completion:?}");
        count += 1;
    }
    assert_eq!(count, 2);
    assert_eq!(channel.event().unwrap().unwrap().cookie, 7);
    context.clock().unwrap();

    drop((a, b));
    drop(local);
    drop((poller, queue));
    drop(channel);
}

pub(crate) fn timestamps(library: &Library, setup: &Setup) {
    with_clock(library, setup, Fields::TIMESTAMP);
}

pub(crate) fn wall_clock(library: &Library, setup: &Setup) {
    with_clock(library, setup, Fields::WALL_CLOCK);
}

pub(crate) fn on_demand(library: &Library, setup: &Setup) {
    let context = opened(library);
    assert!(context.attributes().unwrap().on_demand_paging().general & 1 != 0);
    let pd = context.protection_domain().unwrap();
    let all = setup.memory(0, 64 << 10);
    let buffer = pd.adopt_memory(all, RegistrationFlags::ON_DEMAND).unwrap();
    buffer.advise(Advice::PrefetchWrite, true).unwrap();
    buffer.advise(Advice::Prefetch, false).unwrap();
    drop(buffer);
    let all = setup.memory(0, 64 << 10);
    let exposed = pd.expose_with(all, RemoteAccess::READ, RegistrationFlags::ON_DEMAND).unwrap();
    exposed.part(4096..12288).unwrap().advise(Advice::PrefetchPresent, true).unwrap();
}

pub(crate) fn relaxed_ordering(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let own = pd.adopt_memory(setup.memory(0, 4096), RegistrationFlags::RELAXED_ORDERING).unwrap();
    let exposed = setup.memory(4096, 8192);
    let exposed = pd.expose_with(exposed, RemoteAccess::all(), RegistrationFlags::RELAXED_ORDERING).unwrap();
    let huge = pd.adopt_memory(setup.memory(0, 4096), RegistrationFlags::HUGE_PAGES).unwrap();
    let from_zero =
        pd.expose_with(setup.memory(0, 4096), RemoteAccess::READ, RegistrationFlags::ZERO_BASED).unwrap();
    drop(from_zero);
    drop(huge);
    drop(exposed);
    drop(own);
}

pub(crate) fn dmabuf(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let access = RemoteAccess::READ | RemoteAccess::WRITE;
    let region = pd.register_dmabuf(setup.descriptor(), 4096, 8192, 0x7000, access).unwrap();
    assert_eq!((region.remote().addr(), region.len()), (0x7000, 8192));
}

pub(crate) fn device_memory(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let memory = context.device_memory(256, 3).unwrap();
    // SAFETY: nobody else uses these bytes.
    let bytes = unsafe { setup.bytes(16).as_mut() };
    memory.write_at(8, bytes).unwrap();
    let mut back = [0; 16];
    memory.read_at(8, &mut back).unwrap();
    assert_eq!(bytes, back);
    drop(memory.register(&pd, 64..192, RemoteAccess::READ).unwrap());
    drop(memory);
}

pub(crate) fn null_region(library: &Library, _: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    drop(pd.null_region().unwrap());
}

pub(crate) fn ports(library: &Library, _: &Setup) {
    let context = opened(library);
    for number in 1..=2 {
        assert_eq!(context.port(number).unwrap().number(), number);
    }
    assert!(!context.gid(2, 0).unwrap().is_zero());
    assert_eq!(context.pkey(2, 0).unwrap(), 0xffff);
}

pub(crate) fn second_port(library: &Library, _: &Setup) {
    let context = opened(library);
    let gid = context.gid(2, 0).unwrap();
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    let ends = ends(&pd, &queue, false, 2, RemoteAccess::empty());
    drop(pd.address_handle(&Path::global(2, Route::new(gid, 0).unwrap())).unwrap());
    drop(ends);
    drop(queue);
}

pub(crate) fn attributes(library: &Library, _: &Setup) {
    opened(library).attributes().unwrap();
}

pub(crate) fn moderation(library: &Library, _: &Setup) {
    let context = opened(library);
    let queue = context.completion_queue(64).vector(3).build().unwrap();
    queue.moderate(8, 50).unwrap();
    queue.resize(128).unwrap();
}

pub(crate) fn shared_receives(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(64 << 10).as_mut() }).unwrap();
    let queue = pd.shared_receive_queue(8).elements(2).build().unwrap();
    let (key, bytes) = local.split();
    let (one, other) = bytes.split_at_mut(512);
    let raw =
        [key.scatter(&mut one[256..320]).unwrap().as_raw(), key.scatter(&mut other[..32]).unwrap().as_raw()];
    let (mut first, mut both) = (raw, raw);
    // SAFETY: nothing is received into them.
    let (first, both) = unsafe { (into_place(&mut first[0]), into_places(&mut both)) };
    let (mut first, mut both) = (first, both);
    let mut requests = [ReceiveRequest::new(5, &mut first), ReceiveRequest::new(6, &mut both)];
    // SAFETY: the same.
    unsafe { queue.post_receives(&mut requests) }.unwrap();
    queue.set_limit(2).unwrap();
    drop(queue);
    drop(local);
}

/// As [`into_place`], of two.
///
/// # Safety
/// As of [`into_place`].
unsafe fn into_places(raw: &mut [sinew_verbs_sys::ibv_sge; 2]) -> [sinew_verbs::memory::Scatter<'_>; 2] {
    // SAFETY: elements are the ABI's, without more.
    unsafe { std::mem::transmute(*raw) }
}

fn requests(library: &Library, setup: &Setup, extended: bool) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(1024).as_mut() }).unwrap();
    let exposed = pd.expose(setup.memory(1024, 4096), RemoteAccess::all()).unwrap();
    let [mut a, mut b] = ends(&pd, &queue, extended, 1, RemoteAccess::all());

    let (key, bytes) = local.split();
    let (first, rest) = bytes.split_at_mut(64);
    let (second, rest) = rest.split_at_mut(64);
    let (third, rest) = rest.split_at_mut(128);
    let (one, other) = rest.split_at_mut(64);
    let (mut one, mut other) = ([key.scatter(one).unwrap()], [key.scatter(&mut other[..64]).unwrap()]);
    let mut receives = [ReceiveRequest::new(0x51, &mut one), ReceiveRequest::new(0x52, &mut other)];
    let message = [key.gather(&first[..16]).unwrap()];
    let both = [key.gather(&first[..16]).unwrap(), key.gather(&second[..16]).unwrap()];
    let mut raw = [both[0].as_raw(), both[1].as_raw()];
    let word = key.gather(&third[..8]).unwrap().as_raw();
    let (mut swapped, mut added) = (word, word);
    // SAFETY: requests are done one after the other, and this waits for their completions before their memory goes.
    let (mut places, mut swapped, mut added) =
        unsafe { (into_places(&mut raw), into_place(&mut swapped), into_place(&mut added)) };
    let remote = exposed.remote();
    let word = remote.slice(8, 8).unwrap();
    let mut batch = [
        SendRequest::send_with_immediate(3, &message, 0x0a0b_0c0d).solicited(),
        SendRequest::write(4, &both, remote).inline(),
        SendRequest::write_with_immediate(5, &message, remote, 0x0102_0304),
        SendRequest::read(6, &mut places, remote).fenced(),
        SendRequest::compare_swap(7, &mut swapped, word, 3, 4),
        SendRequest::fetch_add(8, &mut added, word, 5).signaled(),
    ];
    // SAFETY: as above.
    unsafe {
        b.post_receives(&mut receives).unwrap();
        a.post(&mut batch).unwrap();
    }
    poll(&queue, 3);

    drop(a);
    drop(b);
    drop(exposed);
    drop(local);
    drop(queue);
}

pub(crate) fn linked_requests(library: &Library, setup: &Setup) {
    requests(library, setup, false);
}

pub(crate) fn extended_requests(library: &Library, setup: &Setup) {
    requests(library, setup, true);
}

fn windows(library: &Library, setup: &Setup, extended: bool) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    let all = setup.memory(0, 64 << 10);
    let region = pd.expose_with(all, RemoteAccess::empty(), RegistrationFlags::WINDOW_BIND).unwrap();
    let [mut a, b] = ends(&pd, &queue, extended, 1, RemoteAccess::READ | RemoteAccess::WRITE);

    let one = pd.memory_window(WindowType::One).unwrap();
    // SAFETY: each request has ended, by its completion, before its window goes.
    unsafe { one.bind(&mut a, 1, true, &region, 256..768, RemoteAccess::READ) }.unwrap();
    poll(&queue, 1);
    let two = pd.memory_window(WindowType::Two).unwrap();
    // SAFETY: as above.
    unsafe { two.bind(&mut a, 2, true, &region, 1024..1088, RemoteAccess::WRITE) }.unwrap();
    poll(&queue, 1);
    // SAFETY: as above.
    unsafe { two.unbind(&mut a, 3, true) }.unwrap();
    poll(&queue, 1);

    drop(a);
    drop(b);
    drop(two);
    drop(one);
    drop(region);
    drop(queue);
}

pub(crate) fn linked_windows(library: &Library, setup: &Setup) {
    windows(library, setup, false);
}

pub(crate) fn extended_windows(library: &Library, setup: &Setup) {
    windows(library, setup, true);
}

pub(crate) fn rare_attributes(library: &Library, _: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    let ends = ends(&pd, &queue, true, 1, RemoteAccess::empty());
    let gid = context.gid(1, 0).unwrap();
    let route = Route { gid, gid_index: 0, hop_limit: 9, traffic_class: 0x20, flow_label: 0x12345 };
    let path = Path { port: 2, lid: 0x77, route: Some(route), service_level: 3, path_bits: 1 };
    let timeout = AckTimeout::from_code(15).unwrap();
    let alternate = Attributes::new().set_alternate_path(path, 1, timeout).set_migration(1);
    ends[0].modify(&alternate).unwrap();
    ends[0].modify(&Attributes::new().set_rate_limit_kbps(123_456)).unwrap();
    ends[0].modify(&Attributes::new().set_state(State::SQD).notify_drained()).unwrap();
    drop(ends);
    drop(queue);
}

pub(crate) fn tuning(library: &Library, _: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(128).build().unwrap();
    let ends = ends(&pd, &queue, false, 1, RemoteAccess::empty());
    let limit = RateLimit { rate_kbps: 500_000, burst_bytes_max: 65_536, packet_bytes_typical: 1024 };
    ends[0].set_rate_limit(limit).unwrap();
    for transfer in [Transfer::Send, Transfer::Write, Transfer::Read] {
        assert_eq!(ends[0].data_order(transfer), DataOrder::all());
    }
    let early = pd.queue_pair::<Rc>(&queue).extended(false).build_raw().unwrap();
    let own = early.extensions().unwrap();
    early.set_extensions(Extensions { options: 6, ..own }).unwrap();
    assert_eq!(early.extensions().unwrap().options, 2);
    drop(early);
    drop(ends);
    drop(queue);
}

pub(crate) fn thread_domain(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let thread = context.thread_domain().unwrap();
    // SAFETY: this thread alone uses what is made in it, and for it.
    let parent = unsafe { pd.for_thread(&thread) }.unwrap();
    drop(thread);
    // SAFETY: the same.
    let queue = unsafe { context.completion_queue(64).of_one_thread() }.build().unwrap();
    drop(parent.adopt_memory(setup.memory(0, 1024), RegistrationFlags::empty()).unwrap());
    drop(queue);
    // The last handles of the thread domain and of the plain one go with it.
    drop(pd);
    drop(parent);
}

fn extended_connection(library: &Library, setup: &Setup, extended: bool) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(128).build().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(1024).as_mut() }).unwrap();
    let domain = context.xrc_domain(None).unwrap();
    let receives = pd.shared_receive_queue(4).extended(&domain, &queue).build().unwrap();
    let number = receives.number().unwrap();
    let receiver = domain.receiver().port(1).gid_index(0).psn(psn()).remote_access(RemoteAccess::WRITE);
    let mut receiver = receiver.build().unwrap();
    let sender = pd.queue_pair::<XrcSend>(&queue).extended(extended).port(1).gid_index(0).psn(psn());
    let sender = sender.build().unwrap();
    receiver.connect(&sender.endpoint().unwrap()).unwrap();
    let mut sender =
        sender.connect(&receiver.endpoint().unwrap()).map_err(|(_, error)| error).expect("the way up");

    let (key, bytes) = local.split();
    let (sent, rest) = bytes.split_at_mut(256);
    let mut places = [key.scatter(&mut rest[..64]).unwrap()];
    let message = [key.gather(&sent[..16]).unwrap()];
    // SAFETY: all of this waits for the completions before its memory goes.
    unsafe {
        receives.post_receive(ReceiveRequest::new(0x51, &mut places)).unwrap();
        sender
            .post(&mut [SendRequest::send_with_immediate(1, &message, 9).to_queue(number).signaled()])
            .unwrap();
    }
    poll(&queue, 2);
    drop(sender);
    drop(receiver);
    drop(receives);
    drop(domain);
    drop(local);
    drop(queue);
}

pub(crate) fn linked_extended_connection(library: &Library, setup: &Setup) {
    extended_connection(library, setup, false);
}

pub(crate) fn extended_extended_connection(library: &Library, setup: &Setup) {
    extended_connection(library, setup, true);
}

pub(crate) fn raw_packets(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let queue = context.completion_queue(64).build().unwrap();
    // SAFETY: nobody else uses these bytes.
    let mut local = pd.borrow(unsafe { setup.bytes(1024).as_mut() }).unwrap();
    let made = pd.queue_pair::<RawPacket>(&queue).port(1).build().unwrap();
    let mut packets = made.activate().map_err(|(_, error)| error).unwrap();
    let (key, bytes) = local.split();
    let (sent, rest) = bytes.split_at_mut(256);
    let mut places = [key.scatter(&mut rest[..128]).unwrap()];
    // SAFETY: all of this waits for the completions before its memory goes.
    unsafe { packets.post_receives(&mut [ReceiveRequest::new(0x51, &mut places)]) }.unwrap();

    let ours = Ethernet {
        destination: Match::exactly([2, 0, 0, 0, 0, 9]),
        ether_type: Match::exactly(0x0800),
        ..Ethernet::default()
    };
    let to = Ipv4 { destination: Match::ipv4([10, 1, 2, 3].into()), ..Ipv4::default() };
    let port = Ports { destination: Match::exactly(4791), ..Ports::default() };
    let rule = FlowRule::new().priority(3).ethernet(ours).ipv4(to).udp(port);
    let from = Ipv6 {
        source: Match::ipv6(1.into()),
        flow_label: Match { value: 0x12345, mask: 0xf_ffff },
        next_header: Match::exactly(17),
        hop_limit: Match::exactly(1),
        ..Ipv6::default()
    };
    let frame = [key.gather(&sent[..60]).unwrap()];
    let flow = packets.steer(1, &rule).unwrap();
    let second = packets.steer(1, &FlowRule::new().copied().ipv6(from)).unwrap();
    let third = packets.steer(1, &FlowRule::sniffer()).unwrap();
    // SAFETY: as above.
    unsafe { packets.post(&mut [SendRequest::send(1, &frame).signaled()]) }.unwrap();
    poll(&queue, 2);
    packets.end_steering(third).unwrap();
    // The others end with the queue pair, in the order in which they were put in force.
    let _ = (flow, second);
    drop(packets);
    drop(local);
    drop(queue);
}

pub(crate) fn planted(library: &Library, setup: &Setup) {
    let context = opened(library);
    let pd = context.protection_domain().unwrap();
    let buffer = pd.adopt_memory(setup.memory(0, 4096), RegistrationFlags::empty()).unwrap();
    let memory = context.device_memory(64, 0).unwrap();
    memory.write_at(0, &[1, 2]).unwrap();
    drop(memory);
    drop(buffer);
}
