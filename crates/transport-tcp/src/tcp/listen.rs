//! Binding: which addresses, which port of the range, and what to publish for them.

use super::address::{ANYWHERE, LOOPBACK, discover, is_host_name};
use super::prepared_socket;
use crate::options::TcpOptions;
use rustix::io::Errno;
use rustix::net::sockopt;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{ErrorKind, ListenScope, Locator, TransportError};
use std::net::{IpAddr, SocketAddr};

/// A listening socket and where it listens.
pub(super) type Bound = (GuardedFd, SocketAddr);

/// Makes the listeners that `scope` and the options call for.
pub(super) fn bind_all(options: &TcpOptions, scope: ListenScope) -> Result<Vec<Bound>, TransportError> {
    match scope {
        ListenScope::Nobody => return Ok(Vec::new()),
        ListenScope::ThisUser => {
            if let Some(open) = options.bind.iter().find(|address| !address.ip().is_loopback()) {
                return Err(TransportError::new(ErrorKind::PermissionDenied, "listen on", open.to_string())
                    .hint(
                        "only this machine may connect: bind a loopback address, or give the domain a secret",
                    ));
            }
        }
        ListenScope::Anywhere => {}
    }
    if !options.bind.is_empty() {
        return options.bind.iter().map(|&address| bind_one(address, options)).collect();
    }
    let wanted = if scope == ListenScope::Anywhere { ANYWHERE } else { LOOPBACK };
    bind_families(wanted, options)
}

/// Both families on the same port where that is free; a family that this machine lacks is left out.
fn bind_families(wanted: [IpAddr; 2], options: &TcpOptions) -> Result<Vec<Bound>, TransportError> {
    let [v4, v6] = wanted;
    let first = match bind_one(SocketAddr::new(v4, 0), options) {
        Ok(bound) => bound,
        Err(error) if is_missing_family(&error) => {
            return Ok(vec![bind_one(SocketAddr::new(v6, 0), options)?]);
        }
        Err(error) => return Err(error),
    };
    let same_port = SocketAddr::new(v6, first.1.port());
    let second = bind_one(same_port, options).or_else(|error| {
        if is_missing_family(&error) { Err(error) } else { bind_one(SocketAddr::new(v6, 0), options) }
    });
    Ok(match second {
        Ok(second) => vec![first, second],
        // IPv4 alone serves; what IPv6 lacks here is no reason to fail.
        Err(_) => vec![first],
    })
}

fn is_missing_family(error: &TransportError) -> bool {
    let is = |errno: Errno| error.code.is_some_and(|code| code.number == i64::from(errno.raw_os_error()));
    is(Errno::AFNOSUPPORT) || is(Errno::ADDRNOTAVAIL)
}

/// Listens on `address`; port 0 there means the first free one of the range.
fn bind_one(address: SocketAddr, options: &TcpOptions) -> Result<Bound, TransportError> {
    if address.port() != 0 {
        return listen_on(address, options)
            .map_err(|error| in_use(error, "choose another port, or 0 for any"));
    }
    let (from, to) = (*options.ports.start(), *options.ports.end());
    for port in from..=to {
        match listen_on(SocketAddr::new(address.ip(), port), options) {
            Err(error) if is_taken(&error) => {}
            result => return result,
        }
    }
    let what = format!("{} with a port from {from} to {to}", address.ip());
    Err(TransportError::new(ErrorKind::Limit, "listen on", what)
        .hint("every port of the range is taken: widen the range of ports, or set it to 0 for any free port"))
}

fn is_taken(error: &TransportError) -> bool {
    // A privileged port is as good as taken for who may not have it.
    let is = |errno: Errno| error.code.is_some_and(|code| code.number == i64::from(errno.raw_os_error()));
    is(Errno::ADDRINUSE) || is(Errno::ACCESS)
}

fn in_use(error: TransportError, hint: &str) -> TransportError {
    if is_taken(&error) && error.hint.is_empty() { error.hint(hint) } else { error }
}

fn listen_on(address: SocketAddr, options: &TcpOptions) -> Result<Bound, TransportError> {
    let os = |errno| TransportError::os(errno, "listen on", address.to_string());
    let fd = prepared_socket(&address, options, address.ip().is_loopback())?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true).map_err(os)?;
    }
    if address.port() != 0 {
        // A port that was just given up may be taken again at once; one that is listened on stays refused.
        sockopt::set_socket_reuseaddr(&fd, true).map_err(os)?;
    }
    rustix::net::bind(&fd, &address).map_err(os)?;
    rustix::net::listen(&fd, options.backlog).map_err(os)?;
    let bound = rustix::net::getsockname(&fd).and_then(SocketAddr::try_from).map_err(os)?;
    Ok((fd, bound))
}

/// What to publish for the listeners, best first.
pub(super) fn locators(options: &TcpOptions, bound: &[Bound]) -> Result<Vec<Locator>, TransportError> {
    if bound.is_empty() {
        return Ok(Vec::new());
    }
    if !options.advertise.is_empty() {
        return options.advertise.iter().map(|text| advertised(text, bound)).collect();
    }
    let mut found = Vec::new();
    for (_, address) in bound {
        if address.ip().is_unspecified() {
            let family = discover().into_iter().filter(|ip| ip.is_ipv4() == address.is_ipv4());
            found.extend(family.map(|ip| SocketAddr::new(ip, address.port())));
        } else {
            found.push(*address);
        }
    }
    found.sort_by_key(|address| address.ip().is_loopback());
    Ok(found.iter().filter_map(|address| Locator::new("tcp", address.to_string()).ok()).collect())
}

/// `HOST`, `HOST:PORT`, `V4:PORT`, `[V6]:PORT`, or an address alone, as a locator.
fn advertised(text: &str, bound: &[Bound]) -> Result<Locator, TransportError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let body = if text.parse::<SocketAddr>().is_ok() {
        text.to_owned()
    } else if let Ok(ip) = bare.parse::<IpAddr>() {
        let same_family = bound.iter().find(|(_, address)| address.is_ipv4() == ip.is_ipv4());
        let port = same_family.or(bound.first()).map_or(0, |(_, address)| address.port());
        SocketAddr::new(ip, port).to_string()
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) if is_host_name(host) && port.parse::<u16>().is_ok_and(|port| port != 0) => {
                text.to_owned()
            }
            None if is_host_name(text) => {
                format!("{text}:{}", bound.first().map_or(0, |(_, address)| address.port()))
            }
            _ => {
                return Err(TransportError::new(ErrorKind::InvalidAddress, "advertise", text)
                    .hint("it is HOST, HOST:PORT, an IPv4 address, or an IPv6 address in brackets"));
            }
        }
    };
    Locator::new("tcp", body).map_err(|error| {
        TransportError::new(ErrorKind::InvalidAddress, "advertise", text).hint(error.to_string())
    })
}
