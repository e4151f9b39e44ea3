//! Queries of devices and ports, with their fall-backs; ibv_query_device_ex(3), ibv_query_port(3), ibv_query_gid_ex(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::counters::ibv_comp_cntr_caps;
use crate::device::{ibv_device_attr_ex, ibv_query_device_ex_input, ibv_values_ex};
use crate::errno::Errno;
use crate::ops::extended;
use crate::port::{ibv_gid_entry, ibv_port_attr};
use crate::symbols::VerbsTable;

impl VerbsTable {
    /// What a device can do. A driver or library that knows only the legacy attributes gives those, and the rest is zero.
    ///
    /// C: 0 or the error number.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The context is opened, and is of this table.
    #[doc(alias = "ibv_query_device_ex")]
    pub unsafe fn query_device_ex(&self, context: *mut ibv_context) -> Result<ibv_device_attr_ex, Errno> {
        let mut attr = ibv_device_attr_ex::zeroed();
        // SAFETY: the caller's promise about the context.
        if let Ok(query) = unsafe { extended!(context, query_device_ex) } {
            let input = ibv_query_device_ex_input { comp_mask: 0 };
            // SAFETY: both structures live through the call; the size is that of the one to fill.
            let returned = unsafe { query(context, &raw const input, &raw mut attr, size_of_val(&attr)) };
            match Errno::check(returned) {
                Ok(()) => return Ok(attr),
                Err(Errno(libc::EOPNOTSUPP | libc::ENOSYS)) => attr = ibv_device_attr_ex::zeroed(),
                Err(errno) => return Err(errno),
            }
        }
        // SAFETY: the caller's promise about the context; the structure lives through the call.
        Errno::check(unsafe { (self.ibv_query_device)(context, &raw mut attr.orig_attr) })?;
        Ok(attr)
    }

    /// State and limits of a port, numbered from 1. What the library does not know is zero.
    ///
    /// C's macro `ibv_query_port`: the exported function of that name fills only the fields up to `flags`.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The context is opened, and is of this table.
    #[doc(alias = "ibv_query_port")]
    #[doc(alias = "___ibv_query_port")]
    pub unsafe fn query_port(&self, context: *mut ibv_context, port_num: u8) -> Result<ibv_port_attr, Errno> {
        let mut attr = ibv_port_attr::zeroed();
        // SAFETY: the caller's promise about the context.
        let returned = match unsafe { extended!(context, query_port) } {
            // SAFETY: the structure lives through the call and has the size that is said.
            Ok(query) => unsafe { query(context, port_num, &raw mut attr, size_of_val(&attr)) },
            // SAFETY: the exported function fills less than the structure.
            Err(_) => unsafe { (self.ibv_query_port)(context, port_num, &raw mut attr) },
        };
        Errno::check(returned)?;
        Ok(attr)
    }

    /// A row of the table of GIDs with its type and network device. `ENODATA`: the row is empty.
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] before rdma-core 32, and the driver's.
    ///
    /// # Safety
    /// The context is opened, and is of this table.
    #[doc(alias = "ibv_query_gid_ex")]
    pub unsafe fn query_gid_ex(
        &self,
        context: *mut ibv_context,
        port_num: u32,
        gid_index: u32,
    ) -> Result<ibv_gid_entry, Errno> {
        let query = self._ibv_query_gid_ex.ok_or(Errno::NOT_SUPPORTED)?;
        let mut entry = ibv_gid_entry::zeroed();
        // SAFETY: the caller's promise about the context; the structure lives through the call and has the size that is said.
        Errno::check(unsafe {
            query(context, port_num, gid_index, &raw mut entry, 0, size_of::<ibv_gid_entry>())
        })?;
        Ok(entry)
    }

    /// Every valid row of the table of GIDs, of all ports. Answers how many rows were written.
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] before rdma-core 32, `EINVAL` when there are more rows than room, and the driver's.
    ///
    /// # Safety
    /// The context is opened, and is of this table.
    #[doc(alias = "ibv_query_gid_table")]
    pub unsafe fn query_gid_table(
        &self,
        context: *mut ibv_context,
        entries: &mut [ibv_gid_entry],
    ) -> Result<usize, Errno> {
        let query = self._ibv_query_gid_table.ok_or(Errno::NOT_SUPPORTED)?;
        let (first, room) = (entries.as_mut_ptr(), entries.len());
        // SAFETY: the caller's promise about the context; the rows are `room` and of the size that is said.
        let count =
            Errno::check_count(unsafe { query(context, first, room, 0, size_of::<ibv_gid_entry>()) })?;
        Ok(count.min(room))
    }
}

impl VerbsTable {
    /// Limits of counters of completions.
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] before rdma-core 65, and the driver's.
    ///
    /// # Safety
    /// The context is opened, and is of this table.
    #[doc(alias = "ibv_query_comp_cntr_caps")]
    pub unsafe fn query_comp_cntr_caps(
        &self,
        context: *mut ibv_context,
    ) -> Result<ibv_comp_cntr_caps, Errno> {
        let query = self._ibv_query_comp_cntr_caps.ok_or(Errno::NOT_SUPPORTED)?;
        let mut caps = ibv_comp_cntr_caps::zeroed();
        // SAFETY: the caller's promise about the context; the structure lives through the call and has the size that is said.
        Errno::check(unsafe { query(context, &raw mut caps, size_of::<ibv_comp_cntr_caps>()) })?;
        Ok(caps)
    }
}

/// Values of a device that change, as its clock: `comp_mask` of the values says which are wanted, and then which were given.
///
/// C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened.
pub unsafe fn ibv_query_rt_values_ex(
    context: *mut ibv_context,
    values: &mut ibv_values_ex,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the context; the structure lives through the call.
    unsafe { Errno::check(extended!(context, query_rt_values)?(context, values)) }
}
