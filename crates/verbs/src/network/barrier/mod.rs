//! Barriers over any subset of ranks: who tells whom, and how often, without a device.
//!
//! Called by the network's node, which binds [`Cells`] to memory that peers write by one-sided writes. It knows no queue pair,
//! no memory region and, but for [`Barriers::run`], no clock.
//!
//! # What is promised
//!
//! The ranks of a group pass barriers one after another; each is an *epoch* of the group, counted from 1 by every rank for itself.
//! **No rank passes epoch *k* of a group before every rank of the group has entered epoch *k*.** That holds whatever times out,
//! however often it is tried again, and whatever other groups the same ranks use meanwhile, overlapping or not.
//!
//! A barrier that timed out, or that the device cut short, stays *entered*: its arrival may have been told, others may have passed
//! because of it, and nobody can take that back without the agreement of all. So the next call for the same group goes on with
//! the **same** epoch; it is never skipped, and nothing is poisoned. What a rank that timed out must do is one of:
//!
//! - call again for the same group. It passes as soon as all have entered that epoch (at once, where the others have passed it);
//! - use other groups meanwhile (the ranks that are left, say), and come back later or never. If never, the others time out at
//!   their next epoch of that group, not earlier and not wrongly.
//!
//! It must not count the call that timed out as passed: the next call is that barrier, not the one after it.
//!
//! # Why nobody is early
//!
//! A *notice* from rank *a* to rank *b* is one number in a cell that only *a* writes: the group and *a*'s epoch. A rank waits until
//! the notice is of its own epoch or a later one. What is needed below is in [`Cells`]: a cell holds what *a* wrote, and never an
//! older value after a newer one.
//!
//! 1. *A notice of epoch k or later says at least as much as one of epoch k.* A rank starts epoch *k + 1* only after it passed *k*;
//!    so whoever gives a notice of *k + 1* has done every step of *k*.
//! 2. *Going through again changes nothing.* A call that goes on starts its steps over: notices are given again with the same number
//!    (a cell that holds it keeps it), waits that were satisfied are satisfied still, by 1 and because cells never go back.
//! 3. *When the steps of epoch k are done, all have entered it.* Every notice of epoch *k* is given after its giver entered, and after
//!    the waits that stand before it.
//!    - Centralised: the leader waits for all, then tells all; the others wait for the leader.
//!    - Tree: a rank tells its parent after it heard its children, so that the root heard of all; a rank tells its children after
//!      it heard its parent, that is after the root heard of all.
//!    - Dissemination: before round *i* a rank knows of the 2^*i* ranks up to itself (in a ring), by induction: it then hears the rank
//!      that stands 2^*i* before it, which knew as many. After ⌈log2 n⌉ rounds these are all.
//! 4. *Groups do not meet.* Each group has a cell of its own towards each peer, named by the group's digest in the cell; a rank that
//!    waits looks for the digest of its own group and for nothing else.
//!
//! # Why nobody waits for ever
//!
//! A notice that was given and not lost arrives; one that was lost with its connection is given again ([`Barriers::told_to`] after a
//! reset, or the next call). A queue that is full is asked again until the deadline. So when all ranks of a group keep calling
//! and connections come back, all pass.
//!
//! # Why 16 bits of an epoch are enough
//!
//! When *b* is at epoch *k* (in it), the last notice of *a* is of *k − 1*, *k* or *k + 1*: *b* has passed *k − 1*, for which it waited
//! for *a*'s notice; and *a* has passed no epoch later than *k*, which *b* has entered last.

mod cells;
mod group;
mod machine;
mod run;
mod schedule;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use cells::{CELLS_MAX, CellLayout, Cells, Notice};
pub use group::GroupError;
pub use machine::{Action, Barriers, GroupId};
pub use run::BarrierError;
pub use schedule::{BarrierAlgorithm, Step};
