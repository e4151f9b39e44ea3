//! What a peer may write is never read as a slice.
use sinew_verbs::memory::ExposedRegion;

fn program(region: &ExposedRegion) -> &[u8] {
    &region[..]
}

fn main() {}
