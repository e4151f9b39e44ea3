//! Rates, extensions of connections, the order of data: what no device here has, on a device inside the process whose functions of that kind are
//! the test's; and on a real device, which says that it has none.
#![allow(unsafe_code, reason = "functions of C that the test brings")]

mod common;

use sinew_verbs::cq::CompletionQueue;
use sinew_verbs::device::Context;
use sinew_verbs::qp::{DataOrder, Extensions, QueuePair, RateLimit, Rc, Transfer};
use sinew_verbs::{Error, Library};
use sinew_verbs_fake::{FakeDevice, Options};
use sinew_verbs_sys as sys;
use std::ffi::c_int;
use std::sync::Mutex;

/// What the functions were told last.
static TOLD: Mutex<(Option<sys::ibv_ece>, Option<sys::ibv_qp_rate_limit_attr>)> = Mutex::new((None, None));

unsafe extern "C" fn query_ece(_: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) -> c_int {
    // SAFETY: a place of the caller's.
    unsafe {
        *ece =
            TOLD.lock().unwrap().0.unwrap_or(sys::ibv_ece { vendor_id: 0x15b3, options: 0xf, comp_mask: 0 })
    };
    0
}

unsafe extern "C" fn set_ece(_: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) -> c_int {
    // SAFETY: a place of the caller's.
    let told = unsafe { *ece };
    if told.vendor_id != 0x15b3 {
        return libc::EINVAL;
    }
    // This device takes two of them.
    TOLD.lock().unwrap().0 = Some(sys::ibv_ece { options: told.options & 0x3, ..told });
    0
}

unsafe extern "C" fn limit_rate(_: *mut sys::ibv_qp, limit: *mut sys::ibv_qp_rate_limit_attr) -> c_int {
    // SAFETY: a place of the caller's.
    let limit = unsafe { *limit };
    if limit.rate_limit > 1_000_000 {
        return libc::EINVAL;
    }
    TOLD.lock().unwrap().1 = Some(limit);
    0
}

/// As a library that knows the flag.
unsafe extern "C" fn order(_: *mut sys::ibv_qp, opcode: sys::IbvWrOpcode, flags: u32) -> c_int {
    match (opcode, flags) {
        (sys::IbvWrOpcode::RDMA_WRITE, sys::IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS) => {
            sys::IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES.cast_signed()
        }
        _ => 0,
    }
}

/// As one of rdma-core 44, which does not.
unsafe extern "C" fn old_order(_: *mut sys::ibv_qp, opcode: sys::IbvWrOpcode, flags: u32) -> c_int {
    c_int::from(opcode == sys::IbvWrOpcode::RDMA_READ && flags == 0)
}

type Order = unsafe extern "C" fn(*mut sys::ibv_qp, sys::IbvWrOpcode, u32) -> c_int;

fn device(order: Order) -> Context {
    let (mut table, _control) = FakeDevice::table(Options::default());
    table.ibv_query_ece = Some(query_ece);
    table.ibv_set_ece = Some(set_ece);
    table.ibv_query_qp_data_in_order = Some(order);
    // SAFETY: functions of a device inside the process, and those above, which live for ever.
    let library = Library::with(unsafe { sys::Library::from_table(table, None) });
    let context = library.devices().unwrap().get(0).unwrap().open().unwrap();
    // SAFETY: just opened, extended, and used by nobody else yet.
    unsafe { (*sys::verbs_get_ctx(context.as_raw())).modify_qp_rate_limit = Some(limit_rate) };
    context
}

fn queue_pair(context: &Context) -> (CompletionQueue, QueuePair<Rc>) {
    let completions = context.completion_queue(64).build().unwrap();
    let pd = context.protection_domain().unwrap();
    let qp = pd.queue_pair::<Rc>(&completions).build_raw().unwrap();
    (completions, qp)
}

#[test]
fn rates_and_extensions_are_told_to_the_device_and_its_answers_come_back() {
    let (_completions, qp) = queue_pair(&device(order));
    let limit = RateLimit { rate_kbps: 500_000, burst_bytes_max: 65_536, packet_bytes_typical: 1024 };
    qp.set_rate_limit(limit).unwrap();
    let told = TOLD.lock().unwrap().1.expect("the device was told");
    assert_eq!(
        (told.rate_limit, told.max_burst_sz, told.typical_pkt_sz, told.comp_mask),
        (500_000, 65_536, 1024, 0)
    );
    let error = qp.set_rate_limit(RateLimit { rate_kbps: 2_000_000, ..limit }).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
    let own = qp.extensions().unwrap();
    assert_eq!(own, Extensions { vendor_id: 0x15b3, options: 0xf });
    qp.set_extensions(Extensions { options: 0x6, ..own }).unwrap();
    assert_eq!(
        qp.extensions().unwrap(),
        Extensions { options: 0x2, ..own },
        "as far as the device knows them"
    );
    let error = qp.set_extensions(Extensions { vendor_id: 1, options: 1 }).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
}

#[test]
fn the_order_of_data_is_asked_for_as_new_and_as_old_libraries_say_it() {
    let (_completions, qp) = queue_pair(&device(order));
    let orders = [Transfer::Send, Transfer::Write, Transfer::Read].map(|transfer| qp.data_order(transfer));
    assert_eq!(orders, [DataOrder::empty(), DataOrder::ALIGNED_128_BYTES, DataOrder::empty()]);
    let (_completions, qp) = queue_pair(&device(old_order));
    let orders = [Transfer::Send, Transfer::Write, Transfer::Read].map(|transfer| qp.data_order(transfer));
    assert_eq!(orders, [DataOrder::empty(), DataOrder::empty(), DataOrder::WHOLE_MESSAGE]);
}

#[test]
fn a_device_without_them_says_so() {
    let Some(context) = common::device(module_path!()) else { return };
    let (_completions, qp) = queue_pair(&context);
    // Only devices of software are known here, and they have none; another is not asked to fail.
    if !["rxe0", "siw0"].contains(&context.name()) {
        sinew_testing::skip!("a device of software", "{} may have them", context.name());
    }
    let errors = [
        qp.set_rate_limit(RateLimit::default()).unwrap_err(),
        qp.extensions().unwrap_err(),
        qp.set_extensions(Extensions::default()).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    assert_eq!(qp.data_order(Transfer::Write), DataOrder::empty());
}
