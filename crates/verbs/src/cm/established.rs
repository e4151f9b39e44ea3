//! Identifiers of whole connections, to their end.

use super::base::Base;
use super::connection::Ended;
use super::event::{ConnectionAttributes, EventKind, IdNumber, Notice};
use super::id::Id;
use super::peer::{Done, Said, said};
use super::progress::{Progress, Waits};
use crate::error::Result;
use crate::hub::Member;
use crate::qp::{QueuePair, QueuePairMut, Rc};
use std::convert::Infallible;

/// A whole connection.
#[derive(Debug)]
pub struct Established<Q> {
    queue_pair: Q,
    said: Said,
}

impl<Q> Established<Q> {
    pub(super) const fn new(queue_pair: Q, said: Said) -> Self {
        Self { queue_pair, said }
    }
}

/// Waits for the peer to see the end, and for `DISCONNECTED`.
#[derive(Debug)]
pub struct Disconnecting<Q> {
    queue_pair: Q,
}

/// The connection is over. Waits for `TIMEWAIT_EXIT`: from then on nothing of it is under way in the network.
#[derive(Debug)]
pub struct Disconnected<Q> {
    queue_pair: Q,
    how: Ended,
}

/// What can be connected: a [`QueuePair`], or a [`Member`] of a hub.
pub trait Connectable: std::fmt::Debug {
    /// Ends its work, where it is ours to end.
    #[doc(hidden)]
    fn flush(&self) -> Result<()>;
}

impl Connectable for QueuePair<Rc> {
    fn flush(&self) -> Result<()> {
        self.fail()
    }
}

/// Its hub flushes it ([`Hub::fail`](crate::hub::Hub::fail)).
impl Connectable for Member {
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl<Q> Id<Established<Q>> {
    /// What is connected.
    #[must_use]
    pub const fn queue_pair(&self) -> &Q {
        &self.state.queue_pair
    }

    said!();
}

impl Id<Established<QueuePair<Rc>>> {
    /// The queue pair, to post; it stays this connection's until [it is over](Id::<Disconnected<QueuePair<Rc>>>::into_queue_pair).
    #[must_use]
    pub const fn queue_pair_mut(&mut self) -> QueuePairMut<'_, Rc> {
        QueuePairMut::new(&mut self.state.queue_pair)
    }
}

impl<Q: Connectable> Id<Established<Q>> {
    /// Ends the connection (rdma_disconnect(3)): a queue pair of its own goes to the error state, which flushes it, and the peer is told.
    ///
    /// # Errors
    /// Itself with [`Error::Transition`](crate::Error::Transition) and [`Error::Call`](crate::Error::Call), of the first step that failed; the others were tried.
    #[doc(alias = "rdma_disconnect")]
    pub fn disconnect(self) -> Done<Id<Disconnecting<Q>>, Self> {
        let answer = self.end();
        self.after(answer, |state| Disconnecting { queue_pair: state.queue_pair })
    }

    /// Flushes, and tells the peer. One that has ended already is no error.
    pub(super) fn end(&self) -> Result<()> {
        let flushed = self.state.queue_pair.flush();
        let told = match self.base.disconnect() {
            Err(error) if error.errno() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        };
        flushed.and(told)
    }

    /// How an event ends it, if it does; the peer's end is answered.
    pub(super) fn ended_by(&self, notice: &Notice) -> Option<Ended> {
        let ended = how(&self.base, notice)?;
        if ended == Ended::Disconnected
            && let Err(error) = self.end()
        {
            tracing::debug!(%error, "the peer's end of a connection could not be answered");
        }
        Some(ended)
    }
}

/// How an event ends a connection, if it does.
fn how(base: &Base, notice: &Notice) -> Option<Ended> {
    if notice.id != Some(base.number()) {
        return None;
    }
    match notice.kind {
        EventKind::DISCONNECTED => Some(Ended::Disconnected),
        EventKind::DEVICE_REMOVAL => Some(Ended::DeviceRemoved),
        EventKind::CONNECT_ERROR | EventKind::REJECTED | EventKind::UNREACHABLE => {
            Some(Ended::Failed(notice.status))
        }
        _ => None,
    }
}

/// Goes on as a connection that is over, where an event has ended it.
fn over<T, Q>(id: Id<T>, notice: Notice, how: Option<Ended>, what: impl FnOnce(T) -> Q) -> Progress<Id<T>>
where
    Id<T>: Waits<Next = Id<Disconnected<Q>>>,
{
    match how {
        Some(how) => Progress::Next(Id::new(id.base, Disconnected { queue_pair: what(id.state), how })),
        None => Progress::Same(id, notice),
    }
}

/// Ends when the peer ends it, which is answered, when the device is removed, or fails.
impl<Q: Connectable> Waits for Id<Established<Q>> {
    type Next = Id<Disconnected<Q>>;
    type Back = Infallible;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, Infallible> {
        let how = self.ended_by(&notice);
        Ok(over(self, notice, how, |state| state.queue_pair))
    }
}

impl<Q> Id<Disconnecting<Q>> {
    /// Waits no longer for the peer to see it.
    #[must_use]
    pub fn into_queue_pair(self) -> Q {
        self.state.queue_pair
    }
}

/// Ends when the peer has seen it.
impl<Q> Waits for Id<Disconnecting<Q>> {
    type Next = Id<Disconnected<Q>>;
    type Back = Infallible;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, Infallible> {
        let how = how(&self.base, &notice);
        Ok(over(self, notice, how, |state| state.queue_pair))
    }
}

impl<Q> Id<Disconnected<Q>> {
    /// How it ended.
    #[must_use]
    pub const fn how(&self) -> Ended {
        self.state.how
    }

    /// What was connected, without waiting for `TIMEWAIT_EXIT`. Bring a queue pair to RESET before it is used again: a peer that saw a connection of it
    /// lately may refuse its number.
    #[must_use]
    pub fn into_queue_pair(self) -> Q {
        self.state.queue_pair
    }
}

/// Goes on as what was connected, when nothing of the connection is under way any more.
impl<Q> Waits for Id<Disconnected<Q>> {
    type Next = Q;
    type Back = Infallible;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, Infallible> {
        let is_last = matches!(notice.kind, EventKind::TIMEWAIT_EXIT | EventKind::DEVICE_REMOVAL);
        Ok(match notice.id == Some(self.base.number()) && is_last {
            true => Progress::Next(self.state.queue_pair),
            false => Progress::Same(self, notice),
        })
    }
}
