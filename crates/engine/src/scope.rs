//! Operations on borrowed buffers, in the manner of `std::thread::scope`: whatever is started in a scope has ended, and
//! nothing refers to its memory, when the scope returns, also by a panic.
#![allow(unsafe_code)]

use crate::completion::{Completion, Match};
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Started};
use crate::endpoint::Endpoint;
use crate::error::OpError;
use crate::message::ended;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::timeout::Timeout;
use sinew_wire::frame::{Flags, Header, Kind};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Where operations on borrowed buffers are started. See [`Endpoint::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    endpoint: Endpoint,
    open: Mutex<Open>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Operations that were not collected yet, in the order in which they were started.
#[derive(Default)]
struct Open {
    keys: BTreeMap<u64, Key>,
    next: u64,
}

impl Open {
    /// Its number.
    fn insert(&mut self, key: Key) -> u64 {
        self.next += 1;
        self.keys.insert(self.next, key);
        self.next
    }
}

/// A receive of a scope.
#[must_use = "wait for it to get the buffer back before the scope ends"]
pub struct ScopedRecv<'scope> {
    shared: Arc<Shared>,
    open: &'scope Mutex<Open>,
    state: Result<(u64, Key), OpError>,
    data: NonNull<u8>,
    len: usize,
    buffer: PhantomData<&'scope mut [u8]>,
}

/// A send of a scope.
#[must_use = "wait for it to learn whether it succeeded"]
pub struct ScopedSend<'scope> {
    shared: Arc<Shared>,
    open: &'scope Mutex<Open>,
    number: u64,
    key: Key,
    buffer: PhantomData<&'scope [u8]>,
}

// SAFETY: the raw parts stand for a `&'scope mut [u8]`, which is Send.
unsafe impl Send for ScopedRecv<'_> {}

impl Endpoint {
    /// Runs `f` with a scope for operations on borrowed buffers. When `f` ends, operations that were not waited for are
    /// waited for up to the option `timeout`, then really cancelled; after a panic they are cancelled at once, and a
    /// message that one of them had received waits for another receive.
    ///
    /// ```compile_fail
    /// # fn sample(endpoint: &sinew_engine::Endpoint) {
    /// endpoint.scope(|scope| {
    ///     let mut buf = [0; 8];
    ///     let _ = scope.recv(1, &mut buf); // `buf` does not live as long as the scope
    /// });
    /// # }
    /// ```
    pub fn scope<'env, T>(&self, f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
        let scope =
            Scope { endpoint: self.clone(), open: Mutex::default(), scope: PhantomData, env: PhantomData };
        let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
        let ended = scope.end(result.is_err());
        match (result, ended) {
            (Ok(value), Ok(())) => value,
            (Err(panic), ended) => {
                ended.unwrap_or_else(crate::panics::discard);
                resume_unwind(panic)
            }
            (Ok(_), Err(panic)) => resume_unwind(panic),
        }
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a receive into a borrowed buffer.
    ///
    /// # Errors
    /// [`OpError::Forked`].
    pub fn recv(
        &'scope self,
        pattern: impl Into<Match>,
        buf: &'scope mut [u8],
    ) -> Result<ScopedRecv<'scope>, OpError> {
        let shared = &self.endpoint.inner.shared;
        shared.check_fork()?;
        let (data, len) = (NonNull::from(&mut *buf).cast(), buf.len());
        let pattern = pattern.into();
        let state = shared.with(|core| {
            let memory = Memory::Borrowed { data, len };
            let key = match core.start_recv(self.endpoint.inner.number, pattern, memory, None) {
                Started::Pending(key) => key,
                // A panic may come before anybody hears of the message.
                Started::Done(Ok(info), memory, number) => {
                    core.keep_finished(self.endpoint.inner.number, pattern.untagged, memory, Ok(info), number)
                }
                Started::Done(Err(error), ..) => return Err(error),
            };
            Ok((lock(&self.open).insert(key), key))
        });
        Ok(ScopedRecv { shared: Arc::clone(shared), open: &self.open, state, data, len, buffer: PhantomData })
    }

    /// Starts sending a borrowed buffer.
    ///
    /// # Errors
    /// [`OpError`] when the session is over; [`OpError::OtherEngine`] for a peer of another engine than the scope's endpoint.
    pub fn send(
        &'scope self,
        peer: &Peer,
        tag: u64,
        data: &'scope [u8],
    ) -> Result<ScopedSend<'scope>, OpError> {
        let shared = &self.endpoint.inner.shared;
        shared.check_fork()?;
        let header =
            Header { kind: Kind::EAGER, flags: Flags(0), dst: peer.dst, src: peer.endpoint.number, tag };
        let memory = Memory::Borrowed { data: NonNull::from(data).cast(), len: data.len() };
        if !Arc::ptr_eq(&peer.endpoint.shared, shared) {
            return Err(OpError::OtherEngine);
        }
        let (number, key) = shared.with(|core| {
            core.session_error(peer.session)?;
            let key = core.start_send(peer.session, peer.flow, header, None, memory, false);
            Ok::<_, OpError>((lock(&self.open).insert(key), key))
        })?;
        Ok(ScopedSend { shared: Arc::clone(shared), open: &self.open, number, key, buffer: PhantomData })
    }

    /// Ends every operation, whatever panics meanwhile: waiting runs wakers and handlers of the application.
    fn end(&self, panicked: bool) -> std::thread::Result<()> {
        let shared = &self.endpoint.inner.shared;
        if shared.check_fork().is_err() {
            // The operations are the parent's; nothing in this process touches their memory.
            return Ok(());
        }
        let mut result = Ok(());
        let mut open = std::mem::take(&mut lock(&self.open).keys);
        let limit = Timeout::Default.resolve(&shared.config);
        let until = limit.map(|limit| crate::timeout::far_at_most(shared.now(), limit));
        // Messages that are given up are put back before all others, so the newest first.
        while let Some((_, key)) =
            if panicked || result.is_err() { open.pop_last() } else { open.pop_first() }
        {
            let left = until.map(|until| until.saturating_duration_since(shared.now()));
            if !panicked && result.is_ok() {
                match catch_unwind(AssertUnwindSafe(|| shared.wait(left, |core| collect(core, key)))) {
                    Ok(Some(())) => continue,
                    Ok(None) => {}
                    Err(panic) => result = Err(panic),
                }
            }
            // Cancelled before anything of the application runs. After a panic nobody hears of a message that a receive has
            // got: it waits for another.
            let given_up = panicked || result.is_err();
            let mut cancelled = Ok(());
            shared.with_caught(&mut cancelled, |core| {
                if given_up {
                    core.give_up_recv(key);
                } else {
                    core.cancel_recv(key);
                }
                core.cancel_send(key);
            });
            crate::panics::keep(&mut result, cancelled);
        }
        result
    }
}

fn collect(core: &mut Core, key: Key) -> Option<()> {
    if core.is_left_to_callers(key) {
        return None;
    }
    core.collect_recv(key).map(drop).or_else(|| core.collect_send(key).map(drop))
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'scope> ScopedRecv<'scope> {
    /// Waits up to the option `timeout` and gives the buffer back; at the deadline the receive is really cancelled.
    pub fn wait(self) -> (Result<Completion, OpError>, &'scope mut [u8]) {
        self.wait_within(Timeout::Default)
    }

    /// [`ScopedRecv::wait`] with its own deadline.
    pub fn wait_within(self, timeout: impl Into<Timeout>) -> (Result<Completion, OpError>, &'scope mut [u8]) {
        let shared = &self.shared;
        let result = match self.state {
            Err(error) => Err(error),
            Ok(_) if shared.check_fork().is_err() => Err(OpError::Forked),
            Ok((number, key)) => {
                let limit = timeout.into().resolve(&shared.config);
                let look = |core: &mut Core| core.collect_recv(key);
                let done = shared.wait_or_cancel(limit, look, |core| {
                    core.cancel_recv(key);
                });
                lock(self.open).keys.remove(&number);
                match done {
                    Ok((result, _)) => result,
                    Err(()) => Err(OpError::TimedOut { after: limit.unwrap_or_default() }),
                }
            }
        };
        // SAFETY: the operation has left the table, so this is the only access to the `&'scope mut [u8]` that was given.
        let buf = unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) };
        (result, buf)
    }
}

impl ScopedSend<'_> {
    /// Waits up to the option `timeout`; at the deadline the send is really cancelled.
    ///
    /// # Errors
    /// [`OpError`].
    pub fn wait(self) -> Result<(), OpError> {
        self.wait_within(Timeout::Default)
    }

    /// [`ScopedSend::wait`] with its own deadline.
    ///
    /// # Errors
    /// [`OpError`].
    pub fn wait_within(self, timeout: impl Into<Timeout>) -> Result<(), OpError> {
        let shared = &self.shared;
        shared.check_fork()?;
        let limit = timeout.into().resolve(&shared.config);
        let look = |core: &mut Core| {
            if core.is_left_to_callers(self.key) { None } else { core.collect_send(self.key) }
        };
        // One that is over while the system has not got it is found by the cancel.
        let done = shared.wait_or_cancel(limit, look, |core| core.cancel_send(self.key));
        lock(self.open).keys.remove(&self.number);
        ended(done, || OpError::TimedOut { after: limit.unwrap_or_default() })
    }
}

impl std::fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scope")
    }
}
