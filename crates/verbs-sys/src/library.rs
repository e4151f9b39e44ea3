//! `Library`: the functions of verbs, from wherever they are.
//!
//! Called first by everything above. It opens libibverbs and, if it is there, librdmacm (and on demand libefa and libmlx5), or takes
//! a table from elsewhere. It opens no device, and never closes a library.
#![allow(unsafe_code)]

use crate::report::{LibraryReport, Missing, Origin, Report, Version};
use crate::resolve::{Known, Opened, Refused};
use crate::symbols::VerbsTable;
use crate::symbols_cm::{CmTable, EfaTable, Mlx5Table};
use crate::table::Source;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::{Arc, OnceLock};

const IBVERBS: Known = Known {
    library: "libibverbs",
    soname: "libibverbs.so.1",
    variable: Some("SINEW_IBVERBS_LIB"),
    remedy: "install it (Debian, Ubuntu: apt-get install libibverbs1 ibverbs-providers; Fedora, RHEL: dnf install libibverbs; \
             SUSE: zypper install libibverbs1; Arch: pacman -S rdma-core), or name its file in SINEW_IBVERBS_LIB",
};

const RDMACM: Known = Known {
    library: "librdmacm",
    soname: "librdmacm.so.1",
    variable: Some("SINEW_RDMACM_LIB"),
    remedy: "install it (Debian, Ubuntu: apt-get install librdmacm1; Fedora, RHEL: dnf install librdmacm; SUSE: zypper install \
             librdmacm1; Arch: pacman -S rdma-core), or name its file in SINEW_RDMACM_LIB",
};

const EFA: Known = Known {
    library: "libefa",
    soname: "libefa.so.1",
    variable: None,
    remedy: "it comes with the drivers of rdma-core (Debian, Ubuntu: apt-get install ibverbs-providers)",
};

const MLX5: Known = Known { library: "libmlx5", soname: "libmlx5.so.1", ..EFA };

/// The functions of verbs. Cheap to clone; may be used from every thread.
///
/// Libraries that were opened stay in the process for ever: their drivers keep threads and functions for the end of the process.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    verbs: VerbsTable,
    cm: Option<CmTable>,
    efa: OnceLock<Extra<EfaTable>>,
    mlx5: OnceLock<Extra<Mlx5Table>>,
    report: Report,
}

/// The extras of a vendor, and what was found when they were looked for (nothing, of a table from elsewhere).
struct Extra<T> {
    table: Option<T>,
    found: Option<LibraryReport>,
}

impl<T> Extra<T> {
    fn given(table: Option<T>) -> Self {
        Self { table, found: None }
    }

    /// Looks for the library.
    fn open(known: Known, fill: fn(&mut dyn Source) -> T) -> Self {
        let mut opened = match Opened::new(known, OsStr::new(known.soname)) {
            Ok(opened) => opened,
            Err(refused) => {
                return Self { table: None, found: Some(absent(known, refused.reason().to_owned())) };
            }
        };
        let table = fill(&mut opened);
        match complete(opened) {
            Ok(report) => Self { table: Some(table), found: Some(report) },
            Err(error) => Self { table: None, found: Some(absent(known, error.to_string())) },
        }
    }
}

/// Why there is no [`Library`]. `Display` says what to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    NotThere {
        /// Usual name of the library.
        library: &'static str,
        /// Name or path that was opened.
        asked: String,
        /// What the loader says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There is a file, and it cannot be loaded: not a library, of another machine, or something that it needs is missing.
    NotLoadable {
        /// Usual name of the library.
        library: &'static str,
        /// Name or path that was opened.
        asked: String,
        /// What the loader says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It was loaded and is not the library, or one from before rdma-core: functions are missing that every one has.
    Incomplete {
        /// What was found.
        found: Box<LibraryReport>,
        /// The functions.
        missing: Vec<Missing>,
    },
}

impl OpenError {
    fn refused(known: Known, asked: &OsStr, refused: Refused) -> Self {
        let (library, remedy) = (known.library, known.remedy);
        let asked = asked.to_string_lossy().into_owned();
        match refused {
            Refused::NotThere(reason) => Self::NotThere { library, asked, reason, remedy },
            Refused::NotLoadable(reason) => Self::NotLoadable { library, asked, reason, remedy },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere { library, asked, reason, remedy } => {
                write!(f, "{library} is not there: {asked} ({reason}); {remedy}")
            }
            Self::NotLoadable { library, asked, reason, remedy } => {
                write!(
                    f,
                    "{library} cannot be loaded: {asked} ({reason}); check that the file is the library of this machine and that \
                           what it needs is installed, or {remedy}"
                )
            }
            Self::Incomplete { found, missing } => {
                let names: Vec<&str> = missing.iter().map(|missing| missing.symbol.name).collect();
                let file = found.path.as_ref().map_or(found.asked.clone(), |path| path.display().to_string());
                let (library, remedy) = (found.library, found.remedy);
                write!(f, "{file} is not {library} of rdma-core: it lacks {}; {remedy}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl Library {
    /// Opens the system's libibverbs, and librdmacm where it is there.
    ///
    /// `SINEW_IBVERBS_LIB` and `SINEW_RDMACM_LIB` name other files; one that is named and cannot be used is an error. Without
    /// librdmacm, [`cm`](Self::cm) is `None` and [`report`](Self::report) says why. Opens no device and needs none. Reads files; does
    /// not block otherwise.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open() -> Result<Self, OpenError> {
        let named = |known: Known| known.variable.and_then(std::env::var_os).filter(|name| !name.is_empty());
        // The environment is as the system's search path: who sets it answers for the files that it names.
        Self::load(named(IBVERBS).as_deref(), named(RDMACM).as_deref())
    }

    /// As [`open`](Self::open), with files instead of the environment; `None`: the system's.
    ///
    /// # Errors
    /// [`OpenError`]. librdmacm may be missing only when no file was given for it.
    ///
    /// # Safety
    /// The files are these libraries, or no libraries: loading one runs its code, and its functions are called as those of the names.
    pub unsafe fn open_files(ibverbs: Option<&OsStr>, rdmacm: Option<&OsStr>) -> Result<Self, OpenError> {
        Self::load(ibverbs, rdmacm)
    }

    fn load(ibverbs: Option<&OsStr>, rdmacm: Option<&OsStr>) -> Result<Self, OpenError> {
        let open = |known: Known, file: Option<&OsStr>| {
            let file = file.map_or_else(|| OsString::from(known.soname), OsStr::to_owned);
            Opened::new(known, &file).map_err(|refused| (file, refused))
        };
        let verbs = open(IBVERBS, ibverbs).map_err(|(file, why)| OpenError::refused(IBVERBS, &file, why))?;
        let cm = match open(RDMACM, rdmacm) {
            Err((file, why)) if rdmacm.is_some() => return Err(OpenError::refused(RDMACM, &file, why)),
            other => other.map_err(|(_, why)| why),
        };
        Self::assemble(Origin::Opened, verbs, cm, rdmacm.is_some())
    }

    /// The libraries that the program is linked to.
    ///
    /// The feature `link` makes libibverbs.so.1 and librdmacm.so.1 libraries that the program names as needed, so that packages see
    /// it; the program then does not start without them. Functions are found in the same way as otherwise, so that those newer than
    /// the library may still be missing.
    ///
    /// # Errors
    /// [`OpenError`], when the program was linked to something else under their names.
    #[cfg(feature = "link")]
    pub fn linked() -> Result<Self, OpenError> {
        linked::name();
        let open = |known: Known| Opened::linked(known);
        let verbs =
            open(IBVERBS).map_err(|why| OpenError::refused(IBVERBS, OsStr::new(IBVERBS.soname), why))?;
        let cm = open(RDMACM).map_err(|why| OpenError::refused(RDMACM, OsStr::new(RDMACM.soname), why))?;
        Self::assemble(Origin::Linked, verbs, Ok(cm), true)
    }

    /// Functions from elsewhere: a device in this process, a recording one for tests, one that does nothing.
    ///
    /// Start from [`VerbsTable::unsupported`] (and [`CmTable::unsupported`]) and replace functions. Which fields objects must have is
    /// said at [`ibv_context_ops`](crate::ibv_context_ops), [`ibv_context`](crate::ibv_context),
    /// [`verbs_context`](crate::verbs_context), [`ibv_qp`](crate::ibv_qp), [`ibv_qp_ex`](crate::ibv_qp_ex),
    /// [`ibv_cq`](crate::ibv_cq), [`ibv_cq_ex`](crate::ibv_cq_ex), [`ibv_device`](crate::ibv_device), [`ibv_mr`](crate::ibv_mr).
    ///
    /// # Safety
    /// The functions, and those in the objects that they give out, behave as the manual pages say of the C ones, from every thread;
    /// they outlive every clone of this.
    #[must_use]
    pub unsafe fn from_table(verbs: VerbsTable, cm: Option<CmTable>) -> Self {
        let report = Report { origin: Origin::Table, libraries: Vec::new() };
        // The system's extras are for the system's devices.
        let (efa, mlx5) = (OnceLock::from(Extra::given(None)), OnceLock::from(Extra::given(None)));
        Self { inner: Arc::new(Inner { verbs, cm, efa, mlx5, report }) }
    }

    /// As [`from_table`](Self::from_table), with the extras of EFA and of mlx5.
    ///
    /// # Safety
    /// As of [`from_table`](Self::from_table).
    #[must_use]
    pub unsafe fn from_tables(
        verbs: VerbsTable,
        cm: Option<CmTable>,
        efa: Option<EfaTable>,
        mlx5: Option<Mlx5Table>,
    ) -> Self {
        let report = Report { origin: Origin::Table, libraries: Vec::new() };
        let (efa, mlx5) = (OnceLock::from(Extra::given(efa)), OnceLock::from(Extra::given(mlx5)));
        Self { inner: Arc::new(Inner { verbs, cm, efa, mlx5, report }) }
    }

    fn assemble(
        origin: Origin,
        mut verbs: Opened,
        cm: Result<Opened, Refused>,
        cm_is_asked: bool,
    ) -> Result<Self, OpenError> {
        let verbs_table = VerbsTable::fill(&mut verbs);
        let verbs = complete(verbs)?;
        let (cm_table, cm) = match cm {
            Ok(mut opened) => {
                let table = CmTable::fill(&mut opened);
                match complete(opened) {
                    Ok(report) => (Some(table), report),
                    Err(error) if cm_is_asked => return Err(error),
                    Err(error) => (None, absent(RDMACM, error.to_string())),
                }
            }
            Err(refused) => (None, absent(RDMACM, refused.reason().to_owned())),
        };
        let report = Report { origin, libraries: vec![verbs, cm] };
        let (efa, mlx5) = (OnceLock::new(), OnceLock::new());
        Ok(Self { inner: Arc::new(Inner { verbs: verbs_table, cm: cm_table, efa, mlx5, report }) })
    }

    /// The functions of libibverbs.
    #[inline]
    #[must_use]
    pub fn verbs(&self) -> &VerbsTable {
        &self.inner.verbs
    }

    /// The functions of librdmacm, where it is there.
    #[inline]
    #[must_use]
    pub fn cm(&self) -> Option<&CmTable> {
        self.inner.cm.as_ref()
    }

    /// The extras of EFA. Looks for libefa the first time; `None` where it is not there, or the functions are from elsewhere.
    #[must_use]
    pub fn efa(&self) -> Option<&EfaTable> {
        self.efa_extra().table.as_ref()
    }

    /// The extras of mlx5. Looks for libmlx5 the first time; `None` where it is not there, or the functions are from elsewhere.
    #[must_use]
    pub fn mlx5(&self) -> Option<&Mlx5Table> {
        self.mlx5_extra().table.as_ref()
    }

    fn efa_extra(&self) -> &Extra<EfaTable> {
        self.inner.efa.get_or_init(|| Extra::open(EFA, EfaTable::fill))
    }

    fn mlx5_extra(&self) -> &Extra<Mlx5Table> {
        self.inner.mlx5.get_or_init(|| Extra::open(MLX5, Mlx5Table::fill))
    }

    /// What was found of the vendors' extras, for people: libefa, then libmlx5. Looks for them. Empty for functions from elsewhere.
    #[must_use]
    pub fn extras(&self) -> Vec<&LibraryReport> {
        [&self.efa_extra().found, &self.mlx5_extra().found].into_iter().flatten().collect()
    }

    /// What was found, for people: which files, which versions, what is missing and what cannot be done without it.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.inner.report
    }

    /// What the version of libibverbs seems to be: no library says it, so it is read off the symbols and the file's name. `None` for
    /// functions from elsewhere.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.inner.report.libraries.first()?.version.as_ref()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("report", &self.inner.report).finish_non_exhaustive()
    }
}

/// The report of a library that has every required function.
fn complete(opened: Opened) -> Result<LibraryReport, OpenError> {
    let report = opened.report();
    let missing: Vec<Missing> =
        report.missing.iter().filter(|missing| missing.symbol.required).copied().collect();
    if missing.is_empty() {
        return Ok(report);
    }
    Err(OpenError::Incomplete { found: Box::new(report), missing })
}

fn absent(known: Known, reason: String) -> LibraryReport {
    LibraryReport::absent(known.library, known.soname, known.remedy, reason)
}

/// The names that make the linker write both libraries into the program.
#[cfg(feature = "link")]
mod linked {
    use core::ffi::c_void;

    // The names of the files that programs load: those without a number come with headers only.
    #[link(name = "libibverbs.so.1", kind = "dylib", modifiers = "+verbatim")]
    unsafe extern "C" {
        fn ibv_get_device_list(num_devices: *mut i32) -> *mut *mut c_void;
    }

    #[link(name = "librdmacm.so.1", kind = "dylib", modifiers = "+verbatim")]
    unsafe extern "C" {
        fn rdma_create_event_channel() -> *mut c_void;
    }

    /// Uses one function of each, as linkers leave out what nobody uses.
    pub(super) fn name() {
        let used = (ibv_get_device_list as *const c_void, rdma_create_event_channel as *const c_void);
        std::hint::black_box(used);
    }
}
