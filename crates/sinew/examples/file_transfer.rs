//! A file from one engine to another in bounded memory: a window of owned buffers, which come back and are used again.
//! `sinew send` and `sinew listen` do the same between two shells, with a checksum.

use sinew::{Buf, Endpoint, Engine, Match, Progress, SendOp};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;

const CHUNK: usize = 256 << 10;
const WINDOW: usize = 4;
/// Chunks have this tag; an empty one is the end.
const DATA: u64 = 1;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn send_file(endpoint: &Endpoint, address: &str, path: &Path) -> Result<u64> {
    let peer = endpoint.connect(address)?;
    let mut file = std::fs::File::open(path)?;
    let mut under_way: VecDeque<SendOp> = VecDeque::new();
    let mut sent = 0;
    loop {
        let mut buf = match under_way.len() {
            WINDOW => {
                under_way.pop_front().map_or_else(|| Ok(Vec::new()), |send| send.wait().map(Buf::into_vec))?
            }
            _ => Vec::new(),
        };
        buf.resize(CHUNK, 0);
        let len = file.read(&mut buf)?;
        buf.truncate(len);
        sent += len as u64;
        under_way.push_back(peer.post_send(DATA, buf)?);
        if len == 0 {
            break;
        }
    }
    for send in under_way {
        send.wait()?;
    }
    peer.flush()?;
    Ok(sent)
}

fn receive_file(endpoint: &Endpoint, path: &Path) -> Result<u64> {
    let mut file = std::fs::File::create(path)?;
    let mut posted = VecDeque::new();
    for _ in 0..WINDOW {
        posted.push_back(endpoint.post_recv(Match::tag(DATA), Buf::zeroed(CHUNK))?);
    }
    let mut received = 0;
    while let Some(next) = posted.pop_front() {
        let mut got = next.wait()?;
        if got.info.len == 0 {
            break;
        }
        file.write_all(got.buf.as_slice())?;
        received += got.info.len as u64;
        got.buf.set_len(CHUNK);
        posted.push_back(endpoint.post_recv(Match::tag(DATA), got.buf)?);
    }
    Ok(received)
}

fn main() -> Result<()> {
    let background = || Engine::builder().domain("files").progress(Progress::Thread { cpu: None }).build();
    let (here, there) = (background()?, background()?);
    let (source, target) = (here.endpoint("")?, there.endpoint("")?);
    let folder = std::env::temp_dir().join(format!("sinew-file-transfer-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (original, copy) = (folder.join("original"), folder.join("copy"));
    let content: Vec<u8> =
        (0..10_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&original, &content)?;
    let address = target.address().to_string();
    let place = copy.clone();
    let receiver = std::thread::spawn(move || receive_file(&target, &place));
    let sent = send_file(&source, &address, &original)?;
    let received = receiver.join().map_err(|_| "the receiver panicked")??;
    assert!(sent == received && std::fs::read(&copy)? == content);
    println!("{received} bytes, the same on both sides");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
