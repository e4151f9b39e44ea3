//! Sending a batch: as many messages at once as the lane and the receiver's credit take.
//!
//! Called by applications through [`Peer`]. It must not run code of theirs, as it holds the lock for the whole batch.

use crate::core::{Blocked, Core};
use crate::error::OpError;
use crate::histogram::Way;
use crate::message::Message;
use crate::peer::Peer;
use crate::timeout::Timeout;
use sinew_wire::frame::{Flags, Header};
use std::fmt;
use std::io::IoSlice;

/// One message of a batch to send.
#[derive(Clone, Copy, Debug)]
#[must_use = "put it into a slice for `Peer::send_batch`"]
pub struct Outgoing<'a> {
    tag: u64,
    data: &'a [u8],
    immediate: Option<u64>,
    untagged: bool,
}

impl<'a> Outgoing<'a> {
    /// A tagged message.
    pub const fn tagged(tag: u64, data: &'a [u8]) -> Self {
        Self { tag, data, immediate: None, untagged: false }
    }

    /// A message that only untagged receives take.
    pub const fn untagged(data: &'a [u8]) -> Self {
        Self { tag: 0, data, immediate: None, untagged: true }
    }

    /// 64 bits beside the payload.
    pub const fn immediate(mut self, immediate: u64) -> Self {
        self.immediate = Some(immediate);
        self
    }

    /// What it says, when it can share a frame with others: as if it went alone, by the header of any message to its receiver.
    #[inline(always)]
    pub(crate) const fn plain(&self, header: &Header) -> Option<(Header, &'a [u8])> {
        if self.immediate.is_some() {
            return None;
        }
        let flags = if self.untagged { header.flags.with(Flags::UNTAGGED) } else { header.flags };
        Some((Header { tag: self.tag, flags, ..*header }, self.data))
    }

    #[inline]
    const fn message(self, peer: &Peer) -> Message<'_> {
        let message = peer.message(self.tag);
        let message = if self.untagged { message.untagged() } else { message };
        match self.immediate {
            Some(immediate) => message.immediate(immediate),
            None => message,
        }
    }
}

/// A batch that was not sent whole: its first `sent` messages went, in order, and none of the others.
#[derive(Clone, Debug)]
pub struct Partial {
    /// How many messages went: the others can be sent again, from the message with this index on.
    pub sent: usize,
    /// Why the next one did not go.
    pub error: OpError,
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages of the batch went, the next one did not: {}", self.sent, self.error)
    }
}

impl std::error::Error for Partial {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Partial> for OpError {
    fn from(partial: Partial) -> Self {
        partial.error
    }
}

impl Peer {
    /// Sends as many of the messages, in order, as go without waiting: all of them under one lock, handed to the lane
    /// together. Never blocks.
    ///
    /// # Errors
    /// [`Partial`] says how many went. Its error is [`OpError::WouldBlock`] when the next one has to wait, as in
    /// [`Peer::try_send`]; go on from there later.
    pub fn try_send_batch(&self, messages: &[Outgoing<'_>]) -> Result<(), Partial> {
        let shared = &self.endpoint.shared;
        let mut sent = 0;
        shared.check_fork().map_err(|error| Partial { sent, error })?;
        let stopped = shared.with(|core| {
            let stopped = self.post_batch(core, messages, &mut sent);
            if stopped.is_some() {
                core.progress();
            }
            stopped
        });
        match stopped {
            None => Ok(()),
            Some(blocked) => Err(Partial { sent, error: blocked.error().unwrap_or(OpError::WouldBlock) }),
        }
    }

    /// Sends all the messages in order: as many at once as the lane and the receiver's credit take, under one lock. Ends when
    /// all buffers are the caller's again; blocks up to the option `timeout`. A message that is too long for one frame is
    /// waited for, as by [`Peer::send`], before the next one goes.
    ///
    /// ```no_run
    /// use sinew_engine::{Endpoint, OpError, Outgoing, Peer, Receive};
    ///
    /// fn exchange(peer: &Peer, endpoint: &Endpoint) -> Result<(), OpError> {
    ///     peer.send_batch(&[Outgoing::tagged(1, b"one"), Outgoing::tagged(2, b"two").immediate(22)])?;
    ///     let (mut first, mut second) = ([0; 64], [0; 64]);
    ///     let mut receives = [Receive::new(3, &mut first), Receive::new(4, &mut second)];
    ///     endpoint.recv_all(&mut receives)?;
    ///     for receive in &receives {
    ///         println!("{:?}: {:?}", receive.result(), receive.data());
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Partial`] says how many went; the others did not, and never will by themselves.
    pub fn send_batch(&self, messages: &[Outgoing<'_>]) -> Result<(), Partial> {
        self.send_batch_within(messages, Timeout::Default)
    }

    /// [`Peer::send_batch`] with its own deadline, for the whole batch.
    ///
    /// # Errors
    /// As [`Peer::send_batch`].
    pub fn send_batch_within(
        &self,
        messages: &[Outgoing<'_>],
        timeout: impl Into<Timeout>,
    ) -> Result<(), Partial> {
        let shared = &self.endpoint.shared;
        let since = self.endpoint.clock();
        let (mut sent, timeout) = (0, timeout.into());
        shared.check_fork().map_err(|error| Partial { sent, error })?;
        if let Some(blocked) = shared.with(|core| self.post_batch(core, messages, &mut sent)) {
            self.send_rest(messages, &mut sent, blocked, timeout).map_err(|error| Partial { sent, error })?;
        }
        if shared.with(|core| core.is_held_up(self.session)) {
            self.leave_to_system(timeout);
        }
        if let Some(since) = since {
            self.endpoint.measured(Way::Send, since, self.session);
        }
        Ok(())
    }

    /// Posts from message `sent` on and flushes. `None`: all of them went.
    #[inline]
    fn post_batch(&self, core: &mut Core, messages: &[Outgoing<'_>], sent: &mut usize) -> Option<Blocked> {
        let mut stopped = None;
        while *sent < messages.len() {
            *sent += core.pack_run(self.session, self.flow, &self.message(0).header(), &messages[*sent..]);
            let Some(outgoing) = messages.get(*sent) else { break };
            let (message, data) = (outgoing.message(self), outgoing.data);
            if message.stage_quick(core, data) {
                *sent += 1;
                continue;
            }
            // The long way: what was packed goes first.
            core.settle();
            match message.post_now(core, &[IoSlice::new(data)], data.len()) {
                Ok(()) => {}
                Err(Blocked::Envelope) if core.may_buffer(self.session, data.len()) => {
                    message.post_copy(core, data);
                }
                Err(blocked) => {
                    stopped = Some(blocked);
                    break;
                }
            }
            *sent += 1;
        }
        if !core.flush_bundle() {
            core.settle();
        }
        core.flush_active(self.session);
        stopped
    }

    /// Waits for room, and sends by themselves those that are too long for a frame.
    #[cold]
    fn send_rest(
        &self,
        messages: &[Outgoing<'_>],
        sent: &mut usize,
        mut blocked: Blocked,
        timeout: Timeout,
    ) -> Result<(), OpError> {
        let shared = &self.endpoint.shared;
        let limit = timeout.resolve(&shared.config);
        let until = limit.and_then(|limit| shared.now().checked_add(limit));
        let left = || until.map(|until| until.saturating_duration_since(shared.now()));
        let timed_out = || OpError::TimedOut { after: limit.unwrap_or_default() };
        loop {
            if let Some(error) = blocked.error() {
                return Err(error);
            }
            if matches!(blocked, Blocked::Envelope) {
                let outgoing = messages[*sent];
                let wait = left().map_or(Timeout::Never, Timeout::After);
                outgoing.message(self).timeout(wait).send(outgoing.data).map_err(|error| match error {
                    OpError::TimedOut { .. } => timed_out(),
                    error => error,
                })?;
                *sent += 1;
            }
            let next = shared.wait(left(), |core| match self.post_batch(core, messages, sent) {
                None => Some(None),
                Some(Blocked::Busy | Blocked::Credit) => None,
                Some(blocked) => Some(Some(blocked)),
            });
            match next {
                None => return Err(timed_out()),
                Some(None) => return Ok(()),
                Some(Some(now)) => blocked = now,
            }
        }
    }
}
