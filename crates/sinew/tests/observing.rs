//! Seeing inside: counters, histograms, options, events.

mod common;

use common::{PATIENCE, options, pair_with, until};
use sinew::{Engine, EngineOptions, Progress};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn exchange(options: EngineOptions) -> (sinew::Endpoint, sinew::Endpoint, Engine) {
    let engine = Engine::builder().domain("observing").options(options).build().unwrap();
    let (a, b) = (engine.endpoint("a").unwrap(), engine.endpoint("b").unwrap());
    let peer = a.connect(b.address()).unwrap();
    let mut buf = [0; 100];
    for tag in 0..20 {
        peer.send(tag, &[1; 100]).unwrap();
        b.recv(tag, &mut buf).unwrap();
    }
    (a, b, engine)
}

/// One test at a time has an engine: where an event was first met while another thread made its subscriber, `tracing` may hold that
/// nobody listens.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn counters_of_endpoints_and_lanes_say_what_was_moved() {
    let _alone = alone();
    let (a, b, engine) = exchange(EngineOptions::default());
    let (sent, got) = (a.counters(), b.counters());
    assert_eq!((sent.messages_sent, sent.bytes_sent, sent.messages_received), (20, 2000, 0));
    assert_eq!((got.messages_received, got.bytes_received, got.unexpected, got.posted), (20, 2000, 0, 0));
    let lanes = engine.lanes();
    assert_eq!(lanes.len(), 1);
    assert!(lanes[0].frames_sent >= 20 && lanes[0].frames_received >= 20, "{lanes:?}");
    assert_eq!((engine.counters().endpoints, engine.counters().sessions), (2, 1));
}

#[test]
fn histograms_exist_only_when_they_are_switched_on() {
    let _alone = alone();
    let (a, b, engine) = exchange(EngineOptions::default());
    assert!(a.histograms().is_none() && b.histograms().is_none() && engine.lane_histograms().is_empty());
    let (a, b, engine) = exchange(EngineOptions::default().histograms(true));
    let (send, recv) = (a.histograms().unwrap().send, b.histograms().unwrap().recv);
    assert_eq!((send.count, recv.count), (20, 20));
    let lanes = engine.lane_histograms();
    assert_eq!(lanes.len(), 1);
    assert_eq!((lanes[0].transport.as_str(), lanes[0].send.count, lanes[0].recv.count), ("self", 20, 20));
    assert!(lanes[0].send.p50 <= lanes[0].send.max && lanes[0].send.max > std::time::Duration::ZERO);
    assert!(send.p50 <= send.p99 && send.p99 <= send.max && send.mean > std::time::Duration::ZERO);
}

#[test]
fn every_option_and_event_has_a_name_and_a_help_text() {
    let rows: Vec<_> = sinew::option_tables().into_iter().flatten().collect();
    assert!(rows.len() > 15);
    assert!(
        rows.iter().all(|row| row.env.starts_with("SINEW_") && !row.help.is_empty() && !row.cost.is_empty())
    );
    assert!(sinew::events::TABLE.len() >= 7);
    assert!(sinew::events::TABLE.iter().all(|row| !row.help.is_empty()));
}

/// Hears the name of each event of ours.
struct Hears<F>(F);

struct Name(String);

impl tracing::field::Visit for Name {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "event" {
            self.0 = format!("{value:?}").trim_matches('"').to_owned();
        }
    }
}

impl<F: Fn(&str) + Send + Sync + 'static> tracing::Subscriber for Hears<F> {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sinew"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut name = Name(String::new());
        event.record(&mut name);
        (self.0)(&name.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_lost_session_is_told_to_tracing() {
    let _alone = alone();
    let names = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&names);
    tracing::subscriber::with_default(
        Hears(move |name: &str| heard.lock().unwrap().push(name.to_owned())),
        || {
            let (_a, _b, engine) = exchange(EngineOptions::default());
            engine.close(std::time::Duration::from_secs(1)).unwrap();
        },
    );
    let names = names.lock().unwrap();
    assert!(names.iter().any(|name| name == "session_lost"), "{names:?}");
}

/// As one that ships what it hears through the engine would.
#[test]
fn a_subscriber_may_call_the_engine_that_tells_it() {
    let _alone = alone();
    // The other side stands still: its thread could meet the event first, and `tracing` asks that thread's subscriber alone then.
    let p = pair_with("uds", Progress::Caller, Progress::Caller, options());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (engine, to) = (p.here.clone(), Arc::clone(&heard));
    let told = move |name: &str| to.lock().unwrap().push((name.to_owned(), engine.counters().sessions_lost));
    tracing::subscriber::with_default(Hears(told), || {
        p.here.cut(&p.to_b);
        until("a lost lane was told", || {
            p.here.progress();
            heard.lock().unwrap().iter().any(|(name, _)| name == "lane_lost")
        });
        p.here.lose(&p.to_b);
        assert!(heard.lock().unwrap().contains(&("session_lost".to_owned(), 1)), "{heard:?}");
    });
}

#[test]
fn a_handler_whose_panic_panics_its_subscriber_too_can_be_dropped() {
    let _alone = alone();
    let p = pair_with("uds", Progress::Caller, Progress::Caller, options());
    let shown = Arc::new(AtomicBool::new(false));
    let show = Arc::clone(&shown);
    let handler =
        p.b.on_message(1, 16, 2, move |_, _| {
            show.store(true, Ordering::SeqCst);
            std::panic::resume_unwind(Box::new("in a handler"));
        })
        .unwrap();
    p.to_b.send(1, b"one").unwrap();
    let told = |name: &str| {
        if name == "handler_panicked" {
            std::panic::resume_unwind(Box::new("in a subscriber"));
        }
    };
    tracing::subscriber::with_default(Hears(told), || {
        until("the handler was called", || {
            p.here.progress();
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| p.there.progress()));
            shown.load(Ordering::SeqCst)
        });
    });
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(handler);
        say.send(())
    });
    said.recv_timeout(PATIENCE).expect("nobody is in a call of it");
}

#[test]
fn a_subscriber_may_drop_the_handler_whose_panic_it_is_told() {
    let _alone = alone();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let p = pair_with("uds", Progress::Caller, Progress::Caller, options());
        let panics = |_: &[u8], _: &sinew::Completion| std::panic::resume_unwind(Box::new("in a handler"));
        let handler = Arc::new(Mutex::new(Some(p.b.on_message(1, 16, 2, panics).unwrap())));
        let kept = Arc::clone(&handler);
        p.to_b.send(1, b"one").unwrap();
        let told = move |name: &str| {
            if name == "handler_panicked" {
                drop(kept.lock().unwrap().take());
            }
        };
        tracing::subscriber::with_default(Hears(told), || {
            until("the panic was told", || {
                p.here.progress();
                p.there.progress();
                handler.lock().unwrap().is_none()
            });
        });
        say.send(())
    });
    said.recv_timeout(PATIENCE).expect("a drop inside of what the call has led to waits for nothing");
}

/// Everything that a public signature names can be named by a program that knows the facade only.
#[test]
fn what_public_signatures_name_is_in_the_facade() {
    use sinew::frame::Header;
    use sinew::{Address, AddressError, AddressErrorKind, EndpointRef, Explicit, Name, Target};
    let explicit: Explicit = "tcp://127.0.0.1:4000/worker".parse().unwrap();
    assert_eq!(explicit.endpoint(), &EndpointRef::Name(Name::new("worker").unwrap()));
    let target: Target =
        "auto:tcp://127.0.0.1:4000,uds:///tmp/x".parse().unwrap_or(Target::Explicit(explicit));
    assert!(matches!(target.endpoint(), EndpointRef::Default | EndpointRef::Name(_)));
    let error: AddressError = "no address".parse::<Address>().unwrap_err();
    let kind: AddressErrorKind = error.kind;
    assert!(!format!("{kind:?}").is_empty());
    let failed: Result<EngineOptions, sinew::OptionError> =
        EngineOptions::from_environment([("SINEW_TIMEOUT", "soon")]);
    assert!(failed.unwrap_err().to_string().contains("SINEW_TIMEOUT"));
    let kind: sinew::OptionKind = EngineOptions::TABLE[0].kind;
    assert!(!kind.name().is_empty());
    let error = sinew::TransportError::os(sinew::Errno::NOENT, "open", "x");
    assert_eq!(
        (error.kind, error.code),
        (sinew::ErrorKind::Refused, Some(sinew::Code::errno(sinew::Errno::NOENT)))
    );
    let buf = sinew::Buf::from(sinew::Bytes::from_static(b"bytes"));
    assert!(!buf.is_writable());
    let _: Option<fn(&mut dyn sinew::transport::Sink, &Header)> = None;
}
