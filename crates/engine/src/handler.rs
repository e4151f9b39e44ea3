//! Receive handlers: functions that the engine calls for each message of a kind, in order, with receives that are posted
//! again by themselves.
//!
//! A handler runs on the thread that makes progress (the background thread with [`crate::Progress::Thread`], else whoever
//! waits or calls [`crate::Engine::progress`]), outside the engine's lock, one call at a time per handler. It may send, post
//! and even wait. A panic in it is caught: the handler is unregistered, and the panic is counted and traced.

use crate::completion::{Completion, Match};
use crate::core::op::{Memory, Op, RecvState};
use crate::core::table::Key;
use crate::core::{Core, Started};
use crate::endpoint::Endpoint;
use crate::error::OpError;
use crate::shared::Shared;
use sinew_transport::Buf;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

type Function = Box<dyn FnMut(&[u8], &Completion) + Send>;

/// What a handler calls, and whether a message is on its way to it.
struct Callee {
    function: Mutex<Function>,
    /// A message was taken for the function and its call is not over. Changed under the engine's lock.
    busy: Mutex<bool>,
    idle: Condvar,
}

impl Callee {
    fn set_busy(&self, busy: bool) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        if !busy {
            self.idle.notify_all();
        }
    }

    fn is_busy(&self) -> bool {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_idle(&self) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.idle.wait_while(busy, |busy| *busy));
    }
}

/// A registered handler in the core.
pub(crate) struct HandlerState {
    endpoint: u32,
    pattern: Match,
    /// Receives in the order in which they were posted, which is the order in which they match.
    posted: VecDeque<Key>,
    callee: Arc<Callee>,
}

/// A registered handler; dropping it unregisters it. When [`Handler::unregister`] or drop returns, the function is not
/// called any more; a call under way on another thread is waited for, so two functions on two threads must not unregister
/// each other. Inside the function itself, or inside what it waits for, it may be dropped: nothing is waited for then.
#[must_use = "dropping it unregisters the handler"]
pub struct Handler {
    shared: Arc<Shared>,
    key: Key,
}

impl Endpoint {
    /// Calls `function` for each message that matches, in order. `depth` receives of `len_max` bytes are kept posted
    /// (memory: their product); a longer message is dropped and counted as truncated. Never blocks. One that names a source
    /// hears nothing more when no session with the source's engine is left.
    ///
    /// # Errors
    /// [`OpError::EngineClosed`], [`OpError::Forked`].
    pub fn on_message(
        &self,
        pattern: impl Into<Match>,
        len_max: usize,
        depth: usize,
        function: impl FnMut(&[u8], &Completion) + Send + 'static,
    ) -> Result<Handler, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let state = HandlerState {
            endpoint: self.inner.number,
            pattern: pattern.into(),
            posted: VecDeque::new(),
            callee: Arc::new(Callee {
                function: Mutex::new(Box::new(function)),
                busy: Mutex::new(false),
                idle: Condvar::new(),
            }),
        };
        let buffers: Vec<Buf> = (0..depth.max(1)).map(|_| Buf::zeroed(len_max)).collect();
        let mut broken = Ok(());
        let key = shared.with_caught(&mut broken, |core| {
            if core.endpoint(self.inner.number).is_none() {
                return Err(OpError::EngineClosed);
            }
            let key = core.handlers.insert(state);
            for buf in buffers {
                core.repost(key, buf);
            }
            Ok(key)
        })?;
        let handler = Handler { shared: Arc::clone(shared), key };
        crate::panics::keep(&mut broken, run_ready(shared));
        if let Err(panic) = broken {
            // It unregisters the handler.
            resume_unwind(panic);
        }
        Ok(handler)
    }
}

impl Handler {
    /// Ends it; see the type.
    pub fn unregister(self) {
        drop(self);
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if self.shared.check_fork().is_err() {
            return;
        }
        let (callee, garbage) = self.shared.with_in_drop(|core| core.end_handler(self.key));
        crate::panics::survives(|| drop(garbage));
        // A message that another thread has taken for the function is waited for; not one that is a caller of ours.
        if let Some(callee) = callee
            && !is_running_here(&callee)
        {
            callee.wait_until_idle();
        }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler")
    }
}

impl Core {
    /// Posts a receive of a handler.
    fn repost(&mut self, key: Key, mut buf: Buf) {
        buf.set_len(buf.capacity());
        let Some(handler) = self.handlers.get(key) else {
            self.effects.discard([buf]);
            return;
        };
        let (endpoint, pattern) = (handler.endpoint, handler.pattern);
        match self.start_recv(endpoint, pattern, Memory::Owned(buf), Some(key)) {
            Started::Pending(op) => {
                if let Some(handler) = self.handlers.get_mut(key) {
                    handler.posted.push_back(op);
                }
            }
            Started::Done(_, memory, _) => self.effects.discard(memory.into_buf()),
        }
    }

    /// The message that a receive of a handler fetched was taken back. Later messages that other receives of the handler have
    /// begun to take move up, as they are to be shown first: the receive that is left over is the last of these.
    pub(crate) fn give_place_up(&mut self, handler: Key, key: Key) {
        let Some(state) = self.handlers.get_mut(handler) else { return };
        let Some(first) = state.posted.iter().position(|&op| op == key) else { return };
        let (ops, mut last) = (&self.ops, first);
        let waits = |op: &Key| matches!(ops.get(*op), Some(Op::Recv(recv)) if matches!(recv.state, RecvState::Posted(_)));
        while state.posted.get(last + 1).is_some_and(|op| !waits(op)) {
            last += 1;
        }
        let order = |op: &Key| match ops.get(*op) {
            Some(Op::Recv(recv)) => recv.order,
            _ => 0,
        };
        let orders: Vec<u64> = state.posted.range(first..=last).map(order).collect();
        state.posted.make_contiguous()[first..=last].rotate_left(1);
        let moved: Vec<Key> = state.posted.range(first..=last).copied().collect();
        for (op, order) in moved.into_iter().zip(orders) {
            if let Some(Op::Recv(recv)) = self.ops.get_mut(op) {
                recv.order = order;
            }
        }
        // The one that is first now may be complete.
        self.ready_handlers.push(handler);
        self.effects.call_handlers();
    }

    fn end_handler(&mut self, key: Key) -> (Option<Arc<Callee>>, Vec<Buf>) {
        let Some(handler) = self.handlers.remove(key) else { return (None, Vec::new()) };
        let mut buffers = Vec::new();
        let waits = |op: &Key| matches!(self.ops.get(*op), Some(Op::Recv(recv)) if matches!(recv.state, RecvState::Posted(_)));
        let (waiting, begun): (Vec<Key>, Vec<Key>) = handler.posted.into_iter().partition(waits);
        // What has come and was not shown waits for other receives: the newest is put back first, so that order stays.
        for op in waiting.into_iter().chain(begun.into_iter().rev()) {
            buffers.extend(self.give_up_recv(op).and_then(Memory::into_buf));
        }
        (Some(handler.callee), buffers)
    }

    /// The next message of a handler that is complete, in order, if nobody is running the handler already.
    fn next_of_handler(&mut self, key: Key) -> Option<Delivery> {
        let handler = self.handlers.get(key)?;
        let op = *handler.posted.front()?;
        let finished =
            matches!(self.ops.get(op), Some(Op::Recv(recv)) if matches!(recv.state, RecvState::Finished(_)));
        if !finished || handler.callee.is_busy() {
            return None;
        }
        let handler = self.handlers.get_mut(key)?;
        handler.posted.pop_front();
        let callee = Arc::clone(&handler.callee);
        let (result, memory) = self.collect_recv(op)?;
        let buf = memory.into_buf()?;
        callee.set_busy(true);
        Some(Delivery { callee, result, buf })
    }
}

thread_local! {
    /// Which handlers' functions this thread is in: one that waits runs others inside itself.
    static RUNNING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// The engine of which this thread posts a receive of a handler again: what that completes there is for the loop around it, as
    /// nested calls would be as deep as the backlog is long. Other engines, which a waker may call meanwhile, have no such loop.
    static REPOSTING: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread is in a call of the handler; not in one that drops what it kept as it ends.
fn is_running_here(callee: &Arc<Callee>) -> bool {
    RUNNING.try_with(|running| running.borrow().contains(&Arc::as_ptr(callee).addr())).unwrap_or(false)
}

struct Delivery {
    callee: Arc<Callee>,
    result: Result<Completion, OpError>,
    buf: Buf,
}

/// Calls handlers that have complete messages. Outside the lock. A panic of other code of the application that runs on the way is
/// for the caller: it keeps no handler from its messages.
#[cold]
pub(crate) fn run_ready(shared: &Arc<Shared>) -> std::thread::Result<()> {
    let mut broken = Ok(());
    let own = Arc::as_ptr(shared).addr();
    if REPOSTING.get() == own {
        return broken;
    }
    while let Some(key) = shared.with_caught(&mut broken, |core| core.ready_handlers.pop()) {
        while let Some(delivery) = shared.with_caught(&mut broken, |core| core.next_of_handler(key)) {
            let Delivery { callee, result, buf } = delivery;
            let panicked = match &result {
                Ok(info) => call(&callee, &buf, info),
                Err(_) => false,
            };
            let gone = panicked || matches!(result, Err(OpError::Cancelled | OpError::EngineClosed));
            let outer = REPOSTING.replace(own);
            shared.with_caught(&mut broken, |core| {
                callee.set_busy(false);
                if gone {
                    let (_, buffers) = core.end_handler(key);
                    core.effects.discard(buffers);
                    core.effects.discard([buf]);
                } else {
                    core.repost(key, buf);
                }
            });
            REPOSTING.set(outer);
            // The last of a handler that was dropped inside of its call: what it captured is the application's.
            crate::panics::keep(&mut broken, catch_unwind(AssertUnwindSafe(|| drop(callee))));
        }
    }
    broken
}

fn call(callee: &Arc<Callee>, buf: &Buf, info: &Completion) -> bool {
    RUNNING.with_borrow_mut(|running| running.push(Arc::as_ptr(callee).addr()));
    let mut function = callee.function.lock().unwrap_or_else(PoisonError::into_inner);
    let survived = crate::panics::survives(|| function(buf.as_slice(), info));
    drop(function);
    if !survived {
        // Inside of the call still: a subscriber may drop the handler.
        crate::events::now(crate::events::handler_panicked(info.tag));
    }
    RUNNING.with_borrow_mut(Vec::pop);
    !survived
}
