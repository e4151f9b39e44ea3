//! Addresses: of an endpoint of a running engine, and what a person may write instead. `docs/wire/address.md` has the grammar.
//!
//! Called by the engine and the command. An [`Address`] is complete (engine, incarnation, endpoint, where to dial) and comes as
//! one line of text or packed bytes; a [`Target`] is whatever names a peer: an address, an explicit URL, or a list of these.
//! Form only: whether anybody is there, a handshake tells.

mod errors;
mod escape;
mod packed;
mod target;
mod text;

#[cfg(test)]
mod tests;

pub use errors::{AddressError, AddressErrorKind};
pub use packed::{PACKED_MAGIC, PACKED_VERSION};
pub use target::{Explicit, Target};
pub use text::TEXT_VERSION;

use core::fmt;
use core::num::NonZeroU32;

/// Longest name of an endpoint in bytes.
pub const NAME_MAX: usize = 64;
/// Longest scheme of a locator in bytes.
pub const SCHEME_MAX: usize = 15;
/// Longest body of a locator in bytes.
pub const BODY_MAX: usize = 200;
/// Most locators in one address, and most choices in one list.
pub const LOCATORS_MAX: usize = 32;

/// The name of an endpoint: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`AddressErrorKind::BadName`], with the position of what is wrong.
    pub fn new(text: impl Into<String>) -> Result<Self, AddressError> {
        let text = text.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let wrong = text.bytes().position(|byte| !plain(byte));
        match wrong {
            Some(at) => Err(AddressErrorKind::BadName.at(at)),
            None if text.is_empty() => Err(AddressErrorKind::BadName.at(0)),
            None if text.len() > NAME_MAX => Err(AddressErrorKind::BadName.at(NAME_MAX)),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which endpoint of an engine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum EndpointRef {
    /// The one that the engine calls its default; written `0`, or left out in a URL.
    #[default]
    Default,
    /// By its number.
    Number(NonZeroU32),
    /// By its name; asked for when connecting. Written `@name`.
    Name(Name),
}

impl From<u32> for EndpointRef {
    /// 0 is the default endpoint.
    fn from(number: u32) -> Self {
        NonZeroU32::new(number).map_or(Self::Default, Self::Number)
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("0"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "@{name}"),
        }
    }
}

/// The address of an endpoint of one incarnation of one engine. Cannot be wrong in form.
///
/// Prints as one line without spaces that needs no quoting in a POSIX shell, and parses back to an equal value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    engine: [u8; 16],
    incarnation: u64,
    endpoint: EndpointRef,
    locators: Vec<String>,
}

impl Address {
    /// An address from its parts. Locators are `scheme:body`, best first.
    ///
    /// # Errors
    /// A zero engine, a locator that does not fit its grammar, or more than [`LOCATORS_MAX`] of them. The position counts
    /// in the locator's text.
    pub fn new(
        engine: [u8; 16],
        incarnation: u64,
        endpoint: EndpointRef,
        locators: Vec<String>,
    ) -> Result<Self, AddressError> {
        if engine == [0; 16] {
            return Err(AddressErrorKind::BadEngine.at(0));
        }
        if locators.len() > LOCATORS_MAX {
            return Err(AddressErrorKind::TooManyLocators.at(0));
        }
        for locator in &locators {
            split_locator(locator)?;
        }
        Ok(Self { engine, incarnation, endpoint, locators })
    }

    /// The engine's identity.
    #[must_use]
    pub const fn engine(&self) -> [u8; 16] {
        self.engine
    }

    /// Which start of the engine it is.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Which endpoint of it.
    #[must_use]
    pub const fn endpoint(&self) -> &EndpointRef {
        &self.endpoint
    }

    /// Where it can be dialled, best first, each `scheme:body`.
    #[must_use]
    pub fn locators(&self) -> &[String] {
        &self.locators
    }

    /// The same engine, another endpoint.
    #[must_use]
    pub fn with_endpoint(&self, endpoint: EndpointRef) -> Self {
        Self { endpoint, ..self.clone() }
    }
}

/// Scheme and body of a locator's text.
///
/// # Errors
/// [`AddressErrorKind::BadScheme`] and [`AddressErrorKind::BadBody`], with the position in `text`.
pub fn split_locator(text: &str) -> Result<(&str, &str), AddressError> {
    let colon = text.find(':').ok_or(AddressErrorKind::BadScheme.at(text.len()))?;
    let (scheme, body) = (&text[..colon], &text[colon + 1..]);
    check_scheme(scheme)?;
    check_body(body).map_err(|error| error.moved(colon + 1))?;
    Ok((scheme, body))
}

fn check_scheme(scheme: &str) -> Result<(), AddressError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-');
    if !scheme.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        return Err(AddressErrorKind::BadScheme.at(0));
    }
    let wrong = scheme.bytes().position(|byte| !plain(byte));
    match wrong.or((scheme.len() > SCHEME_MAX).then_some(SCHEME_MAX)) {
        Some(at) => Err(AddressErrorKind::BadScheme.at(at)),
        None => Ok(()),
    }
}

fn check_body(body: &str) -> Result<(), AddressError> {
    let wrong = body.bytes().position(|byte| !byte.is_ascii_graphic());
    let wrong = wrong.or(body.is_empty().then_some(0)).or((body.len() > BODY_MAX).then_some(BODY_MAX));
    wrong.map_or(Ok(()), |at| Err(AddressErrorKind::BadBody.at(at)))
}
