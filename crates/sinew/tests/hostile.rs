//! Strangers at the door: garbage, port scans, slow and half-open connections change nothing for a session that streams.

mod common;

use common::{PATIENCE, Pair, connected, content, options, pair_with, say, spawn_by, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sinew::{ConnectError, Engine, Progress, Security};
use sinew_testing::skip;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to the second engine, as a stranger makes it.
fn knock(p: &Pair) -> std::io::Result<Box<dyn Stream>> {
    let address = p.b.address().to_string();
    let is_way_in = |part: &&str| ["tcp:127", "uds:", "shm:"].iter().any(|start| part.starts_with(start));
    let locator = address.split(',').find(is_way_in).expect("a locator");
    if let Some(host) = locator.strip_prefix("tcp:") {
        let stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        return Ok(Box::new(stream));
    }
    let stream = UnixStream::connect(&locator["uds:".len()..])?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(Box::new(stream))
}

/// Streams between the pair while `disturb` runs, and some more after it.
fn undisturbed(lane: &str, disturb: impl FnOnce(&Pair)) {
    undisturbed_pair(&pair_with(lane, THREAD, THREAD, options()), disturb);
}

fn undisturbed_pair(p: &Pair, disturb: impl FnOnce(&Pair)) {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut before = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = vec![0; 40_000];
            while !stop.load(Ordering::Acquire) {
                let round = rounds.load(Ordering::Relaxed);
                let data = content(if round.is_multiple_of(8) { 40_000 } else { 200 }, round);
                std::thread::scope(|inner| {
                    inner.spawn(|| p.to_b.send(round, &data).unwrap());
                    let got = p.b.recv_within(round, &mut buf, PATIENCE).unwrap();
                    assert!(buf[..got.len] == data[..]);
                });
                rounds.fetch_add(1, Ordering::Release);
            }
        });
        // A candidate that another one has overtaken counts as lost.
        until("the candidates are decided", || {
            [&p.here, &p.there].iter().all(|engine| engine.counters().lanes == 1)
        });
        before = p.here.counters().lanes_lost;
        disturb(p);
        let now = rounds.load(Ordering::Acquire);
        until("the session goes on", || rounds.load(Ordering::Acquire) > now + 20);
        stop.store(true, Ordering::Release);
    });
    let counters = p.there.counters();
    assert_eq!(counters.sessions, 1);
    assert_eq!(p.here.counters().lanes_lost, before);
    assert!(p.to_b.is_connected());
}

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    garbage_changes_nothing,
    a_port_scan_changes_nothing,
    a_slow_loris_is_cut_off,
    half_open_connections_are_bounded,
    another_domain_changes_nothing,
    a_wrong_secret_changes_nothing,
] }

fn garbage_changes_nothing(lane: &str) {
    undisturbed(lane, |p| {
        for round in 0..200u64 {
            let Ok(mut stream) = knock(p) else { continue };
            let _ = stream.write_all(&content((round as usize * 37) % 5000, round));
            // Now and then its answer is waited for: it ends the connection.
            if round.is_multiple_of(50) && round > 0 {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
}

fn a_port_scan_changes_nothing(lane: &str) {
    undisturbed(lane, |p| {
        for _ in 0..1000 {
            drop(knock(p));
        }
    });
}

/// One byte now and then keeps no connection open for longer than the handshake may take.
fn a_slow_loris_is_cut_off(lane: &str) {
    undisturbed(lane, |p| {
        let mut stream = knock(p).unwrap();
        let start = std::time::Instant::now();
        while stream.write_all(b"S").is_ok() {
            assert!(start.elapsed() < PATIENCE, "it is never cut off");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// A thousand strangers that say nothing: each end costs a descriptor of this process.
fn half_open_connections_are_bounded(lane: &str) {
    const COUNT: usize = 1000;
    let wanted = 2 * COUNT as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(errno) = setrlimit(Resource::Nofile, raised) {
            skip!("descriptors", "{wanted} descriptors are wanted and {limit:?} allowed: {errno}");
        }
    }
    let p = pair_with(lane, THREAD, THREAD, options().half_open_max(64usize));
    undisturbed_pair(&p, |p| {
        let mut open = Vec::new();
        until("all of them have come", || {
            open.extend(knock(p));
            open.len() == COUNT
        });
        until("the oldest have given way", || p.there.counters().strangers > COUNT as u64 / 2);
        // A friend still comes in.
        let friend = common::engine(lane, THREAD);
        let endpoint = friend.endpoint("friend").unwrap();
        let peer = endpoint.connect(p.b.address()).expect("a way in");
        peer.send(u64::MAX, b"hello").unwrap();
        assert_eq!(p.b.recv_within(u64::MAX, &mut [0; 8], PATIENCE).unwrap().len, 5);
        friend.close(Duration::from_secs(1)).unwrap();
        drop(open);
        until("its session ends", || p.there.counters().sessions == 1);
    });
}

/// Tries to get in, again and again, by the address and by an explicit target that says nothing of a domain.
fn refused_again_and_again(stranger: &Engine, address: &str, lane: &str) {
    let endpoint = stranger.endpoint("stranger").unwrap();
    let explicit = address.split(',').find_map(|part| {
        let place = part.split_once(' ').map_or(part, |(place, _)| place).strip_prefix(lane)?;
        Some(format!("{lane}://{}{}", &place[1..], if lane == "tcp" { "/b" } else { "#b" }))
    });
    let explicit = explicit.expect("a locator of the lane");
    for round in 0..20 {
        let to = if round % 2 == 0 { address } else { explicit.as_str() };
        let error = endpoint.connect_within(to, PATIENCE).expect_err("a stranger gets in");
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{to}: {error}");
    }
    assert_eq!(stranger.counters().sessions, 0);
}

fn another_domain_changes_nothing(lane: &str) {
    undisturbed(lane, |p| {
        let stranger = Engine::builder().domain("another").transports([lane]).progress(THREAD);
        let stranger = stranger.options(options()).build().unwrap();
        refused_again_and_again(&stranger, &p.b.address().to_string(), lane);
    });
}

const SECRET: &str = "the secret of these engines";

fn with_secret(lane: &str, secret: &str, folder: &Path) -> Engine {
    let builder = Engine::builder().domain("faults").transports([lane]).progress(THREAD);
    let options = options().runtime_dir(folder.to_owned());
    builder.security(Security::Secret(secret.into())).options(options).build().unwrap()
}

/// On local lanes the stranger is another user: the same one needs no secret.
fn a_wrong_secret_changes_nothing(lane: &str) {
    let folder = std::env::temp_dir().join(format!("sinew-hostile-{lane}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let p = connected(with_secret(lane, SECRET, &folder), with_secret(lane, SECRET, &folder));
    if lane == "tcp" {
        undisturbed_pair(&p, |p| {
            let stranger = with_secret(lane, "another secret, just as long", &folder);
            refused_again_and_again(&stranger, &p.b.address().to_string(), lane);
        });
    } else if rustix::process::geteuid().is_root() {
        let program = folder.join("stranger");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let start = |secret: &str| {
            let mut command = Command::new(&program);
            command.uid(65_534).gid(65_534).current_dir("/");
            let extra = [
                ("OTHER_SECRET", secret),
                ("OTHER_FOLDER", "/tmp"),
                ("OTHER_ADDRESS", &p.b.address().to_string()),
            ];
            spawn_by(command, "stranger", lane, &extra)
        };
        undisturbed_pair(&p, |_| {
            let stranger = start("another secret, just as long");
            assert_eq!(stranger.line(), "refused");
            stranger.finish();
        });
        let friend = start(SECRET);
        assert_eq!(friend.line(), "in", "another user that knows the secret");
        friend.finish();
    } else {
        let _ = std::fs::remove_dir_all(&folder);
        skip!("root", "only root can start a process of another user");
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// The stranger of another user.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    let lane = std::env::var("OTHER_LANE").unwrap();
    let (secret, address) = (std::env::var("OTHER_SECRET").unwrap(), std::env::var("OTHER_ADDRESS").unwrap());
    let engine = with_secret(&lane, &secret, Path::new(&std::env::var("OTHER_FOLDER").unwrap()));
    if secret == SECRET {
        engine.endpoint("friend").unwrap().connect(address).unwrap();
        say("in");
    } else {
        refused_again_and_again(&engine, &address, &lane);
        say("refused");
    }
}
