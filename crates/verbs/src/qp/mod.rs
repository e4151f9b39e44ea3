//! Queue pairs: their numbers, states and descriptions.

pub mod config;
pub mod endpoint;
pub mod state;
