//! What a hub is asked to do, with the memory that it keeps meanwhile.

use super::ended::Payload;
use super::prepared::Chain;
use crate::ah::AddressHandle;
use crate::error::Error;
use crate::memory::{Binding, Buffer, ExposedPart, MemoryWindow, RemoteKey, RemoteRegion};
use crate::pd::ProtectionDomain;
use crate::qp::state::ServiceType;
use crate::qp::{Atomics, Datagram, Destined, Reads, SendRequest, Service, Way as _, Writes};
use crate::work::WorkError;
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// An error apart from what it is about: the way without errors moves nothing of its size.
type Result<T> = std::result::Result<T, Box<Error>>;

/// Elements of one operation, at most.
const ELEMENTS_MAX: usize = 8;

/// Where a request finds them.
pub(crate) type Elements = [MaybeUninit<sys::ibv_sge>; ELEMENTS_MAX];

/// None yet.
pub(crate) const NO_ELEMENTS: Elements = [MaybeUninit::uninit(); ELEMENTS_MAX];

/// Memory that an operation keeps: a handle of one word, whatever it is.
#[derive(Debug)]
pub enum Held {
    /// None: an empty message, or immediate data alone.
    Nothing,
    /// A buffer.
    Buffer(Buffer),
    /// Several, up to 8, in this order. Boxed, so that moving them moves a word; who posts the box that came back allocates nothing.
    Buffers(Box<Vec<Buffer>>),
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
        Self::Buffers(Box::new(buffers))
    }
}

const _: () = assert!(size_of::<Held>() == 16);

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
            Self::Buffers(buffers) => *buffers,
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

    /// As elements, the first `len` bytes of them; how many elements, which come first in `into`.
    #[inline]
    pub(crate) fn elements(
        &self,
        len: Option<u32>,
        pd: &ProtectionDomain,
        into: &mut Elements,
    ) -> Result<i32> {
        if let (Self::Buffer(buffer), None) = (self, len)
            && let Some(element) = buffer.element_in(pd.identity())
        {
            into[0].write(*element);
            return Ok(1);
        }
        self.many_elements(len, pd, into)
    }

    #[inline(never)]
    fn many_elements(&self, len: Option<u32>, pd: &ProtectionDomain, into: &mut Elements) -> Result<i32> {
        let mut count = 0;
        let mut left = len;
        let mut take = |is_ours: bool, there: usize, first: &dyn Fn(u32) -> sys::ibv_sge| {
            if !is_ours {
                return Err(of_another_domain());
            }
            // Devices take an element of no bytes for one of 2^31: it is left out.
            if there == 0 || left == Some(0) {
                return Ok(());
            }
            let len = match left {
                Some(left) => usize::try_from(left).unwrap_or(there).min(there),
                None => there,
            };
            let len = u32::try_from(len).map_err(|_| too_long(there))?;
            let place = into.get_mut(count).ok_or_else(too_many)?;
            place.write(first(len));
            count += 1;
            left = left.map(|left| left - len);
            Ok(())
        };
        match self {
            Self::Nothing => {}
            Self::Window(window) if !window.protection_domain().is(pd) => return Err(of_another_domain()),
            Self::Window(_) => {}
            Self::Buffer(buffer) => take(buffer.is_of(pd), buffer.len(), &|len| buffer.first(len))?,
            Self::Part(part) => take(part.is_of(pd), part.len(), &|len| part.first(len))?,
            Self::Buffers(buffers) => {
                if buffers.len() > ELEMENTS_MAX {
                    return Err(too_many());
                }
                for buffer in &**buffers {
                    take(buffer.is_of(pd), buffer.len(), &|len| buffer.first(len))?;
                }
            }
        }
        match left {
            None | Some(0) => Ok(count as i32),
            Some(left) => {
                let cause = format!("{left} bytes more than its memory has");
                let remedy = "take at most what the memory has";
                Err(Box::new(Error::invalid("length of an operation", cause, remedy)))
            }
        }
    }
}

#[cold]
fn too_many() -> Box<Error> {
    let cause = format!("more than {ELEMENTS_MAX} buffers");
    Box::new(Error::invalid("operation", cause, "take up to 8, or copy them together"))
}

#[cold]
fn too_long(there: usize) -> Box<Error> {
    let cause = format!("a piece of {there} bytes");
    Box::new(Error::invalid("length of an operation", cause, "take pieces of up to 4294967295 bytes"))
}

/// A device answers an atomic with 8 bytes, whatever the place for them.
#[cold]
pub(crate) fn no_word(bytes: u64, pieces: i32) -> Box<Error> {
    let cause = format!("{bytes} bytes in {pieces} pieces for the answer");
    Box::new(Error::invalid("atomic operation", cause, "give it one place of 8 bytes"))
}

#[cold]
pub(crate) fn of_another_domain() -> Box<Error> {
    Box::new(Error::invalid(
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
    pub(crate) kept: Kept<S>,
}

/// What an operation keeps until it has ended.
pub(crate) struct Kept<S: Service> {
    pub(crate) held: Stored,
    pub(crate) tag: u64,
    /// The way of a datagram, which must stay until it was sent.
    pub(crate) to: S::Way,
}

/// What lies in a place of a queue's ring.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Memory of an operation.
    Held(Held),
    /// Prepared requests, in the place of the last of them.
    Chain(Box<Chain>),
}

const _: () = assert!(size_of::<Stored>() == 16);

impl<S: Service> Kept<S> {
    #[inline]
    pub(crate) fn new(held: Held, tag: u64) -> Self {
        Self { held: Stored::Held(held), tag, to: S::Way::default() }
    }

    #[inline]
    pub(super) fn chain(chain: Box<Chain>) -> Self {
        Self { tag: chain.tag(), held: Stored::Chain(chain), to: S::Way::default() }
    }

    #[inline]
    pub(super) fn into_chain(self) -> Option<Box<Chain>> {
        match self.held {
            Stored::Chain(chain) => Some(chain),
            _ => None,
        }
    }

    /// The memory of it; that of prepared requests as one list.
    #[inline]
    pub(crate) fn into_held(self) -> Held {
        match self.held {
            Stored::Held(held) => held,
            Stored::Chain(chain) => chain.into_buffers().into(),
        }
    }

    #[inline]
    pub(super) fn held(&self) -> &Held {
        match &self.held {
            Stored::Held(held) => held,
            _ => &Held::Nothing,
        }
    }
}

impl<S: Service> Payload for Kept<S> {
    fn fail(&mut self, error: WorkError) {
        if let Stored::Chain(chain) = &mut self.held {
            chain.fail(error);
        }
    }

    fn failure(&self) -> Option<WorkError> {
        match &self.held {
            Stored::Chain(chain) => chain.failure(),
            _ => None,
        }
    }
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
            kept: Kept::new(held.into(), 0),
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

    pub(crate) fn into_parts(self) -> (Shape<S>, Kept<S>) {
        (self.shape, self.kept)
    }

    /// The memory of it.
    #[must_use]
    pub fn into_held(self) -> Held {
        self.kept.into_held()
    }
}

impl<S: Service> Shape<S> {
    /// The request of it.
    #[inline(always)]
    pub(crate) fn request<'l>(
        &self,
        kept: &Kept<S>,
        wr_id: u64,
        pd: &ProtectionDomain,
        elements: &'l mut Elements,
    ) -> Result<SendRequest<'l, S>> {
        let held = kept.held();
        let count = held.elements(self.len, pd, elements)?;
        if self.flags & sys::IBV_SEND_INLINE != 0 {
            self.check_inline(held)?;
        }
        let to = kept.to.resolve(pd)?;
        let of = |opcode| SendRequest::of_few(wr_id, opcode, elements.as_ptr().cast(), count);
        let mut request = match self.kind {
            Kind::Send => of(sys::IbvWrOpcode::SEND),
            Kind::SendImmediate(immediate) => of(sys::IbvWrOpcode::SEND_WITH_IMM).immediate(immediate),
            Kind::SendInvalidate(key) => of(sys::IbvWrOpcode::SEND_WITH_INV).key(key.0),
            Kind::Write(remote) => of(sys::IbvWrOpcode::RDMA_WRITE).at(remote),
            Kind::WriteImmediate(remote, immediate) => {
                of(sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM).at(remote).immediate(immediate)
            }
            Kind::Read(remote) => of(sys::IbvWrOpcode::RDMA_READ).at(remote),
            Kind::CompareSwap(remote, compare, swap) => {
                self.check_word(count)?;
                of(sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP).word(remote, compare, swap)
            }
            Kind::FetchAdd(remote, add) => {
                self.check_word(count)?;
                of(sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD).word(remote, add, 0)
            }
            Kind::Bind(binding) => of(sys::IbvWrOpcode::BIND_MW).binding(binding),
            Kind::Invalidate(key) => of(sys::IbvWrOpcode::LOCAL_INV).key(key.0),
        };
        if let Some(to) = to {
            request.address(to);
        }
        request.raw_mut().send_flags = self.flags;
        Ok(request)
    }

    /// Whether the place of an atomic's answer is a word; its length was looked at when the elements were made.
    #[inline]
    fn check_word(&self, count: i32) -> Result<()> {
        if self.len == Some(8) && count == 1 {
            return Ok(());
        }
        Err(no_word(u64::from(self.len.unwrap_or_default()), count))
    }

    /// Inline bytes are read by this process, at the addresses that requests name: those of a part may be no addresses of ours, and a peer
    /// may write what it names. Some drivers take the list of an operation that is answered for inline bytes too, and what they then
    /// find in it for addresses.
    #[cold]
    fn check_inline(&self, held: &Held) -> Result<()> {
        let remedy = "send it without `inline`";
        match (self.kind, held) {
            (_, Held::Part(_)) => Err(Box::new(Error::invalid(
                "inline operation",
                "its memory is exposed, or not this process's",
                remedy,
            ))),
            (Kind::Read(_) | Kind::CompareSwap(..) | Kind::FetchAdd(..), _) => Err(Box::new(Error::invalid(
                "inline operation",
                "it fills its memory, and takes nothing from it",
                remedy,
            ))),
            (Kind::Write(_) | Kind::WriteImmediate(..), _) if S::TYPE == ServiceType::DRIVER => {
                Err(Box::new(Error::invalid(
                    "inline operation",
                    "a write of SRD has no room for bytes beside what it names",
                    remedy,
                )))
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
        self.kept.to = Some(Destined { handle: handle.clone(), qp_num, qkey });
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
    pub(crate) fn close_window(window: &MemoryWindow) -> crate::error::Result<Self> {
        window.check_requests()?;
        Ok(Self::new(Kind::Invalidate(window.key()), Held::Window(window.clone())))
    }
}

impl<S: Service> fmt::Debug for Operation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("kind", &self.shape.kind)
            .field("held", &self.kept.held)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_ELEMENTS;
    use super::*;
    use crate::Library;
    use crate::qp::Rc;
    use sinew_verbs_fake::{FakeDevice, Options};

    const SIGNALED: u32 = sys::IBV_SEND_SIGNALED;

    #[test]
    fn an_operation_is_the_request_that_it_says_with_its_flags() {
        let (library, _control) = FakeDevice::new(Options::default());
        let context = Library::with(library).devices().unwrap().get(0).unwrap().open().unwrap();
        let pd = context.protection_domain().unwrap();
        let remote = RemoteRegion::new(0x1000, 64, RemoteKey(7)).unwrap();
        let some = || pd.allocate(16).unwrap();
        let (word, key) = (0x0102_0304, RemoteKey(0x0a0b_0c0d));
        let all: [(Operation<Rc>, sys::IbvWrOpcode, u32, u32); 11] = [
            (Operation::send(some()), sys::IbvWrOpcode::SEND, SIGNALED, 0),
            (Operation::send(some()).unsignaled(), sys::IbvWrOpcode::SEND, 0, 0),
            (
                Operation::send(some()).solicited(),
                sys::IbvWrOpcode::SEND,
                SIGNALED | sys::IBV_SEND_SOLICITED,
                0,
            ),
            (Operation::send(some()).fenced(), sys::IbvWrOpcode::SEND, SIGNALED | sys::IBV_SEND_FENCE, 0),
            (Operation::send(some()).inline(), sys::IbvWrOpcode::SEND, SIGNALED | sys::IBV_SEND_INLINE, 0),
            (
                Operation::send_with_immediate(some(), word),
                sys::IbvWrOpcode::SEND_WITH_IMM,
                SIGNALED,
                word.to_be(),
            ),
            (Operation::send_with_invalidate(some(), key), sys::IbvWrOpcode::SEND_WITH_INV, SIGNALED, key.0),
            (Operation::write(some(), remote), sys::IbvWrOpcode::RDMA_WRITE, SIGNALED, 0),
            (
                Operation::write_with_immediate(some(), remote, word),
                sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM,
                SIGNALED,
                word.to_be(),
            ),
            (Operation::read(some(), remote), sys::IbvWrOpcode::RDMA_READ, SIGNALED, 0),
            (Operation::fetch_add(some(), remote, 3), sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD, SIGNALED, 0),
        ];
        for (operation, opcode, flags, immediate) in all {
            let shown = format!("{operation:?}");
            let (shape, kept) = operation.into_parts();
            let mut elements = NO_ELEMENTS;
            let request = shape.request(&kept, 99, &pd, &mut elements).unwrap();
            let raw = request.as_raw();
            assert_eq!((raw.wr_id, raw.opcode, raw.num_sge), (99, opcode, 1), "{shown}");
            assert_eq!((raw.send_flags, raw.imm_data), (flags, immediate), "{shown}");
        }
    }
}
