//! What a fake device is like: its ports, its limits, and what it lacks.
//!
//! Filled by tests, read when the device is made and when it is queried. Nothing here calls anything.

use sinew_verbs_sys as sys;

/// What the fake library holds. The default: one device with everything.
#[derive(Clone, Debug)]
pub struct Options {
    /// The devices, in the order in which they are listed.
    pub devices: Vec<DeviceOptions>,
    /// After so many polls of its completion queue a request whose peer does not answer, or has no receive, has used up its retries.
    /// 1,000 unless set; 0: never, only [`Control::time_passes`](crate::Control::time_passes) ends them.
    pub retry_polls: u32,
    /// The library is an old one: every optional function of its table is missing.
    pub old_library: bool,
}

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Name, at most 63 bytes.
    pub name: String,
    /// In the order of this machine.
    pub guid: u64,
    /// Its ports; the first is number 1.
    pub ports: Vec<PortOptions>,
    /// Has extended functions at all; otherwise `abi_compat` of its contexts is null.
    pub extended: bool,
    /// Has `create_cq_ex`.
    pub extended_cq: bool,
    /// Has `create_qp_ex` with `ibv_wr_*`.
    pub extended_qp: bool,
    /// Extended completion queues know when something completed.
    pub timestamps: bool,
    /// How far its atomic operations are atomic; `NONE`: it has none.
    pub atomics: sys::IbvAtomicCap,
    /// Has memory windows of both types.
    pub memory_windows: bool,
    /// Bytes of device memory; 0: none.
    pub device_memory: u64,
    /// Pages memory on demand.
    pub on_demand: bool,
    /// Is one of Amazon's EFA: datagrams only, reliable ones (SRD) by the functions of libefa. Its queue pairs of other types are refused.
    pub efa: Option<Efa>,
    /// Longest region.
    pub max_mr_size: u64,
    /// Most regions.
    pub max_mr: u32,
    /// Most queue pairs.
    pub max_qp: u32,
    /// Deepest queue of a queue pair.
    pub max_qp_wr: u32,
    /// Most pieces of a request.
    pub max_sge: u32,
    /// Longest inline data.
    pub max_inline: u32,
    /// Most completion queues.
    pub max_cq: u32,
    /// Longest completion queue.
    pub max_cqe: u32,
    /// Most shared receive queues.
    pub max_srq: u32,
    /// Deepest shared receive queue.
    pub max_srq_wr: u32,
    /// Most reads and atomics that a queue pair has under way, in each direction.
    pub max_rd_atomic: u8,
}

/// What SRD does on a device of EFA, besides sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Efa {
    /// Reads remote memory.
    pub reads: bool,
    /// Writes remote memory.
    pub writes: bool,
}

/// One port.
#[derive(Clone, Debug)]
pub struct PortOptions {
    /// Only an active port carries messages.
    pub state: sys::IbvPortState,
    /// `IBV_LINK_LAYER_*`. On Ethernet every address needs a GID.
    pub link_layer: u8,
    /// Local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Longest packet now.
    pub active_mtu: sys::IbvMtu,
    /// Longest packet at all.
    pub max_mtu: sys::IbvMtu,
    /// Longest message.
    pub max_msg_sz: u32,
    /// Table of GIDs; `None`: an empty row.
    pub gids: Vec<Option<Gid>>,
    /// Table of partition keys, in the order of this machine.
    pub pkeys: Vec<u16>,
}

/// A row of a table of GIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// In the order of the wire.
    pub raw: [u8; 16],
    /// What it stands for.
    pub kind: sys::IbvGidType,
    /// Index of its network interface; 0: none.
    pub ifindex: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { devices: vec![DeviceOptions::default()], retry_polls: 1000, old_library: false }
    }
}

impl Options {
    /// So many devices on one InfiniBand subnet, each with one port and everything: `fake0`, `fake1`, …
    #[must_use]
    pub fn devices(count: u8) -> Self {
        Self { devices: (0..count).map(DeviceOptions::numbered).collect(), ..Self::default() }
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self::numbered(0)
    }
}

impl DeviceOptions {
    /// The device `fake<number>` with one InfiniBand port, with addresses of its own.
    #[must_use]
    pub fn numbered(number: u8) -> Self {
        Self {
            name: format!("fake{number}"),
            guid: 0x5157_0000_0000_0000 + u64::from(number),
            ports: vec![PortOptions::infiniband(u16::from(number) + 1)],
            extended: true,
            extended_cq: true,
            extended_qp: true,
            timestamps: true,
            atomics: sys::IbvAtomicCap::HCA,
            memory_windows: true,
            device_memory: 1 << 16,
            on_demand: true,
            efa: None,
            max_mr_size: 1 << 40,
            max_mr: 1 << 16,
            max_qp: 1 << 16,
            max_qp_wr: 1 << 14,
            max_sge: 16,
            max_inline: 256,
            max_cq: 1 << 16,
            max_cqe: 1 << 20,
            max_srq: 1 << 10,
            max_srq_wr: 1 << 14,
            max_rd_atomic: 16,
        }
    }

    /// The same with one RoCE port instead.
    #[must_use]
    pub fn roce(number: u8) -> Self {
        Self { ports: vec![PortOptions::roce([10, 0, 0, number])], ..Self::numbered(number) }
    }

    /// A device as Amazon's EFA: datagrams, reliable ones too; no atomics, windows, memory or clock of its own.
    #[must_use]
    pub fn efa(number: u8) -> Self {
        Self {
            efa: Some(Efa { reads: true, writes: true }),
            timestamps: false,
            atomics: sys::IbvAtomicCap::NONE,
            memory_windows: false,
            device_memory: 0,
            on_demand: false,
            max_srq: 0,
            ..Self::numbered(number)
        }
    }

    /// A device as old drivers are: nothing extended, no `ibv_wr_*`.
    #[must_use]
    pub fn legacy(number: u8) -> Self {
        Self { extended: false, extended_cq: false, extended_qp: false, ..Self::numbered(number) }
    }
}

impl PortOptions {
    /// An active InfiniBand port.
    #[must_use]
    pub fn infiniband(lid: u16) -> Self {
        let mut raw = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x51, 0x57, 0, 0, 0, 0, 0, 0];
        raw[14..].copy_from_slice(&lid.to_be_bytes());
        Self {
            state: sys::IbvPortState::ACTIVE,
            link_layer: sys::IBV_LINK_LAYER_INFINIBAND,
            lid,
            active_mtu: sys::IbvMtu::MTU_4096,
            max_mtu: sys::IbvMtu::MTU_4096,
            max_msg_sz: 1 << 30,
            gids: vec![Some(Gid { raw, kind: sys::IbvGidType::IB, ifindex: 0 })],
            pkeys: vec![0xffff],
        }
    }

    /// An active RoCE port: link-local v1 and v2 rows, then the mapped IPv4 address as v1 and v2.
    #[must_use]
    pub fn roce(address: [u8; 4]) -> Self {
        let mut local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xff, 0, 0, 0, 0];
        local[12..].copy_from_slice(&address);
        let mut mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
        mapped[12..].copy_from_slice(&address);
        let row = |raw, kind| Some(Gid { raw, kind, ifindex: 1 });
        Self {
            link_layer: sys::IBV_LINK_LAYER_ETHERNET,
            lid: 0,
            active_mtu: sys::IbvMtu::MTU_1024,
            gids: vec![
                row(local, sys::IbvGidType::ROCE_V1),
                row(local, sys::IbvGidType::ROCE_V2),
                row(mapped, sys::IbvGidType::ROCE_V1),
                row(mapped, sys::IbvGidType::ROCE_V2),
            ],
            ..Self::infiniband(0)
        }
    }

    /// The same port without a link.
    #[must_use]
    pub fn down(self) -> Self {
        Self { state: sys::IbvPortState::DOWN, ..self }
    }
}
