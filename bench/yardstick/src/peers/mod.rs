//! The peers: other people's programs and libraries that do the same work. The runner calls them.
//! A peer that is not on the machine is named together with how to get it; nothing is measured in its place.

pub mod ucx;
pub mod zmq;

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The Debian packages of all peers.
const PACKAGES: [&str; 2] = ["ucx-utils", "libzmq5"];

/// Installs the peers with apt-get; needs root.
pub fn set_up() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "installing needs root: sudo apt-get install {}",
        PACKAGES.join(" ")
    );
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], &PACKAGES[..]].concat())
}

fn apt(arguments: &[&str]) -> Result<()> {
    println!("apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {}: {status}", arguments.join(" "));
    Ok(())
}
