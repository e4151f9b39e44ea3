//! Installs what a fresh machine lacks: Debian packages as root, cargo tools where a step asks for them.
//!
//! Called by `test`, `bench --setup` and nobody else. It installs nothing that is there already, and says what it lacks
//! when it may not install; the tests that need it then print their SKIP.

use crate::process;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);

/// A program, or the whole path of another file, and the Debian package that brings it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) used_for: &'static str,
}

/// What tests call.
pub(crate) const FOR_TESTS: [Tool; 7] = [
    Tool { program: "cc", package: "gcc", used_for: "linking" },
    Tool { program: "unshare", package: "util-linux", used_for: "tests in namespaces of their own" },
    Tool { program: "ip", package: "iproute2", used_for: "tests with network interfaces of their own" },
    Tool { program: "strace", package: "strace", used_for: "tests that count system calls" },
    Tool {
        program: "/usr/include/infiniband/verbs.h",
        package: "libibverbs-dev",
        used_for: "comparing declarations with headers; brings libibverbs itself",
    },
    Tool {
        program: "/usr/include/rdma/rdma_cma.h",
        package: "librdmacm-dev",
        used_for: "comparing declarations with headers; brings librdmacm itself",
    },
    Tool {
        program: "/etc/libibverbs.d/rxe.driver",
        package: "ibverbs-providers",
        used_for: "tests of the drivers' extras",
    },
];

/// Whether a program is on the path, or a file is where its whole path says.
pub(crate) fn has(program: &str) -> bool {
    if program.starts_with('/') {
        return std::path::Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// Installs the packages of missing tools. Answers one sentence for each tool that stays missing.
///
/// # Errors
/// When the log cannot be written.
pub(crate) fn install(tools: &[Tool], log: &Path) -> Result<Vec<String>> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !has(tool.program)).collect();
    if !missing.is_empty() && may_install() {
        let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
        install_packages(&packages, log)?;
    }
    let still = missing.into_iter().filter(|tool| !has(tool.program));
    Ok(still
        .map(|tool| {
            format!("{} is missing ({}): apt-get install {}", tool.program, tool.used_for, tool.package)
        })
        .collect())
}

/// Installs Debian packages; `false` when that failed.
///
/// # Errors
/// When the log cannot be written.
pub(crate) fn install_packages(packages: &[&str], log: &Path) -> Result<bool> {
    println!("      installing {}", packages.join(" "));
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    if process::run(&mut apt, log, LIMIT)?.ok {
        return Ok(true);
    }
    process::run(Command::new("apt-get").arg("update"), log, LIMIT)?;
    Ok(process::run(&mut apt, log, LIMIT)?.ok)
}

/// Root on a Debian.
pub(crate) fn may_install() -> bool {
    rustix::process::geteuid().is_root() && has("apt-get")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_or_not_at_all() {
        assert!(has("sh"));
        assert!(!has("no-program-has-this-name"));
        assert!(has("/proc/self/status"));
        assert!(!has("/no/file/has/this/name"));
    }

    #[test]
    fn nothing_missing_installs_nothing() {
        let tools = [Tool { program: "sh", package: "no-such-package", used_for: "this test" }];
        assert!(install(&tools, Path::new("/nonexistent/log")).unwrap().is_empty());
    }
}
