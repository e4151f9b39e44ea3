//! What the two processes of a measurement tell each other, as messages of the engine itself.
//!
//! The initiator sends a [`Request`]; the responder answers [`Reply::Ready`], the data goes to and fro, and after it
//! [`Reply::Done`] and [`Reply::Verified`] or [`Reply::Wrong`]. Measured messages have the tag `base + number`.

/// Tag of requests.
pub(crate) const REQUEST: u64 = 1 << 63;
/// Tag of replies.
pub(crate) const REPLY: u64 = 1 << 63 | 1;
/// Set in the tag of what comes back.
pub(crate) const BACK: u64 = 1 << 62;
/// Name of the responder's endpoint.
pub(crate) const ENDPOINT: &str = "perf";
/// Bytes of a request.
pub(crate) const REQUEST_LEN: usize = 48;
/// Bytes of the longest reply.
pub(crate) const REPLY_MAX: usize = 512;

const MAGIC: u64 = u64::from_le_bytes(*b"SNWPERF1");
/// Memory that one request may make a responder use.
pub(crate) const BYTES_MAX: u64 = 1 << 30;
const COUNT_MAX: u64 = 1 << 24;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// `count` messages, each answered by one as long.
    PingPong,
    /// `count` messages in one direction.
    Stream,
    /// The initiator has finished.
    Bye,
}

/// One round of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) task: Task,
    pub(crate) size: usize,
    pub(crate) count: u64,
    /// Tag of the first message.
    pub(crate) base: u64,
    /// What contents derive from.
    pub(crate) seed: u64,
}

impl Request {
    pub(crate) fn to_bytes(self) -> [u8; REQUEST_LEN] {
        let task = match self.task {
            Task::PingPong => 1,
            Task::Stream => 2,
            Task::Bye => 3,
        };
        let words = [MAGIC, task, self.size as u64, self.count, self.base, self.seed];
        let mut bytes = [0; REQUEST_LEN];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what a peer sent; the text says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; REQUEST_LEN] =
            bytes.try_into().map_err(|_| "not a request of this version of sinew perf")?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
            u64::from_le_bytes(word)
        };
        if word(0) != MAGIC {
            return Err("not a request of this version of sinew perf");
        }
        let task = match word(1) {
            1 => Task::PingPong,
            2 => Task::Stream,
            3 => Task::Bye,
            _ => return Err("a task that this version does not know"),
        };
        let (size, count, base) = (word(2), word(3), word(4));
        if size > BYTES_MAX || count > COUNT_MAX || base >= BACK - COUNT_MAX {
            return Err("a measurement beyond the limits of this version");
        }
        if task == Task::Stream && size.saturating_mul(count) > BYTES_MAX {
            return Err("more memory than this version lends to a peer");
        }
        let size = usize::try_from(size).map_err(|_| "a size beyond this machine's memory")?;
        Ok(Self { task, size, count, base, seed: word(5) })
    }
}

/// What the responder says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// Its receives are in place.
    Ready,
    /// Everything has arrived.
    Done,
    /// Everything that arrived is right.
    Verified,
    /// Something that arrived is wrong.
    Wrong(String),
    /// It will not, or cannot.
    Refused(String),
}

impl Reply {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Ready => (b'r', ""),
            Self::Done => (b'd', ""),
            Self::Verified => (b'v', ""),
            Self::Wrong(text) => (b'w', text.as_str()),
            Self::Refused(text) => (b'x', text.as_str()),
        };
        std::iter::once(kind).chain(text.bytes()).take(REPLY_MAX).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, text) = bytes.split_first()?;
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'r' => Some(Self::Ready),
            b'd' => Some(Self::Done),
            b'v' => Some(Self::Verified),
            b'w' => Some(Self::Wrong(text())),
            b'x' => Some(Self::Refused(text())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_survive_the_way() {
        let request = Request { task: Task::Stream, size: 4096, count: 100, base: 12345, seed: u64::MAX };
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request));
        for reply in [
            Reply::Ready,
            Reply::Done,
            Reply::Verified,
            Reply::Wrong("at 3".into()),
            Reply::Refused("no".into()),
        ] {
            assert_eq!(Reply::from_bytes(&reply.to_bytes()), Some(reply));
        }
    }

    #[test]
    fn a_request_for_too_much_is_refused() {
        let request = Request { task: Task::Stream, size: 1 << 20, count: 1 << 20, base: 0, seed: 0 };
        assert!(Request::from_bytes(&request.to_bytes()).is_err());
        let far = Request { base: u64::MAX, count: 1, ..request };
        assert!(Request::from_bytes(&far.to_bytes()).is_err());
        assert!(Request::from_bytes(&[0; REQUEST_LEN]).is_err());
        assert!(Request::from_bytes(b"short").is_err());
    }
}
