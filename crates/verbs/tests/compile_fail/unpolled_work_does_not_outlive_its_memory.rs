//! Work apart from a scope borrows its memory as long as its handle lives.
use sinew_verbs::ProtectionDomain;
use sinew_verbs::channel::{Channel, PendingWork, Work};

fn program<'a>(pd: &ProtectionDomain, channel: &mut Channel) -> PendingWork<'a> {
    let piece = pd.allocate(8).unwrap();
    unsafe { channel.post_unpolled(Work::send(piece.gather(8).unwrap())) }.unwrap()
}

fn main() {}
