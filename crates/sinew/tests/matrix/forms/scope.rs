//! Operations on borrowed buffers in a scope.

use super::{Form, Got, Wanted, memory};
use sinew::{Buf, Endpoint, OpError, Peer};
use std::time::Duration;

/// Of this endpoint.
pub(super) struct Scoped(pub(super) Endpoint);

impl Form for Scoped {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        let mut memory = memory(room);
        let result = at.scope(|scope| scope.recv(wanted.pattern, &mut memory)?.wait_within(limit).0);
        Got::into_memory(result, memory)
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        self.0.scope(|scope| scope.send(to, tag, &load)?.wait_within(limit)).map(|()| load.len())
    }
}
