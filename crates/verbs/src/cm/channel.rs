//! Where what happens to identifiers arrives: one descriptor for any number of them.
//!
//! Every event is copied and acknowledged before anybody sees it, under the lock of its channel. An identifier is destroyed and
//! migrated under the same lock: so none of the library's waits for acknowledgements ever waits. But for one whose end waits in the kernel (`reaper`): that ends without
//! the lock, its events are told to nobody, and the library waits for who takes one of them at that moment.
#![allow(unsafe_code)]

use super::base::Base;
use super::datagram::Inquiry;
use super::event::{
    DatagramAttributes, Event, EventKind, IdNumber, Notice, Parameters, Status, carries_parameters,
    is_of_a_group,
};
use super::id::Id;
use super::peer::{Requested, Said};
use crate::device::Gid;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::qp::{Path, Route};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::time::Timespec;
use sinew_verbs_sys as sys;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where events of identifiers arrive. `Clone` is another handle to the same; `Send` and `Sync`. Its descriptor (`AsFd`) is readable
/// while an event waits: give it to any event loop; it does not block. Destroyed with the last identifier of it.
#[derive(Clone)]
#[doc(alias = "rdma_event_channel")]
pub struct EventChannel {
    shared: Arc<Made>,
}

struct Made {
    library: Library,
    channel: NonNull<sys::rdma_event_channel>,
    /// Held while an event is taken, and in every call on an identifier: those read and write the same objects of the library.
    taking: Mutex<()>,
}

// SAFETY: a channel may be used and destroyed by any thread.
unsafe impl Send for Made {}
// SAFETY: the same; the library's objects behind it are touched under its lock.
unsafe impl Sync for Made {}

impl Drop for Made {
    fn drop(&mut self) {
        if let Ok(table) = self.library.cm_table() {
            // SAFETY: made by us, destroyed once; identifiers of it hold this value, and every event was acknowledged.
            unsafe { (table.rdma_destroy_event_channel)(self.channel.as_ptr()) };
        }
    }
}

impl Library {
    /// A channel for events of the connection manager (rdma_create_event_channel(3)).
    ///
    /// # Errors
    /// [`Error::Library`] where librdmacm is absent; [`Error::Call`] where the kernel has no connection manager (module `rdma_ucm`) or no
    /// device, and when no descriptor is left.
    #[doc(alias = "rdma_create_event_channel")]
    pub fn event_channel(&self) -> Result<EventChannel> {
        let object = "the connection manager (/dev/infiniband/rdma_cm, of the kernel's module rdma_ucm)";
        let failed = |call, errno| Error::call(call, object, errno);
        // SAFETY: takes nothing.
        let channel = unsafe { (self.cm_table()?.rdma_create_event_channel)() };
        let channel =
            NonNull::new(channel).ok_or_else(|| failed("rdma_create_event_channel", sys::Errno::last().0))?;
        let made = Made { library: self.clone(), channel, taking: Mutex::new(()) };
        let channel = EventChannel { shared: Arc::new(made) };
        let flags = fcntl_getfl(&channel).map_err(|errno| failed("fcntl", errno.raw_os_error()))?;
        fcntl_setfl(&channel, flags | OFlags::NONBLOCK)
            .map_err(|errno| failed("fcntl", errno.raw_os_error()))?;
        Ok(channel)
    }
}

impl EventChannel {
    /// The library it is of.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.shared.library
    }

    /// The raw channel; it stays as long as a handle or an identifier is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::rdma_event_channel {
        self.shared.channel.as_ptr()
    }

    /// Keeps everybody else from events and identifiers of it. Nothing that owns an identifier may be dropped meanwhile.
    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        self.shared.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether two handles are of one channel.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// An event, if one waits. Never blocks. Each event goes to one caller.
    ///
    /// # Errors
    /// [`Error::Call`] when the channel failed; the error of a request's device that cannot be used (the peer is refused then, and the channel goes on).
    #[doc(alias = "rdma_get_cm_event")]
    #[doc(alias = "rdma_ack_cm_event")]
    pub fn event(&self) -> Result<Option<Event>> {
        let (base, Asked { datagrams, listener, said, .. }) = loop {
            match self.take()? {
                None => return Ok(None),
                // Of one that was dropped, and has not ended yet.
                Some(Taken::Notice(notice)) if notice.id == Some(IdNumber::NOBODY) => {}
                Some(Taken::Notice(notice)) => return Ok(Some(Event::Notice(notice))),
                Some(Taken::Request(base, asked)) => break (base, asked),
            }
        };
        // One whose device cannot be used is refused, as it is dropped.
        let context = base.device()?;
        Ok(Some(if datagrams {
            Event::Inquiry(Inquiry::new(base, context, listener, said.private_data))
        } else {
            Event::Request(Id::new(base, Requested { context, listener, said }))
        }))
    }

    /// Takes an event, copies and acknowledges it.
    fn take(&self) -> Result<Option<Taken>> {
        let table = self.library().cm_table()?;
        let taking = self.hold();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel is alive, the place a local, and its descriptor does not block.
        let answer = unsafe { (table.rdma_get_cm_event)(self.as_raw(), &mut raw) };
        if let Err(errno) = sys::Errno::check(answer) {
            return match errno.0 {
                libc::EAGAIN | libc::EINTR => Ok(None),
                number => Err(Error::call("rdma_get_cm_event", "an event channel", number)),
            };
        }
        let Some(event) = NonNull::new(raw) else { return Ok(None) };
        // SAFETY: the library's event until it is acknowledged, which is below; its identifiers live: they end under this lock, or the library's call that ends them waits for the
        // acknowledgement.
        let copied = unsafe { copy(event.as_ref()) };
        let taken = match copied {
            Copied::Notice(notice) => Taken::Notice(notice),
            // Nobody takes an event of the new identifier before it has its number. It is not dropped while the channel is held.
            // SAFETY: the library made it for this event and gives it out once; it is of this channel, as its listener, and the channel
            // is held.
            Copied::Request(asked) => Taken::Request(unsafe { Base::own(self, asked.id) }, asked),
        };
        // SAFETY: taken once, acknowledged once; nothing points into it any more.
        let answer = sys::Errno::check(unsafe { (table.rdma_ack_cm_event)(event.as_ptr()) });
        drop(taking);
        // The event stands, also when its acknowledgement was refused: what it owns must not be lost.
        if let Err(errno) = answer {
            tracing::error!(errno = errno.0, "an event of a connection could not be acknowledged");
        }
        Ok(Some(taken))
    }

    /// Waits for an event; nothing when none came in time. `None` waits for ever. Signals do not end it.
    ///
    /// Several threads may wait: each event goes to one of them.
    ///
    /// # Errors
    /// As [`event`](Self::event); [`Error::Call`] when the system cannot wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.event()? {
                return Ok(Some(event));
            }
            if !self.wait_readable(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Sleeps until an event may be there; false when the deadline has passed.
    pub(super) fn wait_readable(&self, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        // What is left may be more than the system can say: it waits in steps then.
        let left =
            left.map(|left| Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1 << 30, tv_nsec: 0 }));
        match poll(&mut [PollFd::new(self, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(true),
            Err(errno) => Err(Error::call("poll", "an event channel", errno.raw_os_error())),
        }
    }
}

impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel's own descriptor, open as long as the channel is, which the borrow holds.
        unsafe { BorrowedFd::borrow_raw((*self.as_raw()).fd) }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventChannel({})", std::os::fd::AsRawFd::as_raw_fd(&self.as_fd()))
    }
}

/// The same, acknowledged: the new identifier of a request has its number, and is owned.
enum Taken {
    Notice(Notice),
    Request(Base, Asked),
}

/// An event that points nowhere, but to the identifier that it gives out.
enum Copied {
    Notice(Notice),
    Request(Asked),
}

struct Asked {
    id: NonNull<sys::rdma_cm_id>,
    datagrams: bool,
    listener: IdNumber,
    said: Said,
}

/// # Safety
/// An event of the library that was not acknowledged, whose identifiers live and are touched by nobody else.
unsafe fn copy(event: &sys::rdma_cm_event) -> Copied {
    let kind = event.event;
    // SAFETY: by the promise to this function; the word is the number that we gave it, or its listener's.
    let number = |id: NonNull<sys::rdma_cm_id>| IdNumber(unsafe { id.as_ref() }.context.addr());
    let (id, listener) = (NonNull::new(event.id), NonNull::new(event.listen_id));
    // SAFETY: by the promise to this function.
    let datagrams = id.is_some_and(|id| unsafe { id.as_ref() }.qp_type == sys::IbvQpType::UD);
    let (mut parameters, mut private_data) = (Parameters::None, Vec::new());
    if carries_parameters(kind) {
        // SAFETY: of these kinds the parameters are of a connection or of datagrams, which begin alike: with private data that is
        // valid until the acknowledgement, or null, and its length.
        let conn = unsafe { &event.param.conn };
        if !conn.private_data.is_null() && conn.private_data_len > 0 {
            let len = usize::from(conn.private_data_len);
            // SAFETY: as above.
            private_data =
                unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), len) }.to_vec();
        }
        if !datagrams {
            parameters = Parameters::Connection(conn.into());
        }
    }
    let addresses = matches!(kind, EventKind::CONNECT_REQUEST | EventKind::ESTABLISHED);
    if is_of_a_group(kind) || (datagrams && addresses) {
        // SAFETY: of these kinds the parameters are of datagrams.
        let ud = unsafe { &event.param.ud };
        let (qp_num, qkey) = (ud.qp_num, ud.qkey);
        parameters = Parameters::Datagram(DatagramAttributes { path: path(&ud.ah_attr), qp_num, qkey });
    }
    match (kind, id, listener) {
        (EventKind::CONNECT_REQUEST, Some(id), Some(listener)) => {
            let attributes = parameters.connection().copied();
            let said = Said { attributes, private_data };
            Copied::Request(Asked { id, datagrams, listener: number(listener), said })
        }
        _ => Copied::Notice(Notice {
            id: id.map(number),
            kind,
            status: Status::from_raw(event.status),
            parameters,
            private_data,
        }),
    }
}

fn path(raw: &sys::ibv_ah_attr) -> Path {
    Path {
        port: raw.port_num,
        lid: raw.dlid,
        route: (raw.is_global != 0).then(|| Route {
            // SAFETY: every byte of it is a number, whichever name it has.
            gid: Gid::from_bytes(unsafe { raw.grh.dgid.raw }),
            gid_index: raw.grh.sgid_index,
            hop_limit: raw.grh.hop_limit,
            traffic_class: raw.grh.traffic_class,
            flow_label: raw.grh.flow_label,
        }),
        service_level: raw.sl,
        path_bits: raw.src_path_bits,
    }
}
