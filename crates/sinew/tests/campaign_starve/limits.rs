//! Limits of a process: descriptors, address space, size of files, locked memory, threads. Each test runs in a process of its
//! own, which lowers its limit to many places in turn and wants to connect and talk to an echo that has no limit.

use crate::campaign::{Random, rounds, seed};
use crate::common::{
    self, PATIENCE, content, engine_with, hear, open_descriptors, options, say, spawn, until,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sinew::{BuildError, Engine, EngineOptions, Progress, Security};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Texts of errors, without numbers, and how often they came.
#[derive(Default)]
struct Texts(BTreeMap<String, u64>);

impl Texts {
    /// An error must say what is short and what can be done.
    fn add(&mut self, error: &str, words: &[&str]) {
        assert!(words.iter().any(|word| error.contains(word)), "names neither cause nor remedy: {error}");
        let line = error.lines().find(|line| words.iter().any(|word| line.contains(word))).unwrap_or(error);
        let text: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        *self.0.entry(text.trim().to_owned()).or_default() += 1;
    }

    fn print(&self) {
        for (text, count) in &self.0 {
            eprintln!("  {count} × {text}");
        }
    }
}

fn set(resource: Resource, now: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: now.or(maximum), maximum }).expect("a lower limit");
}

/// Mappings of this process.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count())
}

fn quick() -> EngineOptions {
    options().connect_timeout(Duration::from_secs(3)).handshake_timeout(Duration::from_secs(2))
}

fn build(lane: &str) -> Result<Engine, BuildError> {
    Engine::builder().domain("faults").options(quick()).transports([lane]).build()
}

/// Connects to an echo and has messages of all lengths come back; an error says at what it failed.
fn talk(engine: &Engine, echo: &str) -> Result<(), String> {
    talk_by(engine, echo, true)
}

fn talk_by(engine: &Engine, echo: &str, with_loan: bool) -> Result<(), String> {
    let endpoint = engine.endpoint("").map_err(|error| error.to_string())?;
    let peer = endpoint.connect(echo).map_err(|error| error.to_string())?;
    let mut buf = vec![0; 200_000];
    for (number, len) in [8, 5000, 60_000, 200_000].into_iter().enumerate() {
        let sent = content(len, number as u64);
        peer.send(number as u64, &sent).map_err(|error| error.to_string())?;
        let got = endpoint.recv(number as u64, &mut buf).map_err(|error| error.to_string())?;
        assert!(buf[..got.len] == sent, "whatever comes is whole");
    }
    if !with_loan {
        return Ok(());
    }
    // A loan, where the lane has memory for it.
    let mut loan = peer.alloc(150_000).map_err(|error| error.to_string())?;
    loan.as_mut_slice().expect("writable").copy_from_slice(&content(150_000, 9));
    peer.post_send(9, loan)
        .map_err(|failed| failed.to_string())?
        .wait()
        .map_err(|failed| failed.to_string())?;
    let got = endpoint.recv(9, &mut buf).map_err(|error| error.to_string())?;
    assert!(buf[..got.len] == content(150_000, 9), "whatever comes is whole");
    Ok(())
}

const DESCRIPTORS: [&str; 3] = ["ulimit -n", "descriptor", "Too many open files"];

/// Runs a role beside an echo and prints its result.
fn campaign(role: &str, lane: &str) {
    let (rounds, seed) = (rounds(), seed());
    let mut echo = spawn("echo", lane, &[]);
    let vars = [("ECHO", echo.line()), ("ROUNDS", rounds.to_string()), ("SEED", seed.to_string())];
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let other = spawn(role, lane, &vars);
    let result = other.line_within(PATIENCE * 10 + Duration::from_secs(5) * rounds as u32);
    println!("campaign starve/{role}/{lane}: {rounds} rounds, {result}, seed {seed}");
    other.finish();
    // The echo has been through all that, too: it still answers.
    let engine = build(lane).unwrap();
    talk(&engine, &var("ECHO_AGAIN", &mut echo)).expect("the echo goes on");
    echo.tell("end");
    echo.finish();
}

/// The echo's address, asked for again.
fn var(_: &str, echo: &mut common::Other) -> String {
    echo.tell("address");
    echo.line()
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap()
}

fn number(name: &str) -> u64 {
    env(name).parse().unwrap()
}

crate::on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    no_descriptor_left_is_an_error_that_says_so,
    no_descriptor_left_to_accept_with_harms_nobody_else,
    no_address_space_left_is_an_error_that_says_so,
    a_limit_of_file_size_is_an_error_or_no_matter,
    no_memory_may_be_locked_and_none_is,
] }

fn no_descriptor_left_is_an_error_that_says_so(lane: &str) {
    campaign("descriptors", lane);
}

fn no_descriptor_left_to_accept_with_harms_nobody_else(lane: &str) {
    campaign("accepting", lane);
}

fn no_address_space_left_is_an_error_that_says_so(lane: &str) {
    campaign("address space", lane);
}

fn a_limit_of_file_size_is_an_error_or_no_matter(lane: &str) {
    campaign("file size", lane);
}

fn no_memory_may_be_locked_and_none_is(lane: &str) {
    campaign("locked memory", lane);
}

#[test]
fn no_thread_left_is_an_error_that_says_so() {
    if !rustix::process::geteuid().is_root() {
        sinew_testing::skip!("root", "only root can become another user, for whom the limit counts");
    }
    campaign("threads", "tcp");
}

/// Leaves this process so many descriptors and no more, wherever the numbers in use lie: the limit is one of numbers.
fn leave_descriptors(count: u64) {
    let probes: Vec<_> = (0..=count).map(|_| File::open("/dev/null").expect("a descriptor")).collect();
    set(Resource::Nofile, probes.last().map(|first_too_many| first_too_many.as_raw_fd() as u64));
}

/// What a round may not leave behind.
fn left() -> (usize, usize) {
    (open_descriptors(), common::threads())
}

/// Limits from none to plenty; each works or says why not, and when the limit is gone all works.
pub(crate) fn descriptors(lane: &str) {
    let (echo, mut random) = (env("ECHO"), Random::new(number("SEED")));
    talk(&build(lane).unwrap(), &echo).expect("without a limit");
    let before = left();
    let (mut texts, mut worked, mut running) = (Texts::default(), 0, 0);
    for round in 0..number("ROUNDS") {
        // Every place from none on, again and again.
        let more = round % 14;
        let late = random.in_thousand(300);
        let engine = if late { Some(build(lane).unwrap()) } else { None };
        leave_descriptors(more);
        let result = match engine {
            Some(engine) => Ok(engine),
            None => build(lane).map_err(|error| error.to_string()),
        };
        match result.and_then(|engine| talk(&engine, &echo).map(|()| engine)) {
            Ok(engine) => {
                worked += 1;
                // None is left at all while it runs: what is connected goes on.
                set(Resource::Nofile, Some(1));
                talk(&engine, &echo).unwrap_or_else(|error| texts.add(&error, &DESCRIPTORS));
                running += 1;
            }
            Err(error) => texts.add(&error, &DESCRIPTORS),
        }
        set(Resource::Nofile, None);
        until("nothing is left behind", || left() == before);
    }
    texts.print();
    let failed: u64 = texts.0.values().sum();
    assert!(worked > 0 && failed > 0, "{worked} worked, {failed} did not");
    talk(&build(lane).unwrap(), &echo).expect("without a limit again");
    say(format!(
        "{worked} worked, {running} of them without any descriptor left, {failed} said why not, 0 leaked"
    ));
}

/// A listener without descriptors: whoever is connected goes on, whoever comes is told, and the processor is not burnt.
pub(crate) fn accepting(lane: &str) {
    let echo = env("ECHO");
    let server = engine_with(lane, Progress::Thread { cpu: None }, quick());
    let at = server.endpoint("").unwrap();
    let client = build(lane).unwrap();
    let endpoint = client.endpoint("").unwrap();
    let to_server = endpoint.connect(at.address()).unwrap();
    let exchange = |round: u64| {
        to_server.send(round, &content(9000, round)).expect("the connected one goes on");
        let mut buf = vec![0; 9000];
        assert_eq!(at.recv(round, &mut buf).unwrap().len, 9000);
        assert!(buf == content(9000, round));
    };
    exchange(0);
    let before = left();
    let (mut texts, mut ticks, mut refused) = (Texts::default(), 0, 0);
    for round in 1..=number("ROUNDS").div_ceil(10) {
        // Another process comes while this one has no descriptor: it is told, or waits until there is one.
        let mut other = spawn_late(lane, &at.address().to_string());
        until("it is there", || other.is_ready());
        set(Resource::Nofile, Some(1));
        let used = common::processor_ticks(std::process::id());
        other.go();
        for part in 0..20 {
            exchange(round * 100 + part);
            std::thread::sleep(Duration::from_millis(10)); // The time in which it must not spin.
        }
        ticks += common::processor_ticks(std::process::id()) - used;
        set(Resource::Nofile, None);
        match other.result().as_str() {
            "ok" => {}
            error => {
                refused += 1;
                texts.add(
                    error,
                    &["no answer in time", "closed", "descriptor", "the other program makes no progress"],
                );
            }
        }
        other.finish();
        let again = build(lane).unwrap();
        again.endpoint("").unwrap().connect(at.address()).expect("now there are descriptors");
        drop(again);
        until("nothing is left behind", || left() == before);
    }
    texts.print();
    talk(&build(lane).unwrap(), &echo).expect("without a limit again");
    say(format!(
        "{refused} were told, the others waited; {ticks} ticks of 10 ms of processor meanwhile, 0 leaked"
    ));
}

/// A client in another process that waits for the word before it connects.
struct Late(common::Other);

fn spawn_late(lane: &str, address: &str) -> Late {
    Late(spawn("echo", lane, &[("CONNECT", address)]))
}

impl Late {
    fn is_ready(&self) -> bool {
        self.0.line() == "ready"
    }

    fn go(&mut self) {
        self.0.tell("go");
    }

    fn result(&self) -> String {
        self.0.line()
    }

    fn finish(self) {
        self.0.finish();
    }
}

fn virtual_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn thread_names() -> impl Iterator<Item = String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
}

/// Gives the heap so many bytes that it keeps, so that it asks the system for nothing while a limit is met.
#[allow(unsafe_code)]
fn furnish_heap(bytes: usize) {
    // SAFETY: options of the allocator, with values that its documentation allows.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
    let blocks: Vec<Vec<u8>> = (0..bytes >> 20).map(|_| vec![1; 1 << 20]).collect();
    drop(std::hint::black_box(blocks));
}

/// What can be mapped is an error when it cannot be: the stack of a thread, a ring, hints, a segment. The heap is given room
/// before: a program that has none left for a few bytes is ended by the allocator, as every Rust program is.
pub(crate) fn address_space(lane: &str) {
    const HEAP: usize = 64 << 20;
    furnish_heap(HEAP);
    let (echo, mut random) = (env("ECHO"), Random::new(number("SEED")));
    // So that later rounds need nothing for the first time.
    talk(&build(lane).unwrap(), &echo).expect("without a limit");
    let (before, maps) = (left(), mappings());
    let (mut texts, mut worked, mut failed) = (Texts::default(), 0, BTreeMap::<&str, u64>::new());
    for round in 0..number("ROUNDS") {
        let progress = if round % 2 == 0 { Progress::Caller } else { Progress::Thread { cpu: None } };
        let builder = || Engine::builder().domain("faults").options(quick()).transports([lane]);
        let make = || builder().progress(progress).build();
        let late = random.in_thousand(300).then(|| make().unwrap());
        if late.is_some() && progress != Progress::Caller {
            // A thread has its name after the stack of its signals, without which the standard library ends the process.
            until("its thread runs", || thread_names().any(|name| name.trim() == "sinew"));
        }
        let room = match (round % 8, progress) {
            // The last allocation only.
            (7, _) => 48 << 20,
            // Too little for the stack of a thread. With next to nothing the standard library ends the process, as a thread
            // that has begun maps a stack for its signals.
            (_, Progress::Thread { .. }) if late.is_none() => (1 << 20) + random.below(1 << 19),
            // Little, so that each mapping in turn is the first that does not fit.
            _ => random.below(5 << 20),
        };
        set(Resource::As, Some(virtual_bytes() + room));
        let built = late.map_or_else(|| make().map_err(|error| ("build", error.to_string())), Ok);
        let result = built.and_then(|engine| {
            talk(&engine, &echo).map_err(|error| ("talk", error))?;
            let taken = engine.alloc(room as usize + (64 << 20)).map(drop);
            taken.map_err(|error| ("alloc", error.to_string()))
        });
        let words = ["memory", "address space", "ulimit -v", "ask for less"];
        match result {
            Ok(()) => worked += 1,
            Err((at, error)) => {
                *failed.entry(at).or_default() += 1;
                texts.add(&error, &words);
            }
        }
        set(Resource::As, None);
        until("nothing is left behind", || left() == before);
    }
    texts.print();
    talk(&build(lane).unwrap(), &echo).expect("without a limit again");
    let at: Vec<String> = failed.iter().map(|(at, count)| format!("{count} at {at}")).collect();
    say(format!(
        "{worked} worked, {} said why not ({}), {} mappings more than before, 0 leaked",
        failed.values().sum::<u64>(),
        at.join(", "),
        mappings().saturating_sub(maps)
    ));
    assert!(
        number("ROUNDS") < 20 || lane != "shm" || failed.len() > 1,
        "not the last allocation only: {at:?}"
    );
}

/// Memory that is shared is a file for the system; no signal ends the process.
pub(crate) fn file_size(lane: &str) {
    let (echo, mut random) = (env("ECHO"), Random::new(number("SEED")));
    // What a process keeps once is there from now on.
    talk(&build(lane).unwrap(), &echo).expect("without a limit");
    let before = left();
    let (mut texts, mut worked) = (Texts::default(), 0);
    for _ in 0..number("ROUNDS") {
        let most = 1 << (12 + random.below(14));
        set(Resource::Fsize, Some(random.below(most)));
        let result = build(lane).map_err(|error| error.to_string()).and_then(|engine| talk(&engine, &echo));
        match result {
            Ok(()) => worked += 1,
            Err(error) => texts.add(&error, &["ulimit -f", "file size", "RLIMIT_FSIZE"]),
        }
        // All transports: another one carries it.
        let all = Engine::builder().domain("faults").options(quick()).build().expect("an engine");
        talk_by(&all, &echo, false).unwrap_or_else(|error| assert_eq!(lane, "shm", "{error}"));
        drop(all);
        set(Resource::Fsize, None);
        until("nothing is left behind", || left() == before);
    }
    texts.print();
    let failed: u64 = texts.0.values().sum();
    assert!(lane == "shm" || failed == 0, "sockets need no file");
    assert!(lane != "shm" || failed > 0, "the limit was reached");
    talk(&build(lane).unwrap(), &echo).expect("without a limit again");
    say(format!("{worked} worked, {failed} said why not, 0 leaked"));
}

pub(crate) fn locked_memory(lane: &str) {
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).expect("a lower limit");
    talk(&build(lane).unwrap(), &env("ECHO")).expect("nothing of it needs locked memory");
    let before = left();
    for _ in 0..number("ROUNDS").div_ceil(10) {
        talk(&build(lane).unwrap(), &env("ECHO")).expect("nothing of it needs locked memory");
        until("nothing is left behind", || left() == before);
    }
    say("all worked, 0 leaked");
}

/// As a user for whom the limit counts.
pub(crate) fn threads(_lane: &str) {
    // A user that nobody else is; the echo is open to all.
    let user = 60_000 + std::process::id() % 5000;
    let id = rustix::process::Uid::from_raw(user);
    rustix::thread::set_thread_uid(id).expect("another user");
    let place = std::env::temp_dir().join(format!("sinew-threads-{user}"));
    std::fs::create_dir(&place).unwrap();
    let build = |progress| {
        Engine::builder()
            .domain("faults")
            .security(Security::Open)
            .options(quick().runtime_dir(place.join("run")))
            .progress(progress)
            .transports(["tcp"])
            .build()
    };
    drop(build(Progress::Caller).expect("without a limit"));
    let before = left();
    let mut texts = Texts::default();
    for _ in 0..number("ROUNDS") {
        set(Resource::Nproc, Some(0));
        let words = ["thread", "ulimit -u"];
        let error = build(Progress::Thread { cpu: None }).expect_err("no thread may be made").to_string();
        texts.add(&error, &words);
        let engine = build(Progress::Caller).expect("who needs no thread");
        // A name is resolved by a thread.
        let error = engine.endpoint("").unwrap().connect("tcp://localhost:1/x").unwrap_err().to_string();
        texts.add(&error, &["thread", "nobody listens", "refused"]);
        drop(engine);
        set(Resource::Nproc, None);
        let engine = build(Progress::Thread { cpu: None }).expect("now there are threads");
        drop(engine);
        until("nothing is left behind", || left() == before);
    }
    texts.print();
    let _ = std::fs::remove_dir_all(&place);
    say(format!("{} errors said why, 0 leaked", texts.0.values().sum::<u64>()));
    let _ = hear();
}
