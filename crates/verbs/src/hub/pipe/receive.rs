//! A pipe's receives.
#![allow(unsafe_code)]

use super::super::{Rejected, Success};
use super::Pipe;
use crate::cq::WorkCompletion;
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::qp::{Connected, ReceiveRequest};
use crate::work::WorkError;
use std::ptr::NonNull;

/// A receive that ended, with its buffer.
#[derive(Debug)]
pub struct Received {
    /// Where the message is, if one came.
    pub buffer: Buffer,
    /// How it ended; of a message, how long it is and what came along.
    pub result: std::result::Result<Success, WorkError>,
}

impl<S: Connected, E> Pipe<S, E> {
    /// Posts a receive: a message of up to the buffer's length goes there. Never blocks, never allocates.
    ///
    /// # Errors
    /// With the buffer: [`Error::Full`] when the receive queue has no place; [`Error::Invalid`] for a buffer of another domain, or longer than an element can name. Where the device
    /// failed in the call itself it may have taken the receive: then the error comes alone, and the buffer by [`poll_received`](Self::poll_received) or [`reset`](Self::reset).
    pub fn post_receive(&mut self, buffer: Buffer) -> std::result::Result<(), Rejected<Option<Buffer>>> {
        let rejected = |buffer, error| Err(Rejected { operation: Some(buffer), error });
        let (element, count) = match self.element(&buffer, None) {
            Ok(element) => element,
            Err(error) => return rejected(buffer, *error),
        };
        let depth = self.receives.depth();
        let Some((number, place)) = self.receives.vacancy() else {
            return rejected(buffer, Error::Full { queue: "receive queue", depth });
        };
        *place = Some(buffer);
        let list = NonNull::from(&element);
        let request = ReceiveRequest::of(number.into(), list.as_ptr(), count as usize);
        // SAFETY: the ring keeps the buffer, registered in the queue pair's domain, until the receive has ended, or the queue pair is destroyed; it has room, so the
        // queue and the completion queue have.
        match unsafe { self.qp.post_receives(&mut [request]) } {
            Ok(()) => self.receives.advance(),
            Err(failed) if failed.is_uncertain => {
                self.receives.advance();
                self.cut();
                return Err(Rejected { operation: None, error: failed.error });
            }
            Err(failed) => return Err(Rejected { operation: place.take(), error: failed.error }),
        }
        Ok(())
    }

    /// The next receive that ended, if one has. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed: what is out stays with the pipe.
    pub fn poll_received(&mut self) -> Result<Option<Received>> {
        let Some((completion, number)) = self.next_received()? else { return Ok(None) };
        self.received.skip();
        let Some(buffer) = self.receives.end_one(number) else { return Ok(None) };
        let result = completion.ok().map(|()| Success::of(&completion, false));
        Ok(Some(Received { buffer, result }))
    }

    /// The completion of a receive that comes next, and the receive's number. It stays the next.
    pub(super) fn next_received(&mut self) -> Result<Option<(WorkCompletion, u32)>> {
        // A device that makes completions up keeps nobody here.
        for _ in 0..self.received.queue.entries() {
            let Some(completion) = self.received.peek()? else { break };
            let is_ours = completion.qp_num() == self.number;
            let number = u32::try_from(completion.wr_id()).ok().filter(|_| is_ours);
            if let Some(number) = number.filter(|number| self.receives.has(*number)) {
                return Ok(Some((completion, number)));
            }
            self.received.skip();
            self.strays += 1;
        }
        Ok(None)
    }
}
