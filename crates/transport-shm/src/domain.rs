//! One engine's share: the listener, the doorbell, and the sleep of all its lanes.
//!
//! Called by the engine through [`Domain`]. It accepts and dials; what lanes and it have in common is in the registry.

use crate::link::ShmLink;
use crate::options::ShmOptions;
use crate::registry::Registry;
use crate::segment::ShmSegment;
use crate::shared::sleep::Sleeper;
use crate::sys::memory::Wish;
use crate::sys::placement::Machine;
use crate::sys::socket;
use crate::{SCHEME, runtime_dir};
use rustix::fs::Mode;
use rustix::io::Errno;
use sinew_base::guarded::GuardedFd;
use sinew_base::socket_path;
use sinew_transport::{
    Domain, DomainContext, ErrorKind, Event, Interest, Link, ListenScope, Locator, PollKey, Segment,
    TransportError,
};
use std::path::PathBuf;
use std::sync::Arc;

/// `sub` of the listener in poll keys.
const LISTENER: u32 = 0;
/// `sub` of the doorbell.
const BELL: u32 = 1;
/// Calls of `poll_warm` between two looks at all cold lanes.
const LOOK_EVERY: u32 = 1 << 14;

/// A domain of the shared-memory transport.
pub(crate) struct ShmDomain {
    registry: Arc<Registry>,
    listener: Option<Listener>,
    sleeper: Sleeper,
    warm_calls: u32,
}

struct Listener {
    socket: GuardedFd,
    path: PathBuf,
    locator: Locator,
}

impl ShmDomain {
    pub(crate) fn open(options: &ShmOptions, context: &DomainContext) -> Result<Self, TransportError> {
        options.check()?;
        Machine::this().check(options.numa).map_err(|what| {
            TransportError::new(ErrorKind::Unsupported, "shm options", what)
                .hint("see the documentation of ShmOptions")
        })?;
        let registry = Arc::new(Registry::new(options, context.poller.clone())?);
        let key = |sub| PollKey { owner: context.owner, sub };
        let watch = |errno| TransportError::os(errno, "epoll_ctl", "");
        registry.poller.add(&registry.bell, key(BELL), Interest::READ).map_err(watch)?;
        let mut domain = Self { registry, listener: None, sleeper: Sleeper::default(), warm_calls: 0 };
        if context.listen != ListenScope::Nobody {
            let listener = listen(options, context)?;
            domain.registry.poller.add(&listener.socket, key(LISTENER), Interest::READ).map_err(watch)?;
            domain.listener = Some(listener);
        }
        Ok(domain)
    }
}

fn listen(options: &ShmOptions, context: &DomainContext) -> Result<Listener, TransportError> {
    let directory = sinew_base::runtime_dir::prepare(options.runtime_dir.as_deref())?;
    runtime_dir::clean(&directory);
    let path = runtime_dir::socket_path(&directory, &context.engine);
    let object = || path.display().to_string();
    let locator = Locator::new(SCHEME, socket_path::to_body(&path)).map_err(|_| {
        TransportError::new(ErrorKind::Limit, "listen", object())
            .hint("the path is too long for a locator (200 bytes); set runtime_dir to a shorter one")
    })?;
    let socket = socket::listen(&path, options.backlog).map_err(|errno| {
        let error = TransportError::os(errno, "listen", object());
        match errno {
            Errno::NAMETOOLONG | Errno::NOENT => {
                error.hint("the path is too long for a socket here; set runtime_dir to a shorter one")
            }
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                error.hint("this user cannot write there; set runtime_dir to a directory that it can write")
            }
            Errno::ADDRINUSE => error.hint("another engine has this identity"),
            _ => error,
        }
    })?;
    // Other users get in only where the engine listens to them and the directory's maker lets them.
    let mode = match context.listen {
        ListenScope::Anywhere => Mode::from_raw_mode(0o666),
        _ => Mode::RUSR | Mode::WUSR,
    };
    rustix::fs::chmod(&path, mode).map_err(|errno| TransportError::os(errno, "chmod", object()))?;
    Ok(Listener { socket, path, locator })
}

impl Domain for ShmDomain {
    fn locators(&self) -> Vec<Locator> {
        self.listener.iter().map(|listener| listener.locator.clone()).collect()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == SCHEME
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        if !self.understands(to.scheme()) {
            return Err(TransportError::new(ErrorKind::InvalidAddress, "dial", to.to_string()));
        }
        let path = socket_path::from_body(to.body()).ok_or_else(|| {
            TransportError::new(ErrorKind::InvalidAddress, "dial", to.to_string())
                .hint("the body of a shm locator is the absolute path of a socket")
        })?;
        Ok(Box::new(ShmLink::dial(self.registry.clone(), path, owner)?))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(listener) = &self.listener else { return Ok(None) };
        let socket = match socket::accept(&listener.socket) {
            Ok(None) => return Ok(None),
            Ok(Some(socket)) => socket,
            Err(errno) => {
                return Err(TransportError::os(errno, "accept", listener.path.display().to_string()));
            }
        };
        Ok(Some(Box::new(ShmLink::accepted(self.registry.clone(), socket, owner)?)))
    }

    fn handle_event(&mut self, event: Event) {
        if event.key.sub == BELL && event.readable {
            let _ = rustix::io::read(&self.registry.bell, &mut [0; 8]);
            // Another thread may still sleep on it: whoever posts from now on must ring again.
            if self.sleeper.is_armed() {
                self.sleeper.arm(&self.registry.page.armed);
                self.registry.heavy();
            }
        }
    }

    fn poll_warm(&mut self, owners: &mut Vec<u32>) {
        if self.registry.hints.any() {
            self.registry.take_hints(owners);
        }
        self.warm_calls = self.warm_calls.wrapping_add(1);
        if self.warm_calls.is_multiple_of(LOOK_EVERY) {
            self.registry.look_at_all(owners);
        }
    }

    fn allocate_segment(&mut self, len: usize) -> Result<Option<Box<dyn Segment>>, TransportError> {
        let options = &self.registry.options;
        let wish = Wish { huge: options.huge_pages, numa: options.numa };
        let (segment, got) = ShmSegment::create(len, wish)?;
        self.registry.segment_got(got);
        Ok(Some(Box::new(segment)))
    }

    fn arm(&mut self) -> bool {
        self.sleeper.arm(&self.registry.page.armed);
        self.registry.heavy();
        !self.registry.last_look()
    }

    fn disarm(&mut self) {
        self.sleeper.disarm(&self.registry.page.armed);
    }
}

impl Drop for ShmDomain {
    fn drop(&mut self) {
        // A forked child shares the epoll set and the directory with its parent: they are not its to change.
        if self.registry.fork.forked() {
            return;
        }
        let _ = self.registry.poller.remove(&self.registry.bell);
        if let Some(listener) = &self.listener {
            let _ = self.registry.poller.remove(&listener.socket);
            let _ = std::fs::remove_file(&listener.path);
        }
    }
}
