//! Where two sides of an example meet before they can speak by RDMA: a TCP connection on which they tell each other what is needed.
//!
//! Any means would do: a file, a job launcher, rdma cm.
#![allow(dead_code, reason = "each program uses a part")]

use sinew_verbs::device::Context;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// What an example ends with when it fails: a text for people.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longest wait for the other side, once it is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options that all have.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Name or address of the server. Without one, this side is the server
    pub(crate) server: Option<String>,
    /// TCP port on which both sides meet
    #[arg(short, long, default_value_t = 18516)]
    port: u16,
    /// Name of the RDMA device; the first one by default
    #[arg(short, long)]
    device: Option<String>,
}

impl Options {
    /// Opens the device.
    pub(crate) fn open(&self) -> Result<Context> {
        let devices = sinew_verbs::devices()?;
        match &self.device {
            Some(name) => Ok(devices.open(name)?),
            None => Ok(devices.get(0).ok_or("this machine has no RDMA device")?.open()?),
        }
    }

    /// Whether this side is the client.
    pub(crate) const fn is_client(&self) -> bool {
        self.server.is_some()
    }

    /// Connects to the server, or waits for the client.
    pub(crate) fn meet(&self) -> Result<Meeting> {
        match &self.server {
            Some(server) => {
                Meeting::of(TcpStream::connect((server.as_str(), self.port)).map_err(|error| {
                    format!("cannot reach {server} at port {}: {error}; start the server first", self.port)
                })?)
            }
            None => self.listen()?.next().ok_or("nobody came")?,
        }
    }

    /// The clients, as they come. They wait as long as this is there.
    pub(crate) fn listen(&self) -> Result<impl Iterator<Item = Result<Meeting>> + use<>> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))
            .map_err(|error| format!("cannot listen on port {}: {error}", self.port))?;
        Ok(std::iter::repeat_with(move || Meeting::of(listener.accept()?.0)))
    }
}

/// A TCP connection to the other side.
pub(crate) struct Meeting {
    stream: TcpStream,
}

impl Meeting {
    fn of(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Tells something, and learns the same of the other side.
    pub(crate) fn swap<const LEN: usize>(&mut self, own: [u8; LEN]) -> Result<[u8; LEN]> {
        self.stream.write_all(&own)?;
        let mut theirs = [0; LEN];
        self.stream.read_exact(&mut theirs).map_err(|error| format!("the other side: {error}"))?;
        Ok(theirs)
    }

    /// Returns when the other side is here too.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.swap([0]).map(drop)
    }
}

/// The status that a program ends with; says why it failed.
pub(crate) fn exit(program: &str, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
