//! Whole exchanges between threads of this process, with strangers among them.

use super::super::heard::{Phase, What};
use super::super::wire::{GREETING_LEN, Greeting, Kind, RECORD_LEN, Reason, Record, Seal, Side};
use super::super::{Exchange, ExchangeError, ExchangeOptions, TcpExchange};
use super::*;
use crate::network::config::{NetworkConfig, NodeConfig};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// A job on this machine whose ranks listen already, each on a port of its own.
fn job(ranks: u32) -> (NetworkConfig, Vec<TcpListener>) {
    let listeners: Vec<TcpListener> = (0..ranks).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let nodes = (0..)
        .zip(&listeners)
        .map(|(rank, listener)| NodeConfig::new(rank, "127.0.0.1", listener.local_addr().unwrap().port()));
    let config = nodes.fold(NetworkConfig::builder(), |all, node| all.add_node(node)).build().unwrap();
    (config, listeners)
}

fn open() -> ExchangeOptions {
    ExchangeOptions::open("test").timeout(LONG)
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

fn entries(rank: u32, world_size: u32) -> Vec<Vec<u8>> {
    (0..world_size).map(|to| value(rank, to)).collect()
}

fn assert_all(rank: u32, received: &[Vec<u8>]) {
    for (from, bytes) in (0..).zip(received) {
        assert_eq!(*bytes, value(from, rank), "what {rank} has of {from}");
    }
}

/// Rank `rank` of the job exchanges once, with all.
fn exchange(rank: u32, config: &NetworkConfig, options: ExchangeOptions) -> Result<(), ExchangeError> {
    let world_size = config.world_size();
    let received = TcpExchange::new(rank, config, options)?.exchange_bytes(entries(rank, world_size))?;
    assert_eq!(received.len(), world_size as usize);
    assert_all(rank, &received);
    Ok(())
}

/// The ranks from `first` on exchange, each in a thread; all must succeed.
fn all_succeed(config: &NetworkConfig, listeners: Vec<TcpListener>, options: impl Fn() -> ExchangeOptions) {
    thread::scope(|scope| {
        for (rank, listener) in (0..).zip(listeners) {
            let options = options().listener(listener);
            scope.spawn(move || exchange(rank, config, options).unwrap());
        }
    });
}

fn missing(error: ExchangeError) -> Vec<(u32, What)> {
    let ExchangeError::Missing { ranks, .. } = error else { panic!("{error}") };
    ranks.into_iter().map(|missing| (missing.rank, missing.last.what)).collect()
}

#[test]
fn i17_every_rank_gets_from_each_what_is_meant_for_it() {
    for ranks in [1, 2, 3, 9] {
        let (config, listeners) = job(ranks);
        all_succeed(&config, listeners, open);
    }
    let (config, listeners) = job(4);
    all_succeed(&config, listeners, || ExchangeOptions::with_secret("test", "a secret").timeout(LONG));
}

#[test]
fn values_of_types_go_through_serde_and_rounds_follow_each_other() {
    let (config, listeners) = job(4);
    thread::scope(|scope| {
        for (rank, listener) in (0_u32..).zip(listeners) {
            let config = &config;
            scope.spawn(move || {
                let mut exchange = TcpExchange::new(rank, config, open().listener(listener)).unwrap();
                for round in 0..5_u32 {
                    let received: Vec<(u32, u32, u32)> =
                        exchange.exchange(|peer| (round, rank, peer)).unwrap();
                    let expected: Vec<_> = (0..4).map(|from| (round, from, rank)).collect();
                    assert_eq!(received, expected);
                }
            });
        }
    });
}

#[test]
fn large_values_cross_each_other() {
    let (config, listeners) = job(3);
    thread::scope(|scope| {
        for (rank, listener) in (0_u32..).zip(listeners) {
            let config = &config;
            scope.spawn(move || {
                let options = open().listener(listener).connection_timeout(LONG);
                let mut exchange = TcpExchange::new(rank, config, options).unwrap();
                let received = exchange.exchange_bytes(vec![vec![rank as u8; 1 << 20]; 3]).unwrap();
                assert!((0..3).all(|from| received[from] == vec![from as u8; 1 << 20]));
            });
        }
    });
}

#[test]
fn i16_a_peer_with_another_rank_ends_only_its_own_connection() {
    let (config, mut listeners) = job(3);
    let first = listeners.remove(0);
    thread::scope(|scope| {
        for (rank, listener) in (1..).zip(listeners) {
            let config = &config;
            scope.spawn(move || exchange(rank, config, open().listener(listener)).unwrap());
        }
        // At the address of rank 0 somebody answers as rank 2, to two connections; then rank 0 comes.
        for _ in 0..2 {
            lie(&first);
        }
        exchange(0, &config, open().listener(first)).unwrap();
    });
}

/// Answers one connection as rank 2 of the job.
fn lie(listener: &TcpListener) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let (mut greeting, mut hello) = ([0; GREETING_LEN], [0; RECORD_LEN]);
    socket.read_exact(&mut greeting).unwrap();
    let theirs = Greeting::from_bytes(&greeting).unwrap();
    let ours = Greeting::new(Mode::Open, [3; 16]);
    socket.write_all(&ours.to_bytes()).unwrap();
    socket.read_exact(&mut hello).unwrap();
    let seal = Seal::new(&wire::key(None), &theirs, &ours);
    let said = seal.open(Side::Dialer, &hello).unwrap();
    let lie = Record { rank: 2, peer: said.rank, value_len: 9, kind: Kind::Hello, ..said };
    let _ = socket.write_all(&seal.seal(Side::Acceptor, &lie));
    // It is for the other to end it.
    let _ = socket.read_to_end(&mut Vec::new());
}

#[test]
fn i16_silence_garbage_and_ends_in_the_middle_delay_nobody() {
    let (config, listeners) = job(4);
    // Each would be waited for two minutes, were it waited for.
    let mut strangers = Vec::new();
    for listener in &listeners {
        for opening in [&b""[..], b"SINEW", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4000]] {
            let mut stranger = TcpStream::connect(address(listener)).unwrap();
            let _ = stranger.write_all(opening);
            strangers.push(stranger);
        }
        // A greeting, and then half a record or a record of noise.
        for noise in [7, RECORD_LEN] {
            let mut stranger = TcpStream::connect(address(listener)).unwrap();
            stranger.write_all(&Greeting::new(Mode::Open, [4; 16]).to_bytes()).unwrap();
            stranger.write_all(&vec![0x55; noise]).unwrap();
            strangers.push(stranger);
        }
        drop(TcpStream::connect(address(listener)).unwrap());
    }
    let options = || open().connection_timeout(LONG);
    let start = std::time::Instant::now();
    all_succeed(&config, listeners, options);
    assert!(start.elapsed() < LONG, "a stranger was waited for");
}

#[test]
fn i16_a_crowd_of_silent_strangers_is_displaced() {
    let (config, listeners) = job(3);
    let crowd: Vec<TcpStream> =
        (0..60).map(|at| TcpStream::connect(address(&listeners[at % 2])).unwrap()).collect();
    all_succeed(&config, listeners, || open().connection_timeout(LONG).strangers_max(3));
    drop(crowd);
    // The oldest go, while the exchange still waits for a rank.
    let (config, mut listeners) = job(2);
    let at = address(&listeners[0]);
    thread::scope(|scope| {
        let (config, options) = (&config, || open().connection_timeout(LONG).strangers_max(3));
        let listener = listeners.remove(0);
        let zero = scope.spawn(move || exchange(0, config, options().listener(listener)).unwrap());
        let crowd: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(at).unwrap()).collect();
        for mut displaced in &crowd[..7] {
            displaced.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(displaced.read(&mut [0; 1]).unwrap(), 0, "it is closed");
        }
        assert!(!zero.is_finished());
        exchange(1, config, options()).unwrap();
    });
}

#[test]
fn i16_a_length_beyond_the_limit_is_refused_and_takes_no_memory() {
    let (config, mut listeners) = job(2);
    let rank0 = listeners.remove(0);
    let at = address(&rank0);
    let options = open().listener(rank0).value_max_bytes(1000).timeout(Duration::from_millis(300));
    let error = thread::scope(|scope| {
        let zero = scope.spawn(|| {
            let mut exchange = TcpExchange::new(0, &config, options).unwrap();
            let too_large = exchange.exchange_bytes(vec![Vec::new(), vec![0; 1001]]).unwrap_err();
            assert_eq!(too_large, ExchangeError::TooLarge { peer: 1, len: 1001, max: 1000 });
            exchange.exchange_bytes(vec![Vec::new(); 2]).unwrap_err()
        });
        let mut socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let ours = Greeting::new(Mode::Open, [5; 16]);
        socket.write_all(&ours.to_bytes()).unwrap();
        let mut greeting = [0; GREETING_LEN];
        socket.read_exact(&mut greeting).unwrap();
        let theirs = Greeting::from_bytes(&greeting).unwrap();
        let seal = Seal::new(&wire::key(None), &ours, &theirs);
        let mut hello = local(1, 2, "test", None).record(Kind::Hello, 0);
        hello.value_len = u32::MAX;
        socket.write_all(&seal.seal(Side::Dialer, &hello)).unwrap();
        let mut answer = [0; RECORD_LEN];
        socket.read_exact(&mut answer).unwrap();
        let answer = seal.open(Side::Acceptor, &answer).unwrap();
        assert_eq!(answer.kind, Kind::Refusal(Reason::TooLarge));
        zero.join().unwrap()
    });
    let [(1, What::Refuses { reason: Reason::TooLarge, .. })] = missing(error)[..] else { panic!() };
}

#[test]
fn i16_a_process_of_an_earlier_job_is_refused_and_both_sides_say_so() {
    let (config, mut listeners) = job(2);
    let listener = listeners.remove(0);
    let short = Duration::from_millis(400);
    let (old, new) = thread::scope(|scope| {
        let old = ExchangeOptions::open("run 1").timeout(short);
        let new = ExchangeOptions::open("run 2").timeout(short).listener(listener);
        let old = scope.spawn(|| exchange(1, &config, old).unwrap_err());
        let new = scope.spawn(|| exchange(0, &config, new).unwrap_err());
        (old.join().unwrap(), new.join().unwrap())
    });
    for error in [&old, &new] {
        assert!(error.to_string().contains("belongs to another job"), "{error}");
    }
    let ExchangeError::Missing { strangers, .. } = &new else { panic!("{new}") };
    assert!(!strangers.is_empty());
    assert!(matches!(missing(old)[..], [(0, What::Refused { reason: Reason::OtherJob, .. })]));
    // Who does not belong to the job counts for nothing: of rank 1 nothing was heard.
    assert_eq!(missing(new), [(1, What::Nothing)]);
}

#[test]
fn i16_an_error_names_who_is_missing_and_what_was_heard_last() {
    let (config, mut listeners) = job(4);
    let rank1 = listeners.remove(1);
    // Rank 0: nobody listens. Rank 2: listens and says nothing. Rank 3: does not come.
    drop(listeners.remove(0));
    let unreachable = listeners.remove(0);
    let silent = TcpStream::connect(address(&rank1)).unwrap();
    let options = open().listener(rank1).timeout(Duration::from_millis(300));
    let error = exchange(1, &config, options).unwrap_err();
    let said = error.to_string();
    let ranks = missing(error);
    assert_eq!(ranks.len(), 3, "{said}");
    assert!(matches!(&ranks[0], (0, What::Unreachable { cause }) if cause.contains("refused")), "{said}");
    assert_eq!(ranks[1..], [(2, What::Nothing), (3, What::Nothing)], "{said}");
    assert!(said.contains("3 ranks are missing"), "{said}");
    drop((silent, unreachable));
}

#[test]
fn i16_a_silent_rank_is_named_with_what_was_waited_for() {
    let (config, listeners) = job(2);
    let options = ExchangeOptions::open("test")
        .timeout(Duration::from_millis(400))
        .connection_timeout(Duration::from_millis(50));
    let error = exchange(1, &config, options).unwrap_err();
    assert_eq!(missing(error), [(0, What::Silent(Phase::Greeting))]);
    drop(listeners);
}

#[test]
fn i16_a_second_process_of_a_rank_is_refused() {
    let (config, mut listeners) = job(3);
    let rank0 = listeners.remove(0);
    let options = open().listener(rank0).timeout(Duration::from_secs(3));
    let second = || ExchangeOptions::open("test").timeout(Duration::from_millis(600));
    thread::scope(|scope| {
        // Rank 1 does not come, so that rank 0 stays; two processes come as rank 2, one after the other.
        let zero = scope.spawn(|| exchange(0, &config, options).unwrap_err());
        exchange(2, &config, second()).unwrap_err();
        let error = exchange(2, &config, second()).unwrap_err();
        let heard = missing(error);
        assert!(matches!(heard[0], (0, What::Refused { reason: Reason::RankTaken, .. })), "{heard:?}");
        assert_eq!(missing(zero.join().unwrap()), [(1, What::Nothing)]);
    });
}

#[test]
fn a_rank_that_comes_late_is_dialled_until_it_is_there() {
    let (config, mut listeners) = job(2);
    let place = address(&listeners[0]);
    drop(listeners.remove(0));
    thread::scope(|scope| {
        let one = scope.spawn(|| exchange(1, &config, open()));
        // It listens where the configuration says: on loopback, as its host is a loopback address.
        let zero = TcpExchange::new(0, &config, open()).unwrap();
        assert_eq!(zero.local_address(), Some(place));
        drop(zero);
        exchange(0, &config, open()).unwrap();
        one.join().unwrap().unwrap();
    });
}

#[test]
fn where_to_listen_is_apart_from_how_others_dial() {
    // The host is a name that others could use; this rank binds an address of its own, with the port of the configuration.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = address(&taken).port();
    let config = NetworkConfig::builder()
        .add_node(NodeConfig::new(0, "head.invalid", port))
        .add_node(NodeConfig::new(1, "127.0.0.1", port))
        .build()
        .unwrap();
    let bind = || ExchangeOptions::open("test").bind("127.0.0.1:0".parse().unwrap());
    let error = TcpExchange::new(0, &config, bind()).unwrap_err();
    assert!(
        matches!(error, ExchangeError::Listen { address, .. } if address == self::address(&taken)),
        "{error}"
    );
    drop(taken);
    let exchange = TcpExchange::new(0, &config, bind()).unwrap();
    assert_eq!(exchange.local_address().unwrap().port(), port);
}

#[test]
fn i16_a_host_without_an_address_delays_nobody_else() {
    let (config, mut listeners) = job(3);
    let unknown = NodeConfig { host: "no-such-host.invalid".to_owned(), ..config[1].clone() };
    let nodes = [config[0].clone(), unknown, config[2].clone()];
    let config =
        nodes.into_iter().fold(NetworkConfig::builder(), |all, node| all.add_node(node)).build().unwrap();
    let rank0 = listeners.remove(0);
    let short = |millis| ExchangeOptions::open("test").timeout(Duration::from_millis(millis));
    let (zero, two) = thread::scope(|scope| {
        let zero = scope.spawn(|| exchange(0, &config, short(1500).listener(rank0)).unwrap_err());
        let two = scope.spawn(|| exchange(2, &config, short(1500)).unwrap_err());
        (missing(zero.join().unwrap()), missing(two.join().unwrap()))
    });
    // Ranks 0 and 2 have each other.
    assert_eq!(zero, [(1, What::Nothing)]);
    assert_eq!(two.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [1]);
}

#[test]
fn wrong_arguments_are_errors_by_type() {
    let (config, _) = job(2);
    let error = TcpExchange::new(2, &config, open()).unwrap_err();
    assert_eq!(error, ExchangeError::NoSuchRank { rank: 2, world_size: 2 });
    let mut exchange = TcpExchange::new(1, &config, open()).unwrap();
    let error = exchange.exchange_bytes(Vec::new()).unwrap_err();
    assert_eq!(error, ExchangeError::WrongCount { given: 0, world_size: 2 });
}

#[test]
fn i16_a_connection_that_falls_silent_is_given_up_and_dialled_again() {
    let (config, mut listeners) = job(2);
    drop(listeners.pop());
    let (asked, ask) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let config = &config;
        let options = || ExchangeOptions::open("test").timeout(Duration::from_secs(30));
        scope.spawn(move || {
            let first = &listeners[0];
            // A process of the host that takes the connection, reads what it is told, and says nothing.
            let (mut silent, _) = first.accept().unwrap();
            silent.read_exact(&mut [0; GREETING_LEN]).unwrap();
            asked.send(()).unwrap();
            exchange(0, config, options().listener(listeners.remove(0))).unwrap();
            drop(silent);
        });
        exchange(1, config, options().connection_timeout(Duration::from_millis(200))).unwrap();
        ask.recv().unwrap();
    });
}
