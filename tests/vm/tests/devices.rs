//! What the field's own tools see of the guest's devices.

use sinew_vm_tests::run;

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
    assert_eq!(run("ibv_devices").matches("0").count() > 0, true);
}

#[test]
fn the_address_of_the_interface_is_in_the_table_of_the_device() {
    let table = run("ibv_devinfo -v -d rxe0");
    assert!(table.contains("::ffff:10.77.0."), "{table}");
}
