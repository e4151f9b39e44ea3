//! The engine's pool: buffers in memory that a transport can describe to peers, so that they are sent without a copy.
#![allow(unsafe_code)]

use crate::core::table::Key;
use crate::engine::Engine;
use crate::peer::Peer;
use crate::shared::Shared;
use sinew_transport::buf::Pool;
use sinew_transport::{Buf, ErrorKind, Segment, TransportError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shorter buffers of [`Engine::alloc`] are plain heap: they are sent by copy anyhow.
const SEGMENT_FROM: usize = 64 << 10;
/// Smallest buffer of a peer's pool.
const CLASS_MIN: usize = 4 << 10;
/// Buffers up to this share segments; longer ones have a segment each.
const SHARED_MAX: usize = 1 << 20;
/// Bytes of a segment that buffers share.
const SHARED_SEGMENT: usize = 4 << 20;
/// Bytes of free segments of their own that are kept.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// A free range of a segment.
type Range = (Arc<dyn Segment>, usize);

/// Free ranges by capacity. One for each peer, and one for everybody: a segment is shown to one peer only.
#[derive(Default)]
struct FreeLists {
    lists: HashMap<usize, Vec<Range>>,
    kept: usize,
}

/// A pool for one peer, or for all.
#[derive(Default)]
pub(crate) struct SegmentPool {
    /// The session whose peer alone is shown the segments; without one, each segment is shown to one peer and not used again.
    session: Option<Key>,
    free: Mutex<FreeLists>,
}

impl SegmentPool {
    /// A pool for the peer of a session.
    pub(crate) fn for_session(session: Key) -> Self {
        Self { session: Some(session), free: Mutex::default() }
    }

    fn take(&self, capacity: usize) -> Option<Range> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let range = free.lists.get_mut(&capacity)?.pop()?;
        free.kept -= capacity;
        Some(range)
    }

    fn put(&self, segment: Arc<dyn Segment>, offset: usize, capacity: usize) {
        if self.session.is_none() && segment.is_shown() {
            // Its next user may write what is for another peer.
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // A segment of its own may go; shared ones stay until the pool ends.
        if capacity > SHARED_MAX && free.kept + capacity > KEPT_BYTES_MAX {
            return;
        }
        free.kept += capacity;
        free.lists.entry(capacity).or_default().push((segment, offset));
    }
}

impl Pool for SegmentPool {
    fn release(&self, segment: &Arc<dyn Segment>, offset: usize, capacity: usize) {
        self.put(Arc::clone(segment), offset, capacity);
    }

    fn may_be_shown(&self, peer: u64) -> bool {
        self.session.is_none_or(|session| session.0 == peer)
    }
}

/// `None`: longer than memory can be.
fn capacity_of(len: usize) -> Option<usize> {
    let len = len.max(CLASS_MIN);
    if len <= SHARED_MAX {
        return Some(len.next_power_of_two());
    }
    len.checked_next_multiple_of(SHARED_MAX).filter(|&capacity| capacity <= isize::MAX as usize)
}

/// A zeroed buffer of the heap; where there is no room for it, an error and not the end of the process.
fn heap(len: usize) -> Result<Buf, TransportError> {
    // Given back at once, so that the zeroed one comes as the system has it.
    if Vec::<u8>::new().try_reserve_exact(len).is_err() {
        let error = TransportError::new(ErrorKind::Limit, "allocate a buffer", format!("{len} bytes"));
        return Err(error.hint("memory is short; free some, or raise the limit of address space (ulimit -v)"));
    }
    Ok(Buf::zeroed(len))
}

/// A buffer of `len` bytes from `pool`; from the heap where no transport has segments.
fn alloc(
    shared: &Arc<Shared>,
    pool: &Arc<SegmentPool>,
    len: usize,
    share: bool,
) -> Result<Buf, TransportError> {
    let Some(capacity) = capacity_of(len) else {
        let error = TransportError::new(ErrorKind::Limit, "allocate a buffer", format!("{len} bytes"));
        return Err(error.hint("no memory is that large; ask for less"));
    };
    let range = match pool.take(capacity) {
        Some(range) => range,
        None => {
            let size = if share && capacity <= SHARED_MAX { SHARED_SEGMENT } else { capacity };
            let Some(segment) = shared.with(|core| core.allocate_segment(size))? else {
                return heap(len);
            };
            for at in 1..size / capacity {
                pool.put(Arc::clone(&segment), at * capacity, capacity);
            }
            (segment, 0)
        }
    };
    let (segment, offset) = range;
    if offset + capacity > segment.len() {
        return heap(len);
    }
    let pool: Arc<dyn Pool> = Arc::<SegmentPool>::clone(pool);
    // SAFETY: the range lies inside the segment (checked above), is mapped and so initialised, and was taken off the free
    // list, on which it is put again by `release` only.
    let mut buf = unsafe { Buf::from_pool(pool, segment, offset, capacity) };
    buf.set_len(len);
    Ok(buf)
}

impl Engine {
    /// A buffer that can be sent without a copy to the first peer that it is sent to. Its content is what its last user
    /// left. Below 64 KiB it is plain heap. Memory that a peer has been shown is not used for another buffer: for many
    /// messages to one peer [`Peer::alloc`] is faster. Never blocks but for the system calls of a new segment.
    ///
    /// # Errors
    /// No memory or descriptor left, with a hint.
    pub fn alloc(&self, len: usize) -> Result<Buf, TransportError> {
        if len < SEGMENT_FROM || self.shared().check_fork().is_err() {
            return Ok(Buf::zeroed(len));
        }
        alloc(self.shared(), &self.shared().pool, len, false)
    }
}

impl Peer {
    /// A buffer that can be sent without a copy to this peer: it shares segments with other buffers for the same peer's
    /// engine only, so that it goes to others by copy. Its content is what its last user left.
    ///
    /// # Errors
    /// No memory or descriptor left, with a hint.
    pub fn alloc(&self, len: usize) -> Result<Buf, TransportError> {
        let shared = &self.endpoint.shared;
        if shared.check_fork().is_err() {
            return Ok(Buf::zeroed(len));
        }
        let pool = shared.with(|core| core.pool_of(self.session));
        alloc(shared, &pool, len, true)
    }
}
