//! From keys and addresses to memory: what a device checks before it touches anything.
//!
//! Called by the rest of the engine. A request that names memory by a wrong key, outside a region, of another protection domain or
//! without the right to it is refused here.
#![allow(unsafe_code)]

use crate::engine::bytes::{self, Words};
use crate::fault::Touch;
use crate::request::{Data, Piece};
use crate::world::{Key, Memory, Mr, Pointer, State};
use core::ops::Range;
use sinew_verbs_sys as sys;

/// Any right of peers.
const REMOTE: u32 =
    sys::IBV_ACCESS_REMOTE_READ | sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_REMOTE_ATOMIC;

/// Memory that was checked, valid while the world stays locked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    memory: Memory,
    words: Words,
    pub(crate) len: usize,
}

/// The request names memory that it may not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied;

impl Mr {
    /// A part of the region.
    fn span(&self, addr: u64, len: u64) -> Result<Span, Denied> {
        let offset = addr.checked_sub(self.iova).ok_or(Denied)?;
        let end = offset.checked_add(len).ok_or(Denied)?;
        if end > self.len {
            return Err(Denied);
        }
        let (offset, len) =
            (usize::try_from(offset).map_err(|_| Denied)?, usize::try_from(len).map_err(|_| Denied)?);
        let words = match self.memory {
            Memory::Host(base) if self.is_shared() => {
                Words::of(base.0, usize::try_from(self.len).map_err(|_| Denied)?)
            }
            _ => Words::default(),
        };
        let memory = match self.memory {
            Memory::Host(base) => Memory::Host(Pointer(base.0.wrapping_add(offset))),
            Memory::Mapped(base) => Memory::Mapped(Pointer(base.0.wrapping_add(offset))),
            Memory::Device(id, start) => Memory::Device(id, start + offset),
            Memory::Null => Memory::Null,
        };
        Ok(Span { memory, words, len })
    }

    /// Whether peers may touch it, by its key or by that of a window.
    const fn is_shared(&self) -> bool {
        self.access & (REMOTE | sys::IBV_ACCESS_MW_BIND) != 0
    }
}

impl State {
    /// Memory that a request of this process names.
    pub(crate) fn local(&self, pd: u32, piece: &Piece, writes: bool) -> Result<Span, Denied> {
        let Some(Key::Region(region)) = self.keys.get(&piece.key) else { return Err(Denied) };
        let mr = self.mrs.get(region).ok_or(Denied)?;
        let may = !writes || mr.access & sys::IBV_ACCESS_LOCAL_WRITE != 0;
        if self.root_pd(mr.pd) != self.root_pd(pd) || !may {
            return Err(Denied);
        }
        mr.span(piece.addr, piece.reach())
    }

    /// Memory that a peer names, through a queue pair of this domain.
    pub(crate) fn remote(
        &self,
        qp_num: u32,
        rkey: u32,
        addr: u64,
        len: u64,
        need: u32,
    ) -> Result<Span, Denied> {
        let pd = self.qps.get(&qp_num).ok_or(Denied)?.pd;
        let (mr, access) = match self.keys.get(&rkey).ok_or(Denied)? {
            Key::Region(region) => {
                let mr = self.mrs.get(region).ok_or(Denied)?;
                (mr, mr.access)
            }
            Key::Window(window) => {
                let mw = self.mws.get(window).ok_or(Denied)?;
                let bound = mw.bound.ok_or(Denied)?;
                let end = addr.checked_add(len).ok_or(Denied)?;
                let inside = addr >= bound.addr && end <= bound.addr.saturating_add(bound.len);
                if !inside || bound.qp.is_some_and(|owner| owner != qp_num) {
                    return Err(Denied);
                }
                (self.mrs.get(&bound.mr).ok_or(Denied)?, bound.access)
            }
        };
        if self.root_pd(mr.pd) != self.root_pd(pd) || access & need != need {
            return Err(Denied);
        }
        mr.span(addr, len)
    }

    /// The bytes there.
    pub(crate) fn read(&self, span: Span) -> Vec<u8> {
        match span.memory {
            // SAFETY: the span lies in a region that is registered, and whoever registered it promised that its memory stays.
            // A mapping stays as long as its region.
            Memory::Host(at) | Memory::Mapped(at) => unsafe { bytes::copy_out(at.0, span.len, span.words) },
            Memory::Device(id, at) => self
                .dms
                .get(&id)
                .and_then(|dm| dm.get(at..at + span.len))
                .map_or_else(Vec::new, <[u8]>::to_vec),
            Memory::Null => vec![0; span.len],
        }
    }

    /// Writes so many bytes there.
    pub(crate) fn write(&mut self, span: Span, from: &[u8]) {
        let from = &from[..from.len().min(span.len)];
        match span.memory {
            // SAFETY: as in `read`; that it may be written was checked with the key.
            Memory::Host(at) | Memory::Mapped(at) => unsafe { bytes::copy_in(at.0, from, span.words) },
            Memory::Device(id, at) => {
                if let Some(place) = self.dms.get_mut(&id).and_then(|dm| dm.get_mut(at..at + from.len())) {
                    place.copy_from_slice(from);
                }
            }
            Memory::Null => {}
        }
    }

    /// Changes the eight bytes there in one step. Denied where they are not at a multiple of eight.
    pub(crate) fn change(&mut self, span: Span, new: impl Fn(u64) -> u64) -> Result<u64, Denied> {
        if let Memory::Host(at) | Memory::Mapped(at) = span.memory {
            if !at.0.addr().is_multiple_of(8) || span.len != 8 {
                return Err(Denied);
            }
            // SAFETY: as in `write`; eight bytes at a multiple of eight.
            return Ok(unsafe { bytes::change(at.0, new) });
        }
        let old = self.read(span).try_into().map(u64::from_ne_bytes).map_err(|_| Denied)?;
        self.write(span, &new(old).to_ne_bytes());
        Ok(old)
    }

    /// The bytes that a request sends.
    pub(crate) fn gather(&self, pd: u32, data: &Data) -> Result<Vec<u8>, Denied> {
        match data {
            Data::Inline(bytes) => Ok(bytes.clone()),
            Data::Pieces(pieces) => {
                let mut all = Vec::new();
                for piece in pieces {
                    all.extend(self.read(self.local(pd, piece, false)?));
                }
                Ok(all)
            }
        }
    }

    /// Spreads bytes over pieces, as far as the bytes reach. Every piece is checked before the first byte is written.
    pub(crate) fn scatter(&mut self, pd: u32, pieces: &[Piece], mut from: &[u8]) -> Result<(), Denied> {
        let spans: Vec<Span> =
            pieces.iter().map(|piece| self.local(pd, piece, true)).collect::<Result<_, _>>()?;
        for span in spans {
            let (now, rest) = from.split_at(from.len().min(span.len));
            self.write(span, now);
            from = rest;
        }
        Ok(())
    }

    /// What a request with these pieces may touch. Pieces that the device will refuse touch nothing.
    pub(crate) fn touches(
        &self,
        pd: u32,
        pieces: &[Piece],
        writes: bool,
        qp_num: u32,
        wr_id: u64,
    ) -> Vec<Touch> {
        let touch = |piece: &Piece| {
            let span = self.local(pd, piece, writes).ok()?;
            let addr = match span.memory {
                Memory::Host(at) => at.0.addr(),
                Memory::Mapped(_) | Memory::Device(..) | Memory::Null => 0,
            };
            Some(Touch { addr, len: span.len, writes, key: piece.key, qp_num, wr_id })
        };
        pieces.iter().filter_map(touch).collect()
    }

    /// What all requests that are under way may touch: posted, and no completion that tells of them was polled.
    pub(crate) fn in_flight(&self) -> Vec<Touch> {
        let of_qps = self.qps.values().flat_map(|qp| {
            let queued = qp.sends.iter().flat_map(|send| &send.touches);
            let posted = qp.receives.iter().flat_map(|receive| &receive.touches);
            let withheld = qp.withheld.iter().flat_map(|(_, completion)| &completion.touches);
            queued.chain(posted).chain(withheld).chain(&qp.untold_touches)
        });
        let of_srqs =
            self.srqs.values().flat_map(|srq| srq.queue.iter().flat_map(|receive| &receive.touches));
        let of_cqs =
            self.cqs.values().flat_map(|cq| cq.queue.iter().flat_map(|completion| &completion.touches));
        of_qps.chain(of_srqs).chain(of_cqs).cloned().collect()
    }

    /// Memory of this process that peers may touch by a key: addresses of regions with remote access.
    pub(crate) fn exposed(&self) -> Vec<Range<usize>> {
        let of = |mr: &Mr| match mr.memory {
            Memory::Host(base) if mr.access & REMOTE != 0 => Some(
                base.0.addr()..base.0.addr().saturating_add(usize::try_from(mr.len).unwrap_or(usize::MAX)),
            ),
            _ => None,
        };
        let windows = self.mws.values().filter_map(|mw| {
            let bound = mw.bound?;
            let span = self.mrs.get(&bound.mr)?.span(bound.addr, bound.len).ok()?;
            match span.memory {
                Memory::Host(at) => Some(at.0.addr()..at.0.addr().saturating_add(span.len)),
                Memory::Mapped(_) | Memory::Device(..) | Memory::Null => None,
            }
        });
        self.mrs.values().filter_map(of).chain(windows).collect()
    }
}
