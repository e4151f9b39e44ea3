//! Who was told of a queue pair is not told of another.
use sinew_verbs::cm::Inquiry;
use sinew_verbs::qp::{QueuePair, Ud};

fn program(inquiry: Inquiry, pair: &QueuePair<Ud>) {
    let _ = inquiry.answer(pair, b"");
    let _ = inquiry.answer(pair, b"");
}

fn main() {}
