//! Advice about registered memory: what is registered for on-demand paging can be brought in before it is needed.
#![allow(unsafe_code)]

use super::buffer::Buffer;
use super::exposed::ExposedPart;
use super::region::Registered;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;

/// What is advised (`enum ibv_advise_mr_advice`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_advise_mr_advice")]
pub enum Advice {
    /// Make it ready to be read by the device, bringing pages in from where they are.
    Prefetch,
    /// Make it ready to be written by the device too.
    PrefetchWrite,
    /// Tell the device of the pages that are there, and bring none in.
    PrefetchPresent,
}

impl Advice {
    const fn to_raw(self) -> sys::IbvAdviseMrAdvice {
        match self {
            Self::Prefetch => sys::IbvAdviseMrAdvice::PREFETCH,
            Self::PrefetchWrite => sys::IbvAdviseMrAdvice::PREFETCH_WRITE,
            Self::PrefetchPresent => sys::IbvAdviseMrAdvice::PREFETCH_NO_FAULT,
        }
    }
}

/// One call for one piece of a region.
fn advise(region: &Registered, piece: sys::ibv_sge, advice: Advice, finish: bool) -> Result<()> {
    let pd = region.pd();
    let flags = if finish { sys::IBV_ADVISE_MR_FLAG_FLUSH } else { 0 };
    // SAFETY: the domain is alive, and the piece is of a region of it, which the caller holds; advice changes no byte of it.
    unsafe { sys::ibv_advise_mr(pd.as_raw(), advice.to_raw(), flags, &mut [piece]) }.map_err(|errno| {
        Error::call("ibv_advise_mr", format_args!("{region:?} of {}", pd.context().name()), errno.0)
    })
}

impl Buffer {
    /// Advises the device about all of it (up to 2^32 - 1 bytes). It matters for memory that was registered `ON_DEMAND`. With `finish` it
    /// returns when the advice was followed, else at once; it is advice either way.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where device or library cannot; [`Error::Call`] with `EFAULT` for pages that are not there
    /// (`PrefetchPresent`).
    #[doc(alias = "ibv_advise_mr")]
    pub fn advise(&self, advice: Advice, finish: bool) -> Result<()> {
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        advise(self.region(), self.first(len), advice, finish)
    }
}

impl ExposedPart {
    /// Advises the device about this range, as [`Buffer::advise`]. Of an [`ExposedRegion`](super::ExposedRegion) or a
    /// [`ForeignRegion`](super::ForeignRegion): `region.part(range)?.advise(…)`.
    ///
    /// # Errors
    /// As of [`Buffer::advise`].
    #[doc(alias = "ibv_advise_mr")]
    pub fn advise(&self, advice: Advice, finish: bool) -> Result<()> {
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        advise(self.region(), self.first(len), advice, finish)
    }
}
