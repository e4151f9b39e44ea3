//! Why a text or bytes are no address: where, what, and an example of what would be right.

use core::fmt;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AddressErrorKind {
    /// Neither an address nor a URL.
    NotAnAddress,
    /// An address of a version that is not known here.
    OtherVersion,
    /// The engine's identity.
    BadEngine,
    /// The incarnation.
    BadIncarnation,
    /// The endpoint's number.
    BadEndpoint,
    /// An endpoint's name.
    BadName,
    /// The scheme of a locator or URL.
    BadScheme,
    /// The body of a locator or URL.
    BadBody,
    /// Something is percent-escaped wrongly.
    BadEscape,
    /// More locators or choices than allowed.
    TooManyLocators,
    /// A part that must be understood and is not known.
    UnknownPart,
    /// A host with a port was expected.
    BadHost,
    /// A port that is no number from 0 to 65535, or none.
    BadPort,
    /// Choices of one list name different endpoints.
    DifferentEndpoints,
    /// Packed bytes end too early.
    Truncated,
}

impl AddressErrorKind {
    pub(super) const fn at(self, position: usize) -> AddressError {
        AddressError { kind: self, position }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotAnAddress => {
                "neither an address (sinew:1:…) nor a URL such as tcp://10.0.0.1:4000/name or uds:///run/app.sock#name"
            }
            Self::OtherVersion => {
                "an address of another version; this build reads version 1 (sinew:1:…): update the older engine"
            }
            Self::BadEngine => {
                "the engine is 32 hexadecimal digits, not all zero, as in 00112233445566778899aabbccddeeff"
            }
            Self::BadIncarnation => "the incarnation is 1 to 16 hexadecimal digits, as in 5f3c9a",
            Self::BadEndpoint => "the endpoint is a number below 2^32, or @ and a name, as in 7 or @results",
            Self::BadName => "an endpoint's name is 1 to 64 characters of A-Z a-z 0-9 . _ -, as in results",
            Self::BadScheme => {
                "a scheme is 1 to 15 characters of a-z 0-9 + -, the first a letter, then a colon, as in tcp:"
            }
            Self::BadBody => "a locator's body is 1 to 200 printable ASCII characters, as in 10.0.0.1:4000",
            Self::BadEscape => "% must be followed by two hexadecimal digits, as in %2C for a comma",
            Self::TooManyLocators => "there are more than 32 locators",
            Self::UnknownPart => {
                "a part that must be understood is not known here: the address is of a newer engine"
            }
            Self::BadHost => {
                "a host is a name, an IPv4 address, or an IPv6 address in brackets, as in [::1]:4000"
            }
            Self::BadPort => "a port from 0 to 65535 must follow the host, as in 10.0.0.1:4000",
            Self::DifferentEndpoints => "all choices of a list must mean the same endpoint; name it once",
            Self::Truncated => "the packed address ends too early",
        }
    }
}

/// Why something is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressError {
    /// What is wrong.
    pub kind: AddressErrorKind,
    /// Offset of the byte at which that shows.
    pub position: usize,
}

impl AddressError {
    /// The same in a longer text that has `by` bytes before.
    pub(super) const fn moved(self, by: usize) -> Self {
        Self { kind: self.kind, position: self.position + by }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad address at character {}: {}", self.position + 1, self.kind.text())
    }
}

impl core::error::Error for AddressError {}
