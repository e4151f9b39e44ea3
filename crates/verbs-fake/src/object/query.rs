//! What a device and its ports answer about themselves.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::object::device::write_text;
use crate::object::handle::{Entered, enter, minus_one, number};
use crate::object::tuning::RATES;
use crate::options::{DeviceOptions, PortOptions};
use crate::world::State;
use core::ffi::c_int;
use sinew_verbs_sys as sys;

pub(crate) unsafe extern "C" fn device(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_device_attr,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device, and a place for the attributes.
    number(unsafe { enter(context, Call::QueryDevice) }.and_then(|entered| {
        let device = entered.state.device_of(entered.id)?;
        // SAFETY: as above.
        unsafe { attr.write(attributes(&device.options)) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn device_ex(
    context: *mut sys::ibv_context,
    input: *const sys::ibv_query_device_ex_input,
    attr: *mut sys::ibv_device_attr_ex,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device; the input is null or there.
    number(unsafe { enter(context, Call::QueryDeviceEx) }.and_then(|entered| {
        // SAFETY: as above.
        if unsafe { !input.is_null() && (*input).comp_mask != 0 } {
            return Err(libc::EINVAL);
        }
        let options = &entered.state.device_of(entered.id)?.options;
        let mut all = sys::ibv_device_attr_ex::zeroed();
        all.orig_attr = attributes(options);
        all.device_cap_flags_ex = u64::from(all.orig_attr.device_cap_flags);
        all.max_dm_size = options.device_memory;
        all.cq_mod_caps = sys::ibv_cq_moderation_caps { max_cq_count: 16, max_cq_period: 100 };
        all.packet_pacing_caps = PACING;
        all.pci_atomic_caps = sys::ibv_pci_atomic_caps { fetch_add: 6, swap: 4, compare_swap: 7 };
        all.raw_packet_caps = 9;
        all.phys_port_cnt_ex = u32::try_from(options.ports.len()).unwrap_or(u32::MAX);
        if options.on_demand {
            (all.odp_caps, all.xrc_odp_caps) = (on_demand_paging(), sys::IBV_ODP_SUPPORT_SRQ_RECV);
        }
        if options.timestamps {
            (all.completion_timestamp_mask, all.hca_core_clock) = (u64::MAX, 1_000_000);
        }
        // SAFETY: the caller's promise: the place has that size, and no more than the structure is written.
        unsafe { copy_prefix(&all, attr, size) };
        Ok(())
    }))
}

const PACING: sys::ibv_packet_pacing_caps = sys::ibv_packet_pacing_caps {
    qp_rate_limit_min: *RATES.start(),
    qp_rate_limit_max: *RATES.end(),
    supported_qpts: 1 << 2,
};

/// Paging for everything that connected queue pairs and datagrams do.
fn on_demand_paging() -> sys::ibv_odp_caps {
    let (sends, receives) = (sys::IBV_ODP_SUPPORT_SEND, sys::IBV_ODP_SUPPORT_RECV);
    let unreliable = sends | receives | sys::IBV_ODP_SUPPORT_WRITE;
    let mut caps = sys::ibv_odp_caps::zeroed();
    caps.general_caps = sys::IBV_ODP_SUPPORT;
    caps.per_transport_caps.rc_odp_caps =
        unreliable | sys::IBV_ODP_SUPPORT_READ | sys::IBV_ODP_SUPPORT_ATOMIC;
    caps.per_transport_caps.uc_odp_caps = unreliable;
    caps.per_transport_caps.ud_odp_caps = sends | receives;
    caps
}

/// Writes as much of a structure as the caller knows.
///
/// # Safety
/// There is room for so many bytes.
unsafe fn copy_prefix<T>(from: &T, to: *mut T, size: usize) {
    let len = size.min(size_of::<T>());
    // SAFETY: the caller's promise; the source is as long as its type.
    unsafe { core::ptr::copy_nonoverlapping(core::ptr::from_ref(from).cast::<u8>(), to.cast::<u8>(), len) };
}

fn attributes(options: &DeviceOptions) -> sys::ibv_device_attr {
    let signed = |number: u32| c_int::try_from(number).unwrap_or(c_int::MAX);
    let mut attr = sys::ibv_device_attr::zeroed();
    write_text(&mut attr.fw_ver, "fake.1");
    attr.node_guid = options.guid.to_be();
    attr.sys_image_guid = options.guid.to_be();
    attr.max_mr_size = options.max_mr_size;
    attr.page_size_cap = 4096;
    attr.vendor_id = 0x5157;
    attr.max_qp = signed(options.max_qp);
    attr.max_qp_wr = signed(options.max_qp_wr);
    attr.max_sge = signed(options.max_sge);
    attr.max_sge_rd = attr.max_sge;
    attr.max_cq = signed(options.max_cq);
    attr.max_cqe = signed(options.max_cqe);
    attr.max_mr = signed(options.max_mr);
    attr.max_pd = 1 << 16;
    attr.max_qp_rd_atom = c_int::from(options.max_rd_atomic);
    attr.max_qp_init_rd_atom = attr.max_qp_rd_atom;
    attr.max_res_rd_atom = signed(u32::from(options.max_rd_atomic).saturating_mul(options.max_qp));
    attr.atomic_cap = options.atomics;
    attr.max_ah = 1 << 16;
    attr.max_srq = signed(options.max_srq);
    attr.max_srq_wr = signed(options.max_srq_wr);
    attr.max_srq_sge = attr.max_sge;
    attr.max_mcast_grp = 1 << 10;
    attr.max_mcast_qp_attach = 1 << 10;
    attr.max_total_mcast_qp_attach = 1 << 20;
    attr.max_pkeys = 1;
    attr.local_ca_ack_delay = 15;
    attr.phys_port_cnt = u8::try_from(options.ports.len()).unwrap_or(u8::MAX);
    if options.memory_windows {
        attr.max_mw = 1 << 16;
        let flags = sys::IBV_DEVICE_MEM_WINDOW
            | sys::IBV_DEVICE_MEM_WINDOW_TYPE_2B
            | sys::IBV_DEVICE_MEM_MGT_EXTENSIONS;
        attr.device_cap_flags = u32::try_from(flags).unwrap_or(0);
    }
    attr
}

impl State {
    /// A port, numbered from 1.
    pub(crate) fn port(&self, context: u32, port: u32) -> Result<&PortOptions, c_int> {
        let index = (port as usize).checked_sub(1).ok_or(libc::EINVAL)?;
        self.device_of(context)?.options.ports.get(index).ok_or(libc::EINVAL)
    }
}

fn port_attributes(entered: &Entered, port: u8) -> Result<sys::ibv_port_attr, c_int> {
    let port = entered.state.port(entered.id, u32::from(port))?;
    let mut attr = sys::ibv_port_attr::zeroed();
    attr.state = port.state;
    attr.max_mtu = port.max_mtu;
    attr.active_mtu = port.active_mtu;
    attr.gid_tbl_len = c_int::try_from(port.gids.len()).unwrap_or(c_int::MAX);
    attr.max_msg_sz = port.max_msg_sz;
    attr.pkey_tbl_len = u16::try_from(port.pkeys.len()).unwrap_or(u16::MAX);
    attr.lid = port.lid;
    attr.sm_lid = u16::from(port.link_layer != sys::IBV_LINK_LAYER_ETHERNET);
    attr.max_vl_num = 1;
    (attr.active_width, attr.active_speed) = (2, 32);
    attr.phys_state = if port.state == sys::IbvPortState::ACTIVE { 5 } else { 3 };
    attr.link_layer = port.link_layer;
    if port.link_layer == sys::IBV_LINK_LAYER_ETHERNET {
        attr.flags = sys::IBV_QPF_GRH_REQUIRED;
    }
    Ok(attr)
}

pub(crate) unsafe extern "C" fn port(
    context: *mut sys::ibv_context,
    port: u8,
    attr: *mut sys::ibv_port_attr,
) -> c_int {
    let known = core::mem::offset_of!(sys::ibv_port_attr, port_cap_flags2);
    // SAFETY: the caller's promise. The exported function fills no more than the fields of its time.
    unsafe { port_ex(context, port, attr, known) }
}

pub(crate) unsafe extern "C" fn port_ex(
    context: *mut sys::ibv_context,
    port: u8,
    attr: *mut sys::ibv_port_attr,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device.
    number(unsafe { enter(context, Call::QueryPort) }.and_then(|entered| {
        let all = port_attributes(&entered, port)?;
        // SAFETY: the caller's promise: there is room for so many bytes.
        unsafe { copy_prefix(&all, attr, size) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn gid(
    context: *mut sys::ibv_context,
    port: u8,
    index: c_int,
    gid: *mut sys::ibv_gid,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device, and a place for the answer.
    minus_one(unsafe { enter(context, Call::QueryGid) }.and_then(|entered| {
        let port = entered.state.port(entered.id, u32::from(port))?;
        let row = usize::try_from(index).ok().and_then(|index| port.gids.get(index)).ok_or(libc::EINVAL)?;
        let raw = row.map_or([0; 16], |row| row.raw);
        // SAFETY: as above.
        unsafe { gid.write(sys::ibv_gid::from_bytes(raw)) };
        Ok(())
    }))
}

fn row(port: &PortOptions, port_num: u32, index: u32) -> Result<sys::ibv_gid_entry, c_int> {
    let row = port.gids.get(index as usize).ok_or(libc::EINVAL)?.ok_or(libc::ENODATA)?;
    let mut entry = sys::ibv_gid_entry::zeroed();
    entry.gid = sys::ibv_gid::from_bytes(row.raw);
    (entry.gid_index, entry.port_num) = (index, port_num);
    (entry.gid_type, entry.ndev_ifindex) = (row.kind.0, row.ifindex);
    Ok(entry)
}

pub(crate) unsafe extern "C" fn gid_ex(
    context: *mut sys::ibv_context,
    port: u32,
    index: u32,
    entry: *mut sys::ibv_gid_entry,
    flags: u32,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device.
    number(unsafe { enter(context, Call::QueryGidEx) }.and_then(|entered| {
        if flags != 0 || size < size_of::<sys::ibv_gid_entry>() {
            return Err(libc::EINVAL);
        }
        let row = row(entered.state.port(entered.id, port)?, port, index)?;
        // SAFETY: the caller's promise: there is room for a row.
        unsafe { entry.write(row) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn gid_table(
    context: *mut sys::ibv_context,
    entries: *mut sys::ibv_gid_entry,
    room: usize,
    flags: u32,
    size: usize,
) -> isize {
    // SAFETY: the caller's promise: a context of this device.
    let rows = unsafe { enter(context, Call::QueryGidTable) }.and_then(|entered| {
        if flags != 0 || size != size_of::<sys::ibv_gid_entry>() {
            return Err(libc::EINVAL);
        }
        let ports = &entered.state.device_of(entered.id)?.options.ports;
        let rows: Vec<_> = (1..)
            .zip(ports)
            .flat_map(|(number, port)| {
                (0..).zip(&port.gids).filter_map(move |(index, _)| row(port, number, index).ok())
            })
            .collect();
        if rows.len() > room { Err(libc::EINVAL) } else { Ok(rows) }
    });
    match rows {
        Ok(rows) => {
            // SAFETY: the caller's promise: there is room for so many rows.
            unsafe { core::ptr::copy_nonoverlapping(rows.as_ptr(), entries, rows.len()) };
            isize::try_from(rows.len()).unwrap_or(isize::MAX)
        }
        Err(errno) => -(errno as isize),
    }
}

pub(crate) unsafe extern "C" fn pkey(
    context: *mut sys::ibv_context,
    port: u8,
    index: c_int,
    pkey: *mut u16,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device, and a place for the answer.
    minus_one(unsafe { enter(context, Call::QueryPkey) }.and_then(|entered| {
        let port = entered.state.port(entered.id, u32::from(port))?;
        let found =
            usize::try_from(index).ok().and_then(|index| port.pkeys.get(index)).ok_or(libc::EINVAL)?;
        // SAFETY: as above.
        unsafe { pkey.write(found.to_be()) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn pkey_index(context: *mut sys::ibv_context, port: u8, pkey: u16) -> c_int {
    // SAFETY: the caller's promise: a context of this device.
    let found = unsafe { enter(context, Call::GetPkeyIndex) }.and_then(|entered| {
        let port = entered.state.port(entered.id, u32::from(port))?;
        let place = port.pkeys.iter().position(|known| known.to_be() == pkey);
        place.and_then(|place| c_int::try_from(place).ok()).ok_or(libc::EINVAL)
    });
    found.unwrap_or_else(|errno| minus_one(Err(errno)))
}

pub(crate) unsafe extern "C" fn rt_values(
    context: *mut sys::ibv_context,
    values: *mut sys::ibv_values_ex,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device, and its values.
    number(unsafe { enter(context, Call::QueryRtValues) }.and_then(|mut entered| {
        let device = entered.state.device_of(entered.id)?;
        if !device.options.timestamps {
            return Err(libc::EOPNOTSUPP);
        }
        entered.state.ticks += 1;
        // SAFETY: as above.
        unsafe {
            (*values).comp_mask &= sys::IBV_VALUES_MASK_RAW_CLOCK;
            (*values).raw_clock.tv_sec = 0;
            (*values).raw_clock.tv_nsec = entered.state.ticks.cast_signed();
        }
        Ok(())
    }))
}
