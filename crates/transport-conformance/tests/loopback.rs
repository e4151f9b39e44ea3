//! The loopback transport against the suite, bare and in every wrapper.

use sinew_transport::loopback::Loopback;
use sinew_transport::wrap::{fault::Faults, meter::Meter};
use sinew_transport_conformance::{Fixture, conformance};
use std::time::Duration;

conformance!(loopback, Fixture::new(Loopback));
conformance!(loopback_faulty, Fixture::new(Loopback).faulty(&Faults::new()));
conformance!(loopback_delayed, Fixture::new(Loopback).delayed(Duration::from_millis(1)));
conformance!(loopback_metered, Fixture::new(Loopback).metered(&Meter::new()));
