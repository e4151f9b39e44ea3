//! Waiting until a descriptor has something that a call then takes, with a deadline.
//!
//! Called by what has a descriptor of the device's: completion channels, asynchronous events. Signals do not end a wait and do not move
//! its deadline.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Sleeps until `descriptor` has something and `take`, which must not block, gives it. Nothing when the time is over; `None` waits for ever. With no time
/// at all `take` is called once.
///
/// It sleeps before it takes: who waits has looked before, so the first call would give nothing and cost a system call.
pub(crate) fn until<T>(
    descriptor: &impl AsFd,
    object: &'static str,
    timeout: Option<Duration>,
    mut take: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = match timeout {
        None | Some(Duration::ZERO) => None,
        Some(timeout) => Instant::now().checked_add(timeout),
    };
    let mut left = timeout;
    loop {
        if left != Some(Duration::ZERO) {
            // What is left may be more than the system can say: it waits in steps then.
            let time =
                left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1 << 30, tv_nsec: 0 }));
            match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], time.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::call("poll", object, errno.raw_os_error())),
            }
        }
        if let Some(taken) = take()? {
            return Ok(Some(taken));
        }
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let (_writer, reader) = std::io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        let start = Instant::now();
        // A remainder below a millisecond is waited for too.
        let wanted = Duration::from_micros(2300);
        assert_eq!(until(&reader, "a pipe", Some(wanted), || Ok(None::<()>)).unwrap(), None);
        assert!(start.elapsed() >= wanted);
    }

    #[test]
    fn what_comes_ends_a_wait_without_end() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let copy = reader.try_clone().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let feeder = std::thread::spawn(move || writer.write_all(b"x").map(|()| writer));
        let (mut byte, mut calls) = ([0], 0);
        let taken = until(&copy, "a pipe", None, || {
            calls += 1;
            Ok(reader.read(&mut byte).ok())
        });
        assert_eq!((taken.unwrap(), calls), (Some(1), 1), "it sleeps before it takes");
        feeder.join().unwrap().unwrap();
    }

    #[test]
    fn a_failure_ends_a_wait() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let failed = until::<()>(&reader, "a pipe", None, || Err(Error::call("read", "a pipe", libc::EIO)));
        assert_eq!(failed.unwrap_err().errno(), Some(libc::EIO));
    }
}
