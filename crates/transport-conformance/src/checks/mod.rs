//! The promises, one function each. Each takes a maker of fixtures and panics when the promise is broken.

pub mod borrowed;
pub mod endings;
pub mod faults;
pub mod frames;
pub mod leaks;
pub mod links;
pub mod memory;
pub mod placing;
pub mod sleeping;
