//! The calls of librdmacm on one identifier, in any order: what [`Id`](super::Id) makes safe to order by its types. Nothing here waits for a peer.
#![allow(unsafe_code)]

use super::address::{Address, STORAGE_LEN};
use super::channel::EventChannel;
use super::devices;
use super::event::{ConnectionAttributes, IdNumber};
use super::parameters::{PortSpace, PrivateData};
use super::reaper;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::qp::Attributes;
use crate::qp::state::{AttributeMask, State};
use sinew_verbs_sys as sys;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An identifier in whatever state.
pub(super) struct Base {
    owned: Arc<Owned>,
}

pub(super) struct Owned {
    id: NonNull<sys::rdma_cm_id>,
    number: IdNumber,
    /// Where its events arrive now. Locked before the channel's own lock.
    channel: Mutex<EventChannel>,
    /// Whether its end waits in the kernel for a peer that was asked.
    is_waited_for: AtomicBool,
}

// SAFETY: an identifier may be used and destroyed by any thread; every call on it but the last holds its channel's lock.
unsafe impl Send for Owned {}
// SAFETY: the same.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        let channel = self.channel.get_mut().unwrap_or_else(PoisonError::into_inner).clone();
        let dying = Dying { id: self.id, number: self.number, channel };
        if *self.is_waited_for.get_mut() {
            dying.forget_events();
            if let Err(dying) = reaper::hand_over(dying) {
                dying.end();
            }
        } else {
            let channel = dying.channel.clone();
            // Nobody has an event of it meanwhile that is not acknowledged: the call waits for nobody.
            let held = channel.hold();
            let answer = dying.destroy();
            drop(held);
            dying.destroyed(answer);
        }
    }
}

/// An identifier that nobody has any more, to be destroyed once.
pub(super) struct Dying {
    id: NonNull<sys::rdma_cm_id>,
    number: IdNumber,
    channel: EventChannel,
}

// SAFETY: as for one that is owned.
unsafe impl Send for Dying {}

impl Dying {
    /// Events of it go to nobody from here on: they are acknowledged when they are taken, and told to none.
    fn forget_events(&self) {
        let _held = self.channel.hold();
        // SAFETY: it lives, and is touched under its channel's lock. The word is the user's, and a number only.
        unsafe { (*self.id.as_ptr()).context = std::ptr::without_provenance_mut(IdNumber::NOBODY.0) };
    }

    /// Destroys it without its channel's lock: others take events meanwhile, and of this one, too. The library waits for their acknowledgements, which follow under that lock.
    pub(super) fn end(self) {
        let answer = self.destroy();
        self.destroyed(answer);
    }

    fn destroy(&self) -> c_int {
        let Ok(table) = self.channel.library().cm_table() else { return 0 };
        // SAFETY: owned by this alone, which is used up behind it; its channel is alive.
        unsafe { (table.rdma_destroy_id)(self.id.as_ptr()) }
    }

    fn destroyed(self, answer: c_int) {
        if let Err(errno) = sys::Errno::check(answer) {
            let object = format_args!("identifier {:?}", self.number);
            self.channel.library().leaked("rdma_destroy_id", &object, errno.0);
            // It is still of its channel.
            std::mem::forget(self.channel);
        }
    }
}

/// The next number of an identifier. 0 is none.
fn next_number() -> IdNumber {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    IdNumber(NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Base {
    /// Makes one whose events arrive at this channel.
    pub(super) fn new(channel: &EventChannel, space: PortSpace) -> Result<Self> {
        let mut id = std::ptr::null_mut();
        let table = channel.library().cm_table()?;
        let held = channel.hold();
        // SAFETY: the channel is alive, the place a local.
        let answer =
            unsafe { (table.rdma_create_id)(channel.as_raw(), &mut id, std::ptr::null_mut(), space) };
        let made = sys::Errno::check(answer).and_then(|()| NonNull::new(id).ok_or(sys::Errno::UNKNOWN));
        let id =
            made.map_err(|errno| Error::call("rdma_create_id", format_args!("port space {space}"), errno.0))?;
        // SAFETY: just made, of this channel, which is held, and nobody else has it.
        let id = unsafe { Self::own(channel, id) };
        drop(held);
        Ok(id)
    }

    /// Takes an identifier over and gives it a number of its own.
    ///
    /// # Safety
    /// It is of this channel, which the caller holds, and is owned by nobody.
    pub(super) unsafe fn own(channel: &EventChannel, id: NonNull<sys::rdma_cm_id>) -> Self {
        let number = next_number();
        // SAFETY: it lives, and is touched under its channel's lock. The word is the user's, and a number only.
        unsafe { (*id.as_ptr()).context = std::ptr::without_provenance_mut(number.0) };
        let (channel, is_waited_for) = (Mutex::new(channel.clone()), AtomicBool::new(false));
        Self { owned: Arc::new(Owned { id, number, channel, is_waited_for }) }
    }

    /// Its number, which events of it carry.
    pub(super) fn number(&self) -> IdNumber {
        self.owned.number
    }

    /// The raw identifier; it stays as long as this value. Calls on it by hand go beside the lock that those here hold.
    pub(super) fn as_raw(&self) -> *mut sys::rdma_cm_id {
        self.owned.id.as_ptr()
    }

    fn here(&self) -> MutexGuard<'_, EventChannel> {
        self.owned.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library it is of.
    pub(super) fn library(&self) -> Library {
        self.here().library().clone()
    }

    /// Does something with the raw identifier while nobody else does.
    fn with<R>(&self, what: impl FnOnce(&sys::CmTable, *mut sys::rdma_cm_id) -> R) -> Result<R> {
        let channel = self.here();
        let _held = channel.hold();
        Ok(what(channel.library().cm_table()?, self.as_raw()))
    }

    /// Calls a function that answers 0.
    fn call(
        &self,
        name: &'static str,
        what: impl FnOnce(&sys::CmTable, *mut sys::rdma_cm_id) -> c_int,
    ) -> Result<()> {
        // The number is read before anything else can set it.
        let answer = self.with(|table, id| sys::Errno::check(what(table, id)))?;
        answer.map_err(|errno| Error::call(name, self, errno.0))
    }

    /// The same of a function that asks the identifier's device without a look whether it has one (librdmacm crashes): refused with `EINVAL` before.
    fn call_on_device(
        &self,
        name: &'static str,
        what: impl FnOnce(&sys::CmTable, *mut sys::rdma_cm_id) -> c_int,
    ) -> Result<()> {
        self.call(name, |table, id| {
            // SAFETY: the identifier lives, and is read under its channel's lock. The library finds its device with this field, and never takes it away.
            if unsafe { (*id).verbs }.is_null() { libc::EINVAL } else { what(table, id) }
        })
    }

    /// Moves it, and its events that nobody has taken, to another channel (rdma_migrate_id(3)). Does not block.
    pub(super) fn migrate(&self, to: &EventChannel) -> Result<()> {
        let mut here = self.here();
        if here.is(to) {
            return Ok(());
        }
        if !here.library().is(to.library()) {
            return Err(Error::invalid(
                "event channel",
                "it is of another library",
                "make channel and identifier by one library",
            ));
        }
        let table = to.library().cm_table()?;
        // Whoever migrates the other way takes the two locks in the same order.
        let (first, second) = if here.as_raw() < to.as_raw() { (&*here, to) } else { (to, &*here) };
        let held = (first.hold(), second.hold());
        // SAFETY: both are alive. Its events that were taken are acknowledged, as they are under a lock that is held: the call does not
        // wait for them.
        let answer = sys::Errno::check(unsafe { (table.rdma_migrate_id)(self.as_raw(), to.as_raw()) });
        drop(held);
        answer.map_err(|errno| {
            Error::call("rdma_migrate_id", format_args!("identifier {:?}", self.number()), errno.0)
        })?;
        *here = to.clone();
        Ok(())
    }

    /// Binds it to an address of this machine; port 0 for any port, the unspecified address for every device (rdma_bind_addr(3)).
    pub(super) fn bind(&self, address: impl Into<Address>) -> Result<()> {
        let mut address = raw_address(&address.into());
        // SAFETY: the identifier lives; the address is a local and is copied.
        self.call("rdma_bind_addr", |table, id| unsafe {
            (table.rdma_bind_addr)(id, (&raw mut address).cast())
        })
    }

    /// Listens; that many requests may wait to be taken (rdma_listen(3)). Each arrives as [`Event::Request`](super::Event::Request).
    pub(super) fn listen(&self, backlog: u32) -> Result<()> {
        let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
        // SAFETY: the identifier lives.
        self.call("rdma_listen", |table, id| unsafe { (table.rdma_listen)(id, backlog) })
    }

    /// Finds the device with the way to an address, from one of this machine or from any; ends with `ADDR_RESOLVED` or `ADDR_ERROR`
    /// (rdma_resolve_addr(3)).
    pub(super) fn resolve_address(
        &self,
        from: Option<&Address>,
        to: &Address,
        timeout: Duration,
    ) -> Result<()> {
        let mut from = from.map(raw_address);
        let from = from.as_mut().map_or(std::ptr::null_mut(), |from| (&raw mut *from).cast());
        let mut to = raw_address(to);
        // SAFETY: the identifier lives; the addresses are locals, and are copied.
        self.call("rdma_resolve_addr", |table, id| unsafe {
            (table.rdma_resolve_addr)(id, from, (&raw mut to).cast(), milliseconds(timeout))
        })
    }

    /// Finds the path to the address that was resolved; ends with `ROUTE_RESOLVED` or `ROUTE_ERROR` (rdma_resolve_route(3)).
    pub(super) fn resolve_route(&self, timeout: Duration) -> Result<()> {
        // SAFETY: the identifier lives.
        self.call_on_device("rdma_resolve_route", |table, id| unsafe {
            (table.rdma_resolve_route)(id, milliseconds(timeout))
        })
    }

    /// What a queue pair is to be changed to for a state, by what is known of the connection now (rdma_init_qp_attr(3)). Over iWARP the
    /// driver does the last step itself: the attributes have no state then, and nothing is to be changed.
    pub(super) fn attributes(&self, state: State) -> Result<Attributes> {
        let mut raw = sys::ibv_qp_attr::zeroed();
        raw.qp_state = sys::IbvQpState(state.as_raw());
        let mut mask = 0;
        let function = self.library().cm_table()?.rdma_init_qp_attr;
        let function = function.ok_or_else(|| self.unsupported("rdma_init_qp_attr"))?;
        // SAFETY: the identifier lives, both places are locals.
        self.call_on_device("rdma_init_qp_attr", |_, id| unsafe { function(id, &mut raw, &mut mask) })?;
        Ok(Attributes::from_raw(raw, AttributeMask::from_bits_retain(mask as u32)))
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { what, object: "this librdmacm (rdma-core 17 and later can)".to_owned() }
    }

    /// Asks for the connection (rdma_connect(3)).
    pub(super) fn connect(&self, attributes: &ConnectionAttributes, private_data: &[u8]) -> Result<()> {
        let mut raw = self.told(attributes, private_data, PrivateData::Connect)?;
        // SAFETY: the identifier lives; parameters and private data live through the call and are copied.
        self.call_on_device("rdma_connect", |table, id| unsafe { (table.rdma_connect)(id, &mut raw) })?;
        if self.is_of_iwarp()? {
            self.owned.is_waited_for.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The peer has answered, or is given up: the end of this waits for it no more.
    pub(super) fn answered(&self) {
        self.owned.is_waited_for.store(false, Ordering::Relaxed);
    }

    fn is_of_iwarp(&self) -> Result<bool> {
        // SAFETY: the identifier lives, and is read under its channel's lock; its device is open as long.
        self.with(|_, id| unsafe {
            let device = (*id).verbs.as_ref().and_then(|context| context.device.as_ref());
            device.is_some_and(|device| device.transport_type == sys::IbvTransportType::IWARP)
        })
    }

    /// Accepts the request that it came with; ends with `ESTABLISHED` or an error (rdma_accept(3)). The queue pair must be brought up before.
    pub(super) fn accept(&self, attributes: &ConnectionAttributes, private_data: &[u8]) -> Result<()> {
        let mut raw = self.told(attributes, private_data, PrivateData::Accept)?;
        // SAFETY: the identifier lives; parameters and private data live through the call and are copied.
        self.call_on_device("rdma_accept", |table, id| unsafe { (table.rdma_accept)(id, &mut raw) })
    }

    fn told(
        &self,
        attributes: &ConnectionAttributes,
        private_data: &[u8],
        when: PrivateData,
    ) -> Result<sys::rdma_conn_param> {
        let mut raw = attributes.to_raw();
        raw.private_data_len = when.check(self.port_space()?, private_data)?;
        raw.private_data =
            if private_data.is_empty() { std::ptr::null() } else { private_data.as_ptr().cast() };
        Ok(raw)
    }

    /// Rejects the request that it came with, and tells why (rdma_reject(3)).
    pub(super) fn reject(&self, private_data: &[u8]) -> Result<()> {
        let len = PrivateData::Reject.check(self.port_space()?, private_data)?;
        let data: *const c_void =
            if len == 0 { std::ptr::null() } else { private_data.as_ptr().cast::<c_void>() };
        // SAFETY: the identifier lives; the data lives through the call and is copied.
        self.call_on_device("rdma_reject", |table, id| unsafe { (table.rdma_reject)(id, data, len) })
    }

    /// Completes a connection after `CONNECT_RESPONSE`, when the queue pair is up (rdma_establish(3)).
    pub(super) fn establish(&self) -> Result<()> {
        let function = self.library().cm_table()?.rdma_establish;
        let function = function.ok_or_else(|| self.unsupported("rdma_establish"))?;
        // SAFETY: the identifier lives.
        self.call_on_device("rdma_establish", |_, id| unsafe { function(id) })
    }

    /// Ends the connection, or answers that the peer has ended it; both ends get `DISCONNECTED` (rdma_disconnect(3)).
    pub(super) fn disconnect(&self) -> Result<()> {
        // SAFETY: the identifier lives.
        self.call_on_device("rdma_disconnect", |table, id| unsafe { (table.rdma_disconnect)(id) })
    }

    /// Tells that the first message has come before `ESTABLISHED` did, as an asynchronous event of the queue pair says
    /// (`COMM_EST`; rdma_notify(3)).
    pub(super) fn notify_established(&self) -> Result<()> {
        // SAFETY: the identifier lives.
        self.call_on_device("rdma_notify", |table, id| unsafe {
            (table.rdma_notify)(id, sys::IbvEventType::COMM_EST)
        })
    }

    /// Joins a group; ends with `MULTICAST_JOIN`, which says how its datagrams are addressed, or `MULTICAST_ERROR`
    /// (rdma_join_multicast(3)). The queue pair is attached by who made it.
    pub(super) fn join(&self, group: &Address) -> Result<()> {
        let mut group = raw_address(group);
        // SAFETY: the identifier lives; the address is a local and is copied.
        self.call_on_device("rdma_join_multicast", |table, id| unsafe {
            (table.rdma_join_multicast)(id, (&raw mut group).cast(), std::ptr::null_mut())
        })
    }

    /// Type of service of what it sends (rdma_set_option(3)); before the address is resolved.
    pub(super) fn set_type_of_service(&self, tos: u8) -> Result<()> {
        self.set(sys::RDMA_OPTION_ID_TOS, tos)
    }

    /// Whether an address in use can be bound (as `SO_REUSEADDR`); before it is bound.
    pub(super) fn set_reuse_address(&self, reuse: bool) -> Result<()> {
        self.set(sys::RDMA_OPTION_ID_REUSEADDR, c_int::from(reuse))
    }

    /// Whether the unspecified address of IPv6 leaves IPv4 out; before it is bound.
    pub(super) fn set_one_family(&self, only: bool) -> Result<()> {
        self.set(sys::RDMA_OPTION_ID_AFONLY, c_int::from(only))
    }

    fn set<T: Copy>(&self, name: c_int, mut value: T) -> Result<()> {
        // SAFETY: the identifier lives; the value is a local of the type that the option has, and is copied.
        self.call("rdma_set_option", |table, id| unsafe {
            (table.rdma_set_option)(id, sys::RDMA_OPTION_ID, name, (&raw mut value).cast(), size_of::<T>())
        })
    }

    /// Which ports it is of.
    pub(super) fn port_space(&self) -> Result<PortSpace> {
        // SAFETY: the identifier lives, and is read under its channel's lock.
        self.with(|_, id| unsafe { (*id).ps })
    }

    /// The port of its device, from 1; nothing before a device is found.
    pub(super) fn device_port(&self) -> Result<Option<u8>> {
        // SAFETY: the identifier lives, and is read under its channel's lock.
        let port = self.with(|_, id| unsafe { (*id).port_num })?;
        Ok((port != 0).then_some(port))
    }

    /// Its own address; nothing before it is bound or resolved. After binding to port 0 it says which port it is.
    pub(super) fn local_address(&self) -> Result<Option<Address>> {
        // SAFETY: the identifier lives, and is read under its channel's lock; the storage is the union's largest member.
        self.with(|_, id| unsafe { (*id).route.addr.src.storage }).map(|raw| from_raw(&raw))
    }

    /// The peer's address; nothing before it is resolved.
    pub(super) fn peer_address(&self) -> Result<Option<Address>> {
        // SAFETY: the identifier lives, and is read under its channel's lock; the storage is the union's largest member.
        self.with(|_, id| unsafe { (*id).route.addr.dst.storage }).map(|raw| from_raw(&raw))
    }

    /// The device that it was resolved to, bound to, or asked through; nothing before. It stays open as long as a handle of it.
    pub(super) fn context(&self) -> Result<Option<Context>> {
        // SAFETY: the identifier lives, and is read under its channel's lock.
        let raw = self.with(|_, id| unsafe { (*id).verbs })?;
        let Some(raw) = NonNull::new(raw) else { return Ok(None) };
        // SAFETY: the identifier's device, which is open as long as the identifier is.
        unsafe { devices::context(&self.library(), raw, &self.owned) }.map(Some)
    }

    /// The same where there must be one.
    pub(super) fn device(&self) -> Result<Context> {
        self.context()?.ok_or_else(|| Error::call("rdma_cm_id", self, libc::ENODEV))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identifier {:?}", self.number())?;
        if let Ok(Some(local)) = self.local_address() {
            write!(f, " at {local}")?;
        }
        if let Ok(Some(peer)) = self.peer_address() {
            write!(f, " to {peer}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({self})")
    }
}

/// As the library takes it; at least a millisecond, as 0 asks for nothing.
fn milliseconds(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX).max(1)
}

fn raw_address(address: &Address) -> libc::sockaddr_storage {
    // SAFETY: of one size, and every byte of a storage is a number.
    unsafe { std::mem::transmute::<[u8; STORAGE_LEN], libc::sockaddr_storage>(address.to_bytes()) }
}

fn from_raw(raw: &libc::sockaddr_storage) -> Option<Address> {
    // SAFETY: of one size; a storage is nothing but numbers, and the library's begins as zeros.
    Address::from_bytes(&unsafe { std::mem::transmute::<libc::sockaddr_storage, [u8; STORAGE_LEN]>(*raw) })
}
