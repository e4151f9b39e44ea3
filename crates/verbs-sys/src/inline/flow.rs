//! Rules of steering, their actions and their counters; ibv_create_flow(3), ibv_flow_action_esp(3), ibv_create_counters(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::counters::{ibv_counter_attach_attr, ibv_counters, ibv_counters_init_attr};
use crate::errno::Errno;
use crate::flow::{ibv_flow, ibv_flow_action, ibv_flow_action_esp_attr, ibv_flow_attr};
use crate::ops::extended;
use crate::qp::ibv_qp;

/// Puts a rule in force. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], `EPERM` without the right to raw packets, and the driver's.
///
/// # Safety
/// The queue pair is alive; the rule's parts follow it in memory as it says.
pub unsafe fn ibv_create_flow(qp: *mut ibv_qp, rule: *mut ibv_flow_attr) -> Result<*mut ibv_flow, Errno> {
    // SAFETY: the caller's promise about the queue pair and the rule.
    unsafe { Errno::check_pointer(extended!((*qp).context, ibv_create_flow)?(qp, rule)) }
}

/// Takes a rule out of force. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The rule is in force.
pub unsafe fn ibv_destroy_flow(flow: *mut ibv_flow) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the rule, whose context is then alive.
    unsafe { Errno::check(extended!((*flow).context, ibv_destroy_flow)?(flow)) }
}

/// Makes an action of IPsec. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened; what the attributes point to is as the kernel's interface says.
pub unsafe fn ibv_create_flow_action_esp(
    context: *mut ibv_context,
    esp: *mut ibv_flow_action_esp_attr,
) -> Result<*mut ibv_flow_action, Errno> {
    // SAFETY: the caller's promise about context and attributes.
    unsafe { Errno::check_pointer(extended!(context, create_flow_action_esp)?(context, esp)) }
}

/// Changes an action of IPsec. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The action is alive; what the attributes point to is as the kernel's interface says.
pub unsafe fn ibv_modify_flow_action_esp(
    action: *mut ibv_flow_action,
    esp: *mut ibv_flow_action_esp_attr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about action and attributes.
    unsafe { Errno::check(extended!((*action).context, modify_flow_action_esp)?(action, esp)) }
}

/// Destroys an action. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The action is alive and no rule names it.
pub unsafe fn ibv_destroy_flow_action(action: *mut ibv_flow_action) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the action, whose context is then alive.
    unsafe { Errno::check(extended!((*action).context, destroy_flow_action)?(action)) }
}

/// Makes a set of counters. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened.
pub unsafe fn ibv_create_counters(context: *mut ibv_context) -> Result<*mut ibv_counters, Errno> {
    let mut attr = ibv_counters_init_attr { comp_mask: 0 };
    // SAFETY: the caller's promise about the context; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, create_counters)?(context, &raw mut attr)) }
}

/// Destroys a set of counters. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The set is alive and nothing uses it.
pub unsafe fn ibv_destroy_counters(counters: *mut ibv_counters) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the set, whose context is then alive.
    unsafe { Errno::check(extended!((*counters).context, destroy_counters)?(counters)) }
}

/// Counts what a rule matches, or will match when the rule is null. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The set is alive, and the rule is in force or null.
pub unsafe fn ibv_attach_counters_point_flow(
    counters: *mut ibv_counters,
    attr: &mut ibv_counter_attach_attr,
    flow: *mut ibv_flow,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about set and rule; the structure lives through the call.
    unsafe { Errno::check(extended!((*counters).context, attach_counters_point_flow)?(counters, attr, flow)) }
}

/// Reads the first counters of a set. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The set is alive.
pub unsafe fn ibv_read_counters(
    counters: *mut ibv_counters,
    values: &mut [u64],
    flags: u32,
) -> Result<(), Errno> {
    let count = u32::try_from(values.len()).map_err(|_| Errno::INVALID)?;
    // SAFETY: the caller's promise about the set; there is room for so many.
    unsafe {
        let read = extended!((*counters).context, read_counters)?;
        Errno::check(read(counters, values.as_mut_ptr(), count, flags))
    }
}
