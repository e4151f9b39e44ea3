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
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// Calls that were made while another one of the same queue pair was, and whether one is.
static TWICE: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicBool = AtomicBool::new(false);

/// As libibverbs and drivers do: the object is written without a lock.
unsafe fn enter(qp: *mut sys::ibv_qp, state: sys::IbvQpState) -> c_int {
    TWICE.fetch_add(usize::from(INSIDE.swap(true, Ordering::SeqCst)), Ordering::SeqCst);
    // SAFETY: the queue pair of the caller, which is alone with it.
    unsafe { (*qp).state = state };
    std::thread::yield_now();
    INSIDE.store(false, Ordering::SeqCst);
    0
}

unsafe extern "C" fn modify(qp: *mut sys::ibv_qp, attributes: *mut sys::ibv_qp_attr, _: c_int) -> c_int {
    // SAFETY: the caller's.
    unsafe { enter(qp, (*attributes).qp_state) }
}

unsafe extern "C" fn query(
    qp: *mut sys::ibv_qp,
    _: *mut sys::ibv_qp_attr,
    _: c_int,
    _: *mut sys::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { enter(qp, sys::IbvQpState::INIT) }
}

unsafe extern "C" fn ece(qp: *mut sys::ibv_qp, _: *mut sys::ibv_ece) -> c_int {
    // SAFETY: the caller's.
    unsafe { enter(qp, sys::IbvQpState::INIT) }
}

unsafe extern "C" fn rate(qp: *mut sys::ibv_qp, _: *mut sys::ibv_qp_rate_limit_attr) -> c_int {
    // SAFETY: the caller's.
    unsafe { enter(qp, sys::IbvQpState::INIT) }
}

#[test]
fn a_queue_pair_is_changed_and_asked_by_one_thread_at_a_time() {
    let (mut table, _control) = FakeDevice::table(Options::default());
    (table.ibv_modify_qp, table.ibv_query_qp) = (modify, query);
    table.ibv_query_ece = Some(ece);
    table.ibv_set_ece = Some(ece);
    // SAFETY: functions of a device inside the process, and those above, which live for ever.
    let library = Library::with(unsafe { sys::Library::from_table(table, None) });
    let context = library.devices().unwrap().get(0).unwrap().open().unwrap();
    // SAFETY: just opened, extended, and used by nobody else yet.
    unsafe { (*sys::verbs_get_ctx(context.as_raw())).modify_qp_rate_limit = Some(rate) };
    let (_completions, qp) = queue_pair(&context);
    let rounds = if cfg!(miri) { 3 } else { 300 };
    let calls: [&(dyn Fn() -> bool + Sync); 5] = [
        &|| qp.fail().is_ok(),
        &|| qp.state().is_ok(),
        &|| qp.extensions().is_ok(),
        &|| qp.set_extensions(Extensions { vendor_id: 1, options: 1 }).is_ok(),
        &|| {
            qp.set_rate_limit(RateLimit { rate_kbps: 1, burst_bytes_max: 0, packet_bytes_typical: 0 }).is_ok()
        },
    ];
    std::thread::scope(|threads| {
        for call in calls {
            threads.spawn(move || assert!((0..rounds).all(|_| call())));
        }
    });
    assert_eq!(TWICE.load(Ordering::SeqCst), 0);
}

/// Device memory as drivers map it, copied by plain moves.
struct Mapped(UnsafeCell<[u8; 64]>);

// SAFETY: who copies is to see to it that it is alone; that is what is tested.
unsafe impl Sync for Mapped {}

static MAPPED: Mapped = Mapped(UnsafeCell::new([0; 64]));
static COPIES_TWICE: AtomicUsize = AtomicUsize::new(0);
static COPYING: AtomicBool = AtomicBool::new(false);

/// # Safety
/// As of the copies of C, whose caller is alone.
unsafe fn copying(copy: impl FnOnce(*mut u8)) -> c_int {
    COPIES_TWICE.fetch_add(usize::from(COPYING.swap(true, Ordering::SeqCst)), Ordering::SeqCst);
    copy(MAPPED.0.get().cast());
    std::thread::yield_now();
    COPYING.store(false, Ordering::SeqCst);
    0
}

unsafe extern "C" fn copy_in(_: *mut sys::ibv_dm, at: u64, from: *const c_void, len: usize) -> c_int {
    // SAFETY: the caller's range, inside of the memory.
    unsafe { copying(|to| to.add(at as usize).copy_from(from.cast(), len)) }
}

unsafe extern "C" fn copy_out(to: *mut c_void, _: *mut sys::ibv_dm, at: u64, len: usize) -> c_int {
    // SAFETY: the caller's range, inside of the memory.
    unsafe { copying(|from| from.add(at as usize).copy_to(to.cast(), len)) }
}

#[test]
fn device_memory_is_copied_by_one_thread_at_a_time() {
    let (library, _control) = FakeDevice::new(Options::default());
    let context = Library::with(library).devices().unwrap().get(0).unwrap().open().unwrap();
    let memory = context.device_memory(64, 0).unwrap();
    // SAFETY: just allocated, and used by nobody else yet.
    let functions = unsafe { &mut *memory.as_raw() };
    functions.memcpy_to_dm = Some(copy_in);
    functions.memcpy_from_dm = Some(copy_out);
    let rounds = if cfg!(miri) { 3_u8 } else { 200 };
    std::thread::scope(|threads| {
        for thread in 0..2 {
            let (memory, other) = (memory.clone(), memory.clone());
            threads.spawn(move || {
                for round in 0..rounds {
                    memory.write_at(8, &[round.wrapping_mul(2) | thread; 32]).unwrap();
                }
            });
            threads.spawn(move || {
                let mut bytes = [0; 32];
                for _ in 0..rounds {
                    other.read_at(8, &mut bytes).unwrap();
                    assert_eq!(bytes, [bytes[0]; 32]);
                }
            });
        }
    });
    assert_eq!(COPIES_TWICE.load(Ordering::SeqCst), 0);
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
