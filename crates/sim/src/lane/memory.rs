//! Memory that a lane refers to: bodies that were posted borrowed, and segments that peers read.
#![allow(unsafe_code)]

use sinew_transport::Header;
use sinew_transport::{Body, Descriptor, Segment, Token, Unacknowledged, UnacknowledgedBody, View};
use std::any::Any;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A body in the memory of somebody who lent it to the lane.
pub(super) struct Borrowed {
    data: NonNull<u8>,
    len: usize,
    pub(super) token: Token,
}

// SAFETY: `try_post_borrowed` requires the memory to be readable, from any thread as lanes are `Send`, while it is posted.
unsafe impl Send for Borrowed {}

impl Borrowed {
    /// # Safety
    /// `data` is readable for `len` bytes until the value is dropped.
    pub(super) const unsafe fn new(data: NonNull<u8>, len: usize, token: Token) -> Self {
        Self { data, len, token }
    }

    fn body(&self) -> Body<'_> {
        // SAFETY: readable while the value exists, by `new`.
        unsafe { Body::from_raw(self.data.as_ptr(), self.len) }
    }
}

/// The body of a frame that the peer has not acknowledged.
pub(super) enum Kept {
    Owned(Vec<u8>),
    Borrowed(Borrowed),
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Borrowed(borrowed) => borrowed.len,
        }
    }

    /// A copy of a part.
    pub(super) fn part(&self, from: usize, len: usize) -> Vec<u8> {
        match self {
            Self::Owned(bytes) => bytes[from..from + len].to_vec(),
            Self::Borrowed(borrowed) => borrowed.body().skip(from).take(len).to_vec(),
        }
    }

    pub(super) fn token(&self) -> Option<Token> {
        match self {
            Self::Owned(_) => None,
            Self::Borrowed(borrowed) => Some(borrowed.token),
        }
    }

    /// Gives up the reference for a copy.
    pub(super) fn own(&mut self) {
        if let Self::Borrowed(borrowed) = self {
            *self = Self::Owned(borrowed.body().to_vec());
        }
    }

    pub(super) fn give_back(self, header: Header) -> Unacknowledged {
        let body = match self {
            Self::Owned(bytes) => UnacknowledgedBody::Owned(bytes),
            Self::Borrowed(Borrowed { data, len, token }) => {
                UnacknowledgedBody::Borrowed { data: data.as_ptr(), len, token }
            }
        };
        Unacknowledged { header, body }
    }
}

/// Where a pull or a placement writes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    data: NonNull<u8>,
    pub(super) token: Token,
}

// SAFETY: writable from the polling thread, whichever it is, by the contract of `place` and `pull`.
unsafe impl Send for Target {}

impl Target {
    /// # Safety
    /// `data` is writable for whatever is written by [`Target::write`], until the value and its copies are dropped.
    pub(super) const unsafe fn new(data: NonNull<u8>, token: Token) -> Self {
        Self { data, token }
    }

    /// Another place for the same bytes, with the first `done` of them.
    ///
    /// # Safety
    /// As for [`Target::new`]; `done` bytes have been written here.
    pub(super) unsafe fn moved(&self, data: NonNull<u8>, token: Token, done: usize) -> Self {
        // SAFETY: both are as long, and nobody else accesses them.
        unsafe { data.as_ptr().copy_from_nonoverlapping(self.data.as_ptr(), done) };
        Self { data, token }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Safety
    /// `offset + bytes.len()` lies inside the target.
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: inside the target, says the caller, which is writable and accessed by nobody else, by `new`.
        unsafe { self.data.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

/// The memory of a segment.
pub(crate) struct Block {
    number: u64,
    /// Made of a box, and freed as one.
    bytes: NonNull<[u8]>,
    shown: AtomicBool,
}

// SAFETY: the bytes are accessed by raw pointer only: written by who holds the buffer that was cut out of them, copied by
// pulls. A simulation runs on one thread, so none of that happens at once.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The segments of the simulation that this thread runs.
    static BLOCKS: Mutex<HashMap<u64, Weak<Block>>> = Mutex::new(HashMap::new());
    static ALIVE: AtomicUsize = const { AtomicUsize::new(0) };
}

/// Segments of this thread's simulation that are still held.
pub(crate) fn segments_alive() -> usize {
    ALIVE.with(|alive| alive.load(Ordering::Relaxed))
}

/// Another simulation begins: what a broken one left does not count.
pub(crate) fn forget_segments() {
    ALIVE.with(|alive| alive.store(0, Ordering::Relaxed));
}

fn blocks<R>(f: impl FnOnce(&mut HashMap<u64, Weak<Block>>) -> R) -> R {
    BLOCKS.with(|blocks| f(&mut blocks.lock().unwrap_or_else(PoisonError::into_inner)))
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `SimSegment::new`, and freed once.
        drop(unsafe { Box::from_raw(self.bytes.as_ptr()) });
        ALIVE.with(|alive| alive.fetch_sub(1, Ordering::Relaxed));
        blocks(|blocks| blocks.remove(&self.number));
    }
}

/// A segment of a near lane's domain.
pub(super) struct SimSegment {
    block: Arc<Block>,
}

impl SimSegment {
    pub(super) fn new(len: usize) -> Self {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let bytes = NonNull::from(Box::leak(vec![0u8; len].into_boxed_slice()));
        let block = Arc::new(Block { number, bytes, shown: AtomicBool::new(false) });
        ALIVE.with(|alive| alive.fetch_add(1, Ordering::Relaxed));
        blocks(|blocks| blocks.insert(number, Arc::downgrade(&block)));
        Self { block }
    }

    /// Names a range towards a peer; `recalled` is how often its lane has taken such names back.
    pub(super) fn describe(&self, offset: usize, len: usize, recalled: u64) -> Descriptor {
        self.block.shown.store(true, Ordering::Relaxed);
        let mut bytes = [0; 24];
        let words = [self.block.number << 32 | offset as u64, len as u64, recalled];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Descriptor(bytes)
    }
}

// SAFETY: a block never moves and lives as long as the segment; it is zeroed when made, and engines cut it into buffers that
// do not overlap.
unsafe impl Segment for SimSegment {
    fn data(&self) -> NonNull<u8> {
        self.block.bytes.cast()
    }

    fn len(&self) -> usize {
        self.block.bytes.len()
    }

    fn is_shown(&self) -> bool {
        self.block.shown.load(Ordering::Relaxed)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a descriptor names, if it is still there.
pub(super) struct Named {
    block: Arc<Block>,
    offset: usize,
    pub(super) len: usize,
    pub(super) recalled: u64,
}

impl Named {
    pub(super) fn find(descriptor: &Descriptor) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| descriptor.0[at * 8 + byte]));
        let block = blocks(|blocks| blocks.get(&(word(0) >> 32)).and_then(Weak::upgrade))?;
        let (offset, len) = (word(0) as u32 as usize, word(1) as usize);
        (offset.checked_add(len)? <= block.bytes.len()).then_some(Self {
            block,
            offset,
            len,
            recalled: word(2),
        })
    }

    /// A copy of the first bytes.
    pub(super) fn copy(&self, len: usize) -> Vec<u8> {
        let data = self.block.bytes.cast::<u8>();
        // SAFETY: checked in `find`; `min` keeps to what was named.
        unsafe { Body::from_raw(data.as_ptr().add(self.offset), len.min(self.len)) }.to_vec()
    }

    pub(super) fn view(self) -> View {
        let data = self.block.bytes.cast::<u8>();
        // SAFETY: checked in `find`; the block is kept by the view.
        unsafe { View::new(data.add(self.offset), self.len, self.block) }
    }
}
