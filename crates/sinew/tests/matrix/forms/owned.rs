//! Operations that own their buffers and are waited for.

use super::{Begun, Form, Got, Wanted, caught, memory, on_purpose};
use sinew::{Buf, Endpoint, OpError, Peer, RecvOp, SendOp};
use std::time::Duration;

pub(super) struct Owned;

impl Form for Owned {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        Got::received(at.post_recv(wanted.pattern, memory(room)).and_then(|op| op.wait_within(limit)))
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        Got::sent(to.post_send(tag, load).and_then(|op| op.wait_within(limit))).result
    }

    fn begin_recv(&self, at: &Endpoint, wanted: Wanted, room: usize) -> Box<dyn Begun> {
        Box::new(at.post_recv(wanted.pattern, memory(room)).expect("posted"))
    }

    fn begin_send(&self, to: &Peer, tag: u64, load: Buf) -> Box<dyn Begun> {
        Box::new(to.post_send(tag, load).expect("posted"))
    }
}

impl Begun for RecvOp {
    fn cancel(self: Box<Self>) -> Got {
        Got::received(Self::cancel(*self))
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        None
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        // Between the post and the wait.
        caught(move || {
            let _op = self;
            on_purpose();
        });
        None
    }
}

impl Begun for SendOp {
    fn cancel(self: Box<Self>) -> Got {
        Got::sent(Self::cancel(*self))
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        None
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        caught(move || {
            let _op = self;
            on_purpose();
        });
        None
    }
}
