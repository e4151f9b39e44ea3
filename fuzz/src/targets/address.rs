//! Addresses: any text or bytes are an address that comes back, or an error that points into them.

use super::note;
use sinew_wire::address::{Address, AddressError, Target, split_locator};

pub(super) fn run(data: &[u8]) -> u64 {
    let packed = match Address::from_bytes(data) {
        Ok((address, len)) => {
            assert!(len <= data.len());
            whole(&address);
            1
        }
        Err(error) => class(&error, data.len()),
    };
    let text = String::from_utf8_lossy(data);
    let _ = split_locator(&text);
    let parsed = match text.parse::<Target>() {
        Ok(target) => {
            if let Target::Address(address) = &target {
                whole(address);
            }
            assert_eq!(target.to_string().parse(), Ok(target.clone()));
            std::mem::discriminant(&target).hash_value()
        }
        Err(error) => class(&error, text.len()),
    };
    note(packed, parsed)
}

/// Both forms of an address bring it back.
fn whole(address: &Address) {
    let text = address.to_string();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(text.parse::<Address>().as_ref(), Ok(address));
    let bytes = address.to_bytes();
    assert_eq!(Address::from_bytes(&bytes), Ok((address.clone(), bytes.len())));
}

fn class(error: &AddressError, len: usize) -> u64 {
    assert!(error.position <= len, "{error} in {len} bytes");
    note(error.position.min(64) as u64, error.kind.hash_value())
}

/// A number for a value, by what it prints.
trait HashValue {
    fn hash_value(&self) -> u64;
}

impl<T: std::fmt::Debug> HashValue for T {
    fn hash_value(&self) -> u64 {
        format!("{self:?}").bytes().fold(1, |sum, byte| note(sum, u64::from(byte)))
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "sinew:1:00112233445566778899aabbccddeeff:5f3c9a:@results,tcp:10.0.0.1:4000,uds:/run/a%2Cb.sock",
        "sinew:1:00112233445566778899aabbccddeeff:1:7,mtu=9000,tcp:[fe80::1%25eth0]:4000",
        "tcp://10.0.0.1:4000/results",
        "tcp://[::1]:0/@7",
        "uds:///run/app.sock#results",
        "shm://trainer/3",
        "auto:shm:///run/a.sock,tcp://h:1/results",
    ];
    let address: Address = texts[0].parse().expect("an address");
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push(address.to_bytes());
    seeds
}
