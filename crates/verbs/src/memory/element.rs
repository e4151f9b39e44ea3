//! One element of a gather or scatter list: bytes, and the registration that encloses them.
//!
//! The only things that safe code can post. Made where bytes and registration are both at hand; checked to fit. What is made of the ABI's
//! element is not checked, which is `unsafe`.
#![allow(unsafe_code)]

use super::region::Registered;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::marker::PhantomData;

/// Bytes that a send or a write takes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
#[doc(alias = "ibv_sge")]
pub struct Gather<'data> {
    sge: sys::ibv_sge,
    data: PhantomData<&'data [u8]>,
}

/// Bytes that a receive or a read fills.
#[derive(Debug)]
#[repr(transparent)]
#[doc(alias = "ibv_sge")]
pub struct Scatter<'data> {
    sge: sys::ibv_sge,
    data: PhantomData<&'data mut [u8]>,
}

fn element(start: *const u8, len: usize, region: &Registered) -> Result<sys::ibv_sge> {
    if !region.encloses(start as usize, len) {
        return Err(Error::invalid(
            "element",
            format!("{len} bytes at {start:p} are not all inside {region:?}"),
            "register the memory that holds them",
        ));
    }
    let Ok(length) = u32::try_from(len) else {
        return Err(Error::invalid(
            "element",
            format!("{len} bytes; one element names up to 4294967295"),
            "divide it into several elements",
        ));
    };
    Ok(sys::ibv_sge { addr: start as u64, length, lkey: region.lkey() })
}

impl<'data> Gather<'data> {
    /// These bytes under this registration.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the registration does not enclose them.
    pub(crate) fn new(bytes: &'data [u8], region: &Registered) -> Result<Self> {
        Ok(Self { sge: element(bytes.as_ptr(), bytes.len(), region)?, data: PhantomData })
    }

    /// From what the ABI has.
    ///
    /// # Safety
    /// The bytes at the address are there for `'data`, and nobody writes them while an operation that was given this is out: the device reads
    /// them. Where they are registered is not looked at: a wrong key fails the operation.
    #[must_use]
    pub const unsafe fn from_raw(sge: sys::ibv_sge) -> Self {
        Self { sge, data: PhantomData }
    }

    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub const fn len(&self) -> u32 {
        self.sge.length
    }

    /// As the ABI has it.
    #[must_use]
    pub const fn as_raw(&self) -> sys::ibv_sge {
        self.sge
    }
}

impl<'data> Scatter<'data> {
    /// These bytes under this registration.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the registration does not enclose them.
    pub(crate) fn new(bytes: &'data mut [u8], region: &Registered) -> Result<Self> {
        // Through a pointer that may write: the slice is made again of the address when it comes back.
        Ok(Self { sge: element(bytes.as_mut_ptr(), bytes.len(), region)?, data: PhantomData })
    }

    /// From what the ABI has.
    ///
    /// # Safety
    /// The bytes at the address are there for `'data`, borrowed for this alone: the device writes them while an operation that was given this is
    /// out, and what gives places back makes a slice of them. Where they are registered is not looked at: a wrong key fails the operation.
    #[must_use]
    pub const unsafe fn from_raw(sge: sys::ibv_sge) -> Self {
        Self { sge, data: PhantomData }
    }

    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub const fn len(&self) -> u32 {
        self.sge.length
    }

    /// As the ABI has it.
    #[must_use]
    pub const fn as_raw(&self) -> sys::ibv_sge {
        self.sge
    }
}
