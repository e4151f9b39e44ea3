//! What is under way between the two ends of a loopback connection: one [`Flow`] per direction.
#![allow(unsafe_code)]

use super::bell::{Notice, locked};
use crate::{Body, Record, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::Header;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

/// Records that may wait in one direction.
const RECORDS_MAX: usize = 16;

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// Both directions and how each end is told.
pub(super) struct Connection {
    name: String,
    /// What the dialer, and what the acceptor, sends.
    flows: [Mutex<Flow>; 2],
    notices: [Notice; 2],
}

/// One direction.
#[derive(Default)]
pub(super) struct Flow {
    /// Boxed: a link carries few, a lane none.
    records: VecDeque<Box<Record>>,
    pub(super) frames: VecDeque<Queued>,
    /// Bytes of the bodies in `frames`.
    pub(super) bytes: usize,
    /// Frames that were taken from the sender, and that the receiver's sink has had.
    pub(super) posted: u64,
    pub(super) delivered: u64,
    /// Borrowed posts that left the queue and that the receiver's sink may still be busy with.
    pub(super) handing: Vec<Token>,
    /// Borrowed posts that the receiver has had and the sender was not told of.
    pub(super) released: Vec<Token>,
    /// The sender found no room and wants to be told of it.
    pub(super) wants_room: bool,
    /// The sender wants to be told when everything has been delivered.
    pub(super) wants_delivered: bool,
    /// No frame comes any more but those in the queue.
    pub(super) sender_left: bool,
    /// Nobody takes frames any more.
    pub(super) receiver_left: bool,
}

/// One frame under way.
pub(super) struct Queued {
    pub(super) header: Header,
    pub(super) body: QueuedBody,
    /// The post to release when it has arrived.
    pub(super) token: Option<Token>,
}

pub(super) enum QueuedBody {
    Owned(Vec<u8>),
    /// Memory of the sender's caller. Only read with the flow locked, only while in the queue.
    Borrowed(Borrowed),
}

pub(super) struct Borrowed {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: `try_post_borrowed` requires the memory to be readable, from any thread as lanes are `Send`, while it is posted.
unsafe impl Send for Borrowed {}

impl Borrowed {
    /// # Safety
    /// `data` is readable for `len` bytes until the value is dropped.
    pub(super) unsafe fn new(data: NonNull<u8>, len: usize) -> Self {
        Self { data, len }
    }
}

impl QueuedBody {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) => bytes.len(),
            Self::Borrowed(borrowed) => borrowed.len,
        }
    }

    /// The bytes. Borrowed ones are only in a queue behind its lock, so the borrow of `self` holds the lock.
    pub(super) fn body(&self) -> Body<'_> {
        match self {
            Self::Owned(bytes) => Body::from_slice(bytes),
            // SAFETY: readable while the value exists, by `Borrowed::new`.
            Self::Borrowed(borrowed) => unsafe { Body::from_raw(borrowed.data.as_ptr(), borrowed.len) },
        }
    }

    /// The bytes, copied when they are not the queue's own.
    pub(super) fn into_owned(self) -> Vec<u8> {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Borrowed(_) => self.body().to_vec(),
        }
    }
}

impl Flow {
    /// Makes own copies of borrowed posts: of the one named `token`, or of all. They are no longer reported as released.
    pub(super) fn own(&mut self, token: Option<Token>) {
        for frame in &mut self.frames {
            if frame.token.is_some() && (token.is_none() || frame.token == token) {
                frame.token = None;
                if let QueuedBody::Borrowed(_) = frame.body {
                    frame.body = QueuedBody::Owned(frame.body.body().to_vec());
                }
            }
        }
        let keep = |other: &Token| token.is_some_and(|token| token != *other);
        self.handing.retain(keep);
        self.released.retain(keep);
    }

    /// Takes the head out of the queue. Its bytes are the frame's own from then on.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let mut frame = self.frames.pop_front()?;
        self.bytes -= frame.body.len();
        self.handing.extend(frame.token);
        if let QueuedBody::Borrowed(_) = frame.body {
            frame.body = QueuedBody::Owned(frame.body.into_owned());
        }
        Some(frame)
    }

    /// Takes a head whose bytes have been copied already out of the queue.
    pub(super) fn pop_copied(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.body.len();
            self.handing.extend(frame.token);
        }
    }

    /// Takes every frame back, for another lane.
    pub(super) fn recover(&mut self) -> Vec<Unacknowledged> {
        self.bytes = 0;
        self.handing.clear();
        self.released.clear();
        let frames = std::mem::take(&mut self.frames);
        let back = |frame: Queued| Unacknowledged {
            header: frame.header,
            body: match (frame.body, frame.token) {
                (QueuedBody::Borrowed(borrowed), Some(token)) => {
                    UnacknowledgedBody::Borrowed { data: borrowed.data.as_ptr(), len: borrowed.len, token }
                }
                (body, _) => UnacknowledgedBody::Owned(body.into_owned()),
            },
        };
        frames.into_iter().map(back).collect()
    }
}

impl Connection {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), flows: Default::default(), notices: Default::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What `side` sends.
    pub(super) fn outgoing(&self, side: Side) -> MutexGuard<'_, Flow> {
        locked(&self.flows[side as usize])
    }

    /// What `side` receives.
    pub(super) fn incoming(&self, side: Side) -> MutexGuard<'_, Flow> {
        self.outgoing(side.other())
    }

    pub(super) fn notice(&self, side: Side) -> &Notice {
        &self.notices[side as usize]
    }

    /// Queues a record; `false` when there is no room, `None` when the peer has left.
    pub(super) fn send_record(&self, side: Side, record: &Record) -> Option<bool> {
        let mut flow = self.outgoing(side);
        if flow.receiver_left {
            return None;
        }
        let room = flow.records.len() < RECORDS_MAX;
        if room {
            flow.records.push_back(Box::new(*record));
        }
        Some(room)
    }

    pub(super) fn take_record(&self, side: Side) -> Option<Box<Record>> {
        self.incoming(side).records.pop_front()
    }

    /// Whether a link has nothing more to hope for. Frames that wait already mean that the peer's end became a lane.
    pub(super) fn ended_for_link(&self, side: Side) -> bool {
        let flow = self.incoming(side);
        flow.sender_left && flow.records.is_empty() && flow.frames.is_empty()
    }

    /// The end of `side` is over. In order: what it sent still arrives. Otherwise: it is gone, with what nobody has taken.
    pub(super) fn leave(&self, side: Side, in_order: bool) {
        {
            let mut sent = self.outgoing(side);
            if !in_order && !sent.sender_left {
                sent.frames.clear();
                sent.bytes = 0;
            }
            sent.own(None);
            sent.sender_left = true;
        }
        if !in_order {
            self.incoming(side).receiver_left = true;
            self.notice(side).for_nobody();
        }
        self.notice(side.other()).tell();
    }
}
