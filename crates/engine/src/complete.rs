//! Functions that are called once when an operation with an owned buffer has ended: the callback form of sends and receives.
//!
//! A function runs where receive handlers run: on the thread that ended the operation or made the progress that did (the
//! background thread with [`crate::Progress::Thread`]), outside the engine's lock. It may send, post, drop handles and give
//! more functions. A panic in it is caught, counted as an event, and ends nothing else.
//!
//! # Order
//! The functions of one engine are called in the order in which their operations ended, one at a time. What ends while one
//! runs waits for its return, also what it waits for itself: a function that blocks delays the others, and must not wait for
//! what another function does.

use crate::core::Core;
use crate::core::op::Op;
use crate::core::table::Key;
use crate::error::{Failed, OpError};
use crate::op::{Operation, Outcome, Received, RecvOp, SendOp, received};
use crate::shared::Shared;
use sinew_transport::Buf;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::Waker;

type Function = Box<dyn FnOnce(Outcome) + Send>;

/// Who is told when an operation ends.
pub(crate) enum Waiter {
    /// A task polls it.
    Task(Waker),
    /// Nobody holds it: its end goes to a function.
    Function(Function),
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Function(_) => "Function",
        })
    }
}

/// An operation that has ended, and the function that waits for it.
pub(crate) struct Ended {
    function: Function,
    outcome: Outcome,
}

/// An operation whose end goes to a function. Dropping this changes nothing: the operation goes on, and its function is called.
/// `Send` and `Sync`.
pub struct OnComplete {
    shared: Weak<Shared>,
    key: Key,
}

impl OnComplete {
    /// Really cancels the operation, if it has not ended yet: its function gets the buffer and [`OpError::Cancelled`], or
    /// what a message that had come meanwhile brought. The function may run before this returns.
    pub fn cancel(self) {
        if let Some(shared) = self.shared.upgrade()
            && shared.check_fork().is_ok()
        {
            shared.with_first(|core| core.cancel_and_tell(self.key));
        }
    }
}

impl fmt::Debug for OnComplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnComplete")
    }
}

impl SendOp {
    /// Calls `function` once with the result and the buffer when the send has ended: at once if it has already, so perhaps
    /// before this returns; at the latest when the session is lost or the engine closes. Not in a forked child.
    ///
    /// The function runs on whichever thread makes progress, outside the engine's lock; those of one engine are called one
    /// at a time, in the order in which operations ended. It may send and drop whatever it likes; a panic in it is caught.
    /// What it captures is dropped with it: an [`crate::Engine`] in it lives at least until the operation ends.
    ///
    /// ```no_run
    /// # fn sample(peer: &sinew_engine::Peer) -> Result<(), sinew_engine::Failed> {
    /// peer.post_send(7, b"hello".to_vec())?.on_complete(|result| match result {
    ///     Ok(buf) => println!("{} bytes went", buf.len()),
    ///     Err(failed) => eprintln!("{failed}; {} bytes came back", failed.buf.len()),
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_complete(mut self, function: impl FnOnce(Result<Buf, Failed>) + Send + 'static) -> OnComplete {
        let sent = self.sent.take();
        self.operation.tell(Box::new(move |outcome: Outcome| function(outcome.map(|(buf, _)| buf))), sent)
    }
}

impl RecvOp {
    /// Calls `function` once with the message, or with the buffer and what went wrong, when the receive has ended; see
    /// [`SendOp::on_complete`]. It does not keep the endpoint: when that closes, the receive ends as cancelled.
    pub fn on_complete(
        mut self,
        function: impl FnOnce(Result<Received, Failed>) + Send + 'static,
    ) -> OnComplete {
        self.0.tell(Box::new(move |outcome: Outcome| function(received(outcome))), None)
    }
}

impl Operation {
    /// `sent`: the buffer of a send that went at once.
    fn tell(&mut self, function: Function, sent: Option<Buf>) -> OnComplete {
        let key = std::mem::replace(&mut self.key, Key::NONE);
        let Some(endpoint) = &self.endpoint else {
            return OnComplete { shared: Weak::new(), key: Key::NONE };
        };
        let shared = &endpoint.shared;
        if let Err(error) = shared.check_fork() {
            // The operation is the parent's; only the function is this process's.
            std::mem::forget(sent);
            function(Err(Failed { buf: Buf::zeroed(0), error }));
            return OnComplete { shared: Weak::new(), key: Key::NONE };
        }
        // A panic of others keeps the function from nothing: it will be called.
        shared.with_first(|core| {
            let outcome = match sent {
                Some(buf) => Some(Self::outcome(buf, Ok(None))),
                None if key == Key::NONE => {
                    Some(Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled }))
                }
                None => Self::collect(core, key),
            };
            match outcome {
                Some(outcome) => core.push_ended(Ended { function, outcome }),
                None => core.set_waiter(key, Waiter::Function(function)),
            }
        });
        OnComplete { shared: Arc::downgrade(shared), key }
    }
}

impl Core {
    fn waiter(&mut self, key: Key) -> Option<&mut Option<Waiter>> {
        match self.ops.get_mut(key)? {
            Op::Send(op) => Some(&mut op.waiter),
            Op::Recv(op) => Some(&mut op.waiter),
        }
    }

    fn push_ended(&mut self, ended: Ended) {
        self.ended.push_back(ended);
        self.effects.call_handlers();
    }

    /// Tells whoever waits for an operation that it has ended; with a function it leaves the table.
    #[cold]
    pub(crate) fn tell_waiter(&mut self, key: Key) {
        if self.is_set_aside(key) {
            return;
        }
        match self.waiter(key).and_then(Option::take) {
            Some(Waiter::Task(waker)) => self.effects.wake(waker),
            Some(Waiter::Function(function)) => {
                if let Some(outcome) = Operation::collect(self, key) {
                    self.push_ended(Ended { function, outcome });
                }
            }
            None => {}
        }
    }

    fn cancel_and_tell(&mut self, key: Key) {
        let Some(Some(waiter)) = self.waiter(key).map(Option::take) else { return };
        match (waiter, Operation::cancel_in(self, key)) {
            (Waiter::Function(function), Some(outcome)) => self.push_ended(Ended { function, outcome }),
            (waiter, _) => self.set_waiter(key, waiter),
        }
    }

    /// Registers who is told when an operation ends, instead of whoever was.
    pub(crate) fn set_waiter(&mut self, key: Key, waiter: Waiter) {
        let old = match self.waiter(key) {
            Some(slot) => slot.replace(waiter),
            None => Some(waiter),
        };
        self.effects.spend(old);
    }

    /// Registers which task is woken when an operation ends.
    pub(crate) fn set_waker(&mut self, key: Key, waker: &Waker) {
        let Some(slot) = self.waiter(key) else { return };
        if !matches!(slot, Some(Waiter::Task(known)) if known.will_wake(waker)) {
            let old = slot.replace(Waiter::Task(waker.clone()));
            self.effects.spend(old);
        }
    }
}

/// The right to call functions: one thread has it at a time.
struct Turn<'a>(&'a Arc<Shared>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.with_in_drop(|core| core.telling = false);
    }
}

/// Calls the functions of operations that have ended. Outside the lock. A panic of other code of the application that runs on the
/// way is for the caller: it keeps no function from being called.
#[cold]
pub(crate) fn run_ended(shared: &Arc<Shared>) -> std::thread::Result<()> {
    let mut broken = Ok(());
    let none = |core: &mut Core| core.ended.is_empty() || std::mem::replace(&mut core.telling, true);
    if shared.with_caught(&mut broken, none) {
        return broken;
    }
    let turn = Turn(shared);
    loop {
        let next = shared.with_caught(&mut broken, |core| {
            let next = core.ended.pop_front();
            // Given up under the lock that saw the end of the queue: what ends later finds the turn free.
            core.telling = next.is_some();
            next
        });
        let Some(Ended { function, outcome }) = next else {
            std::mem::forget(turn);
            return broken;
        };
        if !crate::panics::survives(|| function(outcome)) {
            crate::events::now(crate::events::function_panicked());
        }
    }
}
