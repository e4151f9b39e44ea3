//! What a port says of itself.

use super::port::{LinkLayer, PhysicalState, PortState, Speed, Width};
use crate::qp::config::Mtu;
use sinew_verbs_sys as sys;
use std::fmt;

/// What a port says of itself.
#[derive(Clone, Copy)]
#[doc(alias = "ibv_port_attr")]
pub struct PortAttributes {
    number: u8,
    raw: sys::ibv_port_attr,
}

impl PortAttributes {
    pub(crate) const fn new(number: u8, raw: sys::ibv_port_attr) -> Self {
        Self { number, raw }
    }

    /// Its number, from 1.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Whether it carries traffic.
    #[must_use]
    pub const fn state(&self) -> PortState {
        PortState::from_raw(self.raw.state.0)
    }

    /// The largest packet that it could carry.
    #[must_use]
    pub const fn mtu_max(&self) -> Mtu {
        Mtu::from_raw(self.raw.max_mtu.0)
    }

    /// The largest packet that it carries now.
    #[must_use]
    pub const fn mtu_active(&self) -> Mtu {
        Mtu::from_raw(self.raw.active_mtu.0)
    }

    /// Ethernet or InfiniBand.
    #[must_use]
    pub const fn link_layer(&self) -> LinkLayer {
        LinkLayer::from_raw(self.raw.link_layer)
    }

    /// The physical link.
    #[must_use]
    pub const fn physical_state(&self) -> PhysicalState {
        PhysicalState::from_raw(self.raw.phys_state)
    }

    /// Lanes in use.
    #[must_use]
    pub const fn width(&self) -> Width {
        Width::from_raw(self.raw.active_width)
    }

    /// Speed of a lane; XDR and faster come by a field of their own where library and driver have it.
    #[must_use]
    pub const fn speed(&self) -> Speed {
        match self.raw.active_speed_ex {
            0 => Speed::from_raw(self.raw.active_speed as u32),
            extended => Speed::from_raw(extended),
        }
    }

    /// Data rate in Gbit/s, where width and speed are known.
    #[must_use]
    pub fn gbps(&self) -> Option<f64> {
        Some(self.speed().lane_gbps()? * f64::from(self.width().lanes()?))
    }

    /// Entries of its GID table, empty ones too.
    #[must_use]
    pub const fn gid_table_len(&self) -> u32 {
        self.raw.gid_tbl_len as u32
    }

    /// Entries of its partition-key table.
    #[must_use]
    pub const fn pkey_table_len(&self) -> u16 {
        self.raw.pkey_tbl_len
    }

    /// Local identifier that the subnet manager gave it; 0 over Ethernet.
    #[must_use]
    pub const fn lid(&self) -> u16 {
        self.raw.lid
    }

    /// How many low bits of the identifier name paths.
    #[must_use]
    pub const fn lid_mask_bits(&self) -> u8 {
        self.raw.lmc
    }

    /// Identifier of the subnet manager.
    #[must_use]
    pub const fn subnet_manager_lid(&self) -> u16 {
        self.raw.sm_lid
    }

    /// Service level of the subnet manager.
    #[must_use]
    pub const fn subnet_manager_service_level(&self) -> u8 {
        self.raw.sm_sl
    }

    /// Longest message in bytes.
    #[must_use]
    pub const fn message_len_max(&self) -> u32 {
        self.raw.max_msg_sz
    }

    /// Capability bits (`enum ibv_port_cap_flags`).
    #[must_use]
    pub const fn capabilities(&self) -> u32 {
        self.raw.port_cap_flags
    }

    /// Further capability bits; 0 where library or driver do not have them.
    #[must_use]
    pub const fn capabilities_2(&self) -> u16 {
        self.raw.port_cap_flags2
    }

    /// Flags (`IBV_QPF_GRH_REQUIRED` is bit 0).
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.raw.flags
    }

    /// Packets of another partition that were refused, since the last reset.
    #[must_use]
    pub const fn bad_pkey_count(&self) -> u32 {
        self.raw.bad_pkey_cntr
    }

    /// Packets with another queue key that were refused, since the last reset.
    #[must_use]
    pub const fn qkey_violation_count(&self) -> u32 {
        self.raw.qkey_viol_cntr
    }

    /// The raw attributes.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_port_attr {
        &self.raw
    }
}

impl fmt::Debug for PortAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("number", &self.number())
            .field("state", &self.state())
            .field("link_layer", &self.link_layer())
            .field("physical_state", &self.physical_state())
            .field("mtu_active", &self.mtu_active())
            .field("mtu_max", &self.mtu_max())
            .field("width", &self.width())
            .field("speed", &self.speed())
            .field("lid", &self.lid())
            .field("lid_mask_bits", &self.lid_mask_bits())
            .field("subnet_manager_lid", &self.subnet_manager_lid())
            .field("subnet_manager_service_level", &self.subnet_manager_service_level())
            .field("gid_table_len", &self.gid_table_len())
            .field("pkey_table_len", &self.pkey_table_len())
            .field("message_len_max", &self.message_len_max())
            .field("capabilities", &format_args!("{:#x}", self.capabilities()))
            .field("capabilities_2", &format_args!("{:#x}", self.capabilities_2()))
            .field("flags", &format_args!("{:#x}", self.flags()))
            .field("bad_pkey_count", &self.bad_pkey_count())
            .field("qkey_violation_count", &self.qkey_violation_count())
            .finish_non_exhaustive()
    }
}
