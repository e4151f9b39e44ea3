//! The forms of operations, made to look alike, so that a scenario is written once.
//!
//! Used by the scenarios in `events`. A form only translates: it checks nothing and hides no error.

mod batch;
mod blocking;
mod callback;
mod future;
mod handler;
mod owned;
mod scope;
#[cfg(feature = "tokio")]
mod tokio;

use crate::world::{Cell, Size, THREAD};
use sinew::{Buf, Endpoint, Engine, Failed, Match, OpError, Peer, Progress, Received, Source};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// All of them.
#[cfg(feature = "tokio")]
pub(crate) const NAMES: [&str; 8] =
    ["blocking", "scope", "owned", "future", "tokio", "handler", "callback", "batch"];
#[cfg(not(feature = "tokio"))]
pub(crate) const NAMES: [&str; 7] = ["blocking", "scope", "owned", "future", "handler", "callback", "batch"];

/// What memory of receives is filled with before.
pub(crate) const CANARY: u8 = 0xcc;

/// Who makes progress where a form is used.
pub(crate) fn progress_of(form: &str) -> Progress {
    match form {
        "future" | "handler" | "callback" => THREAD,
        "tokio" => Progress::Event,
        _ => Progress::Caller,
    }
}

/// The form, for operations of one engine and endpoint.
pub(crate) fn make(cell: Cell, engine: &Engine, at: &Endpoint) -> Box<dyn Form> {
    let _ = engine;
    match cell.form {
        "blocking" => Box::new(blocking::Blocking { in_place: cell.size == Size::Loan }),
        "scope" => Box::new(scope::Scoped(at.clone())),
        "owned" => Box::new(owned::Owned),
        "future" => Box::new(future::Polled),
        #[cfg(feature = "tokio")]
        "tokio" => Box::new(self::tokio::Tasks::start(engine)),
        "handler" => Box::new(handler::Handlers::default()),
        "callback" => Box::new(callback::Callbacks),
        "batch" => Box::new(batch::Batches),
        other => panic!("no form {other}"),
    }
}

/// Which messages a receive wants.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) tag: u64,
    pattern: Match,
}

impl Wanted {
    pub(crate) fn from(tag: u64, source: Source) -> Self {
        Self { tag, pattern: Match::tag(tag).from(source) }
    }

    pub(crate) fn from_anybody(tag: u64) -> Self {
        Self { tag, pattern: Match::tag(tag) }
    }

    /// A stream and its end, whose tag is the next.
    pub(crate) fn stream(self) -> Self {
        Self { pattern: self.pattern.ignoring(1), ..self }
    }
}

/// An operation that has ended, with its memory: for a receive the message, or all of it when there is none.
pub(crate) struct Got {
    pub(crate) result: Result<usize, OpError>,
    pub(crate) tag: u64,
    pub(crate) memory: Buf,
}

impl Got {
    fn received(result: Result<Received, Failed>) -> Self {
        match result {
            Ok(got) => Self { result: Ok(got.info.len), tag: got.info.tag, memory: got.buf },
            Err(failed) => Self { result: Err(failed.error), tag: 0, memory: failed.buf },
        }
    }

    fn into_memory(result: Result<sinew::Completion, OpError>, memory: Vec<u8>) -> Self {
        let tag = result.as_ref().map_or(0, |info| info.tag);
        Self { result: result.map(|info| info.len), tag, memory: memory.into() }
    }

    fn sent(result: Result<Buf, Failed>) -> Self {
        match result {
            Ok(buf) => Self { result: Ok(buf.len()), tag: 0, memory: buf },
            Err(failed) => Self { result: Err(failed.error), tag: 0, memory: failed.buf },
        }
    }

    /// The message that must have come.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.result {
            Ok(len) => &self.memory[..*len],
            Err(error) => panic!("no message: {error}"),
        }
    }

    /// Whether nothing was ever written into the memory of this receive.
    pub(crate) fn is_untouched(&self) -> bool {
        self.memory.iter().all(|&byte| byte == CANARY)
    }
}

/// Memory for a receive.
pub(crate) fn memory(room: usize) -> Vec<u8> {
    vec![CANARY; room]
}

/// A way to send and receive.
pub(crate) trait Form: Send + Sync {
    /// Receives one message; gives up after `limit`.
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got;

    /// Sends one message; gives up after `limit`.
    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError>;

    /// Receives until `on` has had enough, or an error. `over` ends it where a form hears of no error.
    fn take(
        &self,
        at: &Endpoint,
        wanted: Wanted,
        room: usize,
        over: &AtomicBool,
        on: &mut dyn FnMut(&[u8], u64) -> bool,
    ) -> Result<(), OpError> {
        let _ = over;
        loop {
            let got = self.recv(at, wanted, room, crate::common::PATIENCE);
            match &got.result {
                Ok(_) if on(got.bytes(), got.tag) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.clone()),
            }
        }
    }

    /// Whether a receive of this form is told that nothing will ever come.
    fn is_told(&self) -> bool {
        true
    }

    /// Starts a receive that can be ended early. It is posted when this returns.
    fn begin_recv(&self, _at: &Endpoint, _wanted: Wanted, _room: usize) -> Box<dyn Begun> {
        unreachable!("the table has no such cell")
    }

    /// Starts a send that can be ended early.
    fn begin_send(&self, _to: &Peer, _tag: u64, _load: Buf) -> Box<dyn Begun> {
        unreachable!("the table has no such cell")
    }
}

/// An operation under way.
pub(crate) trait Begun {
    /// Ends it by the form's own word for that.
    fn cancel(self: Box<Self>) -> Got;
    /// Drops it; when this returns, it has been dropped. Answers what it had given out before, if it had.
    fn abandon(self: Box<Self>) -> Option<Got>;
    /// Panics where it is held, or polled. Answers what it had given out before, if it had.
    fn panic(self: Box<Self>) -> Option<Got>;
}

/// Runs what is to panic.
pub(crate) fn caught(f: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    assert!(result.is_err(), "it should have panicked");
}

/// The panic that cells are about. It prints nothing.
pub(crate) fn on_purpose() -> ! {
    std::panic::resume_unwind(Box::new("on purpose"))
}
