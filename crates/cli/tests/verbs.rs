//! `sinew info` on a machine with RDMA devices, as the guest is: every device, port and address of the kernel's is shown, as text and as JSON.

use serde_json::Value;
use sinew_testing::skip;
use std::fs;
use std::process::Command;

/// The kernel's devices.
fn devices() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
    names.sort_unstable();
    names
}

/// What the kernel says of a device's first port.
fn file(device: &str, path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/class/infiniband/{device}/{path}")).ok()?;
    Some(text.trim().to_owned())
}

/// What `sinew info` prints, without options of the environment.
fn info(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SINEW_")) {
        command.env_remove(name);
    }
    let ran = command.arg("info").args(arguments).output().expect("the binary starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

#[test]
fn info_shows_each_device_with_ports_addresses_choice_and_the_library() {
    let names = devices();
    if names.is_empty() {
        skip!("verbs", "this machine has no RDMA device");
    }
    let text = info(&[]);
    let json: Value = serde_json::from_str(&info(&["--json"])).expect("JSON");
    let verbs = &json["verbs"];
    assert!(verbs["reason"].is_null(), "{verbs}");
    assert!(verbs["library"][0].as_str().expect("a line").starts_with("libibverbs: /"), "{verbs}");
    assert!(text.contains("library libibverbs: /"), "{text}");
    let shown: Vec<_> = verbs["devices"].as_array().expect("a list").iter().collect();
    let mut of_shown: Vec<_> = shown.iter().map(|device| device["name"].as_str().expect("a name")).collect();
    of_shown.sort_unstable();
    assert_eq!(of_shown, names);
    for device in shown {
        let name = device["name"].as_str().unwrap();
        assert!(text.contains(&format!("  {name:<6} works ")), "{name} in {text}");
        assert_eq!(device["works"], true, "{device}");
        let port = &device["ports"][0];
        // "4: ACTIVE"
        let state = file(name, "ports/1/state").expect("the kernel says it").to_lowercase();
        assert!(state.ends_with(port["state"].as_str().unwrap()), "{state}: {port}");
        let layer = file(name, "ports/1/link_layer").unwrap();
        assert_eq!(port["link_layer"], layer.as_str());
        assert!(
            text.contains(&format!("    port 1: {}, {layer}", port["state"].as_str().unwrap())),
            "{text}"
        );
        for gid in port["gids"].as_array().expect("a list") {
            let address = gid["gid"].as_str().expect("a GID");
            let index = gid["index"].as_u64().expect("its place");
            let kernels = file(name, &format!("ports/1/gids/{index}")).expect("the kernel has it");
            let parsed = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("a GID");
            assert_eq!(parsed(address), parsed(&kernels));
            assert!(text.contains(&format!("GID {index:<3} {address}")), "{address} in {text}");
        }
        let chosen = &device["chosen"];
        assert_eq!(chosen["port"], 1);
        let why = chosen["why"][0].as_str().expect("a reason");
        assert!(text.contains(&format!("chosen: {why}")), "{why} in {text}");
        assert!(why.contains(chosen["gid"].as_str().unwrap_or("no GID")), "{chosen}");
    }
}
