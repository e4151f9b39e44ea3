//! What the system is asked for: memory, descriptors, sockets, barriers. Every `unsafe` of set-up is in here.
//!
//! Called by the domain, links and lanes. It knows nothing of rings and frames; it maps, seals, checks and passes.

pub(crate) mod across;
pub(crate) mod barrier;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod socket;
