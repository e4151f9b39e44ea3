//! Two programs that find each other by an address of IP and count messages: rdma cm, private data, receives posted before the peer can
//! send.
//!
//! ```text
//! cm_connect serve 10.0.0.1:7471           # answers one client, then ends
//! cm_connect 10.0.0.1:7471 [messages]      # 100 messages by default, each is answered
//! ```
#![allow(unsafe_code)]

use sinew_verbs::cm::{Acceptor, Connection, ConnectionParameters, Connector, Ended};
use sinew_verbs::cq::CompletionQueue;
use sinew_verbs::device::Context;
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::{QueuePair, Rc, ReceiveRequest, SendRequest};
use sinew_verbs::{Error, Library};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(30);
const RECEIVED: u64 = 1;
const SENT: u64 = 2;

/// Buffers and completions of one end. They outlive its queue pair: see [`End`].
struct Station {
    completions: CompletionQueue,
    incoming: Buffer,
    outgoing: Buffer,
}

/// One end; the connection, with the queue pair, is dropped before the memory that requests of it name.
struct End {
    connection: Connection,
    station: Station,
    /// What has ended and was not waited for yet, as a sum of request numbers.
    ended: u64,
}

fn station(context: &Context) -> Answer<(Station, QueuePair<Rc>)> {
    let domain = context.protection_domain()?;
    let completions = context.completion_queue(32).build()?;
    let pair = domain.queue_pair::<Rc>(&completions).build_raw()?;
    Ok((Station { completions, incoming: domain.allocate(8)?, outgoing: domain.allocate(8)? }, pair))
}

impl Station {
    fn post_receive(&mut self, pair: &mut QueuePair<Rc>) -> Result<(), Error> {
        let mut list = [self.incoming.scatter()?];
        // SAFETY: the place is not touched before the receive has ended, and outlives the queue pair.
        unsafe { pair.post_receives(&mut [ReceiveRequest::new(RECEIVED, &mut list)]) }.map_err(Error::from)
    }
}

impl End {
    fn new(connection: Connection, station: Station) -> Self {
        Self { connection, station, ended: 0 }
    }

    /// Waits until the request has ended.
    fn await_request(&mut self, wr_id: u64) -> Answer<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut poller = self.station.completions.poller(4);
        loop {
            for completion in &mut poller.poll()? {
                completion.ok().map_err(|error| format!("request {}: {error:?}", completion.wr_id()))?;
                self.ended |= completion.wr_id();
            }
            if self.ended & wr_id != 0 {
                self.ended &= !wr_id;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the peer says nothing".into());
            }
            std::thread::yield_now();
        }
    }

    fn send(&mut self, number: u64) -> Answer<()> {
        self.station.outgoing.copy_from_slice(&number.to_be_bytes());
        let list = [self.station.outgoing.gather(8)?];
        // SAFETY: the bytes are not written before the send has ended, and outlive the queue pair.
        unsafe { self.connection.queue_pair_mut().post_one(SendRequest::send(SENT, &list).signaled()) }?;
        self.await_request(SENT)
    }

    fn receive(&mut self) -> Answer<u64> {
        self.await_request(RECEIVED)?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.station.incoming[..8]);
        self.station.post_receive(self.connection.queue_pair_mut())?;
        Ok(u64::from_be_bytes(bytes))
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
    let (mut station, mut pair) = station(incoming.context())?;
    let parameters = ConnectionParameters::new();
    incoming.initialize(&pair, &parameters)?;
    station.post_receive(&mut pair)?;
    let mut end = End::new(incoming.accept(pair, &parameters, PATIENCE)?, station);
    for _ in 0..count {
        let number = end.receive()?;
        end.send(number + 1)?;
    }
    match end.connection.wait_ended(Some(PATIENCE))? {
        Some(Ended::Disconnected) => println!("the client has gone"),
        other => println!("the client did not say good-bye: {other:?}"),
    }
    Ok(())
}

fn connect(library: &Library, address: SocketAddr, count: u64) -> Answer<()> {
    let resolved = Connector::new(library).resolve(address, PATIENCE)?;
    println!("{address} is reached through {:?}", resolved.context());
    let (mut station, mut pair) = station(resolved.context())?;
    let parameters = ConnectionParameters::new().private_data(&count.to_be_bytes());
    resolved.initialize(&pair, &parameters)?;
    station.post_receive(&mut pair)?;
    let mut end = End::new(resolved.connect(pair, &parameters, PATIENCE)?, station);
    let started = Instant::now();
    for number in 0..count {
        end.send(number)?;
        let answer = end.receive()?;
        if answer != number + 1 {
            return Err(format!("sent {number}, and {answer} came back").into());
        }
    }
    println!("{count} messages there and back in {:?}", started.elapsed());
    end.connection.disconnect()?;
    end.connection.wait_ended(Some(PATIENCE))?;
    Ok(())
}

fn run() -> Answer<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let library = Library::open()?;
    match words[..] {
        ["serve", address] => serve(&library, address.parse()?),
        [address] => connect(&library, address.parse()?, 100),
        [address, count] => connect(&library, address.parse()?, count.parse()?),
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
