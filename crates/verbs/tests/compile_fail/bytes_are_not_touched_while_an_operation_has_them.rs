//! In a scope an operation takes the bytes by value: they are back only with its result.
use sinew_verbs::channel::{Channel, Work};
use sinew_verbs::{Error, ProtectionDomain};

fn program(pd: &ProtectionDomain, channel: &mut Channel) {
    let mut memory = vec![0; 8];
    let mut region = pd.borrow(&mut memory).unwrap();
    let (key, bytes) = region.split();
    let _ = channel.scope(|scope| {
        let pending = scope.post(Work::receive(key.scatter(bytes)?))?;
        bytes[0] = 1;
        pending.wait().map(drop)
    });
    let _: Option<Error> = None;
}

fn main() {}
