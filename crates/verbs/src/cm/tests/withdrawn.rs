//! Wishes to connect that are withdrawn while the kernel waits for the peer: nobody else waits, and nothing is lost or ended twice.

use super::fake::{self, End, Raised};
use super::{Kind, LONG, SHORT, queue_pair, resolved};
use crate::cm::{
    Connecting, ConnectionParameters, Event, EventChannel, Id, PortSpace, Progress, RouteResolved, Waits as _,
};
use crate::error::Error;
use crate::library::Library;
use crate::qp::{QueuePair, Rc};
use sinew_verbs_sys as sys;

fn next<W: crate::cm::Waits>(channel: &EventChannel, id: W) -> W::Next {
    let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
    match id.handle(notice) {
        Ok(Progress::Next(next)) => next,
        _ => panic!("it does not go on"),
    }
}

fn reached(channel: &EventChannel) -> Id<RouteResolved> {
    let id = channel.id::<Rc>(PortSpace::TCP).unwrap();
    let id = id.resolve_address(None, &super::at().into(), LONG).unwrap();
    let id = next(channel, id).resolve_route(LONG).unwrap();
    next(channel, id)
}

/// One that has asked a peer that does not answer.
fn asking(channel: &EventChannel) -> (Id<Connecting<QueuePair<Rc>>>, End) {
    let id = reached(channel);
    fake::answer([]);
    let pair = queue_pair(id.context());
    let id = id.connect(pair, &ConnectionParameters::new()).unwrap();
    let end = End::of(id.as_raw());
    (id, end)
}

fn of_iwarp() -> Library {
    let library = fake::library();
    fake::iwarp();
    // Who finds the device first does not keep its identifier for it.
    fake::list_device();
    library
}

#[test]
fn a_blocking_connect_over_iwarp_ends_at_its_deadline_while_the_kernel_waits_for_the_peer() {
    let library = of_iwarp();
    let resolved = resolved(&library);
    let end = End::of(resolved.id().as_raw()).waits();
    let pair = queue_pair(resolved.context());
    let number = pair.number();
    fake::answer([]);
    let not = resolved.connect(pair, &ConnectionParameters::new(), SHORT).unwrap_err();
    assert!(matches!(Error::from(not.error), Error::TimedOut { .. }));
    assert!(!end.has_come(), "who has a deadline waits for no end");
    assert_eq!(not.back.number(), number);
    drop(not.back);
    end.let_go();
    end.wait();
    assert!(!end.is_wrong());
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn others_of_the_channel_go_on_and_events_of_the_withdrawn_are_told_to_nobody() {
    let library = of_iwarp();
    let channel = library.event_channel().unwrap();
    let ((first, first_end), (second, second_end)) = (asking(&channel), asking(&channel));
    let (raw, third) = (first.as_raw(), reached(&channel));
    first_end.waits();
    second_end.waits();
    drop((first, second));
    first_end.await_begun();
    // What comes of it before it ends is taken, and acknowledged.
    fake::raise(raw, &Raised::of(Kind::CONNECT_ERROR));
    fake::raise(third.as_raw(), &Raised::of(Kind::ADDR_CHANGE));
    let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
    assert_eq!(notice.id(), Some(third.number()));
    assert!(channel.event().unwrap().is_none());
    assert!(third.local_address().is_ok() && !first_end.has_come() && !second_end.has_come());
    // Both at once, whichever the kernel lets go of first.
    second_end.let_go();
    first_end.let_go();
    first_end.wait();
    second_end.wait();
    assert!(!first_end.is_wrong() && !second_end.is_wrong());
    drop((third, channel));
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn a_channel_and_a_library_stay_until_what_was_withdrawn_has_ended() {
    let library = of_iwarp();
    let channel = library.event_channel().unwrap();
    let (id, end) = asking(&channel);
    let end = end.waits();
    drop(id.into_queue_pair());
    drop((channel, library));
    assert!(!end.has_come());
    end.let_go();
    end.wait();
    assert!(!end.is_wrong());
}

#[test]
fn an_end_that_is_refused_on_the_other_thread_is_counted_and_the_next_is_ended() {
    let library = of_iwarp();
    let channel = library.event_channel().unwrap();
    let ((first, first_end), (second, second_end)) = (asking(&channel), asking(&channel));
    let first_end = first_end.fails(libc::EIO);
    drop((first, second));
    first_end.wait();
    second_end.wait();
    assert!(!first_end.has_come() && second_end.has_come());
    let deadline = std::time::Instant::now() + LONG;
    while library.leaked_objects() == 0 {
        assert!(std::time::Instant::now() < deadline, "it is not counted");
        std::thread::yield_now();
    }
    assert_eq!(library.leaked_objects(), 1);
}

#[test]
fn what_was_answered_and_what_is_not_of_iwarp_ends_when_it_is_dropped() {
    let library = of_iwarp();
    let channel = library.event_channel().unwrap();
    for kind in [Kind::ESTABLISHED, Kind::REJECTED, Kind::CONNECT_ERROR, Kind::UNREACHABLE] {
        let (id, end) = asking(&channel);
        fake::raise(id.as_raw(), &Raised::of(kind).status(-libc::ECONNRESET));
        let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
        drop(id.handle(notice));
        assert!(end.has_come(), "{kind}");
    }
    // One that never asked.
    let id = reached(&channel);
    let end = End::of(id.as_raw());
    drop(id);
    assert!(end.has_come());
    super::device::speaks(sys::IbvTransportType::IB);
    let (id, end) = asking(&channel);
    drop(id);
    assert!(end.has_come(), "over InfiniBand no end waits");
    drop(channel);
    assert_eq!(library.leaked_objects(), 0);
}

#[test]
fn a_device_that_goes_away_is_no_answer() {
    let library = of_iwarp();
    let channel = library.event_channel().unwrap();
    let (id, end) = asking(&channel);
    let end = end.waits();
    fake::raise(id.as_raw(), &Raised::of(Kind::DEVICE_REMOVAL));
    let Some(Event::Notice(notice)) = channel.event().unwrap() else { panic!("no event") };
    drop(id.handle(notice).unwrap_err());
    assert!(!end.has_come());
    end.let_go();
    end.wait();
    assert!(!end.is_wrong());
}
