//! A connection manager in this process: answers as its script says, and keeps a list of what was called.
//!
//! Script and list belong to the calling thread, which is the test's. It judges what the real library would wait for: an identifier that is
//! destroyed or migrated while an event of it is not acknowledged is a `DEADLOCK` in the list.
#![allow(unsafe_code)]

use super::device;
use crate::library::Library;
use rustix::event::{EventfdFlags, eventfd};
use sinew_verbs_sys as sys;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use sys::{Errno, RdmaCmEventType as Kind};

/// An event that the fake raises.
#[derive(Clone, Debug, Default)]
pub(super) struct Raised {
    pub(super) kind: u32,
    pub(super) status: i32,
    pub(super) data: Vec<u8>,
    pub(super) conn: Option<sys::rdma_conn_param>,
    /// Says how the datagrams of a group are addressed.
    pub(super) group: bool,
}

impl Raised {
    pub(super) fn of(kind: Kind) -> Self {
        Self { kind: kind.0, ..Self::default() }
    }

    pub(super) fn status(mut self, status: i32) -> Self {
        self.status = status;
        self
    }

    pub(super) fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub(super) fn conn(mut self, conn: sys::rdma_conn_param) -> Self {
        self.conn = Some(conn);
        self
    }

    pub(super) fn group(mut self) -> Self {
        self.group = true;
        self
    }
}

#[derive(Default)]
struct State {
    /// What the next calls that end with an event are answered with; nothing left: that all goes well.
    script: VecDeque<Vec<Raised>>,
    calls: Vec<String>,
    /// The next call of that name fails.
    failing: Vec<(&'static str, i32)>,
    iwarp: bool,
    device_listed: bool,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// The next call that ends with an event is answered so.
pub(super) fn answer(events: impl IntoIterator<Item = Raised>) {
    STATE.with_borrow_mut(|state| state.script.push_back(events.into_iter().collect()));
}

/// The next call of that name fails, or that with these words behind its name.
pub(super) fn fail(call: &'static str, errno: i32) {
    STATE.with_borrow_mut(|state| state.failing.push((call, errno)));
}

/// Connections are those of iWARP.
pub(super) fn iwarp() {
    STATE.with_borrow_mut(|state| state.iwarp = true);
    device::speaks(sys::IbvTransportType::IWARP);
}

/// How the end of an identifier goes, on whichever thread.
#[derive(Clone, Copy)]
pub(super) struct End(&'static Identifier);

impl End {
    /// Of this identifier.
    pub(super) fn of(id: *mut sys::rdma_cm_id) -> Self {
        // SAFETY: of the fake, which never frees it.
        Self(unsafe { &*id.cast::<Identifier>() })
    }

    /// From here on the kernel waits for the peer, until it is [let go](Self::let_go).
    pub(super) fn waits(self) -> Self {
        *self.0.kept.lock().unwrap() = true;
        self
    }

    /// The peer is given up.
    pub(super) fn let_go(self) {
        *self.0.kept.lock().unwrap() = false;
        self.0.freed.notify_all();
    }

    /// It is refused then.
    pub(super) fn fails(self, errno: i32) -> Self {
        self.0.refusal.store(errno, Ordering::SeqCst);
        self
    }

    /// Waits until the kernel has begun to wait for the peer.
    pub(super) fn await_begun(self) {
        let deadline = std::time::Instant::now() + super::LONG;
        while !self.0.is_ending.load(Ordering::SeqCst) {
            assert!(std::time::Instant::now() < deadline, "nobody ends it");
            std::thread::yield_now();
        }
    }

    pub(super) fn has_come(self) -> bool {
        self.0.dead.load(Ordering::SeqCst) != 0
    }

    /// Waits until it has come, or was refused.
    pub(super) fn wait(self) {
        let deadline = std::time::Instant::now() + super::LONG;
        while !self.has_come() && self.0.refusal.load(Ordering::SeqCst) >= 0 {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }

    /// Whether it was destroyed while an event of it was not acknowledged, or twice.
    pub(super) fn is_wrong(self) -> bool {
        self.0.is_wrong.load(Ordering::SeqCst)
    }
}

/// The list of devices has the device.
pub(super) fn list_device() {
    STATE.with_borrow_mut(|state| state.device_listed = true);
}

/// What was called since this was asked, by this thread.
pub(super) fn calls() -> Vec<String> {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.calls))
}

pub(super) fn note(call: impl Into<String>) {
    STATE.with_borrow_mut(|state| state.calls.push(call.into()));
}

/// Notes a call; -1 and its number when it is to fail.
pub(super) fn called(name: &'static str, more: &str) -> c_int {
    let whole = if more.is_empty() { name.to_owned() } else { format!("{name} {more}") };
    note(whole.clone());
    STATE.with_borrow_mut(|state| {
        let is_meant = |(call, _): &(&str, i32)| *call == name || *call == whole;
        let Some(place) = state.failing.iter().position(is_meant) else { return 0 };
        Errno(state.failing.remove(place).1).set();
        -1
    })
}

/// The queue key that is proposed for datagrams.
pub(super) const QKEY: u32 = 0x0123_4567;

/// A channel: what C sees comes first.
#[repr(C)]
struct Channel {
    raw: sys::rdma_event_channel,
    ready: OwnedFd,
    queue: Mutex<VecDeque<Box<Event>>>,
}

/// An identifier: what C sees comes first. It is never freed, so that a use after its end is seen and harmless.
#[repr(C)]
pub(super) struct Identifier {
    raw: sys::rdma_cm_id,
    taken: AtomicU32,
    dead: AtomicU32,
    is_ending: AtomicBool,
    /// Whether its end waits in the kernel.
    kept: Mutex<bool>,
    freed: Condvar,
    /// The number that its end fails with; negative when it has.
    refusal: AtomicI32,
    is_wrong: AtomicBool,
}

#[repr(C)]
struct Event {
    raw: sys::rdma_cm_event,
    of: *mut Identifier,
    data: Vec<u8>,
}

// SAFETY: a test's; its pointers are to what is never freed.
unsafe impl Send for Event {}

unsafe fn channel_of(id: *mut sys::rdma_cm_id) -> &'static Channel {
    // SAFETY: identifiers of the fake have channels of the fake, which tests keep.
    unsafe { &*(*id).channel.cast::<Channel>() }
}

fn new_identifier(channel: *mut sys::rdma_event_channel, space: sys::RdmaPortSpace) -> *mut sys::rdma_cm_id {
    let mut raw = sys::rdma_cm_id::zeroed();
    raw.channel = channel;
    raw.ps = space;
    let datagrams = matches!(space, sys::RdmaPortSpace::UDP | sys::RdmaPortSpace::IPOIB);
    raw.qp_type = if datagrams { sys::IbvQpType::UD } else { sys::IbvQpType::RC };
    let id = Identifier {
        raw,
        taken: AtomicU32::new(0),
        dead: AtomicU32::new(0),
        is_ending: AtomicBool::new(false),
        kept: Mutex::new(false),
        freed: Condvar::new(),
        refusal: AtomicI32::new(0),
        is_wrong: AtomicBool::new(false),
    };
    Box::into_raw(Box::new(id)).cast()
}

/// Raises an event of an identifier.
pub(super) fn raise(id: *mut sys::rdma_cm_id, raised: &Raised) {
    // SAFETY: the test names one that is alive.
    unsafe { push(id, id, null_mut(), raised) }
}

/// Somebody asks a listener.
pub(super) fn request(listener: *mut sys::rdma_cm_id, raised: &Raised) {
    // SAFETY: the test names one that is alive.
    unsafe {
        let id = new_identifier((*listener).channel, (*listener).ps);
        // As the library does it.
        (*id).context = (*listener).context;
        (*id).verbs = device::context();
        push(listener, id, listener, raised);
    }
}

unsafe fn push(
    of: *mut sys::rdma_cm_id,
    id: *mut sys::rdma_cm_id,
    listener: *mut sys::rdma_cm_id,
    raised: &Raised,
) {
    let mut raw = sys::rdma_cm_event::zeroed();
    raw.id = id;
    raw.listen_id = listener;
    raw.event = Kind(raised.kind);
    raw.status = raised.status;
    let data = raised.data.clone();
    let mut conn = raised.conn.unwrap_or(sys::rdma_conn_param::zeroed());
    conn.private_data = if data.is_empty() { null() } else { data.as_ptr().cast() };
    conn.private_data_len = u8::try_from(data.len()).unwrap();
    raw.param.conn = conn;
    if raised.group {
        raw.param.ud = group();
    }
    // SAFETY: by the caller.
    let channel = unsafe { channel_of(of) };
    channel.queue.lock().unwrap().push_back(Box::new(Event { raw, of: of.cast(), data }));
    rustix::io::write(&channel.ready, &1u64.to_ne_bytes()).unwrap();
}

/// How the datagrams of a group are addressed. The word of who joined stands where private data does otherwise: it is no address.
fn group() -> sys::rdma_ud_param {
    let mut told = sys::rdma_ud_param::zeroed();
    (told.private_data, told.private_data_len) = (std::ptr::without_provenance(16), 9);
    (told.qp_num, told.qkey) = (0xff_ffff, QKEY);
    (told.ah_attr.is_global, told.ah_attr.port_num, told.ah_attr.dlid) = (1, 1, 0xc001);
    told.ah_attr.grh.dgid.raw = [0xff; 16];
    told
}

/// Answers a call that ends with an event: by the script, or well.
fn end(id: *mut sys::rdma_cm_id, well: Raised) {
    let events = STATE.with_borrow_mut(|state| state.script.pop_front()).unwrap_or_else(|| vec![well]);
    for event in &events {
        raise(id, event);
    }
}

unsafe extern "C" fn create_channel() -> *mut sys::rdma_event_channel {
    if called("create_event_channel", "") != 0 {
        return null_mut();
    }
    let ready = eventfd(0, EventfdFlags::SEMAPHORE).unwrap();
    let raw = sys::rdma_event_channel { fd: ready.as_raw_fd() };
    Box::into_raw(Box::new(Channel { raw, ready, queue: Mutex::default() })).cast()
}

unsafe extern "C" fn destroy_channel(channel: *mut sys::rdma_event_channel) {
    note("destroy_event_channel");
    // SAFETY: made above, given back once.
    drop(unsafe { Box::from_raw(channel.cast::<Channel>()) });
}

unsafe extern "C" fn create_id(
    channel: *mut sys::rdma_event_channel,
    id: *mut *mut sys::rdma_cm_id,
    _context: *mut c_void,
    space: sys::RdmaPortSpace,
) -> c_int {
    let answer = called("create_id", "");
    if answer == 0 {
        // SAFETY: a place of the caller's.
        unsafe { *id = new_identifier(channel, space) };
    }
    answer
}

/// The real library waits until everything that was taken is acknowledged.
unsafe fn await_acknowledgements(id: *mut sys::rdma_cm_id) {
    // SAFETY: of the fake.
    let identifier = unsafe { &*id.cast::<Identifier>() };
    if identifier.taken.load(Ordering::SeqCst) != 0 {
        note("DEADLOCK");
        identifier.is_wrong.store(true, Ordering::SeqCst);
    }
    if identifier.dead.load(Ordering::SeqCst) != 0 {
        note("USE AFTER END");
        identifier.is_wrong.store(true, Ordering::SeqCst);
    }
}

unsafe extern "C" fn destroy_id(id: *mut sys::rdma_cm_id) -> c_int {
    let answer = called("destroy_id", "");
    if answer != 0 {
        return answer;
    }
    let end = End::of(id);
    end.0.is_ending.store(true, Ordering::SeqCst);
    // As the kernel does: until the peer is given up, or for ever.
    let kept = end.0.kept.lock().unwrap();
    let answer = end.0.freed.wait_timeout_while(kept, 2 * super::LONG, |kept| *kept).unwrap();
    if answer.1.timed_out() {
        note("WAITED");
    }
    drop(answer);
    let refusal = end.0.refusal.load(Ordering::SeqCst);
    if refusal != 0 {
        end.0.refusal.store(-refusal, Ordering::SeqCst);
        Errno(refusal).set();
        return -1;
    }
    // SAFETY: of the fake, and alive.
    unsafe {
        await_acknowledgements(id);
        (*id.cast::<Identifier>()).dead.store(1, Ordering::SeqCst);
        channel_of(id).queue.lock().unwrap().retain(|event| event.of != id.cast());
    }
    0
}

unsafe extern "C" fn get_event(
    channel: *mut sys::rdma_event_channel,
    event: *mut *mut sys::rdma_cm_event,
) -> c_int {
    // SAFETY: of the fake, and alive.
    let channel = unsafe { &*channel.cast::<Channel>() };
    let answer = STATE.with_borrow_mut(|state| {
        let failing = state.failing.iter().position(|(call, _)| *call == "get_cm_event");
        failing.map(|place| state.failing.remove(place).1)
    });
    if let Some(errno) = answer {
        Errno(errno).set();
        return -1;
    }
    let mut queue = channel.queue.lock().unwrap();
    let Some(next) = queue.pop_front() else {
        // What was raised for an identifier that has ended is gone from the kernel's queue too.
        let _ = rustix::io::read(&channel.ready, &mut [0; 8]);
        Errno(libc::EAGAIN).set();
        return -1;
    };
    let _ = rustix::io::read(&channel.ready, &mut [0; 8]);
    // SAFETY: never freed.
    unsafe { (*next.of).taken.fetch_add(1, Ordering::SeqCst) };
    // SAFETY: a place of the caller's.
    unsafe { *event = Box::into_raw(next).cast() };
    0
}

unsafe extern "C" fn ack_event(event: *mut sys::rdma_cm_event) -> c_int {
    // SAFETY: taken above, acknowledged once.
    let mut event = unsafe { Box::from_raw(event.cast::<Event>()) };
    // SAFETY: never freed.
    unsafe { (*event.of).taken.fetch_sub(1, Ordering::SeqCst) };
    // Who reads it from now on reads nonsense.
    event.data.fill(0xee);
    0
}

unsafe extern "C" fn migrate(id: *mut sys::rdma_cm_id, channel: *mut sys::rdma_event_channel) -> c_int {
    let answer = called("migrate_id", "");
    if answer != 0 {
        return answer;
    }
    // SAFETY: of the fake, and alive.
    unsafe {
        await_acknowledgements(id);
        let (from, to) = (channel_of(id), &*channel.cast::<Channel>());
        let mut moved = VecDeque::new();
        from.queue.lock().unwrap().retain_mut(|event| {
            let moves = event.of == id.cast();
            if moves {
                let copy = Event { raw: event.raw, of: event.of, data: std::mem::take(&mut event.data) };
                moved.push_back(Box::new(copy));
            }
            !moves
        });
        for event in moved {
            to.queue.lock().unwrap().push_back(event);
            rustix::io::write(&to.ready, &1u64.to_ne_bytes()).unwrap();
        }
        (*id).channel = channel;
    }
    0
}

unsafe extern "C" fn bind(id: *mut sys::rdma_cm_id, address: *mut libc::sockaddr) -> c_int {
    // SAFETY: the caller's address is as long as the largest; the identifier is of the fake.
    unsafe {
        (*id).route.addr.src.storage = *address.cast::<libc::sockaddr_storage>();
        // An address that is bound is that of a device.
        if is_of_datagrams(id) {
            ((*id).verbs, (*id).port_num) = (device::context(), 1);
        }
    }
    called("bind_addr", "")
}

unsafe fn is_of_datagrams(id: *mut sys::rdma_cm_id) -> bool {
    // SAFETY: of the fake.
    unsafe { (*id).qp_type == sys::IbvQpType::UD }
}

unsafe extern "C" fn listen(_: *mut sys::rdma_cm_id, backlog: c_int) -> c_int {
    called("listen", &backlog.to_string())
}

unsafe extern "C" fn resolve_addr(
    id: *mut sys::rdma_cm_id,
    _from: *mut libc::sockaddr,
    to: *mut libc::sockaddr,
    _timeout: c_int,
) -> c_int {
    let answer = called("resolve_addr", "");
    if answer == 0 {
        // SAFETY: the caller's address is as long as the largest; the identifier is of the fake.
        unsafe {
            (*id).route.addr.dst.storage = *to.cast::<libc::sockaddr_storage>();
            (*id).verbs = device::context();
            (*id).port_num = 1;
        }
        end(id, Raised::of(Kind::ADDR_RESOLVED));
    }
    answer
}

unsafe extern "C" fn resolve_route(id: *mut sys::rdma_cm_id, _timeout: c_int) -> c_int {
    let answer = called("resolve_route", "");
    if answer == 0 {
        end(id, Raised::of(Kind::ROUTE_RESOLVED));
    }
    answer
}

unsafe fn told(parameters: *mut sys::rdma_conn_param) -> String {
    // SAFETY: the caller's parameters, with private data of their length.
    unsafe {
        let parameters = &*parameters;
        let len = usize::from(parameters.private_data_len);
        let data =
            if len == 0 { &[][..] } else { std::slice::from_raw_parts(parameters.private_data.cast(), len) };
        let (answers, asks) = (parameters.responder_resources, parameters.initiator_depth);
        format!("qp {} reads {answers}/{asks} {:?}", parameters.qp_num, String::from_utf8_lossy(data))
    }
}

unsafe extern "C" fn connect(id: *mut sys::rdma_cm_id, parameters: *mut sys::rdma_conn_param) -> c_int {
    // SAFETY: the caller's.
    let answer = called("connect", &unsafe { told(parameters) });
    let iwarp = STATE.with_borrow(|state| state.iwarp);
    if answer == 0 {
        end(id, Raised::of(if iwarp { Kind::ESTABLISHED } else { Kind::CONNECT_RESPONSE }));
    }
    answer
}

unsafe extern "C" fn accept(id: *mut sys::rdma_cm_id, parameters: *mut sys::rdma_conn_param) -> c_int {
    // SAFETY: the caller's.
    let answer = called("accept", &unsafe { told(parameters) });
    if answer == 0 {
        end(id, Raised::of(Kind::ESTABLISHED));
    }
    answer
}

unsafe extern "C" fn reject(_: *mut sys::rdma_cm_id, data: *const c_void, len: u8) -> c_int {
    let len = usize::from(len);
    // SAFETY: the caller's data, of that length.
    let data = if len == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(data.cast(), len) } };
    called("reject", &format!("{:?}", String::from_utf8_lossy(data)))
}

unsafe extern "C" fn establish(_: *mut sys::rdma_cm_id) -> c_int {
    called("establish", "")
}

unsafe extern "C" fn disconnect(_: *mut sys::rdma_cm_id) -> c_int {
    called("disconnect", "")
}

unsafe extern "C" fn join(id: *mut sys::rdma_cm_id, _: *mut libc::sockaddr, _: *mut c_void) -> c_int {
    let answer = called("join_multicast", "");
    if answer == 0 {
        end(id, Raised::of(Kind::MULTICAST_JOIN));
    }
    answer
}

unsafe extern "C" fn devices(_count: *mut c_int) -> *mut *mut sys::ibv_context {
    note("get_devices");
    if !STATE.with_borrow(|state| state.device_listed) {
        return null_mut();
    }
    Box::into_raw(Box::new([device::context(), null_mut()])).cast()
}

unsafe extern "C" fn free_devices(list: *mut *mut sys::ibv_context) {
    note("free_devices");
    // SAFETY: made above, freed once.
    drop(unsafe { Box::from_raw(list.cast::<[*mut sys::ibv_context; 2]>()) });
}

unsafe extern "C" fn init_qp_attr(
    id: *mut sys::rdma_cm_id,
    attributes: *mut sys::ibv_qp_attr,
    mask: *mut c_int,
) -> c_int {
    let iwarp = STATE.with_borrow(|state| state.iwarp);
    // SAFETY: places of the caller's.
    unsafe {
        // As the kernel proposes it: everything that a peer could want to do.
        (*attributes).qp_access_flags = 0xf;
        (*attributes).max_dest_rd_atomic = 99;
        (*attributes).max_rd_atomic = 99;
        (*attributes).dest_qp_num = 42;
        ((*attributes).port_num, (*attributes).qkey) = (1, QKEY);
        *mask = match ((*attributes).qp_state, iwarp) {
            (sys::IbvQpState::INIT, false) if is_of_datagrams(id) => 0x71,
            (sys::IbvQpState::INIT, false) => 0x39,
            (sys::IbvQpState::RTR, false) => 1 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 15 | 1 << 17 | 1 << 20,
            (_, false) => 1 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13 | 1 << 16,
            (sys::IbvQpState::RTS, true) => 1 << 5,
            (_, true) => 1 | 1 << 3 | 1 << 5,
        };
    }
    called("init_qp_attr", "")
}

/// A library with this connection manager and a device that does nothing.
pub(super) fn library() -> Library {
    let mut cm = sys::CmTable::unsupported();
    cm.rdma_create_event_channel = create_channel;
    cm.rdma_destroy_event_channel = destroy_channel;
    cm.rdma_create_id = create_id;
    cm.rdma_destroy_id = destroy_id;
    cm.rdma_get_cm_event = get_event;
    cm.rdma_ack_cm_event = ack_event;
    cm.rdma_migrate_id = migrate;
    cm.rdma_bind_addr = bind;
    cm.rdma_listen = listen;
    cm.rdma_resolve_addr = resolve_addr;
    cm.rdma_resolve_route = resolve_route;
    cm.rdma_connect = connect;
    cm.rdma_accept = accept;
    cm.rdma_reject = reject;
    cm.rdma_establish = Some(establish);
    cm.rdma_disconnect = disconnect;
    cm.rdma_join_multicast = join;
    cm.rdma_get_devices = devices;
    cm.rdma_free_devices = free_devices;
    cm.rdma_init_qp_attr = Some(init_qp_attr);
    // SAFETY: the functions above and those of the device do what the manual pages say, as far as the tests go.
    Library::with(unsafe { sys::Library::from_table(device::table(), Some(cm)) })
}

/// A library with the device alone.
pub(super) fn library_without_cm() -> Library {
    // SAFETY: as above.
    Library::with(unsafe { sys::Library::from_table(device::table(), None) })
}
