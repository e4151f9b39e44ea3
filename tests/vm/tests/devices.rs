//! What the field's own tools see of the guest's devices.

use sinew_vm_tests::run;
use std::process::Command;

#[test]
fn every_device_that_was_asked_for_is_seen_with_an_active_port() {
    let devices = std::env::var("SINEW_VM_DEVICES").unwrap();
    assert!(!devices.is_empty());
    for device in devices.split(' ') {
        let said = run(&format!("ibv_devinfo -v -d {device}"));
        assert!(said.contains("PORT_ACTIVE"), "{said}");
        let transport = if device.starts_with("rxe") { "InfiniBand (0)" } else { "iWARP (1)" };
        assert!(said.contains(transport), "{said}");
    }
}

#[test]
fn the_address_of_the_interface_is_in_the_table_of_the_device() {
    let table = run("ibv_devinfo -v -d rxe0");
    assert!(table.contains("::ffff:10.77.0."), "{table}");
}

#[test]
fn every_program_of_the_field_finds_its_libraries() {
    let mut looked_at = 0;
    for entry in std::fs::read_dir("/usr/bin").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let others = ["rping", "ucmatose", "udaddy", "mckey", "rstream", "rdma_server", "rdma_client"];
        if !name.starts_with("ibv_") && !name.starts_with("ib_") && !others.contains(&name.as_str()) {
            continue;
        }
        looked_at += 1;
        let listed = Command::new(&path).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("libibverbs.so.1") && !listed.contains("not found"), "{name}: {listed}");
    }
    assert!(looked_at > 20, "only {looked_at} programs are there");
}
