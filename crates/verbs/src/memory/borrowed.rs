//! A caller's slice, registered for as long as it is borrowed.

use super::element::{Gather, Scatter};
use super::region::Registered;
use crate::error::Result;
use std::sync::Arc;

/// A borrowed slice that a device may reach, for this process only. Dropping it ends the registration, on whichever thread; it holds its domain.
///
/// Its bytes are reached through it: [`split`](Self::split) gives the bytes and a key; the bytes can be divided as any slice, and the
/// key makes elements of the parts. As long as an element, the key or the bytes are in use, the registration cannot end: safe code
/// cannot use a registration of memory that is gone, and one that was forgotten cannot be named by anybody.
#[derive(Debug)]
#[doc(alias = "ibv_reg_mr")]
pub struct BorrowedRegion<'mem> {
    region: Arc<Registered>,
    bytes: &'mem mut [u8],
}

/// The right to make elements of a registered slice's parts.
#[derive(Clone, Copy, Debug)]
pub struct LocalKey<'region> {
    region: &'region Registered,
}

impl<'mem> BorrowedRegion<'mem> {
    pub(crate) const fn new(region: Arc<Registered>, bytes: &'mem mut [u8]) -> Self {
        Self { region, bytes }
    }

    /// The bytes, and the key that makes elements of their parts.
    pub fn split(&mut self) -> (LocalKey<'_>, &mut [u8]) {
        (LocalKey { region: &self.region }, self.bytes)
    }

    /// How many bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: no device registers nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'region> LocalKey<'region> {
    /// These bytes as what a send or a write takes.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the registration does not enclose them, or for more than 2^32 - 1.
    pub fn gather<'data>(self, bytes: &'data [u8]) -> Result<Gather<'data>>
    where
        'region: 'data,
    {
        Gather::new(bytes, self.region)
    }

    /// These bytes as what a receive or a read fills.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    pub fn scatter<'data>(self, bytes: &'data mut [u8]) -> Result<Scatter<'data>>
    where
        'region: 'data,
    {
        Scatter::new(bytes, self.region)
    }
}
