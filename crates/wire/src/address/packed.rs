//! The address as bytes: a fixed head and parts of type, length and content; unknown optional parts are skipped.

use super::{Address, AddressError, AddressErrorKind, EndpointRef, LOCATORS_MAX, Name, split_locator};

/// The first bytes of a packed address.
pub const PACKED_MAGIC: [u8; 4] = *b"SNWA";
/// The version after the magic.
pub const PACKED_VERSION: u8 = 1;

const HEAD_LEN: usize = 32;
const PART_NUMBER: u8 = 1;
const PART_NAME: u8 = 2;
const PART_LOCATOR: u8 = 3;
const PART_REQUIRED: u8 = 0x80;

impl Address {
    /// The packed form; integers are little endian.
    ///
    /// ```text
    /// 0 "SNWA"  4 u8 version  5 u8 zero  6 u16 length of all  8 engine  24 u64 incarnation  32 parts: u8 type, u8 length, bytes
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend(PACKED_MAGIC);
        out.extend([PACKED_VERSION, 0, 0, 0]);
        out.extend(self.engine);
        out.extend(self.incarnation.to_le_bytes());
        let mut part = |kind: u8, bytes: &[u8]| {
            out.extend([kind, bytes.len() as u8]);
            out.extend(bytes);
        };
        match &self.endpoint {
            EndpointRef::Default => {}
            EndpointRef::Number(number) => part(PART_NUMBER, &number.get().to_le_bytes()),
            EndpointRef::Name(name) => part(PART_NAME, name.as_str().as_bytes()),
        }
        for locator in &self.locators {
            part(PART_LOCATOR, locator.as_bytes());
        }
        // At most 32 locators of 218 bytes: it fits.
        let len = (out.len() as u16).to_le_bytes();
        out[6..8].copy_from_slice(&len);
        out
    }

    /// Reads a packed address from the start of `bytes` and returns how many it took.
    ///
    /// # Errors
    /// [`AddressError`], with the offset of the byte at which it shows.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, usize), AddressError> {
        let head: &[u8; HEAD_LEN] = bytes.first_chunk().ok_or(AddressErrorKind::Truncated.at(bytes.len()))?;
        if head[..4] != PACKED_MAGIC {
            return Err(AddressErrorKind::NotAnAddress.at(0));
        }
        if head[4] != PACKED_VERSION {
            return Err(AddressErrorKind::OtherVersion.at(4));
        }
        let len = usize::from(u16::from_le_bytes([head[6], head[7]]));
        if len < HEAD_LEN {
            return Err(AddressErrorKind::Truncated.at(6));
        }
        let all = bytes.get(..len).ok_or(AddressErrorKind::Truncated.at(bytes.len()))?;
        let (mut engine, mut incarnation) = ([0; 16], [0; 8]);
        engine.copy_from_slice(&head[8..24]);
        incarnation.copy_from_slice(&head[24..32]);
        if engine == [0; 16] {
            return Err(AddressErrorKind::BadEngine.at(8));
        }
        let incarnation = u64::from_le_bytes(incarnation);
        let mut address = Self { engine, incarnation, endpoint: EndpointRef::Default, locators: Vec::new() };
        let mut at = HEAD_LEN;
        while at < len {
            let part_len = *all.get(at + 1).ok_or(AddressErrorKind::Truncated.at(at))?;
            let end = at + 2 + usize::from(part_len);
            let part = all.get(at + 2..end).ok_or(AddressErrorKind::Truncated.at(at))?;
            address.take_part(all[at], part).map_err(|error| error.moved(at))?;
            at = end;
        }
        Ok((address, len))
    }

    fn take_part(&mut self, kind: u8, part: &[u8]) -> Result<(), AddressError> {
        let text = core::str::from_utf8(part);
        match kind {
            PART_NUMBER => {
                let number = part.try_into().map_err(|_| AddressErrorKind::BadEndpoint.at(1))?;
                self.endpoint = EndpointRef::from(u32::from_le_bytes(number));
            }
            PART_NAME => {
                let text = text.map_err(|_| AddressErrorKind::BadName.at(2))?;
                self.endpoint = EndpointRef::Name(Name::new(text).map_err(|error| error.moved(2))?);
            }
            PART_LOCATOR => {
                let text = text.map_err(|_| AddressErrorKind::BadBody.at(2))?;
                split_locator(text).map_err(|error| error.moved(2))?;
                if self.locators.len() == LOCATORS_MAX {
                    return Err(AddressErrorKind::TooManyLocators.at(0));
                }
                self.locators.push(text.into());
            }
            other if other & PART_REQUIRED != 0 => return Err(AddressErrorKind::UnknownPart.at(0)),
            _ => {}
        }
        Ok(())
    }
}
