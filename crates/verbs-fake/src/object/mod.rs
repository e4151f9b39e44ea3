//! The objects of a device, one file each: the functions that C calls, and what they do to the world.
//!
//! The functions are thin: they find their object, and leave the work to methods of the world's state that hold no pointer.

pub(crate) mod ah;
pub(crate) mod channel;
pub(crate) mod context;
pub(crate) mod cq;
pub(crate) mod cq_ex;
pub(crate) mod device;
pub(crate) mod dm;
pub(crate) mod efa;
pub(crate) mod event;
pub(crate) mod flow;
pub(crate) mod handle;
pub(crate) mod mr;
pub(crate) mod mw;
pub(crate) mod pd;
pub(crate) mod post;
pub(crate) mod qp;
pub(crate) mod qp_state;
pub(crate) mod query;
pub(crate) mod srq;
pub(crate) mod text;
pub(crate) mod tuning;
pub(crate) mod wr;
