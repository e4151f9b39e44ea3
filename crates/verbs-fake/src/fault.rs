//! What a fake device saw that a program must not do, what it was told to refuse, and what may still be touched.
//!
//! Made by the device, read and given by tests through `control.rs`. Plain data.

use crate::call::Call;
use core::ffi::c_int;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A device of the list; always there.
    Device,
    /// A list of devices.
    DeviceList,
    /// An opened device.
    Context,
    /// A protection domain or parent domain.
    ProtectionDomain,
    /// A thread domain.
    ThreadDomain,
    /// A domain of extended connections.
    XrcDomain,
    /// A rule of steering.
    Flow,
    /// A memory region.
    MemoryRegion,
    /// A memory window.
    MemoryWindow,
    /// Device memory.
    DeviceMemory,
    /// A completion channel.
    CompletionChannel,
    /// A completion queue.
    CompletionQueue,
    /// A shared receive queue.
    SharedReceiveQueue,
    /// An address handle.
    AddressHandle,
    /// A queue pair.
    QueuePair,
}

/// Something that a program did wrongly. A real device would hang, corrupt memory or lose completions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An object was used or destroyed after it had been destroyed.
    UseAfterDestroy {
        /// By this function.
        call: Call,
        /// Its handle.
        handle: u32,
    },
    /// A lock that this thread holds was taken once more: a real provider spins for ever.
    Deadlock {
        /// By this function.
        call: Call,
        /// Handle of the queue.
        handle: u32,
    },
    /// A poll or a batch was ended, or walked on, that was not begun by this thread.
    NotBegun {
        /// By this function.
        call: Call,
        /// Handle of the queue.
        handle: u32,
    },
    /// An object was destroyed while events of it were not acknowledged: a real library waits for ever.
    UnacknowledgedEvents {
        /// What was destroyed.
        kind: Kind,
        /// Its handle.
        handle: u32,
        /// So many.
        count: u32,
    },
    /// More events were acknowledged than were got.
    TooManyAcknowledged {
        /// What they were of.
        kind: Kind,
        /// Its handle.
        handle: u32,
    },
    /// A completion found no room in its queue and was lost.
    Overrun {
        /// Handle of the completion queue.
        handle: u32,
    },
    /// A device was closed while objects of it were there.
    ClosedWithObjects {
        /// Handle of the context.
        handle: u32,
        /// So many.
        count: usize,
    },
    /// A region was taken away while requests that name it were under way.
    DeregisteredInFlight {
        /// Handle of the region.
        handle: u32,
        /// What they may touch.
        touches: Vec<Touch>,
    },
    /// Memory was given back to others ([`Control::freed`](crate::Control::freed)) while requests that name it were under way.
    FreedInFlight {
        /// What they may touch.
        touches: Vec<Touch>,
    },
}

/// Memory that a request may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Address in this process; 0 for memory that is not in this process.
    pub addr: usize,
    /// In bytes.
    pub len: usize,
    /// The device may write it; otherwise it reads.
    pub writes: bool,
    /// Local key by which it is named.
    pub key: u32,
    /// Queue pair of the request; 0 for one in a shared receive queue.
    pub qp_num: u32,
    /// The request's own number.
    pub wr_id: u64,
}

impl Touch {
    /// Whether it reaches into these bytes.
    #[must_use]
    pub fn overlaps(&self, addr: usize, len: usize) -> bool {
        self.addr != 0 && self.addr < addr.saturating_add(len) && addr < self.addr.saturating_add(self.len)
    }
}

/// Which calls of a function fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Calls that still succeed before.
    pub after: u64,
    /// Calls that then fail; `u64::MAX`: all.
    pub times: u64,
    /// Error number with which they fail.
    pub errno: c_int,
    /// Only of the object with this handle (queue pairs: their number); `None`: of all.
    pub handle: Option<u32>,
}

impl Refusal {
    /// Every call from now on.
    #[must_use]
    pub const fn always(errno: c_int) -> Self {
        Self { after: 0, times: u64::MAX, errno, handle: None }
    }

    /// The next call only.
    #[must_use]
    pub const fn once(errno: c_int) -> Self {
        Self { after: 0, times: 1, errno, handle: None }
    }

    /// Every call after so many.
    #[must_use]
    pub const fn after(calls: u64, errno: c_int) -> Self {
        Self { after: calls, times: u64::MAX, errno, handle: None }
    }

    /// The same for one object only.
    #[must_use]
    pub const fn of(self, handle: u32) -> Self {
        Self { handle: Some(handle), ..self }
    }
}

/// What a queue pair does not do for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Requests wait in its send queue and do nothing.
    pub requests: bool,
    /// It does not answer what its peer sends; the peer's requests wait, for ever.
    pub incoming: bool,
    /// What was done is not reported: completions are kept back. In the error state its sends are reported as flushed.
    pub completions: bool,
    /// Flushed requests are not reported either.
    pub flushes: bool,
}

impl Hold {
    /// Nothing is held.
    pub const NOTHING: Self = Self { requests: false, incoming: false, completions: false, flushes: false };
    /// Requests wait; the error state flushes them.
    pub const REQUESTS: Self = Self { requests: true, ..Self::NOTHING };
    /// A peer that never answers.
    pub const INCOMING: Self = Self { incoming: true, ..Self::NOTHING };
    /// Data moves, nothing is reported.
    pub const COMPLETIONS: Self = Self { completions: true, ..Self::NOTHING };
    /// A device that has gone mad: nothing moves, nothing is reported, not even flushed requests.
    pub const EVERYTHING: Self = Self { requests: true, incoming: true, completions: true, flushes: true };
}

/// How a completion is changed on its way into its queue, as by a device of which we know too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alteration {
    /// Another number of a request.
    pub wr_id: Option<u64>,
    /// Another status, maybe unknown.
    pub status: Option<u32>,
    /// Another opcode, maybe unknown.
    pub opcode: Option<u32>,
    /// Another queue pair.
    pub qp_num: Option<u32>,
}
