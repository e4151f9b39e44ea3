//! Pulls of a simulated lane that take a while.
#![allow(unsafe_code)]

use super::SimLane;
use crate::lane::memory::{Named, Target};
use crate::net::{Nanos, lock};
use sinew_transport::{ErrorKind, LaneError, Sink};

/// A pull that takes a while.
pub(super) struct Pulling {
    pub(super) from: Named,
    pub(super) target: Target,
    pub(super) len: usize,
    pub(super) due: Nanos,
}

impl SimLane {
    pub(super) fn end_pulls(&mut self, sink: &mut dyn Sink) -> usize {
        if self.pulls.is_empty() {
            return 0;
        }
        let now = lock(&self.net).now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pulls).into_iter().partition(|pull| pull.due <= now);
        self.pulls = later;
        let count = due.len();
        for pull in due {
            let result = self.finish_pull(&pull.from, pull.target, pull.len);
            sink.pulled(pull.target.token, result);
        }
        count
    }

    pub(super) fn finish_pull(&self, from: &Named, target: Target, len: usize) -> Result<(), LaneError> {
        let mut net = lock(&self.net);
        let peer = net.end(self.end).map(|end| end.peer);
        let recalled = peer.and_then(|peer| net.end(peer)).map(|end| end.recalled);
        drop(net);
        if recalled != Some(from.recalled) || from.len < len {
            return Err(self.error(ErrorKind::Protocol, "pull").hint("a stale descriptor"));
        }
        // SAFETY: the caller of `pull` answers for `len` bytes until this is told or revoked.
        unsafe { target.write(0, &from.copy(len)) };
        Ok(())
    }
}
