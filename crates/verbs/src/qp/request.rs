//! Work requests: what a queue pair is asked to do.
#![allow(unsafe_code)]

use super::service::{Atomics, Datagram, Operations, Reads, Service, Writes, XrcSend};
use super::state::ServiceType;
use crate::memory::{Binding, Gather, RemoteRegion, Scatter};
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;

/// A request to send, write, read or do an atomic. Built by value: `SendRequest::write(7, &list, remote).signaled()`.
///
/// Unsignaled unless said otherwise: it completes visibly only when it fails; a later signaled one completes it too.
#[repr(transparent)]
#[doc(alias = "ibv_send_wr")]
pub struct SendRequest<'list, S: Service> {
    raw: sys::ibv_send_wr,
    list: PhantomData<&'list ()>,
    service: PhantomData<fn() -> S>,
}

// SAFETY: plain numbers, and pointers to a list that is borrowed and that nobody writes.
unsafe impl<S: Service> Send for SendRequest<'_, S> {}
// SAFETY: the same.
unsafe impl<S: Service> Sync for SendRequest<'_, S> {}

/// Whom a datagram goes to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The way.
    pub(crate) handle: *mut sys::ibv_ah,
    pub(crate) qp_num: u32,
    pub(crate) qkey: u32,
    pub(crate) borrow: PhantomData<&'a ()>,
}

/// The most elements of an inline request where batches are extended.
pub(super) const INLINE_ELEMENTS_MAX: usize = 16;

/// The numbers of the ABI (`enum ibv_wr_opcode`) and what each needs of a queue pair.
#[inline(always)]
pub(crate) const fn needs(opcode: sys::IbvWrOpcode) -> Operations {
    match opcode {
        sys::IbvWrOpcode::RDMA_WRITE => Operations::WRITE,
        sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM => Operations::WRITE_IMMEDIATE,
        sys::IbvWrOpcode::SEND => Operations::SEND,
        sys::IbvWrOpcode::SEND_WITH_IMM => Operations::SEND_IMMEDIATE,
        sys::IbvWrOpcode::RDMA_READ => Operations::READ,
        sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP => Operations::COMPARE_SWAP,
        sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD => Operations::FETCH_ADD,
        sys::IbvWrOpcode::LOCAL_INV => Operations::LOCAL_INVALIDATE,
        sys::IbvWrOpcode::SEND_WITH_INV => Operations::SEND_INVALIDATE,
        _ => Operations::BIND_WINDOW,
    }
}

impl<'list, S: Service> SendRequest<'list, S> {
    #[inline(always)]
    pub(crate) fn of(wr_id: u64, opcode: sys::IbvWrOpcode, list: *const sys::ibv_sge, len: usize) -> Self {
        // More elements than an int can count are more than any queue pair takes: the device refuses them.
        Self::of_few(wr_id, opcode, list, i32::try_from(len).unwrap_or(i32::MAX))
    }

    /// The same of elements that an int counts.
    #[inline(always)]
    pub(crate) fn of_few(
        wr_id: u64,
        opcode: sys::IbvWrOpcode,
        list: *const sys::ibv_sge,
        num_sge: i32,
    ) -> Self {
        // The parts of unions that no operation of it reads are not written.
        let raw = sys::ibv_send_wr {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list: list.cast_mut(),
            num_sge,
            opcode,
            send_flags: 0,
            imm_data: 0,
            wr: sys::ibv_send_wr_wr::UNSET,
            qp_type: match S::TYPE {
                ServiceType::XRC_SEND => {
                    sys::ibv_send_wr_qp_type { xrc: sys::ibv_send_wr_xrc { remote_srqn: 0 } }
                }
                _ => sys::ibv_send_wr_qp_type::UNSET,
            },
            more: sys::ibv_send_wr_more::UNSET,
        };
        Self { raw, list: PhantomData, service: PhantomData }
    }

    #[inline(always)]
    fn gathered(wr_id: u64, opcode: sys::IbvWrOpcode, list: &'list [Gather<'_>]) -> Self {
        Self::of(wr_id, opcode, list.as_ptr().cast(), list.len())
    }

    /// A message of these bytes, in this order; none is an empty message. Datagrams are addressed by [`to`](Self::to).
    #[must_use]
    #[inline(always)]
    pub fn send(wr_id: u64, list: &'list [Gather<'_>]) -> Self {
        Self::gathered(wr_id, sys::IbvWrOpcode::SEND, list)
    }

    /// The same with a word that the receiver's completion tells.
    #[must_use]
    #[inline(always)]
    pub fn send_with_immediate(wr_id: u64, list: &'list [Gather<'_>], immediate: u32) -> Self {
        Self::gathered(wr_id, sys::IbvWrOpcode::SEND_WITH_IMM, list).immediate(immediate)
    }

    #[inline(always)]
    pub(crate) const fn immediate(mut self, immediate: u32) -> Self {
        self.raw.imm_data = immediate.to_be();
        self
    }

    /// With this number.
    #[inline(always)]
    pub(crate) const fn numbered(mut self, wr_id: u64) -> Self {
        self.raw.wr_id = wr_id;
        self
    }

    /// What a window is bound to.
    #[inline(always)]
    pub(crate) const fn binding(mut self, binding: Binding) -> Self {
        self.raw.more.bind_mw = binding.as_raw();
        self
    }

    /// A key in the place of immediate data.
    #[inline(always)]
    pub(crate) const fn key(mut self, key: u32) -> Self {
        self.raw.imm_data = key;
        self
    }

    /// The beginning of a peer's memory.
    #[inline(always)]
    pub(crate) const fn at(mut self, remote: RemoteRegion) -> Self {
        self.raw.wr.rdma = sys::ibv_send_wr_rdma { remote_addr: remote.addr(), rkey: remote.key().0 };
        self
    }

    /// A word of a peer's memory, and what an atomic does to it.
    #[inline(always)]
    pub(crate) const fn word(mut self, remote: RemoteRegion, compare_add: u64, swap: u64) -> Self {
        self.raw.wr.atomic =
            sys::ibv_send_wr_atomic { remote_addr: remote.addr(), compare_add, swap, rkey: remote.key().0 };
        self
    }

    /// Completes visibly.
    #[must_use]
    #[inline(always)]
    pub const fn signaled(mut self) -> Self {
        self.raw.send_flags |= sys::IBV_SEND_SIGNALED;
        self
    }

    /// Wakes a receiver that armed its queue for solicited messages only.
    #[must_use]
    #[inline(always)]
    pub const fn solicited(mut self) -> Self {
        self.raw.send_flags |= sys::IBV_SEND_SOLICITED;
        self
    }

    /// Its bytes are copied while it is posted, so that their memory is free at once and needs no registration. Up to the queue pair's
    /// inline capacity; sends and writes only.
    #[must_use]
    #[inline(always)]
    pub const fn inline(mut self) -> Self {
        self.raw.send_flags |= sys::IBV_SEND_INLINE;
        self
    }

    /// Begins when reads and atomics before it have completed.
    #[must_use]
    #[inline(always)]
    pub const fn fenced(mut self) -> Self
    where
        S: Reads,
    {
        self.raw.send_flags |= sys::IBV_SEND_FENCE;
        self
    }

    /// Its number.
    #[must_use]
    pub const fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }

    /// Whether it completes visibly.
    #[must_use]
    pub const fn is_signaled(&self) -> bool {
        self.raw.send_flags & sys::IBV_SEND_SIGNALED != 0
    }

    #[inline(always)]
    pub(crate) const fn needs(&self) -> Operations {
        needs(self.raw.opcode)
    }

    /// Whether it is inline and cannot be: it has more elements than an extended batch takes, or it is a write of SRD, whose device keeps
    /// the bytes where it keeps what the write names.
    #[inline]
    pub(super) const fn has_too_many(&self) -> bool {
        let is_inline = self.raw.send_flags & sys::IBV_SEND_INLINE != 0;
        let is_send = matches!(self.raw.opcode, sys::IbvWrOpcode::SEND | sys::IbvWrOpcode::SEND_WITH_IMM);
        let no_room = S::TYPE.as_raw() == ServiceType::DRIVER.as_raw() && !is_send;
        is_inline && (no_room || self.raw.num_sge as usize > INLINE_ELEMENTS_MAX)
    }

    /// Whom a datagram goes to. C's request has one place for that and for remote memory, and a reliable datagram may name both: of
    /// those it is kept where a window would be, which no datagram binds.
    #[inline(always)]
    pub(crate) const fn address(&mut self, to: sys::ibv_send_wr_ud) {
        if matches!(self.raw.opcode, sys::IbvWrOpcode::SEND | sys::IbvWrOpcode::SEND_WITH_IMM) {
            self.raw.wr.ud = to;
        } else {
            let sys::ibv_send_wr_ud { ah, remote_qpn, remote_qkey } = to;
            let bind_info = sys::ibv_mw_bind_info {
                mr: std::ptr::null_mut(),
                addr: 0,
                length: 0,
                mw_access_flags: remote_qkey,
            };
            self.raw.more.bind_mw = sys::ibv_send_wr_bind_mw { mw: ah.cast(), rkey: remote_qpn, bind_info };
        }
    }

    #[inline]
    pub(crate) const fn raw_mut(&mut self) -> &mut sys::ibv_send_wr {
        &mut self.raw
    }

    /// As the ABI has it; `next` is written when it is posted.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_send_wr {
        &self.raw
    }
}

impl<'list, S: Datagram> SendRequest<'list, S> {
    /// Whom it goes to.
    #[must_use]
    #[inline(always)]
    pub const fn to(mut self, destination: Destination<'list>) -> Self {
        self.address(sys::ibv_send_wr_ud {
            ah: destination.handle,
            remote_qpn: destination.qp_num,
            remote_qkey: destination.qkey,
        });
        self
    }
}

impl SendRequest<'_, XrcSend> {
    /// By the peer's shared queue of this number ([`number`](crate::srq::SharedReceiveQueue::number)), which each request names: messages and words take a receive
    /// of it, and its protection domain decides which memory writes and reads reach. 0 by default.
    #[must_use]
    #[inline(always)]
    pub const fn to_queue(mut self, number: u32) -> Self {
        self.raw.qp_type.xrc = sys::ibv_send_wr_xrc { remote_srqn: number };
        self
    }
}

impl<'list, S: Writes> SendRequest<'list, S> {
    /// Writes these bytes to the beginning of a peer's memory.
    #[must_use]
    #[inline(always)]
    pub fn write(wr_id: u64, list: &'list [Gather<'_>], remote: RemoteRegion) -> Self {
        Self::gathered(wr_id, sys::IbvWrOpcode::RDMA_WRITE, list).at(remote)
    }

    /// The same, and completes a receive of the peer's with this word.
    #[must_use]
    #[inline(always)]
    pub fn write_with_immediate(
        wr_id: u64,
        list: &'list [Gather<'_>],
        remote: RemoteRegion,
        immediate: u32,
    ) -> Self {
        Self::gathered(wr_id, sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM, list).at(remote).immediate(immediate)
    }
}

impl<'list, S: Reads> SendRequest<'list, S> {
    /// Reads a peer's memory into these places.
    #[must_use]
    #[inline(always)]
    pub fn read(wr_id: u64, list: &'list mut [Scatter<'_>], remote: RemoteRegion) -> Self {
        Self::of(wr_id, sys::IbvWrOpcode::RDMA_READ, list.as_ptr().cast(), list.len()).at(remote)
    }
}

impl<'list, S: Atomics> SendRequest<'list, S> {
    /// Writes `swap` to 8 bytes of a peer's memory, at a multiple of 8, if they are `compare`; what they were comes into the place, in this machine's order.
    #[must_use]
    #[inline(always)]
    pub fn compare_swap(
        wr_id: u64,
        place: &'list mut [Scatter<'_>; 1],
        remote: RemoteRegion,
        compare: u64,
        swap: u64,
    ) -> Self {
        Self::of(wr_id, sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP, place.as_ptr().cast(), 1)
            .word(remote, compare, swap)
    }

    /// Adds to 8 bytes of a peer's memory, at a multiple of 8; what they were comes into the place, in this machine's order.
    #[must_use]
    #[inline(always)]
    pub fn fetch_add(wr_id: u64, place: &'list mut [Scatter<'_>; 1], remote: RemoteRegion, add: u64) -> Self {
        Self::of(wr_id, sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD, place.as_ptr().cast(), 1).word(remote, add, 0)
    }

    /// A message that also takes a key of the peer's out of use.
    #[must_use]
    pub fn send_with_invalidate(
        wr_id: u64,
        list: &'list [Gather<'_>],
        key: crate::memory::RemoteKey,
    ) -> Self {
        Self::gathered(wr_id, sys::IbvWrOpcode::SEND_WITH_INV, list).key(key.0)
    }

    /// Binds a window of type 2.
    pub(crate) fn bind_window(wr_id: u64, binding: Binding) -> Self {
        Self::of(wr_id, sys::IbvWrOpcode::BIND_MW, std::ptr::null(), 0).binding(binding)
    }

    /// Takes a key of one's own (a window's) out of use.
    #[must_use]
    pub fn local_invalidate(wr_id: u64, key: u32) -> Self {
        Self::of(wr_id, sys::IbvWrOpcode::LOCAL_INV, std::ptr::null(), 0).key(key)
    }
}

/// Whom a datagram goes to, as [`SendRequest::address`] kept it.
///
/// # Safety
/// The request is a datagram's, and was addressed.
#[inline(always)]
pub(super) const unsafe fn addressed_to(raw: &sys::ibv_send_wr) -> sys::ibv_send_wr_ud {
    // SAFETY: by the caller's promise, the opcode says which place was written.
    unsafe {
        if matches!(raw.opcode, sys::IbvWrOpcode::SEND | sys::IbvWrOpcode::SEND_WITH_IMM) {
            return raw.wr.ud;
        }
        let kept = raw.more.bind_mw;
        sys::ibv_send_wr_ud {
            ah: kept.mw.cast(),
            remote_qpn: kept.rkey,
            remote_qkey: kept.bind_info.mw_access_flags,
        }
    }
}

impl<S: Service> fmt::Debug for SendRequest<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendRequest")
            .field("wr_id", &self.raw.wr_id)
            .field("operation", &self.needs())
            .field("elements", &self.raw.num_sge)
            .field("flags", &format_args!("{:#x}", self.raw.send_flags))
            .finish_non_exhaustive()
    }
}

/// A request to receive: where a message is put.
#[repr(transparent)]
#[doc(alias = "ibv_recv_wr")]
pub struct ReceiveRequest<'list> {
    raw: sys::ibv_recv_wr,
    list: PhantomData<&'list mut ()>,
}

// SAFETY: plain numbers, and pointers to a list that is borrowed for this alone.
unsafe impl Send for ReceiveRequest<'_> {}
// SAFETY: the same.
unsafe impl Sync for ReceiveRequest<'_> {}

impl<'list> ReceiveRequest<'list> {
    /// A message goes into these places, in this order; none takes empty messages and immediate data.
    #[must_use]
    pub fn new(wr_id: u64, list: &'list mut [Scatter<'_>]) -> Self {
        Self::of(wr_id, list.as_ptr().cast(), list.len())
    }

    pub(crate) fn of(wr_id: u64, list: *const sys::ibv_sge, len: usize) -> Self {
        let raw = sys::ibv_recv_wr {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list: list.cast_mut(),
            num_sge: i32::try_from(len).unwrap_or(i32::MAX),
        };
        Self { raw, list: PhantomData }
    }

    /// Its number.
    #[must_use]
    pub const fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }

    /// As the ABI has it.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_recv_wr {
        &self.raw
    }
}

impl fmt::Debug for ReceiveRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveRequest")
            .field("wr_id", &self.raw.wr_id)
            .field("elements", &self.raw.num_sge)
            .finish_non_exhaustive()
    }
}

/// Links receives for one call.
pub(crate) fn link_receives(requests: &mut [ReceiveRequest<'_>]) -> *mut sys::ibv_recv_wr {
    let mut next = std::ptr::null_mut();
    for request in requests.iter_mut().rev() {
        request.raw.next = next;
        next = &raw mut request.raw;
    }
    next
}
