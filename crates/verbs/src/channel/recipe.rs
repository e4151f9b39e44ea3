//! What connections of channels are made by: one set of options for a channel, for channels to several peers, and for the ranks of a network.

use super::core::Core;
use super::work;
use crate::error::{Error, Result};
use crate::hub::{Payload, Tracker};
use crate::memory::RemoteAccess;
use crate::pd::ProtectionDomain;
use crate::qp::config::{AckTimeout, MinRnrTimer, Mtu, RetryCount, RnrRetry};
use crate::qp::{PreparedQueuePair, QueuePairBuilder, Rc};
use std::sync::Arc;
use std::time::Duration;

/// How long an operation is waited for unless it is said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a connection is made by, also a second time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) send_depth: u32,
    pub(crate) receive_depth: u32,
    pub(crate) inline_capacity: u32,
    pub(crate) remote_access: RemoteAccess,
    pub(crate) port: Option<u8>,
    pub(crate) gid_index: Option<u32>,
    pub(crate) pkey_index: u16,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) service_level: u8,
    pub(crate) traffic_class: u8,
    pub(crate) flow_label: u32,
    pub(crate) hop_limit: u8,
    pub(crate) ack_timeout: AckTimeout,
    pub(crate) retries: RetryCount,
    pub(crate) rnr_retries: RnrRetry,
    pub(crate) min_rnr_timer: MinRnrTimer,
    pub(crate) initiator_depth: u8,
    pub(crate) responder_resources: u8,
    pub(crate) deadline: Option<Duration>,
    pub(crate) parked_bytes_max: usize,
}

/// Setters of all options, for a builder that keeps a [`Recipe`] in the field that is named.
macro_rules! connection_options {
    ($($recipe:ident).+) => {
        $crate::channel::connection_options! { @each ($($recipe).+)
            /// Sends, writes, reads and atomics that can be out at once, with each peer; 64 by default.
            send_depth: u32;
            /// Receives that can be out at once, with each peer; 64 by default.
            receive_depth: u32;
            /// Bytes that an inline operation can carry; 0 by default. The device may give more.
            inline_capacity: u32;
            /// What peers may do with memory that was exposed in this domain; nothing by default. Barriers of a network write to memory of
            /// their own, whatever is said here.
            remote_access: $crate::memory::RemoteAccess;
            /// The port; one that is up by default.
            port: u8 = Some;
            /// The place of our GID in the port's table; a routed one by default.
            gid_index: u32 = Some;
            /// Place of the partition key in the port's table; 0 by default.
            pkey_index: u16;
            /// The largest packet; what both ports carry by default.
            mtu: $crate::qp::config::Mtu = Some;
            /// Service level, up to 15; 0 by default.
            service_level: u8;
            /// Traffic class (DSCP and ECN bits over RoCE v2); 0 by default.
            traffic_class: u8;
            /// Flow label, up to `0xfffff`; 0 by default.
            flow_label: u32;
            /// Routers on the way, at most; 64 by default.
            hop_limit: u8;
            /// How long the device waits for an acknowledgement; 67 ms by default.
            ack_timeout: $crate::qp::config::AckTimeout;
            /// How often the device sends again; 6 times by default.
            retries: $crate::qp::config::RetryCount;
            /// How often the device tries again while the peer has no receive; for ever by default, as operations have deadlines.
            rnr_retries: $crate::qp::config::RnrRetry;
            /// What the peer's device is asked to wait that found no receive here; 0.64 ms by default.
            min_rnr_timer: $crate::qp::config::MinRnrTimer;
            /// Reads and atomics under way at once, with each peer; 16 by default, at most what the peer answers and the device can.
            initiator_depth: u8;
            /// Reads and atomics of a peer that are answered at once; 16 by default, at most what the device can.
            responder_resources: u8;
            /// How long an operation is waited for; 30 s by default. `None` waits for ever.
            deadline: Option<std::time::Duration>;
            /// Bytes of owned memory that may be parked, because nobody waits for their operations any more; 64 MiB by default. Beyond, nothing
            /// more is submitted until the device is done with some.
            parked_bytes_max: usize;
        }
    };
    (@each $recipe:tt $($(#[$doc:meta])* $name:ident: $type:ty $(= $wrap:path)?;)*) => {
        $($crate::channel::connection_options! { @one $recipe $(#[$doc])* $name: $type $(= $wrap)? })*
    };
    (@one ($($recipe:ident).+) $(#[$doc:meta])* $name:ident: $type:ty $(= $wrap:path)?) => {
        $(#[$doc])*
        #[must_use]
        pub const fn $name(mut self, $name: $type) -> Self {
            self.$($recipe).+.$name = $($wrap)? ($name);
            self
        }
    };
}
pub(crate) use connection_options;

impl Recipe {
    pub(crate) const DEFAULT: Self = Self {
        send_depth: 64,
        receive_depth: 64,
        inline_capacity: 0,
        remote_access: RemoteAccess::empty(),
        port: None,
        gid_index: None,
        pkey_index: 0,
        mtu: None,
        service_level: 0,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        ack_timeout: AckTimeout::DEFAULT,
        retries: RetryCount::DEFAULT,
        rnr_retries: RnrRetry::Unlimited,
        min_rnr_timer: MinRnrTimer::DEFAULT,
        initiator_depth: 16,
        responder_resources: 16,
        deadline: Some(DEADLINE),
        parked_bytes_max: 64 << 20,
    };

    /// A queue pair by it, for a tracker.
    pub(crate) fn make<P: Payload>(
        &self,
        pd: &ProtectionDomain,
        tracker: &Tracker<Rc, P>,
    ) -> Result<PreparedQueuePair<Rc>> {
        let mut builder: QueuePairBuilder<'_, Rc> = tracker
            .queue_pair(pd)
            .send_depth(self.send_depth)
            .receive_depth(self.receive_depth)
            .send_elements(work::ELEMENTS_MAX as u32)
            .receive_elements(work::ELEMENTS_MAX as u32)
            .inline_capacity(self.inline_capacity)
            .remote_access(self.remote_access)
            .pkey_index(self.pkey_index)
            .service_level(self.service_level)?
            .traffic_class(self.traffic_class)
            .flow_label(self.flow_label)?
            .hop_limit(self.hop_limit)
            .ack_timeout(self.ack_timeout)
            .retries(self.retries)
            .rnr_retries(self.rnr_retries)
            .min_rnr_timer(self.min_rnr_timer)
            .initiator_depth(self.initiator_depth)
            .responder_resources(self.responder_resources);
        if let Some(port) = self.port {
            builder = builder.port(port);
        }
        if let Some(index) = self.gid_index {
            builder = builder.gid_index(index);
        }
        if let Some(mtu) = self.mtu {
            builder = builder.mtu(mtu);
        }
        builder.build()
    }

    /// Queue pairs for so many peers, but for one perhaps, with what they share.
    pub(crate) fn build(&self, pd: &ProtectionDomain, peers: u32, without: Option<u32>) -> Result<Arc<Core>> {
        let each = self.send_depth.saturating_add(self.receive_depth);
        let entries = each.checked_mul(peers).filter(|entries| *entries > 0).ok_or_else(|| {
            let cause = format!("{each} requests for each of {peers} peers");
            Error::invalid("channel", cause, "take depths and a number of peers of at least 1")
        })?;
        let events = pd.context().completion_channel()?;
        let mut tracker = Tracker::new(pd.context(), entries, Some((&events, 0)))?;
        let mut members = Vec::new();
        for peer in 0..peers {
            members.push(if without == Some(peer) {
                None
            } else {
                let prepared = self.make(pd, &tracker)?;
                Some(tracker.add(prepared)?)
            });
        }
        Ok(Arc::new(Core::new(pd, events, tracker, members, entries as usize, self.parked_bytes_max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Gid;
    use crate::qp::Endpoint;
    use crate::qp::state::AttributeMask;
    use crate::{Channel, Library, MultiChannel};
    use sinew_verbs_fake::{Control, DeviceOptions, FakeDevice, Options, PortOptions};

    /// Every option with a value that is not the default.
    macro_rules! with_all_options {
        ($builder:expr) => {
            $builder
                .send_depth(3)
                .receive_depth(5)
                .inline_capacity(32)
                .remote_access(RemoteAccess::READ | RemoteAccess::WRITE)
                .port(2)
                .gid_index(2)
                .pkey_index(1)
                .mtu(Mtu::B512)
                .service_level(4)
                .traffic_class(99)
                .flow_label(0xabcde)
                .hop_limit(7)
                .ack_timeout(AckTimeout::from_code(9).unwrap())
                .retries(RetryCount::new(3).unwrap())
                .rnr_retries(RnrRetry::limited(2).unwrap())
                .min_rnr_timer(MinRnrTimer::from_code(5).unwrap())
                .initiator_depth(6)
                .responder_resources(4)
                .deadline(None)
                .parked_bytes_max(4096)
        };
    }

    /// A domain of a device with two ports, each with several addresses and partitions.
    fn domain() -> (ProtectionDomain, Control) {
        let port = PortOptions { pkeys: vec![0xffff, 0x8001], ..PortOptions::roce([10, 0, 0, 1]) };
        let device = DeviceOptions { ports: vec![port.clone(), port], ..DeviceOptions::roce(0) };
        let (library, control) = FakeDevice::new(Options { devices: vec![device], ..Options::default() });
        let context = Library::with(library).devices().unwrap().get(0).unwrap().open().unwrap();
        (context.protection_domain().unwrap(), control)
    }

    /// Connects a peer's queue pair to one that answers more than it is asked for, and compares what the device was told with the options.
    fn check(core: &Core, recipe: &Recipe, peer: u32) {
        let endpoint = core.endpoint(peer).unwrap();
        assert_eq!((endpoint.mtu, endpoint.responder_resources), (Mtu::B512, 4));
        core.connect(peer, &Endpoint { mtu: Mtu::B4096, responder_resources: 16, ..endpoint }).unwrap();
        let (depths, told) =
            core.queue_pair(peer, |qp| (qp.depths(), qp.query(AttributeMask::QUERY).unwrap()));
        assert_eq!((depths.send, depths.receive), (3, 5));
        assert!(depths.inline >= 32, "{depths:?}");
        assert_eq!(told.access().unwrap(), RemoteAccess::READ | RemoteAccess::WRITE);
        assert_eq!((told.port(), told.pkey_index(), told.mtu()), (Some(2), Some(1), Some(Mtu::B512)));
        let path = told.path().unwrap();
        let route = path.route.unwrap();
        assert_eq!((path.port, path.service_level), (2, 4));
        assert_eq!(
            (route.gid_index, route.traffic_class, route.flow_label, route.hop_limit),
            (2, 99, 0xabcde, 7)
        );
        assert_eq!(route.gid, Gid::from_bytes(endpoint.gid.unwrap().bytes()));
        assert_eq!(told.ack_timeout().unwrap().code(), 9);
        assert_eq!((told.retries().unwrap().get(), told.rnr_retries().unwrap().code()), (3, 2));
        assert_eq!(told.min_rnr_timer().unwrap().code(), 5);
        assert_eq!((told.initiator_depth(), told.responder_resources()), (Some(6), Some(4)));
        assert_eq!((recipe.deadline, recipe.parked_bytes_max), (None, 4096));
    }

    #[test]
    fn channels_to_one_and_to_several_have_all_options_and_the_device_is_told() {
        let (pd, _control) = domain();
        let builder = with_all_options!(Channel::builder(&pd));
        check(&builder.recipe.build(&pd, 1, None).unwrap(), &builder.recipe, 0);
        let builder = with_all_options!(MultiChannel::builder(&pd, 2));
        check(&builder.recipe.build(&pd, 2, None).unwrap(), &builder.recipe, 1);
    }

    #[cfg(feature = "network")]
    #[test]
    fn ranks_of_a_network_have_all_options_and_the_device_is_told() {
        let (pd, _control) = domain();
        let recipe = *with_all_options!(crate::network::Node::builder(&pd, 0, 2)).recipe();
        check(&recipe.build(&pd, 2, Some(0)).unwrap(), &recipe, 1);
    }

    #[test]
    fn what_an_address_cannot_say_is_refused_when_a_channel_is_made() {
        let (pd, _control) = domain();
        for builder in [Channel::builder(&pd).service_level(16), Channel::builder(&pd).flow_label(1 << 20)] {
            let error = builder.build().unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    }
}
