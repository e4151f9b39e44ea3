//! The transport `loopback`: both ends in one process, over queues behind a mutex.
//!
//! Used by tests and for an engine that sends to itself. It has no network, no descriptor per lane and no threads of its
//! own; it keeps every promise of the traits, and delivers large `DATA` bodies in pieces, as a stream would.
//!
//! # Memory safety
//! Borrowed posts stay where they are until the receiver copies them, under the lock of their direction; `reclaim`, `close`,
//! `recover` and drop take that lock, so that none is read afterwards. Placements are written by the polling thread only.

mod bell;
mod flow;
mod lane;

use crate::bell::Bell;
use crate::{
    Availability, Capabilities, Cost, Domain, DomainContext, ErrorKind, Event, Identity, Lane, LaneParams,
    Link, LinkState, ListenScope, Locator, PollKey, Poller, Record, Transport, TransportError,
};
use bell::{Doorbell, locked};
use flow::{Connection, Side};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The scheme of loopback locators: `loopback:NAME`.
pub const SCHEME: &str = "loopback";

/// Links that may wait for [`Domain::accept`]; further dials are refused.
const BACKLOG: usize = 1024;

/// The transport. Stateless; all values are the same transport.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

/// Listeners of this process by name.
static LISTENERS: Mutex<Option<HashMap<String, Weak<Listener>>>> = Mutex::new(None);

struct Listener {
    name: String,
    waiting: Mutex<VecDeque<Arc<Connection>>>,
    bell: Bell,
}

impl Transport for Loopback {
    fn name(&self) -> &'static str {
        SCHEME
    }

    fn probe(&self) -> Availability {
        Availability::Usable("inside this process".to_owned())
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        (lane::CAPABILITIES, lane::COST)
    }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let bell = Bell::new(context.poller.clone(), PollKey { owner: context.owner, sub: 0 })?;
        let listener = match context.listen {
            ListenScope::Nobody => None,
            ListenScope::ThisUser | ListenScope::Anywhere => Some(Listener::register(&context)?),
        };
        Ok(Box::new(LoopbackDomain {
            listener,
            doorbell: Arc::new(Doorbell::new(bell)),
            poller: context.poller,
        }))
    }
}

impl Listener {
    fn register(context: &DomainContext) -> Result<Arc<Self>, TransportError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut name = String::new();
        for byte in context.engine {
            let _ = write!(name, "{byte:02x}");
        }
        // An engine may open the transport more than once.
        let _ = write!(name, ".{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let bell = Bell::new(context.poller.clone(), PollKey { owner: context.owner, sub: 1 })?;
        let listener = Arc::new(Self { name: name.clone(), waiting: Mutex::default(), bell });
        locked(&LISTENERS).get_or_insert_default().insert(name, Arc::downgrade(&listener));
        Ok(listener)
    }

    fn find(name: &str) -> Option<Arc<Self>> {
        locked(&LISTENERS).as_ref()?.get(name)?.upgrade()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(listeners) = locked(&LISTENERS).as_mut() {
            listeners.remove(&self.name);
        }
        for connection in locked(&self.waiting).drain(..) {
            connection.leave(Side::Acceptor, false);
        }
    }
}

struct LoopbackDomain {
    listener: Option<Arc<Listener>>,
    doorbell: Arc<Doorbell>,
    poller: Arc<Poller>,
}

impl LoopbackDomain {
    fn link(
        &self,
        connection: Arc<Connection>,
        side: Side,
        owner: u32,
    ) -> Result<LoopbackLink, TransportError> {
        let bell = match Bell::new(self.poller.clone(), PollKey { owner, sub: 0 }) {
            Ok(bell) => Arc::new(bell),
            Err(error) => {
                connection.leave(side, false);
                return Err(error);
            }
        };
        connection.notice(side).for_link(bell.clone());
        // The peer may have written before there was a bell.
        bell.ring();
        Ok(LoopbackLink { connection, side, bell, doorbell: self.doorbell.clone(), handed_on: false })
    }
}

impl Domain for LoopbackDomain {
    fn locators(&self) -> Vec<Locator> {
        self.listener
            .iter()
            .filter_map(|listener| Locator::new(SCHEME, listener.name.as_str()).ok())
            .collect()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == SCHEME
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let error = |kind| TransportError::new(kind, "dial", to.to_string());
        if to.scheme() != SCHEME {
            return Err(error(ErrorKind::InvalidAddress));
        }
        let listener = Listener::find(to.body()).ok_or_else(|| {
            error(ErrorKind::Refused).hint("a loopback address is good inside the process that printed it")
        })?;
        let connection = Arc::new(Connection::new(&listener.name));
        let link = self.link(connection.clone(), Side::Dialer, owner)?;
        {
            let mut waiting = locked(&listener.waiting);
            if waiting.len() >= BACKLOG {
                return Err(error(ErrorKind::Limit).hint("its engine accepts no connections; too many wait"));
            }
            waiting.push_back(connection);
        }
        listener.bell.ring();
        Ok(Box::new(link))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(listener) = &self.listener else {
            return Ok(None);
        };
        let mut next = locked(&listener.waiting).pop_front();
        if next.is_none() {
            listener.bell.hush();
            next = locked(&listener.waiting).pop_front();
        }
        match next {
            None => Ok(None),
            Some(connection) => {
                // Told again for those that are left.
                listener.bell.ring();
                Ok(Some(Box::new(self.link(connection, Side::Acceptor, owner)?)))
            }
        }
    }

    fn poll_warm(&mut self, owners: &mut Vec<u32>) {
        self.doorbell.take_warm(owners);
    }

    fn arm(&mut self) -> bool {
        self.doorbell.arm()
    }

    fn disarm(&mut self) {
        self.doorbell.disarm();
    }

    fn handle_event(&mut self, event: Event) {
        if event.key.sub == 0 {
            self.doorbell.heard();
        }
    }
}

struct LoopbackLink {
    connection: Arc<Connection>,
    side: Side,
    bell: Arc<Bell>,
    doorbell: Arc<Doorbell>,
    handed_on: bool,
}

impl Link for LoopbackLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        if self.connection.ended_for_link(self.side) {
            Err(self.broken("poll"))
        } else {
            Ok(LinkState::Ready)
        }
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        let sent = self.connection.send_record(self.side, record).ok_or_else(|| self.broken("send"))?;
        if sent {
            self.connection.notice(self.side.other()).tell();
        }
        Ok(sent)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        let mut found = self.connection.take_record(self.side);
        if found.is_none() {
            self.bell.hush();
            found = self.connection.take_record(self.side);
        }
        match found {
            Some(found) => {
                *record = *found;
                // The peer may wait for room.
                self.connection.notice(self.side.other()).tell();
                Ok(true)
            }
            None if self.connection.ended_for_link(self.side) => Err(self.broken("receive")),
            None => Ok(false),
        }
    }

    fn identity(&self) -> Identity {
        Identity::SameUser { pid: u32::try_from(rustix::process::getpid().as_raw_pid()).ok() }
    }

    fn describe(&self) -> String {
        format!("this process, {}", self.connection.name())
    }

    fn into_lane(mut self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        self.poll()?;
        self.handed_on = true;
        let peer = self.describe();
        self.connection.notice(self.side).for_lane(self.doorbell.clone(), params.key.owner);
        Ok(Box::new(lane::LoopbackLane::new(self.connection.clone(), self.side, peer)))
    }
}

impl LoopbackLink {
    fn broken(&self, operation: &'static str) -> TransportError {
        TransportError::new(ErrorKind::Broken, operation, self.describe())
    }
}

impl Drop for LoopbackLink {
    fn drop(&mut self) {
        if !self.handed_on {
            self.connection.leave(self.side, false);
        }
    }
}
