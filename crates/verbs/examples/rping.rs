//! A text goes to the server and comes back, over a connection that the connection manager makes: messages, a read and a write in each round.
//!
//! In two terminals, or on two machines:
//!
//! ```text
//! rping -s -a 10.0.0.1 -v
//! rping -c -a 10.0.0.1 -v -V -C 10
//! ```
//!
//! Either side can be librdmacm's `rping`: options and messages are the same.
//!
//! Each round has four messages of 16 bytes. The client tells where its text is; the server reads it there, and answers. The client tells where it wants
//! the text back; the server writes it there, and answers. What an answer holds is not looked at.
//!
//! What it shows: a [`Hub`] whose receives are [shared](Hub::share_receives) takes them before there is a connection, so that no message of a fast peer comes too
//! early; the hub [adopts](Hub::adopt) the queue pair, and the connection manager brings it up. Nothing here is `unsafe`.

mod meeting;

use clap::Parser;
use meeting::Result;
use sinew_verbs::cm::{Acceptor, ConnectionParameters, Connector, Line};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::memory::{Buffer, ExposedRegion, Memory, RemoteAccess, RemoteKey, RemoteRegion};
use sinew_verbs::qp::Rc;
use sinew_verbs::{Library, ProtectionDomain};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A text there and back over a connection of rdma cm. Either side can be librdmacm's rping.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    role: Role,
    /// Address of the server
    #[arg(short)]
    address: IpAddr,
    /// Port of the server
    #[arg(short, default_value_t = 7174, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Rounds; without it the client goes on until somebody stops it
    #[arg(short = 'C')]
    count: Option<u64>,
    /// Bytes of a text, the same on both sides
    #[arg(short = 'S', default_value_t = 100, value_parser = clap::value_parser!(u32).range(32..=65535))]
    size: u32,
    /// Print each text
    #[arg(short = 'v')]
    verbose: bool,
    /// Compare each text with what it must be
    #[arg(short = 'V')]
    validate: bool,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Role {
    /// Be the server: answer one client, then end
    #[arg(short)]
    server: bool,
    /// Be the client
    #[arg(short)]
    client: bool,
}

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(30);
/// Receives that wait for messages; the other side sends one, and waits for an answer.
const RECEIVES: u32 = 2;
/// Bytes of a message.
const MESSAGE: usize = 16;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    meeting::exit("rping", if arguments.role.server { serve(&arguments) } else { ask(&arguments) })
}

fn serve(arguments: &Arguments) -> Result<()> {
    let acceptor = Acceptor::bind(&Library::open()?, SocketAddr::new(arguments.address, arguments.port), 1)?;
    let incoming = acceptor.accept(None)?;
    let (pd, mut hub, member) = prepare(incoming.context())?;
    let line = incoming.accept_member(&mut hub, member, &ConnectionParameters::new(), PATIENCE)?;
    let mut peer = Peer { hub, member, line, sent: None, heard: VecDeque::new() };
    let mut message = pd.allocate(MESSAGE)?;
    let mut text = pd.allocate(arguments.size as usize)?;
    let mut rounds = 0;
    while let Some(place) = peer.hear()? {
        if place.len() > text.len() as u64 {
            return Err(format!("a text of {} bytes: give both sides the same -S", place.len()).into());
        }
        let len = place.len() as u32;
        text = peer.run(Operation::read(text, place).len(len))?;
        arguments.look("server ping data", rounds, &text[..len as usize])?;
        message = peer.run(Operation::send(message))?;
        let place = peer.hear()?.ok_or("the client left in the middle of a round")?;
        text = peer.run(Operation::write(text, place).len(len.min(place.len() as u32)))?;
        message = peer.run(Operation::send(message))?;
        rounds += 1;
    }
    println!("{rounds} texts were sent back");
    match arguments.count {
        Some(count) if count != rounds => Err(format!("the client left after {rounds} of {count}").into()),
        _ => Ok(()),
    }
}

fn ask(arguments: &Arguments) -> Result<()> {
    let server = SocketAddr::new(arguments.address, arguments.port);
    let resolved = Connector::new(&Library::open()?).resolve(server, PATIENCE)?;
    let (pd, mut hub, member) = prepare(resolved.context())?;
    let size = arguments.size as usize;
    // Open to the peer only as far as it needs.
    let source = pd.expose(Memory::zeroed(size)?, RemoteAccess::READ)?;
    let sink = pd.expose(Memory::zeroed(size)?, RemoteAccess::WRITE)?;
    let parameters = ConnectionParameters::new().remote_access(RemoteAccess::READ | RemoteAccess::WRITE);
    let line = resolved.connect_member(&mut hub, member, &parameters, PATIENCE)?;
    let mut peer = Peer { hub, member, line, sent: None, heard: VecDeque::new() };
    let mut message = pd.allocate(MESSAGE)?;
    let mut back = vec![0; size];
    for round in 0..arguments.count.unwrap_or(u64::MAX) {
        source.write_at(0, &text(round, size))?;
        // Nothing of the round before can pass for an answer.
        sink.write_at(0, &vec![0; size])?;
        for region in [&source, &sink] {
            message = peer.tell(message, region)?;
            peer.hear()?.ok_or("the server left")?;
        }
        sink.read_at(0, &mut back)?;
        arguments.look("ping data", round, &back)?;
    }
    peer.line.disconnect()?;
    Ok(())
}

impl Arguments {
    /// Shows and compares a text, where that is asked for.
    fn look(&self, whose: &str, round: u64, bytes: &[u8]) -> Result<()> {
        if self.verbose {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            println!("{whose}: {}", String::from_utf8_lossy(text));
        }
        if self.validate && bytes != text(round, bytes.len()) {
            return Err(format!("text {round} is not what it must be: {bytes:?}").into());
        }
        Ok(())
    }
}

/// What goes round: a number, letters (other ones in each round), and a byte 0 at the end.
fn text(round: u64, len: usize) -> Vec<u8> {
    let letters = (b'A'..=b'z').cycle().skip((round % 58) as usize);
    let mut text: Vec<u8> = format!("rdma-ping-{round}: ").bytes().chain(letters).take(len - 1).collect();
    text.push(0);
    text
}

/// A hub with receives that are posted already, and a queue pair of it, to be connected.
fn prepare(context: &Context) -> Result<(ProtectionDomain, Hub<Rc>, Member)> {
    let pd = context.protection_domain()?;
    let mut hub = Hub::new(context, 16)?;
    hub.share_receives(&pd, RECEIVES, 1)?;
    for _ in 0..RECEIVES {
        hub.post_shared_receive(pd.allocate(MESSAGE)?, 0)?;
    }
    let pair = hub.queue_pair(&pd).send_depth(2).build_raw()?;
    let member = hub.adopt(pair)?;
    Ok((pd, hub, member))
}

/// The connection, with what came by it and was not asked for yet.
struct Peer {
    hub: Hub<Rc>,
    member: Member,
    line: Line,
    sent: Option<Buffer>,
    heard: VecDeque<RemoteRegion>,
}

impl Peer {
    /// Takes note of the next operation that ends; whether one has.
    fn progress(&mut self) -> Result<bool> {
        let Some(ended) = self.hub.poll()? else { return Ok(false) };
        let (side, len) = (ended.side(), ended.result()?.len);
        let Some(buffer) = ended.into_buffer() else { return Ok(true) };
        match side {
            Side::Send => self.sent = Some(buffer),
            Side::Receive if len != Some(MESSAGE as u32) => {
                return Err(format!("a message of {len:?} bytes: is the other side an rping?").into());
            }
            Side::Receive => {
                self.heard.push_back(place(&buffer)?);
                self.hub.post_shared_receive(buffer, 0)?;
            }
        }
        Ok(true)
    }

    /// Does an operation; its memory comes back.
    fn run(&mut self, operation: Operation<Rc>) -> Result<Buffer> {
        self.hub.post(self.member, operation)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(buffer) = self.sent.take() {
                return Ok(buffer);
            }
            if !self.progress()? {
                wait(deadline)?;
            }
        }
    }

    /// The next message, or nothing when the other side has left.
    fn hear(&mut self) -> Result<Option<RemoteRegion>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.heard.pop_front() {
                return Ok(Some(place));
            }
            if self.progress()? {
                continue;
            }
            if self.line.ended()?.is_some() {
                return Ok(None);
            }
            wait(deadline)?;
        }
    }

    /// Tells where memory of ours is: address, key and length, the most significant byte first.
    fn tell(&mut self, mut message: Buffer, region: &ExposedRegion) -> Result<Buffer> {
        let remote = region.remote();
        message[..8].copy_from_slice(&remote.addr().to_be_bytes());
        message[8..12].copy_from_slice(&remote.key().0.to_be_bytes());
        message[12..].copy_from_slice(&(remote.len() as u32).to_be_bytes());
        self.run(Operation::send(message))
    }
}

/// Where a message says that memory is.
fn place(message: &[u8]) -> Result<RemoteRegion> {
    let addr = u64::from_be_bytes(message[..8].try_into()?);
    let key = u32::from_be_bytes(message[8..12].try_into()?);
    let len = u32::from_be_bytes(message[12..].try_into()?);
    Ok(RemoteRegion::new(addr, len.into(), RemoteKey(key))?)
}

fn wait(deadline: Instant) -> Result<()> {
    if Instant::now() > deadline {
        return Err(format!("nothing came for {} s", PATIENCE.as_secs()).into());
    }
    std::thread::yield_now();
    Ok(())
}
