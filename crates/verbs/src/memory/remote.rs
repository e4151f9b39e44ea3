//! Memory of a peer, by address and key: what a read, a write or an atomic names.
//!
//! Naming it is safe: it lies in another process, which decided to expose it. The peer's device checks every access.

use crate::error::Error;
use std::mem::size_of;

/// The key that a peer's device asks for (`rkey`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RemoteKey(pub u32);

/// A range of a peer's memory. Plain data: send it as its 20 bytes, or by `serde` (feature `serde`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Told", try_from = "Told"))]
pub struct RemoteRegion {
    addr: u64,
    len: u64,
    rkey: u32,
}

/// A region as serde's data, which may be a peer's nonsense.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Told {
    addr: u64,
    len: u64,
    rkey: u32,
}

#[cfg(feature = "serde")]
impl From<RemoteRegion> for Told {
    fn from(RemoteRegion { addr, len, rkey }: RemoteRegion) -> Self {
        Self { addr, len, rkey }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Told> for RemoteRegion {
    type Error = Error;

    fn try_from(Told { addr, len, rkey }: Told) -> Result<Self, Error> {
        Self::new(addr, len, RemoteKey(rkey))
    }
}

impl RemoteRegion {
    /// Length of [`RemoteRegion::to_bytes`].
    pub const PACKED_LEN: usize = 20;

    /// `len` bytes at a peer's address under a peer's key.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the range does not fit an address space of 64 bits.
    pub fn new(addr: u64, len: u64, key: RemoteKey) -> Result<Self, Error> {
        if addr.checked_add(len).is_none() {
            return Err(Error::invalid(
                "remote region",
                format!("{len} bytes at {addr:#x} run past the end of the address space"),
                "take address and length as the peer gave them",
            ));
        }
        Ok(Self { addr, len, rkey: key.0 })
    }

    /// A range that is known to fit.
    pub(crate) const fn of_region(addr: u64, len: u64, key: RemoteKey) -> Self {
        Self { addr, len, rkey: key.0 }
    }

    /// Address in the peer's terms.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> RemoteKey {
        RemoteKey(self.rkey)
    }

    /// `len` bytes from `offset` on, or nothing where the region does not enclose them.
    #[must_use]
    pub fn slice(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        Some(Self { addr: self.addr.checked_add(offset)?, len, rkey: self.rkey })
    }

    /// From `offset` on to the end, or nothing where the region is shorter.
    #[must_use]
    pub fn slice_from(&self, offset: u64) -> Option<Self> {
        self.slice(offset, self.len.checked_sub(offset)?)
    }

    /// Element `index` of an array of `T` that lies there from its beginning, or nothing beyond its end.
    #[must_use]
    pub fn element<T>(&self, index: u64) -> Option<Self> {
        let size = size_of::<T>() as u64;
        self.slice(index.checked_mul(size)?, size)
    }

    /// The field at `offset` with `len` bytes of a value of `size` bytes at the beginning; what [`remote_field!`](crate::remote_field) calls.
    #[doc(hidden)]
    #[must_use]
    pub fn field_of(&self, size: usize, offset: usize, len: usize) -> Option<Self> {
        self.slice(0, size as u64)?.slice(offset as u64, len as u64)
    }

    /// As bytes: address, length, key, each big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::PACKED_LEN] {
        let mut bytes = [0; Self::PACKED_LEN];
        bytes[..8].copy_from_slice(&self.addr.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_be_bytes());
        bytes[16..].copy_from_slice(&self.rkey.to_be_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they name a range that cannot be.
    pub fn from_bytes(bytes: &[u8; Self::PACKED_LEN]) -> Result<Self, Error> {
        let (addr, rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let (len, rest) = rest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let (rkey, _) = rest.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        Self::new(u64::from_be_bytes(*addr), u64::from_be_bytes(*len), RemoteKey(u32::from_be_bytes(*rkey)))
    }
}

/// The range of a field of a struct that lies in a peer's memory: `remote_field!(region, Header, length)`, and of an element of an
/// array of structs: `remote_field!(region, [Header; index], length)`. `Option<RemoteRegion>`: nothing where the region is too short.
///
/// Both sides must agree on the layout: give the type `#[repr(C)]`.
///
/// ```
/// use sinew_verbs::memory::{RemoteKey, RemoteRegion};
/// #[repr(C)]
/// struct Header { epoch: u64, length: u32, flags: u32 }
/// let region = RemoteRegion::new(0x1000, 64, RemoteKey(7))?;
/// let length = sinew_verbs::remote_field!(region, Header, length).expect("a header fits");
/// assert_eq!((length.addr(), length.len()), (0x1008, 4));
/// let third = sinew_verbs::remote_field!(region, [Header; 3], epoch).expect("four fit");
/// assert_eq!(third.addr(), 0x1030);
/// assert!(sinew_verbs::remote_field!(region, [Header; 4], epoch).is_none());
/// # Ok::<(), sinew_verbs::Error>(())
/// ```
#[macro_export]
macro_rules! remote_field {
    ($region:expr, [$type:ty; $index:expr], $field:ident) => {
        $crate::memory::RemoteRegion::element::<$type>(&$region, $index)
            .and_then(|element| $crate::remote_field!(element, $type, $field))
    };
    ($region:expr, $type:ty, $field:ident) => {{
        const fn len<T, F>(_: fn(&T) -> &F) -> usize {
            ::core::mem::size_of::<F>()
        }
        $crate::memory::RemoteRegion::field_of(
            &$region,
            ::core::mem::size_of::<$type>(),
            ::core::mem::offset_of!($type, $field),
            len(|value: &$type| &value.$field),
        )
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> RemoteRegion {
        RemoteRegion::new(0x1000, 100, RemoteKey(9)).unwrap()
    }

    #[test]
    fn a_part_stays_inside() {
        let part = region().slice(10, 90).unwrap();
        assert_eq!((part.addr(), part.len(), part.key()), (0x100a, 90, RemoteKey(9)));
        assert!(region().slice(10, 91).is_none());
        assert!(region().slice(u64::MAX, 2).is_none());
        assert!(region().slice(100, 0).is_some());
        assert!(region().slice_from(101).is_none());
        assert_eq!(region().slice_from(60).unwrap().len(), 40);
    }

    #[test]
    fn a_range_past_the_end_of_all_addresses_is_refused() {
        assert!(RemoteRegion::new(u64::MAX, 2, RemoteKey(0)).is_err());
        assert!(RemoteRegion::from_bytes(&[0xff; 20]).is_err());
    }

    #[test]
    fn bytes_come_back_as_they_went() {
        assert_eq!(RemoteRegion::from_bytes(&region().to_bytes()).unwrap(), region());
        assert_eq!(region().to_bytes()[8..16], 100u64.to_be_bytes());
    }

    #[cfg(all(feature = "serde", feature = "network"))]
    #[test]
    fn serde_s_data_come_back_as_they_went_and_nonsense_is_refused() {
        let text = serde_json::to_string(&region()).unwrap();
        assert_eq!(text, r#"{"addr":4096,"len":100,"rkey":9}"#);
        assert_eq!(serde_json::from_str::<RemoteRegion>(&text).unwrap(), region());
        let nonsense = format!(r#"{{"addr":{},"len":2,"rkey":9}}"#, u64::MAX);
        let error = serde_json::from_str::<RemoteRegion>(&nonsense).unwrap_err();
        assert!(error.to_string().contains("address space"), "{error}");
    }

    #[test]
    fn elements_and_their_fields_are_found_and_checked() {
        #[repr(C)]
        #[allow(dead_code, reason = "only its layout is asked")]
        struct Pair {
            first: u16,
            second: [u32; 3],
        }
        assert_eq!(region().element::<u64>(11).map(|part| part.addr()), Some(0x1058));
        assert!(region().element::<u64>(12).is_none(), "half of it would be outside");
        assert!(region().element::<u64>(u64::MAX).is_none());
        let second = remote_field!(region(), [Pair; 2], second).unwrap();
        assert_eq!((second.addr(), second.len()), (0x1000 + 2 * 16 + 4, 12));
        assert!(remote_field!(region(), [Pair; 6], first).is_none());
    }
}
