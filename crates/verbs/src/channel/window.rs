//! Memory windows that a connection's peer may use, bound and closed by calls that wait.

use super::asynchronous::Submitted;
use super::core::Core;
use super::{Channel, Operation};
use crate::error::Result;
use crate::hub::Rejected;
use crate::memory::{ExposedRegion, MemoryWindow, RemoteAccess, RemoteRegion};
use crate::multi_channel::MultiChannel;
use crate::qp::Rc;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

impl Channel {
    /// Binds a window of type 2 to a part of a region, and waits until it is bound: the peer of this channel may use what is returned, until the window is closed
    /// ([`close_window`](Self::close_window), or by the peer with `send_with_invalidate`) or dropped. It must be closed before: never bound, or closed since.
    ///
    /// # Errors
    /// As for [`MemoryWindow::bind`]; [`Error::Invalid`](crate::Error::Invalid) for a window of type 1; as for [`submit`](Self::submit); `Error::TimedOut`; `Error::Work`.
    #[doc(alias = "ibv_wr_bind_mw")]
    pub fn bind_window(
        &mut self,
        window: &MemoryWindow,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<RemoteRegion> {
        self.core.progress()?;
        let post = |binding| start(&self.core, 0, Operation::bind_window(window, binding));
        let (remote, bound) = window.bind_by(region, range, access, post)?;
        end(bound, self.recipe.deadline).map(|()| remote)
    }

    /// Closes a window of type 2, and waits until its last key opens nothing any more.
    ///
    /// # Errors
    /// As for [`bind_window`](Self::bind_window).
    #[doc(alias = "ibv_wr_local_inv")]
    pub fn close_window(&mut self, window: &MemoryWindow) -> Result<()> {
        self.core.progress()?;
        end(start(&self.core, 0, Operation::close_window(window)?)?, self.recipe.deadline)
    }
}

impl MultiChannel {
    /// Binds a window of type 2 for one peer; see [`Channel::bind_window`].
    ///
    /// # Errors
    /// As there; [`Error::Invalid`](crate::Error::Invalid) for a peer that there is not.
    pub fn bind_window(
        &mut self,
        peer: u32,
        window: &MemoryWindow,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<RemoteRegion> {
        self.core().progress()?;
        let post = |binding| start(self.core(), peer, Operation::bind_window(window, binding));
        let (remote, bound) = window.bind_by(region, range, access, post)?;
        end(bound, self.deadline()).map(|()| remote)
    }

    /// Closes a window that was bound for this peer; see [`Channel::close_window`].
    ///
    /// # Errors
    /// As there.
    pub fn close_window(&mut self, peer: u32, window: &MemoryWindow) -> Result<()> {
        self.core().progress()?;
        end(start(self.core(), peer, Operation::close_window(window)?)?, self.deadline())
    }
}

/// Wakers do not run in here: the window is locked while it is bound, and they may ask it.
fn start(core: &Arc<Core>, peer: u32, operation: Operation<Rc>) -> Result<Submitted> {
    Submitted::send_now(core, peer, operation).map_err(|Rejected { error, .. }| error)
}

fn end(submitted: Submitted, deadline: Option<Duration>) -> Result<()> {
    match submitted.wait(deadline.unwrap_or(Duration::MAX)) {
        Ok(finished) => finished.result.map(drop),
        // What is still out keeps the window.
        Err((_, error)) => Err(error),
    }
}
