//! The requests that a pipe hands to `ibv_post_send`: linked once, filled for each post.
#![allow(unsafe_code)]

use super::Verb;
use crate::qp::Connected;
use sinew_verbs_sys as sys;
use std::ptr::{self, NonNull};

/// Requests of one call, at most.
pub(super) const LIST: usize = 16;

/// Each request is linked to the next, the last to none: the last `count` of them are a list of `count`. Each has one element: that of its buffer, where that lies, or the one of
/// its place here, which is a part of that.
struct Requests {
    requests: [sys::ibv_send_wr; LIST],
    elements: [sys::ibv_sge; LIST],
}

/// From a box, which this owns, reached by this pointer only: they point to each other.
pub(super) struct List(NonNull<Requests>);

// SAFETY: it owns what its pointer points to, as a box does; the links stay in there.
unsafe impl Send for List {}
// SAFETY: the same; shared references do nothing.
unsafe impl Sync for List {}

impl List {
    pub(super) fn new() -> Self {
        let request = sys::ibv_send_wr {
            wr_id: 0,
            next: ptr::null_mut(),
            sg_list: ptr::null_mut(),
            num_sge: 1,
            opcode: sys::IbvWrOpcode::SEND,
            send_flags: 0,
            imm_data: 0,
            wr: sys::ibv_send_wr_wr::UNSET,
            qp_type: sys::ibv_send_wr_qp_type::UNSET,
            more: sys::ibv_send_wr_more::UNSET,
        };
        let element = sys::ibv_sge { addr: 0, length: 0, lkey: 0 };
        let list = Box::new(Requests { requests: [request; LIST], elements: [element; LIST] });
        let list = NonNull::from(Box::leak(list));
        // SAFETY: of the box, which is this function's alone; the places are inside of the arrays.
        unsafe {
            let requests = (&raw mut (*list.as_ptr()).requests).cast::<sys::ibv_send_wr>();
            for place in 0..LIST - 1 {
                (*requests.add(place)).next = requests.add(place + 1);
            }
        }
        Self(list)
    }

    /// The request that begins a list of `count`.
    ///
    /// # Safety
    /// `count` is 1 to [`LIST`].
    #[inline(always)]
    pub(super) unsafe fn first_of(&mut self, count: usize) -> *mut sys::ibv_send_wr {
        debug_assert!((1..=LIST).contains(&count));
        // SAFETY: in the array, by the caller's promise.
        unsafe { (&raw mut (*self.0.as_ptr()).requests).cast::<sys::ibv_send_wr>().add(LIST - count) }
    }

    /// Fills the request of this place. Its element is as long as the verb says.
    ///
    /// # Safety
    /// The place is less than [`LIST`]. The element stays where it is until the list was posted.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Connected>(
        &mut self,
        place: usize,
        number: u64,
        verb: Verb<S>,
        element: &sys::ibv_sge,
    ) {
        debug_assert!(place < LIST);
        // SAFETY: in the arrays, by the caller's promise; they are this value's alone, and no call has the list now.
        unsafe {
            let request = (&raw mut (*self.0.as_ptr()).requests).cast::<sys::ibv_send_wr>().add(place);
            (*request).wr_id = number;
            (*request).sg_list = match verb.len {
                None => ptr::from_ref(element).cast_mut(),
                Some(length) => {
                    let part = (&raw mut (*self.0.as_ptr()).elements).cast::<sys::ibv_sge>().add(place);
                    part.write(sys::ibv_sge { length, ..*element });
                    part
                }
            };
            (*request).opcode = verb.opcode;
            (*request).send_flags = verb.flags;
            (*request).imm_data = verb.immediate;
            (*request).wr.rdma = sys::ibv_send_wr_rdma { remote_addr: verb.remote_addr, rkey: verb.rkey };
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made from a box, ended once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
