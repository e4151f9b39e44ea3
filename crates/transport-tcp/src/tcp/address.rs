//! Addresses: the text of a `tcp` locator, and what this machine can be reached at.

use crate::socket;
use sinew_transport::{ErrorKind, Locator, TransportError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where a locator points to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Destination {
    /// An address.
    Address(SocketAddr),
    /// A host name, to be resolved, and a port.
    Name(String, u16),
}

/// Reads the body of a locator: `10.0.0.1:4000`, `[fd00::1]:4000`, `[fe80::1%2]:4000`, `[fe80::1%eth0]:4000`,
/// `node7.example:4000`.
pub(super) fn parse(locator: &Locator) -> Result<Destination, TransportError> {
    let refuse = |hint: &str| {
        Err(TransportError::new(ErrorKind::InvalidAddress, "dial", locator.to_string()).hint(hint))
    };
    if locator.scheme() != "tcp" {
        return refuse("this transport takes tcp:HOST:PORT");
    }
    let body = locator.body();
    if let Ok(address) = body.parse::<SocketAddr>().or_else(|_| with_named_zone(body).ok_or(())) {
        return match (address.port(), address.ip().is_unspecified()) {
            (0, _) => refuse("port 0 is nowhere: name the port that the other program listens on"),
            (_, true) => refuse("that address means all interfaces: it can be listened on, not dialled"),
            _ => Ok(Destination::Address(address)),
        };
    }
    let Some((host, port)) = body.rsplit_once(':') else {
        return refuse("there is no port: it is tcp:HOST:PORT");
    };
    let Some(port) = port.parse::<u16>().ok().filter(|&port| port != 0) else {
        return refuse("the port is a number from 1 to 65535");
    };
    if !is_host_name(host) {
        return refuse("the host is an IPv4 address, an IPv6 address in brackets, or a host name");
    }
    Ok(Destination::Name(host.to_owned(), port))
}

/// `[ADDRESS%INTERFACE]:PORT`, if there is such an interface.
fn with_named_zone(body: &str) -> Option<SocketAddr> {
    let (address, rest) = body.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let socket = super::new_socket(rustix::net::AddressFamily::INET6).ok()?;
    let index = rustix::net::netdevice::name_to_index(&socket, zone).ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, port.parse().ok()?, 0, index).into())
}

/// Letters, digits, `-`, `_` and `.`, with a letter somewhere (else it is a mistyped address), 253 characters at most.
pub(super) fn is_host_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    text.len() <= 253
        && text.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-')
        })
        && text.bytes().any(|c| c.is_ascii_alphabetic())
}

/// The addresses that others may reach this machine at, best guess first: interfaces with a cable before those without,
/// IPv4 before IPv6, loopback last. Link-local ones are left out: they mean nothing without an interface.
pub(super) fn discover() -> Vec<IpAddr> {
    let mut found = socket::interface_addresses().unwrap_or_default();
    found.retain(|found| is_publishable(found.address));
    found.sort_by_key(|found| (found.address.is_loopback(), !found.running, found.address.is_ipv6()));
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(found.len());
    for found in found {
        if !addresses.contains(&found.address) {
            addresses.push(found.address);
        }
    }
    addresses
}

fn is_publishable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast())
        }
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()),
    }
}

/// Whether a connection to `address` stays on this machine, as far as is known before it is made.
pub(super) fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback()
        || socket::interface_addresses().is_ok_and(|all| all.iter().any(|own| own.address == address))
}

/// Loopback of the family.
pub(super) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// All interfaces, by family.
pub(super) const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Destination, ErrorKind> {
        parse(&text.parse().unwrap()).map_err(|error| error.kind)
    }

    #[test]
    fn addresses_and_names_are_told_apart_and_nonsense_is_refused() {
        assert_eq!(read("tcp:10.0.0.1:4000"), Ok(Destination::Address("10.0.0.1:4000".parse().unwrap())));
        assert_eq!(read("tcp:[fd00::1]:80"), Ok(Destination::Address("[fd00::1]:80".parse().unwrap())));
        assert_eq!(read("tcp:[fe80::1%2]:80"), Ok(Destination::Address("[fe80::1%2]:80".parse().unwrap())));
        assert_eq!(read("tcp:node7.example:80"), Ok(Destination::Name("node7.example".into(), 80)));
        assert_eq!(read("tcp:[fe80::1%lo]:80"), Ok(Destination::Address("[fe80::1%1]:80".parse().unwrap())));
        for bad in [
            "tcp:[fe80::1%no-such-0]:80",
            "tcp:10.0.0.1",
            "tcp:10.0.0.1:0",
            "tcp:0.0.0.0:80",
            "tcp:[::]:80",
            "tcp:10.0.0:80",
            "tcp:host:70000",
            "tcp:host:",
            "tcp::80",
            "tcp:-x:80",
            "tcp:a..b:80",
            "tcp:a/b:80",
            "tcp:fd00::1:80",
            "uds:host:80",
        ] {
            assert_eq!(read(bad), Err(ErrorKind::InvalidAddress), "{bad}");
        }
    }

    #[test]
    fn discovery_puts_loopback_last_and_leaves_link_local_out() {
        let found = discover();
        let first_loopback = found.iter().position(IpAddr::is_loopback).unwrap_or(found.len());
        assert!(found[first_loopback..].iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(found.iter().all(|&address| is_publishable(address)), "{found:?}");
    }
}
