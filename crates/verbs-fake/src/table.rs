//! The table of functions of a fake library.
#![allow(unsafe_code)]

use crate::control::Control;
use crate::object::{ah, channel, context, cq, device, efa, event, mr, pd, qp, query, srq, text, tuning};
use crate::options::Options;
use crate::slots::{self, Entry};
use crate::world::World;
use sinew_verbs_sys as sys;

/// Fake devices behind the table of libibverbs.
#[derive(Clone, Copy, Debug)]
pub struct FakeDevice;

impl FakeDevice {
    /// Makes the devices: the library through which programs see them, and the control by which tests see through them.
    ///
    /// Neither keeps the other: what was made lives for ever, a few kilobytes for each library.
    ///
    /// # Panics
    /// When 256 fake libraries are in use at once in one process: those whose control is alive, or that have a device open.
    #[expect(
        clippy::new_ret_no_self,
        reason = "what it makes is the library; the type is the name of the kind"
    )]
    #[must_use]
    pub fn new(options: Options) -> (sys::Library, Control) {
        let (table, efa, control) = Self::tables(options);
        // SAFETY: the functions do what the manual pages say, lock their world, and live for ever.
        (unsafe { sys::Library::from_tables(table, None, efa, None) }, control)
    }

    /// The same as bare tables, to be wrapped: of libibverbs, and of libefa where a device is one of EFA.
    ///
    /// # Panics
    /// As of [`new`](Self::new).
    #[must_use]
    pub fn tables(options: Options) -> (sys::VerbsTable, Option<sys::EfaTable>, Control) {
        let efa = options.devices.iter().any(|device| device.efa.is_some()).then(efa_table);
        let (table, control) = Self::table(options);
        (table, efa, control)
    }

    /// The table of libibverbs alone.
    ///
    /// # Panics
    /// As of [`new`](Self::new).
    #[must_use]
    pub fn table(options: Options) -> (sys::VerbsTable, Control) {
        let old = options.old_library;
        let world = World::new(options);
        let (place, entry) = slots::take(world);
        let mut table = sys::VerbsTable::unsupported();
        fill_required(&mut table, &entry);
        if !old {
            fill_optional(&mut table);
        }
        (table, Control::new(world, place))
    }
}

fn fill_required(table: &mut sys::VerbsTable, entry: &Entry) {
    table.ibv_get_device_list = entry.get_device_list;
    table.ibv_free_device_list = entry.free_device_list;
    table.ibv_fork_init = entry.fork_init;
    table.ibv_get_device_name = device::name;
    table.ibv_get_device_guid = device::guid;
    table.ibv_open_device = context::open;
    table.ibv_close_device = context::close;
    table.ibv_query_device = query::device;
    table.ibv_query_port = query::port;
    table.ibv_query_gid = query::gid;
    table.ibv_query_pkey = query::pkey;
    table.ibv_get_async_event = event::get;
    table.ibv_ack_async_event = event::acknowledge;
    table.ibv_alloc_pd = pd::alloc;
    table.ibv_dealloc_pd = pd::dealloc;
    table.ibv_reg_mr = mr::reg;
    table.ibv_rereg_mr = mr::rereg;
    table.ibv_dereg_mr = mr::dereg;
    table.ibv_create_comp_channel = channel::create;
    table.ibv_destroy_comp_channel = channel::destroy;
    table.ibv_create_cq = cq::create;
    table.ibv_resize_cq = cq::resize;
    table.ibv_destroy_cq = cq::destroy;
    table.ibv_get_cq_event = channel::event;
    table.ibv_ack_cq_events = channel::acknowledge;
    table.ibv_create_srq = srq::create;
    table.ibv_modify_srq = srq::modify;
    table.ibv_query_srq = srq::query;
    table.ibv_destroy_srq = srq::destroy;
    table.ibv_create_qp = qp::create;
    table.ibv_modify_qp = qp::modify;
    table.ibv_query_qp = qp::query;
    table.ibv_destroy_qp = qp::destroy;
    table.ibv_attach_mcast = qp::attach;
    table.ibv_detach_mcast = qp::detach;
    table.ibv_create_ah = ah::create;
    table.ibv_create_ah_from_wc = ah::create_from_wc;
    table.ibv_init_ah_from_wc = ah::init_from_wc;
    table.ibv_destroy_ah = ah::destroy;
    table.ibv_wc_status_str = text::wc_status;
    table.ibv_node_type_str = text::node_type;
    table.ibv_port_state_str = text::port_state;
    table.ibv_event_type_str = text::event_type;
    table.ibv_rate_to_mult = text::rate_to_mult;
    table.mult_to_ibv_rate = text::mult_to_rate;
    table.ibv_rate_to_mbps = text::rate_to_mbps;
    table.mbps_to_ibv_rate = text::mbps_to_rate;
}

fn fill_optional(table: &mut sys::VerbsTable) {
    table.ibv_get_device_index = Some(device::index);
    table._ibv_query_gid_ex = Some(query::gid_ex);
    table._ibv_query_gid_table = Some(query::gid_table);
    table.ibv_get_pkey_index = Some(query::pkey_index);
    table.ibv_reg_mr_iova = Some(mr::reg_iova);
    table.ibv_reg_mr_iova2 = Some(mr::reg_iova2);
    table.ibv_reg_dmabuf_mr = Some(mr::reg_dmabuf);
    table.ibv_qp_to_qp_ex = Some(qp::to_ex);
    table.ibv_query_ece = Some(tuning::query_extensions);
    table.ibv_set_ece = Some(tuning::set_extensions);
    table.ibv_query_qp_data_in_order = Some(tuning::data_in_order);
}

fn efa_table() -> sys::EfaTable {
    let mut table = sys::EfaTable::unsupported();
    table.efadv_create_driver_qp = efa::create_driver_qp;
    table.efadv_create_qp_ex = Some(efa::create_qp_ex);
    table.efadv_query_device = Some(efa::query_device);
    table
}
