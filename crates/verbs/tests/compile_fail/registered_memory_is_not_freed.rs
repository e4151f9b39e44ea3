//! A slice is borrowed as long as its registration.
use sinew_verbs::ProtectionDomain;

fn program(pd: &ProtectionDomain) {
    let mut memory = vec![0; 8];
    let mut region = pd.borrow(&mut memory).unwrap();
    drop(memory);
    let _ = region.split();
}

fn main() {}
