//! How the ranks of a job give each other small values before there is any other way between them.
//!
//! Called by whoever connects queue pairs. [`Exchange`] is the contract, [`TcpExchange`] the one that comes with Sinew; a job that has a
//! launcher with a key-value store, or MPI, can implement it by that. `docs/wire/exchange.md` describes the bytes.
//!
//! Every rank gives one value to every other and gets one from each: what a rank sends to a peer is meant for that peer alone, so that
//! a job of *n* ranks sends *n − 1* values from each, not *n* times the whole list.
//!
//! ```
//! use sinew_verbs::network::config::{NetworkConfig, NodeConfig};
//! use sinew_verbs::network::exchange::{Exchange, ExchangeOptions, TcpExchange};
//!
//! let config = NetworkConfig::builder().add_node(NodeConfig::new(0, "127.0.0.1", 7199)).build()?;
//! let options = ExchangeOptions::with_secret("job 4711", std::fs::read("/proc/sys/kernel/random/uuid")?);
//! let mut exchange = TcpExchange::new(0, &config, options)?;
//! let from_each: Vec<String> = exchange.exchange(|peer| format!("for rank {peer}"))?;
//! assert_eq!(from_each, ["for rank 0"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod error;
mod heard;
mod links;
mod options;
mod resolve;
mod round;
mod socket;
mod tcp;
mod wire;

#[cfg(test)]
mod tests;

pub use error::{ExchangeError, MissingRank};
pub use heard::{Heard, Phase, What};
pub use options::ExchangeOptions;
pub use tcp::TcpExchange;
pub use wire::Reason;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// All ranks of a job call this together; each gives a value for every rank and gets one from every rank.
///
/// It blocks the calling thread until all have what they need, or its deadline is over; inside an asynchronous runtime call it
/// from a thread that may block.
pub trait Exchange {
    /// The rank that calls.
    fn rank(&self) -> u32;

    /// How many ranks there are.
    fn world_size(&self) -> u32;

    /// Gives `entries[peer]` to each peer and answers what each peer gave to this rank, by rank; the own entry comes back as it is.
    ///
    /// When it answers `Ok`, every peer has this rank's entry for it. When it fails on some ranks, others may have succeeded: end the job, or
    /// agree on a new name of it.
    ///
    /// # Errors
    /// [`ExchangeError`].
    fn exchange_bytes(&mut self, entries: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, ExchangeError>;

    /// The same with values that serde can write, as JSON: `value(peer)` is what this rank gives to `peer`.
    ///
    /// # Errors
    /// [`ExchangeError`]; a value that is no `T` is named by its rank.
    fn exchange<T: Serialize + DeserializeOwned>(
        &mut self,
        mut value: impl FnMut(u32) -> T,
    ) -> Result<Vec<T>, ExchangeError>
    where
        Self: Sized,
    {
        let me = self.rank();
        let mut own = None;
        let entry = |peer| {
            let given = value(peer);
            if peer == me {
                own = Some(given);
                return Ok(Vec::new());
            }
            serde_json::to_vec(&given)
                .map_err(|error| ExchangeError::Encode { peer, cause: error.to_string() })
        };
        let entries = (0..self.world_size()).map(entry).collect::<Result<_, _>>()?;
        let received = self.exchange_bytes(entries)?;
        let read = |(rank, bytes): (u32, Vec<u8>)| {
            if let Some(own) = own.take_if(|_| rank == me) {
                return Ok(own);
            }
            serde_json::from_slice(&bytes)
                .map_err(|error| ExchangeError::Decode { rank, cause: error.to_string() })
        };
        (0..).zip(received).map(read).collect()
    }
}
