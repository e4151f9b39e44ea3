//! What arrives over a simulated connection: pieces that become frames, and the breach of the contract that a test asked for.
#![allow(unsafe_code)]

use super::SimLane;
use crate::lane::memory::Target;
use crate::net::{Breach, Net, Piece, lock};
use sinew_transport::{Body, ErrorKind, Header, LaneError, Placement, Sink};
use std::sync::Arc;

/// A frame that arrives in pieces.
pub(super) struct Arriving {
    header: Header,
    len: usize,
    pub(super) done: usize,
    pub(super) into: Into,
}

pub(super) enum Into {
    Own(Vec<u8>),
    Placed(Target),
    Nowhere,
}

impl SimLane {
    /// The next piece that has arrived.
    pub(super) fn next(&mut self) -> Option<Arc<Piece>> {
        self.peeked = false;
        self.shown.take().or_else(|| lock(&self.net).take(self.end))
    }

    /// Hands one piece up. `true`: it completed a frame.
    pub(super) fn handle(&mut self, piece: &Piece, sink: &mut dyn Sink) -> Result<bool, LaneError> {
        match piece {
            Piece::Head { header, len, bytes } => {
                if bytes.len() == *len {
                    self.frame(header, bytes, sink);
                    return Ok(true);
                }
                let into = if header.kind.is_fragment() {
                    match sink.place(header, *len) {
                        Placement::Into { target, token } => {
                            // SAFETY: the sink promises `len` writable bytes until `placed` or `revoke`, which both drop it.
                            Into::Placed(unsafe { Target::new(target, token) })
                        }
                        Placement::Discard => Into::Nowhere,
                    }
                } else {
                    let whole = header.kind == sinew_transport::Kind::EAGER;
                    match if whole { sink.place_message(header, *len) } else { None } {
                        // SAFETY: as above.
                        Some((target, token)) => Into::Placed(unsafe { Target::new(target, token) }),
                        None => Into::Own(Vec::with_capacity(*len)),
                    }
                };
                self.arriving = Some(Arriving { header: *header, len: *len, done: 0, into });
                Ok(self.more(bytes, sink))
            }
            Piece::More(bytes) => Ok(self.more(bytes, sink)),
            Piece::Acknowledge(count) => {
                self.confirmed(*count);
                Ok(false)
            }
            Piece::Ask => {
                self.asked = true;
                Ok(false)
            }
            Piece::Fin | Piece::Record(_) => {
                let error = self.error(ErrorKind::Broken, "poll");
                self.over = Some(error.clone());
                Err(error)
            }
        }
    }

    fn more(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> bool {
        let Some(arriving) = &mut self.arriving else { return false };
        match &mut arriving.into {
            Into::Own(own) => own.extend_from_slice(bytes),
            // SAFETY: the pieces of a body are `len` bytes together, as the sender cuts them.
            Into::Placed(target) => unsafe { target.write(arriving.done, bytes) },
            Into::Nowhere => {}
        }
        arriving.done += bytes.len();
        if arriving.done < arriving.len {
            return false;
        }
        let Some(Arriving { header, len, into, .. }) = self.arriving.take() else { return false };
        match into {
            Into::Own(own) => self.frame(&header, &own, sink),
            Into::Placed(_) | Into::Nowhere => {
                self.handed_up += 1;
                sink.placed(&header, len);
            }
        }
        true
    }

    /// Hands a whole frame up, unless the contract is to be broken here.
    fn frame(&mut self, header: &Header, bytes: &[u8], sink: &mut dyn Sink) {
        self.handed_up += 1;
        let mut copy;
        let mut bytes = bytes;
        if header.kind == sinew_transport::Kind::EAGER {
            if let Some((held, body)) = self.swapped.take() {
                if held.dst == header.dst && held.src == header.src {
                    sink.frame(header, Body::from_slice(bytes));
                    return sink.frame(&held, Body::from_slice(&body));
                }
                self.swapped = Some((held, body));
            }
            let breach = lock(&self.net).is_to_break();
            if let Some(breach) = breach {
                let mut net = lock(&self.net);
                let (now, end) = (net.now, self.end);
                net.trace.note(
                    now,
                    &[60],
                    format_args!("  the lane of end {end} breaks its contract: {breach:?} {header:?}"),
                );
            }
            match breach {
                None => {}
                Some(Breach::Drop) => return,
                Some(Breach::Twice) => sink.frame(header, Body::from_slice(bytes)),
                Some(Breach::Swap) => {
                    self.swapped = Some((*header, bytes.to_vec()));
                    return;
                }
                Some(Breach::Garble) => {
                    copy = bytes.to_vec();
                    if let Some(last) = copy.last_mut() {
                        *last ^= 0x40;
                    }
                    bytes = &copy;
                }
            }
        }
        sink.frame(header, Body::from_slice(bytes));
    }
}

impl Net {
    /// Whether the contract is to be broken by the frame that is being handed up.
    fn is_to_break(&mut self) -> Option<Breach> {
        let (breach, after) = self.breach.as_mut()?;
        if *after > 0 {
            *after -= 1;
            return None;
        }
        let breach = *breach;
        self.breach = None;
        self.breached = true;
        Some(breach)
    }
}
