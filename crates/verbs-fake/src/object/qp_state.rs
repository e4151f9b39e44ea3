//! Which attributes a change of state needs and allows: the table of the InfiniBand specification (chapters 10.3 and 11.2.5.2).
//!
//! Called by `qp.rs`. Pure.

use core::ffi::c_int;
use sinew_verbs_sys as sys;
use sys::{IbvQpState as State, IbvQpType as Type};

const ACCESS: u32 = sys::IBV_QP_ACCESS_FLAGS;
const ALT: u32 = sys::IBV_QP_ALT_PATH;
const AV: u32 = sys::IBV_QP_AV;
const CUR: u32 = sys::IBV_QP_CUR_STATE;
const MIG: u32 = sys::IBV_QP_PATH_MIG_STATE;
const PKEY: u32 = sys::IBV_QP_PKEY_INDEX;
const PORT: u32 = sys::IBV_QP_PORT;
const QKEY: u32 = sys::IBV_QP_QKEY;
const RNR_TIMER: u32 = sys::IBV_QP_MIN_RNR_TIMER;
const SQ_PSN: u32 = sys::IBV_QP_SQ_PSN;

/// What a type needs, and what it allows besides.
#[derive(Clone, Copy)]
struct Masks {
    needs: u32,
    allows: u32,
}

const fn needs(needs: u32, allows: u32) -> Option<Masks> {
    Some(Masks { needs, allows })
}

fn masks(kind: Type, from: State, to: State) -> Option<Masks> {
    let ud = kind == Type::UD || kind == Type::DRIVER;
    let (answers, sends) = match kind {
        Type::RC => (true, true),
        Type::XRC_SEND => (false, true),
        Type::XRC_RECV => (true, false),
        _ => (false, false),
    };
    let raw = kind == Type::RAW_PACKET;
    let initial = match kind {
        Type::RAW_PACKET => PORT,
        _ if ud => PKEY | PORT | QKEY,
        _ => PKEY | PORT | ACCESS,
    };
    let running = match kind {
        Type::UD => CUR | QKEY,
        Type::DRIVER => CUR | QKEY | sys::IBV_QP_RNR_RETRY,
        Type::UC => CUR | ACCESS | ALT | MIG,
        _ => CUR | ACCESS | ALT | MIG | RNR_TIMER,
    };
    match (from, to) {
        (_, State::RESET | State::ERR) => needs(0, if from == State::RTS { CUR } else { 0 }),
        (State::RESET, State::INIT) => needs(initial, 0),
        (State::INIT, State::INIT) => needs(0, initial),
        (State::INIT, State::RTR) | (State::RTR, State::RTS) if raw => needs(0, 0),
        (State::INIT, State::RTR) if ud => needs(0, PKEY | QKEY),
        (State::INIT, State::RTR) => {
            let both = AV | sys::IBV_QP_PATH_MTU | sys::IBV_QP_DEST_QPN | sys::IBV_QP_RQ_PSN;
            let reliable = if answers { sys::IBV_QP_MAX_DEST_RD_ATOMIC | RNR_TIMER } else { 0 };
            needs(both | reliable, ALT | ACCESS | PKEY)
        }
        (State::RTR, State::RTS) => {
            let reliable = sys::IBV_QP_TIMEOUT
                | sys::IBV_QP_RETRY_CNT
                | sys::IBV_QP_RNR_RETRY
                | sys::IBV_QP_MAX_QP_RD_ATOMIC;
            let of_receiver = if answers && !sends { sys::IBV_QP_TIMEOUT } else { 0 };
            needs(SQ_PSN | of_receiver | if sends { reliable } else { 0 }, running)
        }
        (State::RTS, State::RTS) => needs(0, running | sys::IBV_QP_RATE_LIMIT),
        (State::SQD, State::RTS) => needs(0, running),
        (State::RTS, State::SQD) => needs(0, CUR | sys::IBV_QP_EN_SQD_ASYNC_NOTIFY),
        (State::SQD, State::SQD) if ud => needs(0, PKEY | QKEY),
        (State::SQD, State::SQD) => {
            let reliable = PORT
                | sys::IBV_QP_TIMEOUT
                | sys::IBV_QP_RETRY_CNT
                | sys::IBV_QP_RNR_RETRY
                | sys::IBV_QP_MAX_QP_RD_ATOMIC
                | sys::IBV_QP_MAX_DEST_RD_ATOMIC
                | RNR_TIMER;
            needs(0, AV | ALT | ACCESS | PKEY | MIG | if kind == Type::RC { reliable } else { 0 })
        }
        (State::SQE, State::RTS) if kind == Type::UD => needs(0, CUR | QKEY),
        (State::SQE, State::RTS) if kind == Type::UC => needs(0, CUR | ACCESS),
        _ => None,
    }
}

/// Whether a change is one that the specification knows, with what it needs and nothing that it forbids.
pub(crate) fn check(kind: Type, from: State, to: State, mask: u32) -> Result<(), c_int> {
    let masks = masks(kind, from, to).ok_or(libc::EINVAL)?;
    let given = mask & !sys::IBV_QP_STATE;
    if given & masks.needs != masks.needs || given & !(masks.needs | masks.allows) != 0 {
        return Err(libc::EINVAL);
    }
    Ok(())
}
