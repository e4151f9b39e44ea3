//! What two connected queue pairs tell each other before they can speak.

use super::config::{Mtu, PacketSequenceNumber};
use crate::device::Gid;
use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// One side of a connection: sent to the other side by any means, as a line of text (`Display`, `FromStr`), as bytes, or by `serde`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Endpoint {
    /// Number of the queue pair.
    pub qp_num: u32,
    /// Local identifier of its port; 0 over Ethernet.
    pub lid: u16,
    /// GID of its port; nothing where the way is by local identifier alone.
    pub gid: Option<Gid>,
    /// The number of the first packet that it will send.
    pub psn: PacketSequenceNumber,
    /// The largest packet that its port carries now.
    pub mtu: Mtu,
    /// How many reads and atomics of the peer's it answers at once; 0 for none.
    pub responder_resources: u8,
}

impl Endpoint {
    /// Length of [`Endpoint::to_bytes`].
    pub const PACKED_LEN: usize = 28;

    /// As bytes, big-endian: queue pair (4), packet number (4), GID (16, zeros for none), local identifier (2), code of the largest packet (1), reads and atomics at once (1).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::PACKED_LEN] {
        let mut bytes = [0; Self::PACKED_LEN];
        bytes[..4].copy_from_slice(&self.qp_num.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.psn.get().to_be_bytes());
        bytes[8..24].copy_from_slice(&self.gid.unwrap_or_default().bytes());
        bytes[24..26].copy_from_slice(&self.lid.to_be_bytes());
        bytes[26] = self.mtu.as_raw() as u8;
        bytes[27] = self.responder_resources;
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Error::Peer`] when a number has more bits than the wire carries, or the packet length is none.
    pub fn from_bytes(bytes: &[u8; Self::PACKED_LEN]) -> Result<Self, Error> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[8..24]);
        let gid = Gid::from_bytes(gid);
        let qp_num = word(0);
        let mtu = Mtu::from_raw(u32::from(bytes[26]));
        let nonsense = |cause: String| Error::Peer { cause };
        if qp_num > 0xff_ffff {
            return Err(nonsense(format!("queue pair number {qp_num:#x} has more than 24 bits")));
        }
        if mtu.bytes().is_none() {
            return Err(nonsense(format!("largest packet of code {mtu}, which is none")));
        }
        Ok(Self {
            qp_num,
            lid: u16::from_be_bytes([bytes[24], bytes[25]]),
            gid: (!gid.is_zero()).then_some(gid),
            psn: PacketSequenceNumber::new(word(4)).map_err(|error| nonsense(error.to_string()))?,
            mtu,
            responder_resources: bytes[27],
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { qp_num, lid, psn, mtu, responder_resources, .. } = self;
        write!(f, "qp={qp_num:#x},psn={:#x},mtu={mtu},lid={lid:#x},rd={responder_resources}", psn.get())?;
        match self.gid {
            Some(gid) => write!(f, ",gid={gid}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let nonsense = |cause: String| Error::Peer { cause };
        let number = |value: &str| {
            let parsed = match value.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => value.parse(),
            };
            parsed.map_err(|_| nonsense(format!("{value:?} is no number of 32 bits")))
        };
        let mut bytes = [0; Self::PACKED_LEN];
        let mut seen = Vec::new();
        for part in text.split(',') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| nonsense(format!("{part:?} is no name=value")))?;
            if seen.contains(&name) {
                return Err(nonsense(format!("{name} is said twice")));
            }
            match name {
                "qp" => bytes[..4].copy_from_slice(&number(value)?.to_be_bytes()),
                "psn" => bytes[4..8].copy_from_slice(&number(value)?.to_be_bytes()),
                "mtu" => {
                    let wanted = number(value)?;
                    let code = (1..=5u8).find(|code| Mtu::from_raw(u32::from(*code)).bytes() == Some(wanted));
                    bytes[26] = code.ok_or_else(|| nonsense(format!("no packet carries {wanted} bytes")))?;
                }
                "lid" => {
                    let lid = u16::try_from(number(value)?)
                        .map_err(|_| nonsense(format!("local identifier {value} has more than 16 bits")))?;
                    bytes[24..26].copy_from_slice(&lid.to_be_bytes());
                }
                "rd" => {
                    bytes[27] = u8::try_from(number(value)?)
                        .map_err(|_| nonsense(format!("{value} reads at once; it is one byte")))?;
                }
                "gid" => {
                    let gid: Gid = value.parse().map_err(|_| nonsense(format!("{value:?} is no GID")))?;
                    bytes[8..24].copy_from_slice(&gid.bytes());
                }
                other => return Err(nonsense(format!("{other:?} is no part of an endpoint"))),
            }
            seen.push(name);
        }
        for needed in ["qp", "psn", "mtu", "lid", "rd"] {
            if !seen.contains(&needed) {
                return Err(nonsense(format!("{needed} is missing in {text:?}")));
            }
        }
        Self::from_bytes(&bytes)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            qp_num: 0x11,
            lid: 3,
            gid: Some("::ffff:10.0.0.1".parse().unwrap()),
            psn: PacketSequenceNumber::new(0xabcdef).unwrap(),
            mtu: Mtu::B1024,
            responder_resources: 16,
        }
    }

    #[test]
    fn an_endpoint_comes_back_from_text_and_from_bytes() {
        assert_eq!(endpoint().to_string().parse::<Endpoint>().unwrap(), endpoint());
        assert_eq!(Endpoint::from_bytes(&endpoint().to_bytes()).unwrap(), endpoint());
        let bare = Endpoint { gid: None, ..endpoint() };
        assert_eq!(bare.to_string().parse::<Endpoint>().unwrap(), bare);
        assert_eq!(Endpoint::from_bytes(&bare.to_bytes()).unwrap(), bare);
    }

    #[cfg(all(feature = "serde", feature = "network"))]
    #[test]
    fn an_endpoint_comes_back_from_serde_s_data_and_nonsense_does_not() {
        let text = serde_json::to_string(&endpoint()).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint());
        let error = serde_json::from_str::<Endpoint>("\"qp=1\"").unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }

    #[test]
    fn nonsense_from_a_peer_is_named() {
        for (text, cause) in [
            ("", "no name=value"),
            ("qp=1,psn=1,mtu=1024,rd=1", "lid is missing"),
            ("qp=1,psn=1,mtu=1024,lid=0,rd=256", "one byte"),
            ("qp=1,psn=1,mtu=1000,lid=0,rd=1", "no packet carries 1000"),
            ("qp=0x1000000,psn=1,mtu=1024,lid=0,rd=1", "24 bits"),
            ("qp=1,psn=0x1000000,mtu=1024,lid=0,rd=1", "24 bits"),
            ("qp=1,psn=1,mtu=1024,lid=65536,rd=1", "16 bits"),
            ("qp=1,psn=1,mtu=1024,lid=0,gid=nowhere", "no GID"),
            ("qp=1,qp=2,psn=1,mtu=1024,lid=0", "twice"),
            ("qp=1,psn=1,mtu=1024,lid=0,colour=red", "no part"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
        let mut bytes = endpoint().to_bytes();
        bytes[26] = 9;
        assert!(Endpoint::from_bytes(&bytes).is_err());
    }
}
