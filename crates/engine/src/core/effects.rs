//! What the core leaves to do until its lock is released: waking, dropping, calling handlers. All of it may run code of the
//! application, which must not run under the lock.

use crate::complete::Waiter;
use sinew_transport::Buf;
use std::task::Waker;

/// What must happen outside the lock.
#[derive(Default)]
pub(crate) struct Effects {
    /// What there is, a bit each: one look tells that there is nothing, as after most messages.
    there: u8,
    wakers: Vec<Waker>,
    spent: Vec<Waiter>,
    garbage: Vec<Buf>,
}

const FINISHED: u8 = 1;
const POSTED: u8 = 2;
const HANDLERS: u8 = 4;
const LISTED: u8 = 8;

impl Effects {
    /// Something ended: sleeping threads look again.
    #[inline]
    pub(crate) fn finish(&mut self) {
        self.there |= FINISHED;
    }

    /// Something waits to be sent that no turn of progress has seen: a sleeping thread takes one.
    #[inline]
    pub(crate) fn post(&mut self) {
        self.there |= POSTED;
    }

    /// A turn has seen it.
    #[inline]
    pub(crate) fn unpost(&mut self) {
        self.there &= !POSTED;
    }

    /// Handlers, or functions of operations that have ended, have something to do.
    pub(crate) fn call_handlers(&mut self) {
        self.there |= HANDLERS;
    }

    /// A task or thread to wake.
    pub(crate) fn wake(&mut self, waker: Waker) {
        self.wakers.push(waker);
        self.there |= LISTED;
    }

    /// Wakers and functions that are not needed any more: dropping one may run code of the application.
    pub(crate) fn spend(&mut self, waiters: impl IntoIterator<Item = Waiter>) {
        self.spent.extend(waiters);
        if !self.spent.is_empty() {
            self.there |= LISTED;
        }
    }

    /// Buffers to drop: dropping may run code of the application.
    pub(crate) fn discard(&mut self, buffers: impl IntoIterator<Item = Buf>) {
        self.garbage.extend(buffers);
        if !self.garbage.is_empty() {
            self.there |= LISTED;
        }
    }

    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.there != 0
    }

    /// Whether there is more than sleepers to tell.
    #[inline]
    pub(crate) fn must_run(&self) -> bool {
        self.there & (HANDLERS | LISTED) != 0
    }

    /// Nothing but sleepers was to be told, and they are being told.
    #[inline]
    pub(crate) fn clear(&mut self) {
        debug_assert!(!self.must_run());
        self.there = 0;
    }

    /// Whether handlers are to be called.
    pub(crate) fn has_handlers(&self) -> bool {
        self.there & HANDLERS != 0
    }

    /// Tasks to wake, buffers and waiters to drop.
    pub(crate) fn into_lists(self) -> (Vec<Waker>, Vec<Buf>, Vec<Waiter>) {
        (self.wakers, self.garbage, self.spent)
    }
}
