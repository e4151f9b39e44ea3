//! What the system refuses at set-up comes back as an error that says why and what helps, never as a signal.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{Engine, Helper, Scratch, argument, descriptors, options, tell};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sinew_transport::{Availability, ErrorKind, Transport, TransportError};
use sinew_transport_shm::{ShmOptions, ShmTransport};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn open(options: ShmOptions) -> Result<Engine, TransportError> {
    Engine::try_open(options, 1)
}

fn refusal(options: ShmOptions) -> TransportError {
    match open(options) {
        Ok(_) => panic!("opened"),
        Err(error) => {
            assert!(!error.hint.is_empty(), "no hint: {error}");
            error
        }
    }
}

/// Provokes one refusal in this process, which it spoils.
#[test]
#[ignore = "a child of other tests"]
fn child_that_is_refused() {
    let Some(argument) = argument() else { return };
    let (what, directory) = argument.split_once(' ').expect("two words");
    // Should a check be missing, this child is the one to be killed for it, and nobody else.
    std::fs::write("/proc/self/oom_score_adj", "1000").expect("first victim");
    let options = options(Path::new(directory));
    let limit = |resource, most| {
        let hard = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: Some(most), maximum: hard }).expect("limited");
    };
    let error = match what {
        "fsize" => {
            limit(Resource::Fsize, 1024);
            refusal(options)
        }
        "nofile" => {
            // Room for the poller and one more.
            limit(Resource::Nofile, descriptors() as u64 + 2);
            refusal(options)
        }
        "seccomp" => {
            refuse_memfd();
            let Availability::Missing(error) = ShmTransport::new(options.clone()).probe() else {
                panic!("usable without memfd");
            };
            assert_eq!(refusal(options), error);
            error
        }
        "cgroup" => {
            let mut engine = open(options).expect("small things fit");
            match engine.domain.allocate_segment(1 << 30) {
                Ok(_) => panic!("a gibibyte in a group of 64 mebibytes"),
                Err(error) => error,
            }
        }
        "space" => {
            let mut engine = open(options).expect("small things fit");
            match engine.domain.allocate_segment(1 << 46) {
                Ok(_) => panic!("64 tebibytes"),
                Err(error) => error,
            }
        }
        _ => panic!("{what}"),
    };
    tell(&format!("{:?} {error}", error.kind));
}

/// From here on `memfd_create` answers EPERM, as in some containers.
fn refuse_memfd() {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number; memfd_create is refused, all else allowed.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_memfd_create as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives through the call; only this process and thread are affected.
    let answers = unsafe {
        (
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program),
        )
    };
    assert_eq!(answers, (0, 0), "seccomp");
}

fn provoke(what: &str) -> String {
    let scratch = Scratch::new();
    Helper::start("child_that_is_refused", &format!("{what} {}", scratch.0.display())).hear()
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let said = provoke("fsize");
    assert!(said.starts_with("Limit") && said.contains("ulimit -f"), "{said}");
}

#[test]
fn too_few_descriptors_are_an_error_that_says_so() {
    let said = provoke("nofile");
    assert!(said.starts_with("Limit") && said.contains("ulimit -n"), "{said}");
}

#[test]
fn a_sandbox_without_memfd_is_an_error_that_says_so() {
    let said = provoke("seccomp");
    assert!(said.starts_with("PermissionDenied") && said.contains("seccomp"), "{said}");
}

#[test]
fn more_memory_than_there_is_is_an_error_and_no_signal() {
    let said = provoke("space");
    assert!(said.starts_with("Limit"), "{said}");
}

/// A memory control group that goes away with the value.
struct Group(PathBuf);

impl Group {
    fn make(bytes: u64) -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/cgroup")?;
        let old = text.lines().find_map(|line| line.split_once(":memory:"));
        let base = match old {
            Some((_, path)) => Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')),
            None => {
                let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
                Path::new("/sys/fs/cgroup").join(path)
            }
        };
        let group = Self(base.join(format!("sinew-test-{}", std::process::id())));
        std::fs::create_dir(&group.0)?;
        let limit = if old.is_some() { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(group.0.join(limit), bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_control_group_without_room_is_an_error_and_no_kill() {
    let Ok(group) = Group::make(64 << 20) else {
        println!("SKIP no memory control group can be made here");
        return;
    };
    let scratch = Scratch::new();
    let mut command = std::process::Command::new("sh");
    let binary = std::env::current_exe().expect("this binary");
    let script = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
    command.arg("-c").arg(script).arg(&group.0).arg(binary);
    let argument = format!("cgroup {}", scratch.0.display());
    let mut child = Helper::start_with(command, "child_that_is_refused", &argument);
    let said = child.hear();
    child.kill();
    assert!(said.starts_with("Limit") && said.contains("control group"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_trusted_is_refused() {
    let scratch = Scratch::new();
    let link = scratch.0.join("link");
    let real = scratch.0.join("real");
    std::fs::create_dir(&real).expect("made");
    std::os::unix::fs::symlink(&real, &link).expect("linked");
    assert_eq!(refusal(options(&link)).kind, ErrorKind::PermissionDenied);
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o777)).expect("mode");
    assert_eq!(refusal(options(&real)).kind, ErrorKind::PermissionDenied);
    assert_eq!(refusal(options(&scratch.0.join("missing/parent"))).kind, ErrorKind::Refused);
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o700)).expect("mode");
    drop(open(options(&real)).expect("a good one"));
    if std::os::unix::fs::chown(&real, Some(12_345), None).is_ok() {
        let error = refusal(options(&real));
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert!(error.hint.contains("another user"), "{error}");
    } else {
        println!("SKIP cannot give a directory away here");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let error = refusal(options(Path::new("/sys/kernel")));
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn a_path_beyond_a_socket_address_works_and_one_beyond_a_locator_says_so() {
    let scratch = Scratch::new();
    let long = scratch.0.join("l".repeat(110));
    std::fs::create_dir(&long).expect("made");
    let mut left = Engine::open(options(&long), 1);
    let mut right = Engine::open(options(&long), 2);
    assert!(right.locator().body().len() > 107);
    common::pair(&mut left, &mut right);
    let longer = scratch.0.join("l".repeat(180));
    std::fs::create_dir(&longer).expect("made");
    let error = refusal(options(&longer));
    assert_eq!(error.kind, ErrorKind::Limit);
    assert!(error.hint.contains("runtime_dir"), "{error}");
}

#[test]
fn dialling_nobody_and_nonsense_says_so() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    for (to, kind) in [
        ("shm:/nowhere/at/all.sock", ErrorKind::Refused),
        ("shm:relative", ErrorKind::InvalidAddress),
        ("tcp:10.0.0.1:1", ErrorKind::InvalidAddress),
    ] {
        let error = engine.domain.dial(&to.parse().expect("locator"), 9).err().expect("refused");
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let scratch = Scratch::new();
    let good = options(&scratch.0);
    for bad in [
        ShmOptions { ring_slots: 100, ..good.clone() },
        ShmOptions { large_window: 100_000, ..good.clone() },
        ShmOptions { chunk_max: 256 << 10, ..good.clone() },
        ShmOptions { frame_max: 100, ..good.clone() },
        ShmOptions { small_max: 1 << 20, ..good },
    ] {
        assert_eq!(refusal(bad).kind, ErrorKind::Unsupported);
    }
}
