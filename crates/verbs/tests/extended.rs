//! Extended connections, raw packets and domains for one thread, on a device inside the process. Not seen on hardware: `tests/recorded` compares what is passed to a
//! device with what a program in C passes.
#![allow(unsafe_code, reason = "posts by hand, as all of this has no safe level")]

mod fake;

use fake::Fake;
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Hub, Pipe};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::qp::flow::{Ethernet, FlowRule, Match};
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::xrc::{XrcDomain, XrcReceiver};
use sinew_verbs::qp::{Attributes, QueuePair, RawPacket, Rc, ReceiveRequest, SendRequest, XrcSend};
use sinew_verbs::srq::SharedReceiveQueue;
use sinew_verbs::work::Status;
use sinew_verbs::{Error, ProtectionDomain};

/// What a queue tells, by number and status.
fn told(queue: &CompletionQueue) -> Vec<(u64, Result<(), Status>)> {
    let mut places = [WorkCompletion::EMPTY; 16];
    let count = queue.poll_into(&mut places).unwrap();
    let of = |completion: &WorkCompletion| {
        (completion.wr_id(), completion.ok().map(|_| ()).map_err(|error| error.status))
    };
    places[..count].iter().map(of).collect()
}

/// One connection to a process with two shared receive queues, each with a completion queue of its own.
struct Extended {
    domain: XrcDomain,
    receiver: XrcReceiver,
    sender: QueuePair<XrcSend>,
    sent: CompletionQueue,
    queues: [(SharedReceiveQueue, CompletionQueue); 2],
}

impl Extended {
    fn new(fake: &Fake, extended: bool) -> Self {
        let domain = fake.context.xrc_domain(None).unwrap();
        let mut receiver = domain.receiver().remote_access(RemoteAccess::all()).build().unwrap();
        let sent = fake.context.completion_queue(32).build().unwrap();
        let sender = fake.pd.queue_pair::<XrcSend>(&sent).extended(extended).build().unwrap();
        assert!(matches!(receiver.state(), Ok(State::INIT)));
        receiver.connect(&sender.endpoint().unwrap()).unwrap();
        assert!(matches!(receiver.state(), Ok(State::RTR)));
        let sender = sender.connect(&receiver.endpoint().unwrap()).map_err(|(_, error)| error).unwrap();
        let queues = [(); 2].map(|()| {
            let completions = fake.context.completion_queue(8).build().unwrap();
            let receives = fake.pd.shared_receive_queue(8).extended(&domain, &completions).build().unwrap();
            (receives, completions)
        });
        Self { domain, receiver, sender, sent, queues }
    }
}

/// Messages of three bytes, each to one of the two queues; what each queue got.
fn messages_go_to_the_queue_that_they_name(extended: bool) {
    let fake = Fake::new();
    let mut all = Extended::new(&fake, extended);
    let numbers = [0, 1].map(|at: usize| all.queues[at].0.number().unwrap());
    assert_ne!(numbers[0], numbers[1]);
    let mut bytes = *b"onetwo______";
    let mut region = fake.pd.borrow(&mut bytes).unwrap();
    let (key, parts) = region.split();
    let (sent, got) = parts.split_at_mut(6);
    let (first, second) = got.split_at_mut(3);
    let mut places = [[key.scatter(first).unwrap()], [key.scatter(second).unwrap()]];
    let messages = [[key.gather(&sent[..3]).unwrap()], [key.gather(&sent[3..]).unwrap()]];
    for (at, place) in places.iter_mut().enumerate() {
        // SAFETY: all of this ends, by its completion, before its memory goes, and nobody looks at it meanwhile.
        unsafe { all.queues[at].0.post_receive(ReceiveRequest::new(0x50 + at as u64, place)) }.unwrap();
    }
    let request =
        |at: usize| SendRequest::send(at as u64, &messages[at]).to_queue(numbers[1 - at]).signaled();
    // SAFETY: as above.
    unsafe { all.sender.post(&mut [request(1), request(0)]) }.unwrap();
    assert_eq!(told(&all.sent), [(1, Ok(())), (0, Ok(()))]);
    assert_eq!(told(&all.queues[0].1), [(0x50, Ok(()))]);
    assert_eq!(told(&all.queues[1].1), [(0x51, Ok(()))]);
    drop(region);
    assert_eq!(&bytes, b"onetwotwoone");
    drop(all);
    fake.finish();
}

#[test]
fn messages_of_an_extended_connection_go_to_the_queue_that_they_name() {
    messages_go_to_the_queue_that_they_name(true);
    messages_go_to_the_queue_that_they_name(false);
}

#[test]
fn words_writes_and_reads_go_by_an_extended_connection_too() {
    let fake = Fake::new();
    let mut all = Extended::new(&fake, true);
    let number = all.queues[1].0.number().unwrap();
    let exposed = fake.pd.expose(Memory::zeroed(16).unwrap(), RemoteAccess::all()).unwrap();
    let mut bytes = *b"written_________";
    let mut region = fake.pd.borrow(&mut bytes).unwrap();
    let (key, parts) = region.split();
    let (sent, got) = parts.split_at_mut(8);
    let (message, remote) = ([key.gather(sent).unwrap()], exposed.remote().slice(0, 8).unwrap());
    let mut place = [key.scatter(got).unwrap()];
    // SAFETY: all of this ends, by its completion, before its memory goes, and nobody looks at it meanwhile.
    unsafe { all.queues[1].0.post_receive(ReceiveRequest::new(7, &mut [])) }.unwrap();
    let mut requests = [
        SendRequest::write_with_immediate(1, &message, remote, 99).to_queue(number).signaled(),
        SendRequest::read(2, &mut place, remote).to_queue(number).signaled(),
    ];
    // SAFETY: as above.
    unsafe { all.sender.post(&mut requests) }.unwrap();
    assert_eq!(told(&all.sent), [(1, Ok(())), (2, Ok(()))]);
    let mut word = [WorkCompletion::EMPTY; 2];
    assert_eq!(all.queues[1].1.poll_into(&mut word).unwrap(), 1);
    assert_eq!((word[0].wr_id(), word[0].immediate()), (7, Some(99)));
    drop(region);
    assert_eq!(&bytes, b"written_written_");
    drop((all, exposed));
    fake.finish();
}

#[test]
fn a_queue_that_there_is_not_is_an_error_of_the_request() {
    let fake = Fake::new();
    for of_another_domain in [false, true] {
        let mut all = Extended::new(&fake, true);
        let other = Extended::new(&fake, true);
        let number = if of_another_domain { other.queues[0].0.number().unwrap() } else { 0 };
        // SAFETY: an empty message names no memory.
        unsafe { all.sender.post(&mut [SendRequest::send(3, &[]).to_queue(number).signaled()]) }.unwrap();
        assert_eq!(told(&all.sent), [(3, Err(Status::REMOTE_INVALID_REQUEST))]);
        assert!(matches!(all.sender.state(), Ok(State::ERR)));
    }
    fake.finish();
}

#[test]
fn parts_of_extended_connections_end_in_any_order() {
    let fake = Fake::new();
    let Extended { domain, receiver, sender, sent, queues: [one, two] } = Extended::new(&fake, true);
    drop(domain);
    drop(sent);
    drop(one);
    drop(sender);
    let (receives, completions) = two;
    drop(completions);
    drop(receiver);
    // It holds its domains and its completion queue.
    assert_eq!(fake.control.live().values().sum::<usize>(), 5, "{:?}", fake.control.live());
    drop(receives);
    fake.finish();
}

#[test]
fn what_extended_connections_do_not_have_is_refused_with_a_remedy() {
    let fake = Fake::new();
    let mut all = Extended::new(&fake, true);
    let receives = &all.queues[0].0;
    let refused = |error: Error, part: &str| {
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let plain = fake.pd.queue_pair::<Rc>(&all.sent).shared_receive_queue(receives).build().unwrap_err();
    refused(plain, "plain one");
    let plain = fake.pd.shared_receive_queue(4).build().unwrap();
    assert!(!plain.is_extended() && receives.is_extended());
    let sender = fake.pd.queue_pair::<XrcSend>(&all.sent).shared_receive_queue(&plain).build().unwrap_err();
    refused(sender, "to_queue");
    refused(receives.resize(9).unwrap_err(), "completion queue");
    // Shorter, and as long as it was made.
    receives.resize(7).unwrap();
    receives.resize(8).unwrap();
    assert_eq!(receives.requests(), 8);
    let short = fake.context.completion_queue(4).build().unwrap();
    let room = fake.pd.shared_receive_queue(5).extended(&all.domain, &short).build().unwrap_err();
    refused(room, "longer");
    let mut hub = Hub::<XrcSend>::new(&fake.context, 16).unwrap();
    let prepared = hub.queue_pair(&fake.pd).build().unwrap();
    refused(hub.add(prepared).unwrap_err(), "by hand");
    for extended in [true, false] {
        let pipe = Pipe::<XrcSend>::new(&fake.pd, 8, 0, |qp| Ok(qp.extended(extended)));
        refused(pipe.map(drop).unwrap_err(), "by hand");
    }
    let other = Fake::new();
    let domain = other.context.xrc_domain(None).unwrap();
    let mixed = fake.pd.shared_receive_queue(4).extended(&domain, &short).build().unwrap_err();
    refused(mixed, "one context");
    let own = all.receiver.endpoint().unwrap();
    let again = all.receiver.connect(&own).unwrap_err();
    assert!(matches!(again, Error::Transition(_)), "{again}");
    all.receiver.modify(&Attributes::new().set_state(State::ERR)).unwrap();
    drop((hub, plain, short, all, domain));
    fake.finish();
    other.finish();
}

#[test]
fn a_device_without_extended_calls_says_that_it_cannot() {
    let fake = Fake::with(sinew_verbs_fake::DeviceOptions::legacy(0));
    let queue = fake.context.completion_queue(32).build().unwrap();
    let packets = fake.pd.queue_pair::<RawPacket>(&queue).build().unwrap();
    let refusals = [
        fake.context.xrc_domain(None).err(),
        fake.context.thread_domain().err(),
        // SAFETY: it is not made.
        unsafe { fake.context.completion_queue(8).of_one_thread() }.build().err(),
        packets.activate().map_err(|(_, error)| error).unwrap().steer(1, &FlowRule::new()).err(),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Some(Error::Unsupported { .. })), "{refusal:?}");
    }
    drop(queue);
    fake.finish();
}

fn packets(pd: &ProtectionDomain, queue: &CompletionQueue) -> QueuePair<RawPacket> {
    let prepared = pd.queue_pair::<RawPacket>(queue).build().unwrap();
    let packets = prepared.activate().map_err(|(_, error)| error).unwrap();
    assert!(matches!(packets.state(), Ok(State::RTS)));
    packets
}

fn to(destination: [u8; 6]) -> FlowRule {
    FlowRule::new().ethernet(Ethernet { destination: Match::exactly(destination), ..Ethernet::default() })
}

#[test]
fn frames_go_where_a_rule_steers_them_as_long_as_it_is_in_force() {
    let fake = Fake::new();
    let queues = [(); 3].map(|()| fake.context.completion_queue(64).build().unwrap());
    let [mut sender, mut one, mut two] = [0, 1, 2].map(|at| packets(&fake.pd, &queues[at]));
    let mut bytes = [0; 60 + 4 * 60];
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    let mut region = fake.pd.borrow(&mut bytes).unwrap();
    let (key, parts) = region.split();
    let (frame, rest) = parts.split_at_mut(60);
    for (number, place) in (0..).zip(rest.chunks_exact_mut(60)) {
        let taking = if number % 2 == 0 { &mut one } else { &mut two };
        // SAFETY: what is posted ends, by its completion or with its queue pair, before its memory goes.
        unsafe {
            taking.post_receives(&mut [ReceiveRequest::new(number, &mut [key.scatter(place).unwrap()])])
        }
        .unwrap();
    }
    let frame = [key.gather(frame).unwrap()];
    let mut send = || {
        // SAFETY: as above.
        unsafe { sender.post(&mut [SendRequest::send(9, &frame).signaled()]) }.unwrap();
        assert_eq!(told(&queues[0]), [(9, Ok(()))]);
        [told(&queues[1]), told(&queues[2])]
    };
    assert_eq!(send(), [vec![], vec![]], "no rule is in force");
    let others = two.steer(1, &FlowRule::everything_else()).unwrap();
    let mine = one.steer(1, &to([2, 0, 0, 0, 0, 1])).unwrap();
    let foreign = two.steer(1, &to([2, 0, 0, 0, 0, 2])).unwrap();
    assert_eq!(send(), [vec![(0, Ok(()))], vec![]]);
    one.end_steering(mine).unwrap();
    assert_eq!(send(), [vec![], vec![(1, Ok(()))]], "it fits no other rule");
    assert!(matches!(one.end_steering(mine).unwrap_err(), Error::Invalid { .. }));
    // Each has the second rule of its queue pair.
    let second = one.steer(1, &to([2, 0, 0, 0, 0, 3])).unwrap();
    assert!(matches!(one.end_steering(foreign).unwrap_err(), Error::Invalid { .. }));
    one.end_steering(second).unwrap();
    two.end_steering(others).unwrap();
    assert_eq!(send(), [vec![], vec![]]);
    // The rule that is left ends with its queue pair.
    drop((sender, one, two));
    drop(region);
    assert_eq!(bytes[60..66], [2, 0, 0, 0, 0, 1]);
    drop(queues);
    fake.finish();
}

#[test]
fn a_queue_pair_of_raw_packets_sends_frames_and_nothing_else() {
    let fake = Fake::new();
    let queue = fake.context.completion_queue(32).build().unwrap();
    let mut packets = packets(&fake.pd, &queue);
    // SAFETY: it is refused.
    let refused = unsafe { packets.post(&mut [SendRequest::send_with_immediate(1, &[], 5)]) }.unwrap_err();
    assert!(matches!(refused.error, Error::Unsupported { .. }), "{refused}");
    assert_eq!(refused.posted, 0);
    drop((packets, queue));
    fake.finish();
}

fn for_this_thread(context: &Context, pd: &ProtectionDomain) -> ProtectionDomain {
    let thread = context.thread_domain().unwrap();
    // SAFETY: this thread alone uses what is made in it.
    unsafe { pd.for_thread(&thread) }.unwrap()
}

#[test]
fn a_domain_for_one_thread_is_a_domain_that_holds_what_it_is_made_of() {
    let fake = Fake::new();
    let Fake { control, library, context, pd } = fake;
    let parent = for_this_thread(&context, &pd);
    drop(pd);
    let mut hub = Hub::<Rc>::new(&context, 64).unwrap();
    let (prepared, peer) =
        (hub.queue_pair(&parent).build().unwrap(), hub.queue_pair(&parent).build().unwrap());
    let (a, b) = (hub.add(prepared).unwrap(), hub.add(peer).unwrap());
    let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
    hub.connect(a, &to_b).unwrap();
    hub.connect(b, &to_a).unwrap();
    hub.post_receive(b, parent.allocate(8).unwrap(), 0).unwrap();
    hub.post(a, sinew_verbs::hub::Operation::send(parent.adopt(vec![5; 8]).unwrap())).unwrap();
    let mut ended = 0;
    while let Some(completed) = hub.poll().unwrap() {
        assert!(completed.take().result.is_ok());
        ended += 1;
    }
    assert_eq!(ended, 2);
    drop(parent);
    drop(hub);
    let other = Fake::new();
    let thread = other.context.thread_domain().unwrap();
    let pd = context.protection_domain().unwrap();
    // SAFETY: it is not made.
    let mixed = unsafe { pd.for_thread(&thread) }.unwrap_err();
    assert!(matches!(mixed, Error::Invalid { .. }), "{mixed}");
    drop(thread);
    other.finish();
    Fake { control, library, context, pd }.finish();
}

#[test]
fn a_queue_of_one_thread_tells_what_any_queue_tells() {
    let fake = Fake::new();
    // SAFETY: this thread alone uses it.
    let queue = unsafe { fake.context.completion_queue(32).of_one_thread() }.build().unwrap();
    assert!(queue.as_raw_extended().is_some());
    let mut packets = packets(&fake.pd, &queue);
    // SAFETY: an empty frame names no memory.
    unsafe { packets.post(&mut [SendRequest::send(4, &[]).signaled()]) }.unwrap();
    assert_eq!(told(&queue), [(4, Ok(()))]);
    drop((packets, queue));
    fake.finish();
}
