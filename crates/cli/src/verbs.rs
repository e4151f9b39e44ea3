//! The verbs devices of this machine as `sinew info` shows them: ports, addresses, the one that would be chosen and why; or why there
//! are none.

use crate::output::{Paint, Tone};
use serde::Serialize;

/// What verbs have to offer here.
#[derive(Serialize)]
pub(crate) struct Verbs {
    /// What was loaded, in which version, and what newer versions have besides; a library begins a line that is not indented.
    library: Vec<String>,
    devices: Vec<Device>,
    /// Why there are no devices, and what can be done.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Device {
    name: String,
    guid: Option<String>,
    transport: String,
    /// Whether it can be opened.
    works: bool,
    /// Why it does not work, and what can be done.
    reason: Option<String>,
    /// The kernel's driver of the hardware; nothing for a device of software.
    driver: Option<String>,
    firmware: Option<String>,
    numa_node: Option<u32>,
    ports: Vec<Port>,
    chosen: Option<Chosen>,
}

#[derive(Serialize)]
struct Port {
    number: u8,
    state: String,
    link_layer: String,
    mtu_active: Option<u32>,
    gbps: Option<f64>,
    lid: u16,
    gids: Vec<Gid>,
}

#[derive(Serialize)]
struct Gid {
    index: u32,
    gid: String,
    kind: String,
    interface: Option<String>,
}

/// What is used when nobody says.
#[derive(Serialize)]
struct Chosen {
    port: u8,
    gid_index: Option<u32>,
    gid: Option<String>,
    why: Vec<String>,
}

impl Verbs {
    /// Asks the library, which is opened for it.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    pub(crate) fn look() -> Self {
        here::look()
    }

    /// Only Linux on 64-bit processors has them.
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    pub(crate) fn look() -> Self {
        let reason = "verbs are for Linux on 64-bit processors; use the transports above here";
        Self { library: Vec::new(), devices: Vec::new(), reason: Some(reason.to_owned()) }
    }

    /// Each library, and how many functions of newer versions it lacks.
    fn libraries(&self) -> Vec<(&str, usize)> {
        let mut libraries = Vec::new();
        for line in &self.library {
            match (line.strip_prefix("  no "), libraries.last_mut()) {
                (Some(_), Some((_, lacks))) => *lacks += 1,
                (None, _) if line.starts_with("lib") => libraries.push((line.as_str(), 0)),
                _ => {}
            }
        }
        libraries
    }

    /// The lines below their heading.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for (library, lacks) in self.libraries() {
            let lacks = match lacks {
                0 => String::new(),
                1 => "; 1 function of newer ones is not there".to_owned(),
                more => format!("; {more} functions of newer ones are not there"),
            };
            text.push_str(&format!("  library {library}{lacks}\n"));
        }
        if let Some(reason) = &self.reason {
            text.push_str(&format!("  none    {}\n", reason.trim_end().replace('\n', "\n          ")));
        }
        for device in &self.devices {
            device.write(&mut text, paint);
        }
        text
    }
}

impl Device {
    fn write(&self, text: &mut String, paint: Paint) {
        let word =
            if self.works { paint.paint(Tone::Good, "works  ") } else { paint.paint(Tone::Bad, "missing") };
        let about = match &self.reason {
            Some(reason) => reason.clone(),
            None => {
                let firmware = self.firmware.as_deref().filter(|firmware| !firmware.is_empty());
                let firmware = firmware.map_or_else(String::new, |firmware| format!(", firmware {firmware}"));
                let driver =
                    self.driver.as_deref().map_or_else(String::new, |driver| format!(", driver {driver}"));
                let guid = self.guid.as_deref().map_or_else(String::new, |guid| format!(", GUID {guid}"));
                let node = self.numa_node.map_or_else(String::new, |node| format!(", NUMA node {node}"));
                format!("{}{driver}{firmware}{guid}{node}", self.transport)
            }
        };
        text.push_str(&format!("  {:<6} {word}  {about}\n", self.name));
        for port in &self.ports {
            let mtu = port.mtu_active.map_or_else(String::new, |mtu| format!(", packets of {mtu} bytes"));
            let speed = port.gbps.map_or_else(String::new, |gbps| format!(", {gbps} Gbit/s"));
            let lid = if port.lid == 0 { String::new() } else { format!(", LID {}", port.lid) };
            let (state, layer) = (&port.state, &port.link_layer);
            text.push_str(&format!("    port {}: {state}, {layer}{mtu}{speed}{lid}\n", port.number));
            for gid in &port.gids {
                let interface = gid.interface.as_deref().unwrap_or("");
                let line = format!("      GID {:<3} {}  {}  {interface}", gid.index, gid.gid, gid.kind);
                text.push_str(&format!("{}\n", line.trim_end()));
            }
        }
        if let Some(chosen) = &self.chosen {
            for (place, line) in chosen.why.iter().enumerate() {
                let line = if place == 0 { format!("chosen: {line}") } else { line.clone() };
                let line = if place == 0 { line } else { paint.paint(Tone::Faint, &line) };
                text.push_str(&format!("    {line}\n"));
            }
        }
    }
}

/// What asks.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod here {
    use super::{Chosen, Device, Gid, Port, Verbs};
    use sinew_verbs::device::Context;

    /// What to do on a machine without any.
    const NO_DEVICE: &str = "this machine has no RDMA device; where the kernel has the module rdma_rxe, \
        `rdma link add rxe0 type rxe netdev INTERFACE` makes one of a network interface";

    pub(super) fn look() -> Verbs {
        let nothing = |library, error: &dyn std::fmt::Display| Verbs {
            library,
            devices: Vec::new(),
            reason: Some(error.to_string()),
        };
        let library = match sinew_verbs::Library::open() {
            Ok(library) => library,
            Err(error) => return nothing(Vec::new(), &error),
        };
        let loaded = library.report().lines().skip(1).map(str::to_owned).collect();
        let list = match library.devices() {
            Ok(list) => list,
            Err(error) => return nothing(loaded, &error),
        };
        let devices: Vec<_> = list.iter().map(device).collect();
        let reason = devices.is_empty().then(|| NO_DEVICE.to_owned());
        Verbs { library: loaded, devices, reason }
    }

    /// The kernel's driver of a device's hardware.
    fn driver(name: &str) -> Option<String> {
        let link = std::fs::read_link(format!("/sys/class/infiniband/{name}/device/driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    fn device(device: sinew_verbs::device::Device<'_>) -> Device {
        let mut shown = Device {
            name: device.name().to_owned(),
            guid: device.guid().map(|guid| guid.to_string()),
            transport: format!("{:?}", device.transport_type()),
            works: false,
            reason: None,
            driver: driver(device.name()),
            firmware: None,
            numa_node: None,
            ports: Vec::new(),
            chosen: None,
        };
        match device.open().and_then(|context| ask(&context, &mut shown)) {
            Ok(()) => shown.works = true,
            Err(error) => shown.reason = Some(error.to_string()),
        }
        shown
    }

    fn ask(context: &Context, shown: &mut Device) -> sinew_verbs::Result<()> {
        shown.firmware = Some(context.attributes()?.firmware());
        shown.numa_node = context.numa_node();
        let table = context.gid_table()?;
        for port in context.ports()? {
            let of_port = table.iter().filter(|entry| entry.port == port.number());
            shown.ports.push(Port {
                number: port.number(),
                state: port.state().to_string(),
                link_layer: port.link_layer().to_string(),
                mtu_active: port.mtu_active().bytes(),
                gbps: port.gbps(),
                lid: port.lid(),
                gids: of_port
                    .map(|entry| Gid {
                        index: entry.index,
                        gid: entry.gid.to_string(),
                        kind: entry.kind.to_string(),
                        interface: entry.interface.clone(),
                    })
                    .collect(),
            });
        }
        let choice = context.choose_gid(None)?;
        shown.chosen = Some(Chosen {
            port: choice.port,
            gid_index: choice.entry.as_ref().map(|entry| entry.index),
            gid: choice.entry.as_ref().map(|entry| entry.gid.to_string()),
            why: choice.explanation.lines().map(str::to_owned).collect(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_shown_with_its_ports_addresses_and_the_choice() {
        let gid = |index, gid: &str| Gid {
            index,
            gid: gid.to_owned(),
            kind: "RoCE v2".to_owned(),
            interface: Some("eth0".to_owned()),
        };
        let port = Port {
            number: 1,
            state: "active".to_owned(),
            link_layer: "Ethernet".to_owned(),
            mtu_active: Some(1024),
            gbps: Some(10.0),
            lid: 0,
            gids: vec![gid(0, "fe80::1"), gid(1, "::ffff:10.0.0.1")],
        };
        let why = vec!["port 1, GID 1: routed".to_owned(), "not GID 0: this link only".to_owned()];
        let chosen = Chosen { port: 1, gid_index: Some(1), gid: Some("::ffff:10.0.0.1".to_owned()), why };
        let device = Device {
            name: "rxe0".to_owned(),
            guid: Some("0002:c903:0001:0203".to_owned()),
            transport: "InfiniBand".to_owned(),
            works: true,
            reason: None,
            driver: Some("mlx5_core".to_owned()),
            firmware: Some(String::new()),
            numa_node: Some(1),
            ports: vec![port],
            chosen: Some(chosen),
        };
        let library = [
            "libibverbs: /lib/libibverbs.so.1 (rdma-core 44)",
            "  no ibv_a: without a",
            "  no ibv_b: without b",
        ];
        let library =
            library.into_iter().chain(["librdmacm: /lib/librdmacm.so.1"]).map(str::to_owned).collect();
        let text = Verbs { library, devices: vec![device], reason: None }.text(Paint::for_stdout());
        assert_eq!(
            text,
            "  library libibverbs: /lib/libibverbs.so.1 (rdma-core 44); 2 functions of newer ones are not there\n  \
             library librdmacm: /lib/librdmacm.so.1\n  \
             rxe0   works    InfiniBand, driver mlx5_core, GUID 0002:c903:0001:0203, NUMA node 1\n    \
             port 1: active, Ethernet, packets of 1024 bytes, 10 Gbit/s\n      \
             GID 0   fe80::1  RoCE v2  eth0\n      \
             GID 1   ::ffff:10.0.0.1  RoCE v2  eth0\n    \
             chosen: port 1, GID 1: routed\n    \
             not GID 0: this link only\n"
        );
    }
}
