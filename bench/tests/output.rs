//! What the program says when nobody can hear it.

use std::process::{Command, Stdio};

#[test]
fn a_full_disk_and_a_closed_pipe_are_errors_that_say_so() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let (reader, closed) = std::io::pipe().expect("a pipe");
    drop(reader);
    for (name, output) in [("full", Stdio::from(full)), ("closed", closed.into())] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_sinew-bench"));
        let ended = bench.arg("--list").stdout(output).stderr(Stdio::piped()).output().expect("started");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains("cannot write to standard output") && !said.contains("panicked"),
            "{name}: {said}"
        );
    }
}
