//! Calls that borrow and wait. Messages from the pool are received where they are.

use super::{Form, Got, Wanted, memory};
use sinew::{Buf, Endpoint, OpError, Peer};
use std::time::Duration;

pub(super) struct Blocking;

impl Form for Blocking {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        let mut memory = memory(room);
        let result = at.recv_within(wanted.pattern, &mut memory, limit);
        Got::into_memory(result, memory)
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        to.message(tag).timeout(limit).send(&load).map(|()| load.len())
    }
}
