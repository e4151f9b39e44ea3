//! What two processes do to the same words of memory: the ring of frames and the sleep protocol, without any mapping.
//!
//! Called by the lane and the domain with words inside mappings, and by the loom tests with words on the heap. It makes no
//! system call, holds no pointer of its own and has no `unsafe`.

pub mod ring;
pub mod sleep;
pub mod sync;
