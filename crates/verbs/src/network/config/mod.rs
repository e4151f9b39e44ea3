//! Who the ranks of a job are: host, port and device of each, from JSON or built by the program, checked before anything is dialled.
//!
//! Called by programs. It opens no socket and looks no name up.
//!
//! ```
//! use sinew_verbs::network::config::{NetworkConfig, NodeConfig};
//!
//! let built = NetworkConfig::builder()
//!     .add_node(NodeConfig::new(1, "node1.example", 7100))
//!     .add_node(NodeConfig::new(0, "node0.example", 7100).device("mlx5_0"))
//!     .build()?;
//! assert_eq!(built[0].host, "node0.example"); // sorted by rank
//!
//! let read = NetworkConfig::from_json(
//!     r#"{ "nodes": [
//!         { "rank": 0, "host": "node0.example", "port": 7100, "device": "mlx5_0" },
//!         { "rank": 1, "host": "node1.example", "port": 7100 }
//!     ] }"#,
//! )?;
//! assert_eq!(read, built);
//! # Ok::<(), sinew_verbs::network::config::ConfigError>(())
//! ```

mod error;
mod json;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigFault};

use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::path::Path;

/// One rank of a job.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Its number, from 0 without gaps.
    #[serde(alias = "rankid")]
    pub rank: u32,
    /// The name or address by which the other ranks reach it, without a port; an IPv6 address with or without brackets.
    #[serde(alias = "hostname")]
    pub host: String,
    /// The TCP port at which it takes part in the exchange; never 0.
    pub port: u16,
    /// The RDMA device that it uses; none: chosen by itself.
    #[serde(default, alias = "ibdev", skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// For people. Nothing reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

impl NodeConfig {
    /// A rank that chooses its device itself.
    #[must_use]
    pub fn new(rank: u32, host: impl Into<String>, port: u16) -> Self {
        Self { rank, host: host.into(), port, device: None, comment: String::new() }
    }

    /// Uses this RDMA device; an empty name is none.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into()).filter(|name: &String| !name.is_empty());
        self
    }

    /// Says something to people.
    #[must_use]
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = text.into();
        self
    }

    /// The host without the brackets of an IPv6 address: as name resolution wants it.
    #[must_use]
    pub fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host)
    }
}

/// The ranks of a job, sorted by rank, from 0 without gaps: a slice of [`NodeConfig`] that has been checked.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub struct NetworkConfig {
    nodes: Vec<NodeConfig>,
}

impl NetworkConfig {
    /// Nothing yet.
    pub fn builder() -> NetworkConfigBuilder {
        NetworkConfigBuilder::default()
    }

    /// From JSON: an object with `nodes` (or `hosts`), a list of objects with `rank` (`rankid`), `host` (`hostname`), `port` and, if wanted,
    /// `device` (`ibdev`; `null`, `""` and `"auto"` are automatic) and `comment`. `config/example.json` beside this code is one.
    ///
    /// # Errors
    /// [`ConfigError`] with the line, the rank, the cause and what to do. Fields of other names are refused.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        json::parse(text)
    }

    /// From a file of JSON, as [`NetworkConfig::from_json`].
    ///
    /// # Errors
    /// [`ConfigError`]; it names the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::of(ConfigFault::Unreadable { cause: error.to_string() }).in_file(path)
        })?;
        Self::from_json(&text).map_err(|error| error.in_file(path))
    }

    /// As JSON that [`NetworkConfig::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// How many ranks there are; at least 1.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// Keeps the first `ranks` ranks; all, where there are fewer.
    ///
    /// # Errors
    /// [`ConfigFault::Empty`] for none.
    pub fn truncate(mut self, ranks: usize) -> Result<Self, ConfigError> {
        if ranks == 0 {
            return Err(ConfigError::of(ConfigFault::Empty));
        }
        self.nodes.truncate(ranks);
        Ok(self)
    }
}

impl Deref for NetworkConfig {
    type Target = [NodeConfig];

    fn deref(&self) -> &[NodeConfig] {
        &self.nodes
    }
}

/// The same data before it was checked; what serde sees.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(alias = "hosts")]
    nodes: Vec<NodeConfig>,
}

impl From<NetworkConfig> for Listed {
    fn from(config: NetworkConfig) -> Self {
        Self { nodes: config.nodes }
    }
}

impl TryFrom<Listed> for NetworkConfig {
    type Error = ConfigError;

    fn try_from(listed: Listed) -> Result<Self, ConfigError> {
        listed.nodes.into_iter().fold(Self::builder(), NetworkConfigBuilder::add_node).build()
    }
}

/// Ranks in any order, not yet checked.
#[derive(Clone, Debug, Default)]
#[must_use = "`build` makes the configuration"]
pub struct NetworkConfigBuilder {
    /// With the line where each stands, if it was read.
    nodes: Vec<(Option<usize>, NodeConfig)>,
}

impl NetworkConfigBuilder {
    /// One rank more.
    pub fn add_node(mut self, node: NodeConfig) -> Self {
        self.nodes.push((None, node));
        self
    }

    pub(super) fn add_at(&mut self, line: usize, node: NodeConfig) {
        self.nodes.push((Some(line), node));
    }

    /// Keeps the first `nodes` that were added: for running part of a larger job's list.
    pub fn truncate(mut self, nodes: usize) -> Self {
        self.nodes.truncate(nodes);
        self
    }

    /// Checks and sorts.
    ///
    /// # Errors
    /// [`ConfigError`]: none at all, a rank missing or doubled, two ranks at one host and port, a host or port that cannot be.
    pub fn build(mut self) -> Result<NetworkConfig, ConfigError> {
        if self.nodes.is_empty() {
            return Err(ConfigError::of(ConfigFault::Empty));
        }
        for (line, node) in &mut self.nodes {
            check(node).map_err(|fault| ConfigError {
                line: *line,
                rank: Some(node.rank),
                ..ConfigError::of(fault)
            })?;
        }
        // Stable: of two with one rank, the one that stands behind is named.
        self.nodes.sort_by_key(|(_, node)| node.rank);
        check_ranks(&self.nodes)?;
        check_places(&self.nodes)?;
        Ok(NetworkConfig { nodes: self.nodes.into_iter().map(|(_, node)| node).collect() })
    }
}

/// Checks what concerns one rank alone.
fn check(node: &mut NodeConfig) -> Result<(), ConfigFault> {
    let host = node.host.trim();
    if host.len() != node.host.len() {
        node.host = host.to_owned();
    }
    if node.port == 0 {
        return Err(ConfigFault::Port { given: "0".to_owned() });
    }
    node.device = node.device.take().filter(|name| !name.is_empty() && name != "auto");
    let bare = node.bare_host();
    let address = bare.split('%').next().unwrap_or(bare);
    let cause = if bare.is_empty() {
        "is empty"
    } else if bare.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "has white space in it"
    } else if bare.contains('/') {
        "is a path or a URL"
    } else if bare.contains(':') && address.parse::<std::net::Ipv6Addr>().is_err() {
        "has a colon and is no IPv6 address; the port has a field of its own"
    } else {
        return Ok(());
    };
    Err(ConfigFault::Host { given: node.host.clone(), cause })
}

/// Checks that sorted ranks are 0, 1, 2 ….
fn check_ranks(nodes: &[(Option<usize>, NodeConfig)]) -> Result<(), ConfigError> {
    let error = |line: &Option<usize>, rank, fault| ConfigError {
        line: *line,
        rank: Some(rank),
        ..ConfigError::of(fault)
    };
    for pair in nodes.windows(2) {
        let ((first_line, first), (line, second)) = (&pair[0], &pair[1]);
        if first.rank == second.rank {
            return Err(error(line, second.rank, ConfigFault::DuplicatedRank { first_line: *first_line }));
        }
    }
    if let Some((line, first)) = nodes.first().filter(|(_, first)| first.rank != 0) {
        return Err(error(line, first.rank, ConfigFault::FirstRankNotZero));
    }
    for (expected, (line, node)) in (0_u32..).zip(nodes) {
        if node.rank != expected {
            return Err(error(line, node.rank, ConfigFault::Gap { missing: expected }));
        }
    }
    Ok(())
}

/// Checks that no two ranks listen at one place. Two names of one host are found out by the exchange only.
fn check_places(nodes: &[(Option<usize>, NodeConfig)]) -> Result<(), ConfigError> {
    let mut places = std::collections::BTreeMap::new();
    for (line, node) in nodes {
        let place = (node.bare_host().to_ascii_lowercase(), node.port);
        if let Some(first) = places.insert(place, node.rank) {
            let fault = ConfigFault::DuplicatedPlace { host: node.host.clone(), port: node.port, first };
            return Err(ConfigError { line: *line, rank: Some(node.rank), ..ConfigError::of(fault) });
        }
    }
    Ok(())
}
