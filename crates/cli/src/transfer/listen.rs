//! `sinew listen [ADDRESS]`: waits for `sinew send`, once or again and again, and writes what it brings, checked.

use super::sink::Sink;
use super::{ABORT, ANSWER, Answer, CHUNK, CHUNK_LEN, END, ENDPOINT, HELLO, Hello, Sum, WINDOW};
use crate::access::{Access, Place};
use crate::failure::{DIFFERENT, Failure, UNREACHABLE};
use crate::output::{help, say};
use sinew::{Buf, Endpoint, Match, OpError, Peer, Progress, RecvOp, Timeout};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Wait for `sinew send`, and write what it brings to standard output or a file
///
/// The first line on standard error is the address to send to. Any size, in bounded memory; length and checksum (BLAKE2b)
/// are checked at the end. A file gets its name only when they are right, and what had that name stays until then; before that it
/// has none, so that nothing is left of it however this program ends (on file systems that have no files without a name it is
/// .FILE.PID.part beside it, which kill -9 leaves there). Several senders are taken one after the other;
/// others wait meanwhile. Ends after one, unless --count or --keep says otherwise: then a transfer that fails is told on
/// standard error and the next one awaited.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = help(&[
    "sinew listen > copy                                       from another shell of this user",
    "sinew listen shm --output copy                            over shared memory and no other way",
    "sinew listen --count 3 --output part                      writes part, part.2 and part.3",
    "sinew listen --keep >> log                                all that anybody sends, until Ctrl-C",
    "sinew listen tcp://0.0.0.0:4000 --secret-file key | tar x from another machine",
]))]
pub(crate) struct Args {
    /// Where to listen: `all`, a transport (shm, uds, tcp), or tcp://HOST:PORT
    #[arg(value_name = "ADDRESS", default_value = "all")]
    place: Place,
    /// End after so many transfers that were right
    #[arg(long, value_name = "N", conflicts_with = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Go on until it is interrupted
    #[arg(long)]
    keep: bool,
    /// Write to this file instead of standard output; further transfers to FILE.2, FILE.3 …
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say nothing on standard error but the address and errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access: Access,
}

impl Args {
    /// More than one sender is wanted, so that one that fails is not the end.
    const fn goes_on(&self) -> bool {
        self.keep || self.count.is_some()
    }

    /// Where the content of sender `number`, counted from 1, goes: `FILE`, `FILE.2`, `FILE.3` …
    fn output_of(&self, number: u64) -> Option<PathBuf> {
        let path = self.output.as_ref()?;
        if number == 1 || std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Some(path.clone());
        }
        let mut name = path.clone().into_os_string();
        name.push(format!(".{number}"));
        Some(name.into())
    }
}

/// The command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.access.check_listen(&args.place)?;
    let mut sink = Some(Sink::open(args.output.as_deref())?);
    let engine = args.access.engine(&args.place, true, Progress::Thread { cpu: None })?;
    let endpoint = engine.endpoint(ENDPOINT)?;
    say(&endpoint.address().to_string());
    if !args.quiet {
        let how_many = match args.count {
            Some(count) => format!("{count} of"),
            None if args.keep => "each".to_owned(),
            None => "one".to_owned(),
        };
        say(&format!("listening there for {how_many} `sinew send ADDRESS`; Ctrl-C ends"));
    }
    let wanted = if args.keep { u64::MAX } else { args.count.map_or(1, u64::from) };
    let mut number = 1;
    while number <= wanted {
        let open = match sink.take() {
            Some(open) => open,
            None => Sink::open(args.output_of(number).as_deref())?,
        };
        match serve(args, &endpoint, open) {
            Ok(()) => number += 1,
            Err(failure) if args.goes_on() && !failure.is_lasting() => say(failure.text()),
            Err(failure) => {
                let _ = engine.close(Duration::from_secs(2));
                return Err(failure);
            }
        }
    }
    // Closing hands over what the last sender is still to be told.
    let _ = engine.close(Duration::from_secs(2));
    Ok(())
}

/// Takes what one sender brings.
fn serve(args: &Args, endpoint: &Endpoint, mut sink: Sink) -> Result<(), Failure> {
    let (peer, hello) = greeted(endpoint).map_err(Failure::lasting)?;
    let begun = Instant::now();
    let outcome = receive(endpoint, &peer, &hello, &mut sink)
        .and_then(|len| sink.keep().map(|()| len).map_err(Failure::lasting));
    let said = match &outcome {
        Ok(_) => Answer::Right,
        Err(failure) if failure.is_quiet() => Answer::Wrong("nobody reads its output any more".into()),
        Err(failure) if failure.code() == DIFFERENT => Answer::Different(failure.text().to_owned()),
        Err(failure) => Answer::Wrong(failure.text().to_owned()),
    };
    // A sender that has heard the answer may be gone at once.
    let path = peer.path();
    let told = peer.send(ANSWER, &said.to_bytes());
    match outcome {
        Ok(len) => {
            if !args.quiet {
                say(&format!("received {} over {path}, checked", super::summary(len, begun.elapsed())));
                if told.is_err() {
                    say("the sender went before it could be told that all is right");
                }
            }
            Ok(())
        }
        Err(failure) => {
            // What it had sent beyond that would lie here for as long as this program listens.
            let rest = Match::tag(CHUNK).from(peer.source());
            let mut scratch = vec![0; CHUNK_LEN];
            while matches!(endpoint.try_recv(rest, &mut scratch), Ok(_) | Err(OpError::Truncated { .. })) {}
            Err(failure)
        }
    }
}

/// Waits for somebody who speaks this protocol.
fn greeted(endpoint: &Endpoint) -> Result<(Peer, Hello), Failure> {
    let mut bytes = [0; Hello::LEN_MAX];
    loop {
        let got = match endpoint.recv_within(HELLO, &mut bytes, Timeout::Never) {
            Ok(got) => got,
            Err(OpError::Truncated { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        // Whoever is gone already, or says something else, is not the sender.
        let Ok(peer) = endpoint.reply_to(got.source) else { continue };
        match Hello::from_bytes(&bytes[..got.len]) {
            Some(hello) => return Ok((peer, hello)),
            None => {
                let refusal = Answer::Wrong("`sinew listen` of this version does not understand it".into());
                let _ = peer.send(ANSWER, &refusal.to_bytes());
            }
        }
    }
}

/// Takes chunks in order until the end, and checks length and checksum.
fn receive(endpoint: &Endpoint, peer: &Peer, hello: &Hello, sink: &mut Sink) -> Result<u64, Failure> {
    let from = Match::tag(CHUNK).from(peer.source());
    let bar = super::progress_bar(hello.len);
    let mut posted: VecDeque<RecvOp> = VecDeque::new();
    for _ in 0..WINDOW {
        posted.push_back(endpoint.post_recv(from, Buf::zeroed(CHUNK_LEN))?);
    }
    peer.send(ANSWER, &Answer::Accepted.to_bytes())?;
    let mut sum = Sum::default();
    for number in 0.. {
        let Some(next) = posted.pop_front() else { return Err(Failure::failed("no receive is posted")) };
        let got =
            next.wait_within(Timeout::Never).map_err(|failed| lost(&hello.name, sum.len, &failed.error))?;
        let data = got.buf.as_slice();
        match got.info.immediate {
            Some(END) => {
                bar.finish_and_clear();
                return finished(sum, data);
            }
            Some(ABORT) => {
                let why = super::shown(data);
                return Err(Failure::failed(format!("the sender gave up after {} bytes: {why}", sum.len)));
            }
            Some(at) if at == number => {}
            other => {
                let what = other.map_or_else(|| "something else".to_owned(), |at| format!("chunk {at}"));
                return Err(Failure::different(format!("{what} arrived where chunk {number} is due")));
            }
        }
        sum.update(data);
        sink.write(data).map_err(Failure::lasting)?;
        bar.inc(data.len() as u64);
        let mut buf = got.buf;
        buf.set_len(CHUNK_LEN);
        posted.push_back(endpoint.post_recv(from, buf)?);
    }
    Err(Failure::failed("more chunks than can be counted"))
}

fn lost(name: &str, len: u64, error: &OpError) -> Failure {
    Failure::new(UNREACHABLE, format!("the sender of {name} was lost after {len} bytes: {error}"))
}

fn finished(sum: Sum, said: &[u8]) -> Result<u64, Failure> {
    let len = sum.len;
    let sent_len = said.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if said == sum.finish() {
        return Ok(len);
    }
    Err(Failure::different(match sent_len {
        Some(sent) if sent != len => format!("{len} bytes arrived of {sent}"),
        _ => format!("{len} bytes arrived with a checksum that is not the sender's"),
    }))
}
