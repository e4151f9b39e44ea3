//! `sinew explain ADDRESS`: which paths there are to a running program, which one is chosen, which are refused and why.

use crate::access::{Access, Place};
use crate::failure::Failure;
use crate::output::{Paint, Tone, help, print};
use sinew::{Explain, Progress, Verdict};
use std::time::{Duration, Instant};

/// Show the paths to a running program: which one is chosen, which are refused and why
///
/// Connects to an endpoint of any program that uses Sinew, and prints what was tried. When no path works, the message says
/// what was tried and how each way failed.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = help(&[
    "sinew explain tcp://127.0.0.1:4000              one path, and no other",
    "sinew explain sinew:1:…                         an address as printed by a program, or by `sinew listen`",
    "sinew explain tcp://host:4000 --secret-file key --domain training-7",
]))]
pub(crate) struct Args {
    /// An address (sinew:1:…), or tcp://HOST:PORT[/ENDPOINT], uds://PATH[#ENDPOINT], shm://PATH[#ENDPOINT]
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Transports to try [default: all]
    #[arg(long, value_name = "NAME")]
    transport: Option<Place>,
    /// Give up after so long, in seconds
    #[arg(long, value_name = "S", value_parser = crate::units::parse_seconds, default_value = "10")]
    timeout: Duration,
    #[command(flatten)]
    access: Access,
}

/// The command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.access.check_connect(&args.address)?;
    let place = args.transport.clone().unwrap_or(Place::Anywhere);
    let engine = args.access.engine(&place, false, Progress::Caller)?;
    let endpoint = engine.endpoint("")?;
    let begun = Instant::now();
    let peer = endpoint.connect_within(&args.address, args.timeout)?;
    let took = begun.elapsed();
    // A better path may be on its way.
    let settled = Instant::now() + Duration::from_millis(200);
    while Instant::now() < settled && peer.explain().rows.iter().any(|row| row.verdict == Verdict::Trying) {
        engine.progress();
    }
    print(&format!(
        "connected in {} over {}\n{}",
        crate::units::time(took.as_nanos() as f64),
        peer.path(),
        table(&peer.explain())
    ))
}

/// An explanation as an aligned table.
pub(crate) fn table(explain: &Explain) -> String {
    let paint = Paint::for_stdout();
    let pinned = explain.pinned.as_ref().map(|transport| format!("pinned to {transport}; "));
    let head = format!("{}{}", pinned.unwrap_or_default(), explain.security);
    let mut text = format!("{}\n", paint.paint(Tone::Faint, &head));
    for row in &explain.rows {
        let tone = match row.verdict {
            Verdict::Chosen => Tone::Good,
            Verdict::Refused => Tone::Bad,
            _ => Tone::Faint,
        };
        let verdict = paint.paint(tone, &format!("{:<9}", row.verdict.to_string()));
        let round_trip = row.rtt_ns.map_or_else(|| "-".to_owned(), |ns| crate::units::time(ns as f64));
        text.push_str(&format!("  {verdict}  {:<4}  {round_trip:>8}  {}", row.transport, row.locator));
        if !row.remark.is_empty() {
            text.push_str(&paint.paint(Tone::Faint, &format!("  {}", row.remark)));
        }
        if !row.reason.is_empty() {
            text.push_str(&format!(
                "\n             {}",
                row.reason.trim_end().replace('\n', "\n             ")
            ));
        }
        if row.earlier > 0 {
            text.push_str(&paint.paint(Tone::Faint, &format!(" (ended {} times before)", row.earlier)));
        }
        text.push('\n');
    }
    if let Some(sockets) = &explain.sockets {
        text.push_str(&paint.paint(Tone::Faint, &format!("  {sockets}\n")));
    }
    if !explain.crossings.is_empty() {
        text.push_str("messages by length, over the chosen lane:\n");
    }
    for crossing in &explain.crossings {
        let from = crate::units::size(crossing.from_bytes);
        text.push_str(&format!("  from {from:>9}  {}\n", crossing.way));
        text.push_str(&format!("                  {}\n", paint.paint(Tone::Faint, &crossing.reason)));
    }
    if !explain.memory.is_empty() {
        text.push_str(&format!("memory of the chosen lane: {}\n", explain.memory));
    }
    text
}
