//! What `verbs.h` has as `static inline`: functions that no library exports, because they call through the object.
//!
//! Called by safe bindings. Every one of them is as unsafe as in C: pointers must be to live objects of the device, arguments as the
//! manual page says. What each adds to C's: no call through null. A function that the device, its driver or its library does not
//! have answers [`Errno::NOT_SUPPORTED`](crate::Errno::NOT_SUPPORTED), and every failure is an [`Errno`](crate::Errno), however C
//! says it. The few `*_unchecked` ones, for the path of messages, say what makes their pointer sure.
//!
//! Those that may have to fall back on an exported function are methods of [`VerbsTable`](crate::VerbsTable).
//!
//! A pointer that was answered is never null.

pub(crate) mod cq;
pub(crate) mod cq_ex;
pub(crate) mod device;
pub(crate) mod efa;
pub(crate) mod flow;
pub(crate) mod mr;
pub(crate) mod pd;
pub(crate) mod qp;
pub(crate) mod srq;
pub(crate) mod wq;
pub(crate) mod wr;

#[cfg(test)]
mod tests;
