//! Memory of this process, owned, that stays where it is: what a region is made of.
//!
//! Called by regions, which register it and keep it until the device is done. Nothing here speaks to a device.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use rustix::mm::{MapFlags, ProtFlags};
use std::alloc::Layout;
use std::any::Any;
use std::fmt;
use std::ptr::NonNull;

/// Owned bytes at a fixed address.
///
/// `Send` and `Sync` as a `Box<[u8]>` is. Never empty.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// How it goes back.
enum Owner {
    /// By the allocator, with this layout.
    Heap(Layout),
    /// A vector, with this capacity.
    Vector(usize),
    /// A mapping of its own, this long.
    Mapping(usize),
    /// Whoever else; dropped when the memory is.
    Foreign(#[expect(dead_code, reason = "kept for its drop")] Box<dyn Any + Send + Sync>),
}

// SAFETY: the bytes are owned by this value alone, as by a `Box<[u8]>`; a foreign owner is `Send` and `Sync` itself.
unsafe impl Send for Memory {}
// SAFETY: shared references reach the bytes for reading only.
unsafe impl Sync for Memory {}

/// NUMA nodes that can be named: as many as any kernel knows.
const NODES_MAX: usize = 1024;

/// How large the pages of a mapping are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum PageSize {
    /// As the system does it by itself, with large ones where it likes.
    #[default]
    Normal,
    /// Large ones asked for (`madvise(MADV_HUGEPAGE)`); normal ones where the system has none.
    Transparent,
    /// 2 MiB from the reserved ones (`MAP_HUGETLB`); an error where too few are reserved.
    Huge2MiB,
    /// 1 GiB from the reserved ones; an error where too few are reserved.
    Huge1GiB,
}

impl Memory {
    /// `len` zeroed bytes from the allocator, at a multiple of 64.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 or an impossible length, and where there is no memory.
    pub fn zeroed(len: usize) -> Result<Self> {
        let impossible = || {
            Error::invalid(
                "memory",
                format!("{len} bytes cannot be allocated"),
                "take a length from 1 to what the machine has",
            )
        };
        let layout = Layout::from_size_align(len, 64).ok().filter(|_| len > 0).ok_or_else(impossible)?;
        // SAFETY: the layout is not of size zero.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or_else(impossible)?;
        Ok(Self { start, len, owner: Owner::Heap(layout) })
    }

    /// At least `len` zeroed bytes of whole pages, not inherited by a forked child.
    ///
    /// The length is rounded up to whole pages.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0; [`Error::Call`] with `ENOMEM` where there is no memory, or too few huge pages are reserved
    /// (`/proc/sys/vm/nr_hugepages`).
    pub fn pages(len: usize, size: PageSize) -> Result<Self> {
        let page = match size {
            PageSize::Normal => rustix::param::page_size(),
            PageSize::Transparent | PageSize::Huge2MiB => 2 << 20,
            PageSize::Huge1GiB => 1 << 30,
        };
        let rounded = len
            .checked_next_multiple_of(page)
            .filter(|rounded| *rounded > 0 && *rounded <= isize::MAX as usize);
        let Some(rounded) = rounded else {
            return Err(Error::invalid(
                "memory",
                format!("{len} bytes cannot be mapped"),
                "take at least 1 byte",
            ));
        };
        let mut flags = MapFlags::PRIVATE;
        flags |= match size {
            PageSize::Normal | PageSize::Transparent => MapFlags::empty(),
            PageSize::Huge2MiB => MapFlags::HUGETLB | MapFlags::HUGE_2MB,
            PageSize::Huge1GiB => MapFlags::HUGETLB | MapFlags::HUGE_1GB,
        };
        let object = || format!("{rounded} bytes of {size:?} pages");
        // SAFETY: a new mapping at an address that the system chooses touches nothing that exists.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                rounded,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        };
        let start = mapped.map_err(|errno| Error::call("mmap", object(), errno.raw_os_error()))?.cast::<u8>();
        let Some(start) = NonNull::new(start) else {
            return Err(Error::call("mmap", object(), libc::ENOMEM));
        };
        let memory = Self { start, len: rounded, owner: Owner::Mapping(rounded) };
        memory.advise(rustix::mm::Advice::LinuxDontFork, object)?;
        if size == PageSize::Transparent {
            // A kernel without large pages says EINVAL: normal pages are what was promised then.
            let _ = memory.advise(rustix::mm::Advice::LinuxHugepage, object);
        }
        Ok(memory)
    }

    /// The same on one NUMA node (the device's: [`Context::numa_node`](crate::device::Context::numa_node)), and nowhere else.
    ///
    /// # Errors
    /// As for [`pages`](Self::pages); [`Error::Call`] with `EINVAL` for a node that there is not or that this process may not use, `EPERM`
    /// where the system forbids placing (containers), `ENOMEM` when the node is full, which may also show later, as a signal, when a page
    /// is touched that no device has locked.
    #[doc(alias = "mbind")]
    pub fn pages_on(node: u32, len: usize, size: PageSize) -> Result<Self> {
        let memory = Self::pages(len, size)?;
        let object = || format!("{} bytes on NUMA node {node}", memory.len);
        let mut nodes = [0 as libc::c_ulong; NODES_MAX / libc::c_ulong::BITS as usize];
        let Some(word) = nodes.get_mut(node as usize / libc::c_ulong::BITS as usize) else {
            return Err(Error::call("mbind", object(), libc::EINVAL));
        };
        *word |= 1 << (node % libc::c_ulong::BITS);
        // The kernel takes one less than it is told.
        let bits = NODES_MAX as libc::c_ulong + 1;
        // SAFETY: the range is this value's own mapping, no page of it was touched yet, and the mask has as many bits as are told.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                memory.start.as_ptr(),
                memory.len,
                libc::MPOL_BIND | libc::MPOL_F_STATIC_NODES,
                nodes.as_ptr(),
                bits,
                0,
            )
        };
        if answer == 0 {
            Ok(memory)
        } else {
            Err(Error::call("mbind", object(), sinew_verbs_sys::Errno::last().0))
        }
    }

    fn advise(&self, advice: rustix::mm::Advice, object: impl Fn() -> String) -> Result<()> {
        // SAFETY: the range is this value's own mapping; neither advice changes what it contains.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice) }
            .map_err(|errno| Error::call("madvise", object(), errno.raw_os_error()))
    }

    /// Memory that something else owns: a mapping, a device's, another library's. `owner` is dropped when it is no longer used.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no bytes.
    ///
    /// # Safety
    /// `start` to `start + len` is valid for reads and writes, initialised, and used by nobody else, until `owner` is dropped.
    pub unsafe fn from_raw(
        start: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        if len == 0 {
            return Err(Error::invalid("memory", "it has no bytes", "take at least 1 byte"));
        }
        Ok(Self { start, len, owner: Owner::Foreign(owner) })
    }

    /// The vector or boxed slice that it was made of, or itself when it was made otherwise.
    ///
    /// # Errors
    /// Itself.
    pub fn into_vec(self) -> std::result::Result<Vec<u8>, Self> {
        let Owner::Vector(capacity) = self.owner else {
            return Err(self);
        };
        let memory = std::mem::ManuallyDrop::new(self);
        // SAFETY: these are the parts of a vector taken apart by `From<Vec<u8>>`; the value that had them is not dropped.
        Ok(unsafe { Vec::from_raw_parts(memory.start.as_ptr(), memory.len, capacity) })
    }

    /// Where it begins.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes it has; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }
}

impl TryFrom<Vec<u8>> for Memory {
    type Error = Error;

    /// The vector's elements, without its spare room.
    fn try_from(vector: Vec<u8>) -> Result<Self> {
        if vector.is_empty() {
            return Err(Error::invalid("memory", "the vector is empty", "take at least 1 byte"));
        }
        let mut vector = std::mem::ManuallyDrop::new(vector);
        let (len, capacity) = (vector.len(), vector.capacity());
        let Some(start) = NonNull::new(vector.as_mut_ptr()) else {
            return Err(Error::invalid("memory", "the vector has no memory", "take at least 1 byte"));
        };
        Ok(Self { start, len, owner: Owner::Vector(capacity) })
    }
}

impl TryFrom<Box<[u8]>> for Memory {
    type Error = Error;

    fn try_from(boxed: Box<[u8]>) -> Result<Self> {
        Self::try_from(boxed.into_vec())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.owner {
            Owner::Heap(layout) => {
                // SAFETY: allocated with this layout and given back once.
                unsafe { std::alloc::dealloc(self.start.as_ptr(), *layout) }
            }
            Owner::Vector(capacity) => {
                // SAFETY: the parts of a vector that was taken apart; put together once.
                drop(unsafe { Vec::from_raw_parts(self.start.as_ptr(), self.len, *capacity) });
            }
            Owner::Mapping(len) => {
                // SAFETY: this value's own mapping, unmapped once.
                let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), *len) };
                debug_assert!(unmapped.is_ok(), "munmap of an own mapping: {unmapped:?}");
            }
            Owner::Foreign(_) => {}
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.owner {
            Owner::Heap(_) => "heap",
            Owner::Vector(_) => "vector",
            Owner::Mapping(_) => "mapping",
            Owner::Foreign(_) => "foreign",
        };
        write!(f, "Memory({kind}, {} bytes at {:p})", self.len, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(memory: &Memory) -> &[u8] {
        // SAFETY: the memory is this test's own and nobody writes it.
        unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), memory.len()) }
    }

    #[test]
    fn a_vector_comes_back_with_its_contents_and_its_room() {
        let mut vector = Vec::with_capacity(100);
        vector.extend([1, 2, 3]);
        let at = vector.as_ptr();
        let memory = Memory::try_from(vector).unwrap();
        assert_eq!(bytes(&memory), [1, 2, 3]);
        let vector = memory.into_vec().unwrap();
        assert_eq!((vector.as_ptr(), vector.capacity(), vector.as_slice()), (at, 100, &[1u8, 2, 3][..]));
        assert!(Memory::zeroed(8).unwrap().into_vec().is_err());
    }

    #[test]
    fn memory_is_zeroed_and_never_empty() {
        for memory in [Memory::zeroed(100).unwrap(), Memory::pages(100, PageSize::Normal).unwrap()] {
            assert!(bytes(&memory).iter().all(|byte| *byte == 0));
            assert!(memory.len() >= 100);
            assert_eq!(memory.start().as_ptr() as usize % 64, 0);
        }
        assert!(Memory::zeroed(0).is_err());
        assert!(Memory::zeroed(usize::MAX).is_err());
        assert!(Memory::pages(0, PageSize::Normal).is_err());
        assert!(Memory::pages(usize::MAX, PageSize::Normal).is_err());
        assert!(Memory::try_from(Vec::new()).is_err());
    }

    #[test]
    fn a_foreign_owner_is_dropped_with_its_memory() {
        let mut backing = vec![7u8; 16];
        let start = NonNull::new(backing.as_mut_ptr()).unwrap();
        let alive = std::sync::Arc::new(());
        // SAFETY: the bytes are not touched by name while the value lives.
        let memory = unsafe { Memory::from_raw(start, 16, Box::new(alive.clone())) }.unwrap();
        assert_eq!(bytes(&memory), [7; 16]);
        assert_eq!(std::sync::Arc::strong_count(&alive), 2);
        drop(memory);
        assert_eq!(std::sync::Arc::strong_count(&alive), 1);
    }

    #[test]
    fn transparent_pages_are_whole_large_ones() {
        let memory = Memory::pages(1, PageSize::Transparent).unwrap();
        assert_eq!(memory.len(), 2 << 20);
    }

    /// What the kernel says of the mapping that begins there, where it says it.
    fn flags_of(memory: &Memory) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let start = format!("{:x}-", memory.start().as_ptr() as usize);
        let (_, rest) = maps.split_once(&format!("\n{start}"))?;
        rest.lines().find_map(|line| line.strip_prefix("VmFlags: ")).map(|flags| format!(" {flags} "))
    }

    #[test]
    fn pages_are_kept_from_children_and_large_ones_are_asked_for() {
        for (size, wanted) in [(PageSize::Normal, false), (PageSize::Transparent, true)] {
            // Neighbours of the same kind are one mapping: the first of several begins where the kernel says.
            let several = [(); 4].map(|()| Memory::pages(1, size).unwrap());
            let Some(flags) = several.iter().find_map(flags_of) else {
                println!("SKIP flags of mappings: the kernel does not say them");
                return;
            };
            assert!(flags.contains(" dc "), "inherited by children: {flags}");
            let has_large = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok();
            assert_eq!(flags.contains(" hg "), wanted && has_large, "{size:?}: {flags}");
        }
    }

    fn free_pages(kib: usize) -> u64 {
        let free = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/free_hugepages");
        std::fs::read_to_string(free).map_or(0, |text| text.trim().parse().unwrap_or(0))
    }

    /// Pages of 2 MiB that this test has set apart; given back when it is dropped, also when the test fails.
    struct SetApart {
        before: String,
    }

    const SETTING: &str = "/proc/sys/vm/nr_hugepages";

    impl SetApart {
        fn new(count: u64) -> Option<Self> {
            let before = std::fs::read_to_string(SETTING).ok()?;
            let more = before.trim().parse::<u64>().ok()? + count;
            std::fs::write(SETTING, more.to_string()).ok()?;
            Some(Self { before })
        }
    }

    impl Drop for SetApart {
        fn drop(&mut self) {
            let _ = std::fs::write(SETTING, &self.before);
        }
    }

    #[test]
    fn pages_that_are_set_apart_are_those_or_an_error() {
        let look = |size, kib: usize| {
            let free = free_pages(kib);
            match Memory::pages(1, size) {
                Ok(memory) => {
                    assert!(free > 0 && memory.len() == kib << 10, "{size:?} of {free}");
                    let flags = flags_of(&memory).unwrap_or_default();
                    assert!(flags.is_empty() || flags.contains(" ht "), "others than these: {flags}");
                    assert!(flags.is_empty() || flags.contains(" dc "), "inherited by children: {flags}");
                }
                Err(error) => assert!(error.errno().is_some() && free == 0, "{error}"),
            }
        };
        look(PageSize::Huge2MiB, 2048);
        look(PageSize::Huge1GiB, 1 << 20);
        let set_apart = SetApart::new(2);
        if free_pages(2048) == 0 {
            println!(
                "SKIP pages_that_are_set_apart: [huge pages] none is, and this process may set none apart"
            );
            return;
        }
        look(PageSize::Huge2MiB, 2048);
        drop(set_apart);
    }

    #[test]
    fn pages_on_a_node_are_there_and_a_node_that_is_not_is_refused() {
        match Memory::pages_on(0, 1, PageSize::Normal) {
            Ok(memory) => {
                // SAFETY: the memory is this test's own.
                unsafe { memory.start().as_ptr().write(7) };
                assert_eq!(bytes(&memory)[0], 7);
                let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
                let start = format!("{:x} ", memory.start().as_ptr() as usize);
                let line = maps.lines().find(|line| line.starts_with(&start));
                assert!(line.is_none_or(|line| line.contains(" bind")), "{line:?}");
            }
            Err(error) => {
                let errno = error.errno();
                assert!(matches!(errno, Some(libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP)), "{error}");
                println!("SKIP pages on a NUMA node: {error}");
                return;
            }
        }
        assert!(Memory::pages_on(NODES_MAX as u32 - 1, 1, PageSize::Normal).is_err());
        assert!(Memory::pages_on(u32::MAX, 1, PageSize::Normal).is_err());
    }
}
