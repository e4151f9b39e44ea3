//! Identifiers for event loops: what each event makes of each state, and what comes back when a step is not done.

use super::*;
use crate::hub::{Hub, Member};
use crate::qp::Ud;

/// A library whose list of devices has the device: as of any real one, an identifier ends when it is dropped.
fn library() -> Library {
    fake::list_device();
    fake::library()
}

/// The event that waits, which is no request.
fn notice(channel: &EventChannel) -> Notice {
    match channel.event().unwrap() {
        Some(Event::Notice(notice)) => notice,
        other => panic!("{other:?}"),
    }
}

/// What an identifier goes on as by the event that waits.
fn next<W: Waits>(channel: &EventChannel, id: W) -> W::Next {
    match id.handle(notice(channel)) {
        Ok(Progress::Next(next)) => next,
        Ok(Progress::Same(_, notice)) => panic!("{notice:?}"),
        Err(not) => panic!("{not:?}"),
    }
}

/// What is left of an identifier by the event that waits.
fn left<W: Waits>(channel: &EventChannel, id: W) -> NotDone<W::Back> {
    match id.handle(notice(channel)) {
        Err(not) => not,
        Ok(_) => panic!("it goes on"),
    }
}

/// What waits still, behind the event that waits.
fn same<W: Waits>(channel: &EventChannel, id: W) -> W {
    match id.handle(notice(channel)) {
        Ok(Progress::Same(id, _)) => id,
        Ok(Progress::Next(_)) => panic!("it goes on"),
        Err(not) => panic!("{not:?}"),
    }
}

fn created(channel: &EventChannel) -> Id<Created> {
    channel.id(PortSpace::TCP).unwrap()
}

fn found(channel: &EventChannel) -> Id<RouteResolved> {
    let id = next(channel, created(channel).resolve_address(None, &at().into(), LONG).unwrap());
    next(channel, id.resolve_route(LONG).unwrap())
}

fn requested(channel: &EventChannel, listener: &Id<Listening>) -> Id<Requested> {
    fake::request(listener.as_raw(), &Raised::of(Kind::CONNECT_REQUEST).data(b"please").conn(asking(2)));
    match channel.event().unwrap() {
        Some(Event::Request(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn listening(channel: &EventChannel) -> Id<Listening> {
    created(channel).bind(at()).unwrap().listen(4).unwrap()
}

/// A hub with a member that is not connected.
fn hub_of(context: &crate::device::Context) -> (Hub<Rc>, Member) {
    let domain = context.protection_domain().unwrap();
    let mut hub = Hub::<Rc>::new(context, 512).unwrap();
    let member = hub.adopt(hub.queue_pair(&domain).build_raw().unwrap()).unwrap();
    (hub, member)
}

#[test]
fn an_identifier_goes_from_state_to_state_and_gives_the_queue_pair_back_at_the_end() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let id = found(&channel);
    assert_eq!(format!("{id:?}").split(',').next(), Some("Id(RouteResolved"));
    let (number, pair) = (id.number(), queue_pair(id.context()));
    fake::answer([Raised::of(Kind::CONNECT_RESPONSE).data(b"welcome").conn(asking(3))]);
    let id = next(&channel, id.connect(pair, &ConnectionParameters::new()).unwrap());
    assert_eq!((id.private_data(), id.peer_attributes().unwrap().qp_num), (&b"welcome"[..], 9));
    let id = id.establish().unwrap();
    assert_eq!((id.private_data(), id.number()), (&b"welcome"[..], number));
    fake::calls();
    let id = id.disconnect().unwrap();
    assert_eq!(order(), ["modify_qp ERR", "disconnect"]);
    fake::raise(id.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let id = next(&channel, id);
    assert_eq!(id.how(), Ended::Disconnected);
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    let id = same(&channel, id);
    fake::raise(id.as_raw(), &Raised::of(Kind::TIMEWAIT_EXIT));
    let pair: QueuePair<Rc> = next(&channel, id);
    assert_eq!((pair.number(), order()), (5, vec!["destroy_id".to_owned()]));
}

#[test]
fn a_step_that_the_library_refuses_gives_back_what_it_was_to_be_done_with() {
    let library = library();
    let channel = library.event_channel().unwrap();
    fake::fail("bind_addr", libc::EADDRINUSE);
    let not = created(&channel).bind(at()).unwrap_err();
    fake::fail("resolve_addr", libc::ENODEV);
    let not = not.back.resolve_address(None, &at().into(), LONG).unwrap_err();
    assert!(not.to_string().contains("rdma_resolve_addr"), "{not}");
    let bound = not.back.bind(at()).unwrap();
    fake::fail("listen", libc::EINVAL);
    let bound = bound.listen(1).unwrap_err().back;
    let id = next(&channel, bound.resolve_address(&at().into(), LONG).unwrap());
    fake::fail("resolve_route", libc::EINVAL);
    let id = id.resolve_route(LONG).unwrap_err().back;
    let id = next(&channel, id.resolve_route(LONG).unwrap());
    let pair = queue_pair(id.context());
    let much = ConnectionParameters::new().private_data(&[0; 57]);
    let (id, pair) = id.connect(pair, &much).unwrap_err().back;
    let id = id.connect(pair, &ConnectionParameters::new()).unwrap();
    let id = next(&channel, id);
    fake::fail("establish", libc::EIO);
    fake::calls();
    let pair = id.establish().unwrap_err().back;
    assert_eq!((pair.number(), order().last().cloned()), (5, Some("destroy_id".to_owned())));
    let error = channel.id::<Rc>(PortSpace::UDP).unwrap_err();
    assert!(error.to_string().contains("id::<Ud>"), "{error}");
    assert!(channel.id::<crate::qp::Ud>(PortSpace::TCP).is_err());
    assert!(channel.id::<crate::qp::Uc>(PortSpace::TCP).is_err());
}

#[test]
fn what_could_not_be_resolved_is_tried_again_with_the_same_identifier() {
    let library = library();
    let channel = library.event_channel().unwrap();
    fake::answer([Raised::of(Kind::ADDR_ERROR).status(-libc::ENETUNREACH)]);
    let id = created(&channel).resolve_address(None, &at().into(), LONG).unwrap();
    let (number, not) = (id.number(), left(&channel, id));
    assert!(matches!(&not.error, ConnectError::Failed(error) if error.errno() == Some(libc::ENETUNREACH)));
    let id = next(&channel, not.back.resolve_address(&at().into(), LONG).unwrap());
    fake::answer([Raised::of(Kind::ROUTE_ERROR).status(-libc::ETIMEDOUT)]);
    let not = left(&channel, id.resolve_route(LONG).unwrap());
    let id = next(&channel, not.back.resolve_route(LONG).unwrap());
    assert_eq!(id.number(), number);
}

#[test]
fn an_event_of_another_identifier_comes_back_with_what_waits_for_its_own() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let first = created(&channel).resolve_address(None, &at().into(), LONG).unwrap();
    let second = created(&channel).resolve_address(None, &at().into(), LONG).unwrap();
    let Ok(Progress::Same(second, notice)) = second.handle(notice(&channel)) else { panic!("it took it") };
    assert_eq!(notice.id(), Some(Waits::number(&first)));
    let Ok(Progress::Next(first)) = first.handle(notice) else { panic!("it is its own") };
    let second = next(&channel, second);
    assert!(first.context().is(second.context()));
}

#[test]
fn a_queue_pair_comes_back_whatever_ends_the_wish() {
    let library = library();
    let channel = library.event_channel().unwrap();
    for raised in [
        Raised::of(Kind::REJECTED).status(28).data(b"full"),
        Raised::of(Kind::UNREACHABLE).status(-libc::ETIMEDOUT),
        Raised::of(Kind::DEVICE_REMOVAL),
        Raised::of(Kind::DISCONNECTED),
    ] {
        let id = found(&channel);
        let pair = queue_pair(id.context());
        fake::answer([raised.clone()]);
        let not = left(&channel, id.connect(pair, &ConnectionParameters::new()).unwrap());
        assert_eq!(not.back.number(), 5);
        if let ConnectError::Rejected { private_data, .. } = &not.error {
            assert_eq!(*private_data, raised.data);
        }
    }
    // By the clock of the caller: nobody has answered.
    let id = found(&channel);
    let pair = queue_pair(id.context());
    fake::answer([]);
    fake::calls();
    let id = id.connect(pair, &ConnectionParameters::new()).unwrap();
    let pair = id.into_queue_pair();
    assert_eq!((pair.number(), order().last().cloned()), (5, Some("destroy_id".to_owned())));
    assert!(channel.event().unwrap().is_none());
}

#[test]
fn a_request_is_answered_once_and_can_be_refused_when_it_could_not_be_accepted() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let listener = listening(&channel);
    let id = requested(&channel, &listener);
    assert_eq!((id.listener(), id.private_data()), (listener.number(), &b"please"[..]));
    let pair = queue_pair(id.context());
    fake::fail("accept", libc::EINVAL);
    let (id, pair) = id.accept(pair, &ConnectionParameters::new()).unwrap_err().back;
    fake::calls();
    id.reject(b"sorry").unwrap();
    assert_eq!(order(), ["reject \"sorry\"", "destroy_id"]);
    let id = requested(&channel, &listener).accept(pair, &ConnectionParameters::new()).unwrap();
    fake::calls();
    let id = next(&channel, id).establish().unwrap();
    assert_eq!(order(), [""; 0], "it was brought up before it was accepted");
    assert_eq!(id.private_data(), b"please");
    fake::raise(id.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let id = next(&channel, id);
    assert_eq!(order(), ["modify_qp ERR", "disconnect"], "the peer is answered");
    drop(id.into_queue_pair());
    // Who asks may give up before there is an answer.
    let id = requested(&channel, &listener);
    fake::raise(id.as_raw(), &Raised::of(Kind::REJECTED).status(4));
    assert!(matches!(left(&channel, id).error, ConnectError::Rejected { .. }));
    fake::raise(listener.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    let listener = same(&channel, listener);
    fake::raise(listener.as_raw(), &Raised::of(Kind::DEVICE_REMOVAL));
    left(&channel, listener);
}

#[test]
fn a_hub_s_queue_pair_sends_when_its_connection_is_whole_and_no_sooner() {
    let library = library();
    let channel = library.event_channel().unwrap();
    for passive in [false, true] {
        let parameters = ConnectionParameters::new();
        let (mut hub, member, id) = if passive {
            let id = requested(&channel, &listening(&channel));
            let (hub, member) = hub_of(id.context());
            let id = id.accept_member(&hub, member, &parameters).unwrap();
            (hub, member, id)
        } else {
            let id = found(&channel);
            let (hub, member) = hub_of(id.context());
            let id = id.connect_member(&hub, member, &parameters).unwrap();
            (hub, member, id)
        };
        let id = next(&channel, id);
        let domain = id.private_data().len();
        assert_eq!(domain, if passive { 6 } else { 0 });
        let mut id = id.establish(&mut hub).unwrap();
        assert_eq!(hub.refresh(member).unwrap(), crate::qp::state::State::RTS);
        // The hub may go first.
        drop(hub);
        let other = library.event_channel().unwrap();
        id.migrate(&other).unwrap();
        fake::raise(id.as_raw(), &Raised::of(Kind::DISCONNECTED));
        assert!(channel.event().unwrap().is_none());
        assert_eq!(next(&other, id).how(), Ended::Disconnected);
    }
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn a_member_that_is_gone_or_of_another_hub_is_not_brought_up() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let answered = || {
        let id = found(&channel);
        let (hub, member) = hub_of(id.context());
        let id = id.connect_member(&hub, member, &ConnectionParameters::new()).unwrap();
        (hub, member, next(&channel, id))
    };
    let (mut hub, member, id) = answered();
    hub.remove(member).unwrap();
    let domain = id.establish(&mut hub).unwrap_err();
    assert!(domain.to_string().contains("removed"), "{domain}");
    // Its place is another's now, which it does not name.
    let (mut hub, member, id) = answered();
    let context = hub.queue_pair_of(member).unwrap().protection_domain().context().clone();
    hub.remove(member).unwrap();
    let domain = context.protection_domain().unwrap();
    let successor = hub.adopt(hub.queue_pair(&domain).build_raw().unwrap()).unwrap();
    assert_ne!(successor, member);
    fake::calls();
    assert!(id.establish(&mut hub).unwrap_err().to_string().contains("removed"));
    assert_eq!(order(), ["destroy_id"]);
    let found = found(&channel);
    assert!(found.connect_member(&hub, member, &ConnectionParameters::new()).is_err());
    // Another hub has a member of the same name.
    let (_hub, _, id) = answered();
    device::number(6);
    let (mut other, _) = hub_of(&context);
    fake::calls();
    let not = id.establish(&mut other).unwrap_err();
    assert!(not.to_string().contains("the peer knows"), "{not}");
    assert_eq!(order(), ["destroy_id"], "nothing was changed");
}

#[test]
fn the_peer_may_go_while_the_last_step_is_still_to_be_made() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let id = found(&channel);
    let pair = queue_pair(id.context());
    let id = next(&channel, id.connect(pair, &ConnectionParameters::new()).unwrap());
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    let id = same(&channel, id);
    fake::raise(id.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let not = left(&channel, id);
    assert!(matches!(not.error, ConnectError::Disconnected));
    assert_eq!(not.back.number(), 5);
}

#[test]
fn a_connection_does_not_end_by_another_s_end_and_does_by_that_of_its_device() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let (other, id) = (created(&channel), found(&channel));
    let pair = queue_pair(id.context());
    let id = next(&channel, id.connect(pair, &ConnectionParameters::new()).unwrap());
    let id = id.establish().unwrap();
    fake::raise(other.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let id = same(&channel, id).disconnect().unwrap();
    fake::raise(other.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let id = same(&channel, id);
    fake::raise(id.as_raw(), &Raised::of(Kind::DEVICE_REMOVAL));
    let id = next(&channel, id);
    assert_eq!(id.how(), Ended::DeviceRemoved);
    fake::raise(other.as_raw(), &Raised::of(Kind::TIMEWAIT_EXIT));
    let id = same(&channel, id);
    fake::raise(id.as_raw(), &Raised::of(Kind::DEVICE_REMOVAL));
    assert_eq!(next(&channel, id).number(), 5);
}

fn joining(channel: &EventChannel) -> Id<Joining, Ud> {
    channel.id(PortSpace::UDP).unwrap().bind(at()).unwrap().join(&at().into()).unwrap()
}

/// The number of what an error says that went wrong, and that a group was.
fn group_error(error: &ConnectError) -> Option<i32> {
    match error {
        ConnectError::Failed(error) if error.to_string().contains("rdma_join_multicast") => error.errno(),
        _ => None,
    }
}

/// How many identifiers were destroyed since calls were asked for.
fn destroyed() -> usize {
    fake::calls().iter().filter(|call| *call == "destroy_id").count()
}

#[test]
fn a_group_that_cannot_be_joined_says_why_and_leaves_nothing() {
    let library = library();
    let channel = library.event_channel().unwrap();
    for (raised, errno) in [
        (Raised::of(Kind::MULTICAST_ERROR).status(-libc::ENETUNREACH).group(), libc::ENETUNREACH),
        // As the kernel raises it where the subnet manager says no.
        (Raised::of(Kind::MULTICAST_ERROR), libc::EHOSTUNREACH),
        (Raised::of(Kind::DEVICE_REMOVAL), libc::ENODEV),
    ] {
        fake::answer([raised.clone()]);
        let id = joining(&channel);
        fake::calls();
        let not = left(&channel, id);
        assert_eq!(group_error(&not.error), Some(errno), "{raised:?}: {not}");
        assert_eq!(destroyed(), 1, "{raised:?}");
        fake::answer([raised.clone()]);
        let error = Group::join(&library, at(), at(), LONG).unwrap_err();
        assert_eq!(group_error(&error), Some(errno), "{raised:?}: {error}");
        assert_eq!(destroyed(), 1, "{raised:?}");
    }
    // One that joins says how it is addressed, and not what failed before it did.
    fake::answer([Raised::of(Kind::MULTICAST_JOIN)]);
    assert_eq!(next(&channel, joining(&channel)).attributes().qp_num, 0);
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn a_group_that_the_network_has_lost_is_left_and_another_s_loss_changes_nothing() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let join = || {
        fake::answer([Raised::of(Kind::MULTICAST_JOIN).group()]);
        let id = joining(&channel);
        let raw = id.as_raw();
        (next(&channel, id), raw)
    };
    for (kind, status, errno) in [
        (Kind::MULTICAST_ERROR, -libc::ENETDOWN, libc::ENETDOWN),
        (Kind::MULTICAST_ERROR, 0, libc::EHOSTUNREACH),
        (Kind::DEVICE_REMOVAL, 0, libc::ENODEV),
    ] {
        let ((lost, at_lost), (kept, at_kept)) = (join(), join());
        assert_eq!((lost.attributes().qp_num, lost.attributes().qkey), (0xff_ffff, fake::QKEY));
        // What says nothing of a group that is joined.
        fake::raise(at_kept, &Raised::of(Kind::ADDR_CHANGE));
        let kept = same(&channel, kept);
        fake::raise(at_lost, &Raised::of(kind).status(status).group());
        let Ok(Progress::Same(kept, notice)) = kept.handle(notice(&channel)) else {
            panic!("it is another's loss")
        };
        assert_eq!((notice.id(), notice.private_data()), (Some(Waits::number(&lost)), &[][..]));
        fake::calls();
        let Err(not) = lost.handle(notice) else { panic!("it is there still") };
        assert_eq!(group_error(&not.error), Some(errno), "{not}");
        assert_eq!(destroyed(), 1, "it is left");
        drop(kept);
        assert_eq!(destroyed(), 1);
    }
    // It is joined anew by another identifier.
    assert_eq!(join().0.attributes().path.lid, 0xc001);
    let calls = fake::calls();
    assert!(!calls.iter().any(|call| call == "DEADLOCK" || call == "USE AFTER END"), "{calls:?}");
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn a_connection_of_the_blocking_form_goes_on_in_an_event_loop() {
    let library = library();
    let channel = library.event_channel().unwrap();
    let resolved = resolved(&library);
    let pair = queue_pair(resolved.context());
    let connection = resolved.connect(pair, &ConnectionParameters::new(), LONG).unwrap();
    fake::raise(connection.id().as_raw(), &Raised::of(Kind::DISCONNECTED));
    let id = connection.into_id(&channel).unwrap();
    assert_eq!(next(&channel, id).how(), Ended::Disconnected, "its event came along");
    let calls = fake::calls();
    assert!(!calls.iter().any(|call| call == "DEADLOCK" || call == "USE AFTER END"), "{calls:?}");
}
