//! A message that is read where it is: in the sender's memory, when it was sent on loan, else in memory of its own.
#![allow(unsafe_code)]

use crate::anchor::Anchor;
use crate::completion::{Completion, Match};
use crate::core::op::{Loan, Memory};
use crate::core::{Core, Shown, Started};
use crate::endpoint::{Borrowed, Endpoint};
use crate::error::OpError;
use crate::op::SHORT;
use crate::timeout::Timeout;
use sinew_transport::{Body, Buf, View};

/// A received message whose memory belongs to it: the sender's, on loan, or its own. Dropping it gives a loan back.
///
/// A sender that misbehaves can change a loan while it is read, so safe code copies out of it or reads parts of it; there
/// is no `&[u8]` but by [`Incoming::as_slice`], which is `unsafe`. `Send`.
#[must_use = "dropping it gives the message up"]
pub struct Incoming {
    info: Completion,
    content: Content,
}

enum Content {
    Own(Buf),
    Lent { view: View, loan: Loan, anchor: Anchor },
    Gone,
}

impl Endpoint {
    /// Receives one message of up to `len_max` bytes without a buffer: a message that was sent from the engine's pool over
    /// shared memory is read where it is. Blocks up to the option `timeout`.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub fn recv_message(&self, pattern: impl Into<Match>, len_max: usize) -> Result<Incoming, OpError> {
        self.recv_message_within(pattern, len_max, Timeout::Default)
    }

    /// [`Endpoint::recv_message`] with its own deadline.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    pub fn recv_message_within(
        &self,
        pattern: impl Into<Match>,
        len_max: usize,
        timeout: impl Into<Timeout>,
    ) -> Result<Incoming, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let (pattern, timeout) = (pattern.into(), timeout.into());
        let limit = timeout.resolve(&shared.config);
        if limit.is_none_or(|limit| limit > SHORT)
            && let Some((info, shown, anchor)) = shared.view_quick(self.inner.number, &pattern, len_max)
        {
            let content = match shown {
                Shown::Copied(bytes) => Content::Own(bytes.into()),
                Shown::Lent(view, loan) => {
                    Content::Lent { view, loan, anchor: anchor.unwrap_or_else(|| Anchor::apart(shared)) }
                }
            };
            return Ok(Incoming { info, content });
        }
        let memory = Memory::Later { len_max };
        let mut guard = Borrowed::none(shared);
        let start = |core: &mut Core| guard.note(core.start_recv(self.inner.number, pattern, memory, None));
        let (result, memory) = match shared.with(start) {
            Started::Done(result, memory, _) => (result, memory),
            Started::Pending(key) => {
                let look = |core: &mut Core| core.collect_recv(key);
                let done = shared.wait_or_cancel(limit, look, |core| {
                    core.cancel_recv(key);
                });
                // Collected or cancelled.
                std::mem::forget(guard);
                done.map_err(|()| OpError::TimedOut { after: limit.unwrap_or_default() })?
            }
        };
        let content = match memory {
            Memory::Owned(buf) => Content::Own(buf),
            Memory::Viewed { view, loan } => Content::Lent { view, loan, anchor: Anchor::apart(shared) },
            Memory::Borrowed { .. } | Memory::Gathered(_) | Memory::Later { .. } => {
                Content::Own(Buf::zeroed(0))
            }
        };
        result.map(|info| Incoming { info, content })
    }
}

impl Incoming {
    /// What the message says about itself.
    #[must_use]
    pub const fn info(&self) -> &Completion {
        &self.info
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body().len()
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is read in the sender's memory.
    #[must_use]
    pub const fn is_lent(&self) -> bool {
        matches!(self.content, Content::Lent { .. })
    }

    /// Nothing in a forked child, which has not inherited what was lent.
    fn body(&self) -> Body<'_> {
        match &self.content {
            Content::Own(buf) => Body::from_slice(buf),
            Content::Lent { view, anchor, .. } if anchor.check_fork().is_ok() => view.body(),
            Content::Lent { .. } | Content::Gone => Body::from_slice(&[]),
        }
    }

    /// Copies bytes from `offset` on into `target` and says how many.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) -> usize {
        self.body().skip(offset).copy_to(target)
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.body().to_vec()
    }

    /// The bytes in place.
    ///
    /// # Safety
    /// The sender does not write the memory until this message is dropped. That is true of a sender that uses Sinew's safe
    /// calls and waits for its send: one that cancels it, or whose deadline passes, has its memory back while this message
    /// remains, as has one whose session is lost.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        match &self.content {
            Content::Own(buf) => buf,
            // SAFETY: readable while the view lives; not written meanwhile, says the caller.
            Content::Lent { view, .. } => unsafe { std::slice::from_raw_parts(view.as_ptr(), view.len()) },
            Content::Gone => &[],
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Content::Lent { view, loan, anchor } = std::mem::replace(&mut self.content, Content::Gone) {
            let mut view = Some(view);
            anchor.end(
                |core| core.return_quick(loan, &mut view),
                |core| {
                    core.return_loan(loan);
                    core.progress();
                },
            );
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming({} bytes, {})", self.len(), if self.is_lent() { "lent" } else { "own" })
    }
}
