//! A message there and back, many times, over a reliable connection: the "hello" of RDMA.
//!
//! In two terminals, or on two machines:
//!
//! ```sh
//! cargo run --example rc_pingpong
//! cargo run --example rc_pingpong -- localhost
//! ```
//!
//! Either side can be C's `ibv_rc_pingpong` (over Ethernet with its `-g INDEX`): options and addresses are the same.
//!
//! What it shows: a [`Hub`](sinew_verbs::Hub) keeps the memory of each request that is out. A buffer moves into the operation and comes back with its
//! completion, so that nothing here is `unsafe` and no buffer can be touched while the device has it.

mod pingpong;

use clap::Parser;
use pingpong::{Address, Exchange, FILL, Options, Result};
use sinew_verbs::hub::{Operation, Side};
use sinew_verbs::qp::Rc;
use sinew_verbs::qp::config::Mtu;
use std::process::ExitCode;
use std::time::Instant;

/// A message there and back over a reliable connection. Either side can be C's ibv_rc_pingpong.
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
    /// Service level
    #[arg(short = 'l', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=15))]
    sl: u8,
}

fn main() -> ExitCode {
    pingpong::exit("rc_pingpong", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { common: options, size, mtu, sl } = arguments;
    let context = options.open()?;
    let pd = context.protection_domain()?;

    // One queue pair, for one send at a time and many receives.
    let (mut hub, events) = options.hub::<Rc>(&context, options.rx_depth + 1)?;
    let builder = hub.queue_pair(&pd).send_depth(1).receive_depth(options.rx_depth);
    let prepared = options.place(builder).mtu(*mtu).service_level(*sl)?.build()?;
    println!("  {}", prepared.choice().explanation);
    let member = hub.add(prepared)?;

    // Receives first: the peer may send as soon as it is connected.
    let places = pd.pool(options.rx_depth as usize, *size as usize)?;
    while let Some(place) = places.take() {
        hub.post_receive(member, place, 0)?;
    }

    let own = Address::of(hub.endpoint(member)?);
    Exchange::open(options)?.swap(&[own], |peers| Ok(hub.connect(member, &peers[0].endpoint(*mtu))?))?;

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
            hub.post(member, Operation::send(buffer))?;
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
                options.check(&buffer[..len], *size)?;
                hub.post_receive(member, buffer, 0)?;
            }
        }
    }
    pingpong::report(u64::from(*size) * options.iters * 2, options.iters, start.elapsed());
    Ok(())
}
