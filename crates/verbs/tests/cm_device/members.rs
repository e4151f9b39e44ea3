//! Queue pairs of hubs under connections: whichever goes first, and wherever they come from.

use super::{PATIENCE, hub_of, listen, next, place};
use sinew_verbs::cm::{Acceptor, ConnectError, ConnectionParameters, Connector, Ended, Line};
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::qp::Rc;
use sinew_verbs::{Error, Library, ProtectionDomain};
use std::net::SocketAddr;

type End = (Hub<Rc>, Member, ProtectionDomain, Line);

/// Two connected hubs; the passive one first. `make` makes the active one's queue pair.
fn connected(
    library: &Library,
    acceptor: &Acceptor,
    at: SocketAddr,
    make: impl FnOnce(&sinew_verbs::device::Context) -> (Hub<Rc>, Member, ProtectionDomain),
) -> (End, End) {
    let parameters = ConnectionParameters::new();
    std::thread::scope(|scope| {
        let passive = scope.spawn(|| {
            let incoming = acceptor.accept(Some(PATIENCE)).expect("a request");
            let (mut hub, member, domain) = hub_of(incoming.context());
            incoming.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
            hub.post_receive(member, domain.allocate(64).unwrap(), 1).expect("a receive is posted");
            let line = incoming.accept_member(&mut hub, member, &parameters, PATIENCE).expect("accepted");
            (hub, member, domain, line)
        });
        let resolved = Connector::new(library).resolve(at, PATIENCE).expect("a device with a way there");
        let (mut hub, member, domain) = make(resolved.context());
        let line = resolved.connect_member(&mut hub, member, &parameters, PATIENCE).expect("connected");
        (passive.join().expect("the passive side"), (hub, member, domain, line))
    })
}

#[test]
fn a_hub_may_end_before_its_connections_and_a_connection_before_its_hub() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let leaked = library.leaked_objects();
    let (mut passive, active) = connected(&library, &acceptor, at, hub_of);
    let (hub, _, domain, mut line) = active;
    drop((hub, domain));
    line.disconnect().expect("the peer is told");
    assert_eq!(passive.3.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
    assert_eq!(line.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
    assert_eq!(passive.3.wait_ended(None).unwrap(), Some(Ended::Disconnected), "it is over for good");
    drop(passive.3);
    assert_eq!(passive.0.remove(passive.1).expect("it ends").len(), 1, "what was posted comes back");
    assert_eq!(library.leaked_objects(), leaked);
}

#[test]
fn a_queue_pair_that_a_hub_has_prepared_sends_when_the_connection_manager_has_connected_it() {
    let Some((library, address)) = place() else { return };
    let (acceptor, at) = listen(&library, address);
    let (mut passive, mut active) = connected(&library, &acceptor, at, |context| {
        let domain = context.protection_domain().expect("a domain");
        let mut hub = Hub::new(context, 64).expect("a hub");
        let member = hub.add(hub.queue_pair(&domain).build().expect("a queue pair")).expect("it is taken in");
        (hub, member, domain)
    });
    let message = active.2.adopt(b"hello".to_vec()).unwrap();
    active.0.post(active.1, Operation::send(message)).expect("it sends");
    assert_eq!(next(&mut active.0).0, Side::Send);
    let (side, buffer, len) = next(&mut passive.0);
    assert_eq!((side, len, &buffer[..5]), (Side::Receive, Some(5), &b"hello"[..]));
    active.3.disconnect().expect("the peer is told");
    assert_eq!(passive.3.wait_ended(Some(PATIENCE)).unwrap(), Some(Ended::Disconnected));
}

#[test]
fn members_that_are_gone_or_elsewhere_are_refused_before_anything_happens() {
    let Some((library, address)) = place() else { return };
    let (_acceptor, at) = listen(&library, address);
    let parameters = ConnectionParameters::new();
    let resolve = || Connector::new(&library).resolve(at, PATIENCE).expect("a device with a way there");
    let invalid = |error: ConnectError| match error {
        ConnectError::Failed(error @ Error::Invalid { .. }) => error.to_string(),
        other => panic!("{other}"),
    };
    let resolved = resolve();
    let (mut hub, member, domain) = hub_of(resolved.context());
    hub.remove(member).expect("it ends");
    let successor = hub.adopt(hub.queue_pair(&domain).build_raw().unwrap()).expect("it is taken in");
    let error = resolved.connect_member(&mut hub, member, &parameters, PATIENCE).unwrap_err();
    assert!(invalid(error).contains("removed"));
    assert_eq!(hub.in_flight(successor).unwrap(), (0, 0));
    let resolved = resolve();
    let other = library.devices().unwrap().open(resolved.context().name()).unwrap();
    let (mut hub, member, _domain) = hub_of(&other);
    let error = resolved.connect_member(&mut hub, member, &parameters, PATIENCE).unwrap_err();
    assert!(invalid(error).contains("somebody else opened it"));
}
