//! Who may do what with registered memory.

bitflags::bitflags! {
    /// What a device may do with a region on behalf of peers. Writing by the device itself (receives, reads into it) is always
    /// permitted where the memory is writable; nothing here is set unless it is asked for by name.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    #[doc(alias = "ibv_access_flags")]
    pub struct RemoteAccess: u32 {
        /// Peers may read.
        const READ = 1 << 2;
        /// Peers may write.
        const WRITE = 1 << 1;
        /// Peers may do atomics.
        const ATOMIC = 1 << 3;
    }
}

bitflags::bitflags! {
    /// How a region is registered besides.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    #[doc(alias = "ibv_access_flags")]
    pub struct RegistrationFlags: u32 {
        /// Memory windows may be bound to it.
        const WINDOW_BIND = 1 << 4;
        /// Offsets count from 0 at its start, not from its address.
        const ZERO_BASED = 1 << 5;
        /// Pages are brought in when the device touches them: nothing is locked.
        const ON_DEMAND = 1 << 6;
        /// Locked by huge pages only; the registration fails where the memory has others.
        const HUGE_PAGES = 1 << 7;
        /// Writes of the device may overtake each other on the bus (PCI relaxed ordering): faster on some machines; the last byte
        /// says nothing about the others. Dropped by itself where kernel or device do not know it.
        const RELAXED_ORDERING = 1 << 20;
    }
}

/// The device may write the memory itself.
pub(crate) const LOCAL_WRITE: u32 = 1;

impl RemoteAccess {
    /// The bits of the ABI. Remote writing needs local writing (specification, 10.6.3.1).
    ///
    /// Each type gives its own bits only: flags with foreign bits (`from_bits_retain`) must not open private memory to peers.
    pub(crate) const fn to_raw(self, flags: RegistrationFlags, writable: bool) -> u32 {
        let own = self.bits() & Self::all().bits();
        own | flags.bits() & RegistrationFlags::all().bits() | if writable { LOCAL_WRITE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_never_open_memory_to_peers() {
        let every = RegistrationFlags::from_bits_retain(u32::MAX);
        let raw = RemoteAccess::empty().to_raw(every, true);
        assert_eq!(raw & RemoteAccess::all().bits(), 0);
        assert_eq!(
            RemoteAccess::from_bits_retain(u32::MAX).to_raw(RegistrationFlags::empty(), false),
            0b1110
        );
    }
}
