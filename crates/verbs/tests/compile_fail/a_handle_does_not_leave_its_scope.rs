//! A pending operation cannot be waited for after its scope.
use sinew_verbs::Error;
use sinew_verbs::channel::{Channel, Work};

fn program(channel: &mut Channel) {
    let mut kept = None;
    let _ = channel.scope(|scope| -> Result<(), Error> {
        kept = Some(scope.post(Work::receive_word())?);
        Ok(())
    });
    drop(kept);
}

fn main() {}
