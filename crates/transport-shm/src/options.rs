//! The options of the transport: plain values, checked when a domain opens.
//!
//! Filled by the engine from its option table. Nothing here reads the environment.

use sinew_transport::{ErrorKind, TransportError};
use std::path::PathBuf;

/// What can be chosen. The defaults were measured on Zen 5 (see `docs/adr/0005-shared-memory-trust.md` for what they cost).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShmOptions {
    /// Directory of the sockets. `None`: [`sinew_base::runtime_dir::default_path`]. Which directories are trusted says
    /// [`sinew_base::runtime_dir::prepare`].
    pub runtime_dir: Option<PathBuf>,
    /// Slots of a ring: a power of two from 16 to 65,536. Default 256: 16 KiB for each lane and direction.
    pub ring_slots: usize,
    /// Bytes of the window for bodies of 41 bytes to [`ShmOptions::small_max`]. Default 16 KiB, so that it stays in the
    /// first cache. A multiple of 4096.
    pub small_window: usize,
    /// Bytes of the window for larger bodies, and for smaller ones when the small window is full. Default 256 KiB; a
    /// multiple of 4096, at least twice [`ShmOptions::chunk_max`].
    pub large_window: usize,
    /// Largest body that goes through the small window. Default 4096.
    pub small_max: usize,
    /// Largest body of a posted frame. Default 64 KiB; at least 4096, at most [`ShmOptions::chunk_max`].
    pub frame_max: usize,
    /// Largest piece of a borrowed body. Default 64 KiB.
    pub chunk_max: usize,
    /// Segments of one peer that are mapped at the same time. Default 64.
    pub segments_max: usize,
    /// Bytes of one peer's segments that are mapped at the same time. Default 64 GiB (of address space; the memory is the
    /// peer's).
    pub segment_bytes_max: u64,
    /// Whether armed consumers use `membarrier`, so that producers need no fence. Default `true`; without it (or where the
    /// kernel refuses) each post costs a fence of about 5 to 10 ns.
    pub membarrier: bool,
    /// Whether long messages from memory of the sender's own are read across by the receiver (`process_vm_readv`), where both
    /// sides allow it and are of the same user. Default [`CrossRead::Auto`].
    pub cross_read: CrossRead,
    /// Whether segments of 2 MiB and more get huge pages where the machine has some: reserved ones, else those that the kernel
    /// makes for shared memory. Default [`HugePages::Auto`]. `explain` says what was got.
    pub huge_pages: HugePages,
    /// On which node windows and segments are, where the machine has several. Default [`Numa::Auto`].
    pub numa: Numa,
    /// Connections that wait to be accepted. Default 4096; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
}

impl Default for ShmOptions {
    fn default() -> Self {
        Self {
            runtime_dir: None,
            ring_slots: 256,
            small_window: 16 << 10,
            large_window: 256 << 10,
            small_max: 4096,
            frame_max: 64 << 10,
            chunk_max: 64 << 10,
            segments_max: 64,
            segment_bytes_max: 64 << 30,
            membarrier: true,
            cross_read: CrossRead::Auto,
            huge_pages: HugePages::Auto,
            numa: Numa::Auto,
            backlog: 4096,
        }
    }
}

/// When long messages are read across.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CrossRead {
    /// When that has proven faster than pieces on the first long messages of a lane; costs one slower message or two.
    #[default]
    Auto,
    /// Never; nor may peers read this process.
    Off,
    /// All that are at least so many bytes long, and longer than one frame takes.
    From(usize),
}

impl std::str::FromStr for CrossRead {
    type Err = String;

    /// `auto`, `off`, or a size as `256k`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" | "" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            size => {
                match sinew_base::units::parse_bytes(size).ok().and_then(|from| usize::try_from(from).ok()) {
                    Some(from @ 1..) => Ok(Self::From(from)),
                    _ => Err(format!("{size:?} is neither auto, nor off, nor a size as 256k")),
                }
            }
        }
    }
}

/// Whether memory gets huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Where the machine has some.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl std::str::FromStr for HugePages {
    type Err = String;

    /// `auto` or `off`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" | "" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => Err(format!("{other:?} is neither auto nor off")),
        }
    }
}

/// On which node memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Numa {
    /// That of the thread that makes it, or the nearest with room: a window is made by the thread that makes the engine's
    /// progress, a segment by the one that calls `alloc`.
    #[default]
    Auto,
    /// Wherever the kernel's policy for the thread says.
    Off,
    /// This one, or the nearest with room.
    Node(usize),
}

impl std::str::FromStr for Numa {
    type Err = String;

    /// `auto`, `off` or the number of a node.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" | "" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            number => number
                .parse()
                .map(Self::Node)
                .map_err(|_| format!("{number:?} is neither auto, nor off, nor the number of a node")),
        }
    }
}

/// Largest window; larger ones only leave the cache.
pub(crate) const WINDOW_MAX: usize = 64 << 20;
/// Fewest and most slots of a ring.
pub(crate) const SLOTS: std::ops::RangeInclusive<usize> = 16..=65_536;

impl ShmOptions {
    pub(crate) fn check(&self) -> Result<(), TransportError> {
        let bad = |what: String| {
            Err(TransportError::new(ErrorKind::Unsupported, "shm options", what)
                .hint("see the documentation of ShmOptions"))
        };
        if !self.ring_slots.is_power_of_two() || !SLOTS.contains(&self.ring_slots) {
            return bad(format!("ring_slots = {}: a power of two from 16 to 65536", self.ring_slots));
        }
        for (name, len) in [("small_window", self.small_window), ("large_window", self.large_window)] {
            if len == 0 || !len.is_multiple_of(4096) || len > WINDOW_MAX {
                return bad(format!("{name} = {len}: a multiple of 4096 up to 64 MiB"));
            }
        }
        if self.small_max > self.small_window {
            return bad(format!("small_max = {}: at most small_window", self.small_max));
        }
        if self.frame_max < 4096 || self.frame_max > self.chunk_max {
            return bad(format!("frame_max = {}: from 4096 to chunk_max", self.frame_max));
        }
        if self.chunk_max > self.large_window / 2 {
            return bad(format!("chunk_max = {}: at most half of large_window", self.chunk_max));
        }
        Ok(())
    }
}
