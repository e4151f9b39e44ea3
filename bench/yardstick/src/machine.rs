//! What the machine is, in words: figures mean little without it. Pages and JSON of measurements begin with it.
//! It reads files of the system and asks installed peers for their versions; what it cannot learn it leaves out.

use std::fs;
use std::process::Command;

/// Names and values, each one line: processor, kernel, memory, settings that move results, versions of the peers.
pub fn describe() -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let cpu = read("/proc/cpuinfo").unwrap_or_default();
    let memory = read("/proc/meminfo").unwrap_or_default();
    let cpus = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let rows = [
        ("processor", field(&cpu, "model name").map(|name| format!("{name}, {cpus} of them usable"))),
        ("caches of one core", caches()),
        ("memory", field(&memory, "MemTotal")),
        ("huge pages", read("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("huge pages of shared memory", read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        ("kernel", read("/proc/version").map(|text| text.split(" (").next().unwrap_or_default().to_owned())),
        ("TCP congestion control", read("/proc/sys/net/ipv4/tcp_congestion_control")),
        ("congestion controls allowed", read("/proc/sys/net/ipv4/tcp_allowed_congestion_control")),
        ("load when it began", read("/proc/loadavg")),
        ("UCX", first_line("ucx_info", "-v")),
    ];
    rows.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|value| !value.is_empty())?)))
        .collect()
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn caches() -> Option<String> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let mut found = Vec::new();
    for number in 0..8 {
        let read = |name: &str| fs::read_to_string(format!("{folder}/index{number}/{name}")).ok();
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else {
            break;
        };
        found.push(format!("L{} {} {}", level.trim(), kind.trim().to_lowercase(), size.trim()));
    }
    (!found.is_empty()).then(|| found.join(", "))
}

fn first_line(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim_start_matches(['#', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_the_start_of_its_line() {
        let text = "processor : 0\nmodel name\t: Some: thing\nMemTotal:   24 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some: thing"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("24 kB"));
        assert_eq!(field(text, "absent"), None);
    }

    #[test]
    fn the_machine_has_a_processor_and_a_kernel_and_no_empty_rows() {
        let rows = describe();
        assert!(rows.iter().any(|(name, _)| name == "kernel"), "{rows:?}");
        assert!(rows.iter().all(|(_, value)| !value.is_empty()), "{rows:?}");
    }
}
