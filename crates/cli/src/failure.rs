//! How a command fails: an exit code and a text that names cause and remedy.

use sinew::{BuildError, ConnectError, OpError};
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

/// Something failed.
pub(crate) const FAILED: u8 = 1;
/// The command was used wrongly.
pub(crate) const USAGE: u8 = 2;
/// The peer cannot be reached, or was lost.
pub(crate) const UNREACHABLE: u8 = 3;
/// What arrived is not what was sent.
pub(crate) const DIFFERENT: u8 = 4;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
    /// The reader of standard output has gone: nothing to say, nobody to hear it.
    quiet: bool,
    /// It would come again with the next peer.
    lasting: bool,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), quiet: false, lasting: false }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(FAILED, text)
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }

    pub(crate) fn different(text: impl Into<String>) -> Self {
        Self::new(DIFFERENT, text)
    }

    /// The same, with what was being done in front.
    pub(crate) fn during(mut self, what: impl Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The same, for what would come again with the next peer, as a full disk.
    pub(crate) fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Whether it would come again with the next peer.
    pub(crate) const fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Whether standard output was closed by its reader.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Writing to standard output failed.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        let mut failure = Self::failed(format!("cannot write to standard output: {error}"));
        failure.quiet = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if self.quiet {
            return ExitCode::SUCCESS;
        }
        crate::output::say(&format!("sinew: {}", self.text.trim_end()));
        ExitCode::from(self.code)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let code = match error {
            BuildError::Option(_) | BuildError::SecretNeeded | BuildError::Name(_) => USAGE,
            _ => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match error {
            ConnectError::Address(_) => USAGE,
            _ => UNREACHABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        let code = match error {
            OpError::PeerLost { .. } | OpError::EndpointClosed => UNREACHABLE,
            _ => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<sinew::Failed> for Failure {
    fn from(failed: sinew::Failed) -> Self {
        failed.error.into()
    }
}
