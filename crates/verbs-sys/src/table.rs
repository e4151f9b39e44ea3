//! The macro that declares a table of exported functions, and what stands where a function is missing.
//!
//! Called by `symbols.rs` for each library. One row is one function: its type, the symbol version it is pinned to, whether the
//! table can be without it. From the rows come the structure, its list of symbols, how it is filled from a library, and a table
//! that refuses everything, from which tables from elsewhere start. Nothing here opens a file (`library.rs` does).

use crate::device::IbvForkStatus;
use crate::errno::Errno;
use core::ffi::{c_char, c_int, c_void};

/// One exported function, as a row of a table says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: &'static str,
    /// The version that this crate's declaration is of.
    pub version: &'static str,
    /// Whether a library without it cannot be used.
    pub required: bool,
    /// What cannot be done without it; empty for a required one.
    pub purpose: &'static str,
}

/// The types of one exported function, as written in Rust; for comparing them with a header.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// The function's name.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static [&'static str],
    /// What it returns; empty for nothing.
    pub returned: &'static str,
}

/// Where the functions of a table come from.
pub(crate) trait Source {
    /// The address of a function, or null; it remembers which were missing.
    fn address(&mut self, symbol: &Symbol) -> *mut c_void;
}

/// What a function answers that a table does not have, after it has set `errno` to `EOPNOTSUPP`.
pub(crate) trait Refusal {
    fn refusal() -> Self;
}

impl<T> Refusal for *mut T {
    fn refusal() -> Self {
        core::ptr::null_mut()
    }
}

/// A text, as of `ibv_wc_status_str`.
impl Refusal for *const c_char {
    fn refusal() -> Self {
        c"not supported".as_ptr()
    }
}

impl Refusal for c_int {
    fn refusal() -> Self {
        libc::EOPNOTSUPP
    }
}

/// A count.
impl Refusal for isize {
    fn refusal() -> Self {
        -(libc::EOPNOTSUPP as Self)
    }
}

/// A port or key.
impl Refusal for u16 {
    fn refusal() -> Self {
        0
    }
}

/// A rate.
impl Refusal for u32 {
    fn refusal() -> Self {
        0
    }
}

/// An identifier.
impl Refusal for u64 {
    fn refusal() -> Self {
        0
    }
}

impl Refusal for bool {
    fn refusal() -> Self {
        false
    }
}

impl Refusal for IbvForkStatus {
    fn refusal() -> Self {
        Self::DISABLED
    }
}

impl Refusal for crate::ah::IbvRate {
    fn refusal() -> Self {
        Self::RATE_MAX
    }
}

impl Refusal for () {
    fn refusal() -> Self {}
}

/// What a refusing function does.
pub(crate) fn refuse<T: Refusal>() -> T {
    Errno::NOT_SUPPORTED.set();
    T::refusal()
}

macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $table:ident {
            $(
                $(#[$row_meta:meta])*
                $kind:ident $version:literal fn $name:ident ( $( $arg:ident : $arg_type:ty ),* $(,)? ) $( -> $return:ty )? $( , $purpose:literal )? ;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub struct $table {
            $(
                $(#[$row_meta])*
                #[doc = ""]
                #[doc = concat!("Pinned to `", $version, "`; ", stringify!($kind), ".")]
                pub $name: $crate::table::slot!($kind, unsafe extern "C" fn( $( $arg : $arg_type ),* ) $( -> $return )?),
            )*
        }

        #[allow(unsafe_code)]
        impl $table {
            /// The rows of this table.
            pub const SYMBOLS: &'static [Symbol] = &[ $(
                Symbol {
                    name: stringify!($name),
                    version: $version,
                    required: $crate::table::is_required!($kind),
                    purpose: concat!($( $purpose )?),
                }
            ),* ];

            /// The types of the rows.
            pub const SIGNATURES: &'static [crate::table::Signature] = &[ $(
                crate::table::Signature {
                    name: stringify!($name),
                    arguments: &[ $( stringify!($arg_type) ),* ],
                    returned: concat!($( stringify!($return) )?),
                }
            ),* ];

            /// A table whose functions all fail with `EOPNOTSUPP`, and whose optional functions are missing: what a table from
            /// elsewhere starts from.
            #[must_use]
            pub fn unsupported() -> Self {
                Self { $( $name: $crate::table::unsupported!($kind, ( $( $arg_type ),* ) $( -> $return )?) ),* }
            }

            /// The address of a function by its name in C; null for one that is not a row or is missing. For whoever hands the table on
            /// to programs that look functions up by name.
            #[must_use]
            pub fn function(&self, name: &str) -> *const core::ffi::c_void {
                $( if name == stringify!($name) { return $crate::table::address!($kind, self.$name); } )*
                core::ptr::null()
            }

            /// Fills the table. A function that is missing refuses, or is `None` where the table can be without it.
            pub(crate) fn fill(source: &mut dyn Source) -> Self {
                let mut table = Self::unsupported();
                $(
                    let symbol = const {
                        Symbol {
                            name: stringify!($name),
                            version: $version,
                            required: $crate::table::is_required!($kind),
                            purpose: concat!($( $purpose )?),
                        }
                    };
                    let address = source.address(&symbol);
                    if !address.is_null() {
                        // SAFETY: the address is that of the function of this name at this version, whose declaration the row is; a
                        // pointer to a function has the size of any other.
                        let function = unsafe {
                            core::mem::transmute::<*mut core::ffi::c_void, unsafe extern "C" fn( $( $arg_type ),* ) $( -> $return )?>(address)
                        };
                        table.$name = $crate::table::found!($kind, function);
                    }
                )*
                table
            }
        }
    };
}

macro_rules! slot {
    (required, $type:ty) => { $type };
    (optional, $type:ty) => { Option<$type> };
}

macro_rules! is_required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

macro_rules! found {
    (required, $function:ident) => {
        $function
    };
    (optional, $function:ident) => {
        Some($function)
    };
}

macro_rules! address {
    (required, $function:expr) => {
        $function as *const core::ffi::c_void
    };
    (optional, $function:expr) => {
        $function.map_or(core::ptr::null(), |function| function as *const core::ffi::c_void)
    };
}

macro_rules! unsupported {
    (required, ( $( $arg_type:ty ),* ) $( -> $return:ty )?) => {{
        unsafe extern "C" fn unsupported( $( _: $arg_type ),* ) $( -> $return )? {
            $crate::table::refuse()
        }
        unsupported
    }};
    (optional, $($rest:tt)*) => { None };
}

pub(crate) use {address, found, is_required, slot, table, unsupported};
