//! What an engine says about itself: the content of the first and second record, encrypted under the secret where there is one.

use super::{ECHO_LEN, HelloError, Record, echo, take};

/// Bytes of the content, padded with zeros.
pub const HELLO_LEN: usize = 432;

/// Longest text of locators, in bytes.
pub const LOCATORS_MAX: usize = 250;

/// Type of the part that carries the locators.
pub const PART_LOCATORS: u8 = 1;

/// Type of the part that carries the transport to which the session is pinned. Required: whoever does not know it would take the
/// lane for one of the implicit session.
pub const PART_PINNED: u8 = 2 | PART_REQUIRED;

/// Longest name of a transport in a hello, in bytes.
pub const PINNED_MAX: usize = 15;

/// Bit in a part's type: a receiver that does not know the type must not go on. Other unknown parts are skipped.
pub const PART_REQUIRED: u8 = 0x80;

const ENGINE: usize = 24;
const INCARNATION: usize = 40;
const DOMAIN: usize = 48;
const EXPECTED_ENGINE: usize = 80;
const EXPECTED_INCARNATION: usize = 96;
const EPOCH: usize = 104;
const SESSION_BYTES: usize = 112;
const ENDPOINT_BYTES: usize = 120;
const SESSION_ENVELOPES: usize = 128;
const ENDPOINT_ENVELOPES: usize = 132;
const FRAME_MAX: usize = 136;
const PROCESS: usize = 140;
const LANE: usize = 144;
const FLAGS: usize = 148;
const PARTS: usize = 152;

const FLAG_ENCRYPTION: u32 = 1;
const FLAG_RESUMES: u32 = 2;

/// What the peer may send before it hears of new limits. Absolute: since the session's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credits {
    /// Bytes to all endpoints together.
    pub session_bytes: u64,
    /// Bytes to each endpoint.
    pub endpoint_bytes: u64,
    /// Envelopes to all endpoints together.
    pub session_envelopes: u32,
    /// Envelopes to each endpoint.
    pub endpoint_envelopes: u32,
}

/// What an engine says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// The engine's identity: unique, not secret, never zero.
    pub engine: [u8; 16],
    /// Changes each time the engine starts.
    pub incarnation: u64,
    /// Hash of the domain's name.
    pub domain: [u8; 32],
    /// Whom the sender wants to talk to; zero: anybody of the domain.
    pub expected_engine: [u8; 16],
    /// Which incarnation of it; zero: any.
    pub expected_incarnation: u64,
    /// Which of the sessions that the two engines ever had is meant: as many as the sender has given up. The later one counts.
    pub epoch: u64,
    /// The lane is another one of a session that exists, in the sender's eyes.
    pub resumes: bool,
    /// What the receiver of this may send.
    pub credits: Credits,
    /// Largest frame body in bytes that the sender of this takes.
    pub frame_max: u32,
    /// Process number as the sender sees it; 0: not told.
    pub process: u32,
    /// Number of the lane in the session, chosen by the dialer.
    pub lane: u32,
    /// The sender wants what follows encrypted. Reserved: version 1 only says so.
    pub encryption_wanted: bool,
    /// The session is the one that is pinned to the transport of this name; empty: the implicit one. 1 to [`PINNED_MAX`]
    /// characters of `a-z 0-9 + -`; the receiver refuses any other name.
    pub pinned: String,
    /// Where the sender can be dialled: `scheme:body` texts, separated by one space. At most [`LOCATORS_MAX`] bytes.
    pub locators: String,
}

impl Hello {
    /// The content for `record`, whose header is there already. Locators that do not fit are left out from the end.
    #[must_use]
    pub fn encode(&self, record: &Record) -> [u8; HELLO_LEN] {
        let mut out = [0; HELLO_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &echo(record));
        put(ENGINE, &self.engine);
        put(INCARNATION, &self.incarnation.to_le_bytes());
        put(DOMAIN, &self.domain);
        put(EXPECTED_ENGINE, &self.expected_engine);
        put(EXPECTED_INCARNATION, &self.expected_incarnation.to_le_bytes());
        put(EPOCH, &self.epoch.to_le_bytes());
        put(SESSION_BYTES, &self.credits.session_bytes.to_le_bytes());
        put(ENDPOINT_BYTES, &self.credits.endpoint_bytes.to_le_bytes());
        put(SESSION_ENVELOPES, &self.credits.session_envelopes.to_le_bytes());
        put(ENDPOINT_ENVELOPES, &self.credits.endpoint_envelopes.to_le_bytes());
        put(FRAME_MAX, &self.frame_max.to_le_bytes());
        put(PROCESS, &self.process.to_le_bytes());
        put(LANE, &self.lane.to_le_bytes());
        let flags = if self.encryption_wanted { FLAG_ENCRYPTION } else { 0 }
            | if self.resumes { FLAG_RESUMES } else { 0 };
        put(FLAGS, &flags.to_le_bytes());
        let mut at = PARTS;
        let mut put_part = |part: u8, text: &str| {
            put(at, &[part, text.len() as u8]);
            put(at + 2, text.as_bytes());
            at += 2 + text.len();
        };
        if !self.pinned.is_empty() {
            // Of what is no name the receiver is told, and refuses it: it must not become the implicit session.
            put_part(PART_PINNED, if is_transport_name(&self.pinned) { &self.pinned } else { "" });
        }
        let text = fitting(&self.locators);
        if !text.is_empty() {
            put_part(PART_LOCATORS, text);
        }
        out
    }

    /// Reads the content that came in `record`.
    ///
    /// # Errors
    /// [`HelloError`].
    pub fn decode(content: &[u8; HELLO_LEN], record: &Record) -> Result<Self, HelloError> {
        if take::<ECHO_LEN>(content, 0) != echo(record) {
            return Err(HelloError::EchoDiffers);
        }
        let u32_at = |at| u32::from_le_bytes(take(content, at));
        let u64_at = |at| u64::from_le_bytes(take(content, at));
        let engine = take(content, ENGINE);
        if engine == [0; 16] {
            return Err(HelloError::NoEngine);
        }
        let flags = u32_at(FLAGS);
        let Parts { pinned, locators } = parts(content)?;
        Ok(Self {
            engine,
            incarnation: u64_at(INCARNATION),
            domain: take(content, DOMAIN),
            expected_engine: take(content, EXPECTED_ENGINE),
            expected_incarnation: u64_at(EXPECTED_INCARNATION),
            epoch: u64_at(EPOCH),
            resumes: flags & FLAG_RESUMES != 0,
            credits: Credits {
                session_bytes: u64_at(SESSION_BYTES),
                endpoint_bytes: u64_at(ENDPOINT_BYTES),
                session_envelopes: u32_at(SESSION_ENVELOPES),
                endpoint_envelopes: u32_at(ENDPOINT_ENVELOPES),
            },
            frame_max: u32_at(FRAME_MAX),
            process: u32_at(PROCESS),
            lane: u32_at(LANE),
            encryption_wanted: flags & FLAG_ENCRYPTION != 0,
            pinned,
            locators,
        })
    }
}

/// As many whole locators as fit.
fn fitting(text: &str) -> &str {
    if text.len() <= LOCATORS_MAX {
        return text;
    }
    let mut end = LOCATORS_MAX + 1;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].rsplit_once(' ').map_or("", |(whole, _)| whole)
}

/// Whether a text can stand in a hello as the name of a transport: 1 to [`PINNED_MAX`] characters of `a-z 0-9 + -`.
#[must_use]
pub fn is_transport_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-');
    (1..=PINNED_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[derive(Default)]
struct Parts {
    pinned: String,
    locators: String,
}

/// Walks the parts.
fn parts(content: &[u8; HELLO_LEN]) -> Result<Parts, HelloError> {
    let (mut at, mut found) = (PARTS, Parts::default());
    while at + 2 <= HELLO_LEN && content[at] != 0 {
        let (part, len) = (content[at], usize::from(content[at + 1]));
        let body = content.get(at + 2..at + 2 + len).ok_or(HelloError::PartTooLong { at })?;
        let text = core::str::from_utf8(body).ok();
        match part {
            PART_LOCATORS => {
                let plain = body.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
                let text = text.filter(|_| plain && len <= LOCATORS_MAX);
                found.locators = text.ok_or(HelloError::BadLocators)?.into();
            }
            PART_PINNED => {
                let text = text.filter(|text| is_transport_name(text) && found.pinned.is_empty());
                found.pinned = text.ok_or(HelloError::BadTransportName)?.into();
            }
            _ if part & PART_REQUIRED != 0 => return Err(HelloError::UnknownPart { part }),
            _ => {}
        }
        at += 2 + len;
    }
    Ok(found)
}
