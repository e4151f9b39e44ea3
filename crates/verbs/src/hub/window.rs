//! Memory windows that a hub binds and closes, in the order of its other operations.

use super::{Hub, Member, Operation, Rejected};
use crate::error::Result;
use crate::memory::{ExposedRegion, MemoryWindow, RemoteAccess, RemoteRegion};
use crate::qp::Atomics;
use std::ops::Range;

impl<S: Atomics> Hub<S> {
    /// Binds a window of type 2 to a part of a region: what the peer of this queue pair names, once the operation has ended with success. The window must be closed: never
    /// bound, or closed or invalidated by an operation before. It comes back with its completion, as [`Held::Window`](super::Held::Window). Never blocks.
    ///
    /// What is sent after it on the same queue pair comes after it: a message may tell the peer the region at once.
    ///
    /// # Errors
    /// As for [`MemoryWindow::bind`]; [`Error::Invalid`](crate::Error::Invalid) for a window of type 1; as for [`post`](Self::post).
    #[doc(alias = "ibv_wr_bind_mw")]
    pub fn bind_window(
        &mut self,
        member: Member,
        window: &MemoryWindow,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
        tag: u64,
    ) -> Result<RemoteRegion> {
        let post = |binding| {
            self.post(member, Operation::bind_window(window, binding).tag(tag))
                .map_err(|Rejected { error, .. }| error)
        };
        window.bind_by(region, range, access, post).map(|(remote, ())| remote)
    }

    /// Closes a window of type 2: once the operation has ended, its last key opens nothing any more. It comes back as of [`bind_window`](Self::bind_window). Never blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a window of type 1; as for [`post`](Self::post).
    #[doc(alias = "ibv_wr_local_inv")]
    pub fn close_window(&mut self, member: Member, window: &MemoryWindow, tag: u64) -> Result<()> {
        let close = Operation::close_window(window)?;
        self.post(member, close.tag(tag)).map_err(|Rejected { error, .. }| error)
    }
}
