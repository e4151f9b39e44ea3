//! Ranks of a job: who they are, how they tell each other what a connection needs, and how they wait for each other.
//!
//! Called by programs of several ranks, and by the node that binds queue pairs to it. Nothing here needs a device: [`config`] reads who
//! the ranks are, [`exchange`] carries small values between them over TCP before there is any queue pair, [`barrier`] says who tells whom.

pub mod barrier;
pub mod config;
pub mod exchange;
mod node;
mod operations;

pub use node::{Introduction, NetworkError, Node, NodeBuilder, NodeScope, PreparedNode};
