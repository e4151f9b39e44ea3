//! A service of handlers: one function per kind of message, called in order, by a background thread of the engine.

use sinew::{Engine, Match, Progress};
use std::time::Duration;

/// Kinds of message: the upper half of the tag. The lower half is the request's number.
const ADD: u64 = 1 << 32;
const SHOUT: u64 = 2 << 32;
const NUMBER: u64 = 0xffff_ffff;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = Engine::builder().domain("handlers").progress(Progress::Thread { cpu: None }).build()?;
    let desk = service.endpoint("desk")?;
    let answering = desk.clone();
    let _add = desk.on_message(Match::tag(ADD).ignoring(NUMBER), 1024, 16, move |data, info| {
        let sum: u64 = data.iter().map(|&byte| u64::from(byte)).sum();
        if let Ok(back) = answering.reply_to(info.source) {
            // A client that has gone needs no answer.
            let _ = back.send(info.tag, &sum.to_le_bytes());
        }
    })?;
    let answering = desk.clone();
    let _shout = desk.on_message(Match::tag(SHOUT).ignoring(NUMBER), 1024, 16, move |data, info| {
        if let Ok(back) = answering.reply_to(info.source) {
            let _ = back.send(info.tag, &data.to_ascii_uppercase());
        }
    })?;

    let client = Engine::new("handlers")?;
    let endpoint = client.endpoint("")?;
    let peer = endpoint.connect(desk.address())?;
    peer.send(ADD | 1, &[1, 2, 3, 4])?;
    peer.send(SHOUT | 2, b"sinew")?;
    let mut buf = [0; 1024];
    let got = endpoint.recv(SHOUT | 2, &mut buf)?;
    println!("shouted: {}", String::from_utf8_lossy(&buf[..got.len]));
    let mut sum = [0; 8];
    endpoint.recv(ADD | 1, &mut sum)?;
    println!("added: {}", u64::from_le_bytes(sum));
    client.close(Duration::from_secs(1))?;
    Ok(())
}
