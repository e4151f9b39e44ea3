//! Numbers at their ends, given to every safe function that takes one: an error that says so, or what was asked for; never a panic.
//!
//! On a device inside the process.

mod fake;

use fake::{Channels, Fake, Pair};
use sinew_verbs::ah::StaticRate;
use sinew_verbs::device::Gid;
use sinew_verbs::hub::{Held, Hub, Operation};
use sinew_verbs::memory::{
    Memory, PageSize, RegistrationFlags, RemoteAccess, RemoteKey, RemoteRegion, WindowType,
};
use sinew_verbs::qp::{Path, Rc, Route, Ud};
use sinew_verbs::{Channel, Error, Library, MultiChannel};
use sinew_verbs_fake::{FakeDevice, Options};
use std::ops::Range;
use std::time::Duration;

const LENGTHS: [usize; 6] =
    [0, 1, u32::MAX as usize, u32::MAX as usize + 1, isize::MAX as usize + 1, usize::MAX];
const COUNTS: [u32; 6] = [0, 1, i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX - 1, u32::MAX];

/// Ranges whose ends are these lengths, also those that end before they begin.
fn ranges() -> impl Iterator<Item = Range<usize>> {
    LENGTHS.into_iter().flat_map(|start| LENGTHS.into_iter().map(move |end| start..end))
}

/// Refused, with a text for people.
fn refused<T>(what: &str, answer: Result<T, Error>) {
    let Err(error) = answer else { panic!("{what} was not refused") };
    assert!(error.to_string().len() > 10, "{what}: {error}");
}

#[test]
fn ports_places_and_vectors_at_their_ends_are_refused() {
    let fake = Fake::new();
    let context = &fake.context;
    for port in [0, u8::MAX] {
        refused("port", context.port(port));
        refused("choice of a port", context.choose_gid(Some(port)));
        refused("GID", context.gid(port, 0));
        refused("partition key", context.pkey(port, 0));
        refused(
            "queue pair",
            context
                .completion_queue(64)
                .build()
                .and_then(|queue| fake.pd.queue_pair::<Rc>(&queue).port(port).build()),
        );
        refused("way", fake.pd.address_handle(&Path::local(port, 1)));
    }
    for place in [i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX] {
        refused("GID", context.gid(1, place));
        refused("route", Route::new(Gid::default(), place));
        refused(
            "GID of a queue pair",
            context
                .completion_queue(64)
                .build()
                .and_then(|queue| fake.pd.queue_pair::<Rc>(&queue).gid_index(place).build()),
        );
        refused("vector", context.completion_queue(1).vector(place).build());
    }
    refused("partition key", context.pkey(1, u16::MAX));
    let route = Route { flow_label: u32::MAX, ..Route::new(Gid::default(), 0).unwrap() };
    refused("flow label", fake.pd.address_handle(&Path::global(1, route)));
    refused("service level", fake.pd.address_handle(&Path { service_level: u8::MAX, ..Path::local(1, 1) }));
    let handle = fake.pd.address_handle_at(&Path::local(1, u16::MAX), StaticRate::from_raw(u8::MAX));
    drop(handle);
    refused("NUMA node", Memory::pages_on(u32::MAX, 1, PageSize::Normal));
    fake.finish();
}

#[test]
fn queues_of_any_length_are_made_or_refused() {
    let fake = Fake::new();
    let context = &fake.context;
    for count in COUNTS {
        let is_possible = count == 1;
        let queue = context.completion_queue(count).build();
        assert_eq!(queue.is_ok(), is_possible, "{count}: {queue:?}");
        let hub = Hub::<Rc>::new(context, count);
        assert_eq!(hub.is_ok(), is_possible, "{count}");
        let shared = fake.pd.shared_receive_queue(count).build();
        assert_eq!(shared.is_ok(), is_possible, "{count}: {shared:?}");
        assert_eq!(fake.pd.shared_receive_queue(1).elements(count).build().is_ok(), is_possible, "{count}");
        refused("limit", fake.pd.shared_receive_queue(1).limit(count.max(2)).build());

        let queue = context.completion_queue(8).build().unwrap();
        assert_eq!(queue.resize(count).is_ok(), is_possible, "{count}");
        let pair = |make: &dyn Fn(sinew_verbs::qp::QueuePairBuilder<'_, Rc>) -> Result<(), Error>| {
            let queue = context.completion_queue(64).build().unwrap();
            make(fake.pd.queue_pair(&queue))
        };
        assert_eq!(pair(&|of| of.send_depth(count).receive_depth(0).build().map(drop)).is_ok(), is_possible);
        assert_eq!(pair(&|of| of.send_depth(0).receive_depth(count).build().map(drop)).is_ok(), is_possible);
        for elements in [
            pair(&|of| of.send_elements(count).build().map(drop)),
            pair(&|of| of.receive_elements(count).build().map(drop)),
        ] {
            assert!(elements.is_ok() == (count <= 1), "{count}: {elements:?}");
        }
        assert_eq!(pair(&|of| of.inline_capacity(count).build().map(drop)).is_ok(), count <= 1, "{count}");

        let shared = fake.pd.shared_receive_queue(4).build().unwrap();
        assert_eq!(shared.set_limit(count).is_ok(), count <= 1, "{count}");
        assert_eq!(shared.resize(count).is_ok(), is_possible, "{count}");
        let mut hub = Hub::<Rc>::new(context, 16).unwrap();
        assert_eq!(hub.share_receives(&fake.pd, count, 1).is_ok(), is_possible, "{count}");
        assert_eq!(Channel::builder(&fake.pd).send_depth(count).build().is_ok(), count <= 1, "{count}");
        assert_eq!(Channel::builder(&fake.pd).receive_depth(count).build().is_ok(), count <= 1, "{count}");
        assert_eq!(
            MultiChannel::builder(&fake.pd, count).send_depth(1).receive_depth(1).build().is_ok(),
            is_possible,
            "{count}"
        );
    }
    refused("neither queue", Channel::builder(&fake.pd).send_depth(0).receive_depth(0).build());
    let queue = context.completion_queue(8).build().unwrap();
    assert!(queue.moderate(u16::MAX, u16::MAX).is_ok() && queue.moderate(0, 0).is_ok());
    drop(queue);
    fake.finish();
}

#[test]
fn a_poller_has_room_for_what_its_queue_holds_however_much_is_asked_for() {
    let fake = Fake::new();
    let queue = fake.context.completion_queue(8).build().unwrap();
    for batch in LENGTHS {
        let mut poller = queue.poller(batch);
        assert_eq!(poller.poll().unwrap().len(), 0);
    }
    drop(queue);
    fake.finish();
}

#[test]
fn memory_of_any_length_is_made_or_refused_and_ranges_stay_inside() {
    let fake = Fake::new();
    let pd = &fake.pd;
    for len in [0, isize::MAX as usize + 1, usize::MAX] {
        refused("buffer", pd.allocate(len));
        refused("pages", Memory::pages(len, PageSize::Normal));
        refused("device memory", fake.context.device_memory(len, 0));
        refused("pool", pd.pool(len, 1));
        refused("pool", pd.pool(1, len));
        refused("pool", pd.pool(len, len));
    }
    refused("pool", pd.pool_of(Memory::zeroed(64).unwrap(), 0));
    refused("pool", pd.pool_of(Memory::zeroed(64).unwrap(), usize::MAX));
    drop(fake.context.device_memory(1, u32::MAX));

    let exposed = pd
        .expose_with(Memory::zeroed(64).unwrap(), RemoteAccess::all(), RegistrationFlags::WINDOW_BIND)
        .unwrap();
    let on_device = fake.context.device_memory(64, 0).unwrap();
    let window = pd.memory_window(WindowType::Two).unwrap();
    let mut pair = Pair::new(&fake);
    for range in ranges() {
        let is_inside = range.start <= range.end && range.end <= 64;
        let part = exposed.part(range.clone());
        assert_eq!(part.is_ok(), is_inside, "{range:?}: {part:?}");
        let has_bytes = is_inside && !range.is_empty();
        assert_eq!(on_device.register(pd, range.clone(), RemoteAccess::READ).is_ok(), has_bytes, "{range:?}");
        let bound = pair.hub.bind_window(pair.a, &window, &exposed, range.clone(), RemoteAccess::READ, 0);
        assert_eq!(bound.is_ok(), has_bytes, "{range:?}: {bound:?}");
        if bound.is_ok() {
            pair.hub.close_window(pair.a, &window, 0).unwrap();
        }
        assert_eq!(
            exposed.remote().slice(range.start as u64, range.end as u64).is_some(),
            range.start.checked_add(range.end).is_some_and(|end| end <= 64)
        );
        drop(pair.ended());
    }
    for offset in LENGTHS {
        let mut bytes = [0; 1];
        assert_eq!(exposed.read_at(offset, &mut bytes).is_ok(), offset < 64);
        assert_eq!(exposed.write_at(offset, &bytes).is_ok(), offset < 64);
        assert_eq!(on_device.read_at(offset, &mut bytes).is_ok(), offset < 64);
        assert_eq!(on_device.write_at(offset, &bytes).is_ok(), offset < 64);
        assert_eq!(exposed.load(offset, std::sync::atomic::Ordering::Acquire).is_ok(), offset == 0);
        assert!(exposed.write_at(offset, &[]).is_ok() == (offset <= 64));

        let buffer = pd.allocate(64).unwrap();
        assert_eq!(buffer.gather(offset).is_ok(), offset <= 64);
        match buffer.split_at(offset) {
            Ok((first, rest)) => assert_eq!((first.len(), rest.len()), (offset, 64 - offset)),
            Err((buffer, error)) => assert!(offset > 64 && buffer.len() == 64, "{error}"),
        }
        assert_eq!(RemoteRegion::new(u64::MAX, offset as u64, RemoteKey(u32::MAX)).is_ok(), offset == 0);
    }
    drop((pair, window, on_device, exposed));
    fake.finish();
}

#[test]
fn operations_of_any_length_are_posted_or_refused_with_their_memory() {
    let fake = Fake::new();
    let mut pair = Pair::new(&fake);
    for len in COUNTS {
        pair.hub.post_receive(pair.b, fake.pd.allocate(8).unwrap(), u64::MAX).unwrap();
        let rejected =
            pair.hub.post(pair.a, Operation::send(fake.pd.allocate(8).unwrap()).len(len).tag(u64::MAX));
        assert_eq!(rejected.is_ok(), len <= 1, "{len}");
        let nothing = pair.hub.post(pair.a, Operation::send(Held::Nothing).len(len));
        assert_eq!(nothing.is_ok(), len == 0, "{len}");
        if let Err(rejected) = rejected {
            assert_eq!(rejected.operation.into_held().into_buffer().unwrap().len(), 8);
        }
        drop(pair.ended());
        let _ = pair.hub.reset(pair.a).and(pair.hub.reset(pair.b)).unwrap();
        let (to_a, to_b) = (pair.hub.endpoint(pair.a).unwrap(), pair.hub.endpoint(pair.b).unwrap());
        pair.hub.connect(pair.a, &to_b).unwrap();
        pair.hub.connect(pair.b, &to_a).unwrap();
    }
    drop(pair);
    let mut hub = Hub::<Ud>::new(&fake.context, 8).unwrap();
    let prepared = hub.queue_pair(&fake.pd).send_depth(2).receive_depth(2).build().unwrap();
    let member = hub.add(prepared).unwrap();
    hub.activate(member).unwrap();
    let handle = fake.pd.address_handle(&Path::local(1, 1)).unwrap();
    hub.post(member, Operation::send(fake.pd.allocate(8).unwrap()).to(&handle, u32::MAX, u32::MAX)).unwrap();
    while hub.poll().unwrap().is_some() {}
    drop((hub, handle));
    fake.finish();
}

#[test]
fn more_pieces_than_an_operation_takes_are_refused_and_none_is_cut_off() {
    let fake = Fake::new();
    let Channels { mut a, b, .. } = Channels::new(&fake, Duration::from_secs(30));
    let piece = fake.pd.allocate(8).unwrap();
    let pieces = vec![piece.gather(8).unwrap(); 9];
    refused("nine pieces", a.send(&pieces));
    let received = b.submit_receive(fake.pd.allocate(64).unwrap()).unwrap();
    a.send(&pieces[..8]).unwrap();
    let finished = received.wait(Duration::from_secs(30)).map_err(|(_, error)| error).unwrap();
    assert_eq!((finished.result.unwrap().len, finished.held.len()), (Some(64), 64));
    drop(finished.held);
    let buffers: Vec<_> = (0..9).map(|_| fake.pd.allocate(8).unwrap()).collect();
    let rejected = b.submit_receive(buffers).unwrap_err();
    assert_eq!(rejected.operation.into_buffers().len(), 9);
    drop((a, b, piece));
    fake.finish();
}

#[test]
fn each_place_of_a_list_is_its_own_device_and_there_is_none_behind() {
    let (library, _control) = FakeDevice::new(Options::devices(3));
    let devices = Library::with(library).devices().unwrap();
    let names: Vec<_> = (0..3).map(|place| devices.get(place).unwrap().name().to_owned()).collect();
    assert_eq!(names, ["fake0", "fake1", "fake2"]);
    assert_eq!(devices.open("fake2").unwrap().name(), "fake2");
    for place in [3, usize::MAX] {
        assert!(devices.get(place).is_none());
    }
    refused("a name that there is not", devices.open("fake3"));
}

#[test]
fn waits_of_no_time_and_of_all_time_end_with_what_they_wait_for() {
    let fake = Fake::new();
    let events = fake.context.async_events().unwrap();
    assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), None);
    let channel = fake.context.completion_channel().unwrap();
    assert_eq!(channel.wait(Some(Duration::ZERO)).unwrap(), None);
    for deadline in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
        let Channels { mut a, mut b, .. } = Channels::new(&fake, deadline);
        let mut place = fake.pd.allocate(8).unwrap();
        let received = b.submit_receive(fake.pd.allocate(8).unwrap()).unwrap();
        a.send(&[fake.pd.allocate(8).unwrap().gather(8).unwrap()]).unwrap();
        let finished = received.wait(deadline).map_err(|(_, error)| error).unwrap();
        assert_eq!(finished.result.unwrap().len, Some(8));
        b.set_deadline(Some(Duration::ZERO));
        assert!(matches!(b.receive(place.scatter().unwrap()), Err(Error::TimedOut { .. })));
        drop((a, b));
    }
    drop((events, channel));
    fake.finish();
}

#[cfg(feature = "network")]
mod network {
    use super::{COUNTS, Fake, LENGTHS};
    use sinew_verbs::network::Node;
    use sinew_verbs::network::config::{NetworkConfig, NodeConfig};
    use sinew_verbs::network::exchange::{Exchange, ExchangeOptions, TcpExchange};
    use std::time::Duration;

    #[test]
    fn ranks_and_groups_at_their_ends_are_refused() {
        let fake = Fake::new();
        let node = |rank, size| Node::builder(&fake.pd, rank, size).send_depth(1).receive_depth(1);
        for size in COUNTS {
            for rank in COUNTS {
                // A job of thousands of millions has no room for its cells, or more queue pairs than there are.
                assert_eq!(node(rank, size).build().is_ok(), rank == 0 && size == 1, "{rank} of {size}");
            }
        }
        for groups in LENGTHS {
            let made = node(0, 2).groups_max(groups).build();
            assert_eq!(made.is_ok(), groups == 1, "{groups}: {made:?}");
        }
        fake.finish();
    }

    /// Two ranks of one process exchange with these times.
    fn exchanged(options: impl Fn() -> ExchangeOptions + Sync) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let nodes = [(0, port), (1, 1)].map(|(rank, port)| NodeConfig::new(rank, "127.0.0.1", port));
        let nodes =
            nodes.into_iter().fold(NetworkConfig::builder(), |all, node| all.add_node(node)).build().unwrap();
        let run = |rank: u32, options: ExchangeOptions| {
            TcpExchange::new(rank, &nodes, options)
                .unwrap()
                .exchange_bytes(vec![vec![rank as u8]; 2])
                .unwrap()
        };
        std::thread::scope(|scope| {
            // The one that dials tries in vain first.
            let dialler = scope.spawn(|| run(1, options()));
            let answer = run(0, options().listener(listener));
            assert_eq!((answer, dialler.join().unwrap()), (vec![vec![0], vec![1]], vec![vec![0], vec![1]]));
        });
    }

    #[test]
    fn an_exchange_takes_times_of_any_length() {
        for time in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            exchanged(|| {
                ExchangeOptions::open("extremes")
                    .timeout(time)
                    .connection_timeout(time)
                    .retry(Duration::ZERO, time)
            });
            exchanged(|| {
                ExchangeOptions::open("extremes").timeout(time).connection_timeout(time).retry(time, time)
            });
        }
        exchanged(|| {
            ExchangeOptions::open("extremes")
                .strangers_max(usize::MAX)
                .dials_max(usize::MAX)
                .value_max_bytes(u32::MAX)
        });
        exchanged(|| ExchangeOptions::open("extremes").strangers_max(0).dials_max(0));
    }
}
