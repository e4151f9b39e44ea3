//! A hub on a real device: messages, remote memory, atomics, failures, the end.

mod common;

use sinew_verbs::hub::{Completed, Ended, Hub, Member, Operation, Pipe, Side, Verb};
use sinew_verbs::memory::{Memory, RemoteAccess};

use sinew_verbs::qp::config::{AckTimeout, MinRnrTimer, Mtu, PacketSequenceNumber, RetryCount, RnrRetry};
use sinew_verbs::qp::state::{AttributeMask, State};
use sinew_verbs::qp::{Attributes, Path, Rc, Route, Ud};
use sinew_verbs::work::Status;
use sinew_verbs::{ProtectionDomain, Result};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Two queue pairs of one hub, connected to each other.
struct Pair {
    hub: Hub<Rc>,
    pd: ProtectionDomain,
    a: Member,
    b: Member,
}

impl Pair {
    fn new(module: &str) -> Option<Self> {
        let context = common::device(module)?;
        Some(
            Self::connected(&context.protection_domain().expect("a protection domain"))
                .expect("two queue pairs"),
        )
    }

    fn connected(pd: &ProtectionDomain) -> Result<Self> {
        let mut hub = Hub::new(pd.context(), 64)?;
        let mut make = || {
            let prepared = hub
                .queue_pair(pd)
                .remote_access(RemoteAccess::all())
                .send_elements(4)
                .receive_elements(4)
                .inline_capacity(64)
                .build()?;
            hub.add(prepared)
        };
        let (a, b) = (make()?, make()?);
        let (to_a, to_b) = (hub.endpoint(a)?, hub.endpoint(b)?);
        hub.connect(a, &to_b)?;
        hub.connect(b, &to_a)?;
        Ok(Self { hub, pd: pd.clone(), a, b })
    }

    /// The next operation that ends.
    fn next(&mut self) -> Completed {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(completed) = self.hub.poll().expect("the device answers") {
                return completed.take();
            }
            assert!(Instant::now() < deadline, "nothing ends");
        }
    }

    /// The next two, the send first.
    fn next_two(&mut self) -> (Completed, Completed) {
        let (first, second) = (self.next(), self.next());
        if first.side == Side::Send { (first, second) } else { (second, first) }
    }
}

#[test]
fn a_message_arrives_with_its_length_and_its_word() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    let place = pair.pd.allocate(100).unwrap();
    pair.hub.post_receive(pair.b, place, 7).unwrap();
    let mut message = pair.pd.allocate(64).unwrap();
    message[..5].copy_from_slice(b"hello");
    let send = Operation::send_with_immediate(message, 0xdead_beef).len(5).tag(9);
    pair.hub.post(pair.a, send).unwrap();
    let (sent, received) = pair.next_two();
    assert_eq!((sent.tag, sent.result), (9, Ok(Default::default())));
    let success = received.result.unwrap();
    assert_eq!((received.tag, success.len, success.immediate), (7, Some(5), Some(0xdead_beef)));
    assert_eq!(&received.held.into_buffer().unwrap()[..5], b"hello");
    assert!(pair.hub.is_idle());
}

#[test]
fn a_message_is_gathered_from_several_buffers_and_scattered_into_several() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    let places = vec![pair.pd.allocate(3).unwrap(), pair.pd.allocate(10).unwrap()];
    pair.hub.post_receive(pair.b, places, 0).unwrap();
    let mut pieces = vec![pair.pd.allocate(2).unwrap(), pair.pd.allocate(4).unwrap()];
    pieces[0].copy_from_slice(b"ab");
    pieces[1].copy_from_slice(b"cdef");
    pair.hub.post(pair.a, Operation::send(pieces)).unwrap();
    let (_, received) = pair.next_two();
    let places = received.held.into_buffers();
    assert_eq!((&places[0][..], &places[1][..3]), (&b"abc"[..], &b"def"[..]));
}

#[test]
fn remote_memory_is_written_read_and_counted() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    let exposed = pair.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
    let remote = exposed.remote();
    let mut bytes = pair.pd.allocate(16).unwrap();
    bytes.copy_from_slice(&[7; 16]);
    pair.hub.post(pair.a, Operation::write(bytes, remote.slice(8, 16).unwrap())).unwrap();
    let bytes = pair.next().held.into_buffer().unwrap();
    let mut seen = [0; 32];
    exposed.read_at(0, &mut seen).unwrap();
    assert_eq!(seen, [[0; 8], [7; 8], [7; 8], [0; 8]].concat()[..]);
    exposed.write_at(0, &[9; 16]).unwrap();
    pair.hub.post(pair.a, Operation::read(bytes, remote.slice(0, 16).unwrap())).unwrap();
    let bytes = pair.next().held.into_buffer().unwrap();
    assert_eq!(bytes[..], [9; 16]);
    exposed.store(32, 40, Ordering::Release).unwrap();
    let word = remote.element::<u64>(4).unwrap();
    pair.hub.post(pair.a, Operation::fetch_add(bytes, word, 2)).unwrap();
    let bytes = pair.next().held.into_buffer().unwrap();
    assert_eq!(bytes[..8], 40u64.to_ne_bytes());
    pair.hub.post(pair.a, Operation::compare_swap(bytes, word, 42, 1)).unwrap();
    let bytes = pair.next().held.into_buffer().unwrap();
    assert_eq!(bytes[..8], 42u64.to_ne_bytes());
    assert_eq!(exposed.load(32, Ordering::Acquire).unwrap(), 1);
}

#[test]
fn a_batch_rings_once_and_unsignaled_operations_end_with_the_signaled_one() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    for tag in 0..16 {
        let place = pair.pd.allocate(8).unwrap();
        pair.hub.post_receive(pair.b, place, tag).unwrap();
    }
    let pd = pair.pd.clone();
    let mut batch = (0..20u64).map(|tag| {
        let mut buffer = pd.allocate(8).unwrap();
        buffer.copy_from_slice(&tag.to_ne_bytes());
        let send = Operation::send(buffer).tag(tag);
        if tag % 16 == 15 { send } else { send.unsignaled() }
    });
    assert_eq!(pair.hub.post_batch(pair.a, &mut batch).unwrap(), 16);
    assert_eq!(batch.count(), 4, "what did not fit stays in the iterator");
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for _ in 0..32 {
        let completed = pair.next();
        assert!(completed.result.is_ok());
        match completed.side {
            Side::Send => sent.push(completed.tag),
            Side::Receive => {
                received.push(completed.tag);
                assert_eq!(completed.held.into_buffer().unwrap()[..], completed.tag.to_ne_bytes());
            }
        }
    }
    assert_eq!(sent, (0..16).collect::<Vec<_>>());
    assert_eq!(received, (0..16).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_gives_the_memory_back() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    for tag in 0..16 {
        pair.hub.post_receive(pair.b, pair.pd.allocate(8).unwrap(), tag).unwrap();
    }
    let rejected = pair.hub.post_receive(pair.b, pair.pd.allocate(8).unwrap(), 16).unwrap_err();
    assert!(rejected.error.is_retryable(), "{rejected}");
    assert_eq!(rejected.operation.into_buffer().unwrap().len(), 8);
}

#[test]
fn a_wrong_key_is_a_remote_access_error_and_what_follows_is_flushed() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    let exposed = pair.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::READ).unwrap();
    let buffer = pair.pd.allocate(8).unwrap();
    pair.hub.post(pair.a, Operation::write(buffer, exposed.remote())).unwrap();
    let failed = pair.next();
    let error = failed.result.unwrap_err();
    assert_eq!(error.status, Status::REMOTE_ACCESS, "{error}");
    let buffer = failed.held.into_buffer().expect("the memory comes back");
    pair.hub.post(pair.a, Operation::send(buffer)).unwrap();
    assert_eq!(pair.next().result.unwrap_err().status, Status::FLUSHED);
}

#[test]
fn receives_that_are_out_come_back_when_their_queue_pair_is_removed_or_reset() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    for (member, tag) in [(pair.a, 0), (pair.b, 1), (pair.b, 2)] {
        pair.hub.post_receive(member, pair.pd.allocate(8).unwrap(), tag).unwrap();
    }
    assert_eq!(pair.hub.remove(pair.a).unwrap().len(), 1);
    assert!(pair.hub.remove(pair.a).is_err(), "a handle of what is gone");
    assert_eq!(pair.hub.reset(pair.b).unwrap().len(), 2);
    assert!(pair.hub.is_idle());
    let fresh = Pair::connected(&pair.pd).unwrap();
    drop(fresh);
}

#[test]
fn a_connection_is_made_anew_after_a_reset() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    for _ in 0..3 {
        pair.hub.post_receive(pair.b, pair.pd.allocate(8).unwrap(), 0).unwrap();
        pair.hub.post(pair.a, Operation::send(pair.pd.allocate(8).unwrap())).unwrap();
        let (sent, received) = pair.next_two();
        assert!(sent.result.is_ok() && received.result.is_ok());
        pair.hub.reset(pair.a).unwrap();
        pair.hub.reset(pair.b).unwrap();
        let (to_a, to_b) = (pair.hub.endpoint(pair.a).unwrap(), pair.hub.endpoint(pair.b).unwrap());
        pair.hub.connect(pair.a, &to_b).unwrap();
        pair.hub.connect(pair.b, &to_a).unwrap();
    }
}

#[test]
fn memory_of_another_domain_is_refused_before_the_device_sees_it() {
    let Some(mut pair) = Pair::new(module_path!()) else { return };
    let other = pair.pd.context().protection_domain().unwrap();
    let buffer = other.allocate(8).unwrap();
    let rejected = pair.hub.post(pair.a, Operation::send(buffer)).unwrap_err();
    assert!(rejected.error.to_string().contains("protection domain"), "{rejected}");
    let buffer = pair.pd.allocate(8).unwrap();
    assert!(pair.hub.post(pair.a, Operation::send(buffer).len(9)).is_err());
}

#[test]
fn a_datagram_reaches_whom_it_is_addressed_to_and_says_whose_it_is() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Ud>::new(&context, 64).unwrap();
    let mut make = || {
        let prepared = hub.queue_pair(&pd).qkey(0x77).build().unwrap();
        let member = hub.add(prepared).unwrap();
        hub.activate(member).unwrap();
        member
    };
    let (a, b) = (make(), make());
    let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
    hub.post_receive(b, pd.allocate(100).unwrap(), 1).unwrap();
    let lost = hub.post(a, Operation::send(pd.allocate(8).unwrap())).unwrap_err();
    assert!(lost.error.to_string().contains("to nobody"), "{lost}");
    let path = Path::to_endpoint(&to_b, &context.choose_gid(None).unwrap()).unwrap();
    let handle = pd.address_handle(&path).unwrap();
    let message = pd.adopt(b"datagram".to_vec()).unwrap();
    hub.post(a, Operation::send(message).to(&handle, to_b.qp_num, 0x77)).unwrap();
    drop(handle);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut received = None;
    while received.is_none() {
        assert!(Instant::now() < deadline, "nothing arrives");
        received = hub.poll().unwrap().map(Ended::take).filter(|completed| completed.side == Side::Receive);
    }
    let received = received.unwrap();
    let success = received.result.unwrap();
    assert_eq!((success.len, success.source), (Some(40 + 8), Some(to_a.qp_num)));
    assert_eq!(&received.held.into_buffer().unwrap()[40..48], b"datagram");
}

#[test]
fn a_pool_has_exactly_as_many_buffers_as_were_asked_for() {
    let Some(pair) = Pair::new(module_path!()) else { return };
    let pool = pair.pd.pool(5, 100).unwrap();
    assert_eq!((pool.count(), pool.available()), (5, 5));
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 5);
}

#[test]
fn shared_receives_serve_all_queue_pairs_and_say_whose_message_it_was() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub: Hub<Rc> = Hub::new(&context, 100).unwrap();
    assert!(hub.post_shared_receive(pd.allocate(8).unwrap(), 0).is_err(), "nothing is shared yet");
    hub.share_receives(&pd, 4, 1).unwrap();
    let mut members = Vec::new();
    for _ in 0..4 {
        let prepared = hub.queue_pair(&pd).build().unwrap();
        members.push(hub.add(prepared).unwrap());
    }
    assert!(hub.share_receives(&pd, 4, 1).is_err(), "twice");
    for (a, b) in [(0, 1), (2, 3)] {
        let (to_a, to_b) = (hub.endpoint(members[a]).unwrap(), hub.endpoint(members[b]).unwrap());
        hub.connect(members[a], &to_b).unwrap();
        hub.connect(members[b], &to_a).unwrap();
    }
    for tag in 0..4 {
        hub.post_shared_receive(pd.allocate(8).unwrap(), tag).unwrap();
    }
    let full = hub.post_shared_receive(pd.allocate(8).unwrap(), 4).unwrap_err();
    assert!(full.error.is_retryable() && full.operation.into_buffer().is_some(), "{}", full.error);
    for sender in [0, 3] {
        let mut send = pd.allocate(8).unwrap();
        send.fill(sender as u8);
        hub.post(members[sender], Operation::send(send)).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut received = Vec::new();
    let mut sent = 0;
    while received.len() < 2 || sent < 2 {
        assert!(Instant::now() < deadline, "nothing ends");
        let Some(completed) = hub.poll().unwrap().map(Ended::take) else { continue };
        completed.result.unwrap();
        match completed.side {
            Side::Send => sent += 1,
            Side::Receive => {
                let receiver = members.iter().position(|member| *member == completed.member).unwrap();
                received.push((receiver, completed.held.into_buffer().unwrap()[0]));
            }
        }
    }
    received.sort_unstable();
    assert_eq!(received, [(1, 0), (2, 3)]);
    // Two receives are still out; the hub ends its queue pairs, then the queue, then lets their memory go.
    assert!(!hub.is_idle());
    let leaked = context.library().leaked_objects();
    drop(hub);
    assert_eq!(context.library().leaked_objects(), leaked);
}

#[test]
fn queue_pairs_that_were_brought_up_by_hand_are_taken_in() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Rc>::new(&context, 64).unwrap();
    let qps = [(); 2].map(|()| hub.queue_pair(&pd).build_raw().unwrap());
    let choice = context.choose_gid(None).unwrap();
    let entry = choice.entry.as_ref().unwrap();
    for (own, peer) in [(0, 1), (1, 0)] {
        let (qp, peer) = (&qps[own], qps[peer].number());
        let error = qp.modify(&Attributes::new().set_state(State::RTR)).unwrap_err().to_string();
        assert!(error.contains("RESET, INIT, RTR, RTS"), "{error}");
        qp.modify(
            &Attributes::new()
                .set_state(State::INIT)
                .set_pkey_index(0)
                .set_port(choice.port)
                .set_access(RemoteAccess::empty()),
        )
        .unwrap();
        let path = Path::global(choice.port, Route::new(entry.gid, entry.index).unwrap());
        let ready = Attributes::new()
            .set_state(State::RTR)
            .set_path(path)
            .set_mtu(Mtu::B1024)
            .set_peer_qp_num(peer)
            .set_receive_psn(PacketSequenceNumber::default())
            .set_responder_resources(1)
            .set_min_rnr_timer(MinRnrTimer::DEFAULT);
        let error = qp
            .modify(&Attributes::from_raw(*ready.as_raw(), ready.mask() - AttributeMask::DEST_QPN))
            .unwrap_err();
        assert!(error.to_string().contains("missing DEST_QPN"), "{error}");
        qp.modify(&ready).unwrap();
        qp.modify(
            &Attributes::new()
                .set_state(State::RTS)
                .set_send_psn(PacketSequenceNumber::default())
                .set_ack_timeout(AckTimeout::DEFAULT)
                .set_retries(RetryCount::DEFAULT)
                .set_rnr_retries(RnrRetry::Unlimited)
                .set_initiator_depth(1),
        )
        .unwrap();
        assert_eq!(qp.state().unwrap(), State::RTS);
    }
    let [a, b] = qps.map(|qp| hub.adopt(qp).unwrap());
    assert!(hub.endpoint(a).is_err() && hub.reset(a).is_err(), "only who brought it up knows its way");
    let mut pair = Pair { hub, pd: pd.clone(), a, b };
    pair.hub.post_receive(b, pd.allocate(8).unwrap(), 0).unwrap();
    pair.hub.post(a, Operation::send(pd.allocate(8).unwrap())).unwrap();
    let (sent, received) = pair.next_two();
    assert!(sent.result.is_ok() && received.result.is_ok());
}

#[test]
fn a_peer_that_is_not_there_ends_a_send_when_its_retries_are_used_up() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Rc>::new(&context, 64).unwrap();
    let prepared = hub.queue_pair(&pd).ack_timeout(AckTimeout::from_code(10).unwrap()).build().unwrap();
    let a = hub.add(prepared).unwrap();
    let nobody = sinew_verbs::qp::Endpoint { qp_num: 0xff_fff0, ..hub.endpoint(a).unwrap() };
    hub.connect(a, &nobody).unwrap();
    let mut pair = Pair { hub, pd: pd.clone(), a, b: a };
    pair.hub.post(a, Operation::send(pd.allocate(8).unwrap())).unwrap();
    let error = pair.next().result.unwrap_err();
    assert_eq!(error.status, Status::RETRY_EXCEEDED, "{error}");
}

#[test]
fn nothing_is_sent_before_a_queue_pair_is_connected() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Rc>::new(&context, 64).unwrap();
    let a = hub.add(hub.queue_pair(&pd).build().unwrap()).unwrap();
    let rejected = hub.post(a, Operation::send(pd.allocate(8).unwrap())).unwrap_err();
    assert!(rejected.error.to_string().contains("not connected"), "{rejected}");
    assert_eq!(rejected.operation.into_held().into_buffer().unwrap().len(), 8);
    assert_eq!(hub.in_flight(a).unwrap(), (0, 0));
}

#[test]
fn a_queue_pair_in_reset_takes_neither_receives_nor_sends() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Rc>::new(&context, 64).unwrap();
    let a = hub.adopt(hub.queue_pair(&pd).build_raw().unwrap()).unwrap();
    assert_eq!(hub.refresh(a).unwrap(), State::RESET);
    let rejected = hub.post_receive(a, pd.allocate(8).unwrap(), 0).unwrap_err();
    assert!(rejected.error.to_string().contains("INIT"), "{rejected}");
    assert!(hub.post(a, Operation::send(pd.allocate(8).unwrap())).is_err());
    assert_eq!(hub.in_flight(a).unwrap(), (0, 0));
    let init = Attributes::new()
        .set_state(State::INIT)
        .set_pkey_index(0)
        .set_port(context.choose_gid(None).unwrap().port)
        .set_access(RemoteAccess::empty());
    hub.queue_pair_of(a).unwrap().modify(&init).unwrap();
    hub.post_receive(a, rejected.operation, 0).unwrap();
    assert_eq!(hub.in_flight(a).unwrap(), (0, 1));
    assert!(hub.post(a, Operation::send(pd.allocate(8).unwrap())).is_err(), "it sends from RTS on");
}

#[test]
fn a_pipe_sends_writes_and_reads_and_tells_of_what_fails() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    for extended in [true, false] {
        let make = || {
            Pipe::<Rc>::new(&pd, 32, 32, |qp| Ok(qp.extended(extended).remote_access(RemoteAccess::all())))
                .unwrap()
        };
        let (mut a, mut b) = (make(), make());
        for _ in 0..2 {
            round_of_pipes(&pd, &mut a, &mut b);
            // What the peer does not open ends it, until both are brought back.
            let gone = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
            a.post(pd.allocate(8).unwrap(), Verb::write(gone.remote())).unwrap();
            a.post(pd.allocate(8).unwrap(), Verb::send().unsignaled()).unwrap();
            let statuses = [Status::REMOTE_ACCESS, Status::FLUSHED];
            for status in statuses {
                let buffers = ended_of(&mut a, 1, Some(status));
                assert_eq!(buffers[0].len(), 8);
            }
            assert!(a.reset().unwrap().is_empty());
            drop(b.reset().unwrap());
        }
    }
}

/// Connects them; messages, a write and a read of a list, with one completion.
fn round_of_pipes(pd: &ProtectionDomain, a: &mut Pipe<Rc>, b: &mut Pipe<Rc>) {
    let region = pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::all()).unwrap();
    for _ in 0..16 {
        b.post_receive(pd.allocate(64).unwrap()).unwrap();
    }
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    a.connect(&to_b).unwrap();
    b.connect(&to_a).unwrap();
    let mut buffers: Vec<_> = (0..16).map(|_| pd.allocate(64).unwrap()).collect();
    for (place, buffer) in buffers.iter_mut().enumerate() {
        buffer.fill(place as u8);
    }
    let verb = |place| match place {
        13 => Verb::write(region.remote()).len(8),
        14 => Verb::read(region.remote()).fenced(),
        15 => Verb::send(),
        _ => Verb::send().unsignaled().len(1 + place as u32),
    };
    assert_eq!(a.post_all(&mut buffers, verb).unwrap(), 16);
    let back = ended_of(a, 16, None);
    assert_eq!((back[12][0], back[14][7], back[14][8]), (12, 13, 0), "in order; what was written was read");
    let deadline = Instant::now() + Duration::from_secs(20);
    for place in (0..13).chain([15]) {
        let received = loop {
            if let Some(received) = b.poll_received().unwrap() {
                break received;
            }
            assert!(Instant::now() < deadline, "nothing comes");
        };
        let len = if place == 15 { 64 } else { 1 + u32::from(place) };
        assert_eq!((received.buffer[0], received.result.unwrap().len), (place, Some(len)));
    }
    assert_eq!((a.is_idle(), b.in_flight(), a.strays() + b.strays()), (true, (0, 2), 0));
}

/// The next buffers of a pipe, all of which ended so.
fn ended_of(pipe: &mut Pipe<Rc>, count: usize, status: Option<Status>) -> Vec<sinew_verbs::memory::Buffer> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = Vec::new();
    while all.len() < count {
        let run = pipe.poll().unwrap();
        if run.len() > 0 {
            assert_eq!(run.result().err().map(|error| error.status), status);
        }
        run.append_to(&mut all);
        assert!(Instant::now() < deadline, "nothing ends");
    }
    assert_eq!(all.len(), count);
    all
}
