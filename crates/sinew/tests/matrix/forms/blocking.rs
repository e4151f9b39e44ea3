//! Calls that borrow and wait. Messages from the pool are received where they are.

use super::{Form, Got, Wanted, memory};
use sinew::{Buf, Endpoint, OpError, Peer};
use std::time::Duration;

pub(super) struct Blocking {
    /// Messages are received where they are.
    pub(super) in_place: bool,
}

impl Form for Blocking {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        if self.in_place {
            let result = at.recv_message_within(wanted.pattern, room, limit);
            let mut memory = memory(room);
            if let Ok(message) = &result {
                message.read_at(0, &mut memory);
            }
            return Got::into_memory(result.map(|message| *message.info()), memory);
        }
        let mut memory = memory(room);
        let result = at.recv_within(wanted.pattern, &mut memory, limit);
        Got::into_memory(result, memory)
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        to.message(tag).timeout(limit).send(&load).map(|()| load.len())
    }
}
