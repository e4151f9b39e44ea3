//! The faults that the system before us had (row R11): each of them cannot be written, or ends well.

use super::*;

fn listener(library: &Library) -> (EventChannel, Id<Listening>) {
    let channel = library.event_channel().unwrap();
    let id = channel.id(PortSpace::TCP).unwrap().bind(at()).unwrap().listen(1).unwrap();
    (channel, id)
}

fn assert_no_wait() {
    let calls = fake::calls();
    assert!(!calls.iter().any(|call| call == "DEADLOCK" || call == "USE AFTER END"), "{calls:?}");
}

#[test]
fn r11_only_a_request_gives_an_identifier_and_it_gives_it_once() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    for kind in (0..25).filter(|kind| *kind != Kind::CONNECT_REQUEST.0) {
        fake::raise(id.as_raw(), &Raised { kind, ..Raised::default() });
        let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("kind {kind}") };
        assert_eq!((notice.id(), notice.kind().0), (Some(id.number()), kind));
    }
    // A request that names no listener gives nothing that could be owned twice.
    fake::raise(id.as_raw(), &Raised::of(Kind::CONNECT_REQUEST));
    assert!(matches!(channel.event().unwrap(), Some(Event::Notice(_))));
    fake::request(id.as_raw(), &Raised::of(Kind::CONNECT_REQUEST).data(b"x").conn(asking(1)));
    let Some(Event::Request(request)) = channel.event().unwrap() else { panic!("no request") };
    assert_eq!((request.listener(), request.private_data()), (id.number(), &b"x"[..]));
    assert_ne!(request.number(), id.number());
    let owned = request;
    fake::raise(owned.as_raw(), &Raised::of(Kind::DISCONNECTED));
    let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
    assert_eq!(notice.id(), Some(owned.number()));
    drop((owned, id));
    assert_no_wait();
}

#[test]
fn r11_a_live_event_never_keeps_its_identifier_from_ending() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    let event = channel.event().unwrap().unwrap();
    fake::request(id.as_raw(), &Raised::of(Kind::CONNECT_REQUEST));
    let request = channel.event().unwrap().unwrap();
    drop(id);
    assert_no_wait();
    // Both still say what they are, and the request still owns what it gives out.
    assert!(format!("{event:?}").contains("ADDR_CHANGE"));
    drop((request, event, channel));
    let calls = fake::calls();
    assert_eq!(calls, ["destroy_id", "destroy_event_channel"]);
}

#[test]
fn r11_events_of_an_identifier_that_has_ended_do_not_come() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    let other = channel.id::<Rc>(PortSpace::TCP).unwrap();
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    fake::raise(other.as_raw(), &Raised::of(Kind::DEVICE_REMOVAL));
    drop(id);
    let Some(Event::Notice(notice)) = channel.wait(Some(LONG)).unwrap() else { panic!("no event") };
    assert_eq!((notice.id(), notice.kind()), (Some(other.number()), Kind::DEVICE_REMOVAL));
    assert!(channel.wait(Some(SHORT)).unwrap().is_none());
    assert_no_wait();
}

#[test]
fn r11_private_data_is_copied_before_the_library_takes_it_back() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    fake::raise(id.as_raw(), &Raised::of(Kind::REJECTED).status(28).data(b"because"));
    let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
    assert_eq!((notice.private_data(), notice.status()), (&b"because"[..], Status::REFUSED));
}

#[test]
fn r11_what_an_unknown_event_carries_is_not_taken_for_private_data() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    // The bytes of such an event are a number; read as a pointer they would be followed.
    let mut wild = Raised { kind: Kind::USER.0, ..Raised::default() };
    wild.data = b"not to be read".to_vec();
    for kind in [Kind::USER.0, Kind::MULTICAST_JOIN.0, 99] {
        wild.kind = kind;
        fake::raise(id.as_raw(), &wild);
        let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
        assert!(notice.private_data().is_empty(), "kind {kind}");
    }
}

#[test]
fn r11_an_identifier_moves_with_its_events_and_can_end_on_either_channel() {
    let library = fake::library();
    let (channel, mut id) = listener(&library);
    let (own, third) = (library.event_channel().unwrap(), library.event_channel().unwrap());
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    id.migrate(&own).unwrap();
    id.migrate(&own).unwrap();
    assert!(channel.event().unwrap().is_none());
    assert!(own.event().unwrap().is_some());
    fake::fail("migrate_id", libc::EINVAL);
    id.migrate(&third).unwrap_err();
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    assert!(own.event().unwrap().is_some(), "it stays where it was");
    assert!(id.migrate(&fake::library().event_channel().unwrap()).is_err());
    drop(channel);
    id.migrate(&third).unwrap();
    drop((own, third));
    drop(id);
    assert_no_wait();
}

#[test]
fn r11_two_threads_that_migrate_towards_each_other_both_end() {
    let library = fake::library();
    let (left, right) = (library.event_channel().unwrap(), library.event_channel().unwrap());
    let mut ids = [&left, &right].map(|channel| channel.id::<Rc>(PortSpace::TCP).unwrap());
    std::thread::scope(|scope| {
        for id in &mut ids {
            scope.spawn(|| {
                for _ in 0..200 {
                    id.migrate(&left).unwrap();
                    id.migrate(&right).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                left.event().unwrap();
                right.event().unwrap();
            }
        });
    });
}

#[test]
fn r11_interrupted_calls_are_made_again() {
    let library = fake::library();
    let (channel, id) = listener(&library);
    fake::raise(id.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    fake::fail("get_cm_event", libc::EINTR);
    assert!(channel.wait(Some(LONG)).unwrap().is_some());
    fake::fail("get_cm_event", libc::EIO);
    assert_eq!(channel.event().unwrap_err().errno(), Some(libc::EIO));
}

#[test]
fn r11_handles_are_for_every_thread() {
    fn anywhere<T: Send + Sync>() {}
    anywhere::<(
        EventChannel,
        Id<Established<QueuePair<Rc>>>,
        Event,
        Acceptor,
        Incoming,
        Resolved,
        Connection,
        Connector,
    )>();
}
