//! Where a transport can be reached: a scheme and a body of text, as addresses publish them.

use core::fmt;
use core::str::FromStr;

/// `tcp:10.0.0.1:4000`, `uds:/run/user/1000/sinew/ab12.sock`: a scheme of 1 to 15 characters (`a-z 0-9 + -`, the first a
/// letter), a colon, and up to 200 printable ASCII characters without space that only the transport interprets.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Locator {
    scheme: String,
    body: String,
}

/// Why a text is no locator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LocatorError {
    /// No colon.
    NoScheme,
    /// The scheme is empty, too long or has a character that it may not have.
    BadScheme,
    /// The body is empty, too long or not printable ASCII without space.
    BadBody,
}

impl fmt::Display for LocatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "a locator is SCHEME:BODY, as in tcp:10.0.0.1:4000; there is no colon",
            Self::BadScheme => {
                "a locator's scheme is 1 to 15 characters of a-z, 0-9, + and -, the first a letter"
            }
            Self::BadBody => "a locator's body is 1 to 200 printable ASCII characters without space",
        })
    }
}

impl std::error::Error for LocatorError {}

impl Locator {
    /// Longest body in bytes.
    pub const BODY_MAX: usize = 200;
    /// Longest scheme in bytes.
    pub const SCHEME_MAX: usize = 15;

    /// A locator from its parts.
    ///
    /// # Errors
    /// When a part does not fit the grammar above.
    pub fn new(scheme: impl Into<String>, body: impl Into<String>) -> Result<Self, LocatorError> {
        let (scheme, body) = (scheme.into(), body.into());
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'+' || c == b'-';
        if scheme.is_empty()
            || scheme.len() > Self::SCHEME_MAX
            || !scheme.as_bytes()[0].is_ascii_lowercase()
            || !scheme.bytes().all(plain)
        {
            return Err(LocatorError::BadScheme);
        }
        if body.is_empty() || body.len() > Self::BODY_MAX || !body.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(LocatorError::BadBody);
        }
        Ok(Self { scheme, body })
    }

    /// The transport's scheme.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What follows the colon.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }
}

impl FromStr for Locator {
    type Err = LocatorError;

    fn from_str(text: &str) -> Result<Self, LocatorError> {
        let (scheme, body) = text.split_once(':').ok_or(LocatorError::NoScheme)?;
        Self::new(scheme, body)
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.body)
    }
}
