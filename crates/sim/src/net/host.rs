//! A host: the process on it, its listeners, and what is ready for it.

use super::{End, EndId, Kind, Net, Packet, Place, State, Word};
use sinew_transport::{ErrorKind, Event, PollKey};
use std::collections::VecDeque;

/// A share of an engine in one kind of lane.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) owner: u32,
    pub(crate) listens: bool,
    /// Connections to be accepted.
    pub(crate) waiting: VecDeque<EndId>,
    /// The engine sleeps, or is about to.
    pub(crate) armed: bool,
    /// Owners of lanes that were cooled and have something.
    pub(crate) warm: Vec<u32>,
}

impl Share {
    pub(crate) const fn new(owner: u32, listens: bool) -> Self {
        Self { owner, listens, waiting: VecDeque::new(), armed: false, warm: Vec::new() }
    }
}

/// One host. A process that died is followed by another on the same host, with the next generation.
#[derive(Debug)]
pub(crate) struct Host {
    /// The machine runs: it answers packets.
    pub(crate) is_up: bool,
    /// The process runs.
    pub(crate) alive: bool,
    pub(crate) generation: u32,
    /// Which machine it is: near and mid lanes stay on one.
    pub(crate) machine: usize,
    pub(crate) shares: [Option<Share>; 3],
    pub(crate) ends: Vec<EndId>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            is_up: true,
            alive: false,
            generation: 0,
            machine: 0,
            shares: [const { None }; 3],
            ends: Vec::new(),
        }
    }
}

impl Net {
    /// The domain's part of a host.
    pub(crate) fn share(&mut self, host: usize, kind: Kind) -> Option<&mut Share> {
        self.hosts[host].shares[kind as usize].as_mut()
    }

    /// The process of a host is gone: its kernel, if it still runs, tells whoever it was connected with.
    pub(crate) fn kill(&mut self, host: usize, crash: bool) {
        self.hosts[host].alive = false;
        self.hosts[host].shares = [const { None }; 3];
        for id in std::mem::take(&mut self.hosts[host].ends) {
            if crash && self.places[id].kind == Kind::Far {
                self.ends[id] = None;
            } else {
                self.reset(id);
            }
        }
        if crash {
            self.hosts[host].is_up = false;
        }
    }

    /// What a level-triggered poller would tell this host now.
    pub(crate) fn ready(&self, host: usize, events: &mut Vec<Event>) {
        let state = &self.hosts[host];
        let mut tell = |owner: u32, sub: u32, writable: bool| {
            let key = PollKey { owner, sub };
            events.push(Event { key, readable: true, writable, closed: false });
        };
        for kind in Kind::ALL {
            let Some(share) = &state.shares[kind as usize] else { continue };
            if !share.waiting.is_empty() {
                tell(share.owner, 1, false);
            }
            if share.armed && (!share.warm.is_empty() || self.has_dirty(host, kind)) {
                tell(share.owner, 0, false);
            }
        }
        for end in state.ends.iter().filter_map(|&id| self.ends[id].as_ref()) {
            if end.is_ready() {
                tell(end.owner, 0, true);
            }
        }
    }

    /// Whether a lane that is polled in memory has something.
    pub(crate) fn has_dirty(&self, host: usize, kind: Kind) -> bool {
        let ends = self.hosts[host].ends.iter().filter_map(|&id| self.ends[id].as_ref());
        ends.into_iter().any(|end| end.kind == kind && end.is_polled() && end.dirty)
    }

    /// Starts a connection; `Err`: it is known at once that there will be none.
    pub(crate) fn dial(
        &mut self,
        kind: Kind,
        from: usize,
        to: (usize, u32),
        owner: u32,
    ) -> Result<EndId, ErrorKind> {
        let (to, generation) = to;
        if to >= self.hosts.len() {
            return Err(ErrorKind::InvalidAddress);
        }
        if kind != Kind::Far {
            if self.hosts[from].machine != self.hosts[to].machine {
                return Err(ErrorKind::NoRoute);
            }
            let listens = self.hosts[to].alive && self.hosts[to].generation == generation;
            if !listens || self.share(to, kind).is_none_or(|share| !share.listens) {
                return Err(ErrorKind::Refused);
            }
        }
        let (here, there) = (self.ends.len(), self.ends.len() + 1);
        let mut end = End::new(kind, from, there, owner);
        end.peer_host = to;
        end.port = generation;
        self.ends.push(Some(end));
        self.ends.push(None);
        self.places.push(Place { kind, host: from, used: true });
        self.places.push(Place { kind, host: to, used: false });
        self.hosts[from].ends.push(here);
        self.say(here, Word::Syn);
        self.start_timer(here);
        Ok(here)
    }

    /// Somebody wants to be connected with this host.
    pub(super) fn syn(&mut self, kind: Kind, packet: &Packet) {
        if self.ends[packet.to].is_some() {
            return self.say(packet.to, Word::SynAnswer);
        }
        let Some((port, to)) = self.end(packet.from).map(|end| (end.port, end.peer_host)) else { return };
        let from = self.places[packet.from].host;
        let fits = self.hosts[to].alive && (port == 0 || port == self.hosts[to].generation);
        let used = std::mem::replace(&mut self.places[packet.to].used, true);
        if !fits
            || used
            || self.share(to, kind).is_none_or(|share| !share.listens || share.waiting.len() > 32)
        {
            return self.answer(packet, kind, Word::Reset);
        }
        let mut end = End::new(kind, to, packet.from, u32::MAX);
        end.peer_host = from;
        end.state = State::Open;
        end.port = self.hosts[from].generation;
        end.edge = packet.edge;
        self.ends[packet.to] = Some(end);
        self.hosts[to].ends.push(packet.to);
        if let Some(share) = self.share(to, kind) {
            share.waiting.push_back(packet.to);
        }
        self.say(packet.to, Word::SynAnswer);
    }
}
