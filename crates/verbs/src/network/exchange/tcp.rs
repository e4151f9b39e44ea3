//! The exchange over TCP: who listens where, and round after round.
//!
//! Called by programs. The work of a round is in `round.rs`.

use super::connection::Local;
use super::round::{Outcome, Round, system};
use super::wire::{self, Mode};
use super::{Exchange, ExchangeError, ExchangeOptions, socket};
use crate::network::config::NetworkConfig;
use rustix::io::Errno;
use std::net::{SocketAddr, TcpListener};

/// An exchange over TCP, between processes that have the same [`NetworkConfig`]. `Send`, `Sync`.
///
/// It uses the calling thread only, in one loop over sockets that never block (names of hosts are looked up by short-lived threads), no
/// runtime: it may be called inside of one or outside. All pairs of ranks go on at once; of two ranks the higher dials the lower, so
/// the highest rank listens nowhere. Descriptors in use: one for each peer at most, and those of strangers, up to the limits in
/// [`ExchangeOptions`].
///
/// What a connection does (garbage, silence, a wrong name, a wrong length, an end in the middle) ends that connection; the pair
/// of ranks that it was for starts over on the next.
///
/// It can be used for several exchanges; all ranks then make the same ones in the same order. The port is held until it is dropped.
#[derive(Debug)]
pub struct TcpExchange {
    rank: u32,
    nodes: NetworkConfig,
    options: ExchangeOptions,
    listener: Option<TcpListener>,
    round: u32,
    incarnation: u64,
    incarnations: Vec<Option<u64>>,
}

impl TcpExchange {
    /// For one rank of a job. Listens from here on; what comes is looked at when an exchange runs.
    ///
    /// # Errors
    /// [`ExchangeError::NoSuchRank`]; [`ExchangeError::Listen`] when the port is taken or the address not of this host.
    pub fn new(
        rank: u32,
        nodes: &NetworkConfig,
        mut options: ExchangeOptions,
    ) -> Result<Self, ExchangeError> {
        let world_size = nodes.world_size();
        let node = nodes.get(rank as usize).ok_or(ExchangeError::NoSuchRank { rank, world_size })?;
        let given = options.listener.take();
        let listener = match given {
            _ if rank + 1 == world_size => None,
            Some(listener) => Some(listener),
            None => Some(listen(node.bare_host(), node.port, options.bind)?),
        };
        if let Some(listener) = &listener {
            listener.set_nonblocking(true).map_err(|error| ExchangeError::System {
                call: "fcntl",
                errno: error.raw_os_error().unwrap_or(0),
            })?;
            // All ranks may dial at once. A short queue costs time only.
            let _ = rustix::net::listen(listener, 4096);
        }
        let random = socket::random().map_err(|error| system("getrandom", error))?;
        let incarnation = u64::from_le_bytes(random[..8].try_into().unwrap_or_default());
        let incarnations = vec![None; nodes.len()];
        Ok(Self { rank, nodes: nodes.clone(), options, listener, round: 1, incarnation, incarnations })
    }

    /// Where it listens; the highest rank does not.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    fn check(&self, entries: &[Vec<u8>]) -> Result<(), ExchangeError> {
        if entries.len() != self.nodes.len() {
            return Err(ExchangeError::WrongCount { given: entries.len(), world_size: self.world_size() });
        }
        let max = self.options.value_max;
        let mut others = (0..).zip(entries).filter(|(peer, _)| *peer != self.rank);
        match others.find(|(_, entry)| entry.len() > max) {
            Some((peer, entry)) => Err(ExchangeError::TooLarge { peer, len: entry.len(), max }),
            None => Ok(()),
        }
    }
}

impl Exchange for TcpExchange {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.nodes.world_size()
    }

    fn exchange_bytes(&mut self, entries: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, ExchangeError> {
        self.check(&entries)?;
        let local = Local {
            rank: self.rank,
            world_size: self.world_size(),
            round: self.round,
            job: self.options.job,
            incarnation: self.incarnation,
            key: self.options.secret.unwrap_or_else(|| wire::key(None)),
            mode: if self.options.secret.is_some() { Mode::Secret } else { Mode::Open },
            value_max: self.options.value_max,
            digests: entries.iter().map(|entry| wire::value_digest(entry)).collect(),
            values: entries,
            incarnations: self.incarnations.clone(),
        };
        let (values, incarnations): Outcome =
            Round::new(local, &self.nodes, &self.options, self.listener.as_ref()).run()?;
        self.incarnations = incarnations;
        self.round += 1;
        Ok(values)
    }
}

fn listen(host: &str, port: u16, bind: Option<SocketAddr>) -> Result<TcpListener, ExchangeError> {
    let places = match bind {
        Some(mut address) => {
            if address.port() == 0 {
                address.set_port(port);
            }
            vec![address]
        }
        None => socket::places_to_listen(host, port),
    };
    socket::listen(&places).map_err(|(address, error)| {
        let errno = error.raw_os_error().unwrap_or(Errno::ADDRNOTAVAIL.raw_os_error());
        ExchangeError::Listen { address, errno }
    })
}
