//! The proof itself, by Noise or plain: what fills the bodies of the three records.
//!
//! Used by the handshake only. The Noise part is `snow` with its pure-Rust primitives; comparisons of secrets are inside it,
//! in constant time.

use super::{Config, Entropy, HandshakeError};
use sinew_wire::hello::{ECHO_LEN, HEADER_LEN, HELLO_LEN, Hello, Mode, Record, body, body_mut, echo};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use std::fmt;
use zeroize::Zeroizing;

const NOISE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const NONCE_LEN: usize = 16;
const TAG_LEN: usize = 16;
const CONFIRMATION_LEN: usize = ECHO_LEN + TAG_LEN;

type Content = [u8; HELLO_LEN];

/// A domain's secret, hashed to the size of a key. Prints nothing of it, and is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// From the bytes of a secret of any length; it should have at least 128 bits of randomness.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        blake2s_into(&mut key, &[b"sinew secret 1", &(bytes.len() as u64).to_le_bytes(), bytes]);
        Self(key)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What stands for a domain's name in records.
#[must_use]
pub fn domain_hash(name: &str) -> [u8; 32] {
    blake2s(&[b"sinew domain 1", name.as_bytes()])
}

fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    blake2s_into(&mut out, parts);
    out
}

fn blake2s_into(out: &mut [u8; 32], parts: &[&[u8]]) {
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
    for part in parts {
        hash.input(part);
    }
    hash.result(out);
}

/// Gives `snow` the caller's randomness, once.
struct Given(Option<Entropy>);

impl Random for Given {
    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(entropy) if target.len() == entropy.len() => {
                target.copy_from_slice(&entropy);
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

/// The default primitives, but with given randomness.
struct Primitives(Entropy);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Given(Some(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

/// The proof under way.
pub(super) enum Session {
    Secret(Box<snow::HandshakeState>),
    /// After the second record.
    Transport(Box<snow::TransportState>),
    Plain {
        own: [u8; NONCE_LEN],
        /// The peer's nonce; zeros before it is known.
        theirs: [u8; NONCE_LEN],
        side: Side,
    },
}

impl Session {
    /// `first` is the first record; at least its header is there.
    pub(super) fn start(
        config: &Config,
        mode: Mode,
        first: &Record,
        entropy: Entropy,
        side: Side,
    ) -> Result<Self, HandshakeError> {
        if mode == Mode::PLAIN {
            let mut own = [0; NONCE_LEN];
            own.copy_from_slice(&entropy[..NONCE_LEN]);
            return Ok(Self::Plain { own, theirs: [0; NONCE_LEN], side });
        }
        let Some(Secret(secret)) = &config.trust.secret else {
            return Err(HandshakeError::NothingToProveWith);
        };
        let builder = snow::Builder::with_resolver(NOISE.parse()?, Box::new(Primitives(entropy)))
            .psk(0, secret)?
            .prologue(&first[..HEADER_LEN])?;
        let noise = match side {
            Side::Dialer => builder.build_initiator()?,
            Side::Acceptor => builder.build_responder()?,
        };
        Ok(Self::Secret(Box::new(noise)))
    }

    pub(super) const fn mode(&self) -> Mode {
        match self {
            Self::Secret(_) | Self::Transport(_) => Mode::SECRET,
            Self::Plain { .. } => Mode::PLAIN,
        }
    }

    /// Fills the body of the first or second record.
    pub(super) fn write(&mut self, record: &mut Record, hello: &Hello) -> Result<(), HandshakeError> {
        let content = hello.encode(record);
        match self {
            Self::Secret(noise) => {
                noise.write_message(&content, body_mut(record))?;
                Ok(())
            }
            Self::Transport(_) => Err(HandshakeError::Over),
            Self::Plain { own, theirs, .. } => {
                let body = body_mut(record);
                body[..NONCE_LEN].copy_from_slice(own);
                body[NONCE_LEN..2 * NONCE_LEN].copy_from_slice(theirs);
                body[2 * NONCE_LEN..2 * NONCE_LEN + HELLO_LEN].copy_from_slice(&content);
                Ok(())
            }
        }
    }

    /// Reads the body of the first or second record.
    pub(super) fn read(&mut self, record: &Record) -> Result<Content, HandshakeError> {
        let mut content = [0; HELLO_LEN];
        let body = body(record);
        match self {
            Self::Secret(noise) => match noise.read_message(body, &mut content) {
                Ok(HELLO_LEN) => Ok(content),
                _ => Err(HandshakeError::ProofFailed),
            },
            Self::Transport(_) => Err(HandshakeError::Over),
            Self::Plain { own, theirs, side } => {
                let (nonce, rest) = body.split_at(NONCE_LEN);
                let (echoed, rest) = rest.split_at(NONCE_LEN);
                if *side == Side::Dialer && echoed != own {
                    return Err(HandshakeError::NotFresh);
                }
                theirs.copy_from_slice(nonce);
                content.copy_from_slice(&rest[..HELLO_LEN]);
                Ok(content)
            }
        }
    }

    /// Goes on from the handshake proper to what follows it.
    fn transport(&mut self) -> Result<&mut snow::TransportState, HandshakeError> {
        let plain = Self::Plain { own: [0; NONCE_LEN], theirs: [0; NONCE_LEN], side: Side::Acceptor };
        *self = match std::mem::replace(self, plain) {
            Self::Secret(noise) => Self::Transport(Box::new(noise.into_transport_mode()?)),
            other => other,
        };
        match self {
            Self::Transport(transport) => Ok(transport),
            _ => Err(HandshakeError::Over),
        }
    }

    /// Fills the body of the third record.
    pub(super) fn write_confirmation(&mut self, record: &mut Record) -> Result<(), HandshakeError> {
        if let Self::Plain { theirs, .. } = self {
            body_mut(record)[NONCE_LEN..2 * NONCE_LEN].copy_from_slice(theirs);
            return Ok(());
        }
        let content = echo(record);
        self.transport()?.write_message(&content, &mut body_mut(record)[..CONFIRMATION_LEN])?;
        Ok(())
    }

    /// Checks the body of the third record.
    pub(super) fn read_confirmation(&mut self, record: &Record) -> Result<(), HandshakeError> {
        let body = body(record);
        if let Self::Plain { own, .. } = self {
            let same = body[NONCE_LEN..2 * NONCE_LEN] == *own;
            return if same { Ok(()) } else { Err(HandshakeError::NotFresh) };
        }
        let mut content = [0; ECHO_LEN];
        match self.transport()?.read_message(&body[..CONFIRMATION_LEN], &mut content) {
            Ok(ECHO_LEN) if content == echo(record) => Ok(()),
            _ => Err(HandshakeError::ProofFailed),
        }
    }
}
