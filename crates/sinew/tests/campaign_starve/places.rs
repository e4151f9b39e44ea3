//! Directories that take no socket: full, read-only, missing with a file in their place, with a path that is too long.

use crate::campaign::{rounds, seed};
use crate::common::{options, say, spawn_by};
use sinew::{BuildError, Engine};
use sinew_testing::skip;
use std::path::{Path, PathBuf};
use std::process::Command;

crate::on_lanes! { shm = "shm", uds = "uds"; [a_place_that_takes_no_socket_is_an_error_that_says_so] }

/// In a mount namespace of its own, where a small file system can be full without harm.
fn a_place_that_takes_no_socket_is_an_error_that_says_so(lane: &str) {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip!("mountns", "`unshare --mount` is refused or missing");
    }
    let (rounds, seed) = (rounds(), seed());
    let mut own = Command::new("unshare");
    own.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    let other = spawn_by(own, "places", lane, &[("ROUNDS", &rounds.to_string())]);
    println!("campaign starve/places/{lane}: {}, seed {seed}", other.line());
    other.finish();
}

fn mount(place: &Path, how: &str) {
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", how, "sinew-test"]).arg(place).status();
    assert!(done.is_ok_and(|done| done.success()), "mount {how}");
}

fn build(lane: &str, place: &Path) -> Result<Engine, BuildError> {
    let options = options().runtime_dir(place.to_owned());
    Engine::builder().domain("faults").options(options).transports([lane]).build()
}

pub(crate) fn child(lane: &str) {
    let base = std::env::temp_dir().join(format!("sinew-places-{}", std::process::id()));
    std::fs::create_dir(&base).unwrap();
    let at = |name: &str| {
        let place = base.join(name);
        std::fs::create_dir(&place).unwrap();
        place
    };
    let full = at("full");
    mount(&full, "size=8k,nr_inodes=4");
    std::fs::create_dir(full.join("run")).unwrap();
    let mut fillers = 0;
    while std::fs::write(full.join(format!("filler{fillers}")), vec![0; 4096]).is_ok() {
        fillers += 1;
    }
    let locked = at("locked");
    mount(&locked, "size=64k");
    std::fs::create_dir(locked.join("run")).unwrap();
    mount_again(&locked);
    let file = base.join("file");
    std::fs::write(&file, b"not a directory").unwrap();
    let long: PathBuf = base.join("l".repeat(120));
    let cases = [
        ("full", full.join("run"), &["space", "No space", "inode"][..]),
        ("read-only", locked.join("run"), &["Read-only", "read-only"][..]),
        ("a file", file.join("run"), &["Not a directory", "directory"][..]),
        ("too long", long, &["long", "SINEW_RUNTIME_DIR", "short"][..]),
    ];
    let rounds: u64 = std::env::var("ROUNDS").unwrap().parse().unwrap();
    let works = base.join("works");
    drop(build(lane, &works).expect("a place that takes sockets"));
    let before = crate::common::open_descriptors();
    let mut failed = 0u64;
    for round in 0..rounds {
        for (name, place, words) in &cases {
            match build(lane, place) {
                Err(error) => {
                    failed += 1;
                    let text = error.to_string();
                    if round == 0 {
                        eprintln!("{lane}, {name}: {text}");
                    }
                    assert!(words.iter().any(|word| text.contains(word)), "{name}: {text}");
                }
                Ok(engine) => {
                    assert_eq!(*name, "too long", "no socket can be there: {:?}", engine.absent());
                }
            }
        }
        assert_eq!(crate::common::open_descriptors(), before, "descriptors");
    }
    build(lane, &works).expect("a place that takes sockets");
    for mounted in [&full, &locked] {
        let _ = Command::new("umount").arg(mounted).status();
    }
    let _ = std::fs::remove_dir_all(&base);
    say(format!("{rounds} rounds, {failed} errors said why, 0 leaked"));
}

fn mount_again(place: &Path) {
    let done = Command::new("mount").args(["-o", "remount,ro"]).arg(place).status();
    assert!(done.is_ok_and(|done| done.success()), "read-only");
}
