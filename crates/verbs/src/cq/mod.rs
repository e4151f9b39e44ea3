//! Completion queues: where the end of each request is read, and how to sleep until there is one.

mod channel;
mod completion;
mod poller;
mod queue;

pub use channel::{CompletionChannel, CompletionEvent};
pub use completion::{Fields, WorkCompletion};
pub use poller::{Completion, Completions, Poller};
pub(crate) use queue::Reservation;
pub use queue::{CompletionQueue, CompletionQueueBuilder};
