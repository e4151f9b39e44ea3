//! A completion is lent by its poller until the next poll: nothing stale can be read.
use sinew_verbs::cq::Poller;

fn program(poller: &mut Poller) -> sinew_verbs::Result<u64> {
    let first = poller.poll()?.next();
    let _second = poller.poll()?.next();
    Ok(first.map_or(0, |completion| completion.wr_id()))
}

fn main() {}
