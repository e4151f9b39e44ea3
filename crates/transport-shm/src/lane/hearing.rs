//! What the peer says on the lane's socket: its half during set-up, later its segments and that it has gone.
//!
//! Called by the lane at events of the socket, and before a descriptor is looked up.

use super::setup::Setup;
use super::{ShmLane, before_setup};
use crate::note::{NOTE_LEN, Note};
use crate::segment::ForeignSegment;
use crate::sys::socket::{self, Moved};
use sinew_transport::{Descriptor, ErrorKind, LaneError, TransportError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Notes read at one event: a peer that never stops talking must not keep the engine.
const NOTES_AT_ONCE: usize = 256;

impl ShmLane {
    /// The next note of the peer. `Ok(None)`: none now. The flag says that the socket has ended.
    fn read_note(&mut self) -> Result<Option<[u8; NOTE_LEN]>, TransportError> {
        while self.note_len < NOTE_LEN && !self.deaf {
            let rest = &mut self.note[self.note_len..];
            match socket::receive(&self.socket, rest, &mut self.passed) {
                Ok(Moved::Bytes(got)) => self.note_len += got,
                Ok(Moved::Nothing) => return Ok(None),
                Ok(Moved::End) => self.go_deaf(),
                Err(errno) => {
                    self.go_deaf();
                    return Err(TransportError::os(errno, "receive", self.info.peer.clone()));
                }
            }
        }
        if self.note_len < NOTE_LEN {
            return Ok(None);
        }
        self.note_len = 0;
        Ok(Some(self.note))
    }

    /// Stops listening to the socket: it has ended.
    pub(super) fn go_deaf(&mut self) {
        if !self.deaf && !self.registry.fork.forked() {
            let _ = self.registry.poller.remove(&self.socket);
        }
        self.deaf = true;
        if let Some(open) = &self.open {
            open.watch.ended.store(true, Ordering::Relaxed);
            self.registry.hints.set(open.bit);
        }
    }

    /// Goes on with the set-up.
    pub(super) fn progress_setup(&mut self) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let Some(mut setup) = self.setup.take() else { return Ok(()) };
        let result = self.exchange(&mut setup);
        match result {
            Ok(true) => match setup.finish(&self.registry) {
                Ok(open) => {
                    self.live = true;
                    self.open = Some(Box::new(open));
                    Ok(())
                }
                Err(error) => Err(self.end(error)),
            },
            Ok(false) => {
                self.setup = Some(setup);
                Ok(())
            }
            Err(error) => {
                setup.abandon(&self.registry);
                Err(self.end(error))
            }
        }
    }

    /// Whether both sides have said what they have.
    fn exchange(&mut self, setup: &mut Setup) -> Result<bool, TransportError> {
        let sent = setup.push(&self.registry, &self.socket)?;
        if !setup.is_answered() {
            match self.read_note()? {
                Some(bytes) => {
                    let fds = std::mem::take(&mut self.passed);
                    setup.handle_answer(Note::decode(&bytes)?, fds)?;
                }
                None if self.deaf => {
                    return Err(TransportError::new(
                        ErrorKind::Broken,
                        "shared-memory lane",
                        format!("{} went away during set-up", self.info.peer),
                    ));
                }
                None => {}
            }
        }
        Ok(sent && setup.is_answered())
    }

    /// Reads what the peer's socket has to say while the lane is open; the rest at the next event.
    pub(super) fn hear(&mut self) -> Result<(), LaneError> {
        for _ in 0..NOTES_AT_ONCE {
            let Some(bytes) = self.read_note()? else { return Ok(()) };
            let fds = std::mem::take(&mut self.passed);
            let Some(open) = &mut self.open else { return Ok(()) };
            match Note::decode(&bytes)? {
                Some(Note::Bell) => self.registry.hints.set(open.bit),
                Some(Note::Setup(_)) => return Err(crate::note::broken("a second set-up")),
                Some(Note::Segment { id, len }) => {
                    open.segments.handle_segment(&self.registry.options, id, len, &fds)?;
                }
                Some(Note::Gone { id }) => open.segments.handle_gone(id),
                None => {}
            }
        }
        Ok(())
    }

    /// Before a descriptor is looked up: hears of its segment if that is still in the socket.
    pub(super) fn ready_to_resolve(&mut self, from: &Descriptor) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if self.registry.fork.forked() {
            return Err(crate::forked());
        }
        if self.open.as_ref().is_some_and(|open| !open.segments.knows(from))
            && let Err(error) = self.hear()
        {
            return Err(self.end(error));
        }
        Ok(())
    }

    /// What a descriptor names.
    pub(super) fn resolve(
        &mut self,
        from: &Descriptor,
    ) -> Result<(&Arc<ForeignSegment>, usize, usize), LaneError> {
        self.ready_to_resolve(from)?;
        match &self.open {
            Some(open) => open.segments.resolve(from, &open.watch.peer),
            None => Err(before_setup()),
        }
    }
}
