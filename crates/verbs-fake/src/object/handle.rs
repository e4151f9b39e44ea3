//! Objects as C sees them: the structure that the ABI declares, and behind it which object of which world it is.
//!
//! Used by every function of the table. Objects are never freed: a pointer that was kept too long still leads to its number, and the
//! world says that this object is gone.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::world::{Guard, Pointer, State, World};
use core::ffi::c_int;
use core::mem::offset_of;
use sinew_verbs_sys as sys;

/// An object: what C reads comes first.
#[repr(C)]
pub(crate) struct Handle<T> {
    c: T,
    world: &'static World,
    id: u32,
}

/// A structure of C that this device gives out, and the whole structure that lies around it.
pub(crate) trait Object {
    type Whole;
    /// Where it is in the whole.
    const OFFSET: usize = 0;
}

macro_rules! objects {
    ( $( $type:ty = $whole:ty ),* $(,)? ) => { $( impl Object for $type { type Whole = $whole; } )* };
}

objects! {
    sys::ibv_device = sys::ibv_device,
    sys::ibv_pd = sys::ibv_pd,
    sys::ibv_td = sys::ibv_td,
    sys::ibv_xrcd = sys::ibv_xrcd,
    sys::ibv_flow = sys::ibv_flow,
    sys::ibv_mr = sys::ibv_mr,
    sys::ibv_mw = sys::ibv_mw,
    sys::ibv_dm = sys::ibv_dm,
    sys::ibv_comp_channel = sys::ibv_comp_channel,
    sys::ibv_cq = sys::ibv_cq_ex,
    sys::ibv_cq_ex = sys::ibv_cq_ex,
    sys::ibv_srq = sys::ibv_srq,
    sys::ibv_ah = sys::ibv_ah,
    sys::ibv_qp = sys::ibv_qp_ex,
    sys::ibv_qp_ex = sys::ibv_qp_ex,
}

impl Object for sys::ibv_context {
    type Whole = sys::verbs_context;
    const OFFSET: usize = offset_of!(sys::verbs_context, context);
}

/// Gives an object to C, and writes down that it is there.
pub(crate) fn hand_out<T: Object>(
    world: &'static World,
    state: &mut State,
    kind: Kind,
    id: u32,
    c: T::Whole,
) -> *mut T {
    let whole: *mut Handle<T::Whole> = Box::into_raw(Box::new(Handle { c, world, id }));
    let object = whole.wrapping_byte_add(T::OFFSET).cast::<T>();
    state.objects.insert(id, Pointer(object.cast()));
    state.live.insert(id, kind);
    object
}

/// Which object of which world it is.
///
/// # Safety
/// The pointer was given out by [`hand_out`] as an object of this type.
pub(crate) unsafe fn find<T: Object>(object: *mut T) -> (&'static World, u32) {
    let whole = object.wrapping_byte_sub(T::OFFSET).cast::<Handle<T::Whole>>();
    // SAFETY: the caller's promise; objects are never freed.
    unsafe { ((*whole).world, (*whole).id) }
}

/// The number of an object, or none for null.
///
/// # Safety
/// Null, or as of [`find`].
pub(crate) unsafe fn id_of<T: Object>(object: *mut T) -> Option<u32> {
    if object.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { find(object) }.1)
}

/// A call that is under way, with the world locked.
pub(crate) struct Entered {
    pub(crate) world: &'static World,
    pub(crate) state: Guard,
    pub(crate) id: u32,
}

/// Begins a call: locks the world, counts the call, fails when it is told to, or when the object is gone.
///
/// # Safety
/// As of [`find`].
pub(crate) unsafe fn enter<T: Object>(object: *mut T, call: Call) -> Result<Entered, c_int> {
    // SAFETY: the caller's promise.
    let (world, id) = unsafe { find(object) };
    let mut state = world.lock();
    state.check_alive(call, id)?;
    state.count(call, id)?;
    Ok(Entered { world, state, id })
}

/// As functions answer that return the error number.
pub(crate) fn number(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(0)
}

/// As functions answer that return -1 and set `errno`.
pub(crate) fn minus_one(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => {
            sys::Errno(errno).set();
            -1
        }
    }
}

/// As functions answer that return null and set `errno`.
pub(crate) fn pointer<T>(result: Result<*mut T, c_int>) -> *mut T {
    result.unwrap_or_else(|errno| {
        sys::Errno(errno).set();
        core::ptr::null_mut()
    })
}
