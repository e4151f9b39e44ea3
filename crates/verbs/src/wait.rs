//! Waiting until a descriptor has something that a call then takes, with a deadline.
//!
//! Called by what has a descriptor of the device's: completion channels, asynchronous events. Signals do not end a wait and do not move
//! its deadline.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Calls `take`, which must not block, until it gives something, sleeping on `descriptor` between. Nothing when the time is over;
/// `None` waits for ever. With no time at all it calls once.
pub(crate) fn until<T>(
    descriptor: &impl AsFd,
    object: &'static str,
    timeout: Option<Duration>,
    mut take: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        if let Some(taken) = take()? {
            return Ok(Some(taken));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        // What is left may be more than the system can say: it waits in steps then.
        let left =
            left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1 << 30, tv_nsec: 0 }));
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::call("poll", object, errno.raw_os_error())),
        }
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
        let mut byte = [0];
        let taken = until(&copy, "a pipe", None, || match reader.read(&mut byte) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Ok(None),
        });
        assert_eq!(taken.unwrap(), Some(1));
        feeder.join().unwrap().unwrap();
    }

    #[test]
    fn a_failure_ends_a_wait() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let failed = until::<()>(&reader, "a pipe", None, || Err(Error::call("read", "a pipe", libc::EIO)));
        assert_eq!(failed.unwrap_err().errno(), Some(libc::EIO));
    }
}
