//! Options of the transports that come with Sinew, and how the environment becomes options.

use crate::{BuildError, EngineOptions};
use std::net::SocketAddr;

sinew_base::options! {
    /// Which transports an engine has, and how they behave.
    pub struct TransportOptions {
        /// Transports to open, of shm, uds, tcp; empty: all.
        transports: list = "", cost "a listener each";
        /// Addresses with ports to listen on by TCP; empty: loopback, or all interfaces with a domain secret.
        tcp_bind: list = "", cost "none";
        /// Ports to listen on by TCP, tried in order, as 4000-4010; empty: any free one.
        tcp_ports: text = "", cost "none";
        /// Addresses to publish instead of the discovered ones, as HOST or HOST:PORT.
        tcp_advertise: list = "", cost "none";
        /// Congestion control of TCP: auto, system, or a name.
        tcp_congestion: text = "auto", cost "none";
        /// Sockets of one session over TCP: auto (as many as measure faster, up to 8), single, or a number from 1 to 16.
        tcp_sockets: text = "auto", cost "two descriptors and about 1.2 MB on each side for each";
        /// When the receiver reads long messages of memory that is not from `alloc` where they lie in the sender's process
        /// (process_vm_readv): auto (when measured to be faster), off (nor may peers read this one), or a size from which on.
        shm_cross_read: text = "auto", cost "off or a size: no measurement; auto: one or two slower messages";
        /// Whether segments of shared memory of 2 MiB and more get huge pages where the machine has some: auto or off.
        shm_huge_pages: text = "auto", cost "memory in units of 2 MiB";
        /// On which NUMA node shared memory is: auto (that of the thread that makes it), off, or a number.
        shm_numa: text = "auto", cost "none";
        /// File with the domain's secret, at least 16 bytes, readable by this user only; empty: none.
        secret_file: path = "", cost "none";
    }
}

/// All options, from the environment over their defaults.
pub(crate) fn from_environment() -> Result<(EngineOptions, TransportOptions), BuildError> {
    let vars: Vec<(std::ffi::OsString, std::ffi::OsString)> = std::env::vars_os().collect();
    let wrong = |error: sinew_base::options::OptionError| BuildError::Option(error.to_string());
    sinew_base::options::check_environment(vars.clone(), &crate::option_tables()).map_err(wrong)?;
    let engine = EngineOptions::from_environment(vars.clone()).map_err(wrong)?;
    let transports = TransportOptions::from_environment(vars).map_err(wrong)?;
    Ok((engine, transports))
}

impl TransportOptions {
    /// Whether a transport is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.transports.is_empty() || self.transports.iter().any(|wanted| wanted == name || wanted == "all")
    }

    /// Names that no transport has.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), BuildError> {
        match self.transports.iter().find(|name| *name != "all" && !known.contains(&name.as_str())) {
            Some(unknown) => Err(BuildError::Option(format!(
                "SINEW_TRANSPORTS names {unknown:?}; this build has {}, as in SINEW_TRANSPORTS=shm,tcp",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// Where to listen by TCP.
    pub(crate) fn tcp_bind_addresses(&self) -> Result<Vec<SocketAddr>, BuildError> {
        self.tcp_bind
            .iter()
            .map(|text| {
                text.parse().map_err(|_| {
                    BuildError::Option(format!("SINEW_TCP_BIND has {text:?}, which is no address with port, as 127.0.0.1:4000 or [::1]:0"))
                })
            })
            .collect()
    }

    /// Ports to try.
    pub(crate) fn tcp_port_range(&self) -> Result<std::ops::RangeInclusive<u16>, BuildError> {
        let text = self.tcp_ports.trim();
        if text.is_empty() {
            return Ok(0..=0);
        }
        let wrong = || {
            BuildError::Option(format!(
                "SINEW_TCP_PORTS is {text:?}; give a port or a range, as 4000 or 4000-4010"
            ))
        };
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let low: u16 = low.trim().parse().map_err(|_| wrong())?;
        let high: u16 = high.trim().parse().map_err(|_| wrong())?;
        if low > high || low == 0 { Err(wrong()) } else { Ok(low..=high) }
    }
}
