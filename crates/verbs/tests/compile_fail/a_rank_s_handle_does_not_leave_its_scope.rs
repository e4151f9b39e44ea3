//! A pending operation with a rank cannot be waited for after its scope.
use sinew_verbs::Error;
use sinew_verbs::channel::Work;
use sinew_verbs::network::Node;

fn program(node: &mut Node) {
    let mut kept = None;
    let _ = node.scope(|scope| -> Result<(), Error> {
        kept = Some(scope.post_to(1, Work::receive_word())?);
        Ok(())
    });
    drop(kept);
}

fn main() {}
