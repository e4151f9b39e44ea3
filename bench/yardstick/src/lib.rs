//! What Sinew is measured against: the raw programs, the peers, and the page that shows all figures side by side.
//! `sinew-bench` and `sinew perf` call it. It must not use Sinew, and it judges nothing.
#![deny(unsafe_code)]

pub mod against;
pub mod machine;
pub mod page;
pub mod peers;
pub mod program;
pub mod raw;
pub mod sample;
