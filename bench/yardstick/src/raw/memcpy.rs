//! One copy: memcpy between private buffers of one process, and process_vm_readv from another process.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::process::Stdio;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::RawArgs;
use super::memory::{Private, Shared};
use super::pair::{self, Second};
use crate::sample::Sample;

/// Calls `copy` for the time that `args` says.
fn timed(args: &RawArgs, mut copy: impl FnMut() -> Result<()>) -> Result<Sample> {
    for _ in 0..3 {
        copy()?;
    }
    let limit = Duration::from_secs_f64(args.seconds);
    let start = Instant::now();
    let mut copies = 0;
    while start.elapsed() < limit {
        copy()?;
        copies += 1;
    }
    Ok(Sample::stream(copies, args.size, start.elapsed()))
}

pub(super) fn memcpy(args: &RawArgs) -> Result<Sample> {
    let from = Private::new(args.size, 1)?;
    let mut to = Private::new(args.size, 2)?;
    timed(args, || {
        to.copy_from_slice(black_box(&from));
        black_box(&to[..]);
        Ok(())
    })
}

pub(super) fn cross_read_first(args: &RawArgs) -> Result<Sample> {
    let (shared, memory) = Shared::create(4096)?;
    let mut mine = Private::new(args.size, 1)?;
    let second = Second::start(&args.cpus, memory, Stdio::null())?;
    let place = &shared.lines()[0].sequence;
    let mut address = 0;
    while address == 0 {
        std::hint::spin_loop();
        address = place.load(Acquire);
    }
    let pid = libc::pid_t::try_from(second.id())?;
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: args.size };
    let sample = timed(args, || {
        let local = libc::iovec { iov_base: mine.as_mut_ptr().cast(), iov_len: mine.len() };
        // SAFETY: `local` is the exclusively borrowed buffer `mine`; the remote range is only read by the kernel,
        // which checks it against the other process.
        let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        ensure!(got == args.size as isize, "process_vm_readv: {}", std::io::Error::last_os_error());
        Ok(())
    })?;
    ensure!(mine.iter().all(|byte| *byte == 3), "process_vm_readv read something else");
    Ok(sample)
}

pub(super) fn cross_read_second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let mine = Private::new(args.size, 3)?;
    shared.lines()[0].sequence.store(mine.as_ptr() as u64, Release);
    loop {
        // Sleeps until the first side ends and takes this process along.
        rustix::event::poll(&mut [], None).context("poll")?;
        black_box(&mine[..]);
    }
}
