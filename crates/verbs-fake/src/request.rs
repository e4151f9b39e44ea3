//! Requests and completions as the fake device keeps them: copies of what was posted, without pointers.
//!
//! Made by posting, carried by the queues, ended by `engine/`. Plain data.

use crate::fault::Touch;
use sinew_verbs_sys as sys;

/// A piece of a scatter list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) key: u32,
}

impl Piece {
    /// How many bytes a device takes it for: a length of 0 says 2^31, which mlx4's receives mean too.
    pub(crate) const fn reach(self) -> u64 {
        if self.len == 0 { 1 << 31 } else { self.len as u64 }
    }
}

/// What a request sends, or where its answer goes.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Inline(Vec<u8>),
    Pieces(Vec<Piece>),
}

impl Data {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Pieces(pieces) => total(pieces),
        }
    }

    /// The pieces; none of inline data.
    pub(crate) fn pieces(&self) -> &[Piece] {
        match self {
            Self::Inline(_) => &[],
            Self::Pieces(pieces) => pieces,
        }
    }
}

pub(crate) fn total(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.reach() as usize).sum()
}

/// Whom a datagram goes to.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) attr: sys::ibv_ah_attr,
    pub(crate) qp_num: u32,
    pub(crate) qkey: u32,
}

/// What a window is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bind {
    pub(crate) mw: u32,
    /// The window's next key; `None`: the device chooses one (windows of type 1).
    pub(crate) rkey: Option<u32>,
    /// The region; `None`: the binding ends.
    pub(crate) mr: Option<u32>,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) access: u32,
}

/// A send request.
#[derive(Clone)]
pub(crate) struct Send {
    pub(crate) wr_id: u64,
    pub(crate) opcode: sys::IbvWrOpcode,
    pub(crate) flags: u32,
    pub(crate) data: Data,
    pub(crate) imm: u32,
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
    pub(crate) compare_add: u64,
    pub(crate) swap: u64,
    pub(crate) target: Option<Target>,
    /// The peer's shared receive queue that an extended connection names.
    pub(crate) srq: u32,
    pub(crate) bind: Option<Bind>,
    pub(crate) touches: Vec<Touch>,
}

impl Send {
    pub(crate) fn new(opcode: sys::IbvWrOpcode, wr_id: u64, flags: u32) -> Self {
        Self {
            wr_id,
            opcode,
            flags,
            data: Data::Pieces(Vec::new()),
            imm: 0,
            remote_addr: 0,
            rkey: 0,
            compare_add: 0,
            swap: 0,
            target: None,
            srq: 0,
            bind: None,
            touches: Vec::new(),
        }
    }

    /// Whether the answer is written into the pieces.
    pub(crate) fn is_answered(&self) -> bool {
        [
            sys::IbvWrOpcode::RDMA_READ,
            sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP,
            sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD,
        ]
        .contains(&self.opcode)
    }

    /// What its completion says that it was.
    pub(crate) fn completed_as(&self) -> sys::IbvWcOpcode {
        use sys::{IbvWcOpcode as Wc, IbvWrOpcode as Wr};
        match self.opcode {
            Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM => Wc::RDMA_WRITE,
            Wr::RDMA_READ => Wc::RDMA_READ,
            Wr::ATOMIC_CMP_AND_SWP => Wc::COMP_SWAP,
            Wr::ATOMIC_FETCH_AND_ADD => Wc::FETCH_ADD,
            Wr::LOCAL_INV => Wc::LOCAL_INV,
            Wr::BIND_MW => Wc::BIND_MW,
            _ => Wc::SEND,
        }
    }

    pub(crate) fn has_imm(&self) -> bool {
        self.opcode == sys::IbvWrOpcode::SEND_WITH_IMM || self.opcode == sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM
    }
}

/// A receive request.
#[derive(Clone, Debug)]
pub(crate) struct Receive {
    pub(crate) wr_id: u64,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) touches: Vec<Touch>,
}

/// A completion, with what ends when it is polled.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    pub(crate) wc: sys::ibv_wc,
    /// When, in ticks of the device: one for each completion.
    pub(crate) at: u64,
    /// Raises an event also where only solicited ones do.
    pub(crate) solicited: bool,
    /// Of the send queue, or of a receive queue.
    pub(crate) is_send: bool,
    /// The queue pair that it is of; 0: of none.
    pub(crate) qp: u32,
    /// Places that it frees in the send queue.
    pub(crate) sends: u32,
    /// Places that it frees in the queue pair's receive queue.
    pub(crate) receives: u32,
    /// The shared queue in which it frees a place.
    pub(crate) srq: Option<u32>,
    /// What may be touched until it is polled.
    pub(crate) touches: Vec<Touch>,
}
