//! Memory that is passed between processes: made, reserved, sealed, checked, mapped.
//!
//! Called by the domain, lanes and segments. Whatever the peer passes is refused unless it can neither shrink nor have
//! holes punched into it, so that no read of it can end in SIGBUS or charge us for its pages.
#![allow(unsafe_code)]

use super::limits;
use super::placement::{self, HUGE, Machine, Transparent};
use crate::options::{HugePages, Numa};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use sinew_base::fork::ForkGuard;
use sinew_transport::{ErrorKind, TransportError};
use std::ptr::NonNull;

/// Bytes of a page, as far as layouts here are concerned.
pub(crate) const PAGE: usize = 4096;

/// Who may write memory that we make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Only this process.
    Owner,
    /// Whoever gets the descriptor: for hints, nothing else.
    Anybody,
}

/// A mapping between two pages that nobody can touch: an access beyond its ends is a fault, and never another peer's memory.
/// Unmapped on drop, not inherited by forked children.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    reserved: Reserved,
    fork: ForkGuard,
}

/// A range of addresses; given back by the mapping in it.
#[derive(Debug)]
struct Reserved {
    start: NonNull<u8>,
    len: usize,
}

impl Reserved {
    /// Addresses that cannot be accessed.
    fn new(len: usize) -> Result<Self, Errno> {
        let (access, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags) }?;
        Ok(Self { start: NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?, len })
    }

    fn give_back(&self) {
        // SAFETY: mapped by `new`, unmapped once; whoever made pointers kept the mapping alive.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: a mapping is an address range; what is done with it is the business of those who make pointers from it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, the first `ready` of them at once, the others as they are touched.
    fn new(fd: impl AsFd, len: usize, ready: usize, writable: bool) -> Result<Self, Errno> {
        let mapping = Self::untouched(fd, len, writable)?;
        mapping.populate(ready, writable);
        Ok(mapping)
    }

    /// Maps `len` bytes, as they are touched. What is as long as a huge page lies as one does.
    fn untouched(fd: impl AsFd, len: usize, writable: bool) -> Result<Self, Errno> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let guard = rustix::param::page_size();
        let align = if len >= HUGE { HUGE } else { guard };
        let whole = len.checked_next_multiple_of(guard).and_then(|len| len.checked_add(align + guard));
        let reserved = Reserved::new(whole.ok_or(Errno::NOMEM)?)?;
        // The first aligned place behind a guard page: at most `align` bytes on, as the start is a multiple of a page.
        let lead =
            (reserved.start.addr().get() + guard).next_multiple_of(align) - reserved.start.addr().get();
        // SAFETY: inside the range that was reserved.
        let base = unsafe { reserved.start.add(lead) };
        let mapping = Self { base, len, reserved, fork: ForkGuard::new() };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range is inside the one that was just reserved, where nothing is that could be disturbed.
        unsafe { rustix::mm::mmap(base.as_ptr().cast(), len, access, flags, fd, 0) }?;
        // SAFETY: the range was just mapped and is ours.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontFork) }?;
        Ok(mapping)
    }

    /// Maps the first `ready` bytes now.
    fn populate(&self, ready: usize, writable: bool) {
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        self.advise(ready.min(self.len), advice);
    }

    /// Gives the system advice about the first `len` bytes. It may be refused: before Linux 5.14 all is mapped as touched.
    fn advise(&self, len: usize, advice: Advice) {
        // SAFETY: the range is mapped and ours, and `len` is at most its length; no advice given here changes content.
        let _ = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), len, advice) };
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a forked child the range is not mapped, or by now is something else.
        if !self.fork.forked() {
            self.reserved.give_back();
        }
    }
}

/// Which pages memory should have, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Of what size.
    pub(crate) huge: HugePages,
    /// On which node.
    pub(crate) numa: Numa,
}

impl Wish {
    /// Ordinary pages wherever they come from.
    pub(crate) const NONE: Self = Self { huge: HugePages::Off, numa: Numa::Off };
}

/// Makes `len` bytes (a multiple of the page), reserved, zeroed, mapped for writing and sealed.
///
/// The first `ready` bytes are mapped now, the others when they are touched: mapping costs as much as reserving.
pub(crate) fn create(
    what: &'static str,
    len: usize,
    ready: usize,
    writers: Writers,
) -> Result<(OwnedFd, Mapping), TransportError> {
    let made = create_as(what, len, ready, writers, Wish::NONE)?;
    Ok((made.fd, made.mapping))
}

/// Memory that was made, and what it is, for people.
pub(crate) struct Made {
    /// For the peer.
    pub(crate) fd: OwnedFd,
    /// For this side.
    pub(crate) mapping: Mapping,
    /// Its pages and node.
    pub(crate) got: String,
}

/// [`create`] with wishes, each of which is granted or not.
pub(crate) fn create_as(
    what: &'static str,
    len: usize,
    ready: usize,
    writers: Writers,
    wish: Wish,
) -> Result<Made, TransportError> {
    let machine = Machine::this();
    let plan = machine.plan(wish.huge, len);
    let node = match wish.numa {
        Numa::Off => None,
        numa => machine.node(numa, rustix::thread::sched_getcpu()),
    };
    let mut why = plan.why;
    if plan.reserved {
        match make(what, len, (ready, writers), MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, node, false) {
            Ok((fd, mapping)) => {
                let got = format!("reserved pages of 2 MiB{}", on(node));
                return Ok(Made { fd, mapping, got });
            }
            // Somebody else was faster, or a limit of the control group.
            Err(error) => why = format!("the reserved huge pages were refused: {error}"),
        }
    }
    let advised = plan.transparent == Transparent::Advise;
    let (fd, mapping) = make(what, len, (ready, writers), MemfdFlags::empty(), node, advised)?;
    let got = match plan.transparent {
        Transparent::Never => format!("ordinary pages{}: {why}", on(node)),
        _ => format!("pages of 2 MiB as far as the kernel has them{}", on(node)),
    };
    Ok(Made { fd, mapping, got })
}

fn on(node: Option<usize>) -> String {
    node.map_or_else(String::new, |node| format!(" on node {node} or near it"))
}

fn make(
    what: &'static str,
    len: usize,
    (ready, writers): (usize, Writers),
    pages: MemfdFlags,
    node: Option<usize>,
    advised: bool,
) -> Result<(OwnedFd, Mapping), TransportError> {
    let object = || format!("{what} of {len} bytes");
    limits::check_file_size(len as u64, what)?;
    limits::check_room(len as u64, what)?;
    let fd = memfd(what, pages).map_err(|errno| refused(errno, &object()))?;
    rustix::fs::ftruncate(&fd, len as u64)
        .map_err(|errno| TransportError::os(errno, "ftruncate", object()).hint(SHORTAGE))?;
    let mapping = Mapping::untouched(&fd, len, true)
        .map_err(|errno| TransportError::os(errno, "mmap", object()).hint(SHORTAGE))?;
    if let Some(node) = node {
        // SAFETY: the mapping was just made, and nobody else knows it.
        unsafe { placement::prefer(mapping.base, len, node) };
    }
    if advised {
        // Reserving alone would take small pages: what is advised counts for those that come by being touched.
        mapping.advise(len, Advice::LinuxHugepage);
        mapping.populate(len, true);
    }
    let mut at = 0;
    while at < len as u64 {
        let piece = RESERVE_AT_ONCE.min(len as u64 - at);
        if at > 0 {
            limits::check_room(piece, what)?;
        }
        reserve(&fd, at, piece)
            .map_err(|errno| TransportError::os(errno, "fallocate", object()).hint(SHORTAGE))?;
        at += piece;
    }
    mapping.populate(ready, true);
    let mut seals = SealFlags::SHRINK | SealFlags::GROW;
    if writers == Writers::Owner {
        seals |= SealFlags::FUTURE_WRITE;
    }
    rustix::fs::fcntl_add_seals(&fd, seals | SealFlags::SEAL).map_err(|errno| {
        TransportError::os(errno, "F_ADD_SEALS", object()).hint("needs Linux 5.1 (F_SEAL_FUTURE_WRITE)")
    })?;
    Ok((fd, mapping))
}

const SHORTAGE: &str = "memory is short; free some, choose smaller windows or segments, or raise the limit of address space (ulimit -v)";

fn refused(errno: Errno, object: &str) -> TransportError {
    let error = TransportError::os(errno, "memfd_create", object);
    match errno {
        Errno::NOSYS | Errno::PERM | Errno::ACCESS => {
            error.hint("a sandbox (seccomp) or an old kernel refuses memfd_create; shared memory needs it")
        }
        _ => error,
    }
}

/// Not executable where the kernel knows how to say so (6.3; some machines then demand it).
fn memfd(what: &str, pages: MemfdFlags) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages;
    match rustix::fs::memfd_create(what, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(what, flags),
        other => other,
    }
}

/// Bytes reserved between two looks at what is left.
const RESERVE_AT_ONCE: u64 = 64 << 20;

fn reserve(fd: &OwnedFd, at: u64, len: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), at, len) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Maps what a peer passed, after checking that it is sealed and whole. `len` is what the peer said, already bounded.
pub(crate) fn adopt(
    fd: &OwnedFd,
    len: u64,
    ready: usize,
    writers: Writers,
) -> Result<Mapping, TransportError> {
    let broken = |what: &str| TransportError::new(ErrorKind::Protocol, "shared memory of the peer", what);
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| broken("not sealable memory"))?;
    let mut wanted = SealFlags::SHRINK | SealFlags::GROW;
    if writers == Writers::Owner {
        wanted |= SealFlags::FUTURE_WRITE;
        // Sealed against all writing would do as well.
        if seals.contains(SealFlags::WRITE) {
            wanted = wanted.difference(SealFlags::FUTURE_WRITE);
        }
    }
    if !seals.contains(wanted) {
        return Err(broken("not sealed as agreed"));
    }
    let stat = rustix::fs::fstat(fd).map_err(|errno| TransportError::os(errno, "fstat", ""))?;
    if u64::try_from(stat.st_size) != Ok(len) {
        return Err(broken("another size than announced"));
    }
    if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < len {
        return Err(broken("not fully reserved"));
    }
    let len = usize::try_from(len).map_err(|_| broken("larger than the address space"))?;
    Mapping::new(fd, len, ready, writers == Writers::Anybody)
        .map_err(|errno| TransportError::os(errno, "mmap", format!("{len} bytes of the peer")).hint(SHORTAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_we_pass_can_be_neither_written_nor_resized_nor_punched_by_others() {
        let (fd, _mapping) = create("test", PAGE, PAGE, Writers::Owner).expect("made");
        assert!(Mapping::new(&fd, PAGE, PAGE, true).is_err(), "mapped for writing");
        assert!(rustix::io::pwrite(&fd, &[1], 0).is_err(), "written");
        assert!(rustix::fs::ftruncate(&fd, 0).is_err(), "shrunk");
        assert!(rustix::fs::ftruncate(&fd, 2 * PAGE as u64).is_err(), "grown");
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&fd, punch, 0, PAGE as u64).is_err(), "punched");
        assert!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE).is_err(), "sealed further");
        adopt(&fd, PAGE as u64, PAGE, Writers::Owner).expect("what we make is what we accept");
    }

    #[test]
    fn a_mapping_lies_between_pages_that_nobody_can_touch() {
        for len in [PAGE, 5 * PAGE] {
            let (_fd, mapping) = create("test", len, PAGE, Writers::Owner).expect("made");
            let start = mapping.base().as_ptr() as usize;
            let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
            // What holds the byte at an address, by its access.
            let access = |at: usize| {
                maps.lines().find_map(|line| {
                    let (range, rest) = line.split_once(' ')?;
                    let (from, to) = range.split_once('-')?;
                    let number = |text| usize::from_str_radix(text, 16).ok();
                    (number(from)? <= at && at < number(to)?).then(|| rest[..4].to_owned())
                })
            };
            assert_eq!(access(start).as_deref(), Some("rw-s"));
            assert_eq!(access(start + len - 1).as_deref(), Some("rw-s"));
            for beyond in [start - 1, start + len] {
                assert_eq!(access(beyond).as_deref(), Some("---p"), "{len} bytes at {start:#x}, {beyond:#x}");
            }
        }
    }

    #[test]
    fn memory_of_a_peer_that_could_shrink_grow_or_run_short_is_refused() {
        let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        let made = |seals: SealFlags, reserved: bool| {
            let fd = memfd("test", MemfdFlags::empty()).expect("memory");
            rustix::fs::ftruncate(&fd, 4 * PAGE as u64).expect("length");
            if reserved {
                reserve(&fd, 0, 4 * PAGE as u64).expect("reserved");
            }
            rustix::fs::fcntl_add_seals(&fd, seals).expect("sealed");
            fd
        };
        let len = 4 * PAGE as u64;
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE] {
            let error =
                adopt(&made(all.difference(missing), true), len, PAGE, Writers::Owner).expect_err("unsealed");
            assert_eq!(error.kind, ErrorKind::Protocol);
        }
        assert!(adopt(&made(all, false), len, PAGE, Writers::Owner).is_err(), "sparse");
        assert!(adopt(&made(all, true), len + 1, PAGE, Writers::Owner).is_err(), "another length");
        let file = rustix::fs::open("/proc/self/exe", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        assert!(adopt(&file.expect("a file"), len, PAGE, Writers::Owner).is_err(), "a file");
        adopt(&made(all, true), len, PAGE, Writers::Owner).expect("as agreed");
    }
}
