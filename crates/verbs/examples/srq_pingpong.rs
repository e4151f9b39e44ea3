//! Messages there and back over many connections at once, which share their receives.
//!
//! In two terminals, or on two machines:
//!
//! ```sh
//! cargo run --example srq_pingpong
//! cargo run --example srq_pingpong -- localhost
//! ```
//!
//! Either side can be C's `ibv_srq_pingpong` (over Ethernet with its `-g INDEX`): options and addresses are the same.
//!
//! What it shows: with [`Hub::share_receives`](sinew_verbs::Hub::share_receives) all queue pairs of a hub take receives from one queue. Memory is posted for
//! what may arrive at once, not for each connection; a completion says whose message it was.

mod pingpong;

use clap::Parser;
use pingpong::{Address, Exchange, FILL, Options, Result};
use sinew_verbs::ProtectionDomain;
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;
use sinew_verbs::qp::config::Mtu;
use std::process::ExitCode;
use std::time::Instant;

/// Messages over many connections that share their receives. Either side can be C's ibv_srq_pingpong.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
    /// Bytes of a message
    #[arg(short, long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Bytes of a packet: 256, 512, 1024, 2048 or 4096
    #[arg(short, long, default_value = "1024", value_parser = pingpong::mtu)]
    mtu: Mtu,
    /// Connections
    #[arg(short = 'q', long = "num-qp", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Service level
    #[arg(short = 'l', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=15))]
    sl: u8,
}

fn main() -> ExitCode {
    pingpong::exit("srq_pingpong", run(&Arguments::parse()))
}

/// C's program tells as many addresses, however many connections there are.
const SLOTS: usize = 256;

/// One connection's turn.
struct Connection {
    member: Member,
    /// Its message, while the device does not have it.
    message: Option<Buffer>,
    /// Whether the other side's message has come that the next one answers.
    heard: bool,
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { common: options, size, mtu, connections, .. } = arguments;
    if options.rx_depth < *connections {
        return Err(format!(
            "{} receives (-r) are less than one for each of {connections} connections (-q)",
            options.rx_depth
        )
        .into());
    }
    let context = options.open()?;
    let pd = context.protection_domain()?;

    // One queue of receives for all, and a send at a time for each.
    let (mut hub, events) = options.hub::<Rc>(&context, options.rx_depth + connections)?;
    hub.share_receives(&pd, options.rx_depth, 1)?;
    let places = pd.pool(options.rx_depth as usize, *size as usize)?;
    while let Some(place) = places.take() {
        hub.post_shared_receive(place, 0)?;
    }
    let mut all = connections_of(&mut hub, &pd, arguments)?;
    let addresses = all.iter().map(|connection| Ok(Address::of(hub.endpoint(connection.member)?)));
    let own = addresses.collect::<Result<Vec<Address>>>()?;
    Exchange::open(options)?.slots(SLOTS).swap(&own, |peers| {
        for (connection, peer) in all.iter().zip(peers) {
            hub.connect(connection.member, &peer.endpoint(*mtu))?;
        }
        Ok(())
    })?;

    let start = Instant::now();
    for connection in &mut all {
        answer(&mut hub, connection)?;
    }
    let (mut sent, mut received) = (0, 0);
    while sent < options.iters || received < options.iters {
        let completed = pingpong::next(&mut hub, events.as_ref())?;
        let success = completed.result?;
        let Some(buffer) = completed.held.into_buffer() else { continue };
        let is_it = |connection: &&mut Connection| connection.member == completed.member;
        let Some(connection) = all.iter_mut().find(is_it) else {
            return Err("a message came to a connection that is not there".into());
        };
        match completed.side {
            Side::Send => {
                sent += 1;
                connection.message = Some(buffer);
            }
            Side::Receive => {
                received += 1;
                connection.heard = true;
                let len = success.len.unwrap_or(0) as usize;
                options.check(&buffer[..len], *size)?;
                hub.post_shared_receive(buffer, 0)?;
            }
        }
        // All connections count together: some are a message ahead when the last one is counted.
        if sent < options.iters {
            answer(&mut hub, connection)?;
        }
    }
    pingpong::report(u64::from(*size) * options.iters * 2, options.iters, start.elapsed());
    Ok(())
}

/// The connections, each with its message.
fn connections_of(
    hub: &mut Hub<Rc>,
    pd: &ProtectionDomain,
    arguments: &Arguments,
) -> Result<Vec<Connection>> {
    let Arguments { common: options, size, mtu, connections, sl } = arguments;
    let mut all = Vec::new();
    for number in 0..*connections {
        let builder = hub.queue_pair(pd).send_depth(1);
        let prepared = options.place(builder).mtu(*mtu).service_level(*sl)?.build()?;
        if number == 0 {
            println!("  {}", prepared.choice().explanation);
        }
        let mut buffer = pd.allocate(*size as usize)?;
        buffer.fill(FILL);
        // The client begins: for it the turn has come.
        all.push(Connection {
            member: hub.add(prepared)?,
            message: Some(buffer),
            heard: options.is_client(),
        });
    }
    Ok(all)
}

/// Sends a connection's message, when it is its turn and the one before has left.
fn answer(hub: &mut Hub<Rc>, connection: &mut Connection) -> Result<()> {
    if connection.heard
        && let Some(buffer) = connection.message.take()
    {
        connection.heard = false;
        hub.post(connection.member, Operation::send(buffer))?;
    }
    Ok(())
}
