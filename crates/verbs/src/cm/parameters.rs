//! What a connection is asked for: checked numbers, defaults that work, and how much two ends can tell each other.

use super::event::ConnectionAttributes;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::memory::RemoteAccess;
use crate::qp::Attributes;
use crate::qp::config::{AckTimeout, MinRnrTimer, RetryCount, RnrRetry};
use crate::qp::state::{AttributeMask, State};

#[doc(inline)]
pub use sinew_verbs_sys::RdmaPortSpace as PortSpace;

/// How to connect or accept. Every option has a default that works.
#[derive(Clone, Debug)]
#[doc(alias = "rdma_conn_param")]
pub struct ConnectionParameters {
    responder_resources: u8,
    initiator_depth: u8,
    retries: RetryCount,
    rnr_retries: RnrRetry,
    ack_timeout: AckTimeout,
    min_rnr_timer: MinRnrTimer,
    access: RemoteAccess,
    private_data: Vec<u8>,
}

impl Default for ConnectionParameters {
    fn default() -> Self {
        Self {
            responder_resources: 16,
            initiator_depth: 16,
            retries: RetryCount::DEFAULT,
            rnr_retries: RnrRetry::Unlimited,
            ack_timeout: AckTimeout::DEFAULT,
            min_rnr_timer: MinRnrTimer::DEFAULT,
            access: RemoteAccess::empty(),
            private_data: Vec::new(),
        }
    }
}

/// Setters of plain options.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* #[must_use] pub const fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        })*
    };
}

impl ConnectionParameters {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    options! {
        /// Reads and atomics of the peer's that are answered at once; 16 by default, less where the device or the peer has less.
        responder_resources: u8;
        /// Reads and atomics under way from here; 16 by default, less where the device or the peer has less.
        initiator_depth: u8;
        /// How often is sent again; 6 times by default. Counts where the connection is asked for.
        retries: RetryCount;
        /// How often is tried again while the receiver has no receive; for ever by default.
        rnr_retries: RnrRetry;
        /// How long an acknowledgement is waited for; 67 ms by default. Not over iWARP.
        ack_timeout: AckTimeout;
        /// What senders are asked to wait that find no receive; 0.64 ms by default. Not over iWARP.
        min_rnr_timer: MinRnrTimer;
    }

    /// What the peer may do with memory that was exposed; nothing by default.
    #[must_use]
    pub const fn remote_access(mut self, access: RemoteAccess) -> Self {
        self.access = access;
        self
    }

    /// What the peer is told: 56 bytes when connecting ([`PrivateData::limit`]), 196 when accepting. Copied. Over InfiniBand and RoCE the
    /// peer sees it padded with zeros to that length.
    #[must_use]
    pub fn private_data(mut self, data: &[u8]) -> Self {
        self.private_data = data.to_vec();
        self
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.private_data
    }

    /// What the peer is told of a queue pair of this number, bounded by the device and, where one has asked, by the peer.
    pub(super) fn attributes(
        &self,
        context: &Context,
        asked: Option<&ConnectionAttributes>,
        qp_num: u32,
        shared_receive_queue: bool,
    ) -> Result<ConnectionAttributes> {
        let device = context.attributes()?;
        let byte = |most: u32| u8::try_from(most).unwrap_or(u8::MAX);
        let (answers, asks) =
            asked.map_or((u8::MAX, u8::MAX), |asked| (asked.responder_resources, asked.initiator_depth));
        Ok(ConnectionAttributes {
            responder_resources: self
                .responder_resources
                .min(byte(device.responder_resources_max()))
                .min(answers),
            initiator_depth: self.initiator_depth.min(byte(device.initiator_depth_max())).min(asks),
            flow_control: true,
            retries: self.retries.get(),
            rnr_retries: self.rnr_retries.code(),
            shared_receive_queue,
            qp_num,
        })
    }

    /// What the connection manager proposes for a step, with what was asked for here in its place.
    pub(super) fn apply(&self, proposed: &Attributes, accepted: Option<&ConnectionAttributes>) -> Attributes {
        let mut attributes = *proposed;
        let given = proposed.mask();
        if given.contains(AttributeMask::ACCESS_FLAGS) {
            attributes = attributes.set_access(self.access);
        }
        if given.contains(AttributeMask::TIMEOUT) {
            attributes = attributes.set_ack_timeout(self.ack_timeout);
        }
        if given.contains(AttributeMask::MIN_RNR_TIMER) {
            attributes = attributes.set_min_rnr_timer(self.min_rnr_timer);
        }
        // The kernel learns what is accepted only when it is accepted, which is after these steps.
        if let Some(accepted) = accepted {
            if given.contains(AttributeMask::MAX_DEST_RD_ATOMIC) {
                attributes = attributes.set_responder_resources(accepted.responder_resources);
            }
            if given.contains(AttributeMask::MAX_QP_RD_ATOMIC) {
                attributes = attributes.set_initiator_depth(accepted.initiator_depth);
            }
        }
        attributes
    }
}

/// Whether a proposal has a state to go to: over iWARP the last step is the driver's own.
pub(super) fn is_a_step(attributes: &Attributes, to: State) -> bool {
    attributes.state() == Some(to)
}

/// When the peer is told something: how much fits differs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PrivateData {
    /// With the wish to connect.
    Connect,
    /// With the answer that accepts.
    Accept,
    /// With the answer that rejects.
    Reject,
}

impl PrivateData {
    /// How many bytes fit, by port space (rdma_connect(3), rdma_accept(3), rdma_reject(3)).
    #[must_use]
    pub const fn limit(self, space: PortSpace) -> usize {
        match (self, space) {
            (Self::Connect, PortSpace::UDP | PortSpace::IPOIB) => 180,
            (_, PortSpace::UDP | PortSpace::IPOIB) => 136,
            (Self::Connect, _) => 56,
            (Self::Accept, _) => 196,
            (Self::Reject, _) => 148,
        }
    }

    /// Refuses what does not fit; its length as C has it.
    pub(super) fn check(self, space: PortSpace, data: &[u8]) -> Result<u8> {
        let limit = self.limit(space);
        match u8::try_from(data.len()) {
            Ok(len) if data.len() <= limit => Ok(len),
            _ => Err(Error::invalid(
                "private data",
                format!("{} bytes; {self:?} in the port space {space} carries {limit}", data.len()),
                "say less, and the rest in the first message",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_data_that_does_not_fit_is_refused_with_what_fits() {
        for (when, space, limit) in [
            (PrivateData::Connect, PortSpace::TCP, 56),
            (PrivateData::Accept, PortSpace::TCP, 196),
            (PrivateData::Reject, PortSpace::TCP, 148),
            (PrivateData::Connect, PortSpace::UDP, 180),
            (PrivateData::Accept, PortSpace::UDP, 136),
            (PrivateData::Reject, PortSpace::UDP, 136),
        ] {
            let data = vec![0; 1000];
            assert_eq!(usize::from(when.check(space, &data[..limit]).unwrap()), limit);
            let error = when.check(space, &data[..=limit]).unwrap_err().to_string();
            assert!(error.contains(&limit.to_string()), "{error}");
            assert!(when.check(space, &data).is_err());
        }
    }

    #[test]
    fn a_proposal_keeps_what_was_not_asked_for_and_takes_what_was() {
        let proposed = Attributes::new()
            .set_state(State::RTR)
            .set_access(RemoteAccess::all())
            .set_responder_resources(9)
            .set_peer_qp_num(7);
        let accepted = ConnectionAttributes { responder_resources: 3, ..Default::default() };
        let applied = ConnectionParameters::new().apply(&proposed, Some(&accepted));
        assert_eq!(applied.mask(), proposed.mask());
        assert_eq!(applied.peer_qp_num(), Some(7));
        assert_eq!(applied.access(), Some(RemoteAccess::empty()));
        assert_eq!(applied.responder_resources(), Some(3));
    }
}
