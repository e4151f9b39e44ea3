//! Channels to several peers on a real device: each operation, each form, and peers that fail while others go on.

mod common;

use sinew_verbs::channel::{Channel, Pieces, Places, Work};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::multi_channel::{MultiChannel, PeerRegion};
use sinew_verbs::qp::Endpoint;
use sinew_verbs::work::Status;
use sinew_verbs::{Error, ProtectionDomain};
use std::time::Duration;

const PEERS: u32 = 3;

/// Channels to three peers, which are channels of this process.
fn star() -> Option<(ProtectionDomain, MultiChannel, Vec<Channel>)> {
    let pd = common::device(module_path!())?.protection_domain().expect("a protection domain");
    let hub = MultiChannel::builder(&pd, PEERS).remote_access(RemoteAccess::all()).build().expect("channels");
    let peers: Vec<_> = (0..PEERS)
        .map(|_| Channel::builder(&pd).remote_access(RemoteAccess::all()).build().expect("a channel"))
        .collect();
    let to_peers: Vec<_> = peers.iter().map(|peer| peer.endpoint().unwrap()).collect();
    let to_hub = hub.endpoints().unwrap();
    let hub = hub.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
    let connected = peers
        .into_iter()
        .zip(&to_hub)
        .map(|(peer, to)| peer.handshake(to).map_err(|(_, error)| error).unwrap());
    Some((pd, hub, connected.collect()))
}

#[test]
fn each_peer_gets_its_message_and_sends_its_own() {
    let Some((pd, mut hub, mut peers)) = star() else { return };
    let receives: Vec<_> =
        peers.iter().map(|peer| peer.submit_receive(pd.allocate(8).unwrap()).unwrap()).collect();
    let messages: Vec<_> = (0..PEERS).map(|peer| pd.adopt(vec![peer as u8; 4]).unwrap()).collect();
    let sent = hub
        .scatter_send((0..PEERS).zip(&messages).map(|(peer, piece)| (peer, piece.gather(4).unwrap().into())));
    assert!(sent.len() == 3 && sent.iter().all(Result::is_ok), "{sent:?}");
    for (peer, receive) in receives.into_iter().enumerate() {
        let finished = receive.wait(Duration::from_secs(10)).map_err(|(_, error)| error).unwrap();
        assert_eq!(finished.held.into_buffer().unwrap()[..4], [peer as u8; 4]);
    }
    let mut places: Vec<_> = (0..PEERS).map(|_| pd.allocate(8).unwrap()).collect();
    let answers = std::thread::scope(|threads| {
        for (peer, message) in peers.iter_mut().zip(&messages) {
            threads.spawn(|| peer.send(&[message.gather(2).unwrap()]).unwrap());
        }
        let places =
            (0..PEERS).zip(&mut places).map(|(peer, place)| (peer, Places::from(place.scatter().unwrap())));
        hub.gather_receive(places)
            .into_iter()
            .map(|done| done.map(|done| done.success.len))
            .collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(2)))), "{answers:?}");
    assert!(places.iter().enumerate().all(|(peer, place)| place[..2] == [peer as u8; 2]));
}

#[test]
fn one_message_goes_to_many_and_memory_of_many_is_written_and_read() {
    let Some((pd, mut hub, peers)) = star() else { return };
    let receives: Vec<_> =
        peers.iter().map(|peer| peer.submit_receive(pd.allocate(8).unwrap()).unwrap()).collect();
    let message = pd.adopt(b"to all".to_vec()).unwrap();
    assert!(hub.multicast_send(0..PEERS, message.gather(6).unwrap()).iter().all(Result::is_ok));
    for receive in receives {
        let finished = receive.wait(Duration::from_secs(10)).map_err(|(_, error)| error).unwrap();
        assert_eq!(&finished.held.into_buffer().unwrap()[..6], b"to all");
    }
    let exposed: Vec<_> =
        (0..PEERS).map(|_| pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap()).collect();
    let regions =
        || exposed.iter().zip(0..).map(|(exposed, peer)| PeerRegion { peer, region: exposed.remote() });
    let piece = || Pieces::from(message.gather(6).unwrap());
    assert!(hub.scatter_write(regions().map(|region| (region, piece()))).iter().all(Result::is_ok));
    let mut places: Vec<_> = (0..PEERS).map(|_| pd.allocate(6).unwrap()).collect();
    let reads =
        regions().zip(&mut places).map(|(region, place)| (region, Places::from(place.scatter().unwrap())));
    assert!(hub.gather_read(reads).iter().all(Result::is_ok));
    assert!(places.iter().all(|place| place[..] == *b"to all"));
}

#[test]
fn a_peer_that_fails_hides_nothing_of_the_others_and_is_connected_anew() {
    let Some((pd, mut hub, mut peers)) = star() else { return };
    let open = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
    let closed = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::READ).unwrap();
    let piece = pd.allocate(8).unwrap();
    let writes = [(0, open.remote()), (1, closed.remote()), (2, open.remote()), (7, open.remote())];
    let answers = hub.scatter_write(
        writes.map(|(peer, region)| (PeerRegion { peer, region }, Pieces::from(piece.gather(8).unwrap()))),
    );
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(
        matches!(&answers[1], Err(Error::Work(error)) if error.status == Status::REMOTE_ACCESS),
        "{answers:?}"
    );
    assert!(matches!(&answers[3], Err(Error::Invalid { .. })), "{answers:?}");
    assert!(hub.broken(1).is_some() && hub.broken(0).is_none() && hub.broken(2).is_none());
    assert!(matches!(hub.send(1, []), Err(Error::Broken { .. })));
    hub.write(piece.gather(8).unwrap(), PeerRegion { peer: 0, region: open.remote() }).unwrap();

    let to_hub = hub.reset(1).unwrap();
    let peer = peers.remove(1).reset().map_err(|(_, error)| error).unwrap();
    let to_peer = peer.endpoint().unwrap();
    hub.connect(1, &to_peer).unwrap();
    let peer = peer.handshake(&to_hub).map_err(|(_, error)| error).unwrap();
    hub.write(piece.gather(8).unwrap(), PeerRegion { peer: 1, region: open.remote() }).unwrap();
    drop(peer);
}

#[test]
fn a_silent_peer_is_cut_short_alone() {
    let Some((pd, mut hub, _peers)) = star() else { return };
    hub.set_deadline(Some(Duration::from_millis(50)));
    let mut place = pd.allocate(8).unwrap();
    assert!(matches!(hub.receive(0, place.scatter().unwrap()), Err(Error::TimedOut { .. })));
    let open = pd.expose(Memory::zeroed(8).unwrap(), RemoteAccess::all()).unwrap();
    hub.write(place.gather(8).unwrap(), PeerRegion { peer: 1, region: open.remote() }).unwrap();
    let forgotten = hub.scope(|scope| {
        std::mem::forget(scope.post_to(2, Work::receive_word())?);
        Ok::<_, Error>(())
    });
    assert!(forgotten.is_err());
    assert!(hub.broken(0).is_some() && hub.broken(1).is_none() && hub.broken(2).is_some());
}

#[test]
fn a_handshake_that_failed_at_one_peer_goes_on_with_those_that_are_left() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let hub = MultiChannel::builder(&pd, PEERS).build().unwrap();
    let peers: Vec<_> = (0..PEERS).map(|_| Channel::builder(&pd).build().unwrap()).collect();
    let to_peers: Vec<_> = peers.iter().map(|peer| peer.endpoint().unwrap()).collect();
    let to_hub = hub.endpoints().unwrap();
    // The guest's port is one of Ethernet, which needs a GID.
    let nowhere = Endpoint { gid: None, ..to_peers[1] };
    let (hub, error) = hub.handshake(&[to_peers[0], nowhere, to_peers[2]]).unwrap_err();
    assert!(matches!(error, Error::Peer { .. }), "{error}");
    assert!(hub.is_connected(0) && !hub.is_connected(1) && !hub.is_connected(2));
    let mut hub = hub.handshake(&to_peers).map_err(|(_, error)| error).unwrap();
    let message = pd.adopt(b"at last".to_vec()).unwrap();
    let receives: Vec<_> = peers
        .into_iter()
        .zip(&to_hub)
        .map(|(peer, to_hub)| {
            let peer = peer.handshake(to_hub).map_err(|(_, error)| error).unwrap();
            let receive = peer.submit_receive(pd.allocate(8).unwrap()).unwrap();
            (peer, receive)
        })
        .collect();
    assert!(hub.multicast_send(0..PEERS, message.gather(7).unwrap()).iter().all(Result::is_ok));
    for (_peer, receive) in receives {
        let finished = receive.wait(Duration::from_secs(10)).map_err(|(_, error)| error).unwrap();
        assert_eq!(finished.held.into_buffer().unwrap()[..7], *b"at last");
    }
}

#[test]
fn as_many_endpoints_as_peers_are_asked_for() {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let prepared = MultiChannel::builder(&pd, 2).build().unwrap();
    let one = prepared.endpoints().unwrap().remove(0);
    let (prepared, error) = prepared.handshake(&[one]).unwrap_err();
    assert!(error.to_string().contains("1 endpoints for 2 peers"), "{error}");
    assert_eq!(prepared.endpoints().unwrap().len(), 2);
    assert!(MultiChannel::builder(&pd, 0).build().is_err());
}
