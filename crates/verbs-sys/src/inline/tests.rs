//! Refusals of the inlines, over objects made here.
#![allow(unsafe_code)]

use crate::*;

#[test]
fn a_context_that_is_not_extended_has_no_extended_function() {
    let mut context = ibv_context::zeroed();
    // SAFETY: the context lives through the call and is not extended.
    let refused = unsafe { ibv_alloc_td(&raw mut context, &mut ibv_td_init_attr::zeroed()) };
    assert_eq!(refused, Err(Errno::NOT_SUPPORTED));
}
