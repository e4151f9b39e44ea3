//! One exchange: all sockets at once in one loop, each with its own time limit, until every pair is finished or the time is over.
//!
//! Called by [`super::TcpExchange`]. Whatever one connection does ends that connection only.

use super::connection::{Connection, Ended, Event, Local};
use super::error::{ExchangeError, MissingRank};
use super::heard::{Heard, What};
use super::links::{Link, Turn};
use super::options::ExchangeOptions;
use super::resolve::Resolver;
use super::socket;
use super::wire::Reason;
use crate::network::config::NodeConfig;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Strangers that an error tells of.
const STRANGERS_TOLD: usize = 4;
/// Connections taken at one turn.
const ACCEPTS_MAX: usize = 64;
/// How long to take none after the system could give none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// How often answers of name servers are looked for.
const RESOLVE_LOOK: Duration = Duration::from_millis(5);

struct Peer {
    value: Option<Vec<u8>>,
    finished: bool,
    last: Note,
    /// How it is dialled; ranks above this one dial themselves.
    dial: Option<Dial>,
}

#[derive(Clone)]
struct Note {
    what: What,
    address: Option<SocketAddr>,
    at: Instant,
}

struct Dial {
    addresses: VecDeque<SocketAddr>,
    pause: Duration,
    /// When to try next; none while a try or a look-up is under way.
    due: Option<Instant>,
}

pub(super) struct Round<'a> {
    local: Local,
    nodes: &'a [NodeConfig],
    options: &'a ExchangeOptions,
    listener: Option<&'a TcpListener>,
    peers: Vec<Peer>,
    /// In the order in which they began: of those that came at once the first is the oldest too.
    links: Vec<Link>,
    strangers: VecDeque<Note>,
    resolver: Resolver,
    accept_from: Instant,
    start: Instant,
}

/// What a round came to: values by rank and the processes that gave them.
pub(super) type Outcome = (Vec<Vec<u8>>, Vec<Option<u64>>);

impl<'a> Round<'a> {
    pub(super) fn new(
        local: Local,
        nodes: &'a [NodeConfig],
        options: &'a ExchangeOptions,
        listener: Option<&'a TcpListener>,
    ) -> Self {
        let start = Instant::now();
        let peer = |rank: u32| Peer {
            value: None,
            finished: rank == local.rank,
            last: Note { what: What::Nothing, address: None, at: start },
            dial: (rank < local.rank).then(|| Dial {
                addresses: VecDeque::new(),
                pause: options.retry_min,
                due: Some(start),
            }),
        };
        let peers = (0..local.world_size).map(peer).collect();
        Self {
            local,
            nodes,
            options,
            listener,
            peers,
            links: Vec::new(),
            strangers: VecDeque::new(),
            resolver: Resolver::new(),
            accept_from: start,
            start,
        }
    }

    /// Goes on until all is done or the time is over.
    pub(super) fn run(mut self) -> Result<Outcome, ExchangeError> {
        let deadline = self.start.checked_add(self.options.timeout);
        let mut events = Vec::new();
        loop {
            let now = Instant::now();
            let is_late = deadline.is_some_and(|deadline| now >= deadline);
            if self.peers.iter().all(|peer| peer.finished) {
                if is_late || !self.links.iter().any(Link::is_leaving) {
                    return Ok(self.outcome());
                }
            } else if is_late {
                return Err(self.missing(now));
            }
            self.take_addresses(now);
            self.expire(now);
            self.dial_due(now)?;
            let ready = self.wait(now, deadline)?;
            self.turn(&ready, &mut events);
            self.accept()?;
        }
    }

    fn outcome(mut self) -> Outcome {
        let me = self.local.rank as usize;
        let own = std::mem::take(&mut self.local.values[me]);
        let mut values: Vec<Vec<u8>> =
            self.peers.into_iter().map(|peer| peer.value.unwrap_or_default()).collect();
        values[me] = own;
        (values, self.local.incarnations)
    }

    fn missing(&self, now: Instant) -> ExchangeError {
        let heard = |note: &Note| Heard {
            what: note.what.clone(),
            address: note.address,
            ago: now.saturating_duration_since(note.at),
        };
        let missing = self.peers.iter().zip(self.nodes).filter(|(peer, _)| !peer.finished);
        let missing = missing.map(|(peer, node)| {
            let last = match self.links.iter().find(|link| link.rank.or(link.dialled) == Some(node.rank)) {
                // The time was over in the middle of a try.
                Some(link) if peer.last.what == What::Nothing => {
                    Note { what: What::Silent(link.connection.phase()), address: Some(link.address), at: now }
                }
                _ => peer.last.clone(),
            };
            MissingRank { rank: node.rank, host: node.host.clone(), port: node.port, last: heard(&last) }
        });
        ExchangeError::Missing {
            after: now.saturating_duration_since(self.start),
            ranks: missing.collect(),
            strangers: self.strangers.iter().map(heard).collect(),
        }
    }

    fn take_addresses(&mut self, now: Instant) {
        while let Some((rank, found)) = self.resolver.poll_found() {
            let cause = match found {
                Ok(addresses) if !addresses.is_empty() => {
                    if let Some(dial) = &mut self.peers[rank as usize].dial {
                        dial.addresses = addresses.into();
                        dial.due = Some(now);
                    }
                    continue;
                }
                Ok(_) => "none was found".to_owned(),
                Err(cause) => cause,
            };
            self.note(Some(rank), None, What::Unresolved { cause }, now);
            self.dial_again(rank, now);
        }
    }

    fn expire(&mut self, now: Instant) {
        for at in (0..self.links.len()).rev() {
            let link = &self.links[at];
            let what = if link.displaced {
                What::Displaced
            } else if now >= link.until {
                What::Silent(link.connection.phase())
            } else {
                continue;
            };
            let link = self.links.remove(at);
            self.handle_end(&link, what.into(), now);
        }
    }

    fn dial_due(&mut self, now: Instant) -> Result<(), ExchangeError> {
        let mut room = self.options.dials_max.saturating_sub(self.dials());
        for rank in 0..self.local.rank {
            if room == 0 {
                break;
            }
            let peer = &mut self.peers[rank as usize];
            let Some(dial) = peer.dial.as_mut().filter(|dial| dial.due.is_some_and(|due| due <= now)) else {
                continue;
            };
            dial.due = None;
            if peer.finished {
                continue;
            }
            let Some(address) = dial.addresses.pop_front() else {
                let node = &self.nodes[rank as usize];
                self.resolver.ask(rank, node.bare_host(), node.port);
                continue;
            };
            match socket::dial(address) {
                Ok(socket) => {
                    let nonce = nonce()?;
                    let connection = Connection::dialer(&self.local, rank, nonce);
                    let until = after(now, self.options.connection_timeout);
                    self.links.push(Link::dialling(socket, connection, address, rank, until));
                    room -= 1;
                }
                Err(error) => {
                    self.note(Some(rank), Some(address), What::Unreachable { cause: error.to_string() }, now);
                    self.dial_again(rank, now);
                }
            }
        }
        Ok(())
    }

    fn dials(&self) -> usize {
        self.links.iter().filter(|link| link.dialled.is_some()).count()
    }

    /// The next address of a rank is tried at once; when all have failed, after a pause that grows.
    fn dial_again(&mut self, rank: u32, now: Instant) {
        let most = self.options.retry_max;
        let peer = &mut self.peers[rank as usize];
        if let Some(dial) = peer.dial.as_mut().filter(|_| !peer.finished) {
            if dial.addresses.is_empty() {
                dial.due = Some(after(now, dial.pause));
                dial.pause = dial.pause.saturating_mul(2).min(most);
            } else {
                dial.due = Some(now);
            }
        }
    }

    /// Sleeps until a socket is ready or something is due; says which links are ready.
    fn wait(&self, now: Instant, deadline: Option<Instant>) -> Result<Vec<usize>, ExchangeError> {
        let room = self.dials() < self.options.dials_max;
        let dials = self.peers.iter().filter_map(|peer| peer.dial.as_ref()?.due).filter(|_| room);
        let untils = self.links.iter().map(|link| link.until);
        let accepts = (self.accept_from > now).then_some(self.accept_from);
        let answers = self.resolver.is_busy().then(|| now + RESOLVE_LOOK);
        let next = dials.chain(untils).chain(accepts).chain(answers).chain(deadline).min();
        let sleep = next.map(|next| next.saturating_duration_since(now));
        let sleep = sleep.and_then(|sleep| Timespec::try_from(sleep).ok());

        let mut polled: Vec<PollFd<'_>> =
            self.links.iter().map(|link| PollFd::new(&link.socket, link.interest())).collect();
        if let Some(listener) = self.listener.filter(|_| accepts.is_none()) {
            polled.push(PollFd::new(listener, PollFlags::IN));
        }
        match rustix::event::poll(&mut polled, sleep.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("poll", error)),
        }
        let ready = polled.iter().take(self.links.len()).enumerate();
        Ok(ready.filter(|(_, fd)| !fd.revents().is_empty()).map(|(at, _)| at).collect())
    }

    fn turn(&mut self, ready: &[usize], events: &mut Vec<Event>) {
        // From behind, so that a link that is taken out moves none that is still to come.
        for &at in ready.iter().rev() {
            let turn = self.links[at].handle_ready(&self.local, events);
            let now = Instant::now();
            self.displace_older(at, events);
            let link = match turn {
                Turn::GoesOn => None,
                Turn::Over | Turn::Ended(_) => Some(self.links.remove(at)),
            };
            for event in events.drain(..) {
                self.handle_event(event);
            }
            if let (Some(link), Turn::Ended(ended)) = (link, turn) {
                self.handle_end(&link, ended, now);
            }
        }
    }

    /// A rank has one connection to this side: it dials again only when it has given up the one before.
    fn displace_older(&mut self, at: usize, events: &[Event]) {
        if self.links[at].dialled.is_some() || !events.iter().any(|event| matches!(event, Event::Proven(_))) {
            return;
        }
        let rank = self.links[at].rank;
        for (_, other) in self.links.iter_mut().enumerate().filter(|(place, _)| *place != at) {
            other.displaced |= other.dialled.is_none() && other.rank == rank;
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Nothing | Event::Proven(_) => {}
            Event::Value(rank, value) => self.peers[rank as usize].value = Some(value),
            Event::Finished(rank, incarnation) => {
                self.local.incarnations[rank as usize] = Some(incarnation);
                self.peers[rank as usize].finished = true;
            }
        }
    }

    fn handle_end(&mut self, link: &Link, ended: Ended, now: Instant) {
        // Who dialled knows whom; of others only what was proven counts, and a rank that is none is a stranger.
        let rank = link.dialled.or(link.rank).or(ended.rank).filter(|&rank| rank < self.local.world_size);
        self.note(rank, Some(link.address), ended.what, now);
        if let Some(peer) = link.dialled {
            let place = &mut self.peers[peer as usize];
            // It could not be in a later round without having finished this one with us: only its last word was lost.
            if ended.round.is_some_and(|theirs| theirs > self.local.round) && ended.rank == Some(peer) {
                place.finished = place.finished || place.value.is_some();
            }
            self.dial_again(peer, now);
        }
    }

    fn note(&mut self, rank: Option<u32>, address: Option<SocketAddr>, what: What, now: Instant) {
        let is_foreign = matches!(
            what,
            What::Refuses { reason: Reason::OtherJob | Reason::Proof | Reason::RankTaken, .. }
                | What::Refused { reason: Reason::OtherJob | Reason::Proof | Reason::RankTaken, .. }
                | What::OtherMode { .. }
        );
        let shown = address.map(tracing::field::display);
        if is_foreign {
            tracing::warn!(me = self.local.rank, rank, address = shown, "exchange: {what}");
        } else {
            tracing::debug!(me = self.local.rank, rank, address = shown, "exchange: {what}");
        }
        let note = Note { what, address, at: now };
        match rank {
            Some(rank) => self.peers[rank as usize].last = note,
            None => {
                if self.strangers.len() == STRANGERS_TOLD {
                    self.strangers.pop_front();
                }
                self.strangers.push_back(note);
            }
        }
    }

    fn accept(&mut self) -> Result<(), ExchangeError> {
        let Some(listener) = self.listener else { return Ok(()) };
        let now = Instant::now();
        if now < self.accept_from {
            return Ok(());
        }
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                Ok((socket, address)) => {
                    if socket.set_nonblocking(true).is_err() {
                        continue;
                    }
                    let _ = socket.set_nodelay(true);
                    if self.links.iter().filter(|link| link.is_stranger()).count()
                        >= self.options.strangers_max
                    {
                        self.displace(now);
                    }
                    let connection = Connection::acceptor(&self.local, nonce()?);
                    let until = after(now, self.options.connection_timeout);
                    self.links.push(Link::accepted(socket, connection, address, until));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    // Descriptors or memory are short, perhaps because of strangers.
                    tracing::warn!(me = self.local.rank, "exchange: accept: {error}");
                    self.displace(now);
                    self.accept_from = now + ACCEPT_PAUSE;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes room: the oldest connection that has not said who it is goes.
    fn displace(&mut self, now: Instant) {
        let strangers = self.links.iter().enumerate().filter(|(_, link)| link.is_stranger());
        if let Some((at, _)) = strangers.min_by_key(|(_, link)| link.until) {
            let link = self.links.remove(at);
            self.handle_end(&link, What::Displaced.into(), now);
        }
    }
}

/// A time so much later, or so late that nobody waits for it where clocks cannot say it.
fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now + NEVER)
}

fn nonce() -> Result<[u8; 16], ExchangeError> {
    socket::random().map_err(|error| system("getrandom", error))
}

pub(super) const fn system(call: &'static str, error: Errno) -> ExchangeError {
    ExchangeError::System { call, errno: error.raw_os_error() }
}
