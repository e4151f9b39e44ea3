//! What devices and ports say of themselves, compared with what rdma-core's `ibv_devinfo` and the kernel's files say of them.

mod common;

use common::devices;
use sinew_testing::skip;
use sinew_verbs::Error;
use sinew_verbs::device::{
    Context, DeviceAttributes, Guid, LinkLayer, PortAttributes, PortState, TransportType,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

/// What `ibv_devinfo -v` prints of a device: values by their label, the first of a kind. Nothing where the program is not installed.
fn devinfo(name: &str) -> Option<BTreeMap<String, String>> {
    let printed = Command::new("ibv_devinfo").args(["-v", "-d", name]).output().ok()?;
    assert!(printed.status.success(), "ibv_devinfo: {}", String::from_utf8_lossy(&printed.stderr));
    let mut values = BTreeMap::new();
    for line in String::from_utf8(printed.stdout).expect("text").lines() {
        if let Some((label, value)) = line.trim().split_once(":\t").or_else(|| line.trim().split_once(": ")) {
            values.entry(label.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
        }
    }
    Some(values)
}

macro_rules! devinfo {
    ($name:expr) => {
        match devinfo($name) {
            Some(said) => said,
            None => skip!("verbs", "rdma-core's ibv_devinfo is not installed"),
        }
    };
}

/// The number that begins a value, decimal or hexadecimal.
fn number(said: &BTreeMap<String, String>, label: &str) -> u64 {
    let value = said.get(label).unwrap_or_else(|| panic!("no {label:?} in {said:?}"));
    let digits = value.trim_start_matches("0x").split(|c: char| !c.is_ascii_hexdigit()).next().unwrap();
    let radix = if value.starts_with("0x") { 16 } else { 10 };
    u64::from_str_radix(digits, radix).unwrap_or_else(|error| panic!("{label}: {value:?}: {error}"))
}

/// The number in the brackets that end a value.
fn code(said: &BTreeMap<String, String>, label: &str) -> u32 {
    let value = &said[label];
    let inside = value.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{label}: {value:?}"))
}

/// What a file of the kernel's says of a device.
fn file(device: &str, path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/class/infiniband/{device}/{path}")).ok()?;
    Some(text.trim().to_owned())
}

fn guid(text: &str) -> u64 {
    u64::from_str_radix(&text.replace(':', ""), 16).expect("a GUID")
}

#[test]
fn the_devices_of_the_kernel_are_found_and_opened_by_name() {
    let Some(list) = devices(module_path!()) else { return };
    let kernels: BTreeSet<String> = fs::read_dir("/sys/class/infiniband")
        .expect("a machine with devices has the folder")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let ours: BTreeSet<String> = list.iter().map(|device| device.name().to_owned()).collect();
    assert_eq!(ours, kernels);
    assert_eq!((list.len(), list.is_empty()), (kernels.len(), false));
    for name in &kernels {
        assert_eq!(list.open(name).unwrap().name(), name);
        assert_eq!(sinew_verbs::open_device(name).unwrap().name(), name);
    }
    assert!(list.get(list.len()).is_none());
    let error = sinew_verbs::open_device("absent0").unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }), "{error}");
    assert!(kernels.iter().all(|name| error.to_string().contains(name)), "{error}");
}

#[test]
fn a_device_has_its_guid_its_way_to_speak_and_a_number_that_stays() {
    let Some(list) = devices(module_path!()) else { return };
    let again = sinew_verbs::devices().unwrap();
    let mut numbers = BTreeSet::new();
    for (device, same) in list.iter().zip(again.iter()) {
        let name = device.name();
        let kernels = guid(&file(name, "node_guid").expect("the kernel says it"));
        assert_eq!(device.guid().map_or(0, Guid::get), kernels, "{name}");
        assert_eq!(u64::from(device.guid().map_or(0, Guid::oui)), kernels >> 40, "{name}");
        // "1: CA", "4: RNIC" and so on.
        let speaks = file(name, "node_type").unwrap();
        let expected =
            if speaks.ends_with("RNIC") { TransportType::IWARP } else { TransportType::INFINIBAND };
        assert_eq!(device.transport_type(), expected, "{name}: {speaks}");
        match device.index() {
            Ok(number) => {
                assert_eq!(same.index().unwrap(), number, "{name}");
                assert!(numbers.insert(number), "{name} has another's number {number}");
            }
            Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
        }
    }
}

/// Each limit as C's program has it.
fn compare_attributes(name: &str, ours: &DeviceAttributes, said: &BTreeMap<String, String>) {
    let counts = [
        ("max_qp", ours.queue_pairs_max()),
        ("max_qp_wr", ours.requests_max()),
        ("max_sge", ours.elements_max()),
        ("max_sge_rd", ours.read_elements_max()),
        ("max_cq", ours.completion_queues_max()),
        ("max_cqe", ours.completions_max()),
        ("max_mr", ours.regions_max()),
        ("max_pd", ours.protection_domains_max()),
        ("max_qp_rd_atom", ours.responder_resources_max()),
        ("max_res_rd_atom", ours.responder_resources_total_max()),
        ("max_qp_init_rd_atom", ours.initiator_depth_max()),
        ("max_mw", ours.windows_max()),
        ("max_mcast_grp", ours.multicast_groups_max()),
        ("max_mcast_qp_attach", ours.multicast_members_max()),
        ("max_ah", ours.address_handles_max()),
        ("max_srq", ours.shared_receive_queues_max()),
        ("max_srq_wr", ours.shared_receives_max()),
        ("max_srq_sge", ours.shared_receive_elements_max()),
        ("max_pkeys", u32::from(ours.pkeys_max())),
        ("phys_port_cnt", ours.port_count()),
        ("vendor_id", ours.vendor_id()),
        ("vendor_part_id", ours.vendor_part_id()),
        ("hw_ver", ours.hardware_version()),
        ("qp_rate_limit_min", ours.packet_pacing().rate_min_kbps),
        ("qp_rate_limit_max", ours.packet_pacing().rate_max_kbps),
    ];
    for (label, count) in counts {
        assert_eq!(u64::from(count), number(said, label), "{label} of {name}");
    }
    assert_eq!(ours.region_len_max(), number(said, "max_mr_size"), "{name}");
    assert_eq!(ours.page_sizes(), number(said, "page_size_cap"), "{name}");
    assert_eq!(ours.capabilities().bits(), number(said, "device_cap_flags_ex"), "{name}");
    assert_eq!(ours.atomic_reach().as_raw(), code(said, "atomic_cap"), "{name}");
    assert_eq!(ours.ack_delay().as_nanos(), 4096 << number(said, "local_ca_ack_delay"), "{name}");
    assert_eq!(ours.firmware(), said["fw_ver"], "{name}");
    assert_eq!(ours.node_guid().get(), guid(&said["node_guid"]), "{name}");
    assert_eq!(ours.system_image_guid().get(), guid(&said["sys_image_guid"]), "{name}");
}

#[test]
fn the_limits_of_a_device_are_those_that_rdma_core_prints() {
    let Some(list) = devices(module_path!()) else { return };
    for device in &list {
        let said = devinfo!(device.name());
        let context = device.open().unwrap();
        compare_attributes(device.name(), &context.attributes().unwrap(), &said);
        assert_eq!(u64::from(context.completion_vectors()), number(&said, "num_comp_vectors"));
    }
}

fn compare_port(name: &str, ours: &PortAttributes, said: &BTreeMap<String, String>) {
    let codes = [
        ("state", ours.state().as_raw()),
        ("max_mtu", ours.mtu_max().as_raw()),
        ("active_mtu", ours.mtu_active().as_raw()),
        ("active_width", u32::from(ours.width().as_raw())),
        ("active_speed", ours.speed().as_raw()),
    ];
    for (label, ours) in codes {
        assert_eq!(ours, code(said, label), "{label} of {name}");
    }
    // Not printed where the device says nothing.
    if said.contains_key("phys_state") {
        assert_eq!(u32::from(ours.physical_state().as_raw()), code(said, "phys_state"), "{name}");
    }
    let numbers = [
        ("port_lid", u64::from(ours.lid())),
        ("port_lmc", u64::from(ours.lid_mask_bits())),
        ("sm_lid", u64::from(ours.subnet_manager_lid())),
        ("sm_sl", u64::from(ours.subnet_manager_service_level())),
        ("max_msg_sz", u64::from(ours.message_len_max())),
        ("port_cap_flags", u64::from(ours.capabilities())),
        ("port_cap_flags2", u64::from(ours.capabilities_2())),
        ("bad_pkey_cntr", u64::from(ours.bad_pkey_count())),
        ("qkey_viol_cntr", u64::from(ours.qkey_violation_count())),
        ("pkey_tbl_len", u64::from(ours.pkey_table_len())),
        ("gid_tbl_len", u64::from(ours.gid_table_len())),
    ];
    for (label, ours) in numbers {
        assert_eq!(ours, number(said, label), "{label} of {name}");
    }
    assert_eq!(ours.link_layer().to_string(), said["link_layer"], "{name}");
}

#[test]
fn a_port_says_what_rdma_core_prints_and_what_the_kernel_says() {
    let Some(list) = devices(module_path!()) else { return };
    for device in &list {
        let name = device.name();
        let said = devinfo!(name);
        let context = device.open().unwrap();
        let ports = context.ports().unwrap();
        assert_eq!(ports.len() as u64, number(&said, "phys_port_cnt"), "{name}");
        let port = &ports[0];
        assert_eq!(port.number(), 1);
        assert_eq!(port.link_layer().to_string(), file(name, "ports/1/link_layer").unwrap(), "{name}");
        // "4: ACTIVE"
        let state = file(name, "ports/1/state").unwrap();
        assert!(state.starts_with(&format!("{}: ", port.state().as_raw())), "{name}: {state}");
        assert_eq!(port.state() == PortState::ACTIVE, state.ends_with("ACTIVE"), "{name}: {state}");
        compare_port(name, port, &said);
        // "2.5 Gb/sec (1X SDR)"
        let rate = file(name, "ports/1/rate").expect("the kernel says it");
        assert_eq!(
            port.gbps().map(|gbps| gbps.to_string()).as_deref(),
            rate.split(' ').next(),
            "{name}: {rate}"
        );
        assert!(context.port(200).is_err(), "{name} has no port 200");
    }
}

/// The table of a port as the kernel's files have it: place, GID, kind, interface.
fn kernels_table(name: &str, places: u32) -> Vec<(u32, String, String, String)> {
    let mut table = Vec::new();
    for place in 0..places {
        // A place without a GID has no kind: the kernel answers an error.
        let Some(kind) = file(name, &format!("ports/1/gid_attrs/types/{place}")) else { continue };
        let Some(gid) = file(name, &format!("ports/1/gids/{place}")) else { continue };
        let interface = file(name, &format!("ports/1/gid_attrs/ndevs/{place}")).unwrap_or_default();
        table.push((place, gid, kind, interface));
    }
    table
}

#[test]
fn the_table_of_gids_is_the_kernels_with_kinds_and_interfaces() {
    let Some(list) = devices(module_path!()) else { return };
    let mut seen = 0;
    for device in &list {
        let context = device.open().unwrap();
        // iWARP devices have addresses that are no GIDs.
        if device.transport_type() != TransportType::INFINIBAND {
            continue;
        }
        let name = device.name();
        let kernels = kernels_table(name, context.port(1).unwrap().gid_table_len());
        let ours: Vec<_> = context
            .gid_table()
            .unwrap()
            .into_iter()
            .map(|entry| {
                assert_eq!(context.gid(entry.port, entry.index).unwrap(), entry.gid, "{name}");
                let segments = entry.gid.to_ipv6().segments().map(|segment| format!("{segment:04x}"));
                let interface = entry.interface.unwrap_or_default();
                (entry.index, segments.join(":"), entry.kind.to_string(), interface)
            })
            .collect();
        assert_eq!(ours, kernels, "{name}");
        seen += ours.len();
    }
    assert!(seen > 0, "a machine with devices of RoCE or InfiniBand has GIDs");
}

/// Whether the choice is usable, and says of every GID why it is the one or is not.
fn check_choice(context: &Context) {
    let name = context.name();
    let choice = context.choose_gid(None).unwrap();
    assert!(context.port(choice.port).unwrap().state().is_usable(), "{name}: {}", choice.explanation);
    let Some(chosen) = &choice.entry else {
        assert_ne!(context.port(choice.port).unwrap().link_layer(), LinkLayer::ETHERNET, "{name}");
        return;
    };
    for entry in context.gid_table().unwrap() {
        let line = |line: &&str| line.contains(&entry.gid.to_string());
        let said: Vec<_> = choice.explanation.lines().filter(line).collect();
        let is_chosen = (entry.port, entry.index) == (chosen.port, chosen.index);
        let fits = |said: &&str| said.starts_with("not ") != is_chosen;
        assert!(!said.is_empty() && said.iter().any(fits), "{name}: {entry:?} in {}", choice.explanation);
    }
}

#[test]
fn the_choice_of_a_gid_is_routed_where_there_is_one_and_names_all_others() {
    let Some(list) = devices(module_path!()) else { return };
    for device in list.iter().filter(|device| device.transport_type() == TransportType::INFINIBAND) {
        let context = device.open().unwrap();
        check_choice(&context);
        let routed = |entry: &sinew_verbs::device::GidEntry| !entry.gid.is_link_local();
        if context.gid_table().unwrap().iter().any(routed) {
            let chosen = context.choose_gid(None).unwrap().entry.unwrap();
            assert!(routed(&chosen), "{chosen:?}");
        }
        assert!(context.choose_gid(Some(200)).is_err());
    }
}
