//! The `uds` transport: Unix-domain stream sockets in a directory of this user.
//!
//! A socket appears under its final name only once it listens, so that a name without a listener is stale and can be
//! removed by anybody who may.

mod directory;

use crate::connector::{Address, Connector, connect_error};
use crate::link::{Family, StreamLink};
use crate::listener::Listener;
use crate::options::UdsOptions;
use crate::registered::{Registered, Spinners};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;
use sinew_base::guarded::GuardedFd;
use sinew_base::{runtime_dir, socket_path};
use sinew_transport::{
    Availability, Capabilities, Cost, Domain, DomainContext, ErrorKind, Interest, Link, ListenScope, Locator,
    PollKey, Poller, Transport, TransportError,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Unix-domain stream sockets.
#[derive(Clone, Debug, Default)]
pub struct UdsTransport {
    options: UdsOptions,
}

impl UdsTransport {
    /// The transport with these options. Nothing is opened yet.
    #[must_use]
    pub fn new(options: UdsOptions) -> Self {
        Self { options }
    }
}

impl Transport for UdsTransport {
    fn name(&self) -> &'static str {
        "uds"
    }

    fn probe(&self) -> Availability {
        if let Err(errno) = new_socket() {
            return Availability::Missing(TransportError::os(errno, "socket", "AF_UNIX"));
        }
        match runtime_dir::prepare(self.options.runtime_dir.as_deref()) {
            Ok(path) => Availability::Usable(format!("sockets in {}", path.display())),
            Err(error) => Availability::Missing(error.into()),
        }
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        (Family::Uds.capabilities(true), Family::Uds.cost(true))
    }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let listening = if context.listen == ListenScope::Nobody {
            None
        } else {
            let folder = runtime_dir::prepare(self.options.runtime_dir.as_deref())?;
            directory::remove_stale(&folder);
            let path = folder.join(file_name(&context.engine));
            locator(&path)?;
            let (fd, file) = listen(&path, context.listen, &self.options)?;
            let key = PollKey { owner: context.owner, sub: 0 };
            let listener = Listener::new(fd, &context.poller, key, path.display().to_string())?;
            Some((listener, file))
        };
        let (options, spinners) = (self.options.clone(), Arc::default());
        Ok(Box::new(UdsDomain { options, poller: context.poller, listening, spinners }))
    }
}

fn file_name(engine: &[u8; 16]) -> String {
    let mut name = String::with_capacity(36);
    for byte in engine {
        name.push_str(&format!("{byte:02x}"));
    }
    name + ".uds"
}

fn new_socket() -> Result<GuardedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    GuardedFd::make(|| rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None))
}

fn address(path: &Path) -> Result<SocketAddrUnix, TransportError> {
    SocketAddrUnix::new(path).map_err(|errno| {
        TransportError::os(errno, "name the socket", path.display().to_string()).hint(
            "the path of a Unix-domain socket has at most 107 bytes: choose a shorter runtime directory",
        )
    })
}

fn locator(path: &Path) -> Result<Locator, TransportError> {
    Locator::new("uds", socket_path::to_body(path)).map_err(|_| {
        TransportError::new(ErrorKind::Limit, "listen on", path.display().to_string())
            .hint("the path is too long for a locator (200 bytes); choose a shorter runtime directory")
    })
}

/// The file of a listening socket; removed on drop by the process that made it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    maker: Pid,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.maker == rustix::process::getpid() {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Listens under a temporary name and then moves the socket to `path`.
fn listen(
    path: &Path,
    scope: ListenScope,
    options: &UdsOptions,
) -> Result<(GuardedFd, SocketFile), TransportError> {
    let fresh = path.with_extension("new");
    let os = |errno| TransportError::os(errno, "listen on", path.display().to_string());
    let fd = new_socket().map_err(os)?;
    set_sizes(&fd, options)?;
    // Who may connect: the mode of the file, given to the socket before it has a name.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(os)?;
    let _ = rustix::fs::unlink(&fresh);
    rustix::net::bind(&fd, &address(&fresh)?).map_err(os)?;
    let mut file = SocketFile { path: fresh, maker: rustix::process::getpid() };
    if scope == ListenScope::Anywhere {
        // Other users prove the domain's secret; whether they get as far as the socket is up to the directory.
        rustix::fs::chmod(&file.path, Mode::from_raw_mode(0o666)).map_err(os)?;
    }
    rustix::net::listen(&fd, options.backlog).map_err(os)?;
    rustix::fs::rename(&file.path, path).map_err(os)?;
    path.clone_into(&mut file.path);
    Ok((fd, file))
}

fn set_sizes(fd: &GuardedFd, options: &UdsOptions) -> Result<(), TransportError> {
    let os = |errno| TransportError::os(errno, "setsockopt", "");
    if let Some(bytes) = options.stream.socket_send_bytes {
        sockopt::set_socket_send_buffer_size(fd, bytes).map_err(os)?;
    }
    if let Some(bytes) = options.stream.socket_receive_bytes {
        sockopt::set_socket_recv_buffer_size(fd, bytes).map_err(os)?;
    }
    Ok(())
}

/// One engine's share of the transport.
struct UdsDomain {
    options: UdsOptions,
    poller: Arc<Poller>,
    listening: Option<(Listener, SocketFile)>,
    spinners: Arc<Spinners>,
}

impl Domain for UdsDomain {
    fn locators(&self) -> Vec<Locator> {
        let path = self.listening.as_ref().map(|(_, file)| &file.path);
        path.and_then(|path| locator(path).ok()).into_iter().collect()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == "uds"
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let path = socket_path::from_body(to.body()).filter(|_| to.scheme() == "uds").ok_or_else(|| {
            TransportError::new(ErrorKind::InvalidAddress, "dial", to.to_string())
                .hint("this transport takes uds:/PATH/OF/A/SOCKET")
        })?;
        let address = Address::Unix(to.to_string(), address(&path)?);
        let fd = new_socket().map_err(|errno| connect_error(errno, &address))?;
        set_sizes(&fd, &self.options)?;
        let mut connector = Connector::new(&self.poller, owner);
        connector.start(fd, address)?;
        Ok(Box::new(StreamLink::connecting(connector, Family::Uds, &self.options.stream, &self.spinners)))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some((listener, _)) = &self.listening else { return Ok(None) };
        while let Some(fd) = listener.accept()? {
            if let Ok(link) = self.accepted(fd, owner) {
                return Ok(Some(Box::new(link)));
            }
        }
        Ok(None)
    }

    fn poll_warm(&mut self, _owners: &mut Vec<u32>) {
        self.spinners.look();
    }

    fn arm(&mut self) -> bool {
        self.spinners.arm()
    }

    fn disarm(&mut self) {
        self.spinners.disarm();
    }
}

impl Drop for UdsDomain {
    fn drop(&mut self) {
        self.spinners.close();
    }
}

impl UdsDomain {
    /// Makes the link; a connection that is gone already is an error that concerns nobody.
    fn accepted(&self, fd: GuardedFd, owner: u32) -> Result<StreamLink, TransportError> {
        set_sizes(&fd, &self.options)?;
        let key = PollKey { owner, sub: 0 };
        let socket = Registered::new(fd, &self.poller, key, Interest::READ)?;
        StreamLink::accepted(socket, Family::Uds, &self.options.stream, &self.spinners)
    }
}
