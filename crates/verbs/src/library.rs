//! The library that everything goes through: the system's libibverbs, or a table from elsewhere.
#![allow(unsafe_code)]

use crate::device::{DeviceList, ForeignContexts};
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// libibverbs (and librdmacm), loaded. `Clone` is another handle; `Send` and `Sync`.
///
/// It is never unloaded: drivers keep threads and hooks of their own.
#[derive(Clone)]
pub struct Library {
    shared: Arc<Shared>,
}

struct Shared {
    library: sys::Library,
    leaked: AtomicU64,
    foreign: ForeignContexts,
}

impl Library {
    /// The system's, loaded once per process; the answer, also a failure, is kept.
    ///
    /// `SINEW_IBVERBS_LIB` and `SINEW_RDMACM_LIB` name other files.
    ///
    /// # Errors
    /// [`Error::Library`] with what was looked for, what is wrong with it and what to install.
    pub fn open() -> Result<Self> {
        static OPENED: OnceLock<Result<Library>> = OnceLock::new();
        OPENED
            .get_or_init(|| {
                Ok(Self::from_sys(sys::Library::open().map_err(|error| Error::Library(error.to_string()))?))
            })
            .clone()
    }

    fn from_sys(library: sys::Library) -> Self {
        Self {
            shared: Arc::new(Shared {
                library,
                leaked: AtomicU64::new(0),
                foreign: ForeignContexts::default(),
            }),
        }
    }

    /// A library from elsewhere: a device in software, a recorder, a test's. Everything of this crate works on it.
    ///
    /// That the table does what C's functions do was promised to `sys::Library::from_table`, which is unsafe.
    #[must_use]
    pub fn with(library: sys::Library) -> Self {
        Self::from_sys(library)
    }

    /// The devices that are there now.
    ///
    /// # Errors
    /// [`Error::Call`] when the system cannot list them; a machine without any has an empty list.
    #[doc(alias = "ibv_get_device_list")]
    pub fn devices(&self) -> Result<DeviceList> {
        DeviceList::new(self.clone())
    }

    /// The table of functions.
    #[must_use]
    pub fn table(&self) -> &sys::VerbsTable {
        self.shared.library.verbs()
    }

    /// The table of the connection manager.
    ///
    /// # Errors
    /// [`Error::Library`] where librdmacm is absent, with what to install.
    pub fn cm_table(&self) -> Result<&sys::CmTable> {
        self.shared.library.cm().ok_or_else(|| {
            Error::Library(
                "librdmacm.so.1 is not there, so there is no connection manager; install it (Debian: librdmacm1) or set SINEW_RDMACM_LIB"
                    .to_owned(),
            )
        })
    }

    /// The table of EFA's own functions.
    ///
    /// # Errors
    /// [`Error::Library`] where libefa is absent, with what to install.
    pub fn efa_table(&self) -> Result<&sys::EfaTable> {
        let library = &self.shared.library;
        library.efa().ok_or_else(|| {
            // With the reason and what to install.
            let found = library.extras().into_iter().find(|found| found.library == "libefa");
            let why = found.map_or_else(
                || "the library is from elsewhere and brings no libefa".to_owned(),
                ToString::to_string,
            );
            Error::Library(format!("{why}; without libefa there are no scalable reliable datagrams (SRD)"))
        })
    }

    /// What was loaded, in which version, and what is missing in it, for people.
    #[must_use]
    pub fn report(&self) -> String {
        self.shared.library.report().to_string()
    }

    /// Makes `fork` safe for a parent that has regions: registered pages are kept from the child. To be called before anything is
    /// registered; costs a system call for every registration where the kernel does not copy such pages by itself.
    ///
    /// # Errors
    /// [`Error::Call`] with `EINVAL` when something was registered already.
    #[doc(alias = "ibv_fork_init")]
    pub fn fork_init(&self) -> Result<()> {
        // SAFETY: takes nothing; the library checks by itself whether it is too late.
        let answer = unsafe { (self.table().ibv_fork_init)() };
        sys::Errno::check(answer).map_err(|errno| Error::call("ibv_fork_init", "the process", errno.0))
    }

    /// How many objects devices refused to destroy. They and what they need stay until the process ends.
    #[must_use]
    pub fn leaked_objects(&self) -> u64 {
        self.shared.leaked.load(Ordering::Relaxed)
    }

    /// Counts and reports an object that a device refused to destroy.
    pub(crate) fn leaked(&self, call: &'static str, object: &dyn fmt::Display, errno: i32) {
        self.shared.leaked.fetch_add(1, Ordering::Relaxed);
        let error = std::io::Error::from_raw_os_error(errno);
        tracing::error!(call, %object, %error, "the device refused to destroy an object; it stays until the process ends");
    }

    /// Devices that the connection manager has opened.
    pub(crate) fn foreign_contexts(&self) -> &ForeignContexts {
        &self.shared.foreign
    }

    /// Whether two handles are of one library.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("leaked_objects", &self.leaked_objects()).finish_non_exhaustive()
    }
}

/// The devices that are there now, by the system's library. See [`Library::devices`].
///
/// # Errors
/// As [`Library::open`] and [`Library::devices`].
pub fn devices() -> Result<DeviceList> {
    Library::open()?.devices()
}

/// Opens the device of that name, by the system's library.
///
/// # Errors
/// As [`devices`]; [`Error::NoDevice`] with the names that there are.
pub fn open_device(name: &str) -> Result<crate::device::Context> {
    devices()?.open(name)
}
