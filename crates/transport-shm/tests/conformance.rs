//! Shared memory against the suite, bare and in every wrapper.

use sinew_transport::wrap::{fault::Faults, meter::Meter};
use sinew_transport_conformance::{Fixture, conformance};
use sinew_transport_shm::{CrossRead, ShmOptions, ShmTransport};
use std::time::Duration;

conformance!(shm, Fixture::new(ShmTransport::default()));
conformance!(shm_across, Fixture::new(across()));
conformance!(shm_faulty, Fixture::new(ShmTransport::default()).faulty(&Faults::new()));
conformance!(shm_delayed, Fixture::new(ShmTransport::default()).delayed(Duration::from_millis(1)));
conformance!(shm_metered, Fixture::new(ShmTransport::default()).metered(&Meter::new()));

/// Reads all lent memory across.
fn across() -> ShmTransport {
    ShmTransport::new(ShmOptions { cross_read: CrossRead::From(1), ..ShmOptions::default() })
}
