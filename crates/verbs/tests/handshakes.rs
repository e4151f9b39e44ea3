//! Handshakes that a device refuses in the middle: what was connected stays so, and another call goes on from there.

mod fake;

use fake::Fake;
use sinew_verbs::channel::{Channel, PreparedChannel};
use sinew_verbs::multi_channel::{MultiChannel, PreparedMultiChannel};
use sinew_verbs::network::{Introduction, Node};
use sinew_verbs::qp::state::State;
use sinew_verbs::qp::{Endpoint, Rc};
use sinew_verbs::{Error, Hub};
use sinew_verbs_fake::{Call, Refusal};
use std::time::Duration;

const PEERS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// Channels to some peers, not connected, and the peers with their endpoints.
struct Star {
    hub: PreparedMultiChannel,
    peers: Vec<PreparedChannel>,
    to_peers: Vec<Endpoint>,
}

impl Star {
    fn new(fake: &Fake) -> Self {
        let hub = MultiChannel::builder(&fake.pd, PEERS).build().unwrap();
        let peers: Vec<_> = (0..PEERS).map(|_| Channel::builder(&fake.pd).build().unwrap()).collect();
        let to_peers = peers.iter().map(|peer| peer.endpoint().unwrap()).collect();
        Self { hub, peers, to_peers }
    }
}

/// Connects the peers to these endpoints, and sends each of them a message of its own.
fn all_hear(fake: &Fake, mut hub: MultiChannel, peers: Vec<PreparedChannel>, to_hub: &[Endpoint]) {
    assert_eq!(peers.len(), to_hub.len());
    let mut peers: Vec<_> = peers
        .into_iter()
        .zip(to_hub)
        .map(|(peer, to_hub)| peer.handshake(to_hub).map_err(|(_, error)| error).unwrap())
        .collect();
    for (number, peer) in (0..).zip(&mut peers) {
        let receive = peer.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
        let message = fake.pd.adopt(vec![number as u8; 4]).unwrap();
        hub.send(number, message.gather(4).unwrap()).unwrap();
        let finished = receive.wait(PATIENCE).map_err(|(_, error)| error).unwrap();
        assert_eq!(finished.held.into_buffer().unwrap()[..4], [number as u8; 4]);
    }
}

#[test]
fn a_second_handshake_goes_on_where_the_device_refused_the_first() {
    // Each step of each peer: to RTR, to RTS.
    for step in 0..u64::from(2 * PEERS) {
        let fake = Fake::new();
        let Star { hub, peers, to_peers } = Star::new(&fake);
        let to_hub = hub.endpoints().unwrap();
        let before = fake.control.calls(Call::ModifyQp);
        fake.control.refuse(Call::ModifyQp, Refusal { times: 1, ..Refusal::after(step, libc::EIO) });
        let (hub, error) = hub.handshake(&to_peers).unwrap_err();
        assert!(matches!(error, Error::Transition(_)), "{error}");
        let connected: Vec<_> = (0..=PEERS).map(|peer| hub.is_connected(peer)).collect();
        let expected: Vec<_> = (0..=PEERS).map(|peer| u64::from(peer) < step / 2).collect();
        assert_eq!(connected, expected, "step {step}");
        assert_eq!(hub.endpoints().unwrap(), to_hub, "what peers were told holds");
        let hub = hub.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
        // Nothing was done twice.
        assert_eq!(fake.control.calls(Call::ModifyQp) - before, u64::from(2 * PEERS) + 1, "step {step}");
        all_hear(&fake, hub, peers, &to_hub);
        fake.finish();
    }
}

#[test]
fn a_peer_that_is_connected_takes_another_endpoint_after_it_was_reset_only() {
    let fake = Fake::new();
    let Star { hub, mut peers, mut to_peers } = Star::new(&fake);
    let mut to_hub = hub.endpoints().unwrap();
    fake.control.refuse(Call::ModifyQp, Refusal { times: 1, ..Refusal::after(5, libc::EIO) });
    let (hub, _) = hub.handshake(&to_peers).unwrap_err();
    // Meanwhile the first peer, which is connected to, and the last, which is half, have become others.
    for peer in [0, 2] {
        peers[peer] = Channel::builder(&fake.pd).build().unwrap();
        to_peers[peer] = peers[peer].endpoint().unwrap();
    }
    let before = fake.control.calls(Call::ModifyQp);
    let (mut hub, error) = hub.handshake(&to_peers).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("peer 0"), "{error}");
    assert_eq!(fake.control.calls(Call::ModifyQp), before);
    to_hub[0] = hub.reset(0).unwrap();
    assert!(!hub.is_connected(0) && hub.is_connected(1));
    let (mut hub, error) = hub.handshake(&to_peers).unwrap_err();
    assert!(matches!(error, Error::Transition(_)), "{error}");
    assert!(hub.is_connected(0));
    to_hub[2] = hub.reset(2).unwrap();
    assert_eq!(hub.endpoints().unwrap(), to_hub);
    assert!(matches!(hub.reset(PEERS), Err(Error::Invalid { .. })));
    let hub = hub.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
    all_hear(&fake, hub, peers, &to_hub);
    fake.finish();
}

#[test]
fn a_peer_whose_reset_failed_half_way_is_not_taken_for_connected() {
    // To INIT, or then to ask the port.
    for (call, step) in [(Call::ModifyQp, 1), (Call::QueryPort, 0)] {
        let fake = Fake::new();
        let Star { hub, peers, to_peers } = Star::new(&fake);
        fake.control.refuse(Call::ModifyQp, Refusal { times: 1, ..Refusal::after(5, libc::EIO) });
        let (mut hub, _) = hub.handshake(&to_peers).unwrap_err();
        fake.control.refuse_nothing();
        fake.control.refuse(call, Refusal { times: 1, ..Refusal::after(step, libc::EIO) });
        hub.reset(0).unwrap_err();
        assert!(!hub.is_connected(0) && hub.is_connected(1));
        let mut to_hub = hub.endpoints().unwrap();
        to_hub[0] = hub.reset(0).unwrap();
        let hub = hub.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
        all_hear(&fake, hub, peers, &to_hub);
        fake.finish();
    }
}

#[test]
fn one_connection_goes_on_where_the_device_refused_it_whatever_keeps_it() {
    let fake = Fake::new();
    for step in 0..2 {
        let refuse = || {
            fake.control.refuse_nothing();
            fake.control.refuse(Call::ModifyQp, Refusal { times: 1, ..Refusal::after(step, libc::EIO) });
        };
        let make = || Channel::builder(&fake.pd).build().unwrap();
        let (channel, peer) = (make(), make().endpoint().unwrap());
        refuse();
        let (channel, _) = channel.handshake(&peer).unwrap_err();
        drop(channel.handshake(&peer).map_err(|(_, error)| error).unwrap());
        let mut hub = Hub::<Rc>::new(&fake.context, 64).unwrap();
        let raw = hub.queue_pair(&fake.pd).build().unwrap();
        refuse();
        let (raw, _) = raw.connect(&peer).unwrap_err();
        drop(raw.connect(&peer).map_err(|(_, error)| error).unwrap());
        // From the beginning, where it was reset meanwhile.
        let raw = hub.queue_pair(&fake.pd).build().unwrap();
        refuse();
        let (mut raw, _) = raw.connect(&peer).unwrap_err();
        raw.reset().unwrap();
        drop(raw.connect(&peer).map_err(|(_, error)| error).unwrap());
        let prepared = hub.queue_pair(&fake.pd).build().unwrap();
        let member = hub.add(prepared).unwrap();
        refuse();
        hub.connect(member, &peer).unwrap_err();
        hub.connect(member, &peer).unwrap();
        // It is whole: another call begins anew, which is refused, and is not taken for the rest of a connection.
        let Err(Error::Transition(refused)) = hub.connect(member, &peer) else { panic!("connected twice") };
        assert_eq!((refused.current, refused.next), (State::RTS, State::RTR));
    }
    fake.finish();
}

#[test]
fn ranks_go_on_with_their_handshake_where_the_device_refused_it() {
    for step in 0..4 {
        let fake = Fake::new();
        let make = |rank| Node::builder(&fake.pd, rank, PEERS).deadline(Some(PATIENCE)).build().unwrap();
        let prepared: Vec<_> = (0..PEERS).map(make).collect();
        let told: Vec<Vec<Option<Introduction>>> =
            prepared.iter().map(|node| node.introductions().unwrap()).collect();
        let nodes: Vec<_> = (0..)
            .zip(prepared)
            .map(|(rank, node)| {
                let to_others: Vec<_> = told.iter().map(|told| told[rank]).collect();
                fake.control.refuse_nothing();
                fake.control.refuse(Call::ModifyQp, Refusal { times: 1, ..Refusal::after(step, libc::EIO) });
                let (node, _) = node.handshake(&to_others).unwrap_err();
                node.handshake(&to_others).map_err(|(_, error)| error).unwrap()
            })
            .collect();
        std::thread::scope(|threads| {
            for mut node in nodes {
                threads.spawn(move || assert_eq!(node.barrier_all(PATIENCE).unwrap(), 1));
            }
        });
        fake.finish();
    }
}
