//! What a hub's completion says besides, and the way back to who sent a datagram.

use super::operation::Kept;
use super::{Ended, Held};
use crate::ah::{AddressHandle, GLOBAL_ROUTE_LEN};
use crate::cq::WorkCompletion;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::{Datagram, Service};

impl<S: Service> Ended<'_, S> {
    /// What the device says of it; nothing for an unsignaled operation, which a later one shows to have succeeded.
    #[must_use]
    pub fn completion(&self) -> Option<&WorkCompletion> {
        self.ended.completion()
    }
}

impl<S: Datagram> Ended<'_, S> {
    /// The way to who sent this datagram, which came in at that port of ours; its queue pair is [`Success::source`](super::Success), the queue key is
    /// agreed upon otherwise. May ask the network, and so take some milliseconds; one handle serves all answers to a sender.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no received datagram, or one whose first 40 bytes, the route, are not in one buffer; as for
    /// [`ProtectionDomain::address_handle_to_sender`].
    pub fn address_handle_to_sender(&self, pd: &ProtectionDomain, port: u8) -> Result<AddressHandle> {
        let completion =
            self.completion().filter(|completion| completion.opcode().is_some_and(|code| code.is_receive()));
        let completion = completion.ok_or_else(|| {
            Error::invalid(
                "way to a sender",
                "this is no received datagram",
                "ask the completion of a receive",
            )
        })?;
        let memory = self.ended.payload().map(Kept::held);
        let first = match memory {
            Some(Held::Buffer(buffer)) => Some(&buffer[..]),
            Some(Held::Buffers(buffers)) => buffers.first().map(|buffer| &buffer[..]),
            _ => None,
        };
        let route = first.and_then(|bytes| bytes.first_chunk::<GLOBAL_ROUTE_LEN>());
        pd.address_handle_to_sender(port, completion, route)
    }
}
