//! System calls on sockets that `rustix` lacks or shapes differently, each as one safe function.
//!
//! Used by the listeners, the links and the lane. No state, no policy.
#![allow(unsafe_code)]

use crate::memory::Target;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::ffi::c_int;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel knows about the other end of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TcpState {
    /// Segments sent and not acknowledged by the peer's kernel.
    pub(crate) unacked: u32,
    /// Window probes that the peer's kernel has not answered.
    pub(crate) probes: u8,
    /// Milliseconds since the peer's kernel was heard last.
    pub(crate) silent_ms: u32,
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> Result<(), Errno> {
    // SAFETY: the pointer is to a live `c_int` whose size is given.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Bounds the time between retransmissions and window probes (`TCP_RTO_MAX_MS`, Linux 6.15). Older kernels refuse.
pub(crate) fn set_rto_max_ms(fd: BorrowedFd<'_>, milliseconds: u32) -> Result<(), Errno> {
    const TCP_RTO_MAX_MS: c_int = 44;
    set_int(fd, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, c_int::try_from(milliseconds).unwrap_or(c_int::MAX))
}

/// Reads `TCP_INFO`.
pub(crate) fn tcp_state(fd: BorrowedFd<'_>) -> Result<TcpState, Errno> {
    // SAFETY: `tcp_info` is plain integers, for which all zeros are valid.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointers are to live values of the sizes given; the kernel writes at most `len` bytes.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    if rc != 0 {
        return Err(last_errno());
    }
    Ok(TcpState {
        unacked: info.tcpi_unacked,
        probes: info.tcpi_probes,
        silent_ms: info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv),
    })
}

/// Bytes that were written to a TCP socket and that the peer's kernel has not acknowledged (`SIOCOUTQ`).
pub(crate) fn unacknowledged_bytes(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut count: c_int = 0;
    // SAFETY: this request writes one `int` to the place that it is given, which is live.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if rc != 0 { Err(last_errno()) } else { Ok(count.try_into().unwrap_or(0)) }
}

/// The user and the process at the other end of a Unix-domain socket; the process is `None` when it is not visible here.
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> Result<(u32, Option<u32>), Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to live values of the sizes given; the kernel writes at most `len` bytes.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if rc != 0 {
        return Err(last_errno());
    }
    Ok((credentials.uid, u32::try_from(credentials.pid).ok().filter(|&pid| pid != 0)))
}

/// Receives into `head`, then the rest of `target`, then `spill`, without blocking; says how much came in all, and tells the
/// end of the stream as `ESHUTDOWN`. The part for the target is accounted there.
pub(crate) fn recv_into(
    fd: BorrowedFd<'_>,
    head: &mut [u8],
    target: &mut Target,
    spill: &mut [u8],
) -> Result<usize, Errno> {
    let (data, missing) = target.rest();
    let mut pieces = [
        libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() },
        libc::iovec { iov_base: data.cast(), iov_len: missing },
        libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() },
    ];
    // SAFETY: `msghdr` is integers and pointers, for which all zeros are valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    // SAFETY: all pieces are writable for their lengths during the call: one is promised by `Target`, two are exclusive here.
    let count = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let count = usize::try_from(count).map_err(|_| last_errno())?;
    target.advance(count.saturating_sub(head.len()));
    if count == 0 { Err(Errno::SHUTDOWN) } else { Ok(count) }
}

/// Blocks all signals of the calling thread: for helper threads, so that the application's handlers run on its own.
pub(crate) fn block_signals() {
    // SAFETY: `set` is filled by `sigfillset` before it is used; the call changes this thread's mask only.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// An address of an interface that is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InterfaceAddress {
    /// The address.
    pub(crate) address: IpAddr,
    /// Whether a cable (or what stands for one) is there.
    pub(crate) running: bool,
}

/// The addresses of all interfaces that are up, in the kernel's order.
pub(crate) fn interface_addresses() -> Result<Vec<InterfaceAddress>, Errno> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the result.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(last_errno());
    }
    let mut found = Vec::new();
    let mut at = list;
    while !at.is_null() {
        // SAFETY: `at` is an element of the list, which lives until `freeifaddrs` below.
        let element = unsafe { &*at };
        at = element.ifa_next;
        let flags = element.ifa_flags;
        if element.ifa_addr.is_null() || flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        // SAFETY: not null; the family says which structure stands there.
        let address = match i32::from(unsafe { (*element.ifa_addr).sa_family }) {
            libc::AF_INET => {
                // SAFETY: an AF_INET address is a `sockaddr_in`; read unaligned to assume nothing about the list.
                let v4 = unsafe { element.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)))
            }
            libc::AF_INET6 => {
                // SAFETY: an AF_INET6 address is a `sockaddr_in6`.
                let v6 = unsafe { element.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr))
            }
            _ => continue,
        };
        found.push(InterfaceAddress { address, running: flags & libc::IFF_RUNNING as u32 != 0 });
    }
    // SAFETY: made by `getifaddrs` and freed once; nothing of it is referenced any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}
