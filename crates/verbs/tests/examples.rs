//! The examples, in the guest: against C's programs of the same names, against themselves, and where they must fail.
//!
//! The suite `examples` of `tests/vm/suites.toml` builds them beside this program. Elsewhere they are not run: what they do needs a device,
//! and rdma-core's programs.

#[path = "examples/devinfo.rs"]
mod devinfo;

use sinew_testing::skip;
use sinew_vm_tests::{Program, address, run};

const ITERS: u32 = 100;

/// The command of an example on the guest's device, or nothing outside of the guest.
fn example(name: &str) -> Option<String> {
    if std::env::var_os("SINEW_VM").is_none() {
        assert!(
            !sinew_testing::is_required("verbs"),
            "the examples are required here, but this is not the guest"
        );
        return None;
    }
    let own = std::env::current_exe().expect("the path of this program");
    let folder = own.parent().and_then(|deps| deps.parent()).expect("a folder of cargo's").join("examples");
    let program = folder.join(name);
    assert!(program.is_file(), "{} is not built", program.display());
    Some(program.to_str().expect("a path of text").to_owned())
}

macro_rules! example {
    ($name:literal) => {
        match example($name) {
            Some(program) => program,
            None => skip!("verbs", "examples run in the guest: `cargo xtask vm test examples`"),
        }
    };
}

/// Both sides end well, and say how many messages went there and back.
fn meet(server: &str, client: &str, options: &str) {
    let server = Program::start(&format!("{server} -d rxe0 -g 1 -n {ITERS} {options}")).listening(18515);
    let client = run(&format!("{client} -d rxe0 -g 1 -n {ITERS} {options} {}", address()));
    for said in [client, server.success()] {
        assert!(said.contains(&format!("{ITERS} iters in")), "{said}");
    }
}

/// Ours with C's in both roles, and with itself.
fn interoperates(ours: &str, c: &str, options: &str) {
    meet(c, ours, options);
    meet(ours, c, options);
    meet(ours, ours, options);
}

#[test]
fn rc_pingpong_speaks_with_c_both_ways_and_with_itself() {
    let ours = example!("rc_pingpong");
    interoperates(&ours, "ibv_rc_pingpong", "-e");
    interoperates(&ours, "ibv_rc_pingpong", "");
}

#[test]
fn rc_pingpong_carries_messages_of_every_size_unchanged() {
    let ours = example!("rc_pingpong");
    for size in [1, 7, 1024, 1025, 65536] {
        interoperates(&ours, "ibv_rc_pingpong", &format!("-e -s {size} -r 20"));
        meet(&ours, &ours, &format!("-e -c -s {size} -r 20"));
    }
}

#[test]
fn rc_pingpong_takes_the_options_of_c() {
    let ours = example!("rc_pingpong");
    interoperates(&ours, "ibv_rc_pingpong", "-e -i 1 -m 256 -r 1 -l 1 -s 2000");
    interoperates(&ours, "ibv_rc_pingpong", "--events --mtu=512 --rx-depth=3 --size=100 --ib-port=1");
}

#[test]
fn ud_pingpong_speaks_with_c_both_ways_and_with_itself() {
    let ours = example!("ud_pingpong");
    for options in ["-e", "", "-e -s 1", "-e -s 1024 -r 5"] {
        interoperates(&ours, "ibv_ud_pingpong", options);
    }
    meet(&ours, &ours, "-e -c");
}

#[test]
fn srq_pingpong_speaks_with_c_both_ways_and_with_itself() {
    let ours = example!("srq_pingpong");
    for options in ["-e", "", "-e -q 1 -s 1", "-e -q 4 -s 65536 -r 20"] {
        interoperates(&ours, "ibv_srq_pingpong", options);
    }
}

/// Without a GID index ours chooses one by itself; C's programs cannot.
#[test]
fn a_gid_is_chosen_where_none_is_given() {
    for name in ["rc_pingpong", "ud_pingpong", "srq_pingpong"] {
        let Some(ours) = example(name) else {
            skip!("verbs", "examples run in the guest: `cargo xtask vm test examples`")
        };
        let server = Program::start(&format!("{ours} -e -n {ITERS}")).listening(18515);
        let client = run(&format!("{ours} -e -n {ITERS} {}", address()));
        assert!(client.contains("iters in"), "{client}");
        _ = server.success();
    }
}

/// A command that must fail with this in what it says.
fn fails(words: &str, wanted: &str) {
    let (status, said) = Program::start(words).end();
    assert!(!status.success() && said.contains(wanted), "{words}: {status}: {said}");
    assert!(!said.contains("panicked"), "{words}: {said}");
}

#[test]
fn wrong_options_and_an_absent_peer_are_clear_errors() {
    let ours = example!("rc_pingpong");
    fails(&format!("{ours} -s 0"), "invalid value '0'");
    fails(&format!("{ours} -m 1000"), "256, 512, 1024, 2048 or 4096");
    fails(&format!("{ours} -l 16"), "16 is not in 0..=15");
    fails(&format!("{ours} --colour"), "unexpected argument");
    fails(&format!("{ours} -d mlx5_7"), "rxe0");
    fails(&format!("{ours} -g 99"), "has no GID at 99");
    fails(&format!("{ours} -i 9"), "port 9");
    fails(&format!("{ours} -r 100000000"), "100000001 entries");
    fails(&format!("{ours} {} -p 18999", address()), "cannot reach 10.77.0.1 at port 18999");
    fails(&format!("{ours} no.such.host"), "there is no \"no.such.host\"");
    let ud = example!("ud_pingpong");
    fails(&format!("{ud} -s 5000"), "one packet");
}

#[test]
fn a_peer_that_tells_nonsense_or_leaves_is_a_clear_error() {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    let ours = example!("rc_pingpong");
    let connect = || TcpStream::connect((address().as_str(), 18515)).expect("the server listens");
    let server = Program::start(&format!("{ours} -e")).listening(18515);
    connect().write_all(&[b'x'; 52]).expect("it listens");
    let (status, said) = server.end();
    assert!(!status.success() && said.contains("no address of a ping-pong program"), "{said}");
    let server = Program::start(&format!("{ours} -e")).listening(18515);
    drop(connect());
    let (status, said) = server.end();
    assert!(!status.success() && said.contains("told no address"), "{said}");
    // The peer's queue pair is not there: what is sent gets no answer.
    let listener = std::net::TcpListener::bind(("0.0.0.0", 18515)).expect("a port");
    let client = Program::start(&format!("{ours} -e -n 1 {}", address()));
    let mut stream = listener.accept().expect("the client").0;
    let mut address = [0; 52];
    stream.read_exact(&mut address).expect("its address");
    address[5..11].copy_from_slice(b"fffff0");
    stream.write_all(&address).expect("an address");
    let (status, said) = client.end();
    assert!(!status.success() && said.contains("RETRY_EXC_ERR"), "{said}");
}

/// A server and a client of an example that has no program of C's to speak with; what both said.
fn pair(program: &str) -> (String, String) {
    let server = Program::start(program).listening(18516);
    let client = run(&format!("{program} {}", address()));
    (server.success(), client)
}

#[test]
fn channel_speaks_with_itself() {
    let (server, client) = pair(&example!("channel"));
    assert!(client.contains("the answer: a channel"), "{client}");
    for said in [server, client] {
        assert!(said.contains("100 messages, their numbers add up to 4950"), "{said}");
    }
}

#[test]
fn atomics_count_in_the_peers_memory() {
    let (server, client) = pair(&example!("atomics"));
    assert!(client.contains("drew 100 tickets, the last is 99"), "{client}");
    assert!(server.contains("100 tickets were drawn, and 1 times the lock was held"), "{server}");
}

#[test]
fn doorbell_batching_writes_both_ways_of_posting() {
    let (_, client) = pair(&example!("doorbell_batching"));
    assert!(
        client.contains("4096 writes one by one") && client.contains("4096 writes in batches"),
        "{client}"
    );
}

/// A client and a server of rdma cm, the server first: contents go both ways, and both sides compare them.
fn rping_meets(server: &str, client: &str, size: u32) {
    let options = format!("-a {} -C {ITERS} -S {size} -V -v", address());
    let server = Program::start(&format!("{server} -s {options}")).listening_by_cm(7174);
    let client = run(&format!("{client} -c {options}"));
    // C's program writes its texts when its buffer is full, and what it says of the end at once, in between.
    let whole = |mut said: String| {
        for end in [
            "server DISCONNECT EVENT...\n",
            "client DISCONNECT EVENT...\n",
            "wait for RDMA_READ_ADV state 10\n",
        ] {
            said = said.replace(end, "");
        }
        said
    };
    let (client, server) = (whole(client), whole(server.success()));
    let texts = |said: &str, whose: &str| -> Vec<String> {
        said.lines().filter_map(|line| Some(line.strip_prefix(whose)?.to_owned())).collect()
    };
    let (sent, seen) = (texts(&client, "ping data: "), texts(&server, "server ping data: "));
    assert_eq!(sent.len(), ITERS as usize, "{client}");
    assert_eq!(sent, seen, "what the client had back is what the server saw");
    for (round, text) in sent.iter().enumerate() {
        assert!(
            text.starts_with(&format!("rdma-ping-{round}: ")) && text.len() == size as usize - 1,
            "{text}"
        );
    }
}

#[test]
fn rping_speaks_with_c_both_ways_and_with_itself() {
    let ours = example!("rping");
    for size in [64, 100, 1025, 65535] {
        rping_meets("rping", &ours, size);
        rping_meets(&ours, "rping", size);
        rping_meets(&ours, &ours, size);
    }
}

#[test]
fn rping_says_what_is_wrong_with_its_peer() {
    let ours = example!("rping");
    fails(&format!("{ours} -c -a {}", address()), "nobody listens");
    fails(&format!("{ours} -s -c -a {}", address()), "cannot be used with");
    // The server has no room for the client's text.
    let server = Program::start(&format!("{ours} -s -a {} -S 64", address())).listening_by_cm(7174);
    let client = Program::start(&format!("rping -c -a {} -S 65 -C 1", address()));
    let (status, said) = server.end();
    assert!(!status.success() && said.contains("give both sides the same -S"), "{said}");
    drop(client);
    // The client leaves before the server has what it was promised.
    let server = Program::start(&format!("{ours} -s -a {} -C 5", address())).listening_by_cm(7174);
    _ = run(&format!("rping -c -a {} -C 3", address()));
    let (status, said) = server.end();
    assert!(!status.success() && said.contains("left after 3 of 5"), "{said}");
}

#[test]
fn cm_event_loop_drives_both_sides_of_many_connections() {
    let program = example!("cm_event_loop");
    let said = run(&format!("{program} {} 30", address()));
    assert!(said.contains("30 connections, 30 messages, 60 ends"), "{said}");
    fails(&format!("{program} 192.0.2.1"), "rdma_bind_addr");
}

#[test]
fn multi_channel_adds_up_on_three_workers() {
    let program = example!("multi_channel");
    let leader = Program::start(&format!("{program} --workers 3")).listening(18516);
    let workers: Vec<_> = (0..3).map(|_| Program::start(&format!("{program} {}", address()))).collect();
    let said = leader.success();
    assert!(said.contains("3 workers added up the numbers from 1 to 3000: 4501500"), "{said}");
    let mut parts: Vec<u64> = workers
        .into_iter()
        .map(|worker| {
            let said = worker.success();
            let (part, total) = said
                .trim()
                .strip_prefix("my part adds up to ")
                .unwrap()
                .split_once(", all together to ")
                .unwrap();
            assert_eq!(total, "4501500");
            part.parse().unwrap()
        })
        .collect();
    parts.sort_unstable();
    assert_eq!(parts, [500_500, 1_500_500, 2_500_500]);
}

#[test]
fn network_barrier_holds_four_ranks_together() {
    let program = example!("network_barrier");
    let nodes: Vec<_> = (0..4)
        .map(|rank| format!(r#"{{ "rank": {rank}, "host": "{}", "port": {} }}"#, address(), 7100 + rank))
        .collect();
    let config = std::env::temp_dir().join("ranks.json");
    std::fs::write(&config, format!(r#"{{ "nodes": [ {} ] }}"#, nodes.join(", "))).expect("a file");
    let config = config.display();
    for algorithm in ["central", "tree", "dissemination"] {
        let start = |rank| Program::start(&format!("{program} {config} {rank} -n 20 -a {algorithm}"));
        let ranks: Vec<_> = (0..4).map(start).collect();
        for (rank, program) in ranks.into_iter().enumerate() {
            let said = program.success();
            let wanted = format!("rank {rank} of 4: 20 marks of each other rank were there");
            assert!(said.contains(&wanted), "{algorithm}: {said}");
        }
    }
    fails(&format!("{program} {config} 4"), "rank 4");
    fails(&format!("{program} /no/such/file 0"), "/no/such/file");
}
