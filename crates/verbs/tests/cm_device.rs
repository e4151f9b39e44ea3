//! The connection manager on real devices: by address, both ends in this process.
//!
//! Needs an address of an RDMA device: `SINEW_VERBS_ADDRESS`, or the guest's.
#![allow(unsafe_code)]

#[path = "cm_device/event_loop.rs"]
mod event_loop;
#[path = "cm_device/members.rs"]
mod members;

use sinew_verbs::cm::{
    Acceptor, Address, ConnectError, Connection, ConnectionParameters, Connector, DatagramService, Ended,
    Event, EventChannel, Group, Id, NotDone, Notice, PortSpace, PrivateData, Progress, RouteResolved, Status,
    Waits,
};
use sinew_verbs::cq::CompletionQueue;
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Held, Hub, Member, Operation, Side};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Ud;
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::{QueuePair, QueuePairMut, Rc, ReceiveRequest, SendRequest};
use sinew_verbs::{Error, Library, ProtectionDomain};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Longest wait for anything; the guest has one processor.
const PATIENCE: Duration = Duration::from_secs(30);

/// The library and an address of a device, or the reason why the test is skipped.
fn place() -> Option<(Library, SocketAddr)> {
    let reason = match find() {
        Ok(found) => return Some(found),
        Err(reason) => reason,
    };
    assert!(!sinew_testing::is_required("rdma-cm"), "rdma cm is required here, but: {reason}");
    sinew_testing::record_skip("rdma-cm", module_path!(), &reason);
    None
}

fn find() -> Result<(Library, SocketAddr), String> {
    let library = Library::open().map_err(|error| error.to_string())?;
    let devices = library.devices().map_err(|error| error.to_string())?;
    if devices.is_empty() {
        return Err("this machine has no RDMA device".to_owned());
    }
    let address = std::env::var("SINEW_VERBS_ADDRESS").or_else(|_| std::env::var("SINEW_VM_ADDRESS"));
    let address = address.map_err(|_| "no address of a device is named by SINEW_VERBS_ADDRESS".to_owned())?;
    let address: IpAddr = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
    library.event_channel().map_err(|error| error.to_string())?;
    Ok((library, SocketAddr::new(address, 0)))
}

/// A queue pair with a buffer that a message arrives in.
struct Station {
    completions: CompletionQueue,
    place: Buffer,
    /// What has ended and was not waited for yet: its number and its length.
    ended: Vec<(u64, u32)>,
}

fn station(context: &Context) -> (Station, QueuePair<Rc>) {
    let domain = context.protection_domain().expect("a protection domain");
    let completions = context.completion_queue(64).build().expect("a completion queue");
    let pair = domain.queue_pair::<Rc>(&completions).build_raw().expect("a queue pair");
    let place = domain.allocate(64).expect("a buffer");
    (Station { completions, place, ended: Vec::new() }, pair)
}

impl Station {
    fn post_receive(&mut self, pair: &mut QueuePair<Rc>) {
        let mut list = [self.place.scatter().expect("a place")];
        // SAFETY: the place lives in the station, which every test keeps until the queue pair is gone or the receive has ended.
        unsafe { pair.post_receives(&mut [ReceiveRequest::new(1, &mut list)]) }.expect("a receive is posted");
    }

    /// Sends and waits for the acknowledgement.
    fn send(&mut self, mut pair: QueuePairMut<'_, Rc>, message: &[u8]) {
        let mut bytes = pair.protection_domain().allocate(64).expect("a buffer");
        bytes[..message.len()].copy_from_slice(message);
        let list = [bytes.gather(message.len()).expect("some bytes")];
        // SAFETY: the bytes live until the send has ended, which is waited for.
        unsafe { pair.post_one(SendRequest::send(2, &list).signaled()) }.expect("a send is posted");
        self.await_completion(2);
    }

    fn await_completion(&mut self, wr_id: u64) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        let mut poller = self.completions.poller(8);
        loop {
            for completion in &mut poller.poll().expect("completions") {
                completion.ok().expect("the request succeeds");
                self.ended.push((completion.wr_id(), completion.len().unwrap_or(0)));
            }
            if let Some(place) = self.ended.iter().position(|(number, _)| *number == wr_id) {
                return self.ended.swap_remove(place).1;
            }
            assert!(Instant::now() < deadline, "request {wr_id} does not end");
            std::thread::yield_now();
        }
    }

    fn await_message(&mut self) -> Vec<u8> {
        let len = self.await_completion(1);
        self.place[..len as usize].to_vec()
    }
}

fn listen(library: &Library, address: SocketAddr) -> (Acceptor, SocketAddr) {
    let acceptor = Acceptor::bind(library, address, 8).expect("a listener");
    let at = acceptor.address().expect("its address").and_then(|address| address.ip()).expect("one of IP");
    assert_ne!(at.port(), 0, "the listener has a port");
    (acceptor, at)
}

/// Two connected ends; the passive one first.
fn connected(library: &Library, acceptor: &Acceptor, at: SocketAddr) -> (Connection, Connection) {
    std::thread::scope(|scope| {
        let passive = scope.spawn(|| {
            let incoming = acceptor.accept(Some(PATIENCE)).expect("a request");
            let (_, pair) = station(incoming.context());
            incoming.accept(pair, &ConnectionParameters::new(), PATIENCE).expect("accepted")
        });
        let resolved = Connector::new(library).resolve(at, PATIENCE).expect("a device with a way there");
        let (_, pair) = station(resolved.context());
        let active = resolved.connect(pair, &ConnectionParameters::new(), PATIENCE).expect("connected");
        (passive.join().expect("the passive side"), active)
    })
}

/// A hub with a queue pair of its own that is not brought up, and its member.
fn hub_of(context: &Context) -> (Hub<Rc>, Member, ProtectionDomain) {
    let domain = context.protection_domain().expect("a domain");
    let mut hub = Hub::new(context, 64).expect("a hub");
    let pair = hub.queue_pair(&domain).build_raw().expect("a queue pair");
    let member = hub.adopt(pair).expect("it is taken in before it is connected");
    (hub, member, domain)
}

/// The next operation of a hub that ends, which succeeds.
fn next(hub: &mut Hub<Rc>) -> (Side, Buffer, Option<u32>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(ended) = hub.poll().expect("the device answers") {
            let (side, len) = (ended.side(), ended.result().expect("it succeeds").len);
            return (side, ended.into_buffer().expect("a buffer"), len);
        }
        assert!(Instant::now() < deadline, "nothing ends");
        std::thread::yield_now();
    }
}

#[test]
fn hubs_post_receives_before_their_queue_pairs_are_connected_and_nothing_is_unsafe() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let parameters = ConnectionParameters::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let incoming = acceptor.accept(Some(PATIENCE)).expect("a request");
            let (mut hub, member, domain) = hub_of(incoming.context());
            incoming.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
            hub.post_receive(member, domain.allocate(64).unwrap(), 1).expect("a receive is posted");
            // It cannot send yet, and gives the memory back.
            let early = hub.post(member, Operation::send(domain.allocate(8).unwrap())).unwrap_err();
            assert!(early.error.to_string().contains("not connected"), "{early}");
            let mut line = incoming.accept_member(&mut hub, member, &parameters, PATIENCE).expect("accepted");
            let (side, buffer, len) = next(&mut hub);
            assert_eq!((side, len, &buffer[..5]), (Side::Receive, Some(5), &b"first"[..]));
            hub.post(member, Operation::send(domain.adopt(b"second".to_vec()).unwrap()))
                .expect("it sends now");
            assert_eq!(next(&mut hub).0, Side::Send);
            assert_eq!(line.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
        });
        let resolved = Connector::new(&library).resolve(at, PATIENCE).expect("a device with a way there");
        let (mut hub, member, domain) = hub_of(resolved.context());
        resolved.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
        hub.post_receive(member, domain.allocate(64).unwrap(), 1).expect("a receive is posted");
        let line = resolved.connect_member(&mut hub, member, &parameters, PATIENCE).expect("connected");
        hub.post(member, Operation::send(domain.adopt(b"first".to_vec()).unwrap())).expect("it sends");
        let both = [next(&mut hub), next(&mut hub)];
        let (_, buffer, len) = both.iter().find(|(side, ..)| *side == Side::Receive).expect("a message");
        assert_eq!((*len, &buffer[..6]), (Some(6), &b"second"[..]));
        line.disconnect().expect("the peer is told");
        assert!(hub.remove(member).expect("it ends").is_empty());
    });
}

#[test]
fn a_member_that_nobody_answers_stays_with_its_memory() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let parameters = ConnectionParameters::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            acceptor.accept(Some(PATIENCE)).expect("a request").reject(b"no").expect("refused");
        });
        let resolved = Connector::new(&library).resolve(at, PATIENCE).expect("a device with a way there");
        let (mut hub, member, domain) = hub_of(resolved.context());
        resolved.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
        hub.post_receive(member, domain.allocate(64).unwrap(), 1).expect("a receive is posted");
        let refused = resolved.connect_member(&mut hub, member, &parameters, PATIENCE).unwrap_err();
        assert!(matches!(refused, ConnectError::Rejected { .. }), "{refused}");
        assert_eq!(hub.in_flight(member).unwrap(), (0, 1));
        assert_eq!(hub.remove(member).expect("it ends").len(), 1, "what was posted comes back");
    });
}

#[test]
fn private_data_goes_both_ways_and_receives_are_posted_before_the_peer_can_send() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let incoming = acceptor.accept(Some(PATIENCE)).expect("a request");
            assert!(incoming.private_data().starts_with(b"who is there"));
            assert!(incoming.attributes().expect("what it asks for").initiator_depth > 0);
            assert_eq!(incoming.peer().unwrap().unwrap().ip().unwrap().ip(), at.ip());
            let (mut station, mut pair) = station(incoming.context());
            let parameters = ConnectionParameters::new().private_data(b"me");
            incoming.initialize(&pair, &parameters).expect("INIT");
            station.post_receive(&mut pair);
            let mut connection = incoming.accept(pair, &parameters, PATIENCE).expect("accepted");
            assert_eq!(station.await_message(), b"first");
            station.send(connection.queue_pair_mut(), b"second");
            assert_eq!(connection.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
        });
        let resolved = Connector::new(&library).resolve(at, PATIENCE).expect("a device with a way there");
        let (mut station, mut pair) = station(resolved.context());
        let parameters = ConnectionParameters::new().private_data(b"who is there");
        resolved.initialize(&pair, &parameters).expect("INIT");
        station.post_receive(&mut pair);
        let mut connection = resolved.connect(pair, &parameters, PATIENCE).expect("connected");
        assert!(connection.private_data().starts_with(b"me"));
        station.send(connection.queue_pair_mut(), b"first");
        assert_eq!(station.await_message(), b"second");
        connection.disconnect().expect("disconnected");
        assert_eq!(connection.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
        connection.disconnect().expect("ending twice is no error");
    });
}

#[test]
fn a_rejected_connection_gets_the_reason_and_the_queue_pair_back() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    std::thread::scope(|scope| {
        scope.spawn(|| acceptor.accept(Some(PATIENCE)).expect("a request").reject(b"not today").unwrap());
        let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
        let (_, pair) = station(resolved.context());
        let number = pair.number();
        let not = resolved.connect(pair, &ConnectionParameters::new(), PATIENCE).unwrap_err();
        assert_eq!(not.back.number(), number);
        let ConnectError::Rejected { reason, private_data } = not.error else { panic!("{not:?}") };
        assert!(private_data.starts_with(b"not today"), "{private_data:?}");
        // Over iWARP it is the end of a TCP connection.
        assert!(reason == Status::REFUSED || reason.errno() == Some(libc::ECONNRESET), "{reason}");
    });
}

#[test]
fn a_request_that_is_dropped_is_refused() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(acceptor.accept(Some(PATIENCE)).expect("a request")));
        let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
        let (_, pair) = station(resolved.context());
        let not = resolved.connect(pair, &ConnectionParameters::new(), PATIENCE).unwrap_err();
        assert!(matches!(not.error, ConnectError::Rejected { .. }), "{not:?}");
    });
}

#[test]
fn where_nobody_listens_the_error_says_so() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    drop(acceptor);
    let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
    let (_, pair) = station(resolved.context());
    let not = resolved.connect(pair, &ConnectionParameters::new(), PATIENCE).unwrap_err();
    let ConnectError::Rejected { reason, .. } = not.error else { panic!("{not:?}") };
    assert!(reason == Status::NOBODY_LISTENS || reason.errno() == Some(libc::ECONNREFUSED), "{reason}");
}

#[test]
fn every_wait_ends_at_its_deadline() {
    let Some((library, address)) = place() else { return };
    let short = Duration::from_millis(300);
    let (acceptor, at) = listen(&library, address);
    assert!(matches!(acceptor.accept(Some(short)), Err(Error::TimedOut { .. })));
    // Nobody answers the request: it waits in the listener.
    let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
    let (_, pair) = station(resolved.context());
    let not = resolved.connect(pair, &ConnectionParameters::new(), short).unwrap_err();
    assert!(matches!(not.error, ConnectError::Failed(Error::TimedOut { .. })), "{not:?}");
    // Answered too late, it does not hang.
    if let Ok(incoming) = acceptor.accept(Some(PATIENCE)) {
        let (_, pair) = station(incoming.context());
        // Over iWARP the device may have said yes already.
        drop(incoming.accept(pair, &ConnectionParameters::new(), short));
    }
    // An address of a network that nobody is in (RFC 5737).
    let nowhere: SocketAddr = "192.0.2.1:7".parse().unwrap();
    Connector::new(&library).resolve(nowhere, short).unwrap_err();
}

/// A listener that has nobody's answer: over iWARP the kernel gives the peer up after 10 s, and until then keeps who asked.
#[test]
fn a_connect_that_nobody_answers_ends_at_its_deadline_and_one_that_is_dropped_keeps_nobody() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let short = Duration::from_millis(300);
    let (done, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let parameters = ConnectionParameters::new();
        let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
        let (_, pair) = station(resolved.context());
        let not = resolved.connect(pair, &parameters, short).unwrap_err();
        assert!(matches!(not.error, ConnectError::Failed(Error::TimedOut { .. })), "{not:?}");
        done.send("a blocking connect").unwrap();
        // In an event loop: what is dropped keeps neither who drops it nor the channel.
        let channel = library.event_channel().unwrap();
        let id = reach(&channel, &at.into());
        let (hub, member, _) = hub_of(id.context());
        let first = id.connect_member(&hub, member, &parameters).unwrap();
        let id = reach(&channel, &at.into());
        let (_, pair) = station(id.context());
        let second = id.connect(pair, &parameters).unwrap();
        drop(first);
        let pair = second.into_queue_pair();
        drop(reach(&channel, &at.into()));
        done.send("an event loop").unwrap();
        // The queue pairs themselves end when the kernel has let go.
        drop((not.back, pair, hub, channel));
        library
    });
    // Less than what the kernel waits for.
    for _ in 0..2 {
        ended.recv_timeout(Duration::from_secs(5)).expect("nobody waits for the peer");
    }
    drop(acceptor);
    assert_eq!(thread.join().unwrap().leaked_objects(), 0);
}

#[test]
fn a_listener_s_port_is_free_again_while_its_device_is_still_used() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let (passive, active) = connected(&library, &acceptor, at);
    let kept = passive.queue_pair().protection_domain().clone();
    drop((acceptor, passive, active));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = Acceptor::bind(&library, at, 1) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    kept.allocate(8).expect("the device is still open");
}

#[test]
fn all_connections_through_a_device_have_one_context_and_share_queues() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let (first, second) = (connected(&library, &acceptor, at), connected(&library, &acceptor, at));
    let context = |connection: &Connection| connection.queue_pair().protection_domain().context().clone();
    for connection in [&first.1, &second.0, &second.1] {
        assert!(context(&first.0).is(&context(connection)));
    }
}

#[test]
fn a_queue_pair_of_another_context_is_refused_before_anything_happens() {
    let Some((library, address)) = place() else { return };
    let (_acceptor, at) = listen(&library, address);
    let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
    let other = library.devices().unwrap().open(resolved.context().name()).unwrap();
    let (_, pair) = station(&other);
    let not = resolved.connect(pair, &ConnectionParameters::new(), PATIENCE).unwrap_err();
    assert!(matches!(not.error, ConnectError::Failed(Error::Invalid { .. })), "{not:?}");
    // siw says INIT of a queue pair that is in RESET.
    assert!([State::RESET, State::INIT].contains(&not.back.state().unwrap()));
}

#[test]
fn the_peer_sees_a_dropped_connection_end() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let (mut passive, active) = connected(&library, &acceptor, at);
    drop(active);
    assert_eq!(passive.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
}

#[test]
fn too_much_private_data_is_refused_with_the_limit() {
    let Some((library, address)) = place() else { return };
    let (_acceptor, at) = listen(&library, address);
    let resolved = Connector::new(&library).resolve(at, PATIENCE).unwrap();
    let (_, pair) = station(resolved.context());
    let much = vec![0; PrivateData::Connect.limit(PortSpace::TCP) + 1];
    let not = resolved.connect(pair, &ConnectionParameters::new().private_data(&much), PATIENCE).unwrap_err();
    assert!(not.error.to_string().contains("56"), "{}", not.error);
}

/// The next event of a channel that is no request.
fn notice(channel: &EventChannel) -> Notice {
    match channel.wait(Some(PATIENCE)).expect("events").expect("an event in time") {
        Event::Notice(notice) => notice,
        other => panic!("{other:?}"),
    }
}

/// What an identifier goes on as, by the next events of its channel.
fn next_state<W: Waits>(channel: &EventChannel, mut id: W) -> Result<W::Next, NotDone<W::Back>> {
    loop {
        match id.handle(notice(channel))? {
            Progress::Next(next) => return Ok(next),
            Progress::Same(same, _) => id = same,
        }
    }
}

fn reach(channel: &EventChannel, at: &Address) -> Id<RouteResolved> {
    let id = channel.id(PortSpace::TCP).unwrap().resolve_address(None, at, PATIENCE).unwrap();
    let id = next_state(channel, id).unwrap().resolve_route(PATIENCE).unwrap();
    next_state(channel, id).unwrap()
}

#[test]
fn r11_one_thread_drives_both_ends_from_one_channel_and_drops_in_any_order() {
    let Some((library, address)) = place() else { return };
    let channel = library.event_channel().unwrap();
    let listener = channel.id::<Rc>(PortSpace::TCP).unwrap().bind(address).unwrap().listen(4).unwrap();
    let at = listener.local_address().unwrap().unwrap();
    let active = reach(&channel, &at);
    let (_, pair) = station(active.context());
    let active = active.connect(pair, &ConnectionParameters::new().private_data(b"hello")).unwrap();
    let Some(Event::Request(mut request)) = channel.wait(Some(PATIENCE)).unwrap() else {
        panic!("no request")
    };
    assert_eq!(request.listener(), listener.number());
    assert!(request.private_data().starts_with(b"hello"));
    // The listener ends while the request is not answered; then the request, which refuses it.
    drop(listener);
    let own = library.event_channel().unwrap();
    request.migrate(&own).unwrap();
    drop(request);
    let not = next_state(&channel, active).unwrap_err();
    assert!(matches!(not.error, ConnectError::Rejected { .. }), "{not}");
    drop(not.back);
    assert!(channel.event().unwrap().is_none());
}

#[test]
fn a_datagram_s_address_is_looked_up_by_port() {
    let Some((library, address)) = place() else { return };
    let channel = library.event_channel().unwrap();
    let bound = channel.id::<Ud>(PortSpace::UDP).unwrap().bind(address).map_err(|not| not.error);
    let listener = match bound.and_then(|bound| bound.listen(4).map_err(|not| not.error)) {
        Ok(listener) => listener,
        Err(error) => {
            sinew_testing::record_skip(
                "datagrams",
                module_path!(),
                &format!("this device has none: {error}"),
            );
            return;
        }
    };
    let at = listener.local_address().unwrap().unwrap();
    let active = channel.id::<Ud>(PortSpace::UDP).unwrap().resolve_address(None, &at, PATIENCE).unwrap();
    let active = next_state(&channel, active).unwrap().resolve_route(PATIENCE).unwrap();
    let active = match next_state(&channel, active).unwrap().look_up(b"which one?") {
        Ok(active) => active,
        Err(not) => {
            // siw finds that out only now.
            sinew_testing::record_skip("datagrams", module_path!(), &format!("this device has none: {not}"));
            return;
        }
    };
    let Some(Event::Inquiry(inquiry)) = channel.wait(Some(PATIENCE)).unwrap() else { panic!("no inquiry") };
    assert_eq!(inquiry.listener(), listener.number());
    assert!(inquiry.private_data().starts_with(b"which one?"));
    let context = inquiry.context().clone();
    let pd = context.protection_domain().unwrap();
    let completions = context.completion_queue(64).build().unwrap();
    let stranger = pd.queue_pair::<Ud>(&completions).qkey(0x9999).build().unwrap().into_queue_pair();
    let inquiry = inquiry.answer(&stranger, b"").unwrap_err().back;
    let builder = inquiry.configure(pd.queue_pair::<Ud>(&completions)).unwrap();
    let pair = builder.build().unwrap().into_queue_pair();
    inquiry.answer(&pair, b"that").unwrap();
    let peer = next_state(&channel, active).unwrap();
    let found = peer.attributes();
    assert_eq!(found.qp_num, pair.number());
    assert!(found.path.route.is_some() || found.path.lid != 0);
    assert!(peer.private_data().starts_with(b"that"));
    peer.address_handle(&pd).unwrap();
}

#[test]
fn a_group_is_joined_and_left() {
    let Some((library, address)) = place() else { return };
    let channel = library.event_channel().unwrap();
    let id = channel.id::<Ud>(PortSpace::UDP).unwrap().bind(address).unwrap();
    let group = Address::from("239.77.0.1:0".parse::<SocketAddr>().unwrap());
    let joining = match id.join(&group) {
        Ok(joining) => joining,
        Err(not) => {
            sinew_testing::record_skip("multicast", module_path!(), &format!("this device has none: {not}"));
            return;
        }
    };
    let group = next_state(&channel, joining).unwrap();
    assert_eq!(group.attributes().qp_num, 0xff_ffff);
    drop(group);
    assert!(channel.event().unwrap().is_none());
}

/// The next operation of this side that ends well.
fn ended(hub: &mut Hub<Ud>, side: Side) -> Completed {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = hub.poll().expect("the device answers").filter(|ended| ended.side() == side);
        if let Some(ended) = ended {
            ended.result().expect("it succeeds");
            return ended.take();
        }
        assert!(Instant::now() < deadline, "nothing ends");
        std::thread::yield_now();
    }
}

/// The text of a datagram: what is behind the route.
fn text(received: &Completed) -> Vec<u8> {
    let len = received.result.unwrap().len.expect("a length") as usize;
    let Held::Buffer(buffer) = &received.held else { panic!("{received:?}") };
    buffer[40..len].to_vec()
}

#[test]
fn datagrams_reach_whom_an_address_names_and_are_answered() {
    let Some((library, address)) = place() else { return };
    let service = DatagramService::bind(&library, address, 8).expect("a listener");
    let at = service.address().unwrap().and_then(|address| address.ip()).expect("one of IP");
    let context = service.context().unwrap().expect("the device of the address");
    let pd = context.protection_domain().unwrap();
    let mut hub = Hub::<Ud>::new(&context, 64).unwrap();
    let builder = match service.configure(hub.queue_pair(&pd)) {
        Ok(builder) => builder,
        Err(error) => {
            sinew_testing::record_skip(
                "datagrams",
                module_path!(),
                &format!("this device has none: {error}"),
            );
            return;
        }
    };
    let member = hub.add(builder.build().unwrap()).unwrap();
    hub.activate(member).unwrap();
    hub.post_receive(member, pd.allocate(128).unwrap(), 0).unwrap();
    let stranger = hub.queue_pair(&pd).qkey(0x9999).build().unwrap().into_queue_pair();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| ask_and_send(&library, at));
        let refused = service.accept(Some(PATIENCE)).unwrap();
        assert!(refused.private_data().starts_with(b"please"));
        refused.reject().unwrap();
        let inquiry = service.accept(Some(PATIENCE)).unwrap();
        assert!(inquiry.context().is(&context) && inquiry.private_data().starts_with(b"who is it"));
        let error = inquiry.answer(&stranger, b"").unwrap_err();
        assert!(error.to_string().contains("queue key"), "{error}");
        let inquiry = error.back;
        inquiry.answer(hub.queue_pair_of(member).unwrap(), b"this one").unwrap();
        // Nothing stays of the inquiry, and datagrams come all the same.
        let port = context.choose_gid(None).unwrap().port;
        let received = answer_one(&mut hub, &pd, member, port);
        assert_eq!(text(&received), b"by address");
        asker.join().expect("the asker");
    });
    // Who asks where nobody is any more is told so.
    drop(service);
    let error = Connector::new(&library).look_up(at, b"", PATIENCE).unwrap_err();
    assert!(matches!(error, ConnectError::Rejected { reason: Status::NOBODY_LISTENS, .. }), "{error}");
}

/// Waits for a datagram, and answers it to who sent it.
fn answer_one(hub: &mut Hub<Ud>, pd: &sinew_verbs::ProtectionDomain, member: Member, port: u8) -> Completed {
    let deadline = Instant::now() + PATIENCE;
    let (received, back) = loop {
        assert!(Instant::now() < deadline, "nothing comes");
        let Some(ended) = hub.poll().expect("the device answers") else { continue };
        assert_eq!(ended.side(), Side::Receive);
        let back = ended.address_handle_to_sender(pd, port).expect("a way back");
        break (ended.take(), back);
    };
    let source = received.result.unwrap().source.expect("whose it is");
    let answer = Operation::send(pd.adopt(b"answer".to_vec()).unwrap()).to(&back, source, 0x0123_4567);
    hub.post(member, answer).unwrap();
    let sent = loop {
        assert!(Instant::now() < deadline, "nothing ends");
        if let Some(sent) = hub.poll().expect("the device answers") {
            break sent;
        }
    };
    assert!(sent.completion().is_some_and(|completion| completion.ok().is_ok()));
    let error = sent.address_handle_to_sender(pd, port).unwrap_err();
    assert!(error.to_string().contains("no received datagram"), "{error}");
    drop(sent);
    received
}

/// The asker: refused first, then answered; then it sends, and hears.
fn ask_and_send(library: &Library, at: SocketAddr) {
    let connector = Connector::new(library);
    let error = connector.look_up(at, b"please", PATIENCE).unwrap_err();
    assert!(matches!(error, ConnectError::Rejected { reason: Status::REFUSED, .. }), "{error}");
    let peer = connector.look_up(at, b"who is it", PATIENCE).expect("an answer");
    assert!(peer.private_data().starts_with(b"this one"), "{peer:?}");
    let pd = peer.context().protection_domain().unwrap();
    let mut hub = Hub::<Ud>::new(peer.context(), 64).unwrap();
    let member = hub.add(peer.configure(hub.queue_pair(&pd)).build().unwrap()).unwrap();
    hub.activate(member).unwrap();
    hub.post_receive(member, pd.allocate(128).unwrap(), 0).unwrap();
    let to = peer.address_handle(&pd).unwrap();
    let (qp_num, qkey) = (peer.attributes().qp_num, peer.attributes().qkey);
    let message = pd.adopt(b"by address".to_vec()).unwrap();
    hub.post(member, Operation::send(message).to(&to, qp_num, qkey)).unwrap();
    ended(&mut hub, Side::Send);
    assert_eq!(text(&ended(&mut hub, Side::Receive)), b"answer");
}

#[test]
fn a_group_s_messages_reach_all_that_are_in_it_and_nobody_else() {
    let Some((library, address)) = place() else { return };
    let group: SocketAddr = "239.77.0.2:0".parse().unwrap();
    let group = match Group::join(&library, address, group, PATIENCE) {
        Ok(group) => group,
        Err(error) => {
            sinew_testing::record_skip(
                "multicast",
                module_path!(),
                &format!("this device has none: {error}"),
            );
            return;
        }
    };
    let pd = group.context().protection_domain().unwrap();
    let mut hub = Hub::<Ud>::new(group.context(), 200).unwrap();
    let mut make = || -> Member {
        let member = hub.add(group.configure(hub.queue_pair(&pd)).build().unwrap()).unwrap();
        hub.activate(member).unwrap();
        hub.post_receive(member, pd.allocate(128).unwrap(), 0).unwrap();
        hub.post_receive(member, pd.allocate(128).unwrap(), 0).unwrap();
        member
    };
    let [sender, first, second, outside] = [(); 4].map(|()| make());
    for member in [first, second, second] {
        group.add(hub.queue_pair_of(member).unwrap()).unwrap();
    }
    let stranger = hub.queue_pair(&pd).qkey(0x9999).build().unwrap().into_queue_pair();
    assert!(group.add(&stranger).is_err(), "its queue key is another");
    assert!(group.remove(hub.queue_pair_of(outside).unwrap()).is_err(), "it is not in it");
    let to = group.address_handle(&pd).unwrap();
    let attributes = *group.attributes();
    let send = |hub: &mut Hub<Ud>, text: &[u8]| {
        let message = pd.adopt(text.to_vec()).unwrap();
        let send = Operation::send(message).to(&to, attributes.qp_num, attributes.qkey);
        hub.post(sender, send).unwrap();
    };
    send(&mut hub, b"to all");
    let mut heard: Vec<Member> = (0..2)
        .map(|_| {
            let received = ended(&mut hub, Side::Receive);
            assert_eq!(text(&received), b"to all");
            received.member
        })
        .collect();
    heard.sort_by_key(|member| *member == second);
    assert_eq!(heard, [first, second]);
    group.remove(hub.queue_pair_of(second).unwrap()).unwrap();
    send(&mut hub, b"to one");
    let received = ended(&mut hub, Side::Receive);
    assert_eq!((text(&received), received.member), (b"to one".to_vec(), first));
    assert_eq!(hub.in_flight(outside).unwrap().1, 2, "nothing came to who is in no group");
    assert_eq!(hub.in_flight(second).unwrap().1, 1, "nor to who left");
    // A queue pair leaves its groups before it ends; a device refuses to destroy one that is in any.
    let leaked = library.leaked_objects();
    hub.remove(first).unwrap();
    drop((hub, stranger, group));
    assert_eq!(library.leaked_objects(), leaked);
}
