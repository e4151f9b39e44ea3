//! What the safe calls pass to a provider, against what a program in C passes to the same one: names, order, and every argument.
//!
//! For what no device of a kernel without hardware has: SRD, extended connections, raw packets, thread domains, timestamps, on-demand paging, DMA-BUF,
//! device memory, a second port; and
//! for every request of connected queue pairs. The provider is the recorder in front of the device in software; the program in
//! `program/` is compiled with the headers of libibverbs (the installed ones, and those of newer suites where `cargo xtask test`
//! has fetched them), whose macros and inlines it uses as every program in C does. Needs headers
//! and a C compiler; without either a test is skipped by name. None of this was seen on hardware.

mod compare;
mod program;
mod safe;

use compare::{Difference, compare};
use program::{Setup, programs};
use sinew_testing::skip;
use sinew_verbs::Library;
use sinew_verbs_fake::{DeviceOptions, FakeDevice, Options};

/// One scenario: its name in C, the same with safe calls, the devices, and which queries of the device are part of it.
struct Scenario {
    name: &'static str,
    safe: fn(&Library, &Setup),
    device: fn() -> DeviceOptions,
    queries: &'static [&'static str],
}

fn one_port() -> DeviceOptions {
    DeviceOptions::numbered(0)
}

fn two_ports() -> DeviceOptions {
    let (first, second) = (DeviceOptions::numbered(0), DeviceOptions::numbered(1));
    DeviceOptions { ports: [first.ports, second.ports].concat(), ..DeviceOptions::numbered(0) }
}

/// Compares a scenario, or says why not.
macro_rules! same {
    ($name:ident, $device:expr $( , $query:literal )*) => {
        let queries = &[ $( $query ),* ];
        let scenario = Scenario { name: stringify!($name), safe: safe::$name, device: $device, queries };
        match compare(&scenario, 0) {
            Ok(lines) => println!("{}: {lines} calls are the same", scenario.name),
            Err(Difference::NoProgram(reason)) => skip!("verbs-headers", "{reason}"),
            Err(difference) => panic!("{}: {difference}", scenario.name),
        }
    };
}

#[test]
fn srd_is_made_and_posted_to_as_c_does() {
    same!(srd, || DeviceOptions::efa(0), "efadv_query_device");
}

#[test]
fn timestamps_are_asked_for_and_read_as_c_does() {
    same!(timestamps, one_port, "ibv_query_rt_values");
}

#[test]
fn the_clock_of_the_wall_is_asked_for_and_read_as_c_does() {
    same!(wall_clock, one_port, "ibv_query_rt_values");
}

#[test]
fn memory_is_paged_on_demand_and_advised_about_as_c_does() {
    same!(on_demand, one_port, "ibv_query_device_ex");
}

#[test]
fn memory_is_registered_with_relaxed_ordering_as_c_does() {
    same!(relaxed_ordering, one_port);
}

#[test]
fn a_dmabuf_is_registered_as_c_does() {
    same!(dmabuf, one_port);
}

#[test]
fn device_memory_is_allocated_copied_and_registered_as_c_does() {
    same!(device_memory, one_port);
}

#[test]
fn nothing_is_registered_as_c_does() {
    same!(null_region, one_port);
}

#[test]
fn every_port_is_asked_as_c_does() {
    same!(ports, two_ports, "ibv_query_port", "ibv_query_gid", "ibv_query_pkey");
}

#[test]
fn the_second_port_is_used_as_c_does() {
    same!(second_port, two_ports);
}

#[test]
fn events_are_moderated_as_c_does() {
    same!(moderation, one_port);
}

#[test]
fn receives_are_shared_as_c_does() {
    same!(shared_receives, one_port);
}

#[test]
fn every_request_is_posted_in_a_list_as_c_does() {
    same!(linked_requests, one_port);
}

#[test]
fn every_request_is_posted_by_extended_functions_as_c_does() {
    same!(extended_requests, one_port);
}

#[test]
fn windows_are_bound_and_closed_by_lists_as_c_does() {
    same!(linked_windows, one_port);
}

#[test]
fn windows_are_bound_and_closed_by_extended_functions_as_c_does() {
    same!(extended_windows, one_port);
}

#[test]
fn attributes_of_a_working_queue_pair_are_changed_as_c_does() {
    same!(rare_attributes, two_ports);
}

#[test]
fn rates_extensions_and_the_order_of_data_are_told_and_asked_as_c_does() {
    same!(tuning, one_port, "ibv_query_ece", "ibv_query_qp_data_in_order");
}

#[test]
fn domains_for_one_thread_are_made_as_c_does() {
    same!(thread_domain, one_port);
}

#[test]
fn extended_connections_are_made_and_posted_to_by_lists_as_c_does() {
    same!(linked_extended_connection, one_port, "ibv_get_srq_num");
}

#[test]
fn extended_connections_are_posted_to_by_extended_functions_as_c_does() {
    same!(extended_extended_connection, one_port, "ibv_get_srq_num");
}

#[test]
fn raw_packets_are_sent_and_steered_as_c_does() {
    same!(raw_packets, one_port);
}

#[test]
fn every_extended_attribute_is_the_one_that_c_reads() {
    let scenario = Scenario {
        name: "attributes",
        safe: safe::attributes,
        device: two_ports,
        queries: &["ibv_query_device_ex"],
    };
    match compare(&scenario, 0) {
        Ok(_) => {}
        Err(Difference::NoProgram(reason)) => skip!("verbs-headers", "{reason}"),
        Err(difference) => panic!("{difference}"),
    }
    let devices = vec![two_ports()];
    let (library, _control) = FakeDevice::new(Options { devices, ..Options::default() });
    let context = Library::with(library).devices().unwrap().open("fake0").unwrap();
    let own = context.attributes().unwrap();
    let (paging, pacing, pci) = (own.on_demand_paging(), own.packet_pacing(), own.pci_atomics());
    let moderation = own.moderation_max();
    let numbers = [
        own.timestamp_mask(),
        own.clock_khz(),
        paging.general,
        paging.rc.into(),
        paging.uc.into(),
        paging.ud.into(),
        paging.xrc.into(),
        pacing.rate_min_kbps.into(),
        pacing.rate_max_kbps.into(),
        pacing.services.into(),
        pci.0.into(),
        pci.1.into(),
        pci.2.into(),
        own.device_memory_len(),
        moderation.0.into(),
        moderation.1.into(),
        own.raw_packets().into(),
        own.port_count().into(),
    ];
    assert!(numbers.iter().all(|number| *number > 0), "the device says something of everything: {numbers:?}");
    for program in programs().expect("they ran just now") {
        assert_eq!(numbers, program.told(), "{}", program.include.display());
    }
}

#[test]
fn every_scenario_of_the_program_is_compared() {
    let sources = [
        include_str!("program/completions.c"),
        include_str!("program/connected.c"),
        include_str!("program/datagrams.c"),
        include_str!("program/extended.c"),
        include_str!("program/memory.c"),
    ];
    let lines = sources.iter().flat_map(|source| source.lines());
    let scenarios =
        lines.filter_map(|line| line.strip_prefix("int ")?.strip_suffix("(const struct setup *setup)"));
    let tests = include_str!("main.rs");
    let (compared, left_out): (Vec<_>, Vec<_>) = scenarios.partition(|name| {
        [format!("same!({name},"), format!("name: \"{name}\",")].iter().any(|use_of| tests.contains(use_of))
    });
    assert!(left_out.is_empty() && compared.len() >= 23, "left out: {left_out:?}; compared: {compared:?}");
}

#[test]
fn a_planted_difference_is_found_whatever_it_is() {
    let scenario = Scenario { name: "planted", safe: safe::planted, device: one_port, queries: &[] };
    if let Err(reason) = programs() {
        skip!("verbs-headers", "{reason}");
    }
    let same = compare(&scenario, 0);
    assert!(same.is_ok(), "nothing is planted: {same:?}");
    // Another flag, address, number, byte; a call more; a call less.
    let differing =
        ["ibv_reg_mr", "ibv_reg_mr", "ibv_alloc_dm", "ibv_memcpy_to_dm", "ibv_memcpy_to_dm", "ibv_free_dm"];
    for (number, call) in (1..).zip(differing) {
        let found = compare(&scenario, number).expect_err("a difference is planted");
        let Difference::Line { c, safe, .. } = &found else { panic!("{found}") };
        assert_ne!(c, safe);
        assert!(c.starts_with(call), "planted {number}: {found}");
        let text = found.to_string();
        assert!(text.contains(c.as_str()) && text.contains(safe.as_str()), "both lines are shown: {text}");
    }
}
