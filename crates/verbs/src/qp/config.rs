//! The numbers of a queue pair as types: what the wire encodes in a few bits is checked here and said in durations.
//!
//! Used by the builder and by attributes; no device is asked anything.

use crate::error::Error;
use std::fmt;
use std::time::Duration;

/// A 24-bit packet sequence number (InfiniBand specification, volume 1, 9.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PacketSequenceNumber(u32);

impl PacketSequenceNumber {
    /// The greatest: 2^24 - 1.
    pub const MAX: u32 = 0xff_ffff;

    /// A given number.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has more than 24 bits.
    pub fn new(number: u32) -> Result<Self, Error> {
        if number > Self::MAX {
            return Err(Error::invalid(
                "packet sequence number",
                format!("{number:#x} has more than 24 bits"),
                "take a number up to 0xffffff, or `random`",
            ));
        }
        Ok(Self(number))
    }

    /// A random one, from the system's source of luck: late packets of a connection before cannot be taken for this one's.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 4];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(4) => {}
            // No luck to be had (a sandbox that forbids the call): the clock differs from connection to connection too.
            _ => {
                bytes = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default()
                    .subsec_nanos()
                    .to_ne_bytes();
            }
        }
        Self(u32::from_ne_bytes(bytes) & Self::MAX)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Largest payload of one packet on a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mtu(u32);

impl Mtu {
    /// 256 bytes.
    pub const B256: Self = Self(1);
    /// 512 bytes.
    pub const B512: Self = Self(2);
    /// 1,024 bytes: the largest that fits an Ethernet frame of 1,500.
    pub const B1024: Self = Self(3);
    /// 2,048 bytes.
    pub const B2048: Self = Self(4);
    /// 4,096 bytes.
    pub const B4096: Self = Self(5);

    /// From the code of the ABI (`enum ibv_mtu`); unknown codes are kept.
    #[must_use]
    pub const fn from_raw(code: u32) -> Self {
        Self(code)
    }

    /// The code of the ABI.
    #[must_use]
    pub const fn as_raw(self) -> u32 {
        self.0
    }

    /// In bytes, or nothing for a code that is not known.
    #[must_use]
    pub const fn bytes(self) -> Option<u32> {
        match self.0 {
            1..=5 => Some(128 << self.0),
            _ => None,
        }
    }
}

impl fmt::Debug for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            Some(bytes) => write!(f, "{bytes}"),
            None => write!(f, "Unknown({})", self.0),
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How long a sender waits for an acknowledgement before it sends again: 4.096 µs times a power of two, or for ever.
///
/// Code of 5 bits (`ibv_qp_attr::timeout`). Devices may wait up to four times as long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AckTimeout(u8);

impl AckTimeout {
    /// Never sends again by time.
    pub const FOREVER: Self = Self(0);
    /// 67 ms: a peer that is a few milliseconds late into its state is waited for.
    pub const DEFAULT: Self = Self(14);

    /// By code, 0 to 31; 0 waits for ever.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other codes.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        if code > 31 {
            return Err(Error::invalid(
                "acknowledgement timeout",
                format!("code {code} has more than 5 bits"),
                "take 0 to 31",
            ));
        }
        Ok(Self(code))
    }

    /// The shortest that is not shorter than `duration`.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 8,796 s, the longest there is.
    pub fn at_least(duration: Duration) -> Result<Self, Error> {
        (1..=31).map(Self).find(|timeout| timeout.duration().is_some_and(|own| own >= duration)).ok_or_else(
            || {
                Error::invalid(
                    "acknowledgement timeout",
                    format!(
                        "{duration:?} is longer than the longest, {:?}",
                        Self(31).duration().unwrap_or_default()
                    ),
                    "take a shorter one, or FOREVER",
                )
            },
        )
    }

    /// How long, or nothing for [`AckTimeout::FOREVER`].
    #[must_use]
    pub const fn duration(self) -> Option<Duration> {
        match self.0 {
            0 => None,
            code => Some(Duration::from_nanos(4096 << code)),
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// How often a sender sends again before it gives up: 0 to 7 (`ibv_qp_attr::retry_cnt`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RetryCount(u8);

impl RetryCount {
    /// 6: with 7, the most, Linux' software RoCE sends again for ever.
    pub const DEFAULT: Self = Self(6);

    /// A given count.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 7.
    pub fn new(count: u8) -> Result<Self, Error> {
        if count > 7 {
            return Err(Error::invalid(
                "retry count",
                format!("{count} has more than 3 bits"),
                "take 0 to 7",
            ));
        }
        Ok(Self(count))
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How often a sender tries again when the receiver had no receive posted (`ibv_qp_attr::rnr_retry`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RnrRetry {
    /// Up to 6 times.
    Limited(RnrRetryCount),
    /// For ever: the deadline of the operation is the end. The default.
    Unlimited,
}

/// A number of attempts, 0 to 6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RnrRetryCount(u8);

impl RnrRetry {
    /// A given number of attempts.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 6: 7 stands for [`RnrRetry::Unlimited`].
    pub fn limited(count: u8) -> Result<Self, Error> {
        if count > 6 {
            return Err(Error::invalid(
                "receiver-not-ready retries",
                format!("{count} is more than 6"),
                "take 0 to 6, or Unlimited",
            ));
        }
        Ok(Self::Limited(RnrRetryCount(count)))
    }

    /// From the code, 0 to 7.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 7.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        if code == 7 { Ok(Self::Unlimited) } else { Self::limited(code) }
    }

    /// The code, 0 to 7.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Limited(count) => count.0,
            Self::Unlimited => 7,
        }
    }
}

/// How long a receiver asks senders to wait that found no receive posted (`ibv_qp_attr::min_rnr_timer`).
///
/// Code of 5 bits; the specification's table (volume 1, 9.7.5.2.8) runs from 10 µs to 655.36 ms, with 0 the longest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MinRnrTimer(u8);

impl MinRnrTimer {
    /// 0.64 ms.
    pub const DEFAULT: Self = Self(12);

    /// In steps of 10 µs, by code.
    const TENS_OF_MICROSECONDS: [u32; 32] = [
        65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
        3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
    ];

    /// By code, 0 to 31.
    ///
    /// # Errors
    /// [`Error::Invalid`] for other codes.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        if code > 31 {
            return Err(Error::invalid(
                "receiver-not-ready timer",
                format!("code {code} has more than 5 bits"),
                "take 0 to 31",
            ));
        }
        Ok(Self(code))
    }

    /// The shortest that is not shorter than `duration`.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 655.36 ms.
    pub fn at_least(duration: Duration) -> Result<Self, Error> {
        (1..32).chain([0]).map(Self).find(|timer| timer.duration() >= duration).ok_or_else(|| {
            Error::invalid(
                "receiver-not-ready timer",
                format!("{duration:?} is longer than the longest, {:?}", Self(0).duration()),
                "take a shorter one",
            )
        })
    }

    /// How long.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_micros(Self::TENS_OF_MICROSECONDS[(self.0 & 31) as usize] as u64 * 10)
    }

    /// The code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_round_up_to_what_the_wire_can_say() {
        let us = Duration::from_micros;
        assert_eq!(AckTimeout::at_least(us(1)).unwrap().code(), 1);
        assert_eq!(AckTimeout::at_least(us(8)).unwrap().code(), 1);
        assert_eq!(AckTimeout::at_least(us(9)).unwrap().code(), 2);
        assert_eq!(AckTimeout::from_code(4).unwrap().duration(), Some(Duration::from_nanos(65_536)));
        assert_eq!(
            AckTimeout::from_code(31).unwrap().duration(),
            Some(Duration::from_nanos(8_796_093_022_208))
        );
        assert_eq!(AckTimeout::FOREVER.duration(), None);
        assert!(AckTimeout::at_least(Duration::from_secs(9000)).is_err());
        assert!(AckTimeout::from_code(32).is_err());
    }

    #[test]
    fn receivers_timers_are_the_table_of_the_specification() {
        let us = Duration::from_micros;
        assert_eq!(MinRnrTimer::from_code(0).unwrap().duration(), us(655_360));
        assert_eq!(MinRnrTimer::from_code(12).unwrap().duration(), us(640));
        assert_eq!(MinRnrTimer::from_code(16).unwrap().duration(), us(2_560));
        assert_eq!(MinRnrTimer::from_code(31).unwrap().duration(), us(491_520));
        assert_eq!(MinRnrTimer::at_least(us(2_560)).unwrap().code(), 16);
        assert_eq!(MinRnrTimer::at_least(us(2_561)).unwrap().code(), 17);
        assert_eq!(MinRnrTimer::at_least(us(500_000)).unwrap().code(), 0);
        assert!(MinRnrTimer::at_least(us(655_361)).is_err());
        for code in 1..31 {
            let timer = MinRnrTimer::from_code(code).unwrap();
            assert!(timer.duration() < MinRnrTimer::from_code(code + 1).unwrap().duration());
            assert_eq!(MinRnrTimer::at_least(timer.duration()).unwrap(), timer);
        }
    }

    #[test]
    fn counts_beyond_their_bits_are_refused_with_the_remedy() {
        assert!(RetryCount::new(7).is_ok());
        assert!(RetryCount::new(8).unwrap_err().to_string().contains("0 to 7"));
        assert_eq!(RnrRetry::Unlimited.code(), 7);
        assert_eq!(RnrRetry::limited(6).unwrap().code(), 6);
        assert!(RnrRetry::limited(7).unwrap_err().to_string().contains("Unlimited"));
        assert!(PacketSequenceNumber::new(0x100_0000).is_err());
        assert!(PacketSequenceNumber::random().get() <= PacketSequenceNumber::MAX);
    }

    #[test]
    fn unknown_units_are_kept_and_shown() {
        assert_eq!(Mtu::B1024.bytes(), Some(1024));
        assert_eq!(Mtu::from_raw(9).to_string(), "Unknown(9)");
    }
}
