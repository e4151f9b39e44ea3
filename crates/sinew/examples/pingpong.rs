//! Two processes play ping-pong over the path that the engine chooses: `cargo run --release --example pingpong [BYTES]`.

use sinew::Engine;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: u64 = 100_000;

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "--child") {
        return child(&args[2], args[3].parse()?);
    }
    let len: usize = args.get(1).map_or(Ok(8), |text| text.parse())?;
    let rounds = if len > 100_000 { ROUNDS / 100 } else { ROUNDS };
    pin(0);
    let engine = Engine::new("pingpong")?;
    let endpoint = engine.endpoint("ping")?;
    let mut other = Command::new(std::env::current_exe()?)
        .args(["--child", &endpoint.address().to_string(), &len.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    std::io::BufReader::new(other.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let peer = endpoint.connect(line.trim())?;
    let data = vec![1; len];
    let mut buf = vec![0; len];
    for round in 0..rounds / 10 {
        peer.send(round, &data)?;
        endpoint.recv(round, &mut buf)?;
    }
    let start = Instant::now();
    for round in rounds / 10..rounds {
        peer.send(round, &data)?;
        endpoint.recv(round, &mut buf)?;
    }
    let one_way = start.elapsed().as_nanos() as f64 / (rounds - rounds / 10) as f64 / 2.0;
    println!("{len} bytes over {}: {one_way:.0} ns one way", peer.path());
    other.wait()?;
    Ok(())
}

fn child(address: &str, len: usize) -> Result<(), Box<dyn std::error::Error>> {
    pin(1);
    let engine = Engine::new("pingpong")?;
    let endpoint = engine.endpoint("pong")?;
    println!("{}", endpoint.address());
    std::io::stdout().flush()?;
    let peer = endpoint.connect(address)?;
    let mut buf = vec![0; len];
    let rounds = if len > 100_000 { ROUNDS / 100 } else { ROUNDS };
    for round in 0..rounds {
        let got = endpoint.recv(round, &mut buf)?;
        peer.send(round, &buf[..got.len])?;
    }
    engine.close(std::time::Duration::from_secs(1))?;
    Ok(())
}
