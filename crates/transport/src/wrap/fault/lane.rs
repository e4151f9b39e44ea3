//! A lane that delays, swallows and ends on command.
#![allow(unsafe_code)]

use super::{Faults, SUB, Settings};
use crate::bell::Bell;
use crate::{
    Buf, Descriptor, ErrorKind, Event, Lane, LaneError, PostError, Pull, Sink, Token, TransportError,
    Unacknowledged, UnacknowledgedBody, View, forward,
};
use sinew_wire::frame::{Header, Kind};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What may be held back; beyond it the lane is full. One frame always may.
const HELD_MAX: usize = 4096;
const HELD_BYTES_MAX: usize = 16 << 20;

pub(super) struct FaultyLane {
    inner: Box<dyn Lane>,
    faults: Faults,
    bell: Arc<Bell>,
    peer_timeout: Duration,
    /// Cuts that had happened when the lane was made.
    cuts: u64,
    /// Frames that wait for their time, oldest first.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The lane inside refused the oldest held frame.
    inner_full: bool,
    /// A post was refused for want of room here.
    was_full: bool,
    /// Since when something is outstanding into a black hole.
    silent_since: Option<Instant>,
    dead: Option<LaneError>,
}

struct Held {
    header: Header,
    body: HeldBody,
    leaves: Instant,
}

enum HeldBody {
    Owned(Vec<u8>),
    Borrowed {
        data: NonNull<u8>,
        len: usize,
        token: Token,
    },
    /// A copy of what was borrowed; it may be larger than what `try_post` takes.
    Reclaimed {
        bytes: Vec<u8>,
        token: Token,
    },
}

// SAFETY: `try_post_borrowed` requires the memory to be readable while it is posted, from whichever thread has the lane.
unsafe impl Send for Held {}

impl HeldBody {
    fn len(&self) -> usize {
        match self {
            Self::Owned(bytes) | Self::Reclaimed { bytes, .. } => bytes.len(),
            Self::Borrowed { len, .. } => *len,
        }
    }
}

impl FaultyLane {
    pub(super) fn new(inner: Box<dyn Lane>, faults: Faults, bell: Arc<Bell>, peer_timeout: Duration) -> Self {
        let cuts = faults.settings().cuts;
        Self {
            inner,
            faults,
            bell,
            peer_timeout,
            cuts,
            held: VecDeque::new(),
            held_bytes: 0,
            inner_full: false,
            was_full: false,
            silent_since: None,
            dead: None,
        }
    }

    fn end(&mut self, error: LaneError) -> LaneError {
        self.dead.get_or_insert(error).clone()
    }

    /// The settings of now, or why the lane is over.
    fn check(&mut self) -> Result<Settings, LaneError> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        let settings = self.faults.settings().clone();
        if settings.cuts > self.cuts {
            return Err(self.end(TransportError::new(
                ErrorKind::Broken,
                "cut",
                self.inner.info().peer.clone(),
            )));
        }
        if !settings.blocked || self.unacknowledged() == 0 {
            self.silent_since = None;
        } else if self.silent_since.get_or_insert_with(Instant::now).elapsed() >= self.peer_timeout {
            let error = TransportError::new(ErrorKind::TimedOut, "poll", self.inner.info().peer.clone());
            return Err(self.end(error));
        }
        Ok(settings)
    }

    /// Ends the lane when the frame that it is to take is one too many.
    fn cut_if_due(&mut self) -> Result<(), PostError> {
        {
            let mut settings = self.faults.settings();
            if settings.cut_after != Some(0) {
                return Ok(());
            }
            settings.cut_after = None;
        }
        self.bell.ring();
        let error = TransportError::new(ErrorKind::Broken, "cut", self.inner.info().peer.clone());
        Err(PostError::Dead(self.end(error)))
    }

    /// Counts a frame that was taken towards `cut_after`.
    fn count(&self) {
        let mut settings = self.faults.settings();
        settings.cut_after = settings.cut_after.map(|left| left.saturating_sub(1));
    }

    /// Whether a post goes into the queue; otherwise to the lane inside.
    fn holds(&self, settings: &Settings) -> bool {
        !self.held.is_empty() || settings.blocked || !settings.delay.is_zero()
    }

    fn hold(&mut self, header: Header, body: HeldBody, settings: &Settings) -> Result<(), PostError> {
        let len = body.len();
        let room = self.held.len() < HELD_MAX && self.held_bytes + len <= HELD_BYTES_MAX;
        if !room && !self.held.is_empty() {
            self.was_full = true;
            return Err(PostError::Full);
        }
        self.cut_if_due()?;
        self.count();
        self.held_bytes += len;
        self.held.push_back(Held { header, body, leaves: Instant::now() + settings.delay });
        Ok(())
    }

    /// Passes on what is due, and says how many frames that were.
    fn release(&mut self, settings: &Settings, drain: bool) -> Result<usize, LaneError> {
        self.inner_full = false;
        let mut count = 0;
        if settings.blocked || self.held.is_empty() {
            return Ok(0);
        }
        let now = Instant::now();
        while let Some(head) = self.held.front_mut() {
            if !drain && head.leaves > now {
                break;
            }
            let posted = match &mut head.body {
                HeldBody::Owned(bytes) => self.inner.try_post(&head.header, &[IoSlice::new(bytes)]),
                // SAFETY: the caller's promise to our `try_post_borrowed`; `reclaim` and `recover` take it out of the queue.
                HeldBody::Borrowed { data, len, token } => unsafe {
                    self.inner.try_post_borrowed(&head.header, *data, *len, *token)
                },
                HeldBody::Reclaimed { bytes, token } => {
                    let data = NonNull::new(bytes.as_mut_ptr()).unwrap_or(NonNull::dangling());
                    // SAFETY: `bytes` lives, unwritten, until the `reclaim` below has taken the reference back.
                    let posted =
                        unsafe { self.inner.try_post_borrowed(&head.header, data, bytes.len(), *token) };
                    if posted.is_ok() {
                        self.inner.reclaim(*token);
                    }
                    posted
                }
            };
            match posted {
                Ok(()) => {}
                Err(PostError::Full) => {
                    self.inner_full = true;
                    break;
                }
                Err(PostError::Dead(error)) => return Err(self.end(error)),
                Err(PostError::TooLarge) => {
                    let peer = self.inner.info().peer.clone();
                    return Err(self.end(TransportError::new(ErrorKind::Protocol, "post", peer)));
                }
            }
            self.held_bytes -= head.body.len();
            self.held.pop_front();
            count += 1;
        }
        if count > 0
            && let Err(error) = self.inner.flush()
        {
            return Err(self.end(error));
        }
        Ok(count)
    }
}

/// A probe that goes out twice; it belongs to no session.
fn is_probe(header: &Header) -> bool {
    matches!(header.kind, Kind::PROBE | Kind::PROBE_REPLY)
}

// SAFETY: what is held back is copied or let go by `reclaim` and `recover`, before the lane inside is told the same; all other
// memory is the lane's inside, to which every call that ends a loan is passed on.
unsafe impl Lane for FaultyLane {
    forward! { Lane:
    info, is_held_up, backlog, remark, has_more, request_acknowledgement, acknowledge, revoke, redirect, recall, take_view, crossings, memory }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let settings = self.check().map_err(PostError::Dead)?;
        if body.iter().map(|part| part.len()).sum::<usize>() > self.inner.info().limits.frame_max {
            return Err(PostError::TooLarge);
        }
        let twice = settings.duplicate_probes && is_probe(header);
        if self.holds(&settings) {
            let bytes: Vec<u8> = body.iter().flat_map(|part| part.iter().copied()).collect();
            if twice && self.held.len() + 1 < HELD_MAX {
                self.hold(*header, HeldBody::Owned(bytes.clone()), &settings)?;
            }
            return self.hold(*header, HeldBody::Owned(bytes), &settings);
        }
        self.cut_if_due()?;
        self.inner.try_post(header, body)?;
        if twice {
            let _ = self.inner.try_post(header, body);
        }
        self.count();
        Ok(())
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        let settings = self.check().map_err(PostError::Dead)?;
        if len > self.inner.info().limits.borrowed_max_of(header.kind) {
            return Err(PostError::TooLarge);
        }
        if self.holds(&settings) {
            return self.hold(*header, HeldBody::Borrowed { data, len, token }, &settings);
        }
        self.cut_if_due()?;
        // SAFETY: the same contract.
        unsafe { self.inner.try_post_borrowed(header, data, len, token) }?;
        self.count();
        Ok(())
    }

    fn reclaim(&mut self, token: Token) {
        for held in &mut self.held {
            if let HeldBody::Borrowed { data, len, token: of } = held.body
                && of == token
            {
                // SAFETY: readable until this call returns, by the contract of `try_post_borrowed`.
                let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr(), len) };
                held.body = HeldBody::Reclaimed { bytes: bytes.to_vec(), token };
            }
        }
        self.inner.reclaim(token);
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        let settings = self.check()?;
        self.release(&settings, false)?;
        if settings.blocked { Ok(()) } else { self.inner.flush().map_err(|error| self.end(error)) }
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        let settings = self.check()?;
        if settings.blocked {
            return Ok(0);
        }
        let released = self.release(&settings, false);
        let polled = self.inner.poll(sink, budget).map_err(|error| self.end(error))?;
        let room = released? > 0 && std::mem::take(&mut self.was_full);
        Ok(polled + usize::from(room))
    }

    fn handle_event(&mut self, event: Event) {
        if event.key.sub == SUB {
            self.bell.hush();
        } else {
            self.inner.handle_event(event);
        }
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), LaneError> {
        let settings = self.check()?;
        if settings.blocked {
            return Ok(());
        }
        self.release(&settings, false)?;
        self.inner.handle_timer(now).map_err(|error| self.end(error))
    }

    fn next_timer(&self) -> Option<Instant> {
        if self.faults.settings().blocked {
            let since = self.silent_since.or_else(|| (self.unacknowledged() > 0).then(Instant::now));
            return since.map(|since| since + self.peer_timeout);
        }
        let head = self.held.front().filter(|_| !self.inner_full).map(|head| head.leaves);
        [head, self.inner.next_timer()].into_iter().flatten().min()
    }

    fn unacknowledged(&self) -> u64 {
        self.inner.unacknowledged() + self.held.len() as u64
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        let peer = self.inner.info().peer.clone();
        self.end(TransportError::new(ErrorKind::Broken, "recover", peer));
        self.held_bytes = 0;
        let mut frames = self.inner.recover();
        frames.extend(self.held.drain(..).map(|held| Unacknowledged {
            header: held.header,
            body: match held.body {
                HeldBody::Owned(bytes) | HeldBody::Reclaimed { bytes, .. } => {
                    UnacknowledgedBody::Owned(bytes)
                }
                HeldBody::Borrowed { data, len, token } => {
                    UnacknowledgedBody::Borrowed { data: data.as_ptr(), len, token }
                }
            },
        }));
        frames
    }

    fn cool(&mut self) -> bool {
        self.check().is_ok() && self.held.is_empty() && self.inner.cool()
    }

    fn describe(&mut self, buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        self.check()?;
        self.inner.describe(buf)
    }

    fn describe_lent(&mut self, data: NonNull<u8>, len: usize) -> Result<Option<Descriptor>, LaneError> {
        self.check()?;
        self.inner.describe_lent(data, len)
    }

    unsafe fn pull(
        &mut self,
        from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        self.check()?;
        // SAFETY: the same contract.
        unsafe { self.inner.pull(from, target, len, token) }
    }

    fn view(&mut self, from: &Descriptor) -> Result<View, LaneError> {
        self.check()?;
        self.inner.view(from)
    }

    fn close(&mut self) {
        if let Ok(settings) = self.check() {
            let _ = self.release(&settings, true);
        }
        self.inner.close();
    }
}
