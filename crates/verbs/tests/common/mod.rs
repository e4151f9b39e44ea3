//! A device to test on, or the reason why there is none.
#![allow(dead_code, reason = "each test program uses a part")]

use sinew_verbs::ProtectionDomain;
use sinew_verbs::channel::Channel;
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::device::{Context, DeviceList};
use sinew_verbs::memory::RemoteAccess;
use std::time::{Duration, Instant};

/// All devices, where there is one at least. `None` after saying why the test is skipped.
pub(crate) fn devices(module: &str) -> Option<DeviceList> {
    device(module)?;
    Some(sinew_verbs::devices().expect("the devices of a machine that has one"))
}

/// The device to test on: the one that `SINEW_VERBS_DEVICE` names, or the first. `None` after saying why the test is skipped.
pub(crate) fn device(module: &str) -> Option<Context> {
    let reason = match open() {
        Ok(context) => return Some(context),
        Err(reason) => reason,
    };
    assert!(!sinew_testing::is_required("verbs"), "verbs are required here, but: {reason}");
    sinew_testing::record_skip("verbs", module, &reason);
    None
}

fn open() -> Result<Context, String> {
    let devices = sinew_verbs::devices().map_err(|error| error.to_string())?;
    let name = match std::env::var("SINEW_VERBS_DEVICE") {
        Ok(name) => name,
        Err(_) => devices.get(0).ok_or("this machine has no RDMA device")?.name().to_owned(),
    };
    devices.open(&name).map_err(|error| error.to_string())
}

/// Two channels, connected to each other.
pub(crate) fn channels(module: &str) -> Option<(ProtectionDomain, Channel, Channel)> {
    let context = device(module)?;
    let pd = context.protection_domain().expect("a protection domain");
    let make = || Channel::builder(&pd).remote_access(RemoteAccess::all()).build().expect("a channel");
    let (a, b) = (make(), make());
    let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    let a = a.handshake(&to_b).map_err(|(_, error)| error).unwrap();
    let b = b.handshake(&to_a).map_err(|(_, error)| error).unwrap();
    Some((pd, a, b))
}

/// The next completion.
pub(crate) fn next(queue: &CompletionQueue) -> WorkCompletion {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut one = [WorkCompletion::EMPTY];
    while queue.poll_into(&mut one).expect("the device answers") == 0 {
        assert!(Instant::now() < deadline, "nothing completes");
        std::thread::yield_now();
    }
    one[0]
}
