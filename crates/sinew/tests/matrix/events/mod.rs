//! The scenarios, one for each event. Each states what its cells promise.

pub(crate) mod cancel;
pub(crate) mod cut;
pub(crate) mod drop;
mod early;
mod functions;
pub(crate) mod kill;
pub(crate) mod panic;
pub(crate) mod stop;
pub(crate) mod timeout;
