//! The frame: what two engines exchange over any lane. `docs/wire/frame.md` describes every byte.
//!
//! A lane carries frames in order, each a [`Header`] and a body of at most the lane's `frame_max` bytes. How the header
//! is laid out is the lane's own affair: streams use [`stream`], shared memory packs it into one cache line.

pub mod bundle;
pub mod stream;

/// What a frame is for. A newtype, because a peer may send any number: unknown kinds are data, never a panic.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// Never sent: an empty ring slot reads as this.
    pub const EMPTY: Self = Self(0);
    /// A whole message: body = \[immediate u64 if [`Flags::IMMEDIATE`]\] payload.
    pub const EAGER: Self = Self(1);
    /// A message whose data is fetched on match: body = operation u64, length u64, \[immediate u64\], \[descriptor\],
    /// \[how many bytes follow unasked, by [`Kind::PUSH`], u64\].
    pub const ENVELOPE: Self = Self(2);
    /// Receiver asks for data of an envelope: tag = sender's operation; body = receiver's operation u64, offset u64, length u64.
    pub const FETCH: Self = Self(3);
    /// A fragment: tag = receiver's operation, `dst`/`src` = low / high half of the 64-bit offset; body = bytes.
    pub const DATA: Self = Self(4);
    /// Receiver is done with an envelope: tag = sender's operation; body = status u32.
    pub const DONE: Self = Self(5);
    /// New absolute limits: dst = endpoint (0 = whole session); body = bytes u64, envelopes u64.
    pub const CREDIT: Self = Self(6);
    /// Asks for [`Kind::FLUSH_REPLY`] once everything before it was accepted by the session; tag = token.
    pub const FLUSH: Self = Self(7);
    /// Answer to a flush; tag = token.
    pub const FLUSH_REPLY: Self = Self(8);
    /// Asks for the number of a named (or the default) endpoint; tag = token; body = name.
    pub const LOOKUP: Self = Self(9);
    /// Answer; tag = token, src = endpoint number or 0 when there is none.
    pub const LOOKUP_REPLY: Self = Self(10);
    /// An endpoint is gone: src = its number. What was sent to it and not matched has ended with it.
    pub const ENDPOINT_CLOSED: Self = Self(11);
    /// Sender withdraws an envelope that was not fetched yet: tag = sender's operation.
    pub const WITHDRAW: Self = Self(12);
    /// Proves a lane: tag = nonce, body = padding of any size; not part of the session's sequence.
    pub const PROBE: Self = Self(13);
    /// Answer to a probe with the same nonce and size; not part of the session's sequence.
    pub const PROBE_REPLY: Self = Self(14);
    /// Begins a leg on this lane, before any frame of it: tag = session sequence number of its first frame, dst = the leg's number,
    /// src = 1 if the lane was chosen explicitly; itself unsequenced.
    pub const SWITCH: Self = Self(15);
    /// A lane is given up: tag = the lane's session-wide number; unsequenced.
    pub const LANE_DOWN: Self = Self(16);
    /// The lane may be sent on: tag = number of sequenced frames received so far, src = newest leg that was begun or fenced,
    /// dst = 1 if nothing of that leg will be taken any more; unsequenced.
    pub const RESUME: Self = Self(17);
    /// The session ends: body = reason u32; unsequenced.
    pub const GOODBYE: Self = Self(18);
    /// Nothing of this leg or an earlier one is to be taken any more, and RESUME is asked for: tag = the leg's number; unsequenced.
    pub const FENCE: Self = Self(19);
    /// Several short messages of one endpoint for another: tag = how many; body = lengths, tags, bytes ([`bundle`]).
    pub const BUNDLE: Self = Self(20);
    /// A fragment outside the sequence, on any lane that the receiver listens on: tag = receiver's operation, `dst`/`src` = offset
    /// and turn ([`Header::stripe`]); body = bytes. It may come twice; unsequenced.
    pub const STRIPE: Self = Self(21);
    /// Asks the peer, which dials, for lanes of the transport that carries the session: tag = how many in all; unsequenced.
    pub const LANES: Self = Self(22);
    /// A fragment that nobody asked for, behind the envelope of its message, which announced it: tag = sender's operation,
    /// `dst`/`src` = low / high half of the 64-bit offset; body = bytes.
    pub const PUSH: Self = Self(23);
    /// First number that lanes may use for themselves; such frames never leave the lane.
    pub const LANE_PRIVATE: u8 = 192;

    /// Whether frames of this kind are counted, acknowledged and replayed by the session.
    #[must_use]
    #[inline]
    pub const fn is_sequenced(self) -> bool {
        self.0 < Self::PROBE.0 || self.0 == Self::BUNDLE.0 || self.0 == Self::PUSH.0
    }

    /// Whether its body is a part of a long message: such a body may be as long as a lane's `borrowed_max`, and is put to its place
    /// while it arrives.
    #[must_use]
    #[inline]
    pub const fn is_fragment(self) -> bool {
        self.0 == Self::DATA.0 || self.0 == Self::STRIPE.0 || self.0 == Self::PUSH.0
    }

    /// The kind's name for people, or `None` for a number this version does not know.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 24] = [
            "EMPTY",
            "EAGER",
            "ENVELOPE",
            "FETCH",
            "DATA",
            "DONE",
            "CREDIT",
            "FLUSH",
            "FLUSH_REPLY",
            "LOOKUP",
            "LOOKUP_REPLY",
            "ENDPOINT_CLOSED",
            "WITHDRAW",
            "PROBE",
            "PROBE_REPLY",
            "SWITCH",
            "LANE_DOWN",
            "RESUME",
            "GOODBYE",
            "FENCE",
            "BUNDLE",
            "STRIPE",
            "LANES",
            "PUSH",
        ];
        if (self.0 as usize) < NAMES.len() { Some(NAMES[self.0 as usize]) } else { None }
    }
}

impl core::fmt::Debug for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Unknown({:#04x})", self.0),
        }
    }
}

/// Bits beside the kind. Bits 4 to 7 belong to the lane that carries the frame and never reach the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// The message carries 64 bits of immediate data.
    pub const IMMEDIATE: Self = Self(1);
    /// An envelope ends with a descriptor that the receiver may pull or view.
    pub const DESCRIPTOR: Self = Self(2);
    /// A receiver that does not know the kind skips the frame; without this bit it closes the session with a reason.
    pub const OPTIONAL: Self = Self(4);
    /// On an EAGER or an ENVELOPE, which every receiver knows, the same bit says that it is charged to the reserve of its
    /// endpoint, and not to the credit that all endpoints of the session share.
    pub const RESERVE: Self = Self(4);
    /// The message was sent untagged: it matches untagged receives only.
    pub const UNTAGGED: Self = Self(8);

    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the bits of `other`.
    #[must_use]
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The union of both.
    #[must_use]
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What every frame says about itself; the body's length travels beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the frame is for.
    pub kind: Kind,
    /// Modifiers.
    pub flags: Flags,
    /// Endpoint that the frame is for, numbered by the receiver's engine; 0 = the session itself.
    pub dst: u32,
    /// Endpoint that the frame comes from, numbered by the sender's engine.
    pub src: u32,
    /// Message tag, operation, token: see the kind.
    pub tag: u64,
}

impl Header {
    /// A header that concerns the session, not an endpoint.
    #[must_use]
    #[inline]
    pub const fn control(kind: Kind, tag: u64) -> Self {
        Self { kind, flags: Flags(0), dst: 0, src: 0, tag }
    }

    /// Header of a fragment for the receiver's operation `operation`, at `offset` bytes of the message.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub const fn data(operation: u64, offset: u64) -> Self {
        Self {
            kind: Kind::DATA,
            flags: Flags(0),
            dst: offset as u32,
            src: (offset >> 32) as u32,
            tag: operation,
        }
    }

    /// Header of a fragment that nobody asked for, at `offset` bytes of the message of the sender's operation `operation`.
    #[must_use]
    #[inline]
    pub const fn push(operation: u64, offset: u64) -> Self {
        Self { kind: Kind::PUSH, ..Self::data(operation, offset) }
    }

    /// Header of a fragment outside the sequence, at `offset` bytes of the message that is fetched for the `turn`th time: offsets have
    /// 48 bits, of which [`Header::stripe_place`] gives what was stored.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub const fn stripe(operation: u64, turn: u16, offset: u64) -> Self {
        let high = ((offset >> 32) as u32 & 0xffff) | (turn as u32) << 16;
        Self { kind: Kind::STRIPE, flags: Flags(0), dst: offset as u32, src: high, tag: operation }
    }

    /// Turn and offset of a fragment, as [`Header::stripe`] stored them.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub const fn stripe_place(&self) -> (u16, u64) {
        ((self.src >> 16) as u16, self.dst as u64 | ((self.src & 0xffff) as u64) << 32)
    }

    /// Offset of a fragment, as [`Header::data`] stored it.
    #[must_use]
    #[inline]
    pub const fn offset(&self) -> u64 {
        self.dst as u64 | (self.src as u64) << 32
    }
}
