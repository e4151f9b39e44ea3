//! `sinew send ADDRESS`: a text, a file or standard input to a waiting `sinew listen`.

use super::{ABORT, ANSWER, Answer, CHUNK, CHUNK_LEN, END, HELLO, Hello, Sum, TEXT_MAX, WINDOW};
use crate::access::{Access, Place};
use crate::failure::{Failure, UNREACHABLE};
use crate::output::{help, say};
use sinew::{Endpoint, Match, OpError, Peer, Progress, SendOp, Timeout};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Send a text, a file or standard input to a waiting `sinew listen`
///
/// Any size, in bounded memory. The other side checks length and checksum (BLAKE2b), and this command ends with 0 only when
/// it has said that both are right.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = help(&[
    "sinew send ADDRESS --message hello",
    "sinew send ADDRESS --file original",
    "tar c folder | sinew send tcp://host:4000 --secret-file key",
]))]
pub(crate) struct Args {
    /// What `sinew listen` printed, or tcp://HOST:PORT
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Send this text
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    message: Option<String>,
    /// Send this file; `-` is standard input, which is the default
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Transports to try [default: all]
    #[arg(long, value_name = "NAME")]
    transport: Option<Place>,
    /// Say nothing on standard error but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access: Access,
}

/// How long an accepted listener may take to say so; another transfer may be under way there.
const ACCEPT: Duration = Duration::from_secs(60);

/// The command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.access.check_connect(&args.address)?;
    let (mut source, hello) = open(args)?;
    let place = args.transport.clone().unwrap_or(Place::Anywhere);
    let engine = args.access.engine(&place, false, Progress::Thread { cpu: None })?;
    let endpoint = engine.endpoint("")?;
    let peer = endpoint.connect(&args.address)?;
    peer.send(HELLO, &hello.to_bytes())?;
    match answer(&endpoint, &peer, ACCEPT.into())? {
        Answer::Accepted => {}
        Answer::Wrong(text) => return Err(Failure::failed(format!("the other side refuses: {text}"))),
        Answer::Right | Answer::Different(_) => return Err(foreign()),
    }
    let begun = Instant::now();
    let len = stream(&endpoint, &peer, source.as_mut(), hello.len)?;
    // The listener closes once it has answered.
    let path = peer.path();
    match answer(&endpoint, &peer, Timeout::Never)? {
        Answer::Right => {}
        Answer::Wrong(text) => {
            return Err(Failure::failed(format!("the other side did not take it: {text}")));
        }
        Answer::Different(text) => return Err(Failure::different(format!("it arrived otherwise: {text}"))),
        Answer::Accepted => return Err(foreign()),
    }
    if !args.quiet {
        say(&format!("sent {} over {path}, checked there", super::summary(len, begun.elapsed())));
    }
    let _ = engine.close(Duration::from_secs(2));
    Ok(())
}

fn foreign() -> Failure {
    Failure::failed("the other side is no `sinew listen` of this version; use the same version on both sides")
}

/// Where the bytes come from, and what is known of them.
fn open(args: &Args) -> Result<(Box<dyn Read>, Hello), Failure> {
    if let Some(text) = &args.message {
        let bytes = text.clone().into_bytes();
        let hello = Hello { len: Some(bytes.len() as u64), name: "a text".into() };
        return Ok((Box::new(Cursor::new(bytes)), hello));
    }
    let path = match &args.file {
        Some(path) if path.as_os_str() != "-" => path,
        _ => return Ok((Box::new(std::io::stdin()), Hello { len: None, name: "standard input".into() })),
    };
    let failed = |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(Failure::usage(format!(
            "{0} is a directory; send it as `tar c {0} | sinew send ADDRESS`",
            path.display()
        )));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((Box::new(file), Hello { len: meta.is_file().then_some(meta.len()), name }))
}

fn answer(endpoint: &Endpoint, peer: &Peer, timeout: Timeout) -> Result<Answer, Failure> {
    let mut bytes = [0; TEXT_MAX];
    let got = endpoint.recv_within(Match::tag(ANSWER).from(peer.source()), &mut bytes, timeout).map_err(
        |error| {
            let hint = match error {
                OpError::PeerLost { .. } => {
                    "\na listener takes one sender and ends, unless it was started with --count or --keep"
                }
                _ => "",
            };
            Failure::new(UNREACHABLE, format!("the other side did not answer: {error}{hint}"))
        },
    )?;
    Answer::from_bytes(&bytes[..got.len]).ok_or_else(foreign)
}

/// Sends everything in chunks, then length and checksum. Returns the length.
fn stream(endpoint: &Endpoint, peer: &Peer, source: &mut dyn Read, len: Option<u64>) -> Result<u64, Failure> {
    let bar = super::progress_bar(len);
    let mut sum = Sum::default();
    let mut under_way: VecDeque<SendOp> = VecDeque::new();
    for number in 0.. {
        let mut buf = match under_way.len() {
            WINDOW => {
                under_way.pop_front().map_or_else(|| Ok(Vec::new()), |send| finish(endpoint, peer, send))?
            }
            _ => Vec::new(),
        };
        buf.resize(CHUNK_LEN, 0);
        let filled = read_chunk(source, &mut buf).inspect_err(|error| {
            let _ = peer.message(CHUNK).immediate(ABORT).send(&truncated(error.text()));
            let _ = peer.flush_within(Duration::from_secs(2));
        })?;
        if filled == 0 {
            break;
        }
        buf.truncate(filled);
        sum.update(&buf);
        let posted = peer.message(CHUNK).immediate(number).post(buf);
        under_way.push_back(posted.map_err(|failed| given_up(endpoint, peer, failed.error))?);
        bar.inc(filled as u64);
    }
    for send in under_way {
        finish(endpoint, peer, send)?;
    }
    bar.finish_and_clear();
    let len = sum.len;
    let end = peer.message(CHUNK).immediate(END).timeout(Timeout::Never).send(&sum.finish());
    end.map_err(|error| given_up(endpoint, peer, error))?;
    Ok(len)
}

fn truncated(text: &str) -> Vec<u8> {
    text.bytes().take(TEXT_MAX).collect()
}

/// Waits until a chunk has been fetched, however slow the reader over there is.
fn finish(endpoint: &Endpoint, peer: &Peer, send: SendOp) -> Result<Vec<u8>, Failure> {
    match send.wait_within(Timeout::Never) {
        Ok(buf) => Ok(buf.into_vec()),
        Err(failed) => Err(given_up(endpoint, peer, failed.error)),
    }
}

/// Why nothing more can be sent: a listener that gives up has said why.
fn given_up(endpoint: &Endpoint, peer: &Peer, error: OpError) -> Failure {
    let said = endpoint
        .probe(Match::tag(ANSWER).from(peer.source()))
        .and_then(|_| answer(endpoint, peer, Timeout::After(Duration::ZERO)).ok());
    match said {
        Some(Answer::Wrong(text)) => Failure::failed(format!("the other side gave up: {text}")),
        Some(Answer::Different(text)) => Failure::different(format!("it arrived otherwise: {text}")),
        _ => error.into(),
    }
}

/// Fills a chunk; less only at the end.
fn read_chunk(source: &mut dyn Read, buf: &mut [u8]) -> Result<usize, Failure> {
    let mut filled = 0;
    while filled < buf.len() {
        match source.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("cannot read what to send: {error}"))),
        }
    }
    Ok(filled)
}
