//! Ranks of a job that write to each other and wait for each other.
//!
//! Each rank is a process. Who they are stands in a file, the same for all:
//!
//! ```text
//! { "nodes": [ { "rank": 0, "host": "10.0.0.1", "port": 7100 },
//!              { "rank": 1, "host": "10.0.0.2", "port": 7100 } ] }
//!
//! network_barrier ranks.json 0 &
//! network_barrier ranks.json 1
//! ```
//!
//! What it shows: a [`Node`] is made from the file, an exchange over TCP tells each rank what it needs of the others, and a barrier is a promise about
//! memory: what the others wrote before they entered it is there when this rank leaves it.

mod meeting;

use clap::Parser;
use meeting::Result;
use sinew_verbs::memory::{ExposedRegion, Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::multi_channel::PeerRegion;
use sinew_verbs::network::Node;
use sinew_verbs::network::barrier::BarrierAlgorithm;
use sinew_verbs::network::config::NetworkConfig;
use sinew_verbs::network::exchange::{Exchange as _, ExchangeOptions, TcpExchange};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Ranks that write to each other and wait for each other.
#[derive(Parser, Debug)]
struct Arguments {
    /// JSON: who the ranks are
    config: PathBuf,
    /// Which of them this is
    rank: u32,
    /// Barriers
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// How ranks hear of each other
    #[arg(short, long, default_value = "tree", value_parser = algorithm)]
    algorithm: BarrierAlgorithm,
    /// A name that no other run on these hosts has
    #[arg(short, long, default_value = "network_barrier")]
    job: String,
}

fn algorithm(text: &str) -> std::result::Result<BarrierAlgorithm, String> {
    match text {
        "central" => Ok(BarrierAlgorithm::Centralized),
        "tree" => Ok(BarrierAlgorithm::BinaryTree),
        "dissemination" => Ok(BarrierAlgorithm::Dissemination),
        _ => Err("take central, tree or dissemination".to_owned()),
    }
}

/// Longest wait for the others in a barrier.
const PATIENCE: Duration = Duration::from_secs(30);
const WORD: usize = size_of::<u64>();

fn main() -> ExitCode {
    meeting::exit("network_barrier", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = NetworkConfig::from_file(&arguments.config)?;
    let (me, ranks) = (arguments.rank, config.world_size());
    // It names a device where the file does; otherwise the first one is as good as any.
    let device = config.get(me as usize).and_then(|node| node.device.as_deref());
    let context = match device {
        Some(name) => sinew_verbs::open_device(name)?,
        None => sinew_verbs::devices()?.get(0).ok_or("this machine has no RDMA device")?.open()?,
    };
    let pd = context.protection_domain()?;

    // Open to whoever reaches the port and knows the job's name: on a network that others use, take `with_secret`.
    let mut exchange = TcpExchange::new(me, &config, ExchangeOptions::open(&arguments.job))?;
    let node = Node::builder(&pd, me, ranks).barrier_algorithm(arguments.algorithm).build()?;
    let mut node = node.connect(&mut exchange)?;

    // A word for each rank, that it writes; everybody learns where everybody's words are.
    let words = pd.expose(Memory::zeroed(ranks as usize * WORD)?, RemoteAccess::WRITE)?;
    let told = exchange.exchange_bytes(vec![words.remote().to_bytes().to_vec(); ranks as usize])?;
    let mut places = Vec::new();
    for (peer, bytes) in (0..ranks).zip(told).filter(|(peer, _)| *peer != me) {
        let region = RemoteRegion::from_bytes(bytes[..].try_into()?)?;
        let place = PeerRegion { peer, region }.slice(u64::from(me) * WORD as u64, WORD as u64);
        places.push(place.ok_or_else(|| format!("rank {peer} has too few words"))?);
    }

    let mut mark = pd.allocate(WORD)?;
    let start = Instant::now();
    for round in 1..=arguments.rounds {
        mark.copy_from_slice(&round.to_ne_bytes());
        let piece = mark.gather(WORD)?;
        for written in node.scatter_write(places.iter().map(|place| (*place, piece.into()))) {
            written?;
        }
        node.barrier_all(PATIENCE)?;
        check(&words, me, ranks, round)?;
        // Nobody writes the next mark before all have looked at this one.
        node.barrier_all(PATIENCE)?;
    }
    let each = start.elapsed() / (2 * arguments.rounds as u32);
    println!(
        "rank {me} of {ranks}: {} marks of each other rank were there, {each:?} a barrier",
        arguments.rounds
    );
    Ok(())
}

/// Every other rank's word must be of this round.
fn check(words: &ExposedRegion, me: u32, ranks: u32, round: u64) -> Result<()> {
    for rank in (0..ranks).filter(|rank| *rank != me) {
        let mark = words.load(rank as usize * WORD, Ordering::Acquire)?;
        if mark != round {
            return Err(
                format!("rank {rank} left its mark of round {mark}, but this is round {round}").into()
            );
        }
    }
    Ok(())
}
