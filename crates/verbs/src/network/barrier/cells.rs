//! The memory of barriers: what a cell holds, where it lies, and what the machine needs of whoever owns it.
//!
//! Called by the machine and by the node that registers the memory. Nothing here touches memory.

use std::fmt;

/// Cells for each peer at most: the machine keeps the places in 16 bits.
pub const CELLS_MAX: usize = 1 << 15;

/// What stands in a cell: the digest of a group (upper 48 bits) and an epoch (lower 16). Zero is a cell that was never written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notice(u64);

impl Notice {
    pub(super) const fn new(digest: u64, epoch: u64) -> Self {
        Self((digest << 16) | (epoch & 0xffff))
    }

    /// As it stands in the cell, in the byte order of the machine that wrote it: ranks of different byte order cannot pass barriers together.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Whether `cell` says that its writer is in this epoch of this group or a later one.
    #[must_use]
    pub const fn is_given_by(self, cell: u64) -> bool {
        let ahead = (cell as u16).wrapping_sub(self.0 as u16);
        cell >> 16 == self.0 >> 16 && ahead < 0x8000
    }

    const fn is_of_group_of(self, cell: u64) -> bool {
        cell >> 16 == self.0 >> 16
    }

    /// The first of `cells` places that belongs to this group.
    pub(super) fn find(self, places: usize, load: impl Fn(usize) -> u64) -> Option<usize> {
        (0..places).find(|&place| self.is_of_group_of(load(place)))
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notice({:012x}, epoch …{})", self.0 >> 16, self.0 & 0xffff)
    }
}

/// Where the cells of a rank lie in the memory that it exposes: for each rank of the job, `groups_max` cells of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CellLayout {
    /// Ranks of the job.
    pub world_size: u32,
    /// Different groups that two ranks may use together in the life of the network; the same on all ranks. Default 64.
    pub groups_max: usize,
}

impl CellLayout {
    /// The memory that a rank needs, in bytes; its address must be a multiple of 8. `None` where that is more than an address space.
    #[must_use]
    pub fn len_bytes(&self) -> Option<usize> {
        usize::try_from(self.world_size).ok()?.checked_mul(self.groups_max)?.checked_mul(8)
    }

    /// Where the cell at `place` lies that `writer` writes, in bytes from the beginning of the reader's memory. `None` outside of it.
    #[must_use]
    pub fn offset_bytes(&self, writer: u32, place: usize) -> Option<usize> {
        if writer >= self.world_size || place >= self.groups_max {
            return None;
        }
        usize::try_from(writer).ok()?.checked_mul(self.groups_max)?.checked_add(place)?.checked_mul(8)
    }
}

/// What a machine needs of the memory and the way to the peers.
///
/// The implementation owes:
/// - a cell is 8 bytes at an address that is a multiple of 8, written whole by the device; it begins as zero;
/// - [`load`](Self::load) is an atomic load with *acquire*, so that what a peer wrote to this rank's memory before its notice, over the
///   same connection, is seen after it;
/// - notices to one rank are written in the order given; none is written after the connection it was posted on has been given up, unless given again;
/// - memory that peers may write outlives every queue pair through which they can.
pub trait Cells {
    /// Why a notice could not be posted, other than for want of room.
    type Error;

    /// Begins to write `value` into the cell at `place` of what this rank writes at `rank`. `false` where the queue has no room now.
    ///
    /// Returning `true` does not mean that it has arrived. When it turns out to be lost, the connection was reset: give the rank all of
    /// [`Barriers::told_to`](super::Barriers::told_to) again.
    ///
    /// # Errors
    /// What keeps it from ever being posted on this connection. The barrier stays entered and can be gone on with.
    fn try_notify(&mut self, rank: u32, place: usize, value: u64) -> Result<bool, Self::Error>;

    /// What `rank` wrote last into the cell at `place`, with acquire.
    fn load(&self, rank: u32, place: usize) -> u64;

    /// Called between two looks, while `rank` is waited for: polls completions, gives way, or sleeps a little.
    ///
    /// # Errors
    /// A connection that failed meanwhile, where that should end the wait.
    fn pause(&mut self, rank: u32) -> Result<(), Self::Error>;
}
