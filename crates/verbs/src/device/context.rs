//! An opened device: what it can do, its ports and addresses, and what is made from it.
#![allow(unsafe_code)]

use super::attributes::DeviceAttributes;
use super::gid::{Choice, Gid, GidEntry, GidKind, PortBrief, choose};
use super::port_attributes::PortAttributes;
use crate::error::{Error, Result};
use crate::library::Library;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// An opened device. `Clone` is another handle to the same; `Send` and `Sync`.
///
/// Closed with the last thing made from it, on whichever thread that is dropped; it holds the library.
#[derive(Clone)]
#[doc(alias = "ibv_context")]
pub struct Context {
    shared: Arc<Opened>,
}

struct Opened {
    library: Library,
    context: NonNull<sys::ibv_context>,
    name: String,
    /// Whether it is ours to close; one that belongs to a connection identifier is not.
    owned: bool,
    /// What keeps it, if it is not ours.
    _keeper: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

/// Devices that something else has opened and of which handles are out.
#[derive(Default)]
pub(crate) struct ForeignContexts(Mutex<Vec<Weak<Opened>>>);

// SAFETY: an opened device may be used by any thread (ibv_open_device(3): libibverbs is thread-safe).
unsafe impl Send for Opened {}
// SAFETY: the same.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // SAFETY: opened by us, closed once; everything made from it holds this value.
        let answer = unsafe { (self.library.table().ibv_close_device)(self.context.as_ptr()) };
        if let Err(errno) = sys::Errno::check(answer) {
            self.library.leaked("ibv_close_device", &self.name, errno.0);
        }
    }
}

impl Context {
    pub(super) fn open(library: Library, device: NonNull<sys::ibv_device>, name: &str) -> Result<Self> {
        // SAFETY: the device is of a list that is alive.
        let context = unsafe { (library.table().ibv_open_device)(device.as_ptr()) };
        let Some(context) = NonNull::new(context) else {
            return Err(Error::call("ibv_open_device", name, sys::Errno::last().0));
        };
        let opened = Opened { library, context, name: name.to_owned(), owned: true, _keeper: None };
        // SAFETY: just opened.
        let missing = unsafe { sys::missing_data_path(context.as_ptr()) };
        if missing.is_empty() {
            return Ok(Self { shared: Arc::new(opened) });
        }
        Err(Error::Unsupported {
            what: "posting and polling",
            object: format!("{name} (no {})", missing.join(", ")),
        })
    }

    /// A device that something else has opened and keeps open as long as `keeper` is not dropped.
    ///
    /// # Safety
    /// `context` is an opened device of this library until `keeper` is dropped.
    pub unsafe fn from_raw(
        library: &Library,
        context: NonNull<sys::ibv_context>,
        keeper: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Self {
        // SAFETY: by the caller's promise it is open, so its device is there.
        let name = unsafe { (library.table().ibv_get_device_name)((*context.as_ptr()).device) };
        let name = if name.is_null() {
            String::new()
        } else {
            // SAFETY: the library's text, terminated.
            unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        let opened = Opened { library: library.clone(), context, name, owned: false, _keeper: Some(keeper) };
        Self { shared: Arc::new(opened) }
    }

    /// The handle of a device that something else has opened: the one that there is already, or a new one with this keeper.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that cannot post or poll.
    ///
    /// # Safety
    /// `context` is an opened device of this library now, and until what `keeper` makes is dropped.
    pub(crate) unsafe fn shared(
        library: &Library,
        context: NonNull<sys::ibv_context>,
        keeper: impl FnOnce() -> Arc<dyn std::any::Any + Send + Sync>,
    ) -> Result<Self> {
        let mut known = library.foreign_contexts().0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|opened| opened.strong_count() > 0);
        // A device whose handle lives is open, so no other can have its address.
        let same = |opened: &Arc<Opened>| opened.context == context;
        if let Some(shared) = known.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(Self { shared });
        }
        // SAFETY: by the caller's promise.
        let new = unsafe { Self::from_raw(library, context, keeper()) };
        // SAFETY: the same.
        let missing = unsafe { sys::missing_data_path(context.as_ptr()) };
        if !missing.is_empty() {
            return Err(Error::Unsupported {
                what: "posting and polling",
                object: format!("{} (no {})", new.name(), missing.join(", ")),
            });
        }
        known.push(Arc::downgrade(&new.shared));
        Ok(new)
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The library it is of.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.shared.library
    }

    pub(crate) fn table(&self) -> &sys::VerbsTable {
        self.shared.library.table()
    }

    /// The raw context; it stays open as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_context {
        self.shared.context.as_ptr()
    }

    /// Whether two handles are of one opened device.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What the device can do. Asks the extended question first.
    ///
    /// # Errors
    /// [`Error::Call`] when the device does not answer either.
    #[doc(alias = "ibv_query_device")]
    #[doc(alias = "ibv_query_device_ex")]
    pub fn attributes(&self) -> Result<DeviceAttributes> {
        // SAFETY: the context is open.
        let answer = unsafe { self.table().query_device_ex(self.as_raw()) };
        answer
            .map(DeviceAttributes::new)
            .map_err(|errno| Error::call("ibv_query_device_ex", self.name(), errno.0))
    }

    /// What a port says of itself; ports count from 1.
    ///
    /// # Errors
    /// [`Error::Call`] with `EINVAL` for a port that there is not.
    #[doc(alias = "ibv_query_port")]
    pub fn port(&self, number: u8) -> Result<PortAttributes> {
        // SAFETY: the context is open.
        let answer = unsafe { self.table().query_port(self.as_raw(), number) };
        let object = format_args!("port {number} of {}", self.name());
        answer
            .map(|attributes| PortAttributes::new(number, attributes))
            .map_err(|errno| Error::call("ibv_query_port", object, errno.0))
    }

    /// What each port says of itself, in order.
    ///
    /// # Errors
    /// As [`attributes`](Self::attributes) and [`port`](Self::port).
    pub fn ports(&self) -> Result<Vec<PortAttributes>> {
        let count = self.attributes()?.port_count().min(u32::from(u8::MAX));
        (1..=count as u8).map(|number| self.port(number)).collect()
    }

    /// One GID by its place.
    ///
    /// # Errors
    /// [`Error::Call`] for a place that there is not.
    #[doc(alias = "ibv_query_gid")]
    pub fn gid(&self, port: u8, index: u32) -> Result<Gid> {
        let object = || format!("GID {index} of port {port} of {}", self.name());
        let Ok(place) = i32::try_from(index) else {
            return Err(Error::call("ibv_query_gid", object(), libc::EINVAL));
        };
        let mut gid = sys::ibv_gid::zeroed();
        // SAFETY: the context is open, the place a local.
        let answer = unsafe { (self.table().ibv_query_gid)(self.as_raw(), port, place, &mut gid) };
        sys::Errno::check(answer).map_err(|errno| Error::call("ibv_query_gid", object(), errno.0))?;
        // SAFETY: every byte of it is a number, whichever name it has.
        Ok(Gid::from_bytes(unsafe { gid.raw }))
    }

    /// All GIDs of all ports with their kinds and network interfaces, without empty places.
    ///
    /// Where library or kernel cannot tell kinds, they are read from `/sys/class/infiniband`.
    ///
    /// # Errors
    /// [`Error::Call`] when the ports cannot be asked.
    #[doc(alias = "ibv_query_gid_table")]
    pub fn gid_table(&self) -> Result<Vec<GidEntry>> {
        let ports = self.ports()?;
        let places: usize = ports.iter().map(|port| port.gid_table_len() as usize).sum();
        let mut raw = vec![sys::ibv_gid_entry::zeroed(); places.min(1 << 16)];
        // SAFETY: the context is open, the entries are this call's own.
        match unsafe { self.table().query_gid_table(self.as_raw(), &mut raw) } {
            Ok(count) => Ok(raw.iter().take(count).filter_map(entry).collect()),
            Err(errno) if errno == sys::Errno::NOT_SUPPORTED => self.gid_table_by_place(&ports),
            Err(errno) => Err(Error::call("ibv_query_gid_table", self.name(), errno.0)),
        }
    }

    /// The table of a library that has no call for it.
    fn gid_table_by_place(&self, ports: &[PortAttributes]) -> Result<Vec<GidEntry>> {
        let mut table = Vec::new();
        for port in ports {
            for index in 0..port.gid_table_len() {
                let gid = match self.gid(port.number(), index) {
                    Ok(gid) if !gid.is_zero() => gid,
                    _ => continue,
                };
                let base = format!("/sys/class/infiniband/{}/ports/{}/gid_attrs", self.name(), port.number());
                let kind = match std::fs::read_to_string(format!("{base}/types/{index}")) {
                    Ok(text) if text.trim() == "RoCE v2" => GidKind::ROCE_V2,
                    Ok(text)
                        if text.trim() == "IB/RoCE v1" && port.link_layer() == super::LinkLayer::ETHERNET =>
                    {
                        GidKind::ROCE_V1
                    }
                    _ => GidKind::INFINIBAND,
                };
                let interface = std::fs::read_to_string(format!("{base}/ndevs/{index}"))
                    .ok()
                    .map(|text| text.trim().to_owned());
                let interface_index = interface
                    .as_ref()
                    .and_then(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok())
                    .and_then(|text| text.trim().parse().ok())
                    .unwrap_or(0);
                table.push(GidEntry { gid, index, port: port.number(), kind, interface_index, interface });
            }
        }
        Ok(table)
    }

    /// Which port and GID to use when nobody says, with the reasons; `port` limits the choice to one port.
    ///
    /// # Errors
    /// As [`ports`](Self::ports) and [`gid_table`](Self::gid_table); [`Error::Invalid`] for a port that there is not.
    pub fn choose_gid(&self, port: Option<u8>) -> Result<Choice> {
        let ports: Vec<_> = self
            .ports()?
            .iter()
            .map(|port| PortBrief {
                number: port.number(),
                state: port.state(),
                link_layer: port.link_layer(),
            })
            .collect();
        choose(&ports, &self.gid_table()?, port).ok_or_else(|| {
            Error::invalid(
                "port",
                match port {
                    Some(port) => format!("{} has no port {port} (it has {})", self.name(), ports.len()),
                    None => format!("{} has no port", self.name()),
                },
                "take a port of the device",
            )
        })
    }

    /// A partition key by its place.
    ///
    /// # Errors
    /// [`Error::Call`] for a place that there is not.
    #[doc(alias = "ibv_query_pkey")]
    pub fn pkey(&self, port: u8, index: u16) -> Result<u16> {
        let mut pkey = 0;
        // SAFETY: the context is open, the place a local.
        let answer =
            unsafe { (self.table().ibv_query_pkey)(self.as_raw(), port, i32::from(index), &mut pkey) };
        sys::Errno::check(answer).map_err(|errno| {
            Error::call(
                "ibv_query_pkey",
                format_args!("place {index} of port {port} of {}", self.name()),
                errno.0,
            )
        })?;
        Ok(u16::from_be(pkey))
    }

    /// How many completion vectors there are: interrupts that queues can be spread over.
    #[must_use]
    pub fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open, and nobody writes the field.
        u32::try_from(unsafe { (*self.as_raw()).num_comp_vectors }).unwrap_or(0)
    }

    /// The device's clock, as the time since it began to count.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has none or does not say how fast it runs.
    #[doc(alias = "ibv_query_rt_values_ex")]
    pub fn clock(&self) -> Result<Duration> {
        let unsupported =
            || Error::Unsupported { what: "reading the device's clock", object: self.name().to_owned() };
        let khz = self.attributes()?.clock_khz();
        let mut values = sys::ibv_values_ex::zeroed();
        values.comp_mask = sys::IBV_VALUES_MASK_RAW_CLOCK;
        // SAFETY: the context is open, the place a local.
        unsafe { sys::ibv_query_rt_values_ex(self.as_raw(), &mut values) }
            .map_err(|errno| Error::call("ibv_query_rt_values_ex", self.name(), errno.0))?;
        if khz == 0 || values.comp_mask & sys::IBV_VALUES_MASK_RAW_CLOCK == 0 {
            return Err(unsupported());
        }
        let cycles = values.raw_clock.tv_nsec as u64;
        let nanoseconds = u128::from(cycles) * 1_000_000 / u128::from(khz);
        Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

fn entry(raw: &sys::ibv_gid_entry) -> Option<GidEntry> {
    // SAFETY: every byte of it is a number, whichever name it has.
    let gid = Gid::from_bytes(unsafe { raw.gid.raw });
    if gid.is_zero() {
        return None;
    }
    Some(GidEntry {
        gid,
        index: raw.gid_index,
        port: u8::try_from(raw.port_num).ok()?,
        kind: GidKind::from_raw(raw.gid_type),
        interface_index: raw.ndev_ifindex,
        interface: interface_name(raw.ndev_ifindex),
    })
}

/// The name of a network interface, where this process sees it.
fn interface_name(index: u32) -> Option<String> {
    // Miri has no such call.
    if cfg!(miri) {
        return None;
    }
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the call asks for.
    let answer = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if answer.is_null() {
        return None;
    }
    // SAFETY: the call terminated it.
    Some(unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name())
    }
}
