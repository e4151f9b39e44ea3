//! One thread, one descriptor, many connections of rdma cm: both sides of each, by identifiers whose types say what has happened to them.
//!
//! ```text
//! cm_event_loop 10.0.0.1 [connections]     # an address of a device of this machine; 20 connections by default
//! ```
//!
//! Each connection carries its number there as private data, one message, and an answer by its end. What it shows: a table of identifiers by their
//! numbers, one `match` over their states, and deadlines that are the loop's own.
use sinew_verbs::cm::{
    Address, Connecting, ConnectionParameters, Disconnecting, Established, Event, EventChannel, Id, IdNumber,
    Notice, PortSpace, Progress, Requested, ResolvingAddress, ResolvingRoute, RouteResolved, Waits,
};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::qp::{QueuePair, Rc};
use sinew_verbs::{Library, ProtectionDomain};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the active side says when it asks.
const WHO: &[u8] = b"cm_event_loop";

/// The states that this program waits in.
enum Waiting {
    Address(Id<ResolvingAddress>),
    Route(Id<ResolvingRoute>),
    /// Of the active side.
    Answer(Id<Connecting<Member>>),
    /// Of the passive side.
    Confirmation(Id<Connecting<Member>>),
    /// For the message, or for the end.
    Up(Id<Established<Member>>),
    Ending(Id<Disconnecting<Member>>),
}

struct Program {
    channel: EventChannel,
    /// Identifiers, and when each has waited for too long.
    entries: HashMap<IdNumber, (Waiting, Instant)>,
    /// Queue pairs and what they carry: made when the device is known.
    hub: Option<(Hub<Rc>, ProtectionDomain)>,
    /// Whose a queue pair is.
    owners: HashMap<Member, IdNumber>,
    /// Who has its message already: it can come before the event that the connection is whole.
    heard: HashSet<Member>,
    messages: usize,
    ended: usize,
}

impl Program {
    fn wait(&mut self, number: IdNumber, waiting: Waiting) {
        self.entries.insert(number, (waiting, Instant::now() + PATIENCE));
    }

    fn hub(&mut self) -> Answer<(&mut Hub<Rc>, &ProtectionDomain)> {
        self.hub.as_mut().map(|(hub, pd)| (hub, &*pd)).ok_or_else(|| "no device is known yet".into())
    }

    /// A queue pair that can receive, not connected yet. `init` brings it to INIT.
    fn queue_pair(
        &mut self,
        context: &Context,
        owner: IdNumber,
        init: impl FnOnce(&QueuePair<Rc>) -> sinew_verbs::Result<()>,
    ) -> Answer<Member> {
        if self.hub.is_none() {
            self.hub = Some((Hub::new(context, 1024)?, context.protection_domain()?));
        }
        let (hub, pd) = self.hub()?;
        let pair = hub.queue_pair(pd).send_depth(1).receive_depth(1).build_raw()?;
        let member = hub.adopt(pair)?;
        init(hub.queue_pair_of(member)?)?;
        hub.post_receive(member, pd.allocate(8)?, 0)?;
        self.owners.insert(member, owner);
        Ok(member)
    }

    /// The active side begins.
    fn connect(&mut self, to: &Address) -> Answer<()> {
        let id = self.channel.id(PortSpace::TCP)?.resolve_address(None, to, PATIENCE)?;
        self.wait(id.number(), Waiting::Address(id));
        Ok(())
    }

    /// Its path is known: it asks.
    fn ask(&mut self, id: Id<RouteResolved>) -> Answer<Waiting> {
        let parameters = ConnectionParameters::new().private_data(WHO);
        let member = self.queue_pair(id.context(), id.number(), |pair| id.initialize(pair, &parameters))?;
        Ok(Waiting::Answer(id.connect_member(self.hub()?.0, member, &parameters)?))
    }

    /// The passive side: somebody asks.
    fn request(&mut self, id: Id<Requested>) -> Answer<()> {
        if !id.private_data().starts_with(WHO) {
            return Ok(id.reject(b"who are you?")?);
        }
        let parameters = ConnectionParameters::new();
        let member = self.queue_pair(id.context(), id.number(), |pair| id.initialize(pair, &parameters))?;
        let id = id.accept_member(self.hub()?.0, member, &parameters)?;
        self.wait(id.number(), Waiting::Confirmation(id));
        Ok(())
    }

    /// Something has happened to an identifier: its next state, or its end.
    fn notice(&mut self, notice: Notice) -> Answer<()> {
        let Some(number) = notice.id() else { return Ok(()) };
        let Some((waiting, until)) = self.entries.remove(&number) else { return Ok(()) };
        let next = match waiting {
            Waiting::Address(id) => match id.handle(notice)? {
                Progress::Next(id) => Waiting::Route(id.resolve_route(PATIENCE)?),
                Progress::Same(id, _) => return self.as_before(Waiting::Address(id), number, until),
            },
            Waiting::Route(id) => match id.handle(notice)? {
                Progress::Next(id) => self.ask(id)?,
                Progress::Same(id, _) => return self.as_before(Waiting::Route(id), number, until),
            },
            Waiting::Answer(id) => match id.handle(notice)? {
                Progress::Next(id) => {
                    let (hub, pd) = self.hub()?;
                    let id = id.establish(hub)?;
                    hub.post(*id.queue_pair(), Operation::send(pd.adopt(vec![1; 8])?))?;
                    Waiting::Up(id)
                }
                Progress::Same(id, _) => return self.as_before(Waiting::Answer(id), number, until),
            },
            Waiting::Confirmation(id) => match id.handle(notice)? {
                Progress::Next(id) => {
                    let id = id.establish(self.hub()?.0)?;
                    if self.heard.remove(id.queue_pair()) {
                        Waiting::Ending(id.disconnect()?)
                    } else {
                        Waiting::Up(id)
                    }
                }
                Progress::Same(id, _) => return self.as_before(Waiting::Confirmation(id), number, until),
            },
            Waiting::Up(id) => match id.handle(notice)? {
                Progress::Next(id) => return self.over(id.into_queue_pair()),
                Progress::Same(id, _) => return self.as_before(Waiting::Up(id), number, until),
            },
            Waiting::Ending(id) => match id.handle(notice)? {
                Progress::Next(id) => return self.over(id.into_queue_pair()),
                Progress::Same(id, _) => return self.as_before(Waiting::Ending(id), number, until),
            },
        };
        self.wait(number, next);
        Ok(())
    }

    /// An event that changes nothing prolongs nothing.
    fn as_before(&mut self, waiting: Waiting, number: IdNumber, until: Instant) -> Answer<()> {
        self.entries.insert(number, (waiting, until));
        Ok(())
    }

    /// One side of a connection has seen its end.
    fn over(&mut self, member: Member) -> Answer<()> {
        self.owners.remove(&member);
        self.hub()?.0.remove(member)?;
        self.ended += 1;
        Ok(())
    }

    /// Takes messages that have come; who has one ends its connection.
    fn messages(&mut self) -> Answer<()> {
        let Some((hub, _)) = &mut self.hub else { return Ok(()) };
        let mut come = Vec::new();
        while let Some(ended) = hub.poll()? {
            // The receive of one whose connection is over is flushed.
            if ended.side() == Side::Receive && ended.result().is_ok() {
                come.push(ended.member());
            }
        }
        for member in come {
            self.messages += 1;
            let number = *self.owners.get(&member).ok_or("a message for nobody")?;
            match self.entries.remove(&number) {
                Some((Waiting::Up(id), _)) => self.wait(number, Waiting::Ending(id.disconnect()?)),
                Some((waiting, until)) => {
                    self.heard.insert(member);
                    self.as_before(waiting, number, until)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Sleeps until something happens, or somebody has waited for too long.
    fn step(&mut self) -> Answer<()> {
        // Messages are polled for, so it does not sleep for long; a hub with a channel of its own would be waited for with this one.
        match self.channel.wait(Some(Duration::from_millis(1)))? {
            Some(Event::Request(id)) => self.request(id)?,
            Some(Event::Notice(notice)) => self.notice(notice)?,
            _ => {}
        }
        self.messages()?;
        match self.entries.iter().find(|(_, (_, until))| *until < Instant::now()) {
            Some((number, _)) => Err(format!("nothing happens to identifier {number:?}").into()),
            None => Ok(()),
        }
    }
}

fn run() -> Answer<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = "cm_event_loop ADDRESS [CONNECTIONS]";
    let address: IpAddr = words.first().ok_or(usage)?.parse()?;
    let count: usize = words.get(1).map_or(Ok(20), |word| word.parse())?;
    let channel = Library::open()?.event_channel()?;
    let listener = channel.id::<Rc>(PortSpace::TCP)?.bind(SocketAddr::new(address, 0))?.listen(1024)?;
    let at = listener.local_address()?.ok_or("the listener has no address")?;
    println!("listening at {at}");
    let mut program = Program {
        channel,
        entries: HashMap::new(),
        hub: None,
        owners: HashMap::new(),
        heard: HashSet::new(),
        messages: 0,
        ended: 0,
    };
    for _ in 0..count {
        program.connect(&at)?;
    }
    while program.ended < 2 * count {
        program.step()?;
    }
    println!("{count} connections, {} messages, {} ends", program.messages, program.ended);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cm_event_loop: {error}");
            ExitCode::FAILURE
        }
    }
}
