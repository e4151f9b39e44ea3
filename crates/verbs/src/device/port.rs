//! The words of ports: state, link, width and speed of a lane.
//!
//! Numbers come from the device: unknown ones are kept and shown.

use crate::number::named_number;

named_number! {
    /// Whether a port carries traffic (`enum ibv_port_state`).
    PortState: u32 {
        /// The device does not say.
        NOP = 0 => "unspecified",
        /// No link.
        DOWN = 1 => "down",
        /// A link, but no addresses yet: a subnet manager is awaited.
        INIT = 2 => "initializing",
        /// Configured, not enabled.
        ARMED = 3 => "armed",
        /// Carries traffic.
        ACTIVE = 4 => "active",
        /// Carries traffic, the link is being retrained.
        ACTIVE_DEFER = 5 => "active (deferred)",
    }
}

impl PortState {
    /// Whether a queue pair on it can send.
    #[must_use]
    pub fn is_usable(self) -> bool {
        self == Self::ACTIVE || self == Self::ACTIVE_DEFER
    }
}

named_number! {
    /// What the port is plugged into.
    LinkLayer: u8 {
        /// Not said: InfiniBand, of an old driver.
        UNSPECIFIED = 0 => "unspecified",
        /// InfiniBand.
        INFINIBAND = 1 => "InfiniBand",
        /// Ethernet: RoCE or iWARP.
        ETHERNET = 2 => "Ethernet",
    }
}

named_number! {
    /// State of the physical link.
    PhysicalState: u8 {
        /// Sleeping.
        SLEEP = 1 => "sleep",
        /// Looking for a partner.
        POLLING = 2 => "polling",
        /// Switched off.
        DISABLED = 3 => "disabled",
        /// Training.
        TRAINING = 4 => "training",
        /// Up.
        LINK_UP = 5 => "link up",
        /// Recovering from an error.
        RECOVERY = 6 => "error recovery",
        /// Under test.
        PHY_TEST = 7 => "test",
    }
}

named_number! {
    /// Lanes of a link, as its code.
    Width: u8 {
        /// 1 lane.
        X1 = 1 => "1x",
        /// 4 lanes.
        X4 = 2 => "4x",
        /// 8 lanes.
        X8 = 4 => "8x",
        /// 12 lanes.
        X12 = 8 => "12x",
        /// 2 lanes.
        X2 = 16 => "2x",
    }
}

impl Width {
    /// How many lanes, or nothing for a code that is not known.
    #[must_use]
    pub const fn lanes(self) -> Option<u32> {
        match self {
            Self::X1 => Some(1),
            Self::X2 => Some(2),
            Self::X4 => Some(4),
            Self::X8 => Some(8),
            Self::X12 => Some(12),
            _ => None,
        }
    }
}

named_number! {
    /// Speed of one lane, as its code.
    Speed: u32 {
        /// 2.5 Gbit/s.
        SDR = 1 => "SDR",
        /// 5 Gbit/s.
        DDR = 2 => "DDR",
        /// 10 Gbit/s.
        QDR = 4 => "QDR",
        /// 10.3 Gbit/s.
        FDR10 = 8 => "FDR10",
        /// 14 Gbit/s.
        FDR = 16 => "FDR",
        /// 25 Gbit/s.
        EDR = 32 => "EDR",
        /// 50 Gbit/s.
        HDR = 64 => "HDR",
        /// 100 Gbit/s.
        NDR = 128 => "NDR",
        /// 200 Gbit/s.
        XDR = 256 => "XDR",
    }
}

impl Speed {
    /// Data rate of one lane in Gbit/s as the field rounds it, or nothing for a code that is not known.
    #[must_use]
    pub const fn lane_gbps(self) -> Option<f64> {
        match self {
            Self::SDR => Some(2.5),
            Self::DDR => Some(5.0),
            Self::QDR => Some(10.0),
            Self::FDR10 => Some(10.3125),
            Self::FDR => Some(14.0625),
            Self::EDR => Some(25.0),
            Self::HDR => Some(50.0),
            Self::NDR => Some(100.0),
            Self::XDR => Some(200.0),
            _ => None,
        }
    }
}
