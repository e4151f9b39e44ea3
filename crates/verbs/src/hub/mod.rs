//! A completion queue, the queue pairs that report to it, and the memory of each request that is out.

mod ring;
