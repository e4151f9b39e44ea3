//! A datagram there and back, many times: no connection, one packet each, addressed one by one.
//!
//! In two terminals, or on two machines:
//!
//! ```sh
//! cargo run --example ud_pingpong
//! cargo run --example ud_pingpong -- localhost
//! ```
//!
//! Either side can be C's `ibv_ud_pingpong` (over Ethernet with its `-g INDEX`): options and addresses are the same.
//!
//! What it shows: an [`AddressHandle`](sinew_verbs::ah::AddressHandle) is the way to a port; [`Operation::to`](sinew_verbs::hub::Operation::to) names it, with the
//! queue pair and its key. A datagram arrives behind 40 bytes of its route. Nobody sends a lost one again: then this program says so and ends.

mod pingpong;

use clap::Parser;
use pingpong::{Address, Exchange, FILL, Options, Result};
use sinew_verbs::ah::GLOBAL_ROUTE_LEN;
use sinew_verbs::hub::{Operation, Side};
use sinew_verbs::qp::{Path, Ud};
use std::process::ExitCode;
use std::time::Instant;

/// A datagram there and back. Either side can be C's ibv_ud_pingpong.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
    /// Bytes of a datagram, at most one packet
    #[arg(short, long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Service level
    #[arg(short = 'l', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=15))]
    sl: u8,
}

/// The key that datagrams name, here and in C's program.
const QUEUE_KEY: u32 = 0x1111_1111;

fn main() -> ExitCode {
    pingpong::exit("ud_pingpong", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { common: options, size, sl } = arguments;
    let context = options.open()?;
    let pd = context.protection_domain()?;

    // One queue pair, for one send at a time and many receives.
    let (mut hub, events) = options.hub::<Ud>(&context, options.rx_depth + 1)?;
    let builder = hub.queue_pair(&pd).send_depth(1).receive_depth(options.rx_depth);
    let prepared = options.place(builder).qkey(QUEUE_KEY).build()?;
    let choice = prepared.choice().clone();
    println!("  {}", choice.explanation);
    let packet = context.port(choice.port)?.mtu_active();
    if packet.bytes().is_some_and(|most| *size > most) {
        return Err(format!("{size} bytes are more than one packet here carries ({packet})").into());
    }
    let member = hub.add(prepared)?;
    hub.activate(member)?;

    // Each place has room for the route before the datagram.
    let places = pd.pool(options.rx_depth as usize, GLOBAL_ROUTE_LEN + *size as usize)?;
    while let Some(place) = places.take() {
        hub.post_receive(member, place, 0)?;
    }

    let own = Address::of(hub.endpoint(member)?);
    let mut peer = None;
    Exchange::open(options)?.swap(&[own], |peers| {
        let endpoint = peers[0].endpoint(packet);
        let path = Path { service_level: *sl, ..Path::to_endpoint(&endpoint, &choice)? };
        peer = Some((pd.address_handle(&path)?, endpoint.qp_num));
        Ok(())
    })?;
    let Some((handle, qp_num)) = peer else { return Err("the other side told no address".into()) };

    let mut buffer = pd.allocate(*size as usize)?;
    buffer.fill(FILL);
    let mut message = Some(buffer);
    let (mut posted, mut sent, mut received) = (0, 0, 0);
    let start = Instant::now();
    while sent < options.iters || received < options.iters {
        // The client begins, and then everybody answers: when the answer's turn has come and the message before has left.
        let turn = received + u64::from(options.is_client());
        if posted < turn.min(options.iters)
            && let Some(buffer) = message.take()
        {
            hub.post(member, Operation::send(buffer).to(&handle, qp_num, QUEUE_KEY))?;
            posted += 1;
        }
        let completed = pingpong::next(&mut hub, events.as_ref())?;
        let success = completed.result?;
        let Some(buffer) = completed.held.into_buffer() else { continue };
        match completed.side {
            Side::Send => {
                sent += 1;
                message = Some(buffer);
            }
            Side::Receive => {
                received += 1;
                let len = success.len.unwrap_or(0) as usize;
                options.check(buffer[..len].get(GLOBAL_ROUTE_LEN..).unwrap_or_default(), *size)?;
                hub.post_receive(member, buffer, 0)?;
            }
        }
    }
    pingpong::report(u64::from(*size) * options.iters * 2, options.iters, start.elapsed());
    Ok(())
}
