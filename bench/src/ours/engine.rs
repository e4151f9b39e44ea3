//! What an engine costs beside moving messages: idle endpoints, connecting, matching, noticing a death.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sinew::{Buf, Endpoint, Engine, Match, OpError, Peer, Progress, RecvOp};

use super::OursArgs;
use super::pairing::{self, check, stamp};
use sinew_yardstick::raw::pair;
use sinew_yardstick::sample::{Sample, median};

/// Endpoints whose memory is averaged.
const MANY: usize = 10_000;
/// How long an idle process is watched.
const WATCH: Duration = Duration::from_secs(2);

pub(super) fn value(value: f64) -> Sample {
    Sample { value: Some(value), ..Sample::default() }
}

fn latency(latencies: &[f64]) -> Result<Sample> {
    let middle = median(latencies).context("nothing was measured")?;
    Ok(Sample { latency_ns: Some(middle), latency_p50_ns: Some(middle), ..Sample::default() })
}

/// Bytes of this process in memory.
pub(super) fn resident_bytes() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}

fn descriptors() -> Result<f64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as f64)
}

fn endpoints(engine: &Engine, count: usize) -> Result<Vec<Endpoint>> {
    (0..count).map(|_| Ok(engine.endpoint("")?)).collect()
}

pub(super) fn endpoint_memory() -> Result<Sample> {
    let engine = Engine::builder().domain("bench").build()?;
    let mut warm_up = endpoints(&engine, 100)?;
    let before = resident_bytes()?;
    warm_up.extend(endpoints(&engine, MANY)?);
    let after = resident_bytes()?;
    Ok(value((after - before).max(0.0) / MANY as f64))
}

pub(super) fn endpoint_descriptors() -> Result<Sample> {
    let engine = Engine::builder().domain("bench").build()?;
    let before = descriptors()?;
    let _endpoints = endpoints(&engine, MANY)?;
    Ok(value((descriptors()? - before) / MANY as f64))
}

/// Starts a second side with endpoints, connects as many of our own to them, returns those that must stay.
fn connect_all(args: &OursArgs, own: &[Endpoint], addresses: &[String]) -> Result<Vec<Peer>> {
    ensure!(own.len() == addresses.len(), "{} endpoints, {} addresses", own.len(), addresses.len());
    let mut peers = Vec::with_capacity(own.len());
    for (number, (endpoint, address)) in own.iter().zip(addresses).enumerate() {
        let peer = endpoint.connect(address)?;
        let mut message = vec![0; args.size];
        stamp(&mut message, number as u64);
        peer.send(number as u64, &message)?;
        peers.push(peer);
    }
    Ok(peers)
}

/// The second side of lines about many endpoints: prints their addresses, receives one message at each, then waits.
fn many_second(args: &OursArgs) -> Result<(Engine, Vec<Endpoint>)> {
    let engine = pairing::engine(args, Progress::Caller)?;
    let endpoints = endpoints(&engine, args.endpoints)?;
    let mut out = std::io::BufWriter::new(fs::File::from(pair::output()?));
    for endpoint in &endpoints {
        writeln!(out, "{}", endpoint.address())?;
    }
    out.flush()?;
    let mut message = vec![0; args.size];
    for (number, endpoint) in endpoints.iter().enumerate() {
        endpoint.recv(number as u64, &mut message)?;
        check(&message, number as u64)?;
    }
    Ok((engine, endpoints))
}

/// Waits until killed; a wait of an endpoint's own, which is what must cost nothing.
pub(super) fn wait_second(args: &OursArgs) -> Result<()> {
    let alone = OursArgs { endpoints: 1, ..args.clone() };
    let args = if args.case == super::Case::Death { &alone } else { args };
    let (_engine, endpoints) = many_second(args)?;
    let endpoint = endpoints.first().context("no endpoint")?;
    let mut buffer = [0; 8];
    loop {
        match endpoint.recv(Match::tag(u64::MAX), &mut buffer) {
            Ok(_) | Err(OpError::TimedOut { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nanoseconds that process `id` has been on a core.
fn processor_ns(id: u32) -> Result<f64> {
    let mut total = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().context("schedstat")?.parse::<f64>()?;
    }
    Ok(total)
}

pub(super) fn idle_first(args: &OursArgs) -> Result<Sample> {
    let (second, mut lines) = pairing::start_second(args)?;
    let addresses: Vec<String> =
        (0..args.endpoints).map(|_| pairing::read_line(&mut lines)).collect::<Result<_>>()?;
    let engine = pairing::engine(args, Progress::Caller)?;
    let own = endpoints(&engine, args.endpoints)?;
    let _peers = connect_all(args, &own, &addresses)?;
    // Sleeping is what is measured here, not a state that is waited for.
    std::thread::sleep(WATCH / 4);
    let before = processor_ns(second.id())?;
    std::thread::sleep(WATCH);
    let used = processor_ns(second.id())? - before;
    Ok(value(used / WATCH.as_nanos() as f64 * 100.0))
}

/// All-to-all: every endpoint here connects to every one there.
pub(super) fn mesh_first(args: &OursArgs) -> Result<Sample> {
    let (_second, mut lines) = pairing::start_second(args)?;
    let addresses: Vec<String> =
        (0..args.endpoints).map(|_| pairing::read_line(&mut lines)).collect::<Result<_>>()?;
    let before = mesh_figure(args)?;
    let engine = pairing::engine(args, Progress::Caller)?;
    let own = endpoints(&engine, args.endpoints)?;
    let _first = connect_all(args, &own, &addresses)?;
    let _others: Vec<Peer> = own
        .iter()
        .flat_map(|endpoint| addresses.iter().map(move |address| endpoint.connect(address)))
        .collect::<Result<_, _>>()?;
    ensure!(engine.counters().sessions == 1, "{} sessions", engine.counters().sessions);
    let there: f64 = pairing::read_line(&mut lines)?.parse().context("the other side's figure")?;
    let here = mesh_figure(args)? - before;
    Ok(value(here.max(there)))
}

/// What the process has now; the caller takes away what it had before the engine.
fn mesh_figure(args: &OursArgs) -> Result<f64> {
    if args.case == super::Case::MeshMemory { resident_bytes() } else { descriptors() }
}

pub(super) fn mesh_second(args: &OursArgs) -> Result<()> {
    let before = mesh_figure(args)?;
    let (_engine, endpoints) = many_second(args)?;
    writeln!(fs::File::from(pair::output()?), "{}", mesh_figure(args)? - before)?;
    let endpoint = endpoints.first().context("no endpoint")?;
    endpoint.recv(Match::tag(u64::MAX), &mut [0; 8])?;
    Ok(())
}

/// Each round a new engine, so that nothing is connected yet; from connect to the first answer.
pub(super) fn connect_first(args: &OursArgs) -> Result<Sample> {
    let (_second, mut lines) = pairing::start_second(args)?;
    let address = pairing::read_line(&mut lines)?;
    let mut latencies = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs_f64(args.seconds) || latencies.len() < 3 {
        let engine = pairing::engine(args, Progress::Caller)?;
        let endpoint = engine.endpoint("")?;
        let start = Instant::now();
        let peer = endpoint.connect(&address)?;
        peer.send(1, &1u64.to_le_bytes())?;
        let got = endpoint.recv(1, &mut [0; 8])?;
        latencies.push(start.elapsed().as_nanos() as f64);
        ensure!(got.len == 8, "answer of {} B", got.len);
    }
    latency(&latencies)
}

pub(super) fn connect_second(args: &OursArgs) -> Result<()> {
    let engine = pairing::engine(args, Progress::Caller)?;
    let endpoint = engine.endpoint("second")?;
    pairing::print_address(&endpoint)?;
    let mut buffer = [0; 8];
    loop {
        let source = match endpoint.recv(1, &mut buffer) {
            Ok(got) => got.source,
            Err(OpError::TimedOut { .. }) => continue,
            Err(error) => bail!(error),
        };
        endpoint.reply_to(source)?.send(1, &buffer)?;
    }
}

/// One send and its match inside one engine, with `posted` receives and as many messages in the way.
pub(super) fn matching(args: &OursArgs) -> Result<Sample> {
    const MASKED: u64 = 1 << 50;
    const WAITING: u64 = 1 << 51;
    const STANDING: u64 = 1 << 52;
    let engine = Engine::builder().domain("bench").build()?;
    let (from, to) = (engine.endpoint("from")?, engine.endpoint("to")?);
    let peer = from.connect(to.address())?;
    let mut posted: Vec<RecvOp> = Vec::new();
    let masked_every = args.posted.div_ceil(8).max(2);
    for number in 0..args.posted {
        if number % masked_every == masked_every / 2 {
            let masked = Match::tag(MASKED | (number as u64) << 8).ignoring(0xff);
            posted.push(to.post_recv(masked, Buf::zeroed(8))?);
        }
        posted.push(to.post_recv(STANDING + number as u64, Buf::zeroed(8))?);
    }
    for number in 0..args.posted {
        peer.send(WAITING + number as u64, &[0; 8])?;
    }
    let mut latencies = Vec::new();
    let mut buffer = [0; 8];
    let begin = Instant::now();
    let mut number = 0u64;
    while begin.elapsed() < Duration::from_secs_f64(args.seconds) {
        let start = Instant::now();
        for _ in 0..64 {
            number += 1;
            let mut receive = to.post_recv(number, buffer.to_vec())?;
            peer.send(number, &number.to_le_bytes())?;
            let received = loop {
                if let Some(received) = receive.try_wait() {
                    break received?;
                }
            };
            buffer.copy_from_slice(received.buf.as_slice());
            check(&buffer, number)?;
        }
        latencies.push(start.elapsed().as_nanos() as f64 / 64.0);
    }
    drop(posted);
    latency(&latencies)
}

/// Kills the second side while a receive waits for it.
pub(super) fn death_first(args: &OursArgs) -> Result<Sample> {
    let mut latencies = Vec::new();
    for _ in 0..args.deaths.max(1) {
        let (second, mut lines) = pairing::start_second(args)?;
        let address = pairing::read_line(&mut lines)?;
        let engine = pairing::engine(args, Progress::Caller)?;
        let own = endpoints(&engine, 1)?;
        let peers = connect_all(args, &own, &[address])?;
        let (endpoint, peer) = (own.first().context("no endpoint")?, peers.first().context("no peer")?);
        peer.flush()?;
        let killer = std::thread::spawn(move || {
            // The receive below is under way long before; it may sleep or spin, both are waiting.
            std::thread::sleep(Duration::from_millis(20));
            let killed = Instant::now();
            drop(second);
            killed
        });
        let outcome = endpoint.recv(Match::tag(5).from(peer.source()), &mut [0; 8]);
        let noticed = Instant::now();
        let killed = killer.join().ok().context("the killing thread panicked")?;
        ensure!(matches!(outcome, Err(OpError::PeerLost { .. })), "a dead peer gave {outcome:?}");
        latencies.push(noticed.saturating_duration_since(killed).as_nanos() as f64);
    }
    latencies.sort_by(f64::total_cmp);
    let place = (args.quantile.clamp(0.0, 1.0) * (latencies.len() - 1) as f64).ceil() as usize;
    latency(&latencies[place..=place])
}
