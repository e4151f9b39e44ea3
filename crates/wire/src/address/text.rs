//! The address as one line: `sinew:1:<engine>:<incarnation>:<endpoint>,<locator>,<locator>…`.

use super::escape::{escape, unescape};
use super::{Address, AddressError, AddressErrorKind, EndpointRef, LOCATORS_MAX, Name, split_locator};
use core::fmt;
use core::str::FromStr;

/// The version after `sinew:`.
pub const TEXT_VERSION: u32 = 1;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sinew:{TEXT_VERSION}:")?;
        for byte in self.engine {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ":{:x}:{}", self.incarnation, self.endpoint)?;
        let mut escaped = String::new();
        for locator in &self.locators {
            escaped.clear();
            escape(locator, &mut escaped);
            write!(f, ",{escaped}")?;
        }
        Ok(())
    }
}

/// A text that is read from the left, knowing where it is.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// What comes before the next `separator`, or all that is left; skips the separator.
    fn until(&mut self, separator: char) -> (usize, &'a str) {
        let (from, rest) = (self.at, &self.text[self.at..]);
        let len = rest.find(separator).unwrap_or(rest.len());
        self.at = (from + len + 1).min(self.text.len());
        (from, &rest[..len])
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("sinew:") {
            return Err(AddressErrorKind::NotAnAddress.at(0));
        }
        let (head, list) = match text.split_once(',') {
            Some((head, list)) => (head, Some(list)),
            None => (text, None),
        };
        let mut reader = Reader { text: head, at: "sinew:".len() };
        let (at, version) = reader.until(':');
        if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressErrorKind::NotAnAddress.at(at));
        }
        if version != "1" {
            return Err(AddressErrorKind::OtherVersion.at(at));
        }
        let (at, engine) = reader.until(':');
        let engine = hex_engine(engine).ok_or(AddressErrorKind::BadEngine.at(at))?;
        let (at, incarnation) = reader.until(':');
        let incarnation = hex_number(incarnation).ok_or(AddressErrorKind::BadIncarnation.at(at))?;
        let at = reader.at;
        let endpoint = endpoint(&head[at..]).map_err(|error| error.moved(at))?;
        let locators = list.map_or(Ok(Vec::new()), |list| locators(list, head.len() + 1))?;
        Ok(Self { engine, incarnation, endpoint, locators })
    }
}

fn hex_engine(text: &str) -> Option<[u8; 16]> {
    let mut engine = [0; 16];
    let bytes = text.as_bytes();
    if bytes.len() != 32 {
        return None;
    }
    for (byte, digits) in engine.iter_mut().zip(bytes.chunks_exact(2)) {
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    (engine != [0; 16]).then_some(engine)
}

fn hex_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// `7` or `@name`.
pub(super) fn endpoint(text: &str) -> Result<EndpointRef, AddressError> {
    if let Some(name) = text.strip_prefix('@') {
        return Name::new(name).map(EndpointRef::Name).map_err(|error| error.moved(1));
    }
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse::<u32>().ok()).flatten();
    number.map(EndpointRef::from).ok_or(AddressErrorKind::BadEndpoint.at(0))
}

/// The list after the endpoint: locators, and parts of the form `key=value` that this version does not know.
fn locators(list: &str, start: usize) -> Result<Vec<String>, AddressError> {
    let (mut reader, mut locators) = (Reader { text: list, at: 0 }, Vec::new());
    let mut items = 1 + list.bytes().filter(|byte| *byte == b',').count();
    while items > 0 {
        items -= 1;
        let (at, item) = reader.until(',');
        if is_other_part(item) {
            if item.starts_with(|first: char| first.is_ascii_uppercase()) {
                return Err(AddressErrorKind::UnknownPart.at(start + at));
            }
            continue;
        }
        if locators.len() == LOCATORS_MAX {
            return Err(AddressErrorKind::TooManyLocators.at(start + at));
        }
        let locator = unescape(item).map_err(|error| error.moved(start + at))?;
        split_locator(&locator).map_err(|error| error.moved(start + at))?;
        locators.push(locator);
    }
    Ok(locators)
}

/// `key=value`: the equals sign comes before any colon.
fn is_other_part(item: &str) -> bool {
    let key = item.split(['=', ':']).next().unwrap_or("");
    !key.is_empty()
        && item.as_bytes().get(key.len()) == Some(&b'=')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
