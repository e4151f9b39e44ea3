//! The loopback transport against the suite.

use sinew_transport::loopback::Loopback;
use sinew_transport_conformance::Fixture;

sinew_transport_conformance::conformance!(loopback, Fixture::new(Loopback));
