//! A connection that carries records of the handshake.

use super::datapath::SimLane;
use super::{Style, expectation};
use crate::net::{EndId, Kind, Piece, Shared, State, lock};
use sinew_transport::{
    ErrorKind, Identity, Lane, LaneInfo, LaneParams, Link, LinkState, Record, TransportError,
};

pub(super) struct SimLink {
    net: Shared,
    kind: Kind,
    style: Style,
    end: EndId,
    handed_on: bool,
}

impl SimLink {
    pub(super) const fn new(net: Shared, kind: Kind, style: Style, end: EndId) -> Self {
        Self { net, kind, style, end, handed_on: false }
    }

    fn error(&self, kind: ErrorKind, operation: &'static str) -> TransportError {
        TransportError::new(kind, operation, self.describe())
    }
}

impl Link for SimLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        let mut net = lock(&self.net);
        let Some(end) = net.end(self.end) else {
            drop(net);
            return Err(self.error(ErrorKind::Broken, "connect"));
        };
        end.news = false;
        let (state, waiting) = (end.state, !end.arrived.is_empty());
        drop(net);
        match state {
            State::Connecting => Ok(LinkState::Connecting),
            State::Open => Ok(LinkState::Ready),
            State::Over(_) if waiting => Ok(LinkState::Ready),
            State::Over(kind) => Err(self.error(kind, "connect")),
        }
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        let mut net = lock(&self.net);
        match net.end(self.end).map(|end| end.state) {
            Some(State::Open) => net.put(self.end, Piece::Record(Box::new(*record))),
            Some(State::Connecting) => return Ok(false),
            _ => {
                drop(net);
                return Err(self.error(ErrorKind::Broken, "send"));
            }
        }
        Ok(true)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        let mut net = lock(&self.net);
        let Some(end) = net.end(self.end) else {
            drop(net);
            return Err(self.error(ErrorKind::Broken, "receive"));
        };
        let over = matches!(end.state, State::Over(_));
        match end.arrived.front().map(|piece| &**piece) {
            Some(Piece::Record(found)) => *record = **found,
            // What follows is the lane's.
            Some(Piece::Fin) => {
                drop(net);
                return Err(self.error(ErrorKind::Broken, "receive"));
            }
            Some(_) => return Ok(false),
            None if over => {
                drop(net);
                return Err(self.error(ErrorKind::Broken, "receive"));
            }
            None => return Ok(false),
        }
        net.take(self.end);
        Ok(true)
    }

    fn identity(&self) -> Identity {
        if self.style.vouches { Identity::SameUser { pid: None } } else { Identity::Remote(self.describe()) }
    }

    fn describe(&self) -> String {
        format!("{} end {}", self.kind.name(), self.end)
    }

    fn into_lane(mut self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let mut net = lock(&self.net);
        let Some(end) = net.end(self.end) else {
            drop(net);
            return Err(self.error(ErrorKind::Broken, "connect"));
        };
        end.is_lane = true;
        end.dirty = true;
        end.owner = params.key.owner;
        net.keep_alive_from_now(self.end, crate::surroundings::length(params.peer_timeout));
        drop(net);
        self.handed_on = true;
        let (capabilities, cost, limits) = expectation(self.kind);
        let info =
            LaneInfo { transport: self.kind.name(), peer: self.describe(), capabilities, cost, limits };
        Ok(Box::new(SimLane::new(
            self.net.clone(),
            self.end,
            self.kind,
            self.style,
            info,
            params.peer_timeout,
        )))
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        if !self.handed_on {
            let mut net = lock(&self.net);
            // A record that was sent last, as a refusal, still arrives.
            net.put(self.end, Piece::Fin);
            net.leave(self.end);
        }
    }
}
