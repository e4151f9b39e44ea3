//! Futures, polled by the simplest executor there is.

use super::{Begun, Form, Got, Wanted, caught, memory, on_purpose};
use crate::common::PATIENCE;
use sinew::{Buf, Endpoint, OpError, Peer, RecvOp, SendOp};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

pub(super) struct Polled;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until the future is ready or `limit` has passed. Only its waker makes it poll again.
fn block_on<F: Future + Unpin>(future: &mut F, limit: Duration) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut context) {
            return Some(output);
        }
        let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
        std::thread::park_timeout(left);
    }
}

impl Form for Polled {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        let mut op = match at.post_recv(wanted.pattern, memory(room)) {
            Ok(op) => op,
            Err(failed) => return Got::received(Err(failed)),
        };
        Got::received(block_on(&mut op, limit).unwrap_or_else(|| op.wait_within(Duration::ZERO)))
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        let mut op = to.post_send(tag, load)?;
        Got::sent(block_on(&mut op, limit).unwrap_or_else(|| op.wait_within(Duration::ZERO))).result
    }

    fn begin_recv(&self, at: &Endpoint, wanted: Wanted, room: usize) -> Box<dyn Begun> {
        Box::new(Begin::new(at.post_recv(wanted.pattern, memory(room)).expect("posted")))
    }

    fn begin_send(&self, to: &Peer, tag: u64, load: Buf) -> Box<dyn Begun> {
        Box::new(Begin::new(to.post_send(tag, load).expect("posted")))
    }
}

/// A future that was polled: its waker is known to the engine.
struct Begin<F: Future>(Result<F, F::Output>);

impl<F: Future + Unpin> Begin<F> {
    fn new(mut op: F) -> Self {
        Self(match block_on(&mut op, Duration::ZERO) {
            Some(output) => Err(output),
            None => Ok(op),
        })
    }

    /// A task that polls it and then panics; what it was given, if that was it.
    fn panic_in_poll(self) -> Option<F::Output> {
        let mut op = match self.0 {
            Ok(op) => op,
            Err(output) => return Some(output),
        };
        let mut given = None;
        caught(|| {
            let mut task = std::future::poll_fn(|context| -> Poll<()> {
                if let Poll::Ready(output) = Pin::new(&mut op).poll(context) {
                    given = Some(output);
                }
                on_purpose()
            });
            block_on(&mut task, PATIENCE);
        });
        given
    }
}

impl Begun for Begin<RecvOp> {
    fn cancel(self: Box<Self>) -> Got {
        Got::received(self.0.map_or_else(std::convert::identity, RecvOp::cancel))
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        self.0.err().map(Got::received)
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        self.panic_in_poll().map(Got::received)
    }
}

impl Begun for Begin<SendOp> {
    fn cancel(self: Box<Self>) -> Got {
        Got::sent(self.0.map_or_else(std::convert::identity, SendOp::cancel))
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        self.0.err().map(Got::sent)
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        self.panic_in_poll().map(Got::sent)
    }
}
