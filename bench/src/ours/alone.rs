//! Two engines of one thread: what one sends is there for the other at once, and no schedule of the machine makes a side wait.
//! What is counted beside time is counted there.

use anyhow::{Context, Result};
use sinew::{Endpoint, Engine, Peer, Progress, RecvOp};

use super::OursArgs;
use super::pairing;

/// An endpoint of each, and both as peers of each other.
pub(super) struct Both {
    pub(super) peer: Peer,
    pub(super) here: Endpoint,
    pub(super) there: Endpoint,
    pub(super) back: Peer,
    /// Receives that no message matches.
    _standing_by: [Vec<RecvOp>; 2],
    pub(super) engines: [Engine; 2],
}

/// Connects them and says hello.
pub(super) fn both(args: &OursArgs) -> Result<Both> {
    let (first, second) =
        (pairing::engine(args, Progress::Caller)?, pairing::engine(args, Progress::Caller)?);
    let (here, there) = (first.endpoint("here")?, second.endpoint("there")?);
    let address = there.address();
    let peer = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| here.connect(address));
        while !connecting.is_finished() {
            second.process();
        }
        connecting.join().ok().context("the connecting thread panicked")
    })??;
    peer.send(0, b"hello")?;
    let source = there.recv(0, &mut [0; 8])?.source;
    let back = there.reply_to(source)?;
    let standing_by = [pairing::stand_by(&here)?, pairing::stand_by(&there)?];
    Ok(Both { peer, here, there, back, _standing_by: standing_by, engines: [first, second] })
}
