//! The connection manager against a scripted one: orders, refusals, and what no real device does on demand.

mod device;
mod events;
mod fake;
mod r11;
mod withdrawn;

use super::base::Base;
use super::*;
use crate::error::Error;
use crate::library::Library;
use crate::qp::{QueuePair, Rc};
use fake::Raised;
use sinew_verbs_sys as sys;
use std::net::SocketAddr;
use std::time::Duration;
use sys::RdmaCmEventType as Kind;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

fn at() -> SocketAddr {
    "10.0.0.1:7471".parse().unwrap()
}

fn queue_pair(context: &crate::device::Context) -> QueuePair<Rc> {
    let domain = context.protection_domain().unwrap();
    let completions = context.completion_queue(64).build().unwrap();
    domain.queue_pair::<Rc>(&completions).build_raw().unwrap()
}

/// The identifier of a listener.
fn raw(acceptor: &Acceptor) -> *mut sys::rdma_cm_id {
    acceptor.listener.with(|id| Ok(id.as_raw())).unwrap()
}

fn resolved(library: &Library) -> Resolved {
    Connector::new(library).resolve(at(), LONG).unwrap()
}

fn asking(reads: u8) -> sys::rdma_conn_param {
    sys::rdma_conn_param {
        responder_resources: reads,
        initiator_depth: reads,
        qp_num: 9,
        ..sys::rdma_conn_param::zeroed()
    }
}

/// Calls that say something about the order; the others are many.
fn order() -> Vec<String> {
    let mut calls = fake::calls();
    calls.retain(|call| !call.starts_with("init_qp_attr") && !call.starts_with("create"));
    calls
}

#[test]
fn the_active_side_goes_the_steps_in_order_and_gives_peers_nothing_that_was_not_asked_for() {
    let library = fake::library();
    let resolved = resolved(&library);
    let pair = queue_pair(resolved.context());
    fake::answer([Raised::of(Kind::CONNECT_RESPONSE).data(b"welcome").conn(asking(3))]);
    let parameters = ConnectionParameters::new().private_data(b"hi");
    let connection = resolved.connect(pair, &parameters, LONG).unwrap();
    assert_eq!(connection.private_data(), b"welcome");
    assert_eq!(connection.peer_attributes().unwrap().qp_num, 9);
    drop(connection);
    assert_eq!(
        order(),
        [
            "resolve_addr",
            "get_devices",
            "resolve_route",
            "modify_qp INIT access 0",
            "connect qp 5 reads 8/4 \"hi\"",
            "modify_qp RTR answers 99",
            "modify_qp RTS asks 99",
            "establish",
            "destroy_qp",
            "destroy_id",
            "destroy_event_channel",
        ]
    );
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn over_iwarp_the_driver_does_the_last_steps() {
    let library = fake::library();
    fake::iwarp();
    let resolved = resolved(&library);
    let pair = queue_pair(resolved.context());
    resolved.connect(pair, &ConnectionParameters::new(), LONG).unwrap();
    let calls = order();
    assert!(calls.iter().any(|call| call == "modify_qp INIT access 0"));
    assert!(!calls.iter().any(|call| call == "establish" || call.starts_with("modify_qp RT")), "{calls:?}");
}

#[test]
fn the_passive_side_is_up_before_it_accepts_and_reads_no_more_at_once_than_was_asked_for() {
    let library = fake::library();
    let acceptor = Acceptor::bind(&library, at(), 3).unwrap();
    assert_eq!(acceptor.address().unwrap(), Some(at().into()));
    assert!(acceptor.try_accept().unwrap().is_none());
    fake::request(raw(&acceptor), &Raised::of(Kind::CONNECT_REQUEST).data(b"hello").conn(asking(2)));
    let incoming = acceptor.accept(Some(LONG)).unwrap();
    assert_eq!(incoming.private_data(), b"hello");
    let pair = queue_pair(incoming.context());
    fake::calls();
    let parameters = ConnectionParameters::new().private_data(b"yes");
    let mut connection = incoming.accept(pair, &parameters, LONG).unwrap();
    assert_eq!(
        order(),
        [
            "modify_qp INIT access 0",
            "modify_qp RTR answers 2",
            "modify_qp RTS asks 2",
            "accept qp 5 reads 2/2 \"yes\""
        ]
    );
    fake::raise(connection.id().as_raw(), &Raised::of(Kind::DISCONNECTED));
    assert_eq!(connection.wait_ended(Some(LONG)).unwrap(), Some(Ended::Disconnected));
    assert_eq!(order(), ["modify_qp ERR", "disconnect"], "the peer is answered");
    assert_eq!(connection.wait_ended(None).unwrap(), Some(Ended::Disconnected), "it is over for good");
    let not = connection.into_id(&library.event_channel().unwrap()).unwrap_err();
    assert!(not.to_string().contains("it has ended"), "{not}");
}

#[test]
fn every_step_that_fails_says_which_it_was_and_leaves_nothing_behind() {
    for (kind, call) in [(Kind::ADDR_ERROR, "rdma_resolve_addr"), (Kind::UNREACHABLE, "rdma_resolve_addr")] {
        let library = fake::library();
        fake::answer([Raised::of(kind).status(-libc::ENETUNREACH)]);
        let error = Connector::new(&library).resolve(at(), LONG).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENETUNREACH));
        assert!(error.to_string().contains(call) && error.to_string().contains("10.0.0.1"), "{error}");
        assert!(fake::calls().contains(&"destroy_id".to_owned()));
    }
    let library = fake::library();
    fake::answer([Raised::of(Kind::ADDR_RESOLVED)]);
    fake::answer([Raised::of(Kind::ROUTE_ERROR).status(-libc::ETIMEDOUT)]);
    let error = Connector::new(&library).resolve(at(), LONG).unwrap_err();
    assert!(error.to_string().contains("rdma_resolve_route"), "{error}");
    for name in ["create_event_channel", "create_id", "resolve_addr", "resolve_route"] {
        fake::fail(name, libc::EPERM);
        let error = Connector::new(&library).resolve(at(), LONG).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EPERM), "{name}");
    }
}

#[test]
fn a_refusal_gives_back_the_queue_pair_with_what_the_peer_says() {
    let library = fake::library();
    for (raised, words) in [
        (Raised::of(Kind::REJECTED).status(28).data(b"full"), "refused by the program"),
        (Raised::of(Kind::REJECTED).status(8), "start the listener"),
        (Raised::of(Kind::REJECTED).status(9999), "Unknown(9999)"),
        (Raised::of(Kind::UNREACHABLE).status(-libc::ETIMEDOUT), "UNREACHABLE"),
        (Raised::of(Kind::CONNECT_ERROR).status(-libc::EIO), "CONNECT_ERROR"),
        (Raised::of(Kind::DISCONNECTED), "before it was whole"),
        (Raised::of(Kind::DEVICE_REMOVAL), "rdma_connect"),
    ] {
        let resolved = resolved(&library);
        let pair = queue_pair(resolved.context());
        fake::answer([raised.clone()]);
        let not = resolved.connect(pair, &ConnectionParameters::new(), LONG).unwrap_err();
        assert!(not.to_string().contains(words), "{raised:?}: {not}");
        assert_eq!(not.back.number(), 5);
        if let ConnectError::Rejected { private_data, .. } = &not.error {
            assert_eq!(*private_data, raised.data);
        }
    }
    let calls = fake::calls();
    assert!(!calls.iter().any(|call| call == "DEADLOCK" || call == "establish"), "{calls:?}");
}

#[test]
fn what_nobody_knows_or_expects_is_passed_over_and_silence_ends_at_the_deadline() {
    let library = fake::library();
    let first = resolved(&library);
    let pair = queue_pair(first.context());
    fake::answer([
        Raised { kind: 77, status: 5, ..Raised::default() },
        Raised::of(Kind::ADDR_CHANGE),
        Raised::of(Kind::CONNECT_RESPONSE),
    ]);
    first.connect(pair, &ConnectionParameters::new(), LONG).unwrap();
    let second = resolved(&library);
    let pair = queue_pair(second.context());
    fake::answer([Raised { kind: 78, ..Raised::default() }]);
    let not = second.connect(pair, &ConnectionParameters::new(), SHORT).unwrap_err();
    assert!(matches!(not.error, ConnectError::Failed(Error::TimedOut { what: "rdma_connect", .. })), "{not}");
    fake::answer([]);
    let error = Connector::new(&library).resolve(at(), SHORT).unwrap_err();
    assert!(matches!(error, Error::TimedOut { what: "rdma_resolve_addr", .. }), "{error}");
    let acceptor = Acceptor::bind(&library, at(), 1).unwrap();
    assert!(matches!(acceptor.accept(Some(SHORT)), Err(Error::TimedOut { .. })));
    let channel = library.event_channel().unwrap();
    assert!(channel.wait(Some(SHORT)).unwrap().is_none());
}

#[test]
fn a_connection_that_cannot_come_up_is_neither_asked_for_nor_established() {
    let library = fake::library();
    for (step, gets_as_far_as) in [
        ("init_qp_attr", "resolve_route"),
        ("modify_qp INIT access 0", "resolve_route"),
        ("modify_qp RTR answers 99", "connect"),
    ] {
        fake::calls();
        let resolved = resolved(&library);
        let pair = queue_pair(resolved.context());
        fake::fail(step, libc::EINVAL);
        resolved.connect(pair, &ConnectionParameters::new(), LONG).unwrap_err();
        let calls = order();
        assert!(calls.iter().any(|call| call.starts_with(gets_as_far_as)), "{calls:?}");
        assert_eq!(calls.iter().any(|call| call.starts_with("connect")), gets_as_far_as == "connect");
        assert!(!calls.contains(&"establish".to_owned()), "{calls:?}");
        assert!(calls.contains(&"destroy_id".to_owned()));
    }
}

#[test]
fn a_refusal_that_the_call_itself_reports_is_a_refusal() {
    let library = fake::library();
    let resolved = resolved(&library);
    let pair = queue_pair(resolved.context());
    fake::fail("connect", libc::ECONNREFUSED);
    let not = resolved.connect(pair, &ConnectionParameters::new(), LONG).unwrap_err();
    assert!(
        matches!(not.error, ConnectError::Rejected { .. }) && not.to_string().contains("listener"),
        "{not}"
    );
}

#[test]
fn a_listener_outlives_a_request_that_could_not_be_taken_over() {
    let library = fake::library();
    let acceptor = Acceptor::bind(&library, at(), 3).unwrap();
    for name in ["create_event_channel", "migrate_id"] {
        fake::request(raw(&acceptor), &Raised::of(Kind::CONNECT_REQUEST));
        fake::calls();
        fake::fail(name, libc::EMFILE);
        assert_eq!(acceptor.try_accept().unwrap_err().errno(), Some(libc::EMFILE));
        let calls = fake::calls();
        assert!(calls.contains(&"destroy_id".to_owned()), "{name}: it is refused, not lost: {calls:?}");
        assert!(!calls.contains(&"DEADLOCK".to_owned()));
    }
    fake::raise(raw(&acceptor), &Raised::of(Kind::ADDR_CHANGE));
    fake::request(raw(&acceptor), &Raised::of(Kind::CONNECT_REQUEST));
    acceptor.accept(Some(LONG)).unwrap().reject(b"later").unwrap();
    assert!(fake::calls().contains(&"reject \"later\"".to_owned()));
    fake::raise(raw(&acceptor), &Raised::of(Kind::DEVICE_REMOVAL));
    assert_eq!(acceptor.try_accept().unwrap_err().errno(), Some(libc::ENODEV));
}

#[test]
fn all_identifiers_of_a_device_share_one_context_as_long_as_it_is_used() {
    for listed in [false, true] {
        let library = fake::library();
        if listed {
            fake::list_device();
        }
        let (first, second) = (resolved(&library), resolved(&library));
        assert!(first.context().is(second.context()));
        let context = first.context().clone();
        fake::calls();
        drop((first, second));
        let calls = fake::calls();
        let ended = calls.iter().filter(|call| *call == "destroy_id").count();
        // Where the library does not keep the device, an identifier does.
        assert_eq!(ended, if listed { 2 } else { 1 }, "{calls:?}");
        assert!(!calls.contains(&"free_devices".to_owned()));
        drop(context);
        let calls = fake::calls();
        assert!(calls.contains(&if listed { "free_devices" } else { "destroy_id" }.to_owned()));
        assert_eq!(library.leaked_objects(), 0);
    }
}

#[test]
fn an_identifier_that_cannot_be_destroyed_is_counted_and_keeps_its_channel() {
    let library = fake::library();
    let id = library.event_channel().unwrap().id::<Rc>(PortSpace::TCP).unwrap();
    fake::fail("destroy_id", libc::EIO);
    drop(id);
    assert_eq!(library.leaked_objects(), 1);
    assert!(!fake::calls().contains(&"destroy_event_channel".to_owned()));
}

#[test]
fn too_much_private_data_never_reaches_the_library() {
    let library = fake::library();
    let resolved = resolved(&library);
    let pair = queue_pair(resolved.context());
    fake::calls();
    let parameters = ConnectionParameters::new().private_data(&[0; 57]);
    let not = resolved.connect(pair, &parameters, LONG).unwrap_err();
    assert!(matches!(not.error, ConnectError::Failed(Error::Invalid { .. })), "{not}");
    assert!(!order().iter().any(|call| call.starts_with("connect") || call.starts_with("modify")));
    let id = Base::new(&library.event_channel().unwrap(), PortSpace::TCP).unwrap();
    let asking = |reads| ConnectionAttributes::from(&asking(reads));
    id.resolve_address(None, &at().into(), LONG).unwrap();
    assert!(id.reject(&[0; 149]).is_err() && id.connect(&asking(1), &[0; 57]).is_err());
    assert!(id.accept(&asking(1), &[0; 197]).is_err() && id.accept(&asking(1), &[0; 196]).is_ok());
}

#[test]
fn the_library_is_not_asked_for_what_needs_a_device_before_there_is_one() {
    let library = fake::library();
    let id = Base::new(&library.event_channel().unwrap(), PortSpace::TCP).unwrap();
    fake::calls();
    let attributes = ConnectionAttributes::default();
    for refused in [id.connect(&attributes, &[]), id.accept(&attributes, &[]), id.resolve_route(LONG)] {
        assert_eq!(refused.unwrap_err().errno(), Some(libc::EINVAL));
    }
    assert_eq!(fake::calls(), [""; 0]);
}

#[test]
fn without_librdmacm_the_error_says_what_to_install() {
    let library = fake::library_without_cm();
    let error = Connector::new(&library).resolve(at(), LONG).unwrap_err();
    assert!(error.to_string().contains("librdmacm1"), "{error}");
}
