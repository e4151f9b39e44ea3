//! Counters: a snapshot when asked for, nothing on the way.

use crate::core::Core;

/// Counts of an engine since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EngineCounters {
    /// Endpoints that live.
    pub endpoints: usize,
    /// Sessions that live: with each engine the implicit one, and one for each transport that a peer is pinned to.
    pub sessions: usize,
    /// Lanes that live.
    pub lanes: usize,
    /// Operations under way.
    pub operations: usize,
    /// Messages that came before a receive was posted for them.
    pub unexpected: u64,
    /// Envelopes that came: messages whose data is fetched.
    pub envelopes: u64,
    /// Lanes that failed.
    pub lanes_lost: u64,
    /// Frames that were sent again on another lane.
    pub replayed: u64,
    /// Fragments of long messages that went over one of several sockets.
    pub stripes: u64,
    /// Lanes that were added to sessions beside others of their transport.
    pub lanes_added: u64,
    /// Those of them that this engine closed again, as fewer carry as much.
    pub lanes_dropped: u64,
    /// Times that such a lane was wanted and could not be had.
    pub lanes_refused: u64,
    /// Sessions that ended by loss or close.
    pub sessions_lost: u64,
    /// Connections that were turned away.
    pub strangers: u64,
    /// Messages that were longer than the memory of a receive that was given up before anybody looked: they are gone.
    pub truncated_unseen: u64,
}

/// Counts of one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct EndpointCounters {
    /// Messages that were sent or started.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages that arrived, or were announced.
    pub messages_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Receives that wait.
    pub posted: usize,
    /// Messages that wait for a receive.
    pub unexpected: usize,
}

/// Counts of one lane.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LaneCounters {
    /// The transport's name.
    pub transport: String,
    /// The other end.
    pub peer: String,
    /// Frames with messages, their data and answers that were sent, at once or after they had waited for room.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Round trip of the smallest frame when it was proven, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// Whether it was added beside others of its transport, to carry long messages.
    pub added: bool,
}

impl Core {
    pub(crate) fn engine_counters(&self) -> EngineCounters {
        let counters = &self.counters;
        EngineCounters {
            endpoints: self.endpoints.iter().flatten().count(),
            sessions: self.sessions.iter().filter(|(_, session)| session.is_up()).count(),
            lanes: self.lanes.len(),
            operations: self.ops.len(),
            unexpected: counters.unexpected,
            envelopes: counters.envelopes,
            lanes_lost: counters.lanes_lost,
            replayed: counters.replayed,
            stripes: counters.stripes,
            lanes_added: counters.lanes_added,
            lanes_dropped: counters.lanes_dropped,
            lanes_refused: counters.lanes_refused,
            sessions_lost: counters.sessions_lost,
            strangers: counters.strangers,
            truncated_unseen: counters.truncated_unseen,
        }
    }

    pub(crate) fn endpoint_counters(&mut self, number: u32) -> EndpointCounters {
        let Some(endpoint) = self.endpoint(number) else { return EndpointCounters::default() };
        EndpointCounters {
            messages_sent: endpoint.messages_sent,
            bytes_sent: endpoint.bytes_sent,
            messages_received: endpoint.messages_received,
            bytes_received: endpoint.bytes_received,
            posted: endpoint.matcher.posted_len(),
            unexpected: endpoint.matcher.unexpected_len(),
        }
    }

    pub(crate) fn lane_counters(&self) -> Vec<LaneCounters> {
        self.lanes
            .iter()
            .map(|(_, slot)| LaneCounters {
                transport: slot.transport.to_owned(),
                peer: slot.lane.as_ref().map(|lane| lane.info().peer.clone()).unwrap_or_default(),
                frames_sent: slot.frames_sent,
                frames_received: slot.frames_received,
                rtt_ns: slot.proof.rtt_ns,
                added: slot.extra,
            })
            .collect()
    }
}
