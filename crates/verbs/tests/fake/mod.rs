//! Queue pairs and channels on a device inside the process, of which a test sees what it may still touch.
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod lies;

use sinew_verbs::channel::{Channel, PreparedChannel};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Completed, Hub, Member};
use sinew_verbs::memory::RemoteAccess;
use sinew_verbs::qp::Rc;
use sinew_verbs::{Library, ProtectionDomain};
use sinew_verbs_fake::{Control, DeviceOptions, FakeDevice, Options};
use std::ops::Range;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A device, opened, and who steers it.
pub(crate) struct Fake {
    pub(crate) control: Control,
    pub(crate) library: Library,
    pub(crate) context: Context,
    pub(crate) pd: ProtectionDomain,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::with(DeviceOptions::default())
    }

    /// Retries of its requests end only when the test says so.
    pub(crate) fn with(device: DeviceOptions) -> Self {
        let options = Options { devices: vec![device], retry_polls: 0, ..Options::default() };
        let (library, control) = FakeDevice::new(options);
        let library = Library::with(library);
        let context = library.devices().unwrap().get(0).unwrap().open().unwrap();
        let pd = context.protection_domain().unwrap();
        Self { control, library, context, pd }
    }

    /// Drops everything but the control, and looks whether a fault was seen or anything is left.
    pub(crate) fn finish(self) {
        let Self { control, library, context, pd } = self;
        drop((pd, context));
        assert_eq!(library.leaked_objects(), 0);
        drop(library);
        assert_eq!(control.faults(), []);
        assert!(control.live().is_empty(), "{:?}", control.live());
    }
}

/// Two channels, connected to each other, with the numbers of their queue pairs.
pub(crate) struct Channels {
    pub(crate) a: Channel,
    pub(crate) b: Channel,
    pub(crate) a_qp: u32,
    pub(crate) b_qp: u32,
}

impl Channels {
    pub(crate) fn new(fake: &Fake, deadline: Duration) -> Self {
        let make = || {
            Channel::builder(&fake.pd)
                .deadline(Some(deadline))
                .remote_access(RemoteAccess::all())
                .build()
                .unwrap()
        };
        Self::connect(make(), make())
    }

    pub(crate) fn connect(a: PreparedChannel, b: PreparedChannel) -> Self {
        let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
        let a = a.handshake(&to_b).map_err(|(_, error)| error).unwrap();
        let b = b.handshake(&to_a).map_err(|(_, error)| error).unwrap();
        Self { a, b, a_qp: to_a.qp_num, b_qp: to_b.qp_num }
    }
}

/// Two queue pairs of one hub, connected to each other.
pub(crate) struct Pair {
    pub(crate) hub: Hub<Rc>,
    pub(crate) a: Member,
    pub(crate) b: Member,
    pub(crate) a_qp: u32,
    pub(crate) b_qp: u32,
    /// The completion queue, as the control names it.
    pub(crate) cq: u32,
}

impl Pair {
    pub(crate) fn new(fake: &Fake) -> Self {
        Self::with(fake, true)
    }

    /// Posted to extended, or by lists.
    pub(crate) fn with(fake: &Fake, extended: bool) -> Self {
        let mut hub = Hub::new(&fake.context, 64).unwrap();
        let mut make = || {
            let prepared = hub
                .queue_pair(&fake.pd)
                .remote_access(RemoteAccess::all())
                .send_elements(4)
                .receive_elements(4)
                .inline_capacity(64)
                .extended(extended)
                .build()
                .unwrap();
            hub.add(prepared).unwrap()
        };
        let (a, b) = (make(), make());
        let (to_a, to_b) = (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap());
        hub.connect(a, &to_b).unwrap();
        hub.connect(b, &to_a).unwrap();
        let cq = *fake.control.completion_queues().last().unwrap();
        Self { hub, a, b, a_qp: to_a.qp_num, b_qp: to_b.qp_num, cq }
    }

    /// What ends now.
    pub(crate) fn ended(&mut self) -> Vec<Completed> {
        let mut ended = Vec::new();
        while let Some(completed) = self.hub.poll().unwrap() {
            ended.push(completed.take());
        }
        ended
    }
}

/// Runs it in a thread of its own, and fails when it does not end.
pub(crate) fn must_end<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        let answer = f();
        let _ = done.send(());
        answer
    });
    let waited = wait.recv_timeout(Duration::from_secs(120));
    assert!(!matches!(waited, Err(std::sync::mpsc::RecvTimeoutError::Timeout)), "it does not end");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Where bytes are.
pub(crate) fn range(bytes: &[u8]) -> Range<*const u8> {
    bytes.as_ptr_range()
}
