//! One message of any size from one shell to another: `sinew send` and `sinew listen`.
//!
//! The sender says hello and waits to be accepted; then chunks follow in order, each with its number as immediate data, and
//! after them the total length and checksum. The listener answers whether both are right. Memory is bounded on both sides:
//! a chunk travels only into a receive that was posted for it.

pub(crate) mod listen;
pub(crate) mod send;
mod sink;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};

/// Name of the listener's endpoint.
const ENDPOINT: &str = "transfer";
/// Tag of the sender's first message.
const HELLO: u64 = 1;
/// Tag of what the listener says.
const ANSWER: u64 = 2;
/// Tag of chunks and of what ends them.
const CHUNK: u64 = 3;
/// Bytes of a chunk, but the last.
const CHUNK_LEN: usize = 1 << 20;
/// Chunks under way at a time.
const WINDOW: usize = 4;
/// Immediate of the message that ends a transfer; chunks have their number.
const END: u64 = u64::MAX;
/// Immediate of the message that says that the sender cannot go on.
const ABORT: u64 = u64::MAX - 1;
/// Bytes of the longest answer or reason.
const TEXT_MAX: usize = 512;

const MAGIC: &[u8; 8] = b"SNWXFER1";
/// Longest name of a file that is told.
const NAME_MAX: usize = 255;

/// Text from elsewhere that is shown on a terminal: nothing in it may steer that.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

/// What the sender says first.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hello {
    /// Bytes that will come, where that is known.
    len: Option<u64>,
    /// What it is, for people.
    name: String,
}

impl Hello {
    const LEN_MAX: usize = 16 + NAME_MAX;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.len.unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(self.name.bytes().take(NAME_MAX));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, name) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let len = u64::from_le_bytes(*len);
        Some(Self { len: (len != u64::MAX).then_some(len), name: shown(name) })
    }
}

/// What the listener says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    /// Send.
    Accepted,
    /// Everything arrived, and is right.
    Right,
    /// Something else arrived than was sent.
    Different(String),
    /// It ended otherwise; nothing is to be believed of what arrived.
    Wrong(String),
}

impl Answer {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Accepted => b"a".to_vec(),
            Self::Right => b"r".to_vec(),
            Self::Different(text) => Self::told(b'd', text),
            Self::Wrong(text) => Self::told(b'w', text),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (b'a', []) => Some(Self::Accepted),
            (b'r', []) => Some(Self::Right),
            (b'd', text) => Some(Self::Different(shown(text))),
            (b'w', text) => Some(Self::Wrong(shown(text))),
            _ => None,
        }
    }

    fn told(kind: u8, text: &str) -> Vec<u8> {
        std::iter::once(kind).chain(text.bytes()).take(TEXT_MAX).collect()
    }
}

/// Length and checksum of what went by.
#[derive(Clone, Default)]
struct Sum {
    hash: Blake2b<U32>,
    len: u64,
}

impl Sum {
    const BYTES: usize = 40;

    fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.len += data.len() as u64;
    }

    fn finish(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..].copy_from_slice(&self.hash.finalize());
        bytes
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(len: Option<u64>) -> indicatif::ProgressBar {
    use std::io::IsTerminal;
    let target = if std::io::stderr().is_terminal() && !std::io::stdout().is_terminal() {
        indicatif::ProgressDrawTarget::stderr()
    } else {
        indicatif::ProgressDrawTarget::hidden()
    };
    let bar = indicatif::ProgressBar::with_draw_target(len, target);
    let template = match len {
        Some(_) => "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{bytes} {bytes_per_sec}",
    };
    match indicatif::ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `20 MB in 12 ms, 1.6 GB/s`.
fn summary(len: u64, took: std::time::Duration) -> String {
    let rate = len as f64 / took.as_secs_f64().max(1e-9);
    let time = crate::units::time(took.as_nanos() as f64);
    format!("{len} bytes in {time}, {}", crate::units::bandwidth(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_survives_the_way() {
        for len in [None, Some(0), Some(1 << 40)] {
            let hello = Hello { len, name: "a file".into() };
            assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
        }
        let others = [Answer::Wrong("no".into()), Answer::Different("no".into())];
        for answer in [Answer::Accepted, Answer::Right].into_iter().chain(others) {
            assert_eq!(Answer::from_bytes(&answer.to_bytes()), Some(answer));
        }
        assert_eq!(Hello::from_bytes(b"GET / HTTP/1.1"), None);
        assert_eq!(Answer::from_bytes(b""), None);
    }

    #[test]
    fn a_text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(Answer::from_bytes(b"w\x1b]0;a\x07b"), Some(Answer::Wrong("]0;ab".into())));
        assert_eq!(Answer::from_bytes(b"d\x1bc"), Some(Answer::Different("c".into())));
        let hello = Hello { len: None, name: "a\x1b[2Jb\nc".into() };
        assert_eq!(Hello::from_bytes(&hello.to_bytes()).map(|hello| hello.name), Some("a[2Jbc".into()));
    }

    #[test]
    fn a_sum_knows_length_and_content() {
        let sum = |parts: &[&[u8]]| {
            let mut sum = Sum::default();
            parts.iter().for_each(|part| sum.update(part));
            sum.finish()
        };
        assert_eq!(sum(&[b"ab", b"c"]), sum(&[b"abc"]));
        assert_ne!(sum(&[b"abc"]), sum(&[b"abd"]));
        assert_ne!(sum(&[]), sum(&[b"\0"]));
    }
}
