//! Finding a function of an opened device: is it extended, did its library know the function, has the driver one.
//!
//! Called by the inlines before each extended operation. `verbs_context` lies around `ibv_context` and grows at its front, so
//! offsets are counted from the end. The whole of our declaration may be larger than the object: no pointer to the whole is ever
//! dereferenced, each field is read by its own address, after `sz` has said that it is there. Nothing here calls a driver.
#![allow(unsafe_code)]

use crate::context::{VERBS_ABI_IS_EXTENDED, ibv_context, verbs_context};
use crate::errno::Errno;
use core::mem::offset_of;

/// A function of the extended table, or the refusal. The field's name gives offset and type.
macro_rules! extended {
    ($context:expr, $op:ident) => {
        $crate::ops::find_extended(
            $context,
            core::mem::offset_of!($crate::context::verbs_context, $op),
            |table: &$crate::context::verbs_context| &table.$op,
        )
    };
}

pub(crate) use extended;

/// The structure around a context, or null for a context that is not extended.
///
/// The object may be smaller than the type, at the front: call through the inlines only. Providers that made the
/// object themselves may use the pointer freely.
///
/// # Safety
/// The pointer is to an opened context.
#[inline]
#[must_use]
pub unsafe fn verbs_get_ctx(context: *mut ibv_context) -> *mut verbs_context {
    // SAFETY: the caller's promise.
    if unsafe { is_extended(context) } {
        context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
    } else {
        core::ptr::null_mut()
    }
}

/// Whether a context has extended functions at all.
///
/// # Safety
/// The pointer is to an opened context.
#[inline]
#[must_use]
pub unsafe fn is_extended(context: *mut ibv_context) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*context).abi_compat == VERBS_ABI_IS_EXTENDED }
}

/// Whether the library that made a context knew the field at this offset of [`verbs_context`].
///
/// # Safety
/// The pointer is to an opened context.
#[inline]
#[must_use]
pub unsafe fn knows_offset(context: *mut ibv_context, offset: usize) -> bool {
    // SAFETY: the caller's promise.
    if !unsafe { is_extended(context) } {
        return false;
    }
    // SAFETY: every extended context has its `sz` right before it.
    let known = unsafe { around::<usize>(context, offset_of!(verbs_context, sz)).read() };
    known >= size_of::<verbs_context>() - offset
}

/// The address of a field of the structure around a context.
fn around<T>(context: *mut ibv_context, offset: usize) -> *const T {
    context.wrapping_byte_sub(offset_of!(verbs_context, context) - offset).cast()
}

/// What [`extended!`] calls. The last argument is never called: it ties the offset to the field's type.
///
/// # Safety
/// The pointer is to an opened context, and the offset is that of the field.
#[inline]
pub(crate) unsafe fn find_extended<T: Copy>(
    context: *mut ibv_context,
    offset: usize,
    _field: fn(&verbs_context) -> &Option<T>,
) -> Result<T, Errno> {
    // SAFETY: the caller's promise.
    if !unsafe { knows_offset(context, offset) } {
        return Err(Errno::NOT_SUPPORTED);
    }
    // SAFETY: the library knew the field, so it is within its object; the type is the field's.
    unsafe { around::<Option<T>>(context, offset).read() }.ok_or(Errno::NOT_SUPPORTED)
}

/// The functions of [`ibv_context`] by which messages go, for those who want to call them without a check each.
const DATA_PATH: [&str; 5] = ["poll_cq", "req_notify_cq", "post_srq_recv", "post_send", "post_recv"];

/// The functions that the unchecked inlines call and that this context does not have: libibverbs leaves none out.
///
/// Called once when a context was opened; empty means that every `*_unchecked` inline of its objects may be called.
///
/// # Safety
/// The pointer is to an opened context.
#[must_use]
pub unsafe fn missing_data_path(context: *mut ibv_context) -> Vec<&'static str> {
    // SAFETY: the caller's promise.
    let ops = unsafe { &(*context).ops };
    let there = [
        ops.poll_cq.is_some(),
        ops.req_notify_cq.is_some(),
        ops.post_srq_recv.is_some(),
        ops.post_send.is_some(),
        ops.post_recv.is_some(),
    ];
    DATA_PATH.into_iter().zip(there).filter(|(_, there)| !there).map(|(name, _)| name).collect()
}
