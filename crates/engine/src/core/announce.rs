//! Announcing messages that are too long, or come too early, to go whole: the envelope, and the beginning that goes unasked behind it.
//!
//! Called by the pump. What a receiver asks for goes by [`super::rendezvous`].

use super::Core;
use super::op::{Charge, Op, SendOp, SendState};
use super::session::{Push, Session};
use super::table::Key;
use sinew_transport::{Capabilities, Descriptor, Lane, PostError, Token};
use sinew_wire::frame::{Flags, Header, Kind};
use sinew_wire::hello::Features;
use std::io::IoSlice;

/// Bytes of the largest body that a flow keeps in one envelope: operation, length, immediate, descriptor or length of the push.
pub(super) const ENVELOPE_MAX: usize = 8 + 8 + 8 + size_of::<Descriptor>();
/// Most bytes of one message that go behind its envelope unasked: as many as go while an answer comes.
const PUSH_MAX: usize = 1 << 20;
/// Most bytes of a session that go so before the peer has said a word of them: what it is not waiting for goes twice.
const PUSHED_MAX: u64 = 4 << 20;

impl Core {
    /// Announces a message, with its beginning behind if it is `long` and that is of use. `Ok(true)`: it has left its queue.
    pub(super) fn announce(
        &mut self,
        key: Key,
        op_key: Key,
        lane: &mut dyn Lane,
        charge: Charge,
        long: bool,
    ) -> Result<bool, PostError> {
        let Some(Op::Send(op)) = self.ops.get_mut(op_key) else { return Ok(true) };
        let Some(session) = self.sessions.get_mut(key) else { return Ok(true) };
        let (flow, len) = (op.flow, op.memory.len());
        let descriptor = op.describe(lane).map_err(PostError::Dead)?;
        let mut header = charge.mark(Header { kind: Kind::ENVELOPE, ..op.header });
        let mut body = Vec::with_capacity(ENVELOPE_MAX);
        body.extend(op_key.0.to_le_bytes());
        body.extend((len as u64).to_le_bytes());
        body.extend(op.immediate.map(u64::to_le_bytes).into_iter().flatten());
        let mut pushed = 0;
        if let Some(descriptor) = descriptor {
            header.flags = header.flags.with(Flags::DESCRIPTOR);
            body.extend(descriptor.0);
        } else {
            let joins = |lane: &&Key| self.lanes.get(**lane).is_some_and(|slot| slot.joins);
            let alone = session.lanes.iter().filter(joins).nth(1).is_none();
            if long {
                pushed = push_len(session, flow, op, &lane.info().capabilities, alone);
            }
            if pushed > 0 {
                body.extend(pushed.to_le_bytes());
            }
        }
        lane.try_post(&header, &[IoSlice::new(&body)])?;
        session.pay_envelope(flow, charge);
        session.sent += 1;
        op.state = SendState::Announced;
        if pushed > 0 {
            op.pushed = pushed;
            session.pushed += pushed;
            session.to_push = Some(Push { op: op_key, next: 0, end: pushed });
            self.tend_later(key);
        }
        Ok(true)
    }

    /// Sends what a message was announced to bring unasked.
    pub(super) fn pump_push(&mut self, key: Key, lane: &mut dyn Lane) -> Result<(), PostError> {
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
            let Some(Push { op: op_key, next, end }) = session.to_push else { return Ok(()) };
            let op = match self.ops.get_mut(op_key) {
                Some(Op::Send(op)) if next < end && op.state.is_out() => op,
                _ => {
                    session.to_push = None;
                    return Ok(());
                }
            };
            let header = Header::push(op_key.0, next);
            let max = (end - next).min(lane.info().limits.borrowed_max_of(header.kind) as u64);
            // `next < end`, which is at most the length of the memory.
            let (data, len) = op.memory.piece(next as usize, max as usize);
            super::rendezvous::post_borrowed(lane, &header, data, len, Token(op_key.0))?;
            op.references += 1;
            session.sent += 1;
            session.to_push = Some(Push { op: op_key, next: next + len as u64, end });
        }
    }
}

/// How many bytes of a long message go behind its envelope unasked, over a lane on which the receiver would ask for them: a receive
/// that waits has them a round trip earlier, any other asks for them later. None where several lanes share long messages.
fn push_len(session: &mut Session, flow: u32, op: &SendOp, lane: &Capabilities, alone: bool) -> u64 {
    if !session.peer.features.contains(Features::PUSHES) {
        return 0;
    }
    let flow = &mut session.flows[flow as usize];
    if flow.shy > 0 || !alone {
        flow.shy = flow.shy.saturating_sub(1);
        return 0;
    }
    let len = op.memory.piece(0, PUSH_MAX).1 as u64;
    let may = !(lane.pull || lane.view || lane.memory_polled) && session.pushed + len <= PUSHED_MAX;
    if may { len } else { 0 }
}
