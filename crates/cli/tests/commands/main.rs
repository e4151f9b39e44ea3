//! The command as people and scripts use it: the built binary, its output, its exit codes, its errors.

mod basics;
mod info;
mod perf;
mod tool;
mod transfer;
