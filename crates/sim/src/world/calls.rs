//! What applications do and wait for: each call comes back with its deadline at the latest.

use super::World;
use super::act::{Draft, end_of};
use super::process::Connected;
use crate::checker::{End, ProcessId};
use crate::net::{MILLIS, Nanos, SECONDS};
use sinew_engine::{ConnectError, Outgoing, Receive};
use std::io::IoSlice;
use std::time::Duration;

/// A call with a deadline, begun.
struct Begun {
    process: ProcessId,
    limit: Nanos,
    deadline: Nanos,
}

impl Begun {
    const fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit)
    }
}

impl World {
    fn begin(&self, host: usize) -> Option<Begun> {
        let process = self.process_on(host)?;
        let peer_timeout = self.plan.peer_timeout;
        let limit = self.draw(|random| match random.below(4) {
            0 => random.below(MILLIS),
            1 => random.below(50 * MILLIS),
            2 => random.below(SECONDS / 2),
            _ => random.below(peer_timeout),
        });
        Some(Begun { process, limit, deadline: self.now() + limit })
    }

    /// The call is back: was it in time? `false`: its process is dead meanwhile.
    fn end(&self, what: &str, begun: &Begun) -> bool {
        let now = self.now();
        let stopped = self.stopped_until.get();
        self.note(
            &[44],
            format_args!("{what} of {:?} is back; its deadline was {}", begun.process, begun.deadline),
        );
        self.checker.borrow_mut().returned(what, begun.process, begun.deadline.max(stopped), now);
        self.is_alive(begun.process)
    }

    /// Connects an endpoint of the host to one somewhere.
    pub(super) fn connect(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        let targets: Vec<_> = {
            let processes = self.processes.borrow();
            let others = (0..self.plan.hosts).filter(|&other| other != host || self.chance(100));
            others.flat_map(|other| processes[other].endpoints.clone()).collect()
        };
        if targets.is_empty() {
            return;
        }
        let target = targets[self.index(targets.len())].clone();
        let address = target.endpoint.address().to_string();
        let to = target.id;
        drop(targets);
        drop(target);
        let Some(process) = self.process_on(host) else { return };
        let limit = self.draw(|random| random.between(SECONDS, 3 * SECONDS));
        let begun = Begun { process, limit, deadline: self.now() + limit };
        let result = open.endpoint.connect_within(address, begun.limit());
        if !self.end("connect", &begun) {
            return;
        }
        let now = self.now();
        match result {
            Ok(peer) => {
                let session = peer.source().session();
                self.note(&[40, to.process.0 as u64], format_args!("{:?} is connected to {to:?}", open.id));
                self.checker.borrow_mut().connected(now, process, session, to.process);
                let known = Connected { peer, from: open.id, to, session, lost: false };
                self.processes.borrow_mut()[host].peers.push(known);
            }
            Err(error) => {
                self.note(
                    &[41, to.process.0 as u64],
                    format_args!("{:?} does not reach {to:?}: {error}", open.id),
                );
                let gone = self.checker.borrow().is_gone(to);
                if matches!(error, ConnectError::NoSuchEndpoint { .. }) && !gone {
                    self.checker
                        .borrow_mut()
                        .complain(format!("{to:?} is open, and a connect says it is not there"));
                }
                if self.plan.weather == crate::plan::Weather::Calm && !gone {
                    self.checker
                        .borrow_mut()
                        .complain(format!("connecting to {to:?} in calm weather: {error}"));
                }
            }
        }
    }

    pub(super) fn send(&self, host: usize) {
        let Some(known) = self.some_peer(host) else { return };
        let Some(begun) = self.begin(host) else { return };
        let draft = self.draft(&known);
        let message = draft.to(&known).timeout(begun.limit());
        let result = if self.chance(700) {
            message.send(&draft.data)
        } else {
            let (first, rest) = draft.data.split_at(self.index(draft.data.len() + 1));
            let (second, third) = rest.split_at(rest.len() / 2);
            message.send_slices(&[first, second, third].map(IoSlice::new))
        };
        if self.end("send", &begun) {
            self.sent(draft.number, result.map_or_else(|error| end_of(&error), |()| End::Done));
        }
    }

    pub(super) fn recv(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        let Some(begun) = self.begin(host) else { return };
        let (wanted, pattern) = self.pattern(host, open.id);
        let mut buf = vec![0xee; self.room()];
        let receive = self.posted(open.id, wanted, buf.len());
        let result = open.endpoint.recv_within(pattern, &mut buf, begun.limit());
        if self.end("recv", &begun) {
            self.received(receive, &result, &buf);
        }
    }

    pub(super) fn flush(&self, host: usize) {
        let Some(known) = self.some_peer(host) else { return };
        let Some(begun) = self.begin(host) else { return };
        let before = self.checker.borrow().next_message();
        let result = known.peer.flush_within(begun.limit());
        self.note(&[42, u64::from(result.is_ok())], format_args!("{:?} flushes: {result:?}", known.from));
        if self.end("flush", &begun) && result.is_ok() {
            self.checker.borrow_mut().flushed(known.from, known.to, known.session, before);
        }
    }

    pub(super) fn wait(&self, host: usize) {
        let Some(begun) = self.begin(host) else { return };
        if self.chance(500) {
            let Some(sending) = self.some_send(host) else { return };
            let result = sending.op.wait_within(begun.limit());
            if self.end("wait of a send", &begun) {
                self.sent(sending.message, result.map_or_else(|failed| end_of(&failed.error), |_| End::Done));
            }
        } else {
            let Some(receiving) = self.some_receive(host) else { return };
            let result = receiving.op.wait_within(begun.limit());
            if self.end("wait of a receive", &begun) {
                self.recv_op_ended(host, receiving.receive, result);
            }
        }
    }

    pub(super) fn batch(&self, host: usize) {
        let Some(begun) = self.begin(host) else { return };
        if self.chance(500) {
            let Some(known) = self.some_peer(host) else { return };
            let drafts: Vec<Draft> = (0..2 + self.index(8)).map(|_| self.draft(&known)).collect();
            let messages: Vec<Outgoing<'_>> = drafts.iter().map(Draft::outgoing).collect();
            let result = known.peer.send_batch_within(&messages, begun.limit());
            if self.end("a batch of sends", &begun) {
                self.batch_sent(&drafts, result.map_err(|partial| (partial.sent, partial.error)));
            }
            return;
        }
        let Some(open) = self.some_endpoint(host) else { return };
        let mut bufs: Vec<Vec<u8>> = (0..2 + self.index(4)).map(|_| vec![0xee; self.room()]).collect();
        let mut posted = Vec::new();
        let mut receives: Vec<Receive<'_>> = bufs
            .iter_mut()
            .map(|buf| {
                let (wanted, pattern) = self.pattern(host, open.id);
                posted.push(self.posted(open.id, wanted, buf.len()));
                Receive::new(pattern, buf)
            })
            .collect();
        let result = if self.chance(500) {
            open.endpoint.recv_all_within(&mut receives, begun.limit())
        } else {
            open.endpoint.recv_batch_within(&mut receives, begun.limit())
        };
        if !self.end("a batch of receives", &begun) {
            return;
        }
        self.note(&[43], format_args!("a batch of receives: {result:?}"));
        for (receive, number) in receives.iter_mut().zip(posted) {
            let result = receive.result().cloned().unwrap_or(Err(sinew_engine::OpError::Cancelled));
            self.received(number, &result, receive.buf());
        }
    }

    /// Some receives and sends of borrowed memory at once.
    pub(super) fn scope(&self, host: usize) {
        let Some(known) = self.some_peer(host) else { return };
        let open = {
            let processes = self.processes.borrow();
            processes[host].endpoints.iter().find(|open| open.id == known.from).cloned()
        };
        let Some(open) = open else { return };
        let Some(begun) = self.begin(host) else { return };
        let half = begun.limit() / 2;
        let (wanted, pattern) = self.pattern(host, open.id);
        let mut buf = vec![0xee; self.room()];
        let receive = self.posted(open.id, wanted, buf.len());
        let len = self.index(60 << 10);
        let number = self.checker.borrow().next_message();
        let now = self.now();
        let tag = 2 | (number as u64 + 1) << 16;
        self.checker.borrow_mut().sent(now, known.from, known.to, known.session, (tag, false), false, len);
        let data = crate::checker::content(number, len);
        let (sent, received) = open.endpoint.scope(|scope| {
            let receiving = scope.recv(pattern, &mut buf).expect("a receive");
            let sent = match scope.send(&known.peer, tag, &data) {
                Ok(sending) => sending.wait_within(half),
                Err(error) => Err(error),
            };
            (sent, receiving.wait_within(half).0)
        });
        // A process that was stopped in the first half has the second one before it all the same.
        let begun =
            Begun { deadline: begun.deadline.max(self.stopped_until.get() + begun.limit / 2), ..begun };
        if self.end("a scope", &begun) {
            self.sent(number, sent.map_or_else(|error| end_of(&error), |()| End::Done));
            self.received(receive, &received, &buf);
        }
    }
}
