//! A greeting between two programs. In one shell `cargo run --example hello`, in another the same with the address that the
//! first prints.

use sinew::{Engine, Match, Timeout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::new("hello")?;
    let endpoint = engine.endpoint("greeter")?;
    let mut buf = [0; 256];
    match std::env::args().nth(1) {
        None => {
            println!("{}", endpoint.address());
            let got = endpoint.recv_within(Match::any_tag(), &mut buf, Timeout::Never)?;
            println!("{}", String::from_utf8_lossy(&buf[..got.len]));
            endpoint.reply_to(got.source)?.send(got.tag, b"hello to you, too")?;
        }
        Some(address) => {
            let peer = endpoint.connect(address)?;
            peer.send(1, format!("hello from process {}", std::process::id()).as_bytes())?;
            let got = endpoint.recv(1, &mut buf)?;
            println!("{} (over {})", String::from_utf8_lossy(&buf[..got.len]), peer.path());
            print!("{}", peer.explain());
        }
    }
    Ok(())
}
