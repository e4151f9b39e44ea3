//! What is posted in a scope lives longer than the scope's call.
use sinew_verbs::Error;
use sinew_verbs::ProtectionDomain;
use sinew_verbs::channel::{Channel, Work};

fn program(pd: &ProtectionDomain, channel: &mut Channel) {
    let _ = channel.scope(|scope| -> Result<(), Error> {
        let piece = pd.allocate(8)?;
        let _ = scope.post(Work::send(piece.gather(8)?))?;
        Ok(())
    });
}

fn main() {}
