//! The figures over message size: Sinew, its peers and the raw mechanism of each transport, as lines without budgets.
//! The runner measures them as every line; the page draws them. Nothing here runs anything.

use sinew_yardstick::against::{Beside, Pattern, over_sizes};
use sinew_yardstick::sample::Unit;

use crate::lines::{Contender, Line, Program};

/// What these lines are called.
pub const ID: &str = "sweep";
/// The transports that are swept.
pub const TRANSPORTS: [&str; 3] = ["shm", "tcp", "uds"];
/// From this size on Sinew's side of a stream keeps receives posted, as one does with large messages; below, it calls
/// `recv` for each.
const POSTED_FROM: usize = 16 << 10;
const LARGEST: usize = 64 << 20;

/// What Sinew is called in plots.
pub const OURS: &str = "Sinew";

/// The sizes, 8 B to 64 MiB: each `factor` times the one before, and the largest.
fn sizes(factor: usize) -> Vec<usize> {
    let steps = std::iter::successors(Some(8), |size| Some(size * factor));
    steps.take_while(|size| *size < LARGEST).chain([LARGEST]).collect()
}

/// All lines of the sweep; fewer sizes when it has to be quick.
pub fn lines(quick: bool) -> Vec<Line> {
    let sizes = sizes(if quick { 8 } else { 4 });
    let mut lines = Vec::new();
    for transport in TRANSPORTS {
        for pattern in [Pattern::Latency, Pattern::Stream] {
            lines.extend(sizes.iter().map(|size| line(transport, pattern, *size)));
        }
    }
    lines
}

/// What the line of `transport` and `pattern` is called.
pub fn title(transport: &str, pattern: Pattern) -> String {
    match pattern {
        Pattern::Latency => format!("{transport}: one-way latency"),
        Pattern::Stream => format!("{transport}: stream in one direction"),
    }
}

fn line(transport: &str, pattern: Pattern, size: usize) -> Line {
    let ours = match pattern {
        Pattern::Latency => "latency",
        Pattern::Stream if size < POSTED_FROM => "rate",
        Pattern::Stream => "bandwidth",
    };
    let unit = if pattern == Pattern::Latency { Unit::LatencyNs } else { Unit::BytesPerS };
    let mut contenders = vec![Contender {
        name: OURS.into(),
        program: Program::Ours(format!("{ours} --transport {transport} --size {size}")),
    }];
    let against = over_sizes(transport, pattern, size).into_iter();
    contenders.extend(against.map(|Beside { name, program, .. }| Contender {
        name: name.into(),
        program: Program::Against(program),
    }));
    Line {
        id: ID,
        what: title(transport, pattern),
        size_bytes: Some(size),
        unit,
        contenders,
        budgets: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_go_from_8_b_to_64_mib_without_a_gap() {
        for quick in [true, false] {
            let lines = lines(quick);
            let mut sizes: Vec<usize> = lines.iter().filter_map(|line| line.size_bytes).collect();
            sizes.sort_unstable();
            sizes.dedup();
            assert_eq!((sizes[0], sizes[sizes.len() - 1]), (8, 64 << 20));
            assert!(sizes.windows(2).all(|pair| pair[1] <= pair[0] * 8));
            assert_eq!(lines.len(), sizes.len() * TRANSPORTS.len() * 2);
        }
    }
}
