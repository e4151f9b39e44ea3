//! Receive handlers. They receive; what is sent beside them goes by owned operations.

use super::{Form, Got, Wanted};
use sinew::{Buf, Endpoint, Handler, OpError, Peer};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Receives that a handler keeps posted.
const DEPTH: usize = 3;

#[derive(Default)]
pub(super) struct Handlers {
    /// What handlers got before they could be unregistered, by the tag that they wanted.
    surplus: Mutex<VecDeque<(u64, Got)>>,
}

fn got(bytes: &[u8], info: &sinew::Completion) -> Got {
    Got { result: Ok(bytes.len()), tag: info.tag, memory: bytes.into() }
}

fn register(at: &Endpoint, wanted: Wanted, room: usize, depth: usize) -> (Handler, Receiver<Got>) {
    let (say, hear) = channel();
    let handler = at.on_message(wanted.pattern, room, depth, move |bytes, info| {
        let _ = say.send(got(bytes, info));
    });
    (handler.expect("registered"), hear)
}

impl Handlers {
    fn left_over(&self, tag: u64) -> Option<Got> {
        let mut surplus = self.surplus.lock().unwrap();
        let at = surplus.iter().position(|(of, _)| *of == tag)?;
        surplus.remove(at).map(|(_, got)| got)
    }

    fn keep(&self, tag: u64, hear: &Receiver<Got>) {
        self.surplus.lock().unwrap().extend(hear.try_iter().map(|got| (tag, got)));
    }
}

impl Form for Handlers {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        if let Some(got) = self.left_over(wanted.tag) {
            return got;
        }
        let (handler, hear) = register(at, wanted, room, 1);
        let first = hear.recv_timeout(limit).ok();
        handler.unregister();
        let first = first.or_else(|| hear.try_recv().ok());
        self.keep(wanted.tag, &hear);
        let nothing =
            || Got { result: Err(OpError::TimedOut { after: limit }), tag: 0, memory: Buf::zeroed(0) };
        first.unwrap_or_else(nothing)
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        Got::sent(to.post_send(tag, load).and_then(|op| op.wait_within(limit))).result
    }

    fn take(
        &self,
        at: &Endpoint,
        wanted: Wanted,
        room: usize,
        over: &AtomicBool,
        on: &mut dyn FnMut(&[u8], u64) -> bool,
    ) -> Result<(), OpError> {
        let (_handler, hear) = register(at, wanted, room, DEPTH);
        loop {
            match hear.recv_timeout(Duration::from_millis(2)) {
                Ok(got) if !on(got.bytes(), got.tag) => return Ok(()),
                Err(_) if over.load(Ordering::Acquire) => return Ok(()),
                _ => {}
            }
        }
    }

    fn is_told(&self) -> bool {
        false
    }
}
