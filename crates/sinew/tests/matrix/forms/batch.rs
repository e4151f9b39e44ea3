//! Batches: slices of receives and of messages to send.

use super::{Form, Got, Wanted, memory};
use crate::common::PATIENCE;
use sinew::{Buf, Endpoint, OpError, Outgoing, Peer, Receive};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Receives of a batch.
const WIDTH: usize = 3;

pub(super) struct Batches;

impl Form for Batches {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        let mut memory = memory(room);
        let mut batch = [Receive::new(wanted.pattern, &mut memory)];
        let ended = catch_unwind(AssertUnwindSafe(|| at.recv_all_within(&mut batch, limit)));
        let [mut receive] = batch;
        let ended = match ended {
            Ok(ended) => ended,
            // What a batch has received stands in it, also when the call was broken.
            Err(panic) if receive.result().is_none() => resume_unwind(panic),
            Err(_) => Ok(1),
        };
        let result = match (receive.again(wanted.pattern), ended) {
            (Some(result), _) => result,
            (None, Err(error)) => Err(error),
            (None, Ok(count)) => panic!("{count} have ended, not this one"),
        };
        drop(receive);
        Got::into_memory(result, memory)
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        to.send_batch_within(&[Outgoing::tagged(tag, &load)], limit)?;
        Ok(load.len())
    }

    /// As many as there are, up to the width: those that did not end are in order behind those that did.
    fn take(
        &self,
        at: &Endpoint,
        wanted: Wanted,
        room: usize,
        _over: &AtomicBool,
        on: &mut dyn FnMut(&[u8], u64) -> bool,
    ) -> Result<(), OpError> {
        loop {
            let mut memories: [Vec<u8>; WIDTH] = std::array::from_fn(|_| memory(room));
            let mut batch = memories.each_mut().map(|memory| Receive::new(wanted.pattern, memory));
            at.recv_batch_within(&mut batch, PATIENCE)?;
            let mut open = false;
            for receive in &batch {
                match receive.result() {
                    Some(Ok(info)) => {
                        assert!(!open, "a later receive of the batch got an earlier message");
                        if !on(receive.data(), info.tag) {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => return Err(error.clone()),
                    None => open = true,
                }
            }
        }
    }
}
