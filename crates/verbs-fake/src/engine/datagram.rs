//! Datagrams: to one queue pair or to a group; lost without a word where nobody takes them.

use crate::engine::complete::Arrival;
use crate::engine::run::{DONE, Outcome};
use crate::request::{Send, Target, total};
use crate::world::State;
use sinew_verbs_sys as sys;
use sys::{IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status};

/// Number that addresses a group.
const GROUP: u32 = 0x00ff_ffff;

/// Bytes before each datagram in its receive.
const HEADER: usize = size_of::<sys::ibv_grh>();

impl State {
    pub(crate) fn send_datagram(&mut self, number: u32, send: &Send) -> Outcome {
        let Some(qp) = self.qps.get(&number) else { return DONE };
        let (context, device, pd, port) = (qp.context, qp.device, qp.pd, qp.attr.port_num);
        // A key with the highest bit stands for the queue pair's own.
        let own_qkey = qp.attr.qkey;
        let Ok(bytes) = self.gather(pd, &send.data) else { return Outcome::Done(Status::LOC_PROT_ERR) };
        let Some(target) = send.target else { return DONE };
        let mtu = self.port(context, u32::from(port)).map_or(0, |port| 128usize << port.active_mtu.0.min(5));
        if bytes.len() > mtu {
            return Outcome::Done(Status::LOC_LEN_ERR);
        }
        let qkey = if target.qkey >> 31 == 0 { target.qkey } else { own_qkey };
        for receiver in self.receivers(device, port, &target) {
            let taken = self.qps.get(&receiver).is_some_and(|qp| qp.attr.qkey == qkey && !qp.hold.incoming);
            if taken {
                self.deliver_datagram(number, receiver, send, &target, &bytes);
            }
        }
        DONE
    }

    /// Who gets a datagram.
    fn receivers(&self, device: usize, port: u8, target: &Target) -> Vec<u32> {
        let listens = |number: &u32| {
            self.qps.get(number).is_some_and(|qp| {
                qp.kind == Type::UD
                    && [QpState::RTR, QpState::RTS, QpState::SQD, QpState::SQE].contains(&qp.state)
            })
        };
        let group = target.attr.grh.dgid.bytes();
        if target.attr.is_global != 0 && group[0] == 0xff {
            if target.qp_num != GROUP {
                return Vec::new();
            }
            let members = self.multicast.iter().filter(|(of, _)| *of == group).map(|(_, number)| *number);
            return members.filter(listens).collect();
        }
        let Some((reached, _)) = self.route(device, port, &target.attr) else { return Vec::new() };
        let there = self.qps.get(&target.qp_num).is_some_and(|qp| qp.device == reached);
        if there && listens(&target.qp_num) { vec![target.qp_num] } else { Vec::new() }
    }

    fn deliver_datagram(&mut self, from: u32, to: u32, send: &Send, target: &Target, bytes: &[u8]) {
        let Some((pd, receive)) = self.qps.get(&to).map(|qp| qp.pd).zip(self.take_receive(to)) else {
            return;
        };
        let header = self.header(from, target, bytes.len());
        let mut all = header.map_or_else(|| vec![0; HEADER], |header| header.to_vec());
        all.extend_from_slice(bytes);
        let status = if all.len() > total(&receive.pieces) {
            Status::LOC_LEN_ERR
        } else if self.scatter(pd, &receive.pieces, &all).is_err() {
            Status::LOC_PROT_ERR
        } else {
            Status::SUCCESS
        };
        let slid = self
            .qps
            .get(&from)
            .and_then(|qp| self.port(qp.context, u32::from(qp.attr.port_num)).ok().map(|port| port.lid));
        let got = Arrival {
            len: u32::try_from(all.len()).unwrap_or(u32::MAX),
            imm: send.has_imm().then_some(send.imm),
            solicited: send.flags & sys::IBV_SEND_SOLICITED != 0,
            src_qp: from,
            has_grh: header.is_some(),
            slid: slid.unwrap_or(0),
            sl: target.attr.sl,
            ..Arrival::default()
        };
        self.end_receive(to, receive, status, got);
        if status != Status::SUCCESS {
            self.fail(to);
        }
    }

    /// The routing header; none where the address has no GID.
    fn header(&self, from: u32, target: &Target, len: usize) -> Option<[u8; HEADER]> {
        if target.attr.is_global == 0 {
            return None;
        }
        let qp = self.qps.get(&from)?;
        let port = self.port(qp.context, u32::from(qp.attr.port_num)).ok()?;
        let sgid = port.gids.get(usize::from(target.attr.grh.sgid_index)).copied().flatten()?.raw;
        let first = 6 << 28
            | u32::from(target.attr.grh.traffic_class) << 20
            | (target.attr.grh.flow_label & sys::IB_GRH_FLOWLABEL_MASK);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        (header[6], header[7]) = (0x1b, target.attr.grh.hop_limit);
        header[8..24].copy_from_slice(&sgid);
        header[24..40].copy_from_slice(&target.attr.grh.dgid.bytes());
        Some(header)
    }
}
