//! What one message costs in instructions and in system calls: `callgrind` and `strace` over this program started again. They
//! repeat, also on a machine that others use.

use std::ffi::OsString;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::{Context as TaskContext, Poll, Waker};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use sinew::{Buf, Match, OpError, Outgoing, Receive};

use super::OursArgs;
use super::alone::{Both, both};
use super::data_path::{count_between_marks, mark, trace};
use super::pairing::{check, check_ends, stamp};
use super::stream::tag_of;
use crate::say;

/// Messages of the two runs whose difference is counted: multiples of [`MANY`] and of two.
const FEW: u64 = 20_480;
const MORE: u64 = 102_400;
/// Messages that are under way at once, where it is not one.
const MANY: usize = 32;

/// How messages are sent and received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// `send` and `recv`, there and back.
    Blocking,
    /// `stage` of 32, then `recv` of each.
    Staged,
    /// `stage` of 32, whose receives are posted ahead and waited for.
    Posted,
    /// `send_batch` and `recv_all` of 32.
    Batch,
    /// `post_send` and `post_recv`, both awaited, there and back.
    Future,
    /// A buffer of the pool, received in place, first and last line read; the word that gives it back counts as its own.
    Loan,
}

/// One row: a form, its transport, and the words of the command line that make it.
struct Row {
    what: &'static str,
    words: &'static str,
}

const ROWS: [Row; 22] = [
    Row { what: "shm 8 B, send and recv (S1)", words: "blocking --transport shm --size 8" },
    Row { what: "shm 40 B, send and recv (S1)", words: "blocking --transport shm --size 40" },
    Row { what: "shm 1 KiB, send and recv (S2)", words: "blocking --transport shm --size 1024" },
    Row { what: "shm 4 KiB, send and recv (S2)", words: "blocking --transport shm --size 4096" },
    Row { what: "shm 8 B, staged, in order (S3)", words: "staged --transport shm --size 8" },
    Row { what: "shm 8 B, staged, permuted (S3)", words: "staged --transport shm --size 8 --permute" },
    Row { what: "shm 8 B, posted, permuted (S3)", words: "posted --transport shm --size 8 --permute" },
    Row { what: "shm 8 B, batch, tagged (S3)", words: "batch --transport shm --size 8" },
    Row { what: "shm 8 B, batch, untagged (S3)", words: "batch --transport shm --size 8 --untagged" },
    Row { what: "shm 16 KiB, posted (S4)", words: "future --transport shm --size 16384" },
    Row { what: "shm 1 KiB, loan (S2, S5)", words: "loan --transport shm --size 1024" },
    Row { what: "shm 1 MiB, loan (S5)", words: "loan --transport shm --size 1048576" },
    Row { what: "shm 8 B, futures (S8)", words: "future --transport shm --size 8" },
    Row { what: "tcp 8 B, send and recv (T1)", words: "blocking --transport tcp --size 8" },
    Row { what: "tcp 4 KiB, send and recv (T1)", words: "blocking --transport tcp --size 4096" },
    Row { what: "tcp 64 KiB, send and recv (T2)", words: "blocking --transport tcp --size 65536" },
    Row { what: "tcp 8 B, staged (T3)", words: "staged --transport tcp --size 8" },
    Row { what: "tcp 64 B, staged (T3)", words: "staged --transport tcp --size 64" },
    Row { what: "tcp 64 KiB, posted (T4)", words: "future --transport tcp --size 65536" },
    Row { what: "uds 8 B, send and recv (T6)", words: "blocking --transport uds --size 8" },
    Row { what: "uds 8 B, staged", words: "staged --transport uds --size 8" },
    Row { what: "uds 64 KiB, posted", words: "future --transport uds --size 65536" },
];

/// Counts every row whose words contain `only`, and prints them.
pub fn print_all(only: Option<&str>, json: bool) -> Result<()> {
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| only.is_none_or(|only| row.what.contains(only) || row.words.contains(only)))
        .collect();
    ensure!(!rows.is_empty(), "no row has {:?} in its name", only.unwrap_or_default());
    if !json {
        say(
            "One message of a thread that owns both engines, both sides and the program itself (stamp and check of its",
        )?;
        say(
            "bytes) counted; sixteen other receives posted on each side. Looks at other descriptors left out.\n",
        )?;
        say(format_args!("{:<34}{:>14}{:>14}", "", "instructions", "system calls"))?;
    }
    for row in rows {
        let (instructions, calls) = (instructions(row)?, system_calls(row)?);
        if json {
            let row =
                serde_json::json!({ "row": row.what, "instructions": instructions, "system_calls": calls });
            say(row)?;
        } else {
            say(format_args!("{:<34}{instructions:>14.0}{calls:>14.2}", row.what))?;
        }
    }
    Ok(())
}

fn words(row: &Row, messages: u64) -> impl Iterator<Item = OsString> {
    let words = format!("ours counted --form {} --second --messages {messages}", row.words);
    words.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter()
}

fn system_calls(row: &Row) -> Result<f64> {
    let count = count_between_marks(&trace(words(row, FEW))?, FEW).context("no two marks in the trace")?;
    Ok(count as f64 / FEW as f64)
}

fn instructions(row: &Row) -> Result<f64> {
    let (few, more) = (count(row, FEW)?, count(row, MORE)?);
    // Each run sends its messages twice.
    Ok((more as f64 - few as f64) / (2 * (MORE - FEW)) as f64)
}

fn count(row: &Row, messages: u64) -> Result<u64> {
    let out = std::env::temp_dir().join(format!("sinew-bench-{}.callgrind", std::process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(words(row, messages))
        .stdout(Stdio::null())
        .output();
    let text = std::fs::read_to_string(&out).context("what callgrind wrote");
    let _ = std::fs::remove_file(&out);
    let run = run.context("valgrind cannot be started: apt-get install valgrind")?;
    ensure!(run.status.success(), "{}: {}", row.what, String::from_utf8_lossy(&run.stderr));
    total(&text?).context("callgrind wrote no sum")
}

/// The sum in what callgrind wrote.
fn total(text: &str) -> Option<u64> {
    let sum =
        |line: &str| line.strip_prefix("summary:").or(line.strip_prefix("totals:"))?.trim().parse().ok();
    text.lines().find_map(sum)
}

/// The program that is counted: as many messages before the first mark, and between the two.
pub(super) fn program(args: &OursArgs) -> Result<()> {
    let both = both(args)?;
    let form = args.form.context("--form says how messages are sent and received")?;
    messages(args, &both, form)?;
    mark();
    messages(args, &both, form)?;
    mark();
    Ok(())
}

fn messages(args: &OursArgs, both: &Both, form: Form) -> Result<()> {
    match form {
        Form::Blocking => blocking(args, both),
        Form::Staged => staged(args, both),
        Form::Posted => posted(args, both),
        Form::Batch => batch(args, both),
        Form::Future => future(args, both),
        Form::Loan => loan(args, both),
    }
}

fn blocking(args: &OursArgs, both: &Both) -> Result<()> {
    let (mut out, mut into) = (vec![0; args.size], vec![0; args.size]);
    for number in 0..args.messages / 2 {
        stamp(&mut out, number);
        both.peer.send(number, &out)?;
        both.there.recv(number, &mut into)?;
        check(&into, number)?;
        both.back.send(number, &into)?;
        both.here.recv(number, &mut out)?;
        check(&out, number)?;
    }
    Ok(())
}

/// Stages [`MANY`] messages from `first` on. A turn of progress sends what waits for company.
fn stage(args: &OursArgs, both: &Both, out: &mut [u8], first: u64) -> Result<()> {
    for order in first..first + MANY as u64 {
        let number = tag_of(args, order);
        stamp(out, number);
        let message = both.peer.message(number);
        if let Err(OpError::WouldBlock) = message.stage(out) {
            message.send(out)?;
        }
    }
    both.engines[0].process();
    Ok(())
}

fn staged(args: &OursArgs, both: &Both) -> Result<()> {
    let (mut out, mut into) = (vec![0; args.size], vec![0; args.size]);
    for first in (0..args.messages).step_by(MANY) {
        stage(args, both, &mut out, first)?;
        for number in first..first + MANY as u64 {
            both.there.recv(number, &mut into)?;
            check(&into, number)?;
        }
    }
    Ok(())
}

fn posted(args: &OursArgs, both: &Both) -> Result<()> {
    let mut out = vec![0; args.size];
    let mut buffers: Vec<Buf> = (0..MANY).map(|_| Buf::zeroed(args.size)).collect();
    let mut receives = Vec::with_capacity(MANY);
    for first in (0..args.messages).step_by(MANY) {
        for (number, buffer) in (first..).zip(buffers.drain(..)) {
            receives.push(both.there.post_recv(number, buffer)?);
        }
        stage(args, both, &mut out, first)?;
        for (number, receive) in (first..).zip(receives.drain(..)) {
            let received = receive.wait()?;
            check(received.buf.as_slice(), number)?;
            buffers.push(received.buf);
        }
    }
    Ok(())
}

fn batch(args: &OursArgs, both: &Both) -> Result<()> {
    let pattern = |number| if args.untagged { Match::untagged() } else { Match::tag(number) };
    let mut out = vec![0; args.size * MANY];
    let mut into = vec![0; args.size * MANY];
    let mut receives: Vec<Receive<'_>> = into
        .chunks_mut(args.size)
        .zip(0..)
        .map(|(buffer, number)| Receive::new(pattern(number), buffer))
        .collect();
    for first in (0..args.messages).step_by(MANY) {
        out.chunks_mut(args.size).zip(first..).for_each(|(buffer, number)| stamp(buffer, number));
        let messages: Vec<Outgoing<'_>> =
            out.chunks(args.size)
                .zip(first..)
                .map(|(buffer, number)| {
                    if args.untagged { Outgoing::untagged(buffer) } else { Outgoing::tagged(number, buffer) }
                })
                .collect();
        both.peer.send_batch(&messages)?;
        for (receive, number) in receives.iter_mut().zip(first..) {
            receive.again(pattern(number));
        }
        both.there.recv_all(&mut receives)?;
        for (receive, number) in receives.iter().zip(first..) {
            check(receive.data(), number)?;
        }
    }
    Ok(())
}

/// The simplest executor.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            return done;
        }
    }
}

fn future(args: &OursArgs, both: &Both) -> Result<()> {
    run(async {
        let (mut out, mut into) = (Buf::zeroed(args.size), Buf::zeroed(args.size));
        for number in 0..args.messages / 2 {
            if let Some(bytes) = out.as_mut_slice() {
                stamp(bytes, number);
            }
            for (peer, endpoint) in [(&both.peer, &both.there), (&both.back, &both.here)] {
                let receive = endpoint.post_recv(number, into)?;
                let send = peer.post_send(number, out)?;
                let received = receive.await?;
                check(received.buf.as_slice(), number)?;
                into = send.await?;
                out = received.buf;
            }
        }
        Ok(())
    })
}

fn loan(args: &OursArgs, both: &Both) -> Result<()> {
    let mut buffer = both.peer.alloc(args.size)?;
    for number in 0..args.messages {
        stamp(buffer.as_mut_slice().context("a pool buffer is read-only")?, number);
        let send = both.peer.post_send(number, buffer)?;
        if number == 0 {
            // The other engine maps the pool, which takes both.
            (0..100).flat_map(|_| &both.engines).for_each(|engine| {
                engine.process();
            });
        }
        let message = both.there.recv_message(number, args.size)?;
        ensure!(message.is_lent(), "message {number}: {message:?}");
        check_ends(&message, number)?;
        drop(message);
        buffer = send.wait()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ours::{Case, OursArgs};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        args: OursArgs,
    }

    #[test]
    fn every_row_is_a_program_that_moves_its_messages() {
        for row in &ROWS {
            let line = format!("x counted --form {} --messages 64", row.words);
            let args = Words::try_parse_from(line.split(' ')).expect("words of the command line").args;
            assert_eq!(args.case, Case::Counted);
            program(&args).expect(row.what);
        }
    }

    #[test]
    fn the_sum_is_found_in_what_callgrind_writes() {
        assert_eq!(total("fn=(1) main\n16 3\n\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("summary: 12\n"), Some(12));
        assert_eq!(total("fn=(1) main\n"), None);
    }
}
