//! Two programs that find each other by an address of IP and count messages: rdma cm, private data, receives posted before the peer can
//! send.
//!
//! ```text
//! cm_connect serve 10.0.0.1:7471           # answers one client, then ends
//! cm_connect 10.0.0.1:7471 [messages]      # 100 messages by default, each is answered
//! ```
use sinew_verbs::Library;
use sinew_verbs::cm::{Acceptor, ConnectionParameters, Connector, Ended};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(30);

/// One end: a hub with one queue pair, a buffer that is received into, and one that is sent from.
struct End {
    hub: Hub<Rc>,
    member: Member,
    /// Here while it is not on its way.
    outgoing: Option<Buffer>,
    /// What has arrived and was not asked for yet.
    arrived: Option<Buffer>,
}

impl End {
    /// Its queue pair is made, and is to be connected; a receive is posted when that is brought to INIT.
    fn new(context: &Context) -> Answer<Self> {
        let domain = context.protection_domain()?;
        let mut hub = Hub::new(context, 32)?;
        let pair = hub.queue_pair(&domain).build_raw()?;
        let member = hub.adopt(pair)?;
        Ok(Self { hub, member, outgoing: Some(domain.allocate(8)?), arrived: Some(domain.allocate(8)?) })
    }

    fn post_receive(&mut self) -> Answer<()> {
        let buffer = self.arrived.take().ok_or("the receive is posted already")?;
        Ok(self.hub.post_receive(self.member, buffer, 0)?)
    }

    /// Waits until a send or a receive has ended; what it had is here again.
    fn await_one(&mut self) -> Answer<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.hub.poll()? {
                ended.result()?;
                match ended.side() {
                    Side::Send => self.outgoing = ended.into_buffer(),
                    Side::Receive => self.arrived = ended.into_buffer(),
                }
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the peer says nothing".into());
            }
            std::thread::yield_now();
        }
    }

    fn send(&mut self, number: u64) -> Answer<()> {
        let mut buffer = self.outgoing.take().ok_or("the last send has not ended")?;
        buffer.copy_from_slice(&number.to_be_bytes());
        self.hub.post(self.member, Operation::send(buffer))?;
        while self.outgoing.is_none() {
            self.await_one()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Answer<u64> {
        let number = loop {
            match &self.arrived {
                Some(buffer) => break buffer[..].try_into().map(u64::from_be_bytes)?,
                None => self.await_one()?,
            }
        };
        self.post_receive()?;
        Ok(number)
    }
}

fn serve(library: &Library, address: SocketAddr) -> Answer<()> {
    let acceptor = Acceptor::bind(library, address, 4)?;
    if let Some(at) = acceptor.address()? {
        println!("listening at {at}");
    }
    let incoming = acceptor.accept(None)?;
    let mut count = [0; 8];
    let (Some(said), Some(from)) = (incoming.private_data().get(..8), incoming.peer()?) else {
        incoming.reject(b"say how many messages")?;
        return Err("a client that does not say how many messages".into());
    };
    count.copy_from_slice(said);
    let count = u64::from_be_bytes(count);
    println!("{from} on {:?} wants to send {count} messages", incoming.context());
    let mut end = End::new(incoming.context())?;
    let parameters = ConnectionParameters::new();
    incoming.initialize(end.hub.queue_pair_of(end.member)?, &parameters)?;
    end.post_receive()?;
    let mut line = incoming.accept_member(&mut end.hub, end.member, &parameters, PATIENCE)?;
    for _ in 0..count {
        let number = end.receive()?;
        end.send(number.wrapping_add(1))?;
    }
    match line.wait_ended(Some(PATIENCE))? {
        Some(Ended::Disconnected) => println!("the client has gone"),
        other => println!("the client did not say good-bye: {other:?}"),
    }
    Ok(())
}

fn connect(library: &Library, address: SocketAddr, count: u64) -> Answer<()> {
    let resolved = Connector::new(library).resolve(address, PATIENCE)?;
    println!("{address} is reached through {:?}", resolved.context());
    let mut end = End::new(resolved.context())?;
    let parameters = ConnectionParameters::new().private_data(&count.to_be_bytes());
    resolved.initialize(end.hub.queue_pair_of(end.member)?, &parameters)?;
    end.post_receive()?;
    let mut line = resolved.connect_member(&mut end.hub, end.member, &parameters, PATIENCE)?;
    let started = Instant::now();
    for number in 0..count {
        end.send(number)?;
        let answer = end.receive()?;
        if answer != number.wrapping_add(1) {
            return Err(format!("sent {number}, and {answer} came back").into());
        }
    }
    println!("{count} messages there and back in {:?}", started.elapsed());
    line.disconnect()?;
    line.wait_ended(Some(PATIENCE))?;
    Ok(())
}

fn address(text: &str) -> Answer<SocketAddr> {
    let address = text.parse();
    Ok(address
        .map_err(|_| format!("{text:?} is no ADDRESS:PORT, such as 10.0.0.1:7471 or [fe80::1]:7471"))?)
}

fn run() -> Answer<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let library = Library::open()?;
    match words[..] {
        ["serve", at] => serve(&library, address(at)?),
        [at] => connect(&library, address(at)?, 100),
        [at, count] => {
            let count = count.parse().map_err(|error| format!("{count:?} messages: {error}"))?;
            connect(&library, address(at)?, count)
        }
        _ => Err("cm_connect serve ADDRESS:PORT, or cm_connect ADDRESS:PORT [MESSAGES]".into()),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cm_connect: {error}");
            ExitCode::FAILURE
        }
    }
}
