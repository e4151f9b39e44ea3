//! Numbers that a device or its driver gives, as types: the known ones have names, the others are kept and shown.
//!
//! Used wherever the ABI has an `enum`: a Rust one could not hold what a newer kernel says.

/// A number from the device with the names that are known.
macro_rules! named_number {
    ($(#[$doc:meta])* $name:ident: $raw:ty { $($(#[$vdoc:meta])* $variant:ident = $number:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name($raw);

        impl $name {
            $($(#[$vdoc])* pub const $variant: Self = Self($number);)*

            /// From the number of the ABI.
            #[must_use]
            pub const fn from_raw(number: $raw) -> Self {
                Self(number)
            }

            /// The number of the ABI.
            #[must_use]
            pub const fn as_raw(self) -> $raw {
                self.0
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self.0 {
                    $($number => f.write_str($text),)*
                    other => write!(f, "Unknown({other})"),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(self, f)
            }
        }
    };
}

pub(crate) use named_number;
