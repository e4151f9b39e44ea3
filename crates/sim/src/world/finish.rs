//! The end: the network heals, everything that can still end ends, and nothing is left over.

use super::World;
use super::act::ROOM;
use super::process::{Process, Receiving};
use crate::checker::{EndpointId, ProcessId, Wanted};
use crate::net::{MILLIS, SECONDS, lock};
use sinew_engine::Match;
use std::time::Duration;

impl World {
    pub(super) fn finish(&self) {
        self.ending.set(true);
        self.note(&[50], format_args!("the network heals"));
        {
            let mut net = lock(&self.net);
            for path in &mut net.paths {
                path.blocked = false;
                path.loss = 0;
                path.doubled = 0;
            }
        }
        for host in 0..self.plan.hosts {
            self.go_on(host);
        }
        self.rest(SECONDS);
        self.handlers_rest();
        self.rest(SECONDS);
        self.receive_all();
        self.cancel_rest();
        self.flush_all();
        self.rest(6 * SECONDS);
        let processes = self.alive_processes();
        for &process in &processes {
            self.leave_nothing(process);
        }
        for &(host, _) in &processes {
            self.check_given_up(host);
        }
        self.checker.borrow_mut().finish();
        self.close_all(&processes);
    }

    /// Lets time pass.
    fn rest(&self, span: u64) {
        let until = self.now() + span;
        while self.pump(until) {}
    }

    /// Every session that is not over answers: both its ends live.
    fn flush_all(&self) {
        for (host, _) in self.alive_processes() {
            let peers: Vec<_> =
                self.processes.borrow()[host].peers.iter().filter(|known| !known.lost).cloned().collect();
            for known in peers {
                self.wake(host);
                let before = self.checker.borrow().next_message();
                match known.peer.flush_within(Duration::from_secs(30)) {
                    Ok(()) => self.checker.borrow_mut().flushed(known.from, known.to, known.session, before),
                    Err(sinew_engine::OpError::PeerLost { .. } | sinew_engine::OpError::EndpointClosed) => {}
                    Err(error) => {
                        let (from, to) = (known.from, known.to);
                        let text = format!("a flush of {from:?} to {to:?} in a healed network: {error}");
                        self.checker.borrow_mut().complain(text);
                    }
                }
                self.look_at_peers(host);
                self.sleep(host);
            }
        }
    }

    /// Receives whatever is there, until all that must come has come.
    fn receive_all(&self) {
        let until = self.now() + 60 * SECONDS;
        let (mut quiet, mut received) = (0, 0);
        while self.now() < until && quiet < 4 {
            let mut missing = 0;
            for process in self.alive_processes() {
                missing += self.checker.borrow().missing(process).len();
                let open: Vec<_> = self.processes.borrow()[process.0].endpoints.clone();
                for open in open {
                    for untagged in [false, true, false] {
                        self.post_any(process, open.id, untagged);
                    }
                }
            }
            self.rest(200 * MILLIS);
            // What is of unknown fate may come, or not.
            let so_far = self.checker.borrow().received_count();
            quiet = if missing == 0 && so_far == received { quiet + 1 } else { 0 };
            received = so_far;
        }
    }

    fn post_any(&self, process: ProcessId, at: EndpointId, untagged: bool) {
        let host = process.0;
        let (open, waiting) = {
            let processes = self.processes.borrow();
            let open = processes[host].endpoints.iter().find(|open| open.id == at).cloned();
            let waiting = processes[host].receives.iter().filter(|receiving| receiving.at == at).count();
            (open, waiting)
        };
        let Some(open) = open.filter(|_| waiting < 64) else { return };
        self.wake(host);
        let wanted = Wanted { tag: 0, ignore: u64::MAX, untagged, from: None };
        let pattern = if untagged { Match::untagged() } else { Match::any_tag() };
        let receive = self.posted(at, wanted, ROOM);
        match open.endpoint.post_recv(pattern, vec![0xee; ROOM]) {
            Ok(op) => self.processes.borrow_mut()[host].receives.push(Receiving { op, receive, at }),
            Err(failed) => self.recv_op_ended(host, receive, Err(failed)),
        }
        self.sleep(host);
        self.want_step(host, 0);
    }

    /// Receives for which there is no message are taken back; sends must be over by themselves.
    fn cancel_rest(&self) {
        for (host, _) in self.alive_processes() {
            self.wake(host);
            self.ask_operations(host);
            let (receives, mut told) = {
                let mut processes = self.processes.borrow_mut();
                let process = &mut processes[host];
                (std::mem::take(&mut process.receives), std::mem::take(&mut process.told))
            };
            told.sort_by_key(|told| told.receive);
            // The newest first, so that what one leaves finds none of the others.
            for receiving in receives.into_iter().rev() {
                while let Some(newer) = told.pop_if(|told| told.receive > receiving.receive) {
                    newer.handle.cancel();
                }
                let result = receiving.op.cancel();
                self.recv_op_ended(host, receiving.receive, result);
            }
            told.into_iter().rev().for_each(|told| told.handle.cancel());
            self.sleep(host);
        }
    }

    /// An engine without operations, and lanes without anything under way.
    fn leave_nothing(&self, process: ProcessId) {
        let (host, _) = process;
        let Some(engine) = self.engine(host) else { return };
        self.wake(host);
        self.ask_operations(host);
        let counters = engine.counters();
        let mut checker = self.checker.borrow_mut();
        let pending = self.processes.borrow()[host].sends.len();
        if counters.operations > 0 || pending > 0 {
            let operations = counters.operations;
            checker.complain(format!(
                "{process:?} has {operations} operations left over, {pending} of them sends"
            ));
        }
        drop(checker);
        let (lost, replayed) = self.counted.get();
        self.counted.set((lost + counters.lanes_lost, replayed + counters.replayed));
        let open: Vec<_> = self.processes.borrow()[host].endpoints.clone();
        for open in open {
            let left = open.endpoint.counters();
            if left.posted > 0 || left.unexpected > 0 {
                let (id, posted, unexpected) = (open.id, left.posted, left.unexpected);
                let text = format!("{id:?} has {posted} receives and {unexpected} messages left over");
                self.checker.borrow_mut().complain(text);
            }
        }
        self.sleep(host);
    }

    /// Memory of receives that were given up is as it came back.
    fn check_given_up(&self, host: usize) {
        let given_up = std::mem::take(&mut self.processes.borrow_mut()[host].given_up);
        if given_up.iter().any(|(buf, copy)| buf != copy) {
            self.checker
                .borrow_mut()
                .complain(format!("host {host}: a receive that was given up was written"));
        }
    }

    fn close_all(&self, processes: &[ProcessId]) {
        for &(host, _) in processes {
            self.wake(host);
            let process = std::mem::take(&mut self.processes.borrow_mut()[host]);
            let Process { engine, peers, endpoints, .. } = process;
            drop((peers, endpoints));
            drop(engine);
        }
        self.rest(90 * SECONDS);
        let held = lock(&self.net).held_ends();
        let segments = crate::lane::segments_alive();
        if held > 0 || segments > 0 {
            let text = format!("{held} connections and {segments} segments are left over");
            self.checker.borrow_mut().complain(text);
        }
    }
}
