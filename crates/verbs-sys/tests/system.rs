//! Functions of the system's libibverbs, called through the table: what needs no device.
#![allow(unsafe_code)]

use sinew_testing::skip;
use sinew_verbs_sys::*;
use std::ffi::CStr;

fn text(pointer: *const core::ffi::c_char) -> String {
    assert!(!pointer.is_null());
    // SAFETY: the library's texts end in zero and live for ever.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

#[test]
fn the_library_knows_the_codes_of_its_time() {
    let Ok(library) = Library::open() else { skip!("libibverbs", "libibverbs.so.1 is not installed") };
    let verbs = library.verbs();
    let mut said = Vec::new();
    for &status in IbvWcStatus::ALL {
        // SAFETY: any number may be asked about.
        said.push((format!("{status}"), text(unsafe { (verbs.ibv_wc_status_str)(status) })));
    }
    for &state in IbvPortState::ALL {
        // SAFETY: any number may be asked about.
        said.push((format!("{state}"), text(unsafe { (verbs.ibv_port_state_str)(state) })));
    }
    for &event in IbvEventType::ALL.iter().filter(|event| **event != IbvEventType::DEVICE_SPEED_CHANGE) {
        // SAFETY: any number may be asked about.
        said.push((format!("{event}"), text(unsafe { (verbs.ibv_event_type_str)(event) })));
    }
    for (code, text) in said {
        assert!(!text.is_empty() && !text.starts_with("unknown"), "{code}: {text}");
    }
    // SAFETY: any number may be asked about.
    let unknown = text(unsafe { (verbs.ibv_wc_status_str)(IbvWcStatus(0xbeef)) });
    assert!(unknown.starts_with("unknown"), "{unknown}");
    assert_eq!(format!("{:?}", IbvWcStatus(0xbeef)), "Unknown(0xbeef)");
}

#[test]
fn rates_go_there_and_back() {
    let Ok(library) = Library::open() else { skip!("libibverbs", "libibverbs.so.1 is not installed") };
    let verbs = library.verbs();
    for &rate in IbvRate::ALL.iter().filter(|rate| **rate != IbvRate::RATE_MAX) {
        // SAFETY: these functions look at their argument alone.
        let (mbps, back) = unsafe {
            let mbps = (verbs.ibv_rate_to_mbps)(rate);
            (mbps, (verbs.mbps_to_ibv_rate)(mbps))
        };
        assert!(mbps > 0, "{rate}");
        assert_eq!(back, rate, "{mbps} Mbit/s");
    }
}

#[test]
fn devices_are_listed_or_there_is_a_reason() {
    let Ok(library) = Library::open() else { skip!("libibverbs", "libibverbs.so.1 is not installed") };
    let verbs = library.verbs();
    let mut count = -1;
    // SAFETY: the count lives through the call.
    let list = unsafe { (verbs.ibv_get_device_list)(&raw mut count) };
    match Errno::check_pointer(list) {
        Ok(list) => {
            let devices = usize::try_from(count).unwrap();
            // SAFETY: the list has so many devices and a null after them; each lives until the list is freed.
            unsafe {
                for device in 0..devices {
                    let device = *list.add(device);
                    let name = text((verbs.ibv_get_device_name)(device));
                    assert_eq!(name, text((*device).name.as_ptr()));
                }
                assert!((*list.add(devices)).is_null());
                (verbs.ibv_free_device_list)(list);
            }
        }
        // No kernel module, or no right to look.
        Err(errno) => assert_ne!(errno, Errno::UNKNOWN, "{errno}"),
    }
}
