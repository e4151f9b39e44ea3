//! The short way over a socket: a blocking send that goes to the system at once, and looks for a message that ask the system.
//!
//! Part of the short way ([`super::quick`]) and called as that is; the messages are counted in the same permits. What differs is that
//! a look is a system call, and that no descriptor tells of what it has brought: what is not taken is left to the next turn.
//!
//! # Others
//! Looks stand in for turns, which look at other things than the busiest lane, too. So they count as idle turns, a turn follows each
//! look that found nothing, and while each finds its message a turn comes after so many ([`Core::may_look`]), which looks at all
//! descriptors ([`Core::look_due`]).

use super::Core;
use super::inbound::OVERHEAD;
use super::permit::QUICK_LOOKS;
use super::quick::Look;
use super::table::Key;
use sinew_wire::frame::Header;

impl Core {
    /// Posts one message on a socket and gives it to the system, with what was posted before. `None`: nothing has happened, take the
    /// long way. `Some(true)`: the socket is full.
    pub(crate) fn send_through(
        &mut self,
        session: Key,
        flow: u32,
        header: &Header,
        data: &[u8],
    ) -> Option<bool> {
        let permit = &self.permits.to_send;
        if (permit.endpoint != header.src || permit.flow != flow || permit.session != session)
            && (self.polls_memory() || !self.permit_to_send(session, flow, header.src, true))
        {
            return None;
        }
        let permit = &self.permits.to_send;
        let affords = permit.credit >= data.len() as u64 + OVERHEAD;
        if !permit.staged_only || !affords || data.len() > self.config.eager_max || !self.flush_bundle() {
            return None;
        }
        let permit = &mut self.permits.to_send;
        let key = permit.lane;
        let lane = self.lanes.get_mut(key).and_then(|slot| slot.lane.as_mut())?;
        let posted = lane.post_through(header, data);
        if matches!(posted, Ok(false)) {
            return None;
        }
        permit.count(data.len());
        permit.flushed = true;
        let held_up = lane.is_held_up();
        if let Err(error) = posted {
            // The lane gives it back, and it will be sent again on another one.
            self.settle();
            self.lane_failed(key, &error);
        }
        Some(held_up)
    }

    /// A look was one that asks the system: what it means to who waits.
    #[inline(always)]
    pub(super) fn has_read(&mut self, look: Look) -> Look {
        if matches!(look, Look::Done) {
            self.idle_turns = 0;
            return look;
        }
        self.has_read_in_vain(look)
    }

    #[inline(never)]
    fn has_read_in_vain(&mut self, look: Look) -> Look {
        match look {
            Look::Nothing => {
                self.idle_turns |= LOOKS_PER_TURN - 1;
                Look::Dry
            }
            Look::Aside => Look::Dry,
            Look::Other if self.leave_behind() => Look::Behind,
            Look::Other => Look::Away,
            look => look,
        }
    }

    /// What was read and not taken is handed up by the next turn, which nobody sleeps before. Whether there is anything.
    fn leave_behind(&mut self) -> bool {
        let key = self.permits.to_receive.lane;
        let Some(slot) = self.lanes.get_mut(key) else { return false };
        let left = slot.lane.as_ref().is_some_and(|lane| lane.has_more());
        if left && !std::mem::replace(&mut slot.behind, true) {
            self.behind.push_back(key);
            self.effects.finish();
        }
        left
    }
}

/// A look that asks the system in vain counts, with the turn that follows, as so many idle turns: as often as it asks.
/// The number of idle turns between looks at descriptors is a multiple.
pub(crate) const LOOKS_PER_TURN: u32 = QUICK_LOOKS;
