//! Names of codes and numbers of rates, as libibverbs gives them.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int};
use sinew_verbs_sys as sys;

const WC: [&core::ffi::CStr; 24] = [
    c"success",
    c"local length error",
    c"local QP operation error",
    c"local EE context operation error",
    c"local protection error",
    c"Work Request Flushed Error",
    c"memory management operation error",
    c"bad response error",
    c"local access error",
    c"remote invalid request error",
    c"remote access error",
    c"remote operation error",
    c"transport retry counter exceeded",
    c"RNR retry counter exceeded",
    c"local RDD violation error",
    c"remote invalid RD request",
    c"aborted error",
    c"invalid EE context number",
    c"invalid EE context state",
    c"fatal error",
    c"response timeout error",
    c"general error",
    c"TM error",
    c"TM software rendezvous",
];

pub(crate) unsafe extern "C" fn wc_status(status: sys::IbvWcStatus) -> *const c_char {
    WC.get(status.0 as usize).copied().unwrap_or(c"unknown").as_ptr()
}

pub(crate) unsafe extern "C" fn node_type(_: sys::IbvNodeType) -> *const c_char {
    c"InfiniBand channel adapter".as_ptr()
}

pub(crate) unsafe extern "C" fn port_state(state: sys::IbvPortState) -> *const c_char {
    use sys::IbvPortState as State;
    match state {
        State::NOP => c"no state change (NOP)",
        State::DOWN => c"down",
        State::INIT => c"init",
        State::ARMED => c"armed",
        State::ACTIVE => c"active",
        State::ACTIVE_DEFER => c"active defer",
        _ => c"unknown",
    }
    .as_ptr()
}

pub(crate) unsafe extern "C" fn event_type(event: sys::IbvEventType) -> *const c_char {
    use sys::IbvEventType as Event;
    match event {
        Event::CQ_ERR => c"CQ error",
        Event::QP_FATAL => c"local work queue catastrophic error",
        Event::QP_ACCESS_ERR => c"local access violation work queue error",
        Event::PORT_ACTIVE => c"port active",
        Event::PORT_ERR => c"port error",
        Event::SRQ_LIMIT_REACHED => c"SRQ limit reached",
        Event::QP_LAST_WQE_REACHED => c"last WQE reached",
        _ => c"unknown",
    }
    .as_ptr()
}

/// Rates that are whole multiples of 2.5 Gbit/s: code and multiple.
const MULTIPLES: [(sys::IbvRate, c_int); 13] = [
    (sys::IbvRate::RATE_2_5_GBPS, 1),
    (sys::IbvRate::RATE_5_GBPS, 2),
    (sys::IbvRate::RATE_10_GBPS, 4),
    (sys::IbvRate::RATE_20_GBPS, 8),
    (sys::IbvRate::RATE_30_GBPS, 12),
    (sys::IbvRate::RATE_40_GBPS, 16),
    (sys::IbvRate::RATE_60_GBPS, 24),
    (sys::IbvRate::RATE_80_GBPS, 32),
    (sys::IbvRate::RATE_120_GBPS, 48),
    (sys::IbvRate::RATE_25_GBPS, 10),
    (sys::IbvRate::RATE_100_GBPS, 40),
    (sys::IbvRate::RATE_200_GBPS, 80),
    (sys::IbvRate::RATE_400_GBPS, 160),
];

pub(crate) unsafe extern "C" fn rate_to_mult(rate: sys::IbvRate) -> c_int {
    MULTIPLES.iter().find(|(code, _)| *code == rate).map_or(-1, |(_, multiple)| *multiple)
}

pub(crate) unsafe extern "C" fn mult_to_rate(multiple: c_int) -> sys::IbvRate {
    MULTIPLES.iter().find(|(_, known)| *known == multiple).map_or(sys::IbvRate::RATE_MAX, |(code, _)| *code)
}

pub(crate) unsafe extern "C" fn rate_to_mbps(rate: sys::IbvRate) -> c_int {
    MULTIPLES.iter().find(|(code, _)| *code == rate).map_or(-1, |(_, multiple)| multiple * 2500)
}

pub(crate) unsafe extern "C" fn mbps_to_rate(mbps: c_int) -> sys::IbvRate {
    MULTIPLES
        .iter()
        .find(|(_, multiple)| multiple * 2500 == mbps)
        .map_or(sys::IbvRate::RATE_MAX, |(code, _)| *code)
}
