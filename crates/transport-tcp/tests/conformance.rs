//! TCP and Unix-domain sockets against the suite, bare and in every wrapper.

use sinew_transport::wrap::{fault::Faults, meter::Meter};
use sinew_transport_conformance::{Fixture, conformance};
use sinew_transport_tcp::{TcpTransport, UdsTransport};
use std::time::Duration;

const DELAY: Duration = Duration::from_millis(1);

conformance!(tcp, Fixture::new(TcpTransport::default()));
conformance!(tcp_faulty, Fixture::new(TcpTransport::default()).faulty(&Faults::new()));
conformance!(tcp_delayed, Fixture::new(TcpTransport::default()).delayed(DELAY));
conformance!(uds, Fixture::new(UdsTransport::default()));
conformance!(uds_faulty, Fixture::new(UdsTransport::default()).faulty(&Faults::new()));
conformance!(uds_delayed, Fixture::new(UdsTransport::default()).delayed(DELAY));
conformance!(uds_metered, Fixture::new(UdsTransport::default()).metered(&Meter::new()));
