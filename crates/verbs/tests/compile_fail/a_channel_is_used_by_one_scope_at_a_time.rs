//! While a scope is open, its channel is borrowed.
use sinew_verbs::Error;
use sinew_verbs::channel::Channel;

fn program(channel: &mut Channel) {
    let _ = channel.scope(|_scope| -> Result<(), Error> {
        channel.send(&[])?;
        Ok(())
    });
}

fn main() {}
