//! Several short messages in one frame: the body of a [`Kind::BUNDLE`](super::Kind::BUNDLE). `docs/wire/frame.md` shows it.
//!
//! The sender packs with [`Packer`], the receiver opens a private copy with [`Opened`]. What they must not do: know who the
//! messages are for, which the frame's header says.

/// Messages of one bundle at most.
pub const MESSAGES_MAX: usize = 32;
/// Bytes of all its messages at most.
pub const DATA_MAX: usize = 2048;
/// Bytes of a body at most: lengths, tags, messages.
pub const BODY_MAX: usize = MESSAGES_MAX * (2 + 8) + DATA_MAX;

/// Bytes that the lengths of `count` messages take.
const fn lengths(count: usize) -> usize {
    (2 * count).next_multiple_of(8)
}

/// Messages on their way into a bundle.
#[derive(Clone)]
pub struct Packer {
    count: usize,
    len: usize,
    untagged: bool,
    lengths: [u8; MESSAGES_MAX * 2],
    tags: [u8; MESSAGES_MAX * 8],
    data: [u8; DATA_MAX],
}

impl Packer {
    /// An empty bundle.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            len: 0,
            untagged: false,
            lengths: [0; MESSAGES_MAX * 2],
            tags: [0; MESSAGES_MAX * 8],
            data: [0; DATA_MAX],
        }
    }

    /// How many messages it has.
    #[must_use]
    #[inline]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether its messages were sent untagged.
    #[must_use]
    #[inline]
    pub const fn untagged(&self) -> bool {
        self.untagged
    }

    /// Appends a message: `false` if there is no room for it, or if it is tagged and the others are not.
    #[inline(always)]
    pub fn push(&mut self, tag: u64, untagged: bool, data: &[u8]) -> bool {
        let at = self.count;
        if at == 0 {
            self.untagged = untagged;
        }
        let end = self.len + data.len();
        let (lengths, _) = self.lengths.as_chunks_mut::<2>();
        let (tags, _) = self.tags.as_chunks_mut::<8>();
        let (Some(length), Some(tag_place), Some(place), true) = (
            lengths.get_mut(at),
            tags.get_mut(at),
            self.data.get_mut(self.len..end),
            self.untagged == untagged,
        ) else {
            return false;
        };
        *length = (data.len() as u16).to_le_bytes();
        *tag_place = tag.to_le_bytes();
        if let (Ok(place), Ok(word)) = (<&mut [u8; 8]>::try_from(&mut *place), <&[u8; 8]>::try_from(data)) {
            *place = *word;
        } else {
            place.copy_from_slice(data);
        }
        self.count = at + 1;
        self.len = end;
        true
    }

    /// Its only message, tag and bytes.
    #[must_use]
    pub fn single(&self) -> Option<(u64, &[u8])> {
        let (tags, _) = self.tags.as_chunks::<8>();
        (self.count == 1).then(|| (u64::from_le_bytes(tags[0]), &self.data[..self.len]))
    }

    /// The body, in parts that follow each other.
    #[must_use]
    #[inline]
    pub fn parts(&self) -> [&[u8]; 3] {
        let tags = if self.untagged { 0 } else { self.count * 8 };
        let lengths = lengths(self.count).min(self.lengths.len());
        [&self.lengths[..lengths], &self.tags[..tags], &self.data[..self.len]]
    }

    /// Forgets the messages.
    #[inline]
    pub fn clear(&mut self) {
        // What lies behind the last length goes out as well.
        self.lengths = [0; MESSAGES_MAX * 2];
        self.count = 0;
        self.len = 0;
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Packer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Packer({} messages, {} bytes)", self.count, self.len)
    }
}

/// Why a body is no bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoBundle;

/// The messages of a bundle that has come.
#[derive(Clone)]
pub struct Opened {
    count: usize,
    untagged: bool,
    /// Their tags; 0 when they are untagged.
    tags: [u64; MESSAGES_MAX],
    /// Where each message begins in `bytes`, and where the last one ends.
    starts: [u16; MESSAGES_MAX + 1],
    bytes: [u8; BODY_MAX],
}

impl Opened {
    /// No bundle.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            untagged: false,
            tags: [0; MESSAGES_MAX],
            starts: [0; MESSAGES_MAX + 1],
            bytes: [0; BODY_MAX],
        }
    }

    /// Opens a bundle of `count` messages whose body has `len` bytes, which `copy` writes.
    ///
    /// # Errors
    /// When it is none: no message, too many, or lengths that do not make up the body. There are no messages then.
    #[inline]
    pub fn open(
        &mut self,
        count: u64,
        untagged: bool,
        len: usize,
        copy: impl FnOnce(&mut [u8]),
    ) -> Result<(), NoBundle> {
        self.count = 0;
        let count = usize::try_from(count).map_err(|_| NoBundle)?;
        let head = lengths(count.min(MESSAGES_MAX)) + if untagged { 0 } else { count.min(MESSAGES_MAX) * 8 };
        if count == 0 || count > MESSAGES_MAX || len < head {
            return Err(NoBundle);
        }
        copy(self.bytes.get_mut(..len).ok_or(NoBundle)?);
        let (sizes, _) = self.bytes.as_chunks::<2>();
        let mut at = head;
        for (start, length) in self.starts.iter_mut().zip(sizes).take(count) {
            *start = at as u16;
            at += usize::from(u16::from_le_bytes(*length));
        }
        if at != len {
            return Err(NoBundle);
        }
        self.starts[count] = at as u16;
        self.tags = [0; MESSAGES_MAX];
        if !untagged {
            let (tags, _) = self.bytes[lengths(count)..head].as_chunks::<8>();
            for (tag, bytes) in self.tags.iter_mut().zip(tags) {
                *tag = u64::from_le_bytes(*bytes);
            }
        }
        self.untagged = untagged;
        self.count = count;
        Ok(())
    }

    /// How many messages there are.
    #[must_use]
    #[inline]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether they were sent untagged.
    #[must_use]
    #[inline]
    pub const fn untagged(&self) -> bool {
        self.untagged
    }

    /// Bytes of all messages.
    #[must_use]
    #[inline]
    pub fn data_len(&self) -> usize {
        usize::from(self.starts[self.count] - self.starts[0])
    }

    /// A message's tag; 0 when they are untagged, or there is none.
    #[must_use]
    #[inline(always)]
    pub fn tag(&self, at: usize) -> u64 {
        self.tags.get(at).copied().unwrap_or_default()
    }

    /// A message's bytes; empty when there is none.
    #[must_use]
    #[inline(always)]
    pub fn data(&self, at: usize) -> &[u8] {
        match (self.starts.get(at), self.starts.get(at + 1)) {
            (Some(&from), Some(&to)) if at < self.count => {
                self.bytes.get(usize::from(from)..usize::from(to)).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// All messages, tag and bytes.
    pub fn messages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (0..self.count).map(|at| (self.tag(at), self.data(at)))
    }
}

impl Default for Opened {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Opened({} messages)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(packer: &Packer) -> Vec<u8> {
        packer.parts().concat()
    }

    fn open(count: u64, untagged: bool, body: &[u8]) -> Result<Opened, NoBundle> {
        let mut opened = Opened::new();
        opened.open(count, untagged, body.len(), |into| into.copy_from_slice(body)).map(|()| opened)
    }

    #[test]
    fn what_was_packed_comes_out_in_order() {
        for untagged in [false, true] {
            for count in 1..=MESSAGES_MAX {
                let mut packer = Packer::new();
                let messages: Vec<(u64, Vec<u8>)> =
                    (0..count).map(|at| (!(at as u64), vec![at as u8; (at * 7) % 64])).collect();
                for (tag, data) in &messages {
                    assert!(packer.push(*tag, untagged, data));
                }
                let opened = open(count as u64, untagged, &body(&packer)).unwrap();
                let out: Vec<(u64, Vec<u8>)> =
                    opened.messages().map(|(tag, data)| (tag, data.to_vec())).collect();
                let expected: Vec<_> =
                    messages.into_iter().map(|(tag, data)| (if untagged { 0 } else { tag }, data)).collect();
                assert_eq!(out, expected);
                assert_eq!(opened.data_len(), expected.iter().map(|(_, data)| data.len()).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_full_bundle_takes_no_more() {
        let mut packer = Packer::new();
        for _ in 0..DATA_MAX / 128 {
            assert!(packer.push(1, false, &[1; 128]));
        }
        assert!(!packer.push(1, false, &[1]));
        assert!(packer.push(1, false, &[]), "nothing needs no room");
        packer.clear();
        for _ in 0..MESSAGES_MAX {
            assert!(packer.push(1, true, &[]));
        }
        assert!(!packer.push(1, true, &[]));
        packer.clear();
        assert!(packer.push(1, false, b"a"));
        assert!(!packer.push(1, true, b"b"), "tagged and untagged do not mix");
        assert_eq!(packer.single(), Some((1, &b"a"[..])));
    }

    #[test]
    fn lengths_that_do_not_make_up_the_body_are_refused() {
        let mut packer = Packer::new();
        assert!(packer.push(7, false, b"seven") && packer.push(8, false, b"eight!"));
        let good = body(&packer);
        assert!(open(2, false, &good).is_ok());
        assert!(open(2, true, &good).is_err());
        for count in [0, 1, 3, 33, u64::MAX] {
            assert!(open(count, false, &good).is_err(), "{count}");
        }
        for len in 0..good.len() {
            assert!(open(2, false, &good[..len]).is_err(), "{len}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(open(2, false, &long).is_err());
        let mut wrong = good;
        wrong[0] += 1;
        assert!(open(2, false, &wrong).is_err());
        assert!(open(1, true, &[0; BODY_MAX + 1]).is_err());
        assert!(open(1, true, &[0; 8]).is_ok(), "an empty message");
    }

    #[test]
    fn there_is_nothing_beyond_the_last_message() {
        let opened = open(1, false, &{
            let mut packer = Packer::new();
            packer.push(5, false, b"x");
            body(&packer)
        })
        .unwrap();
        assert_eq!((opened.data(0), opened.data(1), opened.data(99)), (&b"x"[..], &b""[..], &b""[..]));
        assert_eq!(opened.tag(usize::MAX / 16), 0);
    }

    #[test]
    fn what_an_earlier_bundle_had_is_not_there_any_more() {
        let mut packer = Packer::new();
        assert!([1, 2, 3].iter().all(|tag| packer.push(*tag, false, b"one of three")));
        let three = body(&packer);
        packer.clear();
        assert!(packer.push(4, true, b"alone"));
        let alone = body(&packer);
        let mut opened = Opened::new();
        opened.open(3, false, three.len(), |into| into.copy_from_slice(&three)).unwrap();
        assert_eq!((opened.count(), opened.untagged(), opened.data(2)), (3, false, &b"one of three"[..]));
        opened.open(1, true, alone.len(), |into| into.copy_from_slice(&alone)).unwrap();
        assert_eq!((opened.count(), opened.untagged(), opened.data(0)), (1, true, &b"alone"[..]));
        assert_eq!((opened.data(1), opened.data(2), opened.tag(2)), (&b""[..], &b""[..], 0));
        assert_eq!(format!("{opened:?}"), "Opened(1 messages)");
        assert_eq!(opened.open(1, true, 1, |_| ()), Err(NoBundle));
        assert_eq!((opened.count(), opened.data(0)), (0, &b""[..]));
    }

    #[test]
    fn a_packer_knows_what_it_has() {
        let mut packer = Packer::new();
        for count in 0..5 {
            assert_eq!((packer.count(), packer.untagged()), (count, count > 0));
            assert!(packer.push(0, true, b"abc"));
        }
        assert_eq!(format!("{packer:?}"), "Packer(5 messages, 15 bytes)");
        packer.clear();
        assert!(packer.push(0, false, b"abc"));
        assert_eq!((packer.count(), packer.untagged()), (1, false));
    }

    #[test]
    fn no_message_and_too_many_are_refused_whatever_the_body() {
        for untagged in [false, true] {
            for count in [0, MESSAGES_MAX as u64 + 1, MESSAGES_MAX as u64 + 2, 1 << 40] {
                for len in [0, 8, 320, BODY_MAX] {
                    assert!(open(count, untagged, &vec![0; len]).is_err(), "{count} in {len}");
                }
            }
        }
    }
}
