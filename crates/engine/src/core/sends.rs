//! Sends as operations: started, ended, taken back, collected.
//!
//! Used by calls whose message could not go at once, by what the peer says of it, and by the ends of sessions. What it must not do: let
//! anybody have a send's memory back while a lane may still read it.
#![allow(unsafe_code)]

use super::Core;
use super::op::{Memory, Op, SendOp, SendState};
use super::stripes::{op_of, stripe_token};
use super::table::Key;
use crate::error::OpError;
use sinew_transport::{Token, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};

/// What a message that the engine has copied takes of the option `send_buffer`: its bytes, and the operation.
pub(crate) const fn buffered_cost(len: usize) -> usize {
    len.saturating_add(256)
}

impl Core {
    /// Starts a message that could not be posted at once, a flush or a look-up. In a session that is over it has ended: that may
    /// have been lost since the caller looked.
    pub(crate) fn start_send(
        &mut self,
        session: Key,
        flow: u32,
        header: Header,
        immediate: Option<u64>,
        memory: Memory,
        detached: bool,
    ) -> Key {
        let op = SendOp {
            detached,
            buffered: detached,
            ..SendOp::new((session, flow), header, immediate, memory)
        };
        if detached && let Some(session) = self.sessions.get_mut(session) {
            session.buffered += buffered_cost(op.memory.len());
        }
        let len = op.memory.len() as u64;
        if header.kind == Kind::EAGER
            && let Some(endpoint) = self.endpoint(header.src)
        {
            endpoint.messages_sent += 1;
            endpoint.bytes_sent += len;
        }
        let key = self.ops.insert(Op::Send(op));
        match self.session_error(session) {
            Ok(()) => self.enqueue(session, flow, key),
            Err(error) => self.finish_send(key, Err(error)),
        }
        key
    }

    /// Ends a send; its owner collects it, or nobody if it is detached.
    #[inline]
    pub(crate) fn finish_send(&mut self, key: Key, result: Result<(), OpError>) {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return };
        op.state = SendState::Finished(result);
        self.effects.finish();
        if op.buffered
            && let Some(session) = self.sessions.get_mut(op.session)
        {
            session.buffered = session.buffered.saturating_sub(buffered_cost(op.memory.len()));
            op.buffered = false;
        }
        if op.pushed > 0
            && let Some(session) = self.sessions.get_mut(op.session)
        {
            session.push_answered(op.flow, key, std::mem::take(&mut op.pushed), true);
        }
        if op.waiter.is_some() {
            self.tell_waiter(key);
        } else if op.detached
            && let Some(Op::Send(op)) = self.ops.remove(key)
        {
            self.effects.discard(op.memory.into_buf());
        }
    }

    /// Ends a send that is under way, for `error`: the peer is told, lanes give the memory up. When a lane is just being
    /// polled the send ends as soon as it has.
    pub(crate) fn end_send(&mut self, key: Key, error: OpError) {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return };
        let (session, flow) = (op.session, op.flow);
        // What the receiver has said of its end stands.
        let result = match &op.state {
            SendState::Releasing(result) => result.clone(),
            _ => Err(error),
        };
        match op.state {
            SendState::Finished(_) => return,
            SendState::Queued => {
                if let Some(session) = self.sessions.get_mut(session) {
                    session.flows[flow as usize].pending.retain(|&pending| pending != key);
                }
            }
            SendState::Announced | SendState::Moving { .. } | SendState::Posted => {
                let described = op.memory_is_described() || op.memory_is_lent();
                if op.header.kind == Kind::EAGER {
                    self.send_control(session, Header::control(Kind::WITHDRAW, key.0), []);
                }
                if described {
                    self.recall_everywhere(session);
                }
            }
            SendState::Releasing(_) => {}
        }
        if self.reclaim_everywhere(session, key) {
            self.finish_send(key, result);
        } else if let Some(Op::Send(op)) = self.ops.get_mut(key) {
            op.state = SendState::Releasing(result);
        }
    }

    /// What was described to a peer is believed no more, as its owner may write it from now on. A lane that is just being polled
    /// is left out: there a send ends by the word of its receiver, which reads it no more.
    fn recall_everywhere(&mut self, session: Key) {
        let Some(session) = self.sessions.get(session) else { return };
        for &lane in &session.lanes {
            if let Some(lane) = self.lanes.get_mut(lane).and_then(|slot| slot.lane.as_mut()) {
                lane.recall();
            }
        }
    }

    /// Makes all lanes of a session give up references to a send's memory. `false`: one is being polled.
    fn reclaim_everywhere(&mut self, session_key: Key, key: Key) -> bool {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return true };
        if op.references == 0 {
            return true;
        }
        let token = Token(key.0);
        let Some(session) = self.sessions.get_mut(session_key) else { return true };
        // Then all lanes keep theirs until they let go of them: what is given up in part is never counted down to nothing.
        let polled = |lane: &Key| self.lanes.get(*lane).is_some_and(|slot| slot.lane.is_none());
        if session.lanes.iter().any(polled) {
            return false;
        }
        // The receiver is told that the message is taken back, or has it: nothing of it need come again.
        session.again.retain(
            |frame| !matches!(frame.body, UnacknowledgedBody::Borrowed { token, .. } if op_of(token) == key),
        );
        for frame in &mut session.replay {
            if let UnacknowledgedBody::Borrowed { data, len, token: of } = frame.body
                && of == token
            {
                // SAFETY: the send is in the table, so its memory is still lent, and the frame lies inside it.
                let bytes = unsafe { std::slice::from_raw_parts(data, len) };
                frame.body = UnacknowledgedBody::Owned(bytes.to_vec());
            }
        }
        for &lane in &session.lanes {
            let Some(slot) = self.lanes.get_mut(lane) else { continue };
            slot.stripes.retain(|&held| held != stripe_token(key));
            if let Some(lane) = slot.lane.as_mut() {
                lane.reclaim(token);
                lane.reclaim(stripe_token(key));
            }
        }
        (op.references, op.stripes) = (0, 0);
        true
    }

    /// Takes a finished send out of the table.
    #[inline]
    pub(crate) fn collect_send(&mut self, key: Key) -> Option<(Result<(), OpError>, Memory)> {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return None };
        let SendState::Finished(result) = &mut op.state else { return None };
        let result = std::mem::replace(result, Ok(()));
        let memory = std::mem::replace(&mut op.memory, Memory::NONE);
        self.ops.discard(key);
        Some((result, memory))
    }

    /// The answer to a request of the session: the number in it.
    pub(crate) fn collect_answer(&mut self, key: Key) -> Option<Result<u32, OpError>> {
        let number = match self.ops.get(key) {
            Some(Op::Send(op)) => op.header.src,
            _ => return None,
        };
        self.collect_send(key).map(|(result, _)| result.map(|()| number))
    }

    /// Really cancels a send; called outside of polls, so that all lanes give the memory up at once.
    pub(crate) fn cancel_send(&mut self, key: Key) -> Option<(Result<(), OpError>, Memory)> {
        self.end_send(key, OpError::Cancelled);
        self.collect_send(key)
    }

    /// A send whose result nobody wants any more: it goes on, and its buffer is dropped in the end.
    pub(crate) fn detach_send(&mut self, key: Key) {
        if let Some((_, memory)) = self.collect_send(key) {
            self.effects.discard(memory.into_buf());
        } else if let Some(Op::Send(op)) = self.ops.get_mut(key) {
            op.detached = true;
            self.effects.spend(op.waiter.take());
        }
    }

    /// Whether a short message that goes as an envelope may be copied, so that its sender need not wait for the receiver.
    /// A message is short that the present lane takes in one frame.
    pub(crate) fn may_buffer(&self, session: Key, len: usize) -> bool {
        let Some(session) = self.sessions.get(session) else { return false };
        let lane = session.active.and_then(|lane| self.lanes.get(lane)?.lane.as_ref());
        let frame_max = lane.map_or(usize::MAX, |lane| lane.info().limits.frame_max);
        len <= self.config.eager_max.min(frame_max)
            && session.buffered + buffered_cost(len) <= self.config.send_buffer
    }
}
