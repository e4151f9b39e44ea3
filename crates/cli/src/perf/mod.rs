//! `sinew perf`: latency, bandwidth and message rate of every path, between two processes here or two hosts.
//!
//! The initiator (this process) asks a responder (a second process, or `perf --listen` elsewhere) for rounds of messages
//! through the public tagged API; both check every byte.

pub(crate) mod child;
mod initiator;
mod page;
mod pattern;
mod protocol;
mod report;
mod responder;

use crate::access::{Access, Place};
use crate::failure::{self, Failure};
use crate::output::{help, say};
use crate::{cpus, units};
use child::Responder;
use clap::ValueEnum;
use initiator::{Extent, Initiator};
use page::Pages;
use report::Report;
use responder::{After, serve};
use sinew::Progress;
use std::path::PathBuf;
use std::time::Duration;

/// Measure every path: latency, bandwidth and message rate, with each byte checked
///
/// Starts a second process, pins the two to two processors, measures each transport between them and says which path the
/// engine chooses by itself and why. With --listen and --connect it runs between two hosts.
///
/// Latency is half the round trip through tagged messages; bandwidth and rate are of one direction.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = help(&[
    "sinew perf                                        every path on this machine, quickly",
    "sinew perf --transport shm --op latency --sizes 8 --iterations 100000",
    "sinew perf --transport all --json > results.jsonl",
    "sinew perf --html page.html                        plots over all sizes, beside raw programs and peers",
    "sinew perf --listen tcp://0.0.0.0:4000 --secret-file key      on one host",
    "sinew perf --connect tcp://host:4000 --secret-file key        on the other",
]))]
pub(crate) struct Args {
    /// What to measure: one transport, `all` of them each by itself, or the one that the engine chooses (`auto`)
    /// [default: all; with --connect: auto]
    #[arg(long, value_name = "NAME", value_parser = transport_name)]
    transport: Option<String>,
    /// Which operation
    #[arg(long, value_enum, default_value_t = Wanted::All)]
    op: Wanted,
    /// Message sizes in bytes, with k, m or g [default: 8,64,4k,1m; with --html: 8 to 64m]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::parse_size)]
    sizes: Option<Vec<usize>>,
    /// Messages per measurement, instead of a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "seconds")]
    iterations: Option<u64>,
    /// Time per measurement
    #[arg(long, value_name = "S", value_parser = units::parse_seconds, default_value = "0.2")]
    seconds: Duration,
    /// One object per line on standard output, and nothing else there
    #[arg(long)]
    json: bool,
    /// Also write a page with plots over size: latency, bandwidth and rate of Sinew, of the bare mechanisms and of the peers
    /// that this machine has (UCX, ZeroMQ). One file that needs no network. Takes about two minutes
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Let the system move the two processes between processors
    #[arg(long)]
    no_pin: bool,
    /// Wait here for `sinew perf --connect`, as tcp://0.0.0.0:4000; `all` for every transport
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["connect", "transport", "op", "sizes", "iterations", "seconds", "json", "html"])]
    listen: Option<Place>,
    /// Measure against `sinew perf --listen` at this address
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Latency,
    Bandwidth,
    Rate,
}

impl Op {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Bandwidth => "bandwidth",
            Self::Rate => "rate",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Wanted {
    Latency,
    Bandwidth,
    Rate,
    All,
}

impl Wanted {
    const fn ops(self) -> &'static [Op] {
        match self {
            Self::Latency => &[Op::Latency],
            Self::Bandwidth => &[Op::Bandwidth],
            Self::Rate => &[Op::Rate],
            Self::All => &[Op::Latency, Op::Bandwidth, Op::Rate],
        }
    }
}

fn transport_name(text: &str) -> Result<String, String> {
    let names = sinew::transport_names();
    if names.contains(&text) || matches!(text, "auto" | "all") {
        return Ok(text.to_owned());
    }
    Err(format!("this build has {}; besides, auto and all", names.join(", ")))
}

impl Args {
    /// What plain `sinew` does.
    pub(crate) fn quick() -> Self {
        Self {
            transport: None,
            op: Wanted::All,
            sizes: None,
            iterations: None,
            seconds: Duration::from_millis(200),
            json: false,
            html: None,
            no_pin: false,
            listen: None,
            connect: None,
            access: Access { domain: "default".to_owned(), ..Access::default() },
        }
    }

    fn sizes(&self) -> &[usize] {
        match &self.sizes {
            Some(sizes) => sizes,
            None if self.html.is_some() => &page::SIZES,
            None => &[8, 64, 4 << 10, 1 << 20],
        }
    }

    fn extent(&self) -> Extent {
        self.iterations.map_or(Extent::Time(self.seconds), Extent::Iterations)
    }

    /// The transports to measure, each by itself.
    fn transports(&self) -> Vec<&str> {
        match self.transport.as_deref() {
            Some("all") => sinew::transport_names().to_vec(),
            None if self.connect.is_none() => sinew::transport_names().to_vec(),
            None => vec!["auto"],
            Some(name) => vec![name],
        }
    }
}

/// The command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match (&args.listen, &args.connect) {
        (Some(place), _) => listen(args, place),
        (None, Some(address)) => {
            args.access.check_connect(address)?;
            measure_all(args, &Side::There(address.clone()))
        }
        (None, None) if args.access.is_said() => Err(Failure::usage(
            "--secret-file, --insecure and --domain are for --listen and --connect; the two processes here are of one user and \
             in a domain of their own",
        )),
        (None, None) => measure_all(args, &Side::here(args)?),
    }
}

fn listen(args: &Args, place: &Place) -> Result<(), Failure> {
    args.access.check_listen(place)?;
    if !args.no_pin
        && let Some((_, cpu)) = cpus::two()
    {
        cpus::pin(cpu).map_err(Failure::failed)?;
    }
    let engine = args.access.engine(place, true, Progress::Caller)?;
    let endpoint = engine.endpoint(protocol::ENDPOINT)?;
    say(&endpoint.address().to_string());
    say("listening there for `sinew perf --connect ADDRESS`; Ctrl-C ends");
    serve(&endpoint, After::GoOn, say)
}

/// Where the responder is.
enum Side {
    /// A second process, with a domain that only these two know.
    Here {
        domain: String,
        cpu: Option<usize>,
        /// Two processors for whatever is measured beside.
        pair: Option<[usize; 2]>,
    },
    There(String),
}

impl Side {
    fn here(args: &Args) -> Result<Self, Failure> {
        let since = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
        let domain = format!("perf-{}-{since:x}", std::process::id());
        let pair = cpus::two();
        let cpu = match pair {
            Some((first, second)) if !args.no_pin => {
                cpus::pin(first).map_err(Failure::failed)?;
                Some(second)
            }
            None if !args.no_pin => {
                say(
                    "only one processor is allowed here: the two processes share it, and the numbers are those of switching",
                );
                None
            }
            _ => None,
        };
        Ok(Self::Here { domain, cpu, pair: pair.map(|(first, second)| [first, second]) })
    }

    /// Starts what has to be started, and connects over `transport`.
    fn connect(&self, args: &Args, transport: &str) -> Result<Connected, Failure> {
        let place =
            if transport == "auto" { Place::Anywhere } else { Place::Transport(transport.to_owned()) };
        let (mut responder, address, access) = match self {
            Self::Here { domain, cpu, .. } => {
                let flows = &args.access.flows;
                let responder = Responder::start(&place, domain, *cpu, flows)?;
                let address = responder.address.clone();
                let access = Access { domain: domain.clone(), flows: flows.clone(), ..Access::default() };
                (Some(responder), address, access)
            }
            Self::There(address) => (None, address.clone(), args.access.clone()),
        };
        // One that may choose can be dialled too: either side may find the better path.
        let listen = transport == "auto" && matches!(self, Self::Here { .. });
        let engine = access.engine(&place, listen, Progress::Caller)?;
        let endpoint = engine.endpoint("")?;
        let peer = endpoint.connect(address).map_err(|error| {
            let ended = responder.as_mut().and_then(Responder::ended);
            ended.map_or_else(|| Failure::from(error), |how| Failure::new(failure::UNREACHABLE, how))
        })?;
        let mut initiator = Initiator::new(engine, endpoint, peer);
        if transport == "auto" {
            initiator.settle()?;
        }
        Ok((responder, initiator))
    }
}

fn measure_all(args: &Args, side: &Side) -> Result<(), Failure> {
    let transports = args.transports();
    let steps = transports.len() * args.sizes().len() * args.op.ops().len();
    let beside = match side {
        Side::Here { pair, .. } => *pair,
        Side::There(_) => None,
    };
    let mut pages = match &args.html {
        Some(path) => Some(Pages::begin(path, beside, args.seconds)?),
        None => None,
    };
    let mut report = Report::new(args.json, steps);
    let mut worst: Option<Failure> = None;
    let (mut refused, mut worked) = (None, 0);
    for &transport in &transports {
        report.begin(format!("{transport}: connecting"));
        let connected = match side.connect(args, transport) {
            Ok(connected) => connected,
            Err(failure) if transports.len() == 1 => return Err(failure),
            Err(failure) => {
                report.refused(transport, failure.text())?;
                report.step(args.sizes().len() * args.op.ops().len());
                if let Some(pages) = &mut pages {
                    pages.refused(transport, failure.text())?;
                }
                refused = Some(failure.code());
                continue;
            }
        };
        match measure(args, connected, transport, &mut report, pages.as_mut()) {
            Ok(()) => worked += 1,
            Err(failure) if failure.is_quiet() || transports.len() == 1 => return Err(failure),
            Err(failure) => {
                report.note(&format!("{transport:<9} {}", failure.text()))?;
                worst = Some(match worst {
                    Some(known) if known.code() == failure::DIFFERENT => known,
                    _ => failure,
                });
            }
        }
    }
    if !args.json && transports != ["auto"] && matches!(side, Side::Here { .. }) && worked > 0 {
        choose(args, side, &report)?;
    }
    report.finish();
    match (worst, refused) {
        (Some(failure), _) => Err(failure),
        (None, Some(code)) if worked == 0 => {
            Err(Failure::new(code, "no transport could be measured; the reasons stand above"))
        }
        _ => Ok(()),
    }
}

/// A responder, if it is a process of ours, and the way to it.
type Connected = (Option<Responder>, Initiator);

fn measure(
    args: &Args,
    connected: Connected,
    transport: &str,
    report: &mut Report,
    mut pages: Option<&mut Pages>,
) -> Result<(), Failure> {
    let (mut responder, mut initiator) = connected;
    let mut wrong = None;
    for &size in args.sizes() {
        let mut row = Vec::new();
        for &op in args.op.ops() {
            report.begin(format!("{transport} {} {}", op.name(), units::size(size)));
            let measured = initiator.measure(op, size, args.extent()).map_err(|failure| {
                let ended = responder.as_mut().and_then(Responder::ended);
                let failure = failure.during(format!("{transport}, {} of {}", op.name(), units::size(size)));
                ended.map_or(failure, |how| Failure::new(failure::UNREACHABLE, how))
            })?;
            report.measured(&measured)?;
            report.step(1);
            wrong = wrong.or_else(|| measured.wrong.clone());
            row.push(measured);
        }
        report.row(&row)?;
        if let Some(pages) = &mut pages {
            report.begin(format!("{transport} {}: raw programs and peers", units::size(size)));
            pages.row(transport, &row, args.seconds)?;
        }
    }
    if transport == "auto" && !args.json {
        explain(&initiator, report)?;
    }
    let _ = initiator.finish();
    match wrong {
        Some(text) => {
            Err(Failure::different(format!("{transport}: what arrived is not what was sent: {text}")))
        }
        None => Ok(()),
    }
}

/// Lets the engine choose by itself, and says what it chose and why.
fn choose(args: &Args, side: &Side, report: &Report) -> Result<(), Failure> {
    report.begin("auto".to_owned());
    let (_responder, initiator) = side.connect(args, "auto")?;
    explain(&initiator, report)?;
    let _ = initiator.finish();
    Ok(())
}

fn explain(initiator: &Initiator, report: &Report) -> Result<(), Failure> {
    let peer = initiator.peer();
    report.note(&format!("\nauto chose {}\n{}", peer.path(), crate::explain::table(&peer.explain())))
}
