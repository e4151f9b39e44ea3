//! What the core leaves to do until its lock is released: waking, dropping, telling, calling handlers. All of it may run code of the
//! application, which must not run under the lock.

use crate::complete::Waiter;
use crate::events::Telling;
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
    events: Vec<Telling>,
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

    /// An event, if anybody may listen to it: a subscriber is code of the application.
    pub(crate) fn tell(&mut self, event: Option<Telling>) {
        self.events.extend(event);
        if !self.events.is_empty() {
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

    /// Tasks to wake, buffers and waiters to drop, events to tell.
    pub(crate) fn into_lists(self) -> (Vec<Waker>, Vec<Buf>, Vec<Waiter>, Vec<Telling>) {
        (self.wakers, self.garbage, self.spent, self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether there is anything, whether code of the application is to run, and whether handlers are to be called.
    fn says(effects: &Effects) -> (bool, bool, bool) {
        (effects.any(), effects.must_run(), effects.has_handlers())
    }

    #[test]
    fn each_kind_is_there_once_it_was_told_and_until_it_is_done() {
        let none = (false, false, false);
        assert_eq!(says(&Effects::default()), none);
        type Tell = fn(&mut Effects);
        let tell: [(Tell, (bool, bool, bool)); 7] = [
            (Effects::finish, (true, false, false)),
            (Effects::post, (true, false, false)),
            (Effects::call_handlers, (true, true, true)),
            (|effects| effects.wake(Waker::noop().clone()), (true, true, false)),
            (|effects| effects.spend([Waiter::Task(Waker::noop().clone())]), (true, true, false)),
            (|effects| effects.discard([Buf::zeroed(1)]), (true, true, false)),
            (|effects| effects.tell(Some(Box::new(|| ()))), (true, true, false)),
        ];
        for (at, (tell, expected)) in tell.into_iter().enumerate() {
            let mut effects = Effects::default();
            tell(&mut effects);
            tell(&mut effects);
            assert_eq!(says(&effects), expected, "{at}");
            // Beside another kind.
            effects.finish();
            effects.post();
            effects.unpost();
            assert_eq!(says(&effects), expected, "{at}");
            if !expected.1 {
                effects.clear();
                assert_eq!(says(&effects), none, "{at}");
            }
            let (wakers, buffers, waiters, events) = effects.into_lists();
            let count = [wakers.len(), buffers.len(), waiters.len(), events.len()];
            let none = [0; 4];
            assert_eq!(count, [none, none, none, [2, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 2]][at]);
        }
        let mut effects = Effects::default();
        effects.spend(None);
        effects.discard(None);
        effects.tell(None);
        effects.unpost();
        assert_eq!(says(&effects), none, "there is nothing to drop or to tell");
        effects.post();
        effects.unpost();
        assert_eq!(says(&effects), none, "a turn has seen it");
    }
}
