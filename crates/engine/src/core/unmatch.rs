//! Receives whose message its sender takes back while it is being fetched: they wait again, as if it had never been sent.
//!
//! Called by the handling of `WITHDRAW`. Such a receive goes back to its old place among the posted ones, after it has looked at
//! what came meanwhile. What it must not do: let anybody write the receive's memory while a lane still may.
#![allow(unsafe_code)]

use super::Core;
use super::op::{Fetch, Memory, Op, RecvState};
use super::stripes::op_of;
use super::table::Key;
use crate::error::OpError;
use sinew_proto::matching::{Pattern, Posted};

impl Core {
    /// The sender took back message `sender_op`, which receive `key` fetches.
    #[cold]
    pub(crate) fn unmatch(&mut self, session_key: Key, sender_op: u64, key: Key) {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return };
        let RecvState::Fetching(fetch) = &op.state else { return };
        let Fetch { envelope, wanted, .. } = **fetch;
        if envelope.session != session_key || envelope.sender_op != sender_op {
            return;
        }
        let (endpoint, handler, wanted) = (op.endpoint, op.handler, wanted);
        self.revoke_everywhere(session_key, key);
        self.reset_memory(key);
        self.post_direct_batch(endpoint);
        if let Some(handler) = handler {
            self.give_place_up(handler, key);
        }
        self.post_again(endpoint, key, wanted);
        // A call that only tries looks whether its message is still there.
        self.effects.finish();
    }

    /// The receive has the memory with which it was posted. A lane that is just being polled may still write to it: it is
    /// set aside until the lane has forgotten it, and what comes meanwhile gets memory of its own.
    fn reset_memory(&mut self, key: Key) {
        let in_use = self.is_revoked_later(key);
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return };
        let RecvState::Fetching(fetch) = &op.state else { return };
        let len_max = fetch.len_max;
        let stand_in = Memory::Later { len_max: len_max.unwrap_or(op.memory.len()) };
        match len_max {
            Some(_) => {
                let made = std::mem::replace(&mut op.memory, stand_in);
                if in_use {
                    self.set_aside.push((Key(0), made));
                }
            }
            None if in_use => self.set_aside.push((key, std::mem::replace(&mut op.memory, stand_in))),
            None => {}
        }
    }

    /// Whether a lane that is just being polled forgets the receive when that has ended: until then nothing may be placed there
    /// for it, or that would be forgotten, too.
    pub(crate) fn is_revoked_later(&self, key: Key) -> bool {
        self.revoked.iter().any(|&(_, token)| op_of(token) == key)
    }

    /// Whether the receive's memory is set aside, so that its owner must not have the receive yet.
    pub(crate) fn is_set_aside(&self, key: Key) -> bool {
        self.set_aside.iter().any(|&(of, _)| of == key)
    }

    /// No lane writes to what was set aside any more: receives have their memory again, with what came meanwhile.
    #[cold]
    pub(crate) fn take_up_set_aside(&mut self) {
        if !self.revoked.is_empty() {
            return;
        }
        for (key, memory) in std::mem::take(&mut self.set_aside) {
            let Some(Op::Recv(op)) = self.ops.get_mut(key) else {
                self.effects.discard(memory.into_buf());
                continue;
            };
            if let Memory::Owned(came) = &op.memory {
                let len = came.len().min(memory.len());
                // SAFETY: a receive's memory, writable for its length and lent until the receive leaves the table; no lane
                // writes to it any more.
                unsafe { memory.data().as_ptr().copy_from_nonoverlapping(came.as_slice().as_ptr(), len) };
            }
            op.memory = memory;
            if let RecvState::Fetching(fetch) = &mut op.state {
                fetch.len_max = None;
            }
            if matches!(op.state, RecvState::Finished(_)) && op.waiter.is_some() {
                self.tell_waiter(key);
            }
        }
    }

    /// Puts a receive back in its place, or gives it the oldest message that has come for it.
    pub(crate) fn post_again(&mut self, endpoint: u32, key: Key, wanted: Pattern) {
        let order = |ops: &super::table::Table<Op>, key| match ops.get(key) {
            Some(Op::Recv(op)) => op.order,
            _ => 0,
        };
        let own = order(&self.ops, key);
        let state =
            self.endpoints.get_mut((endpoint as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
        let Some(state) = state else {
            self.finish_recv(key, Err(OpError::Cancelled));
            return;
        };
        let ops = &self.ops;
        let mut renamed = Vec::new();
        let posted = state.matcher.post_before(
            wanted,
            key,
            |&other| order(ops, other) > own,
            |other, post| renamed.push((other, post)),
        );
        match posted {
            Posted::Queued(post) => renamed.push((key, post)),
            Posted::Matched(_, arrival, message) => {
                self.give_unexpected(key, endpoint, &arrival, message, wanted);
            }
        }
        for (key, post) in renamed {
            if let Some(Op::Recv(op)) = self.ops.get_mut(key) {
                op.state = RecvState::Posted(post);
            }
        }
    }
}
