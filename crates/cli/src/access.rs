//! Who may talk to whom: the flags `--secret-file`, `--insecure` and `--domain`, and engines made with them.

use crate::failure::Failure;
use sinew::{Engine, EngineOptions, Progress, Security, Target, TransportOptions};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// Flags of every command that talks to programs that it did not start.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Access {
    /// File with the domain's secret, at least 16 bytes, readable by this user only (chmod 600); the same on both sides
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Talk to whoever answers or connects: nothing is proven, anybody in the network can take part
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Engines of different domains cannot reach each other
    #[arg(long, value_name = "NAME", default_value = DEFAULT_DOMAIN)]
    pub(crate) domain: String,
    #[command(flatten)]
    pub(crate) flows: Flows,
}

/// How the TCP connections of a session are; each side has its own say.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Flows {
    /// Sockets of a session over TCP: auto (as many as measure faster, up to 8), single, or a number from 1 to 16. Long messages go
    /// over all of them [default: SINEW_TCP_SOCKETS, else auto]
    #[arg(long, value_name = "COUNT", value_parser = sockets)]
    pub(crate) sockets: Option<String>,
    /// Congestion control of TCP: auto, system, or a name as bbr [default: SINEW_TCP_CONGESTION, else auto]
    #[arg(long, value_name = "NAME", value_parser = congestion)]
    pub(crate) congestion: Option<String>,
}

fn sockets(text: &str) -> Result<String, String> {
    let sockets: sinew::tcp::Sockets =
        text.parse().map_err(|error: sinew::tcp::BadSockets| error.to_string())?;
    Ok(sockets.to_string())
}

fn congestion(text: &str) -> Result<String, String> {
    use sinew::tcp::{CongestionControl, TcpOptions};
    if !matches!(text, "auto" | "system") {
        let mut options = TcpOptions::default();
        options.congestion_control = CongestionControl::Named(text.to_owned());
        options.check().map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

impl Flows {
    /// The environment of another process that shall do the same.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let sockets = self.sockets.as_deref().map(|text| ("SINEW_TCP_SOCKETS", text));
        let congestion = self.congestion.as_deref().map(|text| ("SINEW_TCP_CONGESTION", text));
        sockets.into_iter().chain(congestion)
    }
}

/// Domain of commands that are told no other.
const DEFAULT_DOMAIN: &str = "default";

/// What to say when a secret is missing.
const REMEDY: &str = "\
Give both sides the same secret:
  (umask 077; head -c 32 /dev/urandom > key)      once; copy it to the other machine
  … --secret-file key                              on both sides
or say by name that nothing is to be proven: --insecure";

/// Where a listening command listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Over every transport, for this user on this machine; with a secret from everywhere.
    Anywhere,
    /// Over one transport, where that likes.
    Transport(String),
    /// On one TCP address.
    Tcp(SocketAddr),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = sinew::transport_names();
        let plain = text.strip_suffix("://").unwrap_or(text);
        if plain == "auto" || plain == "all" {
            return Ok(Self::Anywhere);
        }
        if names.contains(&plain) {
            return Ok(Self::Transport(plain.to_owned()));
        }
        let wrong = |cause: &str| {
            format!(
                "{text:?} {cause}; listen on a transport ({}) or an address as tcp://0.0.0.0:4000",
                names.join(", ")
            )
        };
        match text.split_once("://") {
            Some(("tcp", rest)) => {
                tcp_address(rest.trim_end_matches('/')).map(Self::Tcp).map_err(|cause| wrong(&cause))
            }
            Some((scheme, _)) if names.contains(&scheme) => Err(format!(
                "{text:?}: {scheme} makes its own sockets; write `{scheme}`, and set SINEW_RUNTIME_DIR for another directory"
            )),
            Some(_) => Err(wrong("names no transport of this build")),
            None => Err(wrong("is no address")),
        }
    }
}

fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(|| "names a host without addresses".to_owned()),
        Err(error) => Err(format!("has no host and port ({error})")),
    }
}

impl Access {
    /// The same in another domain.
    pub(crate) fn with_domain(self, domain: &str) -> Self {
        Self { domain: domain.to_owned(), ..self }
    }

    /// Whether any of the flags was given.
    pub(crate) fn is_said(&self) -> bool {
        self.insecure || self.secret_file.is_some() || self.domain != DEFAULT_DOMAIN
    }

    /// Whether peers elsewhere can prove themselves, or need not.
    fn is_settled(&self) -> bool {
        self.insecure
            || self.secret_file.is_some()
            || std::env::var_os("SINEW_SECRET_FILE").is_some_and(|file| !file.is_empty())
    }

    /// Refuses to listen beyond this machine without a secret.
    pub(crate) fn check_listen(&self, place: &Place) -> Result<(), Failure> {
        match place {
            Place::Tcp(address) if !address.ip().is_loopback() && !self.is_settled() => {
                Err(Failure::usage(format!(
                    "refused: listening on {address} lets everybody who can reach this machine try to connect.\n{REMEDY}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to connect beyond this machine without a secret. A bad address is an error too.
    pub(crate) fn check_connect(&self, target: &str) -> Result<(), Failure> {
        let target: Target = target.parse().map_err(|error| {
            Failure::usage(format!(
                "{target:?} is no address: {error}; `sinew listen` prints one, or write tcp://HOST:PORT"
            ))
        })?;
        let bodies: Vec<(String, String)> = match &target {
            Target::Address(address) => address
                .locators()
                .iter()
                .filter_map(|locator| locator.split_once(':'))
                .map(|(scheme, body)| (scheme.to_owned(), body.to_owned()))
                .collect(),
            Target::Explicit(one) => vec![(one.scheme().to_owned(), one.body().to_owned())],
            Target::Auto { choices, .. } => {
                choices.iter().map(|one| (one.scheme().to_owned(), one.body().to_owned())).collect()
            }
        };
        let far = |(scheme, body): &(String, String)| scheme == "tcp" && !is_loopback(body);
        if !bodies.is_empty() && bodies.iter().all(far) && !self.is_settled() {
            return Err(Failure::usage(format!(
                "refused: {} is beyond this machine, and nothing proves who answers there.\n{REMEDY}",
                bodies[0].1
            )));
        }
        Ok(())
    }

    /// An engine with the transports of `place`, which listens there or only connects.
    pub(crate) fn engine(&self, place: &Place, listen: bool, progress: Progress) -> Result<Engine, Failure> {
        let environment = || std::env::vars_os();
        let wrong = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
        let mut transports =
            TransportOptions::from_environment(environment()).map_err(|error| wrong(&error))?;
        let options = EngineOptions::from_environment(environment()).map_err(|error| wrong(&error))?;
        match place {
            Place::Transport(name) => transports.transports = vec![name.clone()],
            Place::Tcp(address) => {
                transports.transports = vec!["tcp".to_owned()];
                transports.tcp_bind = vec![address.to_string()];
            }
            Place::Anywhere => {}
        }
        if let Some(sockets) = &self.flows.sockets {
            transports.tcp_sockets.clone_from(sockets);
        }
        if let Some(congestion) = &self.flows.congestion {
            transports.tcp_congestion.clone_from(congestion);
        }
        if let Some(file) = &self.secret_file {
            transports.secret_file = Some(file.clone());
        }
        let mut builder = Engine::builder()
            .domain(self.domain.as_str())
            .progress(progress)
            .listen(listen)
            .options(options)
            .transport_options(transports);
        if self.insecure {
            builder = builder.security(Security::Open);
        }
        Ok(builder.build()?)
    }
}

/// Whether `HOST:PORT` is this machine talking to itself.
fn is_loopback(body: &str) -> bool {
    let host = body.rsplit_once(':').map_or(body, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!("all".parse(), Ok(Place::Anywhere));
        assert_eq!("shm".parse(), Ok(Place::Transport("shm".into())));
        assert_eq!("uds://".parse(), Ok(Place::Transport("uds".into())));
        assert_eq!("tcp://0.0.0.0:4000".parse(), Ok(Place::Tcp(([0, 0, 0, 0], 4000).into())));
        assert_eq!("tcp://[::1]:0/".parse(), Ok(Place::Tcp("[::1]:0".parse().expect("an address"))));
        for wrong in ["", "tpc://0.0.0.0:1", "tcp://1.2.3.4", "shm:///tmp/x", "4000"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_needs_no_secret() {
        let access = Access { domain: "x".into(), ..Access::default() };
        assert!(access.check_connect("tcp://127.0.0.1:4000").is_ok());
        assert!(access.check_connect("tcp://[::1]:4000/name").is_ok());
        assert!(access.check_connect("tcp://10.0.0.1:4000").is_err());
        assert!(access.check_connect("auto:tcp://10.0.0.1:4000,uds:///run/x.sock").is_ok());
        assert!(access.check_connect("nonsense").is_err());
        let open = Access { insecure: true, ..access };
        assert!(open.check_connect("tcp://10.0.0.1:4000").is_ok());
        assert!(open.check_listen(&"tcp://0.0.0.0:1".parse().expect("a place")).is_ok());
    }
}
