//! Two processes with an engine each: the second prints its address, the first connects and says hello.
//! Also what every case shares: engines as users build them, stamps in messages, receives that stand by.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sinew::{Buf, Endpoint, Engine, EngineOptions, Incoming, Peer, Progress, RecvOp};

use super::OursArgs;
use sinew_yardstick::raw::pair::{self, Second};

/// The tag of the first message.
const HELLO: u64 = 1 << 60;
/// The first tag of receives that stand by.
const STANDING_BY: u64 = 1 << 61;
/// Bytes of a cache line.
const LINE: usize = 64;
/// How many there are.
const STANDING_BY_COUNT: u64 = 16;

/// One side of a pair.
pub(super) struct Side {
    /// Receives that no message matches; they keep matching honest.
    _standing_by: Vec<RecvOp>,
    pub(super) peer: Peer,
    pub(super) endpoint: Endpoint,
    pub(super) engine: Engine,
    /// The other process, where this is the first side.
    _second: Option<Second>,
}

/// An engine as a user builds it, on one transport.
pub(super) fn engine(args: &OursArgs, progress: Progress) -> Result<Engine> {
    let mut builder =
        Engine::builder().domain("bench").transports([args.transport.as_str()]).progress(progress);
    if args.block {
        builder = builder.options(EngineOptions::default().spin(Duration::ZERO));
    }
    builder.build().context("cannot build an engine")
}

/// Starts the second side and returns it and the lines that it prints.
pub(super) fn start_second(args: &OursArgs) -> Result<(Second, impl BufRead + use<>)> {
    let (reader, writer) = std::io::pipe().context("pipe")?;
    let second = Second::start(&args.cpus, Stdio::null(), writer)?;
    Ok((second, BufReader::new(reader)))
}

/// Reads one line: an address.
pub(super) fn read_line(lines: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if lines.read_line(&mut line).context("the second side's address")? == 0 {
        bail!("the second side ended without an address");
    }
    Ok(line.trim_end().to_owned())
}

/// Prints the address for the first side.
pub(super) fn print_address(endpoint: &Endpoint) -> Result<()> {
    writeln!(std::fs::File::from(pair::output()?), "{}", endpoint.address()).context("standard output")
}

/// The first side: starts the second, connects, says hello.
pub(super) fn first(args: &OursArgs, progress: Progress) -> Result<Side> {
    let (second, mut lines) = start_second(args)?;
    let engine = engine(args, progress)?;
    let endpoint = engine.endpoint("first")?;
    let peer = endpoint.connect(read_line(&mut lines)?)?;
    peer.send(HELLO, b"hello")?;
    if !peer.path().starts_with(&args.transport) {
        bail!("the path is {}, not {}", peer.path(), args.transport);
    }
    Ok(Side { _standing_by: stand_by(&endpoint)?, peer, endpoint, engine, _second: Some(second) })
}

/// The second side: prints its address and waits for the hello.
pub(super) fn second(args: &OursArgs, progress: Progress) -> Result<Side> {
    let engine = engine(args, progress)?;
    let endpoint = engine.endpoint("second")?;
    print_address(&endpoint)?;
    let mut hello = [0; 8];
    let source = endpoint.recv(HELLO, &mut hello)?.source;
    let peer = endpoint.reply_to(source)?;
    Ok(Side { _standing_by: stand_by(&endpoint)?, peer, endpoint, engine, _second: None })
}

pub(super) fn stand_by(endpoint: &Endpoint) -> Result<Vec<RecvOp>> {
    (0..STANDING_BY_COUNT)
        .map(|number| Ok(endpoint.post_recv(STANDING_BY + number, Buf::zeroed(64))?))
        .collect()
}

/// Where in `message` number `number` leaves its mark besides the two ends, which it does not touch. `None`: it is too short.
#[inline]
fn middle(len: usize, number: u64) -> Option<usize> {
    // Below this the division would cost as much as sending the message.
    (len >= 64).then(|| 8 + (number as usize).wrapping_mul(64) % (len - 23))
}

/// Changes `message`, so that no two messages in a row are the same: whole if it is short, else both ends and a place
/// that moves.
#[inline]
pub(super) fn stamp(message: &mut [u8], number: u64) {
    let mark = number.to_le_bytes();
    let len = message.len();
    if len < 8 {
        message.copy_from_slice(&mark[..len]);
        return;
    }
    if let Some(middle) = middle(len, number) {
        message[middle..middle + 8].copy_from_slice(&mark);
    }
    message[len - 8..].copy_from_slice(&mark);
    message[..8].copy_from_slice(&mark);
}

/// Checks what [`stamp`] wrote.
#[inline]
pub(super) fn check(message: &[u8], number: u64) -> Result<()> {
    let mark = number.to_le_bytes();
    let len = message.len();
    let right = if len < 8 {
        message == &mark[..len]
    } else {
        // The head was written last, over a tail that overlaps it.
        let whole_tail = len >= 16;
        message[..8] == mark
            && (!whole_tail || message[len - 8..] == mark)
            && middle(len, number).is_none_or(|middle| message[middle..middle + 8] == mark)
    };
    if right { Ok(()) } else { bail!("message {number} arrived changed") }
}

/// Checks what [`stamp`] wrote at both ends of a message that is read in place: reads its first and its last line.
#[inline]
pub(super) fn check_ends(message: &Incoming, number: u64) -> Result<()> {
    let mark = number.to_le_bytes();
    let (mut first, mut last) = ([0; LINE], [0; LINE]);
    let len = message.len();
    let (head, tail) = (message.read_at(0, &mut first), message.read_at(len.saturating_sub(LINE), &mut last));
    let right = head >= 8 && first[..8] == mark && (len < 16 || last[tail - 8..tail] == mark);
    if right { Ok(()) } else { bail!("message {number} arrived changed") }
}

/// The same, and reads a word of every line.
#[inline]
pub(super) fn check_lines(message: &Incoming, number: u64) -> Result<()> {
    let mut sum = 0;
    for line in (0..message.len()).step_by(LINE) {
        let mut word = [0; 8];
        message.read_at(line, &mut word);
        sum |= u64::from_le_bytes(word);
    }
    std::hint::black_box(sum);
    check_ends(message, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again_and_a_wrong_one_is_refused() {
        for len in [1, 7, 8, 9, 15, 16, 17, 40, 64, 1000, 4096] {
            let mut message = vec![0; len];
            for number in [1, 2, 77, 255, 100_003] {
                stamp(&mut message, number);
                assert!(check(&message, number).is_ok(), "{len} B, message {number}");
                assert!(check(&message, number + 1).is_err(), "{len} B, message {number}");
            }
        }
    }
}
