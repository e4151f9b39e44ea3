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

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_transport::Placement;
    use sinew_wire::frame::Kind;

    /// What a poll hands up.
    #[derive(Default)]
    struct Seen(Vec<(u64, Vec<u8>)>, Vec<Token>);

    // SAFETY: it gives no memory away.
    unsafe impl Sink for Seen {
        fn frame(&mut self, header: &Header, body: Body<'_>) {
            self.0.push((header.tag, body.to_vec()));
        }

        fn place(&mut self, _header: &Header, _len: usize) -> Placement {
            Placement::Discard
        }

        fn placed(&mut self, _header: &Header, _len: usize) {}

        fn released(&mut self, token: Token) {
            self.1.push(token);
        }

        fn pulled(&mut self, _token: Token, _result: Result<(), LaneError>) {}
    }

    fn post(lane: &mut SelfLane, tag: u64, parts: &[&[u8]]) -> Result<(), PostError> {
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        lane.try_post(&Header::control(Kind::EAGER, tag), &parts)
    }

    #[test]
    fn what_is_posted_is_polled_in_order_as_far_as_the_budget_goes() {
        let mut lane = SelfLane::new();
        assert!(!lane.has_more() && lane.unacknowledged() == 0);
        for tag in 1..=3 {
            post(&mut lane, tag, &[&[tag as u8], b"and", b""]).unwrap();
        }
        assert_eq!((lane.has_more(), lane.unacknowledged()), (true, 3));
        assert!(lane.flush().is_ok());
        let mut seen = Seen::default();
        assert_eq!(lane.poll(&mut seen, 2).unwrap(), 2);
        assert_eq!(seen.0, [(1, b"\x01and".to_vec()), (2, b"\x02and".to_vec())]);
        assert_eq!((lane.has_more(), lane.unacknowledged()), (true, 1));
        assert_eq!(lane.poll(&mut seen, 2).unwrap(), 1);
        assert_eq!((seen.0.len(), lane.has_more(), lane.poll(&mut seen, 2).unwrap()), (3, false, 0));
    }

    #[test]
    fn memory_that_is_lent_is_let_go_of_with_the_next_poll_or_given_back_before() {
        let mut lane = SelfLane::new();
        let bytes = [7_u8; 10];
        for token in [Token(1), Token(2)] {
            let header = Header::data(5, 0);
            // SAFETY: the bytes outlive the call.
            unsafe { lane.try_post_borrowed(&header, NonNull::from(&bytes).cast(), 10, token).unwrap() };
        }
        lane.reclaim(Token(1));
        let mut seen = Seen::default();
        assert_eq!(lane.poll(&mut seen, 8).unwrap(), 3);
        assert_eq!((seen.0.len(), &seen.1[..]), (2, &[Token(2)][..]));
        assert_eq!(seen.0[0], (5, vec![7; 10]));
        // Also when its frame has been taken before.
        // SAFETY: as above.
        unsafe {
            lane.try_post_borrowed(&Header::data(5, 0), NonNull::from(&bytes).cast(), 10, Token(3)).unwrap()
        };
        lane.frames.clear();
        assert!(lane.has_more());
        assert_eq!(lane.poll(&mut seen, 8).unwrap(), 1);
        assert!(!lane.has_more());
    }

    #[test]
    fn so_many_frames_of_such_a_length_wait() {
        let mut lane = SelfLane::new();
        let most = vec![1; 64 << 10];
        assert_eq!(post(&mut lane, 1, &[&most, b"x"]), Err(PostError::TooLarge));
        post(&mut lane, 1, &[&most[..]]).unwrap();
        for _ in 1..1024 {
            post(&mut lane, 1, &[]).unwrap();
        }
        assert_eq!(post(&mut lane, 1, &[]), Err(PostError::Full));
        let left = lane.recover();
        assert_eq!((left.len(), left[0].header.tag), (1024, 1));
        assert!(!lane.has_more());
        post(&mut lane, 1, &[]).unwrap();
    }
}
