//! A queue pair that is lent to be posted to, by something whose queue pair it stays.
//!
//! Given by connections of the connection manager. A `&mut QueuePair` would let a program exchange it for another one.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::post::PostError;
use super::request::{ReceiveRequest, SendRequest};
use super::service::Service;
use std::ops::Deref;

/// A queue pair of service `S`, borrowed for posting: it is asked and changed as a [`QueuePair`], posted to as one, and neither taken nor exchanged.
#[derive(Debug)]
pub struct QueuePairMut<'lent, S: Service>(&'lent mut QueuePair<S>);

impl<'lent, S: Service> QueuePairMut<'lent, S> {
    pub(crate) const fn new(qp: &'lent mut QueuePair<S>) -> Self {
        Self(qp)
    }

    /// The same for a shorter time.
    pub const fn reborrow(&mut self) -> QueuePairMut<'_, S> {
        QueuePairMut(self.0)
    }

    /// As [`QueuePair::post`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn post(&mut self, requests: &mut [SendRequest<'_, S>]) -> Result<(), PostError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.post(requests) }
    }

    /// As [`QueuePair::post_one`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn post_one(&mut self, request: SendRequest<'_, S>) -> Result<(), PostError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.post_one(request) }
    }

    /// As [`QueuePair::post_each`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn post_each<'l>(
        &mut self,
        requests: impl IntoIterator<Item = SendRequest<'l, S>>,
    ) -> Result<usize, PostError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.post_each(requests) }
    }

    /// As [`QueuePair::post_receives`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub unsafe fn post_receives(&mut self, requests: &mut [ReceiveRequest<'_>]) -> Result<(), PostError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.post_receives(requests) }
    }
}

impl<S: Service> Deref for QueuePairMut<'_, S> {
    type Target = QueuePair<S>;

    fn deref(&self) -> &QueuePair<S> {
        self.0
    }
}

impl<'lent, S: Service> From<&'lent mut QueuePair<S>> for QueuePairMut<'lent, S> {
    fn from(qp: &'lent mut QueuePair<S>) -> Self {
        Self(qp)
    }
}
