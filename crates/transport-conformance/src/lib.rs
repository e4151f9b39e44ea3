//! One suite for every transport: what the traits of `sinew-transport` promise, checked on an implementation.
//!
//! A development dependency of the transports' own tests, and of anybody who writes one:
//!
//! ```ignore
//! sinew_transport_conformance::conformance!(loopback, Fixture::new(Loopback));
//! ```
//!
//! makes a module `loopback` with one `#[test]` per promise. A transport whose probe says that this machine cannot do it is
//! skipped, which is printed; where `SINEW_REQUIRE` names it, that fails instead. Both ends live in one process, each with
//! its own poller and domain, as two engines would. What each transport must be able to do stands in [`TABLE`].
#![deny(unsafe_code)]

pub mod checks;
mod harness;

pub use harness::{Got, Pair, Random, Side};

use sinew_transport::wrap::fault::{Faults, Faulty};
use sinew_transport::wrap::meter::{Meter, Metered};
use sinew_transport::{Availability, Capabilities, Transport};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// What one transport must be able to do.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The transport's name.
    pub transport: &'static str,
    /// Exactly these capabilities of the transport.
    pub capabilities: Capabilities,
    /// And these of its lanes inside this machine.
    pub lane: Capabilities,
    /// The system vouches that the peer is the same user.
    pub same_user: bool,
    /// Large `DATA` bodies go straight into the place that the sink names.
    pub places: bool,
    /// A borrowed post is released when the peer has it, not before: the lane makes no copy of its own.
    pub releases_at_delivery: bool,
}

const STREAM: Capabilities =
    Capabilities { pull: false, view: false, memory_polled: false, local: false, death_detected: true };
const LOCAL_STREAM: Capabilities = Capabilities { local: true, ..STREAM };
const LOOPBACK: Capabilities = Capabilities { memory_polled: true, ..LOCAL_STREAM };
const SHM: Capabilities = Capabilities { pull: true, view: true, ..LOOPBACK };

/// All transports that Sinew has. A wrapped transport must do what the one inside does.
pub const TABLE: &[Expected] = &[
    Expected {
        transport: "loopback",
        capabilities: LOOPBACK,
        lane: LOOPBACK,
        same_user: true,
        places: true,
        releases_at_delivery: true,
    },
    Expected {
        transport: "shm",
        capabilities: SHM,
        lane: SHM,
        same_user: true,
        places: false,
        releases_at_delivery: false,
    },
    Expected {
        transport: "tcp",
        capabilities: STREAM,
        lane: LOCAL_STREAM,
        same_user: false,
        places: true,
        releases_at_delivery: true,
    },
    Expected {
        transport: "uds",
        capabilities: LOCAL_STREAM,
        lane: LOCAL_STREAM,
        same_user: true,
        places: true,
        releases_at_delivery: true,
    },
];

/// A transport under test.
pub struct Fixture {
    /// The transport; opened once for each side.
    pub transport: Box<dyn Transport>,
    /// What it must be able to do.
    pub expected: Expected,
    /// Rounds of the wake-up check; ten thousand unless the transport is slowed on purpose.
    pub rounds: u64,
}

impl Fixture {
    /// A fixture for a transport of [`TABLE`].
    ///
    /// # Panics
    /// When the table does not have it.
    #[must_use]
    pub fn new(transport: impl Transport + 'static) -> Self {
        let name = transport.name();
        let expected = TABLE.iter().find(|row| row.transport == name);
        let expected = *expected.unwrap_or_else(|| panic!("`{name}` has no row in the conformance table"));
        Self::with(transport, expected)
    }

    /// A fixture for any other transport.
    #[must_use]
    pub fn with(transport: impl Transport + 'static, expected: Expected) -> Self {
        Self { transport: Box::new(transport), expected, rounds: 10_000 }
    }

    /// The same inside the fault wrapper.
    #[must_use]
    pub fn faulty(self, faults: &Faults) -> Self {
        Self { transport: Box::new(Faulty::new(self.transport, faults.clone())), ..self }
    }

    /// The same inside the fault wrapper, each frame delayed.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        let faults = Faults::new();
        faults.delay(delay);
        Self { rounds: 500, ..self.faulty(&faults) }
    }

    /// The same inside the counting wrapper.
    #[must_use]
    pub fn metered(self, meter: &Meter) -> Self {
        Self { transport: Box::new(Metered::new(self.transport, meter.clone())), ..self }
    }
}

/// Held shared by every check, and alone by those that count what the process has open.
static QUIET: RwLock<()> = RwLock::new(());

/// Runs one check, or prints that it is skipped.
///
/// # Panics
/// When the promise is broken, or when `SINEW_REQUIRE` names a transport that does not work here.
pub fn run(make: impl Fn() -> Fixture, check: fn(&dyn Fn() -> Fixture)) {
    let fixture = make();
    if let Availability::Missing(error) = fixture.transport.probe() {
        let name = fixture.transport.name();
        let required = std::env::var("SINEW_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|required| required.trim() == name),
            "SINEW_REQUIRE promises {name}, which does not work here: {error}"
        );
        println!("SKIP {name}: {error}");
        return;
    }
    drop(fixture);
    let _shared = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    check(&make);
}

/// As [`run`], while no other check runs in this process.
///
/// # Panics
/// As [`run`].
pub fn run_alone(make: impl Fn() -> Fixture, check: fn(&dyn Fn() -> Fixture)) {
    let _alone = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    let fixture = make();
    let usable = matches!(fixture.transport.probe(), Availability::Usable(_));
    drop(fixture);
    if usable {
        check(&make);
    }
}

/// Makes a module of tests for the transport that the expression makes: `conformance!(name, Fixture::new(Transport))`.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $fixture:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::conformance!(@tests $fixture, run:
                links::locators_parse_and_dial_their_domain,
                links::records_arrive_whole_and_in_order,
                links::a_full_link_takes_more_later,
                links::a_dial_that_nobody_answers_is_refused_by_type,
                links::a_foreign_address_is_no_address,
                links::a_dropped_link_ends_the_other,
                links::a_domain_that_listens_to_nobody_publishes_nothing,
                links::capabilities_are_those_of_the_table,
                frames::bodies_of_all_sizes_arrive_exact_and_in_order,
                frames::a_body_above_the_limit_is_refused_and_nothing_is_taken,
                frames::gathered_bodies_arrive_as_one,
                frames::what_was_peeked_and_taken_is_handed_up_by_no_poll,
                frames::a_full_lane_takes_more_after_progress,
                frames::both_directions_at_once_stay_in_order,
                frames::lanes_between_the_same_domains_do_not_mix,
                frames::unacknowledged_goes_to_zero_and_the_timer_with_it,
                borrowed::a_borrowed_post_is_released_once_and_its_memory_is_free_then,
                borrowed::a_release_never_overtakes_the_sink,
                borrowed::reclaimed_memory_is_not_read_again_and_the_frame_still_arrives,
                borrowed::a_reclaimed_body_under_way_arrives_as_it_was,
                placing::a_placed_body_is_written_where_the_sink_says,
                placing::a_discarded_body_is_read_aside,
                placing::a_revoked_place_is_never_written_again_and_the_lane_lives_on,
                endings::what_the_peer_saw_and_what_is_recovered_is_everything_in_order,
                endings::a_dead_lane_answers_the_same_for_ever,
                endings::recovered_borrows_are_not_released,
                endings::a_closed_lane_drains_and_ends_its_peer,
                sleeping::no_wake_up_is_lost_in_ten_thousand_rounds,
                sleeping::an_idle_lane_lets_its_engine_sleep,
                sleeping::a_cooled_lane_is_told_of,
                sleeping::a_cooled_lane_wakes_a_sleeping_domain,
                sleeping::the_end_of_the_peer_wakes_a_sleeper,
                sleeping::polling_by_others_does_not_silence_a_sleeper,
                faults::a_delayed_frame_leaves_no_earlier_and_in_order,
                faults::a_cut_lane_gives_back_what_its_peer_did_not_see,
                faults::a_cut_wakes_a_sleeper,
                faults::a_refused_dial_says_what_it_was_told_to_say,
                faults::a_black_hole_swallows_nothing_for_good,
                faults::a_black_hole_ends_after_the_peer_timeout,
                faults::records_are_repeated_swapped_and_corrupted_on_command,
                faults::only_probes_are_repeated,
                faults::a_meter_counts_what_passes,
                memory::described_memory_is_pulled,
                memory::recalled_memory_is_not_believed,
                memory::described_memory_is_viewed_and_outlives_its_lane,
                memory::lent_memory_is_read_where_it_lies,
                memory::a_forged_descriptor_is_an_error,
                memory::what_is_not_advertised_is_unsupported,
            );
            $crate::conformance!(@tests $fixture, run_alone:
                leaks::no_descriptor_is_left_open,
            );
        }
    };
    (@tests $fixture:expr, $run:ident: $($module:ident :: $check:ident,)+) => {
        $(#[test]
        fn $check() {
            $crate::$run(|| $fixture, $crate::checks::$module::$check);
        })+
    };
}
