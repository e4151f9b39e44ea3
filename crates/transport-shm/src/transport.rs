//! The transport itself: its name, whether it works here, and the making of domains.
//!
//! Called by the engine through [`Transport`].

use crate::ShmOptions;
use sinew_transport::{
    Availability, Capabilities, Cost, Domain, DomainContext, ErrorKind, Transport, TransportError,
};

/// The scheme of its locators; the body is the path of a socket.
pub const SCHEME: &str = "shm";

/// The shared-memory transport. Stateless but for its options.
#[derive(Clone, Debug, Default)]
pub struct ShmTransport {
    options: ShmOptions,
}

impl ShmTransport {
    /// A transport with these options; they are checked when a domain opens.
    #[must_use]
    pub fn new(options: ShmOptions) -> Self {
        Self { options }
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &ShmOptions {
        &self.options
    }
}

/// What lanes can do.
pub(crate) const CAPABILITIES: Capabilities =
    Capabilities { pull: true, view: true, memory_polled: true, local: true, death_detected: true };

/// What lanes cost on a present server, two copies: 60 ns, 40 GB/s.
pub(crate) const COST: Cost = Cost { latency_ns: 60, per_byte_ps: 25, overhead_ns: 10 };

impl Transport for ShmTransport {
    fn name(&self) -> &'static str {
        "shm"
    }

    #[cfg(all(target_os = "linux", target_endian = "little"))]
    fn probe(&self) -> Availability {
        let probed = self.options.check().and_then(|()| crate::half::create_domain_page());
        match probed {
            Ok(_) if self.options.membarrier && crate::sys::barrier::register() => {
                Availability::Usable("memfd with sealing, membarrier".into())
            }
            Ok(_) => Availability::Usable("memfd with sealing; fences, as there is no membarrier".into()),
            Err(error) => Availability::Missing(error),
        }
    }

    #[cfg(not(all(target_os = "linux", target_endian = "little")))]
    fn probe(&self) -> Availability {
        Availability::Missing(elsewhere())
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        (CAPABILITIES, COST)
    }

    #[cfg(all(target_os = "linux", target_endian = "little"))]
    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Ok(Box::new(crate::domain::ShmDomain::open(&self.options, &context)?))
    }

    #[cfg(not(all(target_os = "linux", target_endian = "little")))]
    fn open(&self, _context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Err(elsewhere())
    }
}

#[cfg_attr(all(target_os = "linux", target_endian = "little"), allow(dead_code))]
fn elsewhere() -> TransportError {
    TransportError::new(ErrorKind::Unavailable, "shared memory", std::env::consts::OS)
        .hint("the shared-memory transport needs Linux 5.1 on a little-endian processor; use uds or tcp")
}
