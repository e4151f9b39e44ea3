//! What this crate believes of the C definitions, as data, and the macros by which they are written down.
//!
//! Every structure, code and constant is declared through a macro of this file, which puts it into a table at the same time:
//! none can be left out of `tests/layout.rs`, which compares the tables with the headers of rdma-core. Nothing here is read when
//! a program runs.

/// One structure or union as Rust lays it out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Name of the Rust type.
    pub rust: &'static str,
    /// The type in C, an expression for `sizeof`.
    pub c: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Whether it is a union.
    pub is_union: bool,
    /// The fields in the order of C.
    pub fields: &'static [Field],
}

/// One field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field in C. Where C has an anonymous union, the member of it that lies at the same place.
    pub c: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
    /// Its type in Rust, as written.
    pub written: &'static str,
    /// Whether C has it inside an anonymous union, so that the size of the member says nothing about the union.
    pub anonymous: bool,
}

/// One named number.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Name in C.
    pub c: &'static str,
    /// Its value, sign-extended.
    pub value: i128,
}

/// The size and alignment of the type behind a code, as C's `enum` has it.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Name of the Rust type.
    pub rust: &'static str,
    /// The type in C.
    pub c: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// Its constants.
    pub constants: &'static [Constant],
}

/// Declares structures and unions with the layout of C, and the table of them.
///
/// `struct name as "expression"` says what C calls it when that is not `struct name`; `field = "member"` the same of a field;
/// `field ~ "member"` names a member of an anonymous union.
macro_rules! abi {
    (
        table $table:ident;
        $( $(#[$meta:meta])* pub $kind:ident $name:ident $(as $c:literal)? {
            $( $(#[$field_meta:meta])* pub $field:ident $(= $c_field:literal)? $(~ $c_member:literal)? : $type:ty ),* $(,)?
        } )*
    ) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            pub $kind $name { $( $(#[$field_meta])* pub $field: $type ),* }

            impl $name {
                #[allow(unsafe_code)]
                /// All bytes zero, which is a value of it, and the one that C programs start from.
                #[must_use]
                pub const fn zeroed() -> Self {
                    // SAFETY: the types of this crate hold integers, arrays of them, raw pointers, optional functions, types of
                    // `libc` and each other: zero is a value of all of these.
                    unsafe { core::mem::MaybeUninit::zeroed().assume_init() }
                }
            }
        )*

        pub(crate) const $table: &[crate::layout::Layout] = &[ $(
            crate::layout::Layout {
                rust: stringify!($name),
                c: $crate::layout::first!([$($c)?] concat!(stringify!($kind), " ", stringify!($name))),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                is_union: $crate::layout::is_union!($kind),
                fields: &[ $( crate::layout::Field {
                    c: $crate::layout::first!([$($c_field)? $($c_member)?] stringify!($field)),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$type>(),
                    written: stringify!($type),
                    anonymous: $crate::layout::given!([$($c_member)?]),
                } ),* ],
            }
        ),* ];
    };
}

macro_rules! first {
    ([$given:literal] $otherwise:expr) => {
        $given
    };
    ([] $otherwise:expr) => {
        $otherwise
    };
}

macro_rules! given {
    ([$given:literal]) => {
        true
    };
    ([]) => {
        false
    };
}

macro_rules! is_union {
    (union) => {
        true
    };
    (struct) => {
        false
    };
}

/// Declares types for the codes that C has as `enum`: a number with names, because a kernel or a device may give one that is
/// newer than this crate.
macro_rules! codes {
    (
        table $table:ident;
        $( $(#[$meta:meta])* pub struct $name:ident($number:ty) as $c:literal, $prefix:literal {
            $( $(#[$code_meta:meta])* $code:ident = $value:expr ),* $(,)?
        } )*
    ) => {
        $(
            $(#[$meta])*
            #[doc = ""]
            #[doc = concat!("C's `", $c, "`. An unknown value is kept and prints as `Unknown(0x…)`.")]
            #[doc(alias = $c)]
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[repr(transparent)]
            pub struct $name(pub $number);

            impl $name {
                $(
                    $(#[$code_meta])*
                    #[doc = ""]
                    #[doc = concat!("`", $prefix, stringify!($code), "`.")]
                    pub const $code: Self = Self($value);
                )*

                /// Every value that this crate has a name for.
                pub const ALL: &'static [Self] = &[ $( Self::$code ),* ];

                /// The name in C, of a value that this crate knows.
                #[must_use]
                pub const fn c_name(self) -> Option<&'static str> {
                    $( if self.0 == Self::$code.0 { return Some(concat!($prefix, stringify!($code))); } )*
                    None
                }

                /// The name without its prefix, of a value that this crate knows.
                #[must_use]
                pub const fn name(self) -> Option<&'static str> {
                    $( if self.0 == Self::$code.0 { return Some(stringify!($code)); } )*
                    None
                }
            }

            impl core::fmt::Debug for $name {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    match self.name() {
                        Some(name) => f.write_str(name),
                        None => write!(f, "Unknown({:#x})", self.0),
                    }
                }
            }

            impl core::fmt::Display for $name {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    core::fmt::Debug::fmt(self, f)
                }
            }
        )*

        pub(crate) const $table: &[crate::layout::Code] = &[ $(
            crate::layout::Code {
                rust: stringify!($name),
                c: $c,
                size: size_of::<$name>(),
                constants: &[ $( crate::layout::Constant {
                    c: concat!($prefix, stringify!($code)),
                    value: $name::$code.0 as i128,
                } ),* ],
            }
        ),* ];
    };
}

/// Declares constants under the names that they have in C.
macro_rules! constants {
    (
        table $table:ident;
        $( $(#[$meta:meta])* $name:ident : $type:ty = $value:expr ; )*
    ) => {
        $( $(#[$meta])* pub const $name: $type = $value; )*

        pub(crate) const $table: &[crate::layout::Constant] = &[ $(
            crate::layout::Constant { c: stringify!($name), value: $name as i128 }
        ),* ];
    };
}

pub(crate) use {abi, codes, constants, first, given, is_union};

/// Every structure and union.
pub fn all_structures() -> impl Iterator<Item = &'static Layout> {
    let tables = [
        crate::ah::STRUCTURES,
        crate::async_event::STRUCTURES,
        crate::channel::STRUCTURES,
        crate::cm::STRUCTURES,
        crate::context::STRUCTURES,
        crate::counters::STRUCTURES,
        crate::cq::STRUCTURES,
        crate::device::STRUCTURES,
        crate::efa::STRUCTURES,
        crate::flow::STRUCTURES,
        crate::mlx5::STRUCTURES,
        crate::mr::STRUCTURES,
        crate::pd::STRUCTURES,
        crate::port::STRUCTURES,
        crate::qp::STRUCTURES,
        crate::qp_ex::STRUCTURES,
        crate::sa::STRUCTURES,
        crate::srq::STRUCTURES,
        crate::wc::STRUCTURES,
        crate::wq::STRUCTURES,
        crate::wr::STRUCTURES,
    ];
    tables.into_iter().flatten()
}

/// Every type of codes.
pub fn all_codes() -> impl Iterator<Item = &'static Code> {
    let tables = [
        crate::ah::CODES,
        crate::async_event::CODES,
        crate::cm::CODES,
        crate::counters::CODES,
        crate::device::CODES,
        crate::flow::CODES,
        crate::mr::CODES,
        crate::port::CODES,
        crate::qp::CODES,
        crate::srq::CODES,
        crate::wc::CODES,
        crate::wq::CODES,
        crate::wr::CODES,
    ];
    tables.into_iter().flatten()
}

/// Every constant that is not of a type of codes.
pub fn all_constants() -> impl Iterator<Item = &'static Constant> {
    let tables = [
        crate::ah::CONSTANTS,
        crate::cm::CONSTANTS,
        crate::counters::CONSTANTS,
        crate::cq::CONSTANTS,
        crate::device::CONSTANTS,
        crate::efa::CONSTANTS,
        crate::flow::CONSTANTS,
        crate::mr::CONSTANTS,
        crate::pd::CONSTANTS,
        crate::port::CONSTANTS,
        crate::qp::CONSTANTS,
        crate::sa::CONSTANTS,
        crate::srq::CONSTANTS,
        crate::wc::CONSTANTS,
        crate::wq::CONSTANTS,
        crate::wr::CONSTANTS,
    ];
    tables.into_iter().flatten()
}
