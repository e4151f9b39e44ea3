//! Unix stream sockets: listening and dialling by path, credentials, bytes with descriptors.
//!
//! Called by the domain, links and lanes. All sockets are non-blocking, close-on-exec and let go in forked children.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use sinew_base::guarded::GuardedFd;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;

/// Most descriptors in one message.
pub(crate) const FDS_MAX: usize = 4;

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Calls `with` with an address for `path`. A path beyond the 107 bytes of an address goes by way of a descriptor of its
/// directory and `/proc/self/fd`.
fn with_address<T>(path: &Path, with: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>) -> Result<T, Errno> {
    match SocketAddrUnix::new(path) {
        Ok(address) => with(&address),
        Err(Errno::NAMETOOLONG) => {
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::NAMETOOLONG);
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(directory, flags, Mode::empty())?;
            let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
            with(&SocketAddrUnix::new(short)?)
        }
        Err(errno) => Err(errno),
    }
}

/// A listener at `path`, which must not exist.
pub(crate) fn listen(path: &Path, backlog: i32) -> Result<GuardedFd, Errno> {
    let socket = GuardedFd::make(stream)?;
    with_address(path, |address| rustix::net::bind(&socket, address))?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A socket that is not connected yet.
pub(crate) fn unconnected() -> Result<GuardedFd, Errno> {
    GuardedFd::make(stream)
}

/// Connects; `AGAIN` when the listener's queue is full.
pub(crate) fn connect(socket: &GuardedFd, path: &Path) -> Result<(), Errno> {
    with_address(path, |address| rustix::net::connect(socket, address))
}

/// The next connection, or `None`.
pub(crate) fn accept(listener: &GuardedFd) -> Result<Option<GuardedFd>, Errno> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match GuardedFd::make(|| rustix::net::accept_with(listener, flags)) {
            Ok(socket) => return Ok(Some(socket)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether a socket file has no socket any more, asked without disturbing whoever listens: a datagram socket is refused
/// in one way by nobody and in another by a stream listener.
pub(crate) fn is_stale(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(probe) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None) else {
        return false;
    };
    with_address(path, |address| rustix::net::connect(&probe, address)) == Err(Errno::CONNREFUSED)
}

/// Who connected, by the kernel's word: process (0 when it is not visible from here) and user.
pub(crate) fn credentials(socket: impl AsFd) -> Result<(u32, u32), Errno> {
    // rustix's own call makes a non-zero process id of what can be zero across namespaces.
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `found` and `len` are valid for writes of the sizes given.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok((u32::try_from(found.pid).unwrap_or(0), found.uid))
}

/// What came of an attempt to send or receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moved {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The other end is gone.
    End,
}

/// Sends bytes with descriptors; the descriptors go with the first byte.
pub(crate) fn send(socket: &GuardedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Moved, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(sent) => return Ok(Moved::Bytes(sent)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Moved::Nothing),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Ok(Moved::End),
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives bytes; descriptors that come along are appended to `fds`, up to [`FDS_MAX`] in all, the rest closed.
pub(crate) fn receive(socket: &GuardedFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<Moved, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Ok(got) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(passed) = message {
                        fds.extend(passed.take(FDS_MAX.saturating_sub(fds.len())));
                    }
                }
                return Ok(if got.bytes == 0 { Moved::End } else { Moved::Bytes(got.bytes) });
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Moved::Nothing),
            Err(Errno::CONNRESET) => return Ok(Moved::End),
            Err(errno) => return Err(errno),
        }
    }
}

/// Says that nothing more will be sent: the other end reads an end.
pub(crate) fn finish(socket: &GuardedFd) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}
