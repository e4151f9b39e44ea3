//! Dropping a registration while an element names it is refused.
use sinew_verbs::ProtectionDomain;

fn program(pd: &ProtectionDomain) {
    let mut memory = vec![0; 8];
    let mut region = pd.borrow(&mut memory).unwrap();
    let (key, bytes) = region.split();
    let element = key.gather(bytes).unwrap();
    drop(region);
    drop(element);
}

fn main() {}
