//! Queue pairs by hand on a real device: options, states, what requests can be, and the handles that C has.
#![allow(unsafe_code, reason = "requests are posted by hand, and handles go out to C and come in again")]

mod common;
mod fake;

use sinew_verbs::cq::{CompletionChannel, CompletionQueue, WorkCompletion};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Hub, Member, Operation, Side};
use sinew_verbs::memory::{Buffer, Gather, Memory, RemoteAccess};
use sinew_verbs::qp::config::{AckTimeout, MinRnrTimer, Mtu, PacketSequenceNumber, RetryCount, RnrRetry};
use sinew_verbs::qp::state::{AttributeMask, State};
use sinew_verbs::qp::{
    Attributes, Connected, Path, QueuePair, QueuePairBuilder, Rc, ReceiveRequest, SendRequest, Uc, Ud,
};
use sinew_verbs::work::Opcode;
use sinew_verbs::{Error, ProtectionDomain, sys};
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two queue pairs, connected to each other, of one completion queue.
struct Ends<S: Connected> {
    pd: ProtectionDomain,
    completions: CompletionQueue,
    a: QueuePair<S>,
    b: QueuePair<S>,
}

impl<S: Connected> Ends<S> {
    fn new(
        context: &Context,
        events: Option<&CompletionChannel>,
        options: impl Fn(QueuePairBuilder<'_, S>) -> QueuePairBuilder<'_, S>,
    ) -> Self {
        let pd = context.protection_domain().unwrap();
        let mut completions = context.completion_queue(64);
        if let Some(events) = events {
            completions = completions.channel(events, 7);
        }
        let completions = completions.build().unwrap();
        let [a, b] = [(); 2].map(|()| options(pd.queue_pair(&completions)).build().unwrap());
        let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
        let a = a.connect(&to_b).map_err(|(_, error)| error).unwrap();
        let b = b.connect(&to_a).map_err(|(_, error)| error).unwrap();
        Self { pd, completions, a, b }
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        self.pd.adopt(bytes.to_vec()).unwrap()
    }

    /// Posts a send of `a`'s.
    fn send(&mut self, request: SendRequest<'_, S>) {
        // SAFETY: every test keeps what its requests name until their completions were polled or the queue pairs are gone.
        unsafe { self.a.post_one(request) }.unwrap();
    }

    /// Posts a receive of `b`'s.
    fn receive(&mut self, wr_id: u64, place: &mut Buffer) {
        let mut list = [place.scatter().unwrap()];
        // SAFETY: as for `send`.
        unsafe { self.b.post_receives(&mut [ReceiveRequest::new(wr_id, &mut list)]) }.unwrap();
    }

    /// So many completions, which must be good; by their numbers.
    fn ended(&self, count: usize) -> Vec<WorkCompletion> {
        let deadline = Instant::now() + PATIENCE;
        let mut ended = Vec::new();
        let mut poller = self.completions.poller(4);
        while ended.len() < count {
            for completion in poller.poll().unwrap() {
                completion.ok().unwrap();
                ended.push(*completion);
            }
            assert!(Instant::now() < deadline, "only {ended:?} ends");
            std::thread::yield_now();
        }
        ended.sort_by_key(WorkCompletion::wr_id);
        ended
    }
}

#[test]
fn a_queue_pair_has_the_options_that_it_was_made_with() {
    let Some(context) = common::device(module_path!()) else { return };
    let choice = context.choose_gid(None).unwrap();
    let ends: Ends<Rc> = Ends::new(&context, None, |builder| {
        let builder = builder
            .send_depth(33)
            .receive_depth(21)
            .send_elements(3)
            .receive_elements(2)
            .inline_capacity(96)
            .remote_access(RemoteAccess::READ | RemoteAccess::ATOMIC)
            .port(choice.port)
            .pkey_index(0)
            .mtu(Mtu::B512)
            .psn(PacketSequenceNumber::new(0x12_3456).unwrap())
            .traffic_class(104)
            .ack_timeout(AckTimeout::at_least(Duration::from_millis(1)).unwrap())
            .retries(RetryCount::new(5).unwrap())
            .rnr_retries(RnrRetry::limited(4).unwrap())
            .min_rnr_timer(MinRnrTimer::at_least(Duration::from_millis(5)).unwrap())
            .initiator_depth(2)
            .responder_resources(4);
        builder.service_level(2).unwrap().flow_label(0x54321).unwrap()
    });
    let depths = ends.a.depths();
    assert!(depths.send >= 33 && depths.receive >= 21 && depths.inline >= 96, "{depths:?}");
    assert!(depths.send_elements >= 3 && depths.receive_elements >= 2, "{depths:?}");
    for (qp, peer) in [(&ends.a, &ends.b), (&ends.b, &ends.a)] {
        let told = qp.query(AttributeMask::QUERY).unwrap();
        assert_eq!(told.state(), Some(State::RTS));
        assert_eq!(told.access(), Some(RemoteAccess::READ | RemoteAccess::ATOMIC));
        assert_eq!((told.port(), told.pkey_index()), (Some(choice.port), Some(0)));
        assert_eq!((told.mtu(), told.peer_qp_num()), (Some(Mtu::B512), Some(peer.number())));
        assert_eq!(told.receive_psn().unwrap().get(), 0x12_3456);
        // Powers of two, as rdma_rxe rounds up to them.
        assert_eq!((told.initiator_depth(), told.responder_resources()), (Some(2), Some(4)));
        // 4.096 µs · 2^8 = 1.05 ms; the next code of the table above 5 ms is 18, of 5.12 ms.
        assert_eq!(told.ack_timeout().unwrap().code(), 8);
        assert_eq!(told.min_rnr_timer().unwrap().code(), 18);
        assert_eq!((told.retries().unwrap().get(), told.rnr_retries().unwrap().code()), (5, 4));
        let path = told.path().unwrap();
        let route = path.route.expect("RoCE goes by a route");
        // RoCE has no service levels, and rdma_rxe forgets what it was told of them.
        assert_eq!(path.port, choice.port);
        // The hop limit is the kernel's over RoCE: that of its own route there.
        assert_eq!((route.traffic_class, route.flow_label), (104, 0x54321));
        let own = choice.entry.as_ref().unwrap();
        assert_eq!((u32::from(route.gid_index), route.gid), (own.index, own.gid));
    }
}

#[test]
fn more_than_a_device_has_is_refused_before_it_is_asked() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let completions = context.completion_queue(16).build().unwrap();
    let most = context.attributes().unwrap().requests_max();
    let made = || pd.queue_pair::<Rc>(&completions);
    // At least as many as were asked for.
    let entries = completions.entries();
    for (what, builder) in [
        ("deeper than the device", made().send_depth(most + 1)),
        ("more elements than the device", made().send_depth(1).receive_depth(1).send_elements(100_000)),
        ("no depth", made().send_depth(0).receive_depth(0)),
        ("deeper than the completion queue", made().send_depth(entries).receive_depth(1)),
        ("a GID that there is not", made().send_depth(1).receive_depth(1).gid_index(250)),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{what}: {error}");
    }
    assert!(made().service_level(16).is_err() && made().flow_label(1 << 20).is_err());
    made().send_depth(8).receive_depth(8).build().unwrap();
}

/// The way to a peer, by hand.
fn to_rtr(context: &Context, peer: u32) -> Attributes {
    let choice = context.choose_gid(None).unwrap();
    let endpoint = sinew_verbs::qp::Endpoint {
        qp_num: peer,
        lid: 0,
        gid: choice.entry.as_ref().map(|entry| entry.gid),
        psn: PacketSequenceNumber::default(),
        mtu: Mtu::B1024,
        responder_resources: 1,
    };
    Attributes::new()
        .set_state(State::RTR)
        .set_path(Path::to_endpoint(&endpoint, &choice).unwrap())
        .set_mtu(Mtu::B1024)
        .set_peer_qp_num(peer)
        .set_receive_psn(PacketSequenceNumber::default())
        .set_responder_resources(1)
        .set_min_rnr_timer(MinRnrTimer::DEFAULT)
}

#[test]
fn a_queue_pair_goes_from_state_to_state_by_hand_and_says_where_it_is() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let completions = context.completion_queue(64).build().unwrap();
    let qp = pd.queue_pair::<Rc>(&completions).build_raw().unwrap();
    let init = Attributes::new()
        .set_state(State::INIT)
        .set_pkey_index(0)
        .set_port(context.choose_gid(None).unwrap().port)
        .set_access(RemoteAccess::WRITE);
    let rts = Attributes::new()
        .set_state(State::RTS)
        .set_send_psn(PacketSequenceNumber::new(77).unwrap())
        .set_ack_timeout(AckTimeout::DEFAULT)
        .set_retries(RetryCount::DEFAULT)
        .set_rnr_retries(RnrRetry::Unlimited)
        .set_initiator_depth(1);
    for round in 0..2 {
        assert_eq!(qp.state().unwrap(), State::RESET, "round {round}");
        for (step, state) in
            [(init, State::INIT), (to_rtr(&context, qp.number()), State::RTR), (rts, State::RTS)]
        {
            qp.modify(&step).unwrap();
            assert_eq!(qp.state().unwrap(), state);
        }
        let told = qp.query(AttributeMask::QUERY).unwrap();
        assert_eq!((told.access(), told.peer_qp_num()), (Some(RemoteAccess::WRITE), Some(qp.number())));
        assert_eq!((told.send_psn().unwrap().get(), told.initiator_depth()), (77, Some(1)));
        // What can change while it works.
        qp.modify(&Attributes::new().set_state(State::RTS).set_access(RemoteAccess::READ)).unwrap();
        assert_eq!(qp.query(AttributeMask::ACCESS_FLAGS).unwrap().access(), Some(RemoteAccess::READ));
        qp.fail().unwrap();
        assert_eq!(qp.state().unwrap(), State::ERR);
        qp.modify(&Attributes::new().set_state(State::RESET)).unwrap();
    }
}

#[test]
fn a_refused_transition_says_what_is_missing_what_is_too_much_and_which_way_there_is() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let completions = context.completion_queue(64).build().unwrap();
    let qp = pd.queue_pair::<Rc>(&completions).build_raw().unwrap();
    let said = |attributes: &Attributes| match qp.modify(attributes) {
        Err(Error::Transition(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let skipped = said(&Attributes::new().set_state(State::RTS));
    assert!(!skipped.exists && skipped.to_string().contains("RESET, INIT, RTR, RTS"), "{skipped}");
    let missing = said(&Attributes::new().set_state(State::INIT).set_port(1).set_pkey_index(0));
    assert_eq!((missing.current, missing.next), (State::RESET, State::INIT));
    assert_eq!((missing.missing, missing.foreign), (AttributeMask::ACCESS_FLAGS, AttributeMask::empty()));
    let foreign = said(
        &Attributes::new()
            .set_state(State::INIT)
            .set_port(1)
            .set_pkey_index(0)
            .set_access(RemoteAccess::empty())
            .set_peer_qp_num(3),
    );
    assert_eq!((foreign.missing, foreign.foreign), (AttributeMask::empty(), AttributeMask::DEST_QPN));
    assert_eq!(foreign.errno, libc::EINVAL);
    assert!(foreign.to_string().contains("DEST_QPN"), "{foreign}");
}

#[test]
fn inline_bytes_are_taken_while_they_are_posted_from_several_pieces() {
    let Some(context) = common::device(module_path!()) else { return };
    let mut ends: Ends<Rc> =
        Ends::new(&context, None, |builder| builder.inline_capacity(64).send_elements(2));
    // Nobody registered these bytes: inline, nothing asks for their key.
    let mut bytes = *b"inline, from two pieces";
    let (first, second) = bytes.split_at(7);
    let piece = |bytes: &[u8]| {
        let sge = sys::ibv_sge { addr: bytes.as_ptr() as u64, length: bytes.len() as u32, lkey: 0 };
        // SAFETY: the bytes are there while the request is posted, which is as long as an inline request reads them.
        unsafe { Gather::from_raw(sge) }
    };
    let pieces = [piece(first), piece(second)];
    ends.send(SendRequest::send(1, &pieces).inline().signaled());
    bytes.fill(b'x');
    let mut place = ends.pd.allocate(64).unwrap();
    // There was no receive yet, so the message can be taken from its queue only.
    ends.receive(2, &mut place);
    let ended = ends.ended(2);
    assert_eq!(&place[..ended[1].len().unwrap() as usize], b"inline, from two pieces");
    assert!(bytes.iter().all(|byte| *byte == b'x'));
}

#[test]
fn a_list_of_receives_is_posted_by_one_call_and_an_empty_one_is_nothing() {
    let Some(context) = common::device(module_path!()) else { return };
    let mut ends: Ends<Rc> = Ends::new(&context, None, |builder| builder.receive_depth(8));
    // SAFETY: nothing is posted.
    unsafe { ends.b.post_receives(&mut []) }.unwrap();
    let mut places: Vec<_> = (0..8).map(|_| ends.pd.allocate(16).unwrap()).collect();
    let mut lists: Vec<_> = places.iter_mut().map(|place| [place.scatter().unwrap()]).collect();
    let mut requests: Vec<_> =
        lists.iter_mut().zip(10..).map(|(list, wr_id)| ReceiveRequest::new(wr_id, list)).collect();
    // SAFETY: the places live until all of them have arrived.
    unsafe { ends.b.post_receives(&mut requests) }.unwrap();
    drop(requests);
    drop(lists);
    let messages: Vec<_> = (0..8u8).map(|number| ends.buffer(&[number; 16])).collect();
    for (wr_id, message) in (0..).zip(&messages) {
        ends.send(SendRequest::send(wr_id, &[message.gather(16).unwrap()]).signaled());
    }
    let numbers: Vec<_> = ends.ended(16).iter().map(WorkCompletion::wr_id).collect();
    assert_eq!(numbers, (0..8).chain(10..18).collect::<Vec<_>>());
    for (number, place) in (0..).zip(&places) {
        assert_eq!(place[..], [number; 16], "messages take receives in their order");
    }
}

#[test]
fn one_that_waits_for_solicited_messages_is_not_woken_by_others() {
    let Some(context) = common::device(module_path!()) else { return };
    let events = context.completion_channel().unwrap();
    let mut ends: Ends<Rc> = Ends::new(&context, Some(&events), |builder| builder);
    let mut places = [(); 2].map(|()| ends.pd.allocate(8).unwrap());
    for (place, wr_id) in places.iter_mut().zip(10..) {
        ends.receive(wr_id, place);
    }
    let message = ends.buffer(b"a letter");
    let list = [message.gather(8).unwrap()];
    ends.completions.arm(true).unwrap();
    ends.send(SendRequest::send(1, &list).signaled());
    let ended = ends.ended(2);
    assert_eq!(ended[1].opcode(), Some(Opcode::RECEIVE));
    assert!(events.event().unwrap().is_none(), "nobody asked for this one");
    ends.send(SendRequest::send(2, &list).signaled().solicited());
    assert_eq!(events.wait(Some(PATIENCE)).unwrap().expect("the solicited one wakes").cookie, 7);
    ends.ended(2);
}

#[test]
fn a_fenced_message_is_of_what_the_read_before_it_brought() {
    const LEN: usize = 1 << 20;
    let Some(context) = common::device(module_path!()) else { return };
    let mut ends: Ends<Rc> = Ends::new(&context, None, |builder| builder.remote_access(RemoteAccess::READ));
    let exposed = ends.pd.expose(Memory::zeroed(LEN).unwrap(), RemoteAccess::READ).unwrap();
    exposed.write_at(0, &vec![5; LEN]).unwrap();
    let mut between = ends.pd.allocate(LEN).unwrap();
    let mut place = ends.pd.allocate(8).unwrap();
    ends.receive(3, &mut place);
    // The last bytes, which arrive last.
    let mut last = between.gather(LEN).unwrap().as_raw();
    (last.addr, last.length) = (last.addr + LEN as u64 - 8, 8);
    let mut whole = [between.scatter().unwrap()];
    let read = SendRequest::read(1, &mut whole, exposed.remote());
    // SAFETY: a part of the buffer, which lives until both requests have ended.
    let last = [unsafe { Gather::from_raw(last) }];
    let mut both = [read, SendRequest::send(2, &last).signaled().fenced()];
    // SAFETY: as above.
    unsafe { ends.a.post(&mut both) }.unwrap();
    ends.ended(2);
    assert_eq!(place[..], [5; 8]);
}

#[test]
fn several_reads_are_under_way_at_once_and_each_brings_its_own() {
    let Some(context) = common::device(module_path!()) else { return };
    let mut ends: Ends<Rc> = Ends::new(&context, None, |builder| builder.remote_access(RemoteAccess::READ));
    let most = context.attributes().unwrap();
    let most = most.initiator_depth_max().min(most.responder_resources_max()).min(16);
    assert!(most > 1, "the device takes more than one");
    let told = ends.a.query(AttributeMask::QUERY).unwrap();
    assert_eq!(told.initiator_depth().map(u32::from), Some(most), "as many as both can, up to 16");
    let exposed = ends.pd.expose(Memory::zeroed(16 * 512).unwrap(), RemoteAccess::READ).unwrap();
    for piece in 0..16 {
        exposed.write_at(piece * 512, &[piece as u8; 512]).unwrap();
    }
    let mut places: Vec<_> = (0..16).map(|_| ends.pd.allocate(512).unwrap()).collect();
    let mut lists: Vec<_> = places.iter_mut().map(|place| [place.scatter().unwrap()]).collect();
    let mut reads: Vec<_> = (0..)
        .zip(&mut lists)
        .map(|(piece, list)| {
            SendRequest::read(piece, list, exposed.remote().slice(piece * 512, 512).unwrap()).signaled()
        })
        .collect();
    // SAFETY: places and exposed memory live until all reads have ended.
    unsafe { ends.a.post(&mut reads) }.unwrap();
    drop(reads);
    drop(lists);
    assert_eq!(ends.ended(16).len(), 16);
    for (piece, place) in (0..).zip(&places) {
        assert_eq!(place[..], [piece; 512]);
    }
}

#[test]
fn one_channel_tells_of_many_queues_by_descriptor_and_cookie() {
    let Some(context) = common::device(module_path!()) else { return };
    let events = context.completion_channel().unwrap();
    let pd = context.protection_domain().unwrap();
    let mut hubs: Vec<Hub<Uc>> =
        (0..3).map(|cookie| Hub::with_channel(&context, 8, &events, cookie).unwrap()).collect();
    let members: Vec<Member> = hubs
        .iter_mut()
        .map(|hub| {
            let prepared = hub.queue_pair(&pd).send_depth(4).receive_depth(4).build().unwrap();
            let member = hub.add(prepared).unwrap();
            let own = hub.endpoint(member).unwrap();
            hub.connect(member, &own).unwrap();
            hub.arm(false).unwrap();
            member
        })
        .collect();
    let is_readable = |timeout_ms: i64| {
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: timeout_ms * 1_000_000 };
        let events = events.as_fd();
        let mut wanted = [rustix::event::PollFd::new(&events, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wanted, Some(&timeout)).unwrap() == 1
    };
    assert!(!is_readable(0) && events.event().unwrap().is_none());
    for place in [2, 0, 1] {
        hubs[place].post(members[place], Operation::send(pd.allocate(8).unwrap())).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !is_readable(100) {
            assert!(Instant::now() < deadline, "the descriptor stays quiet");
        }
        assert_eq!(events.event().unwrap().expect("an event").cookie, place as u64);
        assert!(hubs[place].poll().unwrap().is_some_and(|ended| ended.result().is_ok()));
    }
}

/// The next operation that ends.
fn next<S: sinew_verbs::qp::Service>(hub: &mut Hub<S>) -> Completed {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(completed) = hub.poll().unwrap() {
            return completed.take();
        }
        assert!(Instant::now() < deadline, "nothing ends");
    }
}

/// A message, a write and a write with a word, over connections of a service.
fn carries_messages_and_writes<S: sinew_verbs::qp::Writes + Connected>(context: &Context) {
    let pd = context.protection_domain().unwrap();
    let mut hub: Hub<S> = Hub::new(context, 64).unwrap();
    let [a, b] = [(); 2].map(|()| {
        let prepared = hub.queue_pair(&pd).remote_access(RemoteAccess::WRITE).build().unwrap();
        hub.add(prepared).unwrap()
    });
    let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
    hub.connect(a, &to_b).unwrap();
    hub.connect(b, &to_a).unwrap();
    let exposed = pd.expose(Memory::zeroed(16).unwrap(), RemoteAccess::WRITE).unwrap();
    for tag in 0..2 {
        hub.post_receive(b, pd.allocate(16).unwrap(), tag).unwrap();
    }
    let bytes = |fill: u8| pd.adopt(vec![fill; 8]).unwrap();
    hub.post(a, Operation::send_with_immediate(bytes(1), 0xabcd)).unwrap();
    hub.post(a, Operation::write(bytes(2), exposed.remote())).unwrap();
    let second = exposed.remote().slice(8, 8).unwrap();
    hub.post(a, Operation::write_with_immediate(bytes(3), second, 0xef01)).unwrap();
    let (mut sent, mut received) = (0, Vec::new());
    while sent < 3 || received.len() < 2 {
        let ended = next(&mut hub);
        let success = ended.result.unwrap();
        match ended.side {
            Side::Send => sent += 1,
            Side::Receive => received.push((ended.tag, success.len, success.immediate, ended.held)),
        }
    }
    let [(0, Some(8), Some(0xabcd), message), (1, Some(8), Some(0xef01), untouched)] =
        <[_; 2]>::try_from(received).unwrap()
    else {
        panic!("a message, then the word of a write")
    };
    assert_eq!(message.into_buffer().unwrap()[..8], [1; 8]);
    assert_eq!(untouched.into_buffer().unwrap()[..], [0; 16], "a write goes to the memory that it names");
    let mut seen = [0; 16];
    exposed.read_at(0, &mut seen).unwrap();
    assert_eq!(seen, [[2; 8], [3; 8]].concat()[..]);
}

#[test]
fn a_reliable_connection_carries_messages_writes_and_words() {
    let Some(context) = common::device(module_path!()) else { return };
    carries_messages_and_writes::<Rc>(&context);
}

#[test]
fn an_unreliable_connection_carries_messages_writes_and_words() {
    let Some(context) = common::device(module_path!()) else { return };
    carries_messages_and_writes::<Uc>(&context);
}

#[test]
fn raw_handles_go_out_to_c_and_come_in_again() {
    let Some(context) = common::device(module_path!()) else { return };
    let library = context.library();
    let table = library.table();
    // Out: C's functions take what is ours.
    let pd = context.protection_domain().unwrap();
    let completions = context.completion_queue(16).build().unwrap();
    let qp = pd.queue_pair::<Rc>(&completions).send_depth(8).receive_depth(8).build_raw().unwrap();
    let (mut attributes, mut made) = (sys::ibv_qp_attr::zeroed(), sys::ibv_qp_init_attr::zeroed());
    // SAFETY: all handles are alive, the places are locals.
    unsafe {
        assert_eq!((table.ibv_query_qp)(qp.as_raw(), &mut attributes, 1, &mut made), 0);
        assert_eq!((made.send_cq, made.recv_cq), (completions.as_raw(), completions.as_raw()));
        assert_eq!(((*qp.as_raw()).pd, (*qp.as_raw()).context), (pd.as_raw(), context.as_raw()));
        assert_eq!((*completions.as_raw()).context, context.as_raw());
    }
    let told = Attributes::from_raw(attributes, AttributeMask::STATE);
    assert_eq!(told.state(), Some(qp.state().unwrap()));
    // In: a domain that C allocated, on a device that somebody else keeps open.
    // SAFETY: the context is open.
    let raw = NonNull::new(unsafe { (table.ibv_alloc_pd)(context.as_raw()) }).unwrap();
    // SAFETY: our context is open as long as the keeper, its clone, is.
    let foreign = unsafe {
        Context::from_raw(library, NonNull::new(context.as_raw()).unwrap(), Arc::new(context.clone()))
    };
    assert_eq!(foreign.name(), context.name());
    assert!(!foreign.is(&context));
    // SAFETY: just allocated, and freed below, after everything of it.
    let adopted = unsafe { ProtectionDomain::from_raw(&foreign, raw) };
    let leaked = library.leaked_objects();
    let buffer = adopted.allocate(8).unwrap();
    drop((adopted, foreign));
    assert_eq!(buffer[..], [0; 8]);
    drop(buffer);
    // SAFETY: nothing of it is left, and the handle above has not freed it: the device would refuse here.
    assert_eq!(unsafe { (table.ibv_dealloc_pd)(raw.as_ptr()) }, 0);
    assert_eq!(library.leaked_objects(), leaked);
    context.attributes().unwrap();
}

#[test]
fn datagrams_go_by_local_identifier_within_a_subnet() {
    // No device of software is InfiniBand: this one is inside the process.
    let fake = fake::Fake::new();
    let mut hub = Hub::<Ud>::new(&fake.context, 64).unwrap();
    let [a, b] = [(); 2].map(|()| {
        let member = hub.add(hub.queue_pair(&fake.pd).qkey(5).build().unwrap()).unwrap();
        hub.activate(member).unwrap();
        member
    });
    let to_b = hub.endpoint(b).unwrap();
    assert_ne!(to_b.lid, 0, "a port of InfiniBand has one");
    let path = Path { service_level: 3, ..Path::local(1, to_b.lid) };
    let handle = fake.pd.address_handle(&path).unwrap();
    assert_eq!((handle.path().route.is_none(), handle.path().lid), (true, to_b.lid));
    hub.post_receive(b, fake.pd.allocate(64).unwrap(), 0).unwrap();
    let message = fake.pd.adopt(b"by LID".to_vec()).unwrap();
    hub.post(a, Operation::send(message).to(&handle, to_b.qp_num, 5)).unwrap();
    let mut received = next(&mut hub);
    while received.side == Side::Send {
        received = next(&mut hub);
    }
    let len = received.result.unwrap().len.unwrap() as usize;
    assert_eq!(&received.held.into_buffer().unwrap()[40..len], b"by LID");
    // Nobody has that one: the datagram is lost, and the sender does not hear of it.
    let nobody = fake.pd.address_handle(&Path::local(1, 0x7777)).unwrap();
    hub.post_receive(b, fake.pd.allocate(64).unwrap(), 0).unwrap();
    let message = fake.pd.adopt(b"lost".to_vec()).unwrap();
    hub.post(a, Operation::send(message).to(&nobody, to_b.qp_num, 5)).unwrap();
    assert!(next(&mut hub).result.is_ok());
    assert_eq!(hub.in_flight(b).unwrap().1, 1);
    drop((handle, nobody, hub));
    fake.finish();
}
