//! Operations whose end goes to a function.

use super::{Begun, Form, Got, Wanted, memory};
use crate::common::PATIENCE;
use sinew::{Buf, Endpoint, OnComplete, OpError, Peer};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub(super) struct Callbacks;

/// Waits for the function; after `limit` it is made to be called.
fn wait(op: OnComplete, hear: &Receiver<Got>, limit: Duration) -> Got {
    match hear.recv_timeout(limit) {
        Ok(got) => got,
        Err(_) => {
            op.cancel();
            called(hear)
        }
    }
}

fn called(hear: &Receiver<Got>) -> Got {
    let got = hear.recv_timeout(PATIENCE).expect("the function is called");
    assert!(hear.recv_timeout(PATIENCE).is_err(), "the function is called once, and then gone");
    got
}

impl Form for Callbacks {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        let (say, hear) = channel();
        match at.post_recv(wanted.pattern, memory(room)) {
            Ok(op) => wait(op.on_complete(move |end| told(&say, Got::received(end))), &hear, limit),
            Err(failed) => Got::received(Err(failed)),
        }
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        let (say, hear) = channel();
        let op = to.post_send(tag, load)?;
        wait(op.on_complete(move |end| told(&say, Got::sent(end))), &hear, limit).result
    }

    fn begin_recv(&self, at: &Endpoint, wanted: Wanted, room: usize) -> Box<dyn Begun> {
        let (say, hear) = channel();
        let op = at.post_recv(wanted.pattern, memory(room)).expect("posted");
        Box::new(Begin { op: op.on_complete(move |end| told(&say, Got::received(end))), hear })
    }

    fn begin_send(&self, to: &Peer, tag: u64, load: Buf) -> Box<dyn Begun> {
        let (say, hear) = channel();
        let op = to.post_send(tag, load).expect("posted");
        Box::new(Begin { op: op.on_complete(move |end| told(&say, Got::sent(end))), hear })
    }
}

fn told(say: &Sender<Got>, got: Got) {
    let _ = say.send(got);
}

struct Begin {
    op: OnComplete,
    hear: Receiver<Got>,
}

impl Begun for Begin {
    fn cancel(self: Box<Self>) -> Got {
        self.op.cancel();
        called(&self.hear)
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        unreachable!("dropping the handle ends nothing")
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        unreachable!("the functions themselves panic")
    }
}
