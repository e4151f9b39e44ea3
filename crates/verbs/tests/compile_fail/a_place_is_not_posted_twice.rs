//! An element that a receive fills moves into its operation.
use sinew_verbs::channel::{Channel, Work};
use sinew_verbs::{Error, memory::Scatter};

fn program<'env>(channel: &mut Channel, place: Scatter<'env>) {
    let _ = channel.scope(|scope| -> Result<(), Error> {
        let _ = scope.post(Work::receive(place))?;
        let _ = scope.post(Work::receive(place))?;
        Ok(())
    });
}

fn main() {}
