//! What a hub is asked to do, with the memory that it keeps meanwhile.

use crate::ah::AddressHandle;
use crate::error::{Error, Result};
use crate::memory::{Binding, Buffer, ExposedPart, MemoryWindow, RemoteKey, RemoteRegion};
use crate::pd::ProtectionDomain;
use crate::qp::state::ServiceType;
use crate::qp::{Atomics, Datagram, Reads, SendRequest, Service, Writes};
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;

/// Elements of one operation, at most.
pub(crate) const ELEMENTS_MAX: usize = 8;

/// Memory that an operation keeps.
#[derive(Debug)]
pub enum Held {
    /// None: an empty message, or immediate data alone.
    Nothing,
    /// A buffer.
    Buffer(Buffer),
    /// Several, up to 8, in this order.
    Buffers(Vec<Buffer>),
    /// A part of exposed or foreign memory.
    Part(ExposedPart),
    /// A window that is bound or closed.
    Window(MemoryWindow),
}

impl From<Buffer> for Held {
    fn from(buffer: Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<Vec<Buffer>> for Held {
    fn from(buffers: Vec<Buffer>) -> Self {
        Self::Buffers(buffers)
    }
}

impl From<ExposedPart> for Held {
    fn from(part: ExposedPart) -> Self {
        Self::Part(part)
    }
}

impl Held {
    /// The buffer, if it is one.
    #[must_use]
    pub fn into_buffer(self) -> Option<Buffer> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The buffers, however many there are.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Buffer> {
        match self {
            Self::Buffer(buffer) => vec![buffer],
            Self::Buffers(buffers) => buffers,
            Self::Nothing | Self::Part(_) | Self::Window(_) => Vec::new(),
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Nothing | Self::Window(_) => 0,
            Self::Buffer(buffer) => buffer.len(),
            Self::Buffers(buffers) => buffers.iter().map(|buffer| buffer.len()).sum(),
            Self::Part(part) => part.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As elements, the first `len` bytes of them; how many elements.
    #[inline]
    pub(crate) fn elements(
        &self,
        len: Option<u32>,
        pd: &ProtectionDomain,
        into: &mut [sys::ibv_sge; ELEMENTS_MAX],
    ) -> Result<usize> {
        match self {
            Self::Buffer(buffer) => {
                into[0] = whole_or(len, buffer)?;
                of_domain(buffer.is_of(pd))?;
                Ok(1)
            }
            _ => self.many_elements(len, pd, into),
        }
    }

    fn many_elements(
        &self,
        len: Option<u32>,
        pd: &ProtectionDomain,
        into: &mut [sys::ibv_sge; ELEMENTS_MAX],
    ) -> Result<usize> {
        let count = match self {
            Self::Nothing => 0,
            Self::Buffer(_) => 1,
            Self::Window(window) => {
                of_domain(window.protection_domain().is(pd))?;
                0
            }
            Self::Part(part) => {
                of_domain(part.is_of(pd))?;
                into[0] = part.sge();
                1
            }
            Self::Buffers(buffers) => {
                if buffers.len() > ELEMENTS_MAX {
                    let cause = format!("{} buffers", buffers.len());
                    return Err(Error::invalid("operation", cause, "take up to 8, or copy them together"));
                }
                for (buffer, sge) in buffers.iter().zip(into.iter_mut()) {
                    of_domain(buffer.is_of(pd))?;
                    *sge = whole_or(None, buffer)?;
                }
                buffers.len()
            }
        };
        let Some(mut left) = len else { return Ok(count) };
        for (at, sge) in into[..count].iter_mut().enumerate() {
            if left <= sge.length {
                sge.length = left;
                return Ok(at + 1);
            }
            left -= sge.length;
        }
        if left > 0 {
            let cause = format!("{left} bytes more than its memory has");
            return Err(Error::invalid("length of an operation", cause, "take at most what the memory has"));
        }
        Ok(count)
    }
}

#[inline]
fn whole_or(len: Option<u32>, buffer: &Buffer) -> Result<sys::ibv_sge> {
    let there = buffer.len();
    let len = match len {
        Some(len) => len,
        None => u32::try_from(there).unwrap_or(u32::MAX),
    };
    if len as usize > there || (len == u32::MAX && there > len as usize) {
        let cause = format!("{len} bytes of a buffer of {there}");
        return Err(Error::invalid(
            "length of an operation",
            cause,
            "take at most what the buffer has, and at most 4294967295",
        ));
    }
    Ok(buffer.sge(len))
}

/// A device answers an atomic with 8 bytes, whatever the place for them.
pub(crate) fn check_word(place: &[sys::ibv_sge]) -> Result<()> {
    if let [sys::ibv_sge { length: 8, .. }] = place {
        return Ok(());
    }
    let bytes: u64 = place.iter().map(|element| u64::from(element.length)).sum();
    let cause = format!("{bytes} bytes in {} pieces for the answer", place.len());
    Err(Error::invalid("atomic operation", cause, "give it one place of 8 bytes"))
}

#[inline]
fn of_domain(is: bool) -> Result<()> {
    if is {
        return Ok(());
    }
    Err(Error::invalid(
        "memory",
        "it is registered in another protection domain than the queue pair's",
        "register it there",
    ))
}

/// What a request is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Send,
    SendImmediate(u32),
    SendInvalidate(RemoteKey),
    Write(RemoteRegion),
    WriteImmediate(RemoteRegion, u32),
    Read(RemoteRegion),
    CompareSwap(RemoteRegion, u64, u64),
    FetchAdd(RemoteRegion, u64),
    Bind(Binding),
    Invalidate(RemoteKey),
}

/// An operation with the memory that it keeps until it has ended. Signaled unless said otherwise.
pub struct Operation<S: Service> {
    pub(crate) shape: Shape<S>,
    pub(crate) kept: Kept,
}

/// What an operation keeps until it has ended.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) held: Held,
    pub(crate) tag: u64,
    /// The way of a datagram, which must stay until it was sent.
    pub(crate) to: Option<(AddressHandle, u32, u32)>,
}

/// An operation without its memory.
pub(crate) struct Shape<S: Service> {
    kind: Kind,
    len: Option<u32>,
    flags: u32,
    service: PhantomData<fn() -> S>,
}

impl<S: Service> Operation<S> {
    fn new(kind: Kind, held: impl Into<Held>) -> Self {
        Self {
            shape: Shape { kind, len: None, flags: sys::IBV_SEND_SIGNALED, service: PhantomData },
            kept: Kept { held: held.into(), tag: 0, to: None },
        }
    }

    /// Sends the memory's bytes as one message.
    #[must_use]
    pub fn send(held: impl Into<Held>) -> Self {
        Self::new(Kind::Send, held)
    }

    /// The same with a word that the receiver's completion tells.
    #[must_use]
    pub fn send_with_immediate(held: impl Into<Held>, immediate: u32) -> Self {
        Self::new(Kind::SendImmediate(immediate), held)
    }

    /// Only its first `len` bytes; all by default.
    #[must_use]
    pub const fn len(mut self, len: u32) -> Self {
        self.shape.len = Some(len);
        self
    }

    /// A word of the caller's, that comes back with it.
    #[must_use]
    pub const fn tag(mut self, tag: u64) -> Self {
        self.kept.tag = tag;
        self
    }

    /// Ends with the next signaled one of its queue pair, not visibly by itself (unless it fails). Devices that complete in any order (SRD)
    /// signal all.
    #[must_use]
    pub const fn unsignaled(mut self) -> Self {
        if S::IN_ORDER {
            self.shape.flags &= !sys::IBV_SEND_SIGNALED;
        }
        self
    }

    /// Wakes a receiver that armed its queue for solicited messages only.
    #[must_use]
    pub const fn solicited(mut self) -> Self {
        self.shape.flags |= sys::IBV_SEND_SOLICITED;
        self
    }

    /// Its bytes are copied while it is posted. For sends and writes of buffers; what else is inline is refused when it is posted.
    #[must_use]
    pub const fn inline(mut self) -> Self {
        self.shape.flags |= sys::IBV_SEND_INLINE;
        self
    }

    /// Begins when reads and atomics before it have completed.
    #[must_use]
    pub const fn fenced(mut self) -> Self
    where
        S: Reads,
    {
        self.shape.flags |= sys::IBV_SEND_FENCE;
        self
    }

    pub(crate) fn into_parts(self) -> (Shape<S>, Kept) {
        (self.shape, self.kept)
    }

    /// The memory of it.
    #[must_use]
    pub fn into_held(self) -> Held {
        self.kept.held
    }
}

impl<S: Service> Shape<S> {
    /// The request of it.
    #[inline]
    pub(crate) fn request<'l>(
        &self,
        kept: &Kept,
        wr_id: u64,
        pd: &ProtectionDomain,
        elements: &'l mut [sys::ibv_sge; ELEMENTS_MAX],
    ) -> Result<SendRequest<'l, S>> {
        let count = kept.held.elements(self.len, pd, elements)?;
        if self.flags & sys::IBV_SEND_INLINE != 0 {
            self.check_inline(&kept.held)?;
        }
        let to = match &kept.to {
            Some((handle, qp_num, qkey)) => {
                of_domain(handle.protection_domain().is(pd))?;
                Some(sys::ibv_send_wr_ud { ah: handle.as_raw(), remote_qpn: *qp_num, remote_qkey: *qkey })
            }
            None if matches!(S::TYPE, ServiceType::UD | ServiceType::DRIVER) => {
                return Err(Error::invalid("datagram", "it goes to nobody", "say whom it goes to (`to`)"));
            }
            None => None,
        };
        let opcode = match self.kind {
            Kind::Send => sys::IbvWrOpcode::SEND,
            Kind::SendImmediate(_) => sys::IbvWrOpcode::SEND_WITH_IMM,
            Kind::SendInvalidate(_) => sys::IbvWrOpcode::SEND_WITH_INV,
            Kind::Write(_) => sys::IbvWrOpcode::RDMA_WRITE,
            Kind::WriteImmediate(..) => sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM,
            Kind::Read(_) => sys::IbvWrOpcode::RDMA_READ,
            Kind::CompareSwap(..) => sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP,
            Kind::FetchAdd(..) => sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD,
            Kind::Bind(_) => sys::IbvWrOpcode::BIND_MW,
            Kind::Invalidate(_) => sys::IbvWrOpcode::LOCAL_INV,
        };
        let mut request = SendRequest::of(wr_id, opcode, elements.as_ptr(), count);
        if let Some(to) = to {
            request.address(to);
        }
        let raw = request.raw_mut();
        raw.send_flags = self.flags;
        let rdma =
            |remote: RemoteRegion| sys::ibv_send_wr_rdma { remote_addr: remote.addr(), rkey: remote.key().0 };
        let atomic = |remote: RemoteRegion, compare_add, swap| sys::ibv_send_wr_atomic {
            remote_addr: remote.addr(),
            compare_add,
            swap,
            rkey: remote.key().0,
        };
        match self.kind {
            Kind::Send => {}
            Kind::SendImmediate(immediate) => raw.imm_data = immediate.to_be(),
            Kind::SendInvalidate(key) | Kind::Invalidate(key) => raw.imm_data = key.0,
            Kind::Bind(binding) => raw.more.bind_mw = binding.as_raw(),
            Kind::Write(remote) | Kind::Read(remote) => raw.wr.rdma = rdma(remote),
            Kind::WriteImmediate(remote, immediate) => {
                raw.wr.rdma = rdma(remote);
                raw.imm_data = immediate.to_be();
            }
            Kind::CompareSwap(remote, compare, swap) => {
                check_word(&elements[..count])?;
                raw.wr.atomic = atomic(remote, compare, swap);
            }
            Kind::FetchAdd(remote, add) => {
                check_word(&elements[..count])?;
                raw.wr.atomic = atomic(remote, add, 0);
            }
        }
        Ok(request)
    }

    /// Inline bytes are read by this process, at the addresses that requests name: those of a part may be no addresses of ours, and a peer
    /// may write what it names. Some drivers take the list of an operation that is answered for inline bytes too, and what they then
    /// find in it for addresses.
    #[cold]
    fn check_inline(&self, held: &Held) -> Result<()> {
        let remedy = "send it without `inline`";
        match (self.kind, held) {
            (_, Held::Part(_)) => Err(Error::invalid(
                "inline operation",
                "its memory is exposed, or not this process's",
                remedy,
            )),
            (Kind::Read(_) | Kind::CompareSwap(..) | Kind::FetchAdd(..), _) => Err(Error::invalid(
                "inline operation",
                "it fills its memory, and takes nothing from it",
                remedy,
            )),
            (Kind::Write(_) | Kind::WriteImmediate(..), _) if S::TYPE == ServiceType::DRIVER => {
                Err(Error::invalid(
                    "inline operation",
                    "a write of SRD has no room for bytes beside what it names",
                    remedy,
                ))
            }
            _ => Ok(()),
        }
    }
}

impl<S: Datagram> Operation<S> {
    /// Whom the message goes to: the way, the number of the queue pair there, and its queue key. The way is kept until the message was sent. One that
    /// goes to nobody is refused when it is posted.
    #[must_use]
    pub fn to(mut self, handle: &AddressHandle, qp_num: u32, qkey: u32) -> Self {
        self.kept.to = Some((handle.clone(), qp_num, qkey));
        self
    }
}

impl<S: Writes> Operation<S> {
    /// Writes the memory's bytes to the beginning of a peer's.
    #[must_use]
    pub fn write(held: impl Into<Held>, remote: RemoteRegion) -> Self {
        Self::new(Kind::Write(remote), held)
    }

    /// The same, and completes a receive of the peer's with this word.
    #[must_use]
    pub fn write_with_immediate(held: impl Into<Held>, remote: RemoteRegion, immediate: u32) -> Self {
        Self::new(Kind::WriteImmediate(remote, immediate), held)
    }
}

impl<S: Reads> Operation<S> {
    /// Fills the memory from the beginning of a peer's.
    #[must_use]
    pub fn read(held: impl Into<Held>, remote: RemoteRegion) -> Self {
        Self::new(Kind::Read(remote), held)
    }
}

impl<S: Atomics> Operation<S> {
    /// Writes `swap` to 8 bytes of a peer's, at a multiple of 8, if they are `compare`; what they were comes into the memory's first 8 bytes, in this machine's order.
    #[must_use]
    pub fn compare_swap(held: impl Into<Held>, remote: RemoteRegion, compare: u64, swap: u64) -> Self {
        Self::new(Kind::CompareSwap(remote, compare, swap), held).len(8)
    }

    /// Adds to 8 bytes of a peer's, at a multiple of 8; what they were comes into the memory's first 8 bytes, in this machine's order.
    #[must_use]
    pub fn fetch_add(held: impl Into<Held>, remote: RemoteRegion, add: u64) -> Self {
        Self::new(Kind::FetchAdd(remote, add), held).len(8)
    }

    /// A message that also takes a key of the peer's out of use.
    #[must_use]
    pub fn send_with_invalidate(held: impl Into<Held>, key: RemoteKey) -> Self {
        Self::new(Kind::SendInvalidate(key), held)
    }

    /// Binds a window of type 2, which it keeps.
    pub(crate) fn bind_window(window: &MemoryWindow, binding: Binding) -> Self {
        Self::new(Kind::Bind(binding), Held::Window(window.clone()))
    }

    /// Closes a window of type 2, which it keeps: its last key opens nothing any more.
    pub(crate) fn close_window(window: &MemoryWindow) -> Result<Self> {
        window.check_requests()?;
        Ok(Self::new(Kind::Invalidate(window.key()), Held::Window(window.clone())))
    }
}

impl<S: Service> fmt::Debug for Operation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("kind", &self.shape.kind).field("kept", &self.kept).finish()
    }
}
