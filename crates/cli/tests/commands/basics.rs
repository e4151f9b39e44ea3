//! What holds for every command: help, exit codes, errors, colour, closed pipes.

use crate::tool::{Room, finish, has};

const COMMANDS: [&str; 5] = ["perf", "info", "explain", "listen", "send"];

#[test]
fn every_help_page_has_examples_and_exit_codes() {
    let room = Room::new();
    for command in COMMANDS {
        let text = room.run([command, "--help"]).succeeded().text();
        has(&text, &["Usage:", "Examples:\n  sinew ", "Exit codes:", "  0  ", "  1  ", "  2  "]);
        assert!(text.contains(&format!("sinew {command}")), "{text}");
    }
    let text = room.run(["--help"]).succeeded().text();
    has(&text, &COMMANDS);
    has(&text, &["Examples:", "Exit codes:"]);
    assert!(!text.contains("responder"), "the second process is nobody's command:\n{text}");
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_would_be_right() {
    let room = Room::new();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["pref"], &["perf"]),
        (&["perf", "--transport", "ipx"], &["ipx", "shm, uds, tcp", "auto"]),
        (&["perf", "--op", "speed"], &["latency", "bandwidth", "rate"]),
        (&["perf", "--sizes", "8,4x"], &["4x", "8,64,4k,1m"]),
        (&["perf", "--sizes", ""], &["8,64,4k,1m"]),
        (&["perf", "--sizes", "2g"], &["1g"]),
        (&["perf", "--iterations", "0"], &["0", "1.."]),
        (&["perf", "--iterations", "5", "--seconds", "1"], &["--iterations", "--seconds"]),
        (&["perf", "--secret-file", "absent"], &["--secret-file", "--listen", "--connect"]),
        (&["perf", "--insecure"], &["--insecure", "--listen", "--connect"]),
        (&["explain", "nonsense"], &["nonsense", "tcp://HOST:PORT"]),
        (&["listen", "ipx://x"], &["ipx", "tcp://0.0.0.0:4000"]),
    ];
    for (args, parts) in cases {
        has(room.run(args).failed_with(2), parts);
    }
}

#[test]
fn an_unknown_option_in_the_environment_is_refused_with_a_suggestion() {
    let room = Room::new();
    let wrong = |command: &[&str]| {
        let child = room.sinew(command).env("SINEW_EAGRE_MAX", "1").spawn().expect("the binary starts");
        finish(child)
    };
    has(wrong(&["info"]).failed_with(2), &["SINEW_EAGRE_MAX", "SINEW_EAGER_MAX"]);
    has(wrong(&["listen"]).failed_with(2), &["SINEW_EAGER_MAX"]);
}

#[test]
fn beyond_this_machine_nothing_happens_without_a_secret_or_a_name_for_its_absence() {
    let room = Room::new();
    for args in [
        &["listen", "tcp://0.0.0.0:0"][..],
        &["perf", "--listen", "tcp://0.0.0.0:0"],
        &["send", "tcp://192.0.2.1:9", "--message", "x"],
        &["perf", "--connect", "tcp://192.0.2.1:9"],
        &["explain", "tcp://192.0.2.1:9"],
    ] {
        let ran = room.run(args);
        has(ran.failed_with(2), &["refused", "--secret-file", "--insecure", "head -c 32 /dev/urandom"]);
    }
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let room = Room::new();
    let secret = room.file("open-secret", b"0123456789abcdef0123456789abcdef");
    let status = std::process::Command::new("chmod").arg("644").arg(&secret).status();
    assert!(status.is_ok_and(|status| status.success()));
    let path = secret.display().to_string();
    has(
        room.run(["listen", "tcp://127.0.0.1:0", "--secret-file", &path]).failed_with(2),
        &["chmod 600", &path],
    );
    let short = room.secret("short", b"short").display().to_string();
    has(room.run(["listen", "tcp://127.0.0.1:0", "--secret-file", &short]).failed_with(2), &["at least 16"]);
    let absent = room.run(["listen", "tcp://127.0.0.1:0", "--secret-file", "absent"]);
    has(absent.failed_with(2), &["absent", "No such file"]);
}

#[test]
fn output_that_is_closed_early_ends_a_command_quietly() {
    let room = Room::new();
    for args in [
        &["info", "--options"][..],
        &[
            "perf",
            "--transport",
            "uds",
            "--op",
            "latency",
            "--sizes",
            "8,8,8",
            "--iterations",
            "50",
            "--no-pin",
        ],
        &["perf", "--help"],
    ] {
        let mut child = room.sinew(args).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let ran = finish(child);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
}

#[test]
fn nothing_is_coloured_where_nobody_looks_or_no_color_is_set() {
    let room = Room::new();
    for no_color in [false, true] {
        let mut command = room.sinew(["info"]);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let ran = finish(command.spawn().expect("the binary starts")).succeeded();
        assert!(!ran.out.contains(&0x1b), "{}", ran.text());
    }
}

/// `script` gives the command a terminal.
#[test]
fn no_color_is_respected_on_a_terminal() {
    let room = Room::new();
    let on_terminal = |no_color: &str| {
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &format!("{} info", env!("CARGO_BIN_EXE_sinew")), "/dev/null"]);
        command.env("NO_COLOR", no_color).env("TERM", "xterm").env("SINEW_RUNTIME_DIR", room.path("run"));
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.spawn().map(finish)
    };
    let (Ok(plain), Ok(coloured)) = (on_terminal("1"), on_terminal("")) else {
        sinew_testing::skip!("script", "the program `script` (util-linux) is not installed");
    };
    assert!(!plain.out.contains(&0x1b), "{plain:?}");
    assert!(coloured.out.contains(&0x1b), "{coloured:?}");
}
