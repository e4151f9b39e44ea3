//! One operation of a channel on borrowed memory, and what comes back of it.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::hub::{Success, no_word};
use crate::memory::{Gather, RemoteRegion, Scatter};
use crate::qp::{Rc, ReceiveRequest, SendRequest};
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;

/// Elements of one operation, at most.
pub(super) const ELEMENTS_MAX: usize = 8;

/// A list of up to 8 elements, in place.
#[derive(Clone, Copy)]
struct List {
    elements: [sys::ibv_sge; ELEMENTS_MAX],
    len: usize,
    /// More were given than fit: the post fails.
    excess: bool,
}

impl List {
    const EMPTY: Self = Self {
        elements: [sys::ibv_sge { addr: 0, length: 0, lkey: 0 }; ELEMENTS_MAX],
        len: 0,
        excess: false,
    };

    fn of(elements: impl Iterator<Item = sys::ibv_sge>) -> Self {
        let mut list = Self::EMPTY;
        for element in elements {
            match list.elements.get_mut(list.len) {
                Some(place) => *place = element,
                None => {
                    list.excess = true;
                    break;
                }
            }
            list.len += 1;
        }
        list
    }

    fn as_slice(&self) -> &[sys::ibv_sge] {
        &self.elements[..self.len]
    }

    /// As a request has them: devices take an element of no bytes for one of 2^31.
    fn without_empty(&self) -> Self {
        let elements = self.as_slice().iter().copied().filter(|element| element.length > 0);
        Self { excess: self.excess, ..Self::of(elements) }
    }
}

/// Bytes to be sent or written, up to 8 pieces. Made of a [`Gather`], an array or a slice of them; none is an empty message.
#[derive(Clone, Copy)]
pub struct Pieces<'data> {
    list: List,
    data: PhantomData<&'data [u8]>,
}

impl<'data> From<Gather<'data>> for Pieces<'data> {
    fn from(piece: Gather<'data>) -> Self {
        Self::from([piece])
    }
}

impl<'data, const N: usize> From<[Gather<'data>; N]> for Pieces<'data> {
    fn from(pieces: [Gather<'data>; N]) -> Self {
        Self::from(&pieces[..])
    }
}

impl<'data> From<&[Gather<'data>]> for Pieces<'data> {
    fn from(pieces: &[Gather<'data>]) -> Self {
        Self { list: List::of(pieces.iter().map(Gather::as_raw)), data: PhantomData }
    }
}

/// Places that an operation has while it is out, up to 8: filled by a receive or a read, or sent from and lent meanwhile. Made of a
/// [`Scatter`], an array or a vector of them; come back with [`Done`].
pub struct Places<'data> {
    list: List,
    data: PhantomData<&'data mut [u8]>,
}

impl<'data> From<Scatter<'data>> for Places<'data> {
    fn from(place: Scatter<'data>) -> Self {
        Self::from([place])
    }
}

impl<'data, const N: usize> From<[Scatter<'data>; N]> for Places<'data> {
    fn from(places: [Scatter<'data>; N]) -> Self {
        Self { list: List::of(places.iter().map(Scatter::as_raw)), data: PhantomData }
    }
}

impl<'data> From<Vec<Scatter<'data>>> for Places<'data> {
    fn from(places: Vec<Scatter<'data>>) -> Self {
        Self { list: List::of(places.iter().map(Scatter::as_raw)), data: PhantomData }
    }
}

impl<'data> Places<'data> {
    const NONE: Self = Self { list: List::EMPTY, data: PhantomData };

    pub(super) const fn none() -> Self {
        Self::NONE
    }

    /// The place, when it was one; empty otherwise.
    #[must_use]
    pub fn into_bytes(self) -> &'data mut [u8] {
        match *self.list.as_slice() {
            [element] => bytes(element),
            _ => &mut [],
        }
    }

    /// All places, in order.
    #[must_use]
    pub fn into_vec(self) -> Vec<&'data mut [u8]> {
        self.list.as_slice().iter().copied().map(bytes).collect()
    }
}

/// The bytes that an element of a list of places was made of.
fn bytes<'data>(element: sys::ibv_sge) -> &'data mut [u8] {
    let start = std::ptr::with_exposed_provenance_mut(element.addr as usize);
    // SAFETY: called for elements of `Places<'data>` alone, which were each made of one `Scatter<'data>` that was moved in, so of one
    // `&'data mut [u8]` that nobody has any more; they come out once, after the device is done.
    unsafe { std::slice::from_raw_parts_mut(start, element.length as usize) }
}

/// What is to be done, with the memory that it borrows for `'data`.
pub struct Work<'data> {
    kind: Kind,
    list: List,
    /// Places that come back.
    places: Places<'data>,
    flags: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Receive,
    Send,
    SendImmediate(u32),
    Write(RemoteRegion),
    WriteImmediate(RemoteRegion, u32),
    Read(RemoteRegion),
    CompareSwap(RemoteRegion, u64, u64),
    FetchAdd(RemoteRegion, u64),
}

/// What came of an operation that did what it was asked, with its places.
pub struct Done<'data> {
    /// Length and word of what arrived.
    pub success: Success,
    /// The places that it had.
    pub places: Places<'data>,
}

impl<'data> Work<'data> {
    fn giving(kind: Kind, pieces: Pieces<'data>) -> Self {
        let list = pieces.list.without_empty();
        Self { kind, list, places: Places::NONE, flags: sys::IBV_SEND_SIGNALED }
    }

    fn taking(kind: Kind, places: Places<'data>) -> Self {
        Self { kind, list: places.list.without_empty(), places, flags: sys::IBV_SEND_SIGNALED }
    }

    /// Receives a message into places.
    pub fn receive(places: impl Into<Places<'data>>) -> Self {
        Self::taking(Kind::Receive, places.into())
    }

    /// Receives an empty message, or the word of a write.
    #[must_use]
    pub fn receive_word() -> Self {
        Self::taking(Kind::Receive, Places::NONE)
    }

    /// Sends pieces as one message.
    pub fn send(pieces: impl Into<Pieces<'data>>) -> Self {
        Self::giving(Kind::Send, pieces.into())
    }

    /// Sends what is in places, which come back when the message is out: to be filled again.
    pub fn send_lent(places: impl Into<Places<'data>>) -> Self {
        Self::taking(Kind::Send, places.into())
    }

    /// Sends pieces, and a word that the receiver's completion tells.
    pub fn send_with_immediate(pieces: impl Into<Pieces<'data>>, immediate: u32) -> Self {
        Self::giving(Kind::SendImmediate(immediate), pieces.into())
    }

    /// Writes pieces to the beginning of a peer's memory.
    pub fn write(pieces: impl Into<Pieces<'data>>, remote: RemoteRegion) -> Self {
        Self::giving(Kind::Write(remote), pieces.into())
    }

    /// Writes what is in places, which come back.
    pub fn write_lent(places: impl Into<Places<'data>>, remote: RemoteRegion) -> Self {
        Self::taking(Kind::Write(remote), places.into())
    }

    /// Writes pieces, and completes a receive of the peer's with this word.
    pub fn write_with_immediate(
        pieces: impl Into<Pieces<'data>>,
        remote: RemoteRegion,
        immediate: u32,
    ) -> Self {
        Self::giving(Kind::WriteImmediate(remote, immediate), pieces.into())
    }

    /// Reads a peer's memory, from its beginning, into places.
    pub fn read(places: impl Into<Places<'data>>, remote: RemoteRegion) -> Self {
        Self::taking(Kind::Read(remote), places.into())
    }

    /// Writes `swap` to 8 bytes of a peer's if they are `compare`; what they were comes into a place of 8 bytes, in this machine's order.
    #[must_use]
    pub fn compare_swap(place: Scatter<'data>, remote: RemoteRegion, compare: u64, swap: u64) -> Self {
        Self::taking(Kind::CompareSwap(remote, compare, swap), place.into())
    }

    /// Adds to 8 bytes of a peer's; what they were comes into a place of 8 bytes, in this machine's order.
    #[must_use]
    pub fn fetch_add(place: Scatter<'data>, remote: RemoteRegion, add: u64) -> Self {
        Self::taking(Kind::FetchAdd(remote, add), place.into())
    }

    /// Wakes a receiver that waits for solicited messages only.
    #[must_use]
    pub const fn solicited(mut self) -> Self {
        self.flags |= sys::IBV_SEND_SOLICITED;
        self
    }

    /// Begins when reads and atomics before it have completed.
    #[must_use]
    pub const fn fenced(mut self) -> Self {
        self.flags |= sys::IBV_SEND_FENCE;
        self
    }

    pub(super) const fn is_receive(&self) -> bool {
        matches!(self.kind, Kind::Receive)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.list.excess {
            return Err(Error::invalid(
                "operation of a channel",
                format!("it has more than {ELEMENTS_MAX} elements"),
                "copy pieces together, or divide the operation",
            ));
        }
        if matches!(self.kind, Kind::CompareSwap(..) | Kind::FetchAdd(..)) {
            let place = self.list.as_slice();
            if !matches!(place, [sys::ibv_sge { length: 8, .. }]) {
                let bytes = place.iter().map(|element| u64::from(element.length)).sum();
                return Err(*no_word(bytes, place.len() as i32));
            }
        }
        Ok(())
    }

    /// The request of a receive.
    pub(super) fn receive_request(&self, wr_id: u64) -> ReceiveRequest<'_> {
        let elements = self.list.as_slice();
        ReceiveRequest::of(wr_id, elements.as_ptr(), elements.len())
    }

    /// The request of one that is no receive.
    pub(super) fn request(&self, wr_id: u64) -> SendRequest<'_, Rc> {
        let opcode = match self.kind {
            Kind::Receive | Kind::Send => sys::IbvWrOpcode::SEND,
            Kind::SendImmediate(_) => sys::IbvWrOpcode::SEND_WITH_IMM,
            Kind::Write(_) => sys::IbvWrOpcode::RDMA_WRITE,
            Kind::WriteImmediate(..) => sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM,
            Kind::Read(_) => sys::IbvWrOpcode::RDMA_READ,
            Kind::CompareSwap(..) => sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP,
            Kind::FetchAdd(..) => sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD,
        };
        let elements = self.list.as_slice();
        let mut request = SendRequest::of(wr_id, opcode, elements.as_ptr(), elements.len());
        request.raw_mut().send_flags = self.flags;
        match self.kind {
            Kind::Receive | Kind::Send => request,
            Kind::SendImmediate(immediate) => request.immediate(immediate),
            Kind::Write(remote) | Kind::Read(remote) => request.at(remote),
            Kind::WriteImmediate(remote, immediate) => request.at(remote).immediate(immediate),
            Kind::CompareSwap(remote, compare, swap) => request.word(remote, compare, swap),
            Kind::FetchAdd(remote, add) => request.word(remote, add, 0),
        }
    }

    pub(super) fn into_places(self) -> Places<'data> {
        self.places
    }
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("kind", &self.kind)
            .field("elements", &self.list.len)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({})", self.list.len)
    }
}

impl fmt::Debug for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({})", self.list.len)
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.success.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_asks_for_what_it_was_told_and_its_end_is_told() {
        let plain = || Work::send([]);
        for (work, flags) in [
            (plain(), 0),
            (plain().solicited(), sys::IBV_SEND_SOLICITED),
            (plain().fenced(), sys::IBV_SEND_FENCE),
            (plain().fenced().solicited(), sys::IBV_SEND_FENCE | sys::IBV_SEND_SOLICITED),
        ] {
            assert_eq!(work.request(1).as_raw().send_flags, sys::IBV_SEND_SIGNALED | flags);
        }
    }
}
