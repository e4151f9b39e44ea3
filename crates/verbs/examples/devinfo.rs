//! Prints the RDMA devices of this machine, as `ibv_devinfo` does: `devinfo [-v] [-d DEVICE]`.
//!
//! With `-v` everything that devices and ports say of themselves, the whole GID table, and why one GID would be chosen.

use sinew_verbs::device::{Context, DeviceList};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut verbose, mut wanted) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.len()) {
            ("-v", _) => verbose = true,
            ("-d", 1..) => wanted = arguments.next(),
            _ => {
                eprintln!("usage: devinfo [-v] [-d DEVICE]");
                return ExitCode::from(2);
            }
        }
    }
    match run(verbose, wanted.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("devinfo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verbose: bool, wanted: Option<&str>) -> sinew_verbs::Result<()> {
    let library = sinew_verbs::Library::open()?;
    if verbose {
        println!("{}\n", library.report());
    }
    let list = library.devices()?;
    if let Some(name) = wanted {
        return show(&list, &list.open(name)?, verbose);
    }
    if list.is_empty() {
        println!("no devices");
    }
    for device in &list {
        // One that cannot be opened does not hide the others.
        if let Err(error) = device.open().and_then(|context| show(&list, &context, verbose)) {
            println!("{}: {error}", device.name());
        }
    }
    Ok(())
}

fn show(list: &DeviceList, context: &Context, verbose: bool) -> sinew_verbs::Result<()> {
    let attributes = context.attributes()?;
    println!("device: {}", context.name());
    if let Some(device) = list.iter().find(|device| device.name() == context.name()) {
        println!("  transport: {:?}", device.transport_type());
    }
    println!("  firmware: {}", attributes.firmware());
    println!("  node GUID: {}", attributes.node_guid());
    println!("  vendor: {:#06x}, part {}", attributes.vendor_id(), attributes.vendor_part_id());
    match context.numa_node() {
        Some(node) => println!("  NUMA node: {node}"),
        None => println!("  NUMA node: not said"),
    }
    if verbose {
        println!("  completion vectors: {}", context.completion_vectors());
        println!("  {}", format!("{attributes:#?}").replace('\n', "\n  "));
    }
    let table = context.gid_table()?;
    for port in context.ports()? {
        println!("  port {}: {}, {}", port.number(), port.state(), port.link_layer());
        println!("    largest packet: {} of {} bytes", port.mtu_active(), port.mtu_max());
        if let Some(gbps) = port.gbps() {
            println!("    rate: {gbps} Gbit/s ({} {})", port.width(), port.speed());
        }
        if port.lid() != 0 {
            println!("    LID: {}, of the subnet manager {}", port.lid(), port.subnet_manager_lid());
        }
        if verbose {
            println!("    {}", format!("{port:#?}").replace('\n', "\n    "));
        }
        for entry in table.iter().filter(|entry| entry.port == port.number()) {
            let interface = entry.interface.as_deref().unwrap_or("");
            println!("    GID {}: {} {} {interface}", entry.index, entry.gid, entry.kind);
        }
    }
    let choice = context.choose_gid(None)?;
    let lines = if verbose { usize::MAX } else { 1 };
    for line in choice.explanation.lines().take(lines) {
        println!("  chosen: {line}");
    }
    Ok(())
}
