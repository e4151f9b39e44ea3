//! Reading memory of another process by `process_vm_readv`: never writing, and only beside a proof that it is the process meant.
//!
//! Called by `across.rs`. The number of a process that has ended may belong to another one. So each call reads, before
//! anything else, 16 bytes that only the process meant has at that address; the kernel takes one address space for the whole
//! call, so that bytes beside the right proof are bytes of the right process.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::ptr::NonNull;

/// Bytes that prove a process.
pub(crate) const TOKEN_LEN: usize = 16;

/// A process, and by what it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// Its number, as this process sees it and the kernel said.
    pub(crate) pid: u32,
    /// Where its token lies in its memory.
    pub(crate) token_at: u64,
    /// The token.
    pub(crate) token: [u8; TOKEN_LEN],
}

/// Why nothing was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    /// The system's word.
    Refused(Errno),
    /// Another process, or another program in it, than the one meant; or part of the range is no memory.
    NotThere,
}

/// Random bytes for a token; `None` where the system has none.
pub(crate) fn token() -> Option<[u8; TOKEN_LEN]> {
    let mut token = [0; TOKEN_LEN];
    let got = rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::NONBLOCK);
    (got == Ok(TOKEN_LEN)).then_some(token)
}

impl Process {
    /// Whether the process is there and may be read.
    pub(crate) fn prove(&self) -> Result<(), Unread> {
        // SAFETY: nothing is read beside the token.
        unsafe { self.read(0, NonNull::dangling(), 0) }
    }

    /// Reads `len` bytes at `from` of the process. What was read of anything but the process meant is overwritten by zeros.
    /// Does not wait for the process, only for its pages.
    ///
    /// # Safety
    /// `target` is writable for `len` bytes, and nobody else accesses it during the call.
    pub(crate) unsafe fn read(&self, from: u64, target: NonNull<u8>, len: usize) -> Result<(), Unread> {
        let Ok(pid) = libc::pid_t::try_from(self.pid) else { return Err(Unread::NotThere) };
        let (Ok(token_at), Ok(from)) = (usize::try_from(self.token_at), usize::try_from(from)) else {
            return Err(Unread::NotThere);
        };
        let mut seen = [0u8; TOKEN_LEN];
        let part = |at: *mut libc::c_void, len| libc::iovec { iov_base: at, iov_len: len };
        let here = [part(seen.as_mut_ptr().cast(), TOKEN_LEN), part(target.as_ptr().cast(), len)];
        // Addresses of another process: the kernel checks them, nobody here follows them.
        let there = [
            part(std::ptr::without_provenance_mut(token_at), TOKEN_LEN),
            part(std::ptr::without_provenance_mut(from), len),
        ];
        let parts = if len == 0 { 1 } else { 2 };
        // SAFETY: `here` names 16 bytes of `seen` and `len` bytes that the caller lends for writing.
        let got = unsafe { libc::process_vm_readv(pid, here.as_ptr(), parts, there.as_ptr(), parts, 0) };
        if got >= 0 && seen == self.token && usize::try_from(got) == Ok(TOKEN_LEN + len) {
            return Ok(());
        }
        if got < 0 {
            let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
            return Err(if errno == Errno::FAULT { Unread::NotThere } else { Unread::Refused(errno) });
        }
        if seen != self.token {
            // SAFETY: writable for `len` bytes, says the caller.
            unsafe { target.as_ptr().write_bytes(0, len) };
        }
        Err(Unread::NotThere)
    }
}

/// Why this system refuses, and what would help.
pub(crate) fn reason(errno: Errno) -> String {
    match errno {
        Errno::PERM => {
            match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").as_deref().map(str::trim) {
                Ok(scope @ ("1" | "2" | "3")) => format!(
                    "not permitted (kernel.yama.ptrace_scope = {scope}; 0 would let processes of one user read each other)"
                ),
                _ => "not permitted (a sandbox, or the peer is not dumpable)".to_owned(),
            }
        }
        Errno::NOSYS => "this kernel or sandbox has no process_vm_readv".to_owned(),
        Errno::SRCH => "the peer's process is not visible from here".to_owned(),
        other => format!("process_vm_readv: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process, by a token at an address of its own.
    fn myself(token: &[u8; TOKEN_LEN]) -> Process {
        Process { pid: std::process::id(), token_at: token.as_ptr().addr() as u64, token: *token }
    }

    #[test]
    fn bytes_beside_the_right_token_are_read_and_nothing_beyond_them() {
        let token = Box::new([7u8; TOKEN_LEN]);
        let from: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
        let mut target = vec![0xa5u8; 10_000];
        let at = NonNull::from(&mut target[100]);
        // SAFETY: 5,000 bytes from 100 on lie inside the vector.
        unsafe { myself(&token).read(from[50..].as_ptr().addr() as u64, at, 5000) }.expect("read");
        assert_eq!(target[100..5100], from[50..5050]);
        assert!(target[..100].iter().chain(&target[5100..]).all(|&byte| byte == 0xa5));
    }

    #[test]
    fn a_process_without_the_token_is_not_believed_and_leaves_no_byte_behind() {
        let token = Box::new([7u8; TOKEN_LEN]);
        let other = Process { token: [8; TOKEN_LEN], ..myself(&token) };
        assert_eq!(other.prove(), Err(Unread::NotThere));
        let from = vec![0x11u8; 4096];
        let mut target = vec![0xa5u8; 4096];
        let at = NonNull::from(&mut target[0]);
        // SAFETY: the vector is that long.
        let read = unsafe { other.read(from.as_ptr().addr() as u64, at, 4096) };
        assert_eq!(read, Err(Unread::NotThere));
        assert!(target.iter().all(|&byte| byte == 0), "bytes of a stranger stay nowhere");
    }

    #[test]
    fn addresses_that_are_no_memory_are_an_answer_and_no_fault() {
        let token = Box::new([7u8; TOKEN_LEN]);
        let mut target = vec![0u8; 4096];
        let at = NonNull::from(&mut target[0]);
        for from in [0, 8, u64::MAX - 4096, 1 << 63] {
            // SAFETY: the vector is that long.
            let read = unsafe { myself(&token).read(from, at, 4096) };
            assert!(matches!(read, Err(Unread::NotThere | Unread::Refused(_))), "{from:#x}: {read:?}");
        }
        let gone = Process { pid: 0x3fff_ffff, ..myself(&token) };
        assert_eq!(gone.prove(), Err(Unread::Refused(Errno::SRCH)));
    }
}
