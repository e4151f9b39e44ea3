//! What a pipe does with a buffer: plain words beside the memory, so that they stay in registers.

use crate::memory::RemoteRegion;
use crate::qp::{Connected, Reads, SendRequest, Writes};
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;

/// What is done with a buffer that is posted to a [`Pipe`](super::Pipe). Built by value: `Verb::write(remote).unsignaled()`. Signaled unless said otherwise.
pub struct Verb<S: Connected> {
    pub(super) opcode: sys::IbvWrOpcode,
    pub(super) flags: u32,
    /// As it goes over the wire.
    pub(super) immediate: u32,
    pub(super) rkey: u32,
    pub(super) remote_addr: u64,
    /// Only so many bytes of the buffer.
    pub(super) len: Option<u32>,
    service: PhantomData<fn() -> S>,
}

impl<S: Connected> Clone for Verb<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Connected> Copy for Verb<S> {}

impl<S: Connected> Verb<S> {
    #[inline(always)]
    const fn new(opcode: sys::IbvWrOpcode, immediate: u32) -> Self {
        let flags = sys::IBV_SEND_SIGNALED;
        Self {
            opcode,
            flags,
            immediate: immediate.to_be(),
            rkey: 0,
            remote_addr: 0,
            len: None,
            service: PhantomData,
        }
    }

    #[inline(always)]
    const fn at(mut self, remote: RemoteRegion) -> Self {
        (self.remote_addr, self.rkey) = (remote.addr(), remote.key().0);
        self
    }

    /// Sends the buffer's bytes as one message.
    #[must_use]
    #[inline(always)]
    pub const fn send() -> Self {
        Self::new(sys::IbvWrOpcode::SEND, 0)
    }

    /// The same with a word that the receiver's completion tells.
    #[must_use]
    #[inline(always)]
    pub const fn send_with_immediate(immediate: u32) -> Self {
        Self::new(sys::IbvWrOpcode::SEND_WITH_IMM, immediate)
    }

    /// Only the buffer's first `len` bytes; all by default. None are an empty message.
    #[must_use]
    #[inline(always)]
    pub const fn len(mut self, len: u32) -> Self {
        self.len = Some(len);
        self
    }

    /// Ends with the next signaled one, not visibly by itself (unless it fails).
    #[must_use]
    #[inline(always)]
    pub const fn unsignaled(mut self) -> Self {
        self.flags &= !sys::IBV_SEND_SIGNALED;
        self
    }

    /// Wakes a receiver that armed its queue for solicited messages only.
    #[must_use]
    #[inline(always)]
    pub const fn solicited(mut self) -> Self {
        self.flags |= sys::IBV_SEND_SOLICITED;
        self
    }

    /// Begins when reads before it have completed.
    #[must_use]
    #[inline(always)]
    pub const fn fenced(mut self) -> Self
    where
        S: Reads,
    {
        self.flags |= sys::IBV_SEND_FENCE;
        self
    }

    /// The same in other memory, for a call that takes its address: this one stays in registers.
    #[inline(always)]
    pub(super) const fn apart(&self) -> Self {
        Self { ..*self }
    }

    /// The request of it, under this number, with the elements of a list that lives as long.
    #[inline(always)]
    pub(super) fn request<'l>(
        self,
        number: u64,
        list: *const sys::ibv_sge,
        count: i32,
    ) -> SendRequest<'l, S> {
        let mut request = SendRequest::of_few(number, self.opcode, list, count);
        let raw = request.raw_mut();
        raw.send_flags = self.flags;
        raw.imm_data = self.immediate;
        raw.wr.rdma = sys::ibv_send_wr_rdma { remote_addr: self.remote_addr, rkey: self.rkey };
        request
    }
}

impl<S: Connected + Writes> Verb<S> {
    /// Writes the buffer's bytes to the beginning of a peer's memory.
    #[must_use]
    #[inline(always)]
    pub const fn write(remote: RemoteRegion) -> Self {
        Self::new(sys::IbvWrOpcode::RDMA_WRITE, 0).at(remote)
    }

    /// The same, and completes a receive of the peer's with this word.
    #[must_use]
    #[inline(always)]
    pub const fn write_with_immediate(remote: RemoteRegion, immediate: u32) -> Self {
        Self::new(sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM, immediate).at(remote)
    }
}

impl<S: Connected + Reads> Verb<S> {
    /// Fills the buffer from the beginning of a peer's memory.
    #[must_use]
    #[inline(always)]
    pub const fn read(remote: RemoteRegion) -> Self {
        Self::new(sys::IbvWrOpcode::RDMA_READ, 0).at(remote)
    }
}

impl<S: Connected> fmt::Debug for Verb<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verb")
            .field("opcode", &self.opcode)
            .field("len", &self.len)
            .field("flags", &format_args!("{:#x}", self.flags))
            .finish_non_exhaustive()
    }
}
