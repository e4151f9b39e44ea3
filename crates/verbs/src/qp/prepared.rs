//! From INIT to the working state: a queue pair's way to its peer.

use super::attributes::{Attributes, Path, Route};
use super::builder::Options;
use super::config::PacketSequenceNumber;
use super::endpoint::Endpoint;
use super::pair::{QueuePair, Stepped};
use super::post::PostError;
use super::request::ReceiveRequest;
use super::service::{Connected, Datagram, RawPacket, Service};
use super::state::{ServiceType, State};
use crate::device::{Choice, LinkLayer};
use crate::error::{Error, Result};
use std::fmt;

/// A queue pair that can receive requests, but is not connected. What it tells the peer is its [`endpoint`](Self::endpoint). Dropped, it ends
/// as a [`QueuePair`].
pub struct PreparedQueuePair<S: Service> {
    pub(super) qp: QueuePair<S>,
    pub(super) plan: Plan,
}

/// What a queue pair needs to know for its way up, each time.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) options: Options,
    pub(super) choice: Choice,
    /// Number of its first packet; drawn anew each time that it comes to INIT.
    pub(super) psn: PacketSequenceNumber,
    /// The peer that it is ready to receive from, while it cannot send to it yet.
    pub(super) ready_for: Option<Endpoint>,
}

impl Plan {
    /// From RESET to INIT.
    pub(crate) fn init(&mut self, qp: &impl Stepped) -> Result<()> {
        self.psn = self.options.psn.unwrap_or_else(PacketSequenceNumber::random);
        self.ready_for = None;
        let raw = Attributes::new().set_state(State::INIT).set_port(self.choice.port);
        let attributes = raw.set_pkey_index(self.options.pkey_index);
        qp.change(&match qp.service_type() {
            ServiceType::RAW_PACKET => raw,
            ServiceType::UD | ServiceType::DRIVER => attributes.set_qkey(self.options.qkey),
            _ => attributes.set_access(self.options.access),
        })
    }

    /// What the other side needs to know.
    pub(crate) fn endpoint(&self, qp: &impl Stepped) -> Result<Endpoint> {
        let port = qp.context().port(self.choice.port)?;
        Ok(Endpoint {
            qp_num: qp.number(),
            lid: port.lid(),
            gid: self.choice.entry.as_ref().map(|entry| entry.gid),
            psn: self.psn,
            mtu: self.options.mtu.unwrap_or(port.mtu_active()).min(port.mtu_active()),
            responder_resources: self.responder_resources(qp)?,
        })
    }

    fn responder_resources(&self, qp: &impl Stepped) -> Result<u8> {
        let most = qp.context().attributes()?.responder_resources_max();
        Ok(self.options.responder_resources.min(u8::try_from(most).unwrap_or(u8::MAX)))
    }

    /// From INIT to RTR and RTS, towards a peer; from RTR, where a call before came as far as that. What only receives stays in RTR.
    pub(crate) fn connect(&mut self, qp: &impl Stepped, peer: &Endpoint) -> Result<()> {
        let context = qp.context();
        let port = context.port(self.choice.port)?;
        let options = &self.options;
        let path = Path {
            port: self.choice.port,
            lid: peer.lid,
            route: self.route(peer, port.link_layer())?,
            service_level: options.service_level,
            path_bits: 0,
        };
        let mtu = options.mtu.unwrap_or(port.mtu_active()).min(port.mtu_active()).min(peer.mtu);
        let mut ready = Attributes::new()
            .set_state(State::RTR)
            .set_path(path)
            .set_mtu(mtu)
            .set_peer_qp_num(peer.qp_num)
            .set_receive_psn(peer.psn);
        let mut sending = Attributes::new().set_state(State::RTS).set_send_psn(self.psn);
        let service = qp.service_type();
        if service == ServiceType::RC || service == ServiceType::XRC_RECV {
            ready = ready
                .set_responder_resources(self.responder_resources(qp)?)
                .set_min_rnr_timer(options.min_rnr_timer);
        }
        if service == ServiceType::RC || service == ServiceType::XRC_SEND {
            let most = u8::try_from(context.attributes()?.initiator_depth_max()).unwrap_or(u8::MAX);
            let depth = options.initiator_depth.min(peer.responder_resources).min(most);
            sending = sending
                .set_ack_timeout(options.ack_timeout)
                .set_retries(options.retries)
                .set_rnr_retries(options.rnr_retries)
                .set_initiator_depth(depth);
        }
        if self.ready_for != Some(*peer) {
            qp.change(&ready)?;
            self.ready_for = Some(*peer);
        }
        if service != ServiceType::XRC_RECV {
            qp.change(&sending)?;
        }
        self.ready_for = None;
        Ok(())
    }

    fn route(&self, peer: &Endpoint, layer: LinkLayer) -> Result<Option<Route>> {
        let (own, gid) = match (&self.choice.entry, peer.gid) {
            (Some(own), Some(gid)) => (own, gid),
            (None, Some(gid)) => {
                let port = self.choice.port;
                return Err(Error::Peer { cause: format!("it has GID {gid}, but our port {port} has none") });
            }
            (_, None) if layer == LinkLayer::ETHERNET => {
                return Err(Error::Peer {
                    cause: "it has no GID, and our port is an Ethernet port, which needs one".to_owned(),
                });
            }
            (_, None) => return Ok(None),
        };
        let gid_index = u8::try_from(own.index).map_err(|_| {
            let cause = format!("{} does not fit the 8 bits of an address", own.index);
            Error::invalid("GID index", cause, "take one up to 255")
        })?;
        Ok(Some(Route {
            gid,
            gid_index,
            hop_limit: self.options.hop_limit,
            traffic_class: self.options.traffic_class,
            flow_label: self.options.flow_label,
        }))
    }

    /// From INIT to RTR and RTS, towards anybody.
    pub(crate) fn activate(&self, qp: &impl Stepped) -> Result<()> {
        qp.change(&Attributes::new().set_state(State::RTR))?;
        let sending = Attributes::new().set_state(State::RTS);
        qp.change(&match qp.service_type() {
            ServiceType::RAW_PACKET => sending,
            _ => sending.set_send_psn(self.psn),
        })
    }

    /// From any state to INIT again: nothing is out any more, nothing of the connection before is taken for the next one's.
    pub(crate) fn reset(&mut self, qp: &impl Stepped) -> Result<()> {
        qp.change(&Attributes::new().set_state(State::RESET))?;
        self.init(qp)
    }
}

impl<S: Service> PreparedQueuePair<S> {
    /// Which port and GID it uses, and why.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.plan.choice
    }

    /// What the other side needs to know.
    ///
    /// # Errors
    /// [`Error::Call`] when the port cannot be asked.
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.plan.endpoint(&self.qp)
    }

    /// Posts receives before the peer can send.
    ///
    /// # Errors
    /// As for [`QueuePair::post_receives`].
    ///
    /// # Safety
    /// As for [`QueuePair::post_receives`].
    #[expect(unsafe_code, reason = "passes the caller's promise on")]
    pub unsafe fn post_receives(
        &mut self,
        requests: &mut [ReceiveRequest<'_>],
    ) -> std::result::Result<(), PostError> {
        // SAFETY: by the caller's promise.
        unsafe { self.qp.post_receives(requests) }
    }

    /// The queue pair in INIT, to be brought up by hand.
    #[must_use]
    pub fn into_queue_pair(self) -> QueuePair<S> {
        self.qp
    }

    /// To INIT again by RESET, with a new packet number: receives that were posted are gone without a completion.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses.
    pub fn reset(&mut self) -> Result<()> {
        self.plan.reset(&self.qp)
    }

    pub(crate) fn into_parts(self) -> (QueuePair<S>, Plan) {
        (self.qp, self.plan)
    }
}

impl<S: Connected> PreparedQueuePair<S> {
    /// Connects to the peer whose endpoint this is: to RTR, then to RTS. The peer connects to ours at its own time: what is sent before
    /// it did is sent again until the acknowledgement timeout and the retries are used up.
    ///
    /// # Errors
    /// Itself with [`Error::Peer`] when the endpoint cannot be connected to (it has no GID where ours needs one, or the other way
    /// round), and [`Error::Transition`] when the device refuses, with the route's hint where the peer's GID cannot be reached.
    /// A second attempt goes on where the first one failed; [`reset`](Self::reset) makes one with another endpoint possible where that is refused.
    #[expect(clippy::result_large_err, reason = "it gives the queue pair back")]
    pub fn connect(mut self, peer: &Endpoint) -> std::result::Result<QueuePair<S>, (Self, Error)> {
        match self.plan.connect(&self.qp, peer) {
            Ok(()) => Ok(self.qp),
            Err(error) => Err((self, error)),
        }
    }
}

impl<S: Datagram> PreparedQueuePair<S> {
    /// Brings it up: it can send to and receive from anybody who names its queue key.
    ///
    /// # Errors
    /// Itself with [`Error::Transition`] when the device refuses.
    #[expect(clippy::result_large_err, reason = "it gives the queue pair back")]
    pub fn activate(self) -> std::result::Result<QueuePair<S>, (Self, Error)> {
        match self.plan.activate(&self.qp) {
            Ok(()) => Ok(self.qp),
            Err(error) => Err((self, error)),
        }
    }
}

impl PreparedQueuePair<RawPacket> {
    /// Brings it up: it sends frames as they are, and receives those that a rule steers to it ([`QueuePair::steer`]).
    ///
    /// # Errors
    /// Itself with [`Error::Transition`] when the device refuses.
    #[expect(clippy::result_large_err, reason = "it gives the queue pair back")]
    pub fn activate(self) -> std::result::Result<QueuePair<RawPacket>, (Self, Error)> {
        match self.plan.activate(&self.qp) {
            Ok(()) => Ok(self.qp),
            Err(error) => Err((self, error)),
        }
    }
}

impl<S: Service> fmt::Debug for PreparedQueuePair<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared{:?}", self.qp)
    }
}
