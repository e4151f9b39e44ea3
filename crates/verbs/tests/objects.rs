//! Shared receive queues, address handles, asynchronous events, device memory, advice: on a real device.

#![allow(unsafe_code)]

mod common;

use common::next;
use sinew_verbs::ah::GLOBAL_ROUTE_LEN;
use sinew_verbs::cq::CompletionQueue;
use sinew_verbs::device::{AsyncEventType, Context, Element, LinkLayer};
use sinew_verbs::memory::{Advice, Memory, RegistrationFlags, RemoteAccess};
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::{Attributes, Path, ReceiveRequest, Route};
use sinew_verbs::srq::SharedReceiveQueue;
use sinew_verbs::work::Opcode;
use sinew_verbs::{Error, Result, sys};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const QKEY: u32 = 0x1234;

/// Says that a test of something that the device lacks is skipped; any other failure is one.
fn skip(what: &str, error: &Error) {
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    sinew_testing::record_skip(what, module_path!(), &error.to_string());
}

/// A datagram queue pair that takes its receives from a shared queue, made by hand.
struct Datagrams {
    qp: NonNull<sys::ibv_qp>,
    queue: SharedReceiveQueue,
    completions: CompletionQueue,
}

impl Datagrams {
    fn new(queue: &SharedReceiveQueue, port: u8) -> Result<Self> {
        let context = queue.context();
        let completions = context.completion_queue(32).build()?;
        let mut init = sys::ibv_qp_init_attr::zeroed();
        init.send_cq = completions.as_raw();
        init.recv_cq = completions.as_raw();
        init.srq = queue.as_raw();
        init.cap.max_send_wr = 8;
        init.cap.max_send_sge = 1;
        init.qp_type = sys::IbvQpType::UD;
        let pd = queue.protection_domain().as_raw();
        // SAFETY: domain, queues and attributes are alive.
        let qp = unsafe { (context.library().table().ibv_create_qp)(pd, &mut init) };
        let made = Self {
            qp: NonNull::new(qp).expect("a queue pair"),
            queue: queue.clone(),
            completions: completions.clone(),
        };
        let to_init =
            Attributes::new().set_state(State::INIT).set_pkey_index(0).set_port(port).set_qkey(QKEY);
        let to_send = Attributes::new().set_state(State::RTS).set_send_psn(Default::default());
        for step in [to_init, Attributes::new().set_state(State::RTR), to_send] {
            let mut raw = *step.as_raw();
            // SAFETY: the queue pair is alive, the attributes are a local.
            let answer = unsafe {
                (context.library().table().ibv_modify_qp)(qp, &mut raw, step.mask().bits().cast_signed())
            };
            assert_eq!(answer, 0, "{step:?}");
        }
        Ok(made)
    }

    fn number(&self) -> u32 {
        // SAFETY: the queue pair is alive.
        unsafe { (*self.qp.as_ptr()).qp_num }
    }

    /// Sends a datagram and waits until it is sent.
    fn send(&self, handle: *mut sys::ibv_ah, piece: sys::ibv_sge) {
        let mut piece = piece;
        let mut request = sys::ibv_send_wr::zeroed();
        request.wr_id = 77;
        request.sg_list = &mut piece;
        request.num_sge = 1;
        request.opcode = sys::IbvWrOpcode::SEND;
        request.send_flags = sys::IBV_SEND_SIGNALED;
        request.wr.ud = sys::ibv_send_wr_ud { ah: handle, remote_qpn: self.number(), remote_qkey: QKEY };
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair is alive; handle and memory outlive this test's wait for the completion.
        unsafe { sys::ibv_post_send(self.qp.as_ptr(), &mut request, &mut bad) }.expect("a place");
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // SAFETY: made by this value, destroyed once.
        let answer = unsafe { (self.queue.context().library().table().ibv_destroy_qp)(self.qp.as_ptr()) };
        assert!(answer == 0 || std::thread::panicking(), "ibv_destroy_qp: {answer}");
    }
}

fn own_path(context: &Context) -> Path {
    let choice = context.choose_gid(None).expect("a port");
    match choice.entry {
        Some(entry) => Path::global(choice.port, Route::new(entry.gid, entry.index).expect("a place")),
        None => Path::local(choice.port, context.port(choice.port).expect("the port").lid()),
    }
}

#[test]
fn datagrams_are_taken_from_a_shared_queue_answered_and_its_limit_is_told() {
    let Some(context) = common::device(module_path!()) else { return };
    let events = context.async_events().expect("a stream of events");
    while events.event().expect("the stream works").is_some() {}
    let pd = context.protection_domain().expect("a domain");
    let queue = match pd.shared_receive_queue(8).build() {
        Ok(queue) => queue,
        Err(error) => return skip("shared receive queues", &error),
    };
    assert!(queue.requests() >= 8 && queue.elements() >= 1);
    assert!(queue.attributes().expect("it answers").requests_max >= 8);
    assert!(matches!(queue.set_limit(queue.requests() + 1), Err(Error::Invalid { .. })));

    let mut buffer = pd.allocate(4096).expect("memory");
    let lkey = buffer.lkey();
    let path = own_path(&context);
    let datagrams = Datagrams::new(&queue, path.port).expect("a queue pair");
    let (receive, rest) = buffer.split_at_mut(1024);
    let (send, _) = rest.split_at_mut(64);
    send.copy_from_slice(&[9; 64]);
    let piece = sys::ibv_sge { addr: send.as_ptr() as u64, length: 64, lkey };
    // Three receives by one call; the pieces are named by hand, as the bytes are looked at while others are out.
    let mut pieces: Vec<_> = (0..3)
        .map(|index| sys::ibv_sge { addr: receive[index * 256..].as_ptr() as u64, length: 256, lkey })
        .collect();
    post(&queue, &mut pieces);
    queue.set_limit(2).expect("a limit");
    assert_eq!(queue.attributes().expect("it answers").limit, 2);
    assert!(events.wait(Some(Duration::ZERO)).expect("the stream works").is_none(), "nothing was taken yet");

    let handle = pd.address_handle(&path).expect("a handle of the own port");
    let mut received = Vec::new();
    for _ in 0..2 {
        datagrams.send(handle.as_raw(), piece);
        for _ in 0..2 {
            let completion = next(&datagrams.completions);
            completion.ok().expect("it succeeds");
            if completion.opcode() == Some(Opcode::RECEIVE) {
                received.push(completion);
            }
        }
    }
    let event = events.wait(Some(PATIENCE)).expect("the stream works").expect("an event in time");
    assert_eq!(event.event_type, AsyncEventType::SHARED_RECEIVE_QUEUE_LIMIT);
    assert_eq!(event.element, Element::SharedReceiveQueue(queue.id()));

    // Who sent is known from the completion and the route before the bytes.
    let first = received[0];
    assert_eq!((first.wr_id(), first.len()), (0, Some(64 + GLOBAL_ROUTE_LEN as u32)));
    assert_eq!(&receive[GLOBAL_ROUTE_LEN..GLOBAL_ROUTE_LEN + 64], [9; 64]);
    let route: &[u8; GLOBAL_ROUTE_LEN] = receive.first_chunk().expect("bytes");
    if first.has_global_route() {
        assert!(matches!(context.path_to_sender(path.port, &first, None), Err(Error::Invalid { .. })));
    }
    let back = context.path_to_sender(path.port, &first, Some(route)).expect("a way back");
    assert_eq!(back.route.map(|route| route.gid), path.route.map(|route| route.gid));
    let answer = pd.address_handle_to_sender(path.port, &first, Some(route)).expect("a handle");
    drop(handle);
    datagrams.send(answer.as_raw(), piece);
    for _ in 0..2 {
        next(&datagrams.completions).ok().expect("the answer arrives");
    }
    assert_eq!(context.library().leaked_objects(), 0);
}

/// Posts receives by one call, numbered from 0.
fn post(queue: &SharedReceiveQueue, pieces: &mut [sys::ibv_sge]) {
    let mut requests: Vec<_> = pieces
        .iter_mut()
        .enumerate()
        .map(|(index, piece)| sys::ibv_recv_wr {
            wr_id: index as u64,
            next: std::ptr::null_mut(),
            sg_list: piece,
            num_sge: 1,
        })
        .collect();
    // SAFETY: a request is the ABI's (transparent); the memory outlives the queue, and is looked at after its completion only.
    unsafe {
        let requests = std::slice::from_raw_parts_mut(
            requests.as_mut_ptr().cast::<ReceiveRequest<'_>>(),
            requests.len(),
        );
        queue.post_receives(requests).expect("places");
    }
}

#[test]
fn a_shared_queue_that_is_full_says_how_many_were_posted() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let queue = match pd.shared_receive_queue(4).build() {
        Ok(queue) => queue,
        Err(error) => return skip("shared receive queues", &error),
    };
    let room = queue.requests() as usize;
    let mut requests: Vec<_> = (0..room + 5).map(|n| ReceiveRequest::new(n as u64, &mut [])).collect();
    // SAFETY: they name no memory.
    let refused = unsafe { queue.post_receives(&mut requests) }.expect_err("it holds fewer");
    assert!(matches!(refused.error, Error::Full { .. }), "{refused}");
    assert!(refused.posted >= 4 && refused.posted < room + 5, "{refused}");
    // SAFETY: none.
    unsafe { queue.post_receives(&mut []) }.expect("nothing is posted");
}

#[test]
fn a_shared_queue_grows_where_the_device_can_and_says_so_where_it_cannot() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    for (requests, elements, limit) in [(0, 1, 0), (1, 0, 0), (4, 1, 5)] {
        let refused = pd.shared_receive_queue(requests).elements(elements).limit(limit).build();
        assert!(matches!(refused, Err(Error::Invalid { .. })));
    }
    let queue = match pd.shared_receive_queue(4).limit(1).build() {
        Ok(queue) => queue,
        Err(error) => return skip("shared receive queues", &error),
    };
    match queue.resize(64) {
        Ok(()) => {
            assert!(queue.requests() >= 64);
            assert!(queue.attributes().expect("it answers").requests_max >= 64);
        }
        Err(error) => skip("longer shared receive queues", &error),
    }
    assert!(matches!(queue.resize(0), Err(Error::Invalid { .. })));
}

#[test]
fn a_wait_for_events_ends_at_its_deadline_on_every_thread() {
    let Some(context) = common::device(module_path!()) else { return };
    let events = context.async_events().expect("a stream of events");
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let events = events.clone();
            std::thread::spawn(move || {
                let (start, wanted) = (Instant::now(), Duration::from_millis(30));
                // Whatever happens to the ports of the machine meanwhile is told to one of them.
                while events.wait(Some(wanted)).expect("the stream works").is_some() {}
                start.elapsed() >= wanted
            })
        })
        .collect();
    drop((events, context));
    assert!(waits.into_iter().all(|wait| wait.join().expect("no panic")));
}

#[test]
fn a_way_without_a_route_over_ethernet_is_named() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    let port = context.port(1).expect("a port");
    if port.link_layer() != LinkLayer::ETHERNET {
        return sinew_testing::record_skip("an Ethernet port", module_path!(), "the port is not Ethernet");
    }
    let error = pd.address_handle(&Path::local(1, 5)).expect_err("no route");
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("no route"), "{error}");
    assert!(matches!(pd.address_handle(&Path::local(0, 5)), Err(Error::Invalid { .. })));
}

#[test]
fn device_memory_is_copied_to_and_from_and_registered() {
    let Some(context) = common::device(module_path!()) else { return };
    let memory = match context.device_memory(256, 3) {
        Ok(memory) => memory,
        Err(error) => return skip("device memory", &error),
    };
    memory.write_at(8, &[7; 16]).expect("inside");
    let mut back = [0; 16];
    memory.read_at(8, &mut back).expect("inside");
    assert_eq!(back, [7; 16]);
    assert!(matches!(memory.write_at(250, &[0; 8]), Err(Error::Invalid { .. })));
    assert!(matches!(memory.read_at(usize::MAX, &mut back), Err(Error::Invalid { .. })));
    let pd = context.protection_domain().expect("a domain");
    let region = memory.register(&pd, 64..128, RemoteAccess::READ).expect("a region");
    // The region holds the memory.
    drop(memory);
    assert_eq!((region.len(), region.remote().addr()), (64, 0));
    drop(region);
    assert_eq!(context.library().leaked_objects(), 0);
}

#[test]
fn memory_that_is_paged_on_demand_is_brought_in_by_advice() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    if context.attributes().expect("it answers").on_demand_paging().general & 1 == 0 {
        return sinew_testing::record_skip("on-demand paging", module_path!(), "the device has none");
    }
    let memory = Memory::zeroed(1 << 16).expect("memory");
    let buffer = pd.adopt_memory(memory, RegistrationFlags::ON_DEMAND).expect("a registration");
    match buffer.advise(Advice::PrefetchWrite, true) {
        Ok(()) => buffer.advise(Advice::Prefetch, false).expect("the same again"),
        Err(error) => skip("advice about memory", &error),
    }
}

#[test]
fn nothing_is_memory_too() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().expect("a domain");
    match pd.null_region() {
        Ok(region) => assert!(region.part(0..4096).is_ok()),
        Err(error) => skip("memory that is nothing", &error),
    }
}

#[test]
fn a_thread_is_pinned_near_a_device_or_told_that_nobody_knows_where_it_is() {
    let Some(context) = common::device(module_path!()) else { return };
    // A thread of its own, as it stays pinned.
    let asked = std::thread::spawn(move || {
        let (node, pinned) = (context.numa_node(), context.pin_thread());
        assert!(node.is_some() || context.try_pin_thread().is_none());
        (node, pinned)
    });
    match asked.join().expect("no panic") {
        (Some(node), Ok(pinned)) => assert_eq!(pinned.node, node),
        (Some(node), Err(error)) => panic!("node {node}: {error}"),
        (None, Ok(pinned)) => panic!("nobody knows the node, and it is pinned: {pinned:?}"),
        (None, Err(error)) => skip("NUMA", &error),
    }
}
