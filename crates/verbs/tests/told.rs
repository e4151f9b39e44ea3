//! What a device is told, call by call, where nothing that it answers shows whether it was: by a recorder in front of the device in software.

use sinew_verbs::ah::StaticRate;
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::device::{Context, Gid};
use sinew_verbs::hub::{Hub, Operation};
use sinew_verbs::qp::{Path, QueuePair, Rc, Ud};
use sinew_verbs::{Error, Library, ProtectionDomain};
use sinew_verbs_fake::recorder::Recording;
use sinew_verbs_fake::{Call, Control, FakeDevice, Options, Refusal};
use sinew_verbs_sys as sys;

/// A device behind a recorder. Parts are dropped in order.
struct Recorded {
    pd: ProtectionDomain,
    context: Context,
    library: Library,
    recording: Recording,
    control: Control,
}

impl Recorded {
    fn new() -> Self {
        let (table, efa, control) = FakeDevice::tables(Options::default());
        let (library, recording) = Recording::start_with(table, efa);
        let library = Library::with(library);
        let context = library.devices().unwrap().get(0).unwrap().open().unwrap();
        let pd = context.protection_domain().unwrap();
        Self { pd, context, library, recording, control }
    }

    /// Calls of these functions since this was asked, in order.
    fn calls(&self, names: &[&str]) -> Vec<String> {
        let mut lines = self.recording.take();
        lines.retain(|line| names.iter().any(|name| line.split(' ').next() == Some(name)));
        lines
    }

    fn finish(self) {
        let Self { pd, context, library, recording, control } = self;
        drop((pd, context));
        assert_eq!(library.leaked_objects(), 0);
        drop((library, recording));
        assert_eq!(control.faults(), []);
        assert!(control.live().is_empty(), "{:?}", control.live());
    }
}

#[test]
fn an_address_handle_tells_its_rate_and_one_without_tells_none() {
    let device = Recorded::new();
    let rates: Vec<_> = [10_000, 40_000, 100_000].map(|mbps| StaticRate::at_most(mbps).unwrap()).into();
    for rate in rates.into_iter().chain([StaticRate::from_raw(0x77)]) {
        let path = Path { service_level: 3, ..Path::local(1, 9) };
        let handle = device.pd.address_handle_at(&path, rate).unwrap();
        assert_eq!(handle.static_rate(), rate);
        let plain = device.pd.address_handle(&path).unwrap();
        let [told, none] = &device.calls(&["ibv_create_ah"])[..] else { panic!("two calls") };
        let says = |line: &str, code: u8| {
            line.contains(&format!("static_rate={code:#x} ")) && line.contains("sl=0x3 ")
        };
        assert!(says(told, rate.as_raw()) && says(none, 0), "{told}\n{none}");
        drop((handle, plain));
    }
    device.finish();
}

#[test]
fn completion_events_are_acknowledged_by_sixty_four_and_the_rest_before_their_queue_ends() {
    let device = Recorded::new();
    let channel = device.context.completion_channel().unwrap();
    let make = |cookie| device.context.completion_queue(8).channel(&channel, cookie).build().unwrap();
    let queues = [make(0), make(1)];
    let handles = device.control.completion_queues();
    let mut taken = [0_u32; 2];
    let mut take = |which: usize| {
        let queue: &CompletionQueue = &queues[which];
        queue.arm(false).unwrap();
        device.control.forge(handles[which], sys::ibv_wc::zeroed());
        assert_eq!(channel.event().unwrap().unwrap().cookie, which as u64);
        assert_eq!(queue.poll_into(&mut [WorkCompletion::EMPTY; 2]).unwrap(), 1);
        taken[which] += 1;
        taken[which]
    };
    // What is acknowledged of which queue, and which ends: the last word is the count, or the queue.
    let told = || -> Vec<(String, String)> {
        let lines = device.calls(&["ibv_ack_cq_events", "ibv_destroy_cq"]).into_iter();
        lines
            .map(|line| {
                let (name, rest) = line.split_once(' ').unwrap();
                (name.to_owned(), rest.rsplit(' ').next().unwrap().to_owned())
            })
            .collect()
    };
    let call = |name: &str, last: &str| (name.to_owned(), last.to_owned());
    told();
    for round in 1..=130 {
        // The other one's events are counted for themselves.
        if round <= 5 {
            take(1);
        }
        let count = take(0);
        let expected = if count % 64 == 0 { vec![call("ibv_ack_cq_events", "0x40")] } else { vec![] };
        assert_eq!(told(), expected, "after {count}");
    }
    for (queue, left) in queues.into_iter().zip(["0x2", "0x5"]) {
        drop(queue);
        let [acknowledged, (ended, _)] = &told()[..] else { panic!("two calls") };
        assert_eq!((acknowledged, ended.as_str()), (&call("ibv_ack_cq_events", left), "ibv_destroy_cq"));
    }
    drop(make(2));
    assert_eq!(told().len(), 1, "nothing was taken");
    drop(channel);
    device.finish();
}

#[test]
fn a_limit_above_the_length_of_a_shared_queue_is_not_told() {
    let device = Recorded::new();
    const LIMIT: [&str; 3] = ["ibv_create_srq", "ibv_create_srq_ex", "ibv_modify_srq"];
    let refused = device.pd.shared_receive_queue(4).limit(5).build().unwrap_err();
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    assert_eq!(device.calls(&LIMIT), [""; 0]);
    let queue = device.pd.shared_receive_queue(4).limit(4).build().unwrap();
    let [made] = &device.calls(&LIMIT)[..] else { panic!("one call") };
    assert!(made.contains("srq_limit=0x4 "), "{made}");
    for requests in [queue.requests(), 16] {
        queue.resize(requests).unwrap();
        assert_eq!(queue.requests(), requests);
        device.calls(&LIMIT);
        for limit in [requests + 1, u32::MAX] {
            let refused = queue.set_limit(limit).unwrap_err();
            assert!(matches!(refused, Error::Invalid { .. }), "{limit}: {refused}");
        }
        assert_eq!(device.calls(&LIMIT), [""; 0]);
        queue.set_limit(requests).unwrap();
        let [told] = &device.calls(&LIMIT)[..] else { panic!("one call") };
        assert!(told.contains(&format!("srq_limit={requests:#x} ")), "{told}");
    }
    drop(queue);
    device.finish();
}

/// The `number`th group.
fn group(number: u8) -> Gid {
    Gid::from_bytes([0xff, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

/// Which calls were made, of which group: its number, and its local identifier.
fn groups(device: &Recorded) -> Vec<(String, u8, u16)> {
    let lines = device.calls(&["ibv_attach_mcast", "ibv_detach_mcast", "ibv_destroy_qp"]);
    let told = lines.iter().map(|line| {
        let (name, rest) = line.split_once(' ').unwrap();
        let lid = rest.rsplit_once("0x").map_or(0, |(_, lid)| u16::from_str_radix(lid, 16).unwrap());
        let number = (1..10).find(|number| rest.contains(&format!("{:?}", raw(*number)))).unwrap_or(0);
        (name.to_owned(), number, lid)
    });
    told.collect()
}

fn raw(number: u8) -> sys::ibv_gid {
    let mut gid = sys::ibv_gid::zeroed();
    gid.raw = group(number).bytes();
    gid
}

fn call(name: &str, number: u8, lid: u16) -> (String, u8, u16) {
    (name.to_owned(), number, lid)
}

#[test]
fn groups_that_were_left_are_left_once_and_the_others_before_the_queue_pair_ends() {
    let device = Recorded::new();
    let queue = device.context.completion_queue(64).build().unwrap();
    let make = || -> QueuePair<Ud> {
        device.pd.queue_pair::<Ud>(&queue).build().unwrap().activate().map_err(|(_, error)| error).unwrap()
    };
    let qp = make();
    groups(&device);
    for (number, lid) in [(1, 0xc001), (2, 0xc002), (5, 0xc003), (3, 0), (2, 0xc002)] {
        qp.join_group(group(number), lid).unwrap();
    }
    let joined = [(1, 0xc001), (2, 0xc002), (5, 0xc003), (3, 0)]
        .map(|(number, lid)| call("ibv_attach_mcast", number, lid));
    assert_eq!(groups(&device), joined, "being in one is no call");
    qp.leave_group(group(2), 0xc002).unwrap();
    assert_eq!(groups(&device), [call("ibv_detach_mcast", 2, 0xc002)]);
    for (number, lid) in [(2, 0xc002), (1, 0xc002), (4, 0)] {
        assert!(matches!(qp.leave_group(group(number), lid), Err(Error::Invalid { .. })), "{number} {lid}");
    }
    assert_eq!(groups(&device), []);
    // What the device does not let go of is not left.
    device.control.refuse(Call::DetachMcast, Refusal::once(libc::EBUSY));
    assert_eq!(qp.leave_group(group(3), 0).unwrap_err().errno(), Some(libc::EBUSY));
    assert_eq!(groups(&device), [call("ibv_detach_mcast", 3, 0)]);
    qp.join_group(group(3), 0).unwrap();
    assert_eq!(groups(&device), [], "it is in it still");
    qp.leave_group(group(3), 0).unwrap();
    groups(&device);
    qp.join_group(group(2), 0xc002).unwrap();
    assert_eq!(groups(&device), [call("ibv_attach_mcast", 2, 0xc002)], "it was left");
    // One of three is refused when the queue pair ends: that one is left by a second attempt.
    device.control.refuse(Call::DetachMcast, Refusal { times: 1, ..Refusal::after(1, libc::EBUSY) });
    let (qp, error) = qp.destroy().unwrap_err();
    assert_eq!(error.errno(), Some(libc::EBUSY));
    let ended =
        [("ibv_detach_mcast", 1, 0xc001), ("ibv_detach_mcast", 5, 0xc003), ("ibv_detach_mcast", 2, 0xc002)];
    let destroyed = call("ibv_destroy_qp", 0, 0);
    let expected: Vec<_> = ended
        .map(|(name, number, lid)| call(name, number, lid))
        .into_iter()
        .chain([destroyed.clone()])
        .collect();
    assert_eq!(groups(&device), expected);
    drop(qp);
    assert_eq!(groups(&device), [call("ibv_detach_mcast", 5, 0xc003), destroyed]);
    drop(queue);
    device.finish();
}

#[test]
fn a_shared_receive_that_a_queue_pair_of_nobody_names_ends_nothing() {
    let device = Recorded::new();
    let mut hub = Hub::<Rc>::new(&device.context, 64).unwrap();
    hub.share_receives(&device.pd, 2, 1).unwrap();
    let mut make = || {
        let prepared = hub.queue_pair(&device.pd).receive_depth(0).build().unwrap();
        hub.add(prepared).unwrap()
    };
    let (a, b, gone) = (make(), make(), make());
    let (to_a, to_b, of_gone) =
        (hub.endpoint(a).unwrap(), hub.endpoint(b).unwrap(), hub.endpoint(gone).unwrap());
    hub.connect(a, &to_b).unwrap();
    hub.connect(b, &to_a).unwrap();
    hub.post_shared_receive(device.pd.allocate(8).unwrap(), 1).unwrap();
    let receive = device.control.in_flight();
    let [touch] = &receive[..] else { panic!("one receive") };
    let cq = *device.control.completion_queues().last().unwrap();
    hub.remove(gone).unwrap();
    // A queue pair that reports here and is of nobody, and one that was the hub's.
    for (strays, qp_num) in [(1, to_b.qp_num + 1000), (2, of_gone.qp_num)] {
        let mut forged = sys::ibv_wc::zeroed();
        (forged.wr_id, forged.qp_num) = (touch.wr_id, qp_num);
        device.control.forge(cq, forged);
        assert!(hub.poll().unwrap().is_none(), "{qp_num:#x}");
        assert_eq!(hub.strays(), strays);
        assert_eq!(device.control.in_flight(), receive);
    }
    hub.post(a, Operation::send(device.pd.allocate(8).unwrap())).unwrap();
    let mut ended = Vec::new();
    while let Some(completed) = hub.poll().unwrap() {
        ended.push(completed.take());
    }
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(ended.iter().all(|completed| completed.result.is_ok()), "{ended:?}");
    drop((hub, ended));
    device.finish();
}
