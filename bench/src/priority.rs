//! A high priority for everything that the runner starts: keeps other work off the two cores on a shared machine.
//! `main` calls it once. Real-time classes are not used: two programs that spin would lock each other out.

use std::fs;

use anyhow::{Context, Result};

/// Where the kernel keeps the priority of a session's group of processes, which outweighs that of each of them.
const GROUP: &str = "/proc/self/autogroup";
const HIGHEST: i32 = -19;

/// Raises this process, and so every program it starts from now on, above all ordinary work. Needs root.
pub fn raise() -> Result<()> {
    // A session of our own, so that the shell we came from stays as it was; one that leads a group has its own already.
    let _ = rustix::process::setsid();
    rustix::process::setpriority_process(None, HIGHEST).context("--first needs root")?;
    if fs::exists(GROUP).unwrap_or(false) {
        fs::write(GROUP, HIGHEST.to_string()).with_context(|| format!("--first cannot write {GROUP}"))?;
    }
    Ok(())
}
