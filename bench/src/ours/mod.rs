//! Sinew's own side of every line, through the public safe API as a user writes it: default configuration, tags and
//! payloads that change from message to message and are checked, sixteen other receives posted.
//! `sinew-bench ours CASE` is the first, active side and starts the second, passive one. The runner calls it.

mod alone;
mod asynchronous;
mod counted;
mod data_path;
mod engine;
mod in_place;
mod latency;
mod pairing;
mod scale;
mod stream;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

pub use counted::{Form, print_all as print_counts};
use sinew_yardstick::raw::pair;
use sinew_yardstick::sample::{Missing, Sample};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Ping-pong of tagged messages.
    Latency,
    /// Stream of small tagged messages.
    Rate,
    /// Stream of large tagged messages, several under way.
    Bandwidth,
    /// The receiver sleeps, is woken, answers.
    Wake,
    /// Ping-pong with futures on a tokio current-thread runtime.
    Async,
    /// A loan of pooled memory, first and last line read.
    Loan,
    /// One-sided write.
    Write,
    /// Share of a core that an idle process uses.
    Idle,
    /// Memory of one idle endpoint.
    EndpointMemory,
    /// Descriptors of one idle endpoint.
    EndpointDescriptors,
    /// Memory of a process whose endpoints talk with all of another's.
    MeshMemory,
    /// Descriptors of such a process.
    MeshDescriptors,
    /// From connect to the first answer.
    Connect,
    /// Allocations and system calls of a small message.
    DataPath,
    /// The program of which `sinew-bench count` counts instructions and system calls.
    Counted,
    /// One send and its match with many receives posted and many messages waiting.
    Matching,
    /// From a peer's death to the end of an operation that waits for it.
    Death,
    /// One turn of progress of an engine with idle peers.
    Progress,
    /// Memory that a connected peer costs.
    PeerMemory,
    /// Many connects at the same time.
    Storm,
    /// Processes that all talk with all.
    AllToAll,
    /// Threads that share an endpoint.
    Shared,
}

/// What the program is told.
#[derive(Debug, Clone, Args)]
pub struct OursArgs {
    /// What to measure.
    pub case: Case,
    /// Transport: shm, tcp, uds.
    #[arg(long, default_value = "shm")]
    pub transport: String,
    /// Bytes of one message.
    #[arg(long, default_value_t = 8)]
    pub size: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 0.4)]
    pub seconds: f64,
    /// Sleep at once instead of spinning first (the option `spin` at 0).
    #[arg(long)]
    pub block: bool,
    /// Read in place instead of receiving a copy.
    #[arg(long)]
    pub in_place: bool,
    /// Send the tags of each eight messages in another order than they are received in.
    #[arg(long)]
    pub permute: bool,
    /// Messages per batch.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Untagged messages.
    #[arg(long)]
    pub untagged: bool,
    /// Poll the runtime without sleeping.
    #[arg(long)]
    pub busy: bool,
    /// Endpoints on each side.
    #[arg(long, default_value_t = 1000)]
    pub endpoints: usize,
    /// Receives posted, and messages waiting.
    #[arg(long, default_value_t = 1)]
    pub posted: usize,
    /// Lanes that are open and idle.
    #[arg(long, default_value_t = 0)]
    pub idle_lanes: usize,
    /// Receives kept posted by a streaming receiver; 0: it calls `recv` for each message.
    #[arg(long, default_value_t = 0)]
    pub window: usize,
    /// Processes of all-to-all.
    #[arg(long, default_value_t = 2)]
    pub processes: usize,
    /// Threads that share an endpoint.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Which share of deaths must have been noticed within the figure.
    #[arg(long, default_value_t = 0.5)]
    pub quantile: f64,
    /// Deaths in one run.
    #[arg(long, default_value_t = 5)]
    pub deaths: usize,
    /// How messages are sent and received where they are counted.
    #[arg(long)]
    pub form: Option<Form>,
    /// How many of them.
    #[arg(long, default_value_t = 1024)]
    pub messages: u64,
    /// The two cores, active side first.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    pub cpus: Vec<usize>,
    /// This process is the second side.
    #[arg(long, hide = true)]
    pub second: bool,
}

/// Runs either side. Only the first returns a result.
pub fn run(args: &OursArgs) -> Result<Option<Sample>> {
    pair::die_with_parent()?;
    pair::pin(args.cpus.get(usize::from(args.second)).copied())?;
    if args.second {
        return second(args).map(|()| None);
    }
    first(args).map(Some)
}

/// Parts of the API that do not exist yet: the line says so instead of measuring something else.
pub fn missing(args: &OursArgs) -> Option<Missing> {
    let part = match args.case {
        Case::Write => "Sinew has no one-sided operations",
        Case::DataPath if !args.second && !data_path::can_trace() => {
            "system calls are counted by strace, which does not work here: apt-get install strace"
        }
        _ => return None,
    };
    Some(Missing(part.into()))
}

fn first(args: &OursArgs) -> Result<Sample> {
    match args.case {
        Case::Latency if args.in_place => in_place::ping_pong_first(args),
        Case::Loan => in_place::ping_pong_first(args),
        Case::Latency => latency::first(args),
        Case::Wake => latency::wake_first(args),
        Case::Rate => stream::rate_first(args),
        Case::Bandwidth if args.in_place => in_place::bandwidth_first(args),
        Case::Bandwidth => stream::bandwidth_first(args),
        Case::Async => asynchronous::first(args),
        Case::Idle => engine::idle_first(args),
        Case::EndpointMemory => engine::endpoint_memory(),
        Case::EndpointDescriptors => engine::endpoint_descriptors(),
        Case::MeshMemory | Case::MeshDescriptors => engine::mesh_first(args),
        Case::Connect => engine::connect_first(args),
        Case::Matching => engine::matching(args),
        Case::Death => engine::death_first(args),
        Case::DataPath => data_path::first(args),
        Case::Progress => scale::progress_first(args),
        Case::PeerMemory => scale::peer_memory_first(args),
        Case::Storm => scale::storm_first(args),
        Case::AllToAll => scale::all_to_all_first(args),
        Case::Shared => scale::shared_first(args),
        Case::Counted => counted::program(args).map(|()| Sample::default()),
        Case::Write => bail!("this case has no program"),
    }
}

fn second(args: &OursArgs) -> Result<()> {
    match args.case {
        Case::Latency if args.in_place => in_place::ping_pong_second(args),
        Case::Loan => in_place::ping_pong_second(args),
        Case::Latency | Case::Wake => latency::second(args),
        Case::Rate => stream::rate_second(args),
        Case::Bandwidth if args.in_place => in_place::bandwidth_second(args),
        Case::Bandwidth => stream::bandwidth_second(args),
        Case::Async => asynchronous::second(args),
        Case::Idle | Case::Death => engine::wait_second(args),
        Case::MeshMemory | Case::MeshDescriptors => engine::mesh_second(args),
        Case::Connect | Case::Storm => engine::connect_second(args),
        Case::Progress => scale::progress_second(args),
        Case::PeerMemory => scale::peer_memory_second(args),
        Case::AllToAll => scale::all_to_all_second(args),
        Case::Shared => scale::shared_second(args),
        Case::DataPath => data_path::traced(args),
        Case::Counted => counted::program(args),
        _ => bail!("this case has no second side"),
    }
}
