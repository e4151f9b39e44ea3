//! One opened shared library: finding it, its functions by version, its file.
//!
//! Called by `library.rs` only. A library is never closed: drivers keep threads, and functions for the end of the process.
#![allow(unsafe_code)]

use crate::report::{LibraryReport, Missing, Version};
use crate::table::{Source, Symbol};
use core::ffi::{CStr, c_char, c_int, c_void};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// What is known of a library before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Usual name.
    pub(crate) library: &'static str,
    /// Name of the file for the system's search.
    pub(crate) soname: &'static str,
    /// The variable that names another file.
    pub(crate) variable: Option<&'static str>,
    /// What to do when it is missing.
    pub(crate) remedy: &'static str,
}

/// Why a library could not be opened.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// There is no such file.
    NotThere(String),
    /// The file is not a library that can be loaded here.
    NotLoadable(String),
}

impl Refused {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NotThere(reason) | Self::NotLoadable(reason) => reason,
        }
    }
}

/// A library that is open, and what was asked of it.
pub(crate) struct Opened {
    known: Known,
    asked: String,
    handle: *mut c_void,
    path: Option<PathBuf>,
    found: Vec<Symbol>,
    missing: Vec<Missing>,
    unpinned: Vec<&'static str>,
}

impl Opened {
    /// Opens a file by the system's search, or by path when the name has a slash.
    pub(crate) fn new(known: Known, file: &OsStr) -> Result<Self, Refused> {
        Self::with_flags(known, file, libc::RTLD_NOW | libc::RTLD_LOCAL)
    }

    /// Finds a library that the program is linked to.
    #[cfg(feature = "link")]
    pub(crate) fn linked(known: Known) -> Result<Self, Refused> {
        Self::with_flags(known, OsStr::new(known.soname), libc::RTLD_NOW | libc::RTLD_NOLOAD)
    }

    fn with_flags(known: Known, file: &OsStr, flags: c_int) -> Result<Self, Refused> {
        let asked = file.to_string_lossy().into_owned();
        let Ok(name) = CString::new(file.as_bytes()) else {
            return Err(Refused::NotLoadable("the name has a zero byte inside".to_owned()));
        };
        // SAFETY: the name is a C string. Loading runs the initialisers of a library that the caller chose to load.
        let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
        if handle.is_null() {
            let reason = last_error();
            // The loader's text names the file that it could not open: ours, or one that ours needs.
            let ours = reason.starts_with(&format!("{asked}:")) && reason.contains("No such file");
            let is_there = file.as_bytes().contains(&b'/') && PathBuf::from(file).exists();
            return Err(if ours && !is_there {
                Refused::NotThere(reason)
            } else {
                Refused::NotLoadable(reason)
            });
        }
        Ok(Self {
            known,
            asked,
            handle,
            path: None,
            found: Vec::new(),
            missing: Vec::new(),
            unpinned: Vec::new(),
        })
    }

    /// What was found out about it.
    pub(crate) fn report(self) -> LibraryReport {
        LibraryReport {
            library: self.known.library,
            asked: self.asked,
            version: Version::of(self.found.iter(), self.path.as_ref()),
            path: self.path,
            absent: None,
            remedy: self.known.remedy,
            missing: self.missing,
            unpinned: self.unpinned,
        }
    }

    /// The file that a function of it is in.
    fn learn_path(&mut self, address: *mut c_void) {
        // SAFETY: zero is a value of the structure, which is of pointers.
        let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
        // SAFETY: any address may be asked about; the structure lives through the call.
        let known = unsafe { libc::dladdr(address, &raw mut info) };
        if known == 0 || info.dli_fname.is_null() {
            return;
        }
        // SAFETY: the loader's own name of the file, which lives while the library is loaded.
        let name = unsafe { CStr::from_ptr(info.dli_fname) };
        let path = PathBuf::from(OsString::from_vec(name.to_bytes().to_vec()));
        self.path = Some(path.canonicalize().unwrap_or(path));
    }
}

impl Source for Opened {
    fn address(&mut self, symbol: &Symbol) -> *mut c_void {
        let (Ok(name), Ok(version)) = (CString::new(symbol.name), CString::new(symbol.version)) else {
            return core::ptr::null_mut();
        };
        let mut address = pinned(self.handle, &name, &version);
        if address.is_null() {
            // SAFETY: the handle is of an open library, the name a C string.
            address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
            if !address.is_null() {
                self.unpinned.push(symbol.name);
            }
        }
        if address.is_null() {
            self.missing.push(Missing::new(*symbol));
            return address;
        }
        self.found.push(*symbol);
        if self.path.is_none() {
            self.learn_path(address);
        }
        address
    }
}

/// A function at exactly this version.
#[cfg(target_env = "gnu")]
fn pinned(handle: *mut c_void, name: &CStr, version: &CStr) -> *mut c_void {
    // SAFETY: the handle is of an open library, both names are C strings.
    unsafe { libc::dlvsym(handle, name.as_ptr(), version.as_ptr()) }
}

/// Only glibc can ask for a version.
#[cfg(not(target_env = "gnu"))]
fn pinned(_: *mut c_void, _: &CStr, _: &CStr) -> *mut c_void {
    core::ptr::null_mut()
}

/// What the loader says of its last failure on this thread.
fn last_error() -> String {
    // SAFETY: no condition; the answer is null or a C string that lives until the next call of this thread.
    let text: *const c_char = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gave no reason".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
