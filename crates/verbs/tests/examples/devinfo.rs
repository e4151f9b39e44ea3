//! `devinfo` beside C's `ibv_devinfo -v`: whatever both print of a device and its port is the same.

use super::example;
use sinew_testing::skip;
use sinew_vm_tests::run;
use std::collections::BTreeMap;
use std::time::Duration;

/// What C's program calls a value, and what ours does.
type Pair = (&'static str, &'static str);

const DEVICE: [Pair; 39] = [
    ("hca_id", "device"),
    ("transport", "transport"),
    ("fw_ver", "firmware"),
    ("node_guid", "node_guid"),
    ("sys_image_guid", "system_image_guid"),
    ("vendor_id", "vendor_id"),
    ("vendor_part_id", "vendor_part_id"),
    ("hw_ver", "hardware_version"),
    ("phys_port_cnt", "port_count"),
    ("max_mr_size", "region_len_max"),
    ("page_size_cap", "page_sizes"),
    ("max_qp", "queue_pairs_max"),
    ("max_qp_wr", "requests_max"),
    ("max_sge", "elements_max"),
    ("max_sge_rd", "read_elements_max"),
    ("max_cq", "completion_queues_max"),
    ("max_cqe", "completions_max"),
    ("max_mr", "regions_max"),
    ("max_pd", "protection_domains_max"),
    ("max_qp_rd_atom", "responder_resources_max"),
    ("max_res_rd_atom", "responder_resources_total_max"),
    ("max_qp_init_rd_atom", "initiator_depth_max"),
    ("atomic_cap", "atomics"),
    ("max_mw", "windows_max"),
    ("max_mcast_grp", "multicast_groups_max"),
    ("max_mcast_qp_attach", "multicast_members_max"),
    ("max_ah", "address_handles_max"),
    ("max_srq", "shared_receive_queues_max"),
    ("max_srq_wr", "shared_receives_max"),
    ("max_srq_sge", "shared_receive_elements_max"),
    ("max_pkeys", "pkeys_max"),
    ("general_odp_caps", "general"),
    ("rc_odp_caps", "rc"),
    ("uc_odp_caps", "uc"),
    ("ud_odp_caps", "ud"),
    ("xrc_odp_caps", "xrc"),
    ("qp_rate_limit_min", "rate_min_kbps"),
    ("qp_rate_limit_max", "rate_max_kbps"),
    ("num_comp_vectors", "completion vectors"),
];

const PORT: [Pair; 18] = [
    ("port", "number"),
    ("state", "state"),
    ("max_mtu", "mtu_max"),
    ("active_mtu", "mtu_active"),
    ("sm_lid", "subnet_manager_lid"),
    ("port_lid", "lid"),
    ("port_lmc", "lid_mask_bits"),
    ("link_layer", "link_layer"),
    ("max_msg_sz", "message_len_max"),
    ("port_cap_flags", "capabilities"),
    ("port_cap_flags2", "capabilities_2"),
    ("bad_pkey_cntr", "bad_pkey_count"),
    ("qkey_viol_cntr", "qkey_violation_count"),
    ("sm_sl", "subnet_manager_service_level"),
    ("pkey_tbl_len", "pkey_table_len"),
    ("gid_tbl_len", "gid_table_len"),
    ("active_width", "width"),
    ("phys_state", "physical_state"),
];

/// What C prints and ours does not, or not as a value by itself: the first five are compared by hand.
const ONLY_C: [&str; 25] = [
    "device_cap_flags",
    "device_cap_flags_ex",
    "Unknown flags",
    "local_ca_ack_delay",
    "active_speed",
    "max_ee_rd_atom",
    "max_ee_init_rd_atom",
    "max_ee",
    "max_rdd",
    "max_raw_ipv6_qp",
    "max_raw_ethy_qp",
    "max_total_mcast_qp_attach",
    "max_fmr",
    "tso_caps",
    "max_tso",
    "rss_caps",
    "max_rwq_indirection_tables",
    "max_rwq_indirection_table_size",
    "rx_hash_function",
    "rx_hash_fields_mask",
    "max_wq_type_rq",
    "packet_pacing_caps",
    "max_vl_num",
    "subnet_timeout",
    "init_type_reply",
];

/// Words for the same, C's first.
const WORDS: [Pair; 6] = [
    ("PORT_ACTIVE", "active"),
    ("LINK_UP", "link up"),
    ("ATOMIC_HCA", "device"),
    ("1X", "1x"),
    ("NO SUPPORT", "0"),
    ("", "0"),
];

/// Values of a text of lines `key: value`, the first of each key. Lines without a colon belong to the value before them.
fn values(text: &str) -> BTreeMap<&str, String> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let mut last = "";
    for line in text.lines().map(str::trim) {
        match line.split_once(':') {
            Some((key, value)) => {
                last = key.trim();
                values.entry(last).or_insert_with(|| value.trim().trim_end_matches(',').to_owned());
            }
            None if line.ends_with("not supported") || line.ends_with('{') => {}
            None if !line.contains(char::is_alphanumeric) => {}
            None => {
                let value = values.entry(last).or_default();
                *value = format!("{value} {line}").trim().to_owned();
            }
        }
    }
    values
}

/// Numbers as numbers, whatever their base; no numbers behind words; words as ours.
fn normal(value: &str) -> String {
    let value = value.split(" (").next().unwrap_or("").trim_end_matches("kbps").trim_matches('"');
    let number = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    let word = WORDS.iter().find(|(c, _)| *c == value).map_or(value, |(_, ours)| ours);
    number.map_or_else(|_| word.to_owned(), |number| number.to_string())
}

fn compare(c: &BTreeMap<&str, String>, ours: &BTreeMap<&str, String>, pairs: &[Pair]) {
    let known = |key: &&&str| {
        key.starts_with("GID[") || ONLY_C.contains(key) || pairs.iter().any(|(theirs, _)| theirs == *key)
    };
    let unknown: Vec<_> = c.keys().filter(|key| !known(key)).collect();
    assert!(unknown.is_empty(), "C prints {unknown:?} too");
    for (theirs, own) in pairs {
        let value = |of: &BTreeMap<&str, String>, key: &str, who: &str| {
            normal(of.get(key).unwrap_or_else(|| panic!("{who} does not print {key}: {of:?}")))
        };
        assert_eq!(value(c, theirs, "C"), value(ours, own, "ours"), "{theirs}, {own}");
    }
}

#[test]
fn devinfo_says_what_c_says() {
    let Some(program) = example("devinfo") else {
        skip!("verbs", "examples run in the guest: `cargo xtask vm test examples`")
    };
    let (c, ours) = (run("ibv_devinfo -v -d rxe0"), run(&format!("{program} -v -d rxe0")));
    let (c_device, c_port) = c.split_once("num_comp_vectors").expect("the last of the device");
    let (count, c_port) = c_port.split_once('\n').expect("its ports");
    let c_device = format!("{c_device}num_comp_vectors{count}");
    let (of_device, of_port) = ours.split_once("Port {").expect("our ports");
    let (c_device, c_port) = (values(&c_device), values(c_port));
    let of_device =
        of_device.split_once("device: ").map(|(_, rest)| format!("device: {rest}")).expect("ours");
    let (of_device, of_port) = (values(&of_device), values(of_port));
    compare(&c_device, &of_device, &DEVICE);
    compare(&c_port, &of_port, &PORT);

    // 4096 ns, doubled so often.
    let delay: u32 = c_device["local_ca_ack_delay"].parse().expect("a number");
    assert_eq!(of_device["ack_delay"], format!("{:?}", Duration::from_nanos(4096 << delay)));
    // "2.5 Gbps (1)"
    let gbps = c_port["active_speed"].split(' ').next().expect("a number");
    assert!(ours.contains(&format!("rate: {gbps} Gbit/s (1x ")), "{gbps}: {ours}");
    // Names where both know them, and the bits that C does not.
    let names = &c_device["device_cap_flags"];
    let mut names: Vec<_> = names.split_whitespace().skip(1).collect();
    let rest = c_device.get("Unknown flags").map(|bits| bits.to_lowercase());
    names.extend(rest.as_deref());
    let flags = &of_device["capabilities"];
    let own: Vec<_> = flags.trim_matches(&[',', ')'][..]).split(" | ").collect();
    let own: Vec<_> =
        own.iter().map(|name| name.trim_start_matches("Capabilities(").trim_matches([' ', ','])).collect();
    assert_eq!(names, own);
    // "GID[  1]:		::ffff:10.77.0.1, RoCE v2"
    let gids: Vec<_> = c.lines().filter_map(|line| line.trim().strip_prefix("GID[")).collect();
    assert!(!gids.is_empty(), "{c}");
    for gid in gids {
        let (index, gid) = gid.split_once("]:").expect("a GID");
        let line = format!("GID {}: {}", index.trim(), gid.trim().replace(", ", " "));
        assert!(ours.contains(&line), "{line}: {ours}");
    }
}
