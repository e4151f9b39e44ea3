//! One socket of an exchange and the connection on it.
//!
//! Called by the round. It never waits.

use super::connection::{Connection, Ended, Event, Local};
use super::heard::{Phase, What};
use super::socket::{self, Moved};
use rustix::event::PollFlags;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// Bytes that are read at one turn at most, so that one fast peer does not hold up the others.
const TURN_MAX: usize = 256 << 10;
const CHUNK: usize = 16 << 10;

pub(super) struct Link {
    pub(super) socket: TcpStream,
    pub(super) connection: Connection,
    pub(super) address: SocketAddr,
    /// Whom this side dialled.
    pub(super) dialled: Option<u32>,
    /// Who is there, once that is proven.
    pub(super) rank: Option<u32>,
    /// When it is given up.
    pub(super) until: Instant,
    /// A newer one of the same rank is there.
    pub(super) displaced: bool,
    connecting: bool,
    /// It has ended but for what is still to be written.
    ended: Option<Ended>,
}

/// How a link goes on after a turn.
pub(super) enum Turn {
    GoesOn,
    /// Both sides have all.
    Over,
    Ended(Ended),
}

impl Link {
    pub(super) fn dialling(
        socket: TcpStream,
        connection: Connection,
        address: SocketAddr,
        peer: u32,
        until: Instant,
    ) -> Self {
        let link = Self::accepted(socket, connection, address, until);
        Self { dialled: Some(peer), connecting: true, ..link }
    }

    pub(super) const fn accepted(
        socket: TcpStream,
        connection: Connection,
        address: SocketAddr,
        until: Instant,
    ) -> Self {
        let (dialled, rank, ended) = (None, None, None);
        Self { socket, connection, address, dialled, rank, until, displaced: false, connecting: false, ended }
    }

    /// Accepted, and not known to be of the job.
    pub(super) const fn is_stranger(&self) -> bool {
        self.dialled.is_none() && !self.connection.is_proven()
    }

    /// Only its last word is still to be written.
    pub(super) fn is_leaving(&self) -> bool {
        self.connection.phase() == Phase::Over
    }

    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.connecting || !self.connection.poll_output().is_empty() {
            flags |= PollFlags::OUT;
        }
        if !self.connecting && self.ended.is_none() && self.connection.wanted() > 0 {
            flags |= PollFlags::IN;
        }
        flags
    }

    /// Does what can be done now; what became known goes to `events`.
    pub(super) fn handle_ready(&mut self, local: &Local, events: &mut Vec<Event>) -> Turn {
        if self.connecting {
            if let Err(error) = socket::dialled(&self.socket) {
                return Turn::Ended(What::Unreachable { cause: error.to_string() }.into());
            }
            self.connecting = false;
        }
        if self.ended.is_none()
            && let Err(ended) = self.read(local, events)
        {
            self.ended = Some(ended);
        }
        let written = self.write();
        if !self.connection.poll_output().is_empty() && written.is_ok() {
            return Turn::GoesOn;
        }
        if let Some(ended) = self.ended.take() {
            return Turn::Ended(ended);
        }
        match written {
            _ if self.is_leaving() => Turn::Over,
            Ok(()) => Turn::GoesOn,
            Err(ended) => Turn::Ended(ended),
        }
    }

    fn closed(&self, cause: Option<String>) -> Ended {
        Ended { rank: self.rank, ..What::Closed(self.connection.phase(), cause).into() }
    }

    fn read(&mut self, local: &Local, events: &mut Vec<Event>) -> Result<(), Ended> {
        let mut chunk = [0; CHUNK];
        let mut taken = 0;
        while taken < TURN_MAX {
            let wanted = self.connection.wanted().min(CHUNK);
            if wanted == 0 && !self.connection.is_empty_value() {
                break;
            }
            let mut count = 0;
            if wanted > 0 {
                match socket::moved((&self.socket).read(&mut chunk[..wanted])) {
                    Moved::Bytes(read) => count = read,
                    Moved::NotNow => break,
                    Moved::End => return Err(self.closed(None)),
                    Moved::Failed(cause) => return Err(self.closed(Some(cause))),
                }
            }
            taken += count;
            match self.connection.handle_input(&chunk[..count], local)? {
                Event::Nothing => {}
                event => {
                    if let Event::Proven(rank) = event {
                        self.rank = Some(rank);
                    }
                    events.push(event);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Ended> {
        while !self.connection.poll_output().is_empty() {
            match socket::moved((&self.socket).write(self.connection.poll_output())) {
                Moved::Bytes(count) => self.connection.handle_written(count),
                Moved::NotNow => break,
                Moved::End => return Err(self.closed(None)),
                Moved::Failed(cause) => return Err(self.closed(Some(cause))),
            }
        }
        Ok(())
    }
}
