//! Many of something: connected peers that idle, connects at the same time, processes that all talk with all, threads that
//! share an endpoint.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sinew::{Endpoint, Engine, Match, Peer, Progress};

use super::OursArgs;
use super::engine::{resident_bytes, value};
use super::latency::{idle_lanes, raise_descriptor_limit};
use super::pairing::{self, check, stamp};
use sinew_yardstick::raw::pair::{self, Second};
use sinew_yardstick::sample::{Sample, median};

/// Tags of what keeps the processes in step.
const READY: u64 = 1 << 58;
const GO: u64 = READY + 1;
const DONE: u64 = READY + 2;
const END: u64 = READY + 3;
/// Messages of one run of all-to-all, about.
const MESSAGES: u64 = 40_000;
/// Turns of progress between two looks at the clock.
const TURNS: u32 = 256;

/// One turn of progress of an engine with `--idle-lanes` connected peers that say nothing.
pub(super) fn progress_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    let others = OursArgs { idle_lanes: args.idle_lanes.saturating_sub(1), ..args.clone() };
    let _idle = idle_lanes(&others, &side)?;
    let warm_up = Instant::now();
    while warm_up.elapsed() < Duration::from_millis(100) {
        side.engine.progress();
    }
    let (mut turns, mut batches, start) = (0u64, Vec::new(), Instant::now());
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        let begin = Instant::now();
        for _ in 0..TURNS {
            side.engine.progress();
        }
        turns += u64::from(TURNS);
        batches.push(begin.elapsed().as_nanos() as f64 / f64::from(TURNS));
    }
    let mean = start.elapsed().as_nanos() as f64 / turns as f64;
    Ok(Sample { latency_ns: Some(mean), latency_p50_ns: median(&batches), ..Sample::default() })
}

/// The passive side of [`progress_first`]: stays connected, sleeping.
pub(super) fn progress_second(args: &OursArgs) -> Result<()> {
    let side = pairing::second(args, Progress::Caller)?;
    loop {
        let _ = side.endpoint.recv_within(END, &mut [0; 8], Duration::from_secs(60));
    }
}

/// Memory that each connected peer costs the process that they connect to.
pub(super) fn peer_memory_first(args: &OursArgs) -> Result<Sample> {
    let (_second, mut lines) = pairing::start_second(args)?;
    let address = pairing::read_line(&mut lines)?;
    raise_descriptor_limit();
    let mut engines = Vec::new();
    for number in 0..=args.idle_lanes as u64 {
        let engine = dialling(args)?;
        let peer = engine.endpoint("")?.connect(&address)?;
        peer.send(number, &number.to_le_bytes())?;
        engines.push((engine, peer));
    }
    let there: f64 = pairing::read_line(&mut lines)?.parse().context("the other side's figure")?;
    Ok(value(there))
}

pub(super) fn peer_memory_second(args: &OursArgs) -> Result<()> {
    raise_descriptor_limit();
    let engine = pairing::engine(args, Progress::Caller)?;
    let endpoint = engine.endpoint("second")?;
    pairing::print_address(&endpoint)?;
    let mut before = 0.0;
    for number in 0..=args.idle_lanes as u64 {
        let mut message = [0; 8];
        endpoint.recv(number, &mut message)?;
        check(&message, number)?;
        // The first one pays for what all of them share.
        if number == 0 {
            before = resident_bytes()?;
        }
    }
    let each = (resident_bytes()? - before).max(0.0) / args.idle_lanes.max(1) as f64;
    writeln!(std::fs::File::from(pair::output()?), "{each}")?;
    endpoint.recv(END, &mut [0; 8])?;
    Ok(())
}

/// An engine that connects and is not connected to.
fn dialling(args: &OursArgs) -> Result<Engine> {
    let engine = Engine::builder().domain("bench").transports([args.transport.as_str()]);
    engine.listen(false).build().context("cannot build an engine")
}

/// `--idle-lanes` engines connect to one at the same time; the time until each has its first answer, and none may fail.
pub(super) fn storm_first(args: &OursArgs) -> Result<Sample> {
    let (_second, mut lines) = pairing::start_second(args)?;
    let address = pairing::read_line(&mut lines)?;
    raise_descriptor_limit();
    let engines: Vec<Engine> = (0..args.idle_lanes).map(|_| dialling(args)).collect::<Result<_>>()?;
    let barrier = Barrier::new(engines.len() + 1);
    let (barrier, address) = (&barrier, address.as_str());
    let (took, failures) = std::thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = engines
            .iter()
            .enumerate()
            .map(|(number, engine)| {
                std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, move || {
                    barrier.wait();
                    first_answer(engine, address, number as u64)
                })
            })
            .collect::<Result<_, _>>()
            .context("a thread")?;
        barrier.wait();
        let start = Instant::now();
        let outcomes: Vec<Result<Peer>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect();
        let took = start.elapsed();
        let failures: Vec<String> =
            outcomes.iter().filter_map(|one| one.as_ref().err()).map(|error| format!("{error:#}")).collect();
        Ok((took, failures))
    })?;
    ensure!(failures.is_empty(), "{} connects failed; the first: {}", failures.len(), failures[0]);
    let took = Some(took.as_nanos() as f64);
    Ok(Sample { latency_ns: took, latency_p50_ns: took, ..Sample::default() })
}

fn first_answer(engine: &Engine, address: &str, number: u64) -> Result<Peer> {
    let endpoint = engine.endpoint("")?;
    let peer = endpoint.connect(address)?;
    peer.send(1, &number.to_le_bytes())?;
    let mut answer = [0; 8];
    endpoint.recv(1, &mut answer)?;
    check(&answer, number)?;
    Ok(peer)
}

/// `--processes` processes, each of which sends to and receives from each other, round after round, on the given cores.
pub(super) fn all_to_all_first(args: &OursArgs) -> Result<Sample> {
    ensure!(args.processes > 1, "at least two processes");
    let mut processes = Vec::new();
    let mut addresses = String::new();
    for _ in 0..args.processes {
        let (reader, writer) = std::io::pipe().context("pipe")?;
        let (list, list_writer) = std::io::pipe().context("pipe")?;
        let second = Second::start(&args.cpus, list, Stdio::from(writer))?;
        processes.push((second, BufReader::new(reader), list_writer));
    }
    pair::allow(&args.cpus)?;
    for (_, lines, _) in &mut processes {
        addresses.push_str(&pairing::read_line(lines)?);
        addresses.push('\n');
    }
    for (number, (_, _, list)) in processes.iter_mut().enumerate() {
        list.write_all(format!("{number}\n{addresses}").as_bytes()).context("addresses")?;
    }
    let (_, lines, _) = processes.first_mut().context("no process")?;
    let took_s: f64 = pairing::read_line(lines)?.parse().context("the first process's figure")?;
    let messages = rounds(args) * (args.processes * (args.processes - 1)) as u64;
    Ok(Sample::stream(messages, args.size, Duration::from_secs_f64(took_s)))
}

fn rounds(args: &OursArgs) -> u64 {
    (MESSAGES / (args.processes * (args.processes - 1)) as u64).max(5)
}

/// One of the processes of all-to-all.
pub(super) fn all_to_all_second(args: &OursArgs) -> Result<()> {
    pair::allow(&args.cpus)?;
    let engine = pairing::engine(args, Progress::Caller)?;
    let endpoint = engine.endpoint("one-of-many")?;
    pairing::print_address(&endpoint)?;
    let mut lines = BufReader::new(std::fs::File::from(pair::input()?)).lines();
    let own: usize = lines.next().context("no number")??.parse()?;
    let addresses: Vec<String> = lines.take(args.processes).collect::<Result<_, _>>()?;
    ensure!(addresses.len() == args.processes, "{} addresses", addresses.len());
    let others: Vec<(usize, Peer)> = (1..args.processes)
        .map(|step| (own + step) % args.processes)
        .map(|other| Ok((other, endpoint.connect(&addresses[other])?)))
        .collect::<Result<_>>()?;
    if own == 0 {
        return lead(args, &endpoint, &others);
    }
    let (_, leader) = others.iter().find(|(other, _)| *other == 0).context("no leader")?;
    leader.send(READY, b"ready")?;
    let patience = Duration::from_secs(120);
    endpoint.recv_within(GO, &mut [0; 8], patience)?;
    exchange(args, &endpoint, own, &others)?;
    leader.send(DONE, b"done")?;
    endpoint.recv_within(END, &mut [0; 8], patience)?;
    Ok(())
}

/// The process that starts the others and measures.
fn lead(args: &OursArgs, endpoint: &Endpoint, others: &[(usize, Peer)]) -> Result<()> {
    let patience = Duration::from_secs(120);
    for _ in others {
        endpoint.recv_within(READY, &mut [0; 8], patience)?;
    }
    let start = Instant::now();
    for (_, peer) in others {
        peer.send(GO, b"go")?;
    }
    exchange(args, endpoint, 0, others)?;
    for _ in others {
        endpoint.recv_within(DONE, &mut [0; 8], patience)?;
    }
    let took = start.elapsed();
    for (_, peer) in others {
        peer.send(END, b"end")?;
        peer.flush()?;
    }
    writeln!(std::fs::File::from(pair::output()?), "{}", took.as_secs_f64())?;
    Ok(())
}

/// What process `from` says to `to` in round `round`.
fn number_of(from: usize, to: usize, round: u64) -> u64 {
    round << 20 | (from as u64) << 10 | to as u64
}

fn exchange(args: &OursArgs, endpoint: &Endpoint, own: usize, others: &[(usize, Peer)]) -> Result<()> {
    let mut buffer = vec![0; args.size];
    for round in 0..rounds(args) {
        for (other, peer) in others {
            let number = number_of(own, *other, round);
            stamp(&mut buffer, number);
            peer.send(number, &buffer)?;
        }
        for (other, peer) in others {
            let number = number_of(*other, own, round);
            let got = endpoint.recv(Match::tag(number).from(peer.source()), &mut buffer)?;
            ensure!(got.len == args.size, "message {number:x}: {got:?}");
            check(&buffer, number)?;
        }
    }
    Ok(())
}

/// `--threads` threads send through one endpoint; the other side counts and checks the order of each thread's messages.
pub(super) fn shared_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    pair::allow(&args.cpus)?;
    let stop = AtomicBool::new(false);
    let (stop, peer) = (&stop, &side.peer);
    let start = Instant::now();
    let sent = std::thread::scope(|scope| -> Result<u64> {
        let threads: Vec<_> = (0..args.threads as u64)
            .map(|thread| scope.spawn(move || send_until(peer, thread, stop)))
            .collect();
        std::thread::sleep(Duration::from_secs_f64(args.seconds.max(0.05)));
        stop.store(true, Ordering::Relaxed);
        let counts = threads.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked")));
        counts.sum()
    })?;
    peer.send(END, &sent.to_le_bytes())?;
    let mut counted = [0; 8];
    side.endpoint.recv(END, &mut counted)?;
    let took = start.elapsed();
    ensure!(u64::from_le_bytes(counted) == sent, "{sent} messages were sent, {counted:?} counted");
    Ok(Sample::stream(sent, 8, took))
}

fn send_until(peer: &Peer, thread: u64, stop: &AtomicBool) -> Result<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..64 {
            peer.send(thread, &u64::to_le_bytes(number))?;
            number += 1;
        }
    }
    Ok(number)
}

pub(super) fn shared_second(args: &OursArgs) -> Result<()> {
    let side = pairing::second(args, Progress::Caller)?;
    let mut next = vec![0u64; args.threads];
    let mut buffer = [0; 8];
    loop {
        let got = side.endpoint.recv(Match::any_tag(), &mut buffer)?;
        if got.tag == END {
            break;
        }
        let expected = next.get_mut(usize::try_from(got.tag)?).context("a thread that is not")?;
        ensure!(u64::from_le_bytes(buffer) == *expected, "thread {}: {buffer:?} is not {expected}", got.tag);
        *expected += 1;
    }
    side.peer.send(END, &next.iter().sum::<u64>().to_le_bytes())?;
    side.peer.flush()?;
    Ok(())
}
