//! Looks up the addresses of hosts without holding up the exchange: a name server that does not answer delays its own rank only.
//!
//! Called by the round. A look-up that outlives the exchange ends by itself, in its own thread.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Look-ups at a time.
const THREADS_MAX: usize = 16;

/// The addresses of a rank's host, or why there are none.
pub(super) type Found = (u32, Result<Vec<SocketAddr>, String>);

pub(super) struct Resolver {
    waiting: Vec<(u32, String, u16)>,
    running: usize,
    sender: Sender<Found>,
    receiver: Receiver<Found>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        let (sender, receiver) = channel();
        Self { waiting: Vec::new(), running: 0, sender, receiver }
    }

    /// Asks for the addresses of a host; an address is its own answer.
    pub(super) fn ask(&mut self, rank: u32, host: &str, port: u16) {
        if let Ok(address) = host.parse::<IpAddr>() {
            let _ = self.sender.send((rank, Ok(vec![SocketAddr::new(address, port)])));
            self.running += 1;
            return;
        }
        self.waiting.push((rank, host.to_owned(), port));
        self.start();
    }

    /// Whether an answer is to come.
    pub(super) const fn is_busy(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    /// An answer, if there is one.
    pub(super) fn poll_found(&mut self) -> Option<Found> {
        let found = self.receiver.try_recv().ok()?;
        self.running -= 1;
        self.start();
        Some(found)
    }

    fn start(&mut self) {
        while self.running < THREADS_MAX {
            let Some((rank, host, port)) = self.waiting.pop() else { return };
            self.running += 1;
            let sender = self.sender.clone();
            let look_up = move || {
                let found = match (host.as_str(), port).to_socket_addrs() {
                    Ok(addresses) => Ok(addresses.collect()),
                    Err(error) => Err(error.to_string()),
                };
                let _ = sender.send((rank, found));
            };
            let thread = std::thread::Builder::new().name("sinew-resolve".to_owned()).spawn(look_up);
            if let Err(error) = thread {
                let _ = self.sender.send((rank, Err(error.to_string())));
            }
        }
    }
}
