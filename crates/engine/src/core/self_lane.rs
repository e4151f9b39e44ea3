//! The lane from an engine to itself: what is posted is what is polled. Used for messages between endpoints of one engine.
#![allow(unsafe_code)]

use sinew_transport::{
    Body, Capabilities, Cost, Lane, LaneError, LaneInfo, Limits, PostError, Sink, Token, Unacknowledged,
    UnacknowledgedBody,
};
use sinew_wire::frame::Header;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;

/// Frames that wait; more answer `Full`.
const DEPTH: usize = 1024;

pub(crate) struct SelfLane {
    info: LaneInfo,
    frames: VecDeque<(Header, Vec<u8>)>,
    released: Vec<Token>,
}

impl SelfLane {
    pub(crate) fn new() -> Self {
        let capabilities =
            Capabilities { pull: false, view: false, memory_polled: true, local: true, death_detected: true };
        let info = LaneInfo {
            transport: "self",
            peer: "this engine".to_owned(),
            capabilities,
            cost: Cost { latency_ns: 50, per_byte_ps: 20, overhead_ns: 20 },
            limits: Limits { frame_max: 64 << 10, borrowed_max: 64 << 10 },
        };
        Self { info, frames: VecDeque::new(), released: Vec::new() }
    }
}

// SAFETY: it copies what it is lent during the call, and places nothing.
unsafe impl Lane for SelfLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let len: usize = body.iter().map(|part| part.len()).sum();
        if len > self.info.limits.frame_max {
            return Err(PostError::TooLarge);
        }
        if self.frames.len() >= DEPTH {
            return Err(PostError::Full);
        }
        let mut bytes = Vec::with_capacity(len);
        body.iter().for_each(|part| bytes.extend_from_slice(part));
        self.frames.push_back((*header, bytes));
        Ok(())
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        // SAFETY: readable for `len` bytes during the call, by this method's contract.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr(), len) };
        self.try_post(header, &[IoSlice::new(bytes)])?;
        self.released.push(token);
        Ok(())
    }

    fn reclaim(&mut self, token: Token) {
        self.released.retain(|&released| released != token);
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        Ok(())
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        let mut done = 0;
        while done < budget
            && let Some((header, bytes)) = self.frames.pop_front()
        {
            sink.frame(&header, Body::from_slice(&bytes));
            done += 1;
        }
        for token in self.released.drain(..) {
            sink.released(token);
            done += 1;
        }
        Ok(done)
    }

    fn has_more(&self) -> bool {
        !self.frames.is_empty() || !self.released.is_empty()
    }

    fn unacknowledged(&self) -> u64 {
        self.frames.len() as u64
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        self.frames
            .drain(..)
            .map(|(header, bytes)| Unacknowledged { header, body: UnacknowledgedBody::Owned(bytes) })
            .collect()
    }

    unsafe fn redirect(&mut self, _from: Token, _target: NonNull<u8>, _to: Token) {}

    fn revoke(&mut self, _token: Token) {}

    fn close(&mut self) {}
}
