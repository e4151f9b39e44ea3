//! Faults as the plan has them.

use super::World;
use crate::net::{Alarm, EndId, MILLIS, Nanos, SECONDS, lock};
use crate::plan::Fault;
use std::time::Duration;

impl World {
    pub(super) fn fault(&self, fault: Fault) {
        if self.ending.get() {
            return;
        }
        let hit = match fault {
            Fault::Cut { one, other, all } => self.cut(one, other, all),
            Fault::Block { from, to, both, lasts } => self.block(from, to, both, lasts),
            Fault::Unblock { from, to, both } => {
                self.unblock(from, to, both);
                None
            }
            Fault::Kill { host, crash } => self.kill(host, crash),
            Fault::Close { host } => self.close(host),
            Fault::Birth { host } => {
                if self.process_on(host).is_none() && self.waiting.get() != Some(host) {
                    self.bear(host);
                }
                None
            }
            Fault::Stop { host, lasts } => self.stop(host, lasts),
            Fault::Continue { host } => {
                self.go_on(host);
                None
            }
            Fault::Lose { host } => self.lose(host),
        };
        if let Some(name) = hit {
            self.note(&[20], format_args!("fault {fault:?}"));
            self.faults.borrow_mut().push(name);
        }
    }

    /// The fault with an index: one of the plan, or what followed from one.
    pub(super) fn fault_at(&self, index: usize) -> Fault {
        match self.plan.faults.get(index) {
            Some((_, fault)) => *fault,
            None => self.consequences.borrow()[index - self.plan.faults.len()],
        }
    }

    fn later(&self, fault: Fault) -> usize {
        let mut consequences = self.consequences.borrow_mut();
        consequences.push(fault);
        self.plan.faults.len() + consequences.len() - 1
    }

    fn cut(&self, one: usize, other: usize, all: bool) -> Option<&'static str> {
        let mut net = lock(&self.net);
        let between =
            |id: &EndId| net.ends[*id].as_ref().is_some_and(|end| end.peer_host == other && !end.abandoned);
        let mut ends: Vec<EndId> = net.hosts[one].ends.iter().copied().filter(between).collect();
        if !all && !ends.is_empty() {
            let at = net.random.index(ends.len());
            ends = vec![ends[at]];
        }
        for &id in &ends {
            net.cut(id);
        }
        (!ends.is_empty()).then_some("cut")
    }

    fn block(&self, from: usize, to: usize, both: bool, lasts: Nanos) -> Option<&'static str> {
        let now = self.now();
        let mut net = lock(&self.net);
        net.path(from, to).blocked = true;
        if both {
            net.path(to, from).blocked = true;
        }
        drop(net);
        let long = lasts >= self.plan.peer_timeout / 4;
        if long {
            // Redials and handshakes that began in it end somewhat later.
            self.checker.borrow_mut().excuse(from, to, now, now + lasts + SECONDS);
        }
        self.unblock_later(from, to, both, lasts);
        Some(if long { "fence" } else { "block" })
    }

    fn unblock_later(&self, from: usize, to: usize, both: bool, lasts: Nanos) {
        let index = self.later(Fault::Unblock { from, to, both });
        self.alarm(lasts, Alarm::Fault(index));
    }

    fn unblock(&self, from: usize, to: usize, both: bool) {
        let mut net = lock(&self.net);
        net.path(from, to).blocked = false;
        if both {
            net.path(to, from).blocked = false;
        }
    }

    fn kill(&self, host: usize, crash: bool) -> Option<&'static str> {
        let process = self.process_on(host)?;
        let now = self.now();
        self.checker.borrow_mut().died(now, process);
        lock(&self.net).kill(host, crash);
        self.bury(host);
        Some(if crash { "crash" } else { "kill" })
    }

    fn close(&self, host: usize) -> Option<&'static str> {
        let process = self.process_on(host)?;
        if self.waiting.get().is_some() {
            return None;
        }
        let engine = self.engine(host)?;
        self.wake(host);
        let within = 50 * MILLIS;
        let deadline = self.now() + within;
        let drained = engine.close(Duration::from_nanos(within)).unwrap_or(false);
        self.note(&[21, u64::from(drained)], format_args!("{process:?} is closed, drained: {drained}"));
        let now = self.now();
        let mut checker = self.checker.borrow_mut();
        if self.is_alive(process) {
            checker.returned("close", process, deadline.max(self.stopped_until.get()), now);
        }
        checker.died(now, process);
        drop(checker);
        self.bury(host);
        if self.is_alive(process) {
            lock(&self.net).kill(host, false);
        }
        Some("close")
    }

    fn stop(&self, host: usize, lasts: Nanos) -> Option<&'static str> {
        self.process_on(host)?;
        self.processes.borrow_mut()[host].stopped = true;
        if lasts >= self.plan.peer_timeout / 4 {
            // Who loses the last lane to it meanwhile cannot dial it again.
            let now = self.now();
            for other in (0..self.plan.hosts).filter(|&other| other != host) {
                self.checker.borrow_mut().excuse(host, other, now, now + lasts + SECONDS);
            }
        }
        let index = self.later(Fault::Continue { host });
        self.alarm(lasts, Alarm::Fault(index));
        Some("stop")
    }

    pub(super) fn go_on(&self, host: usize) {
        let mut processes = self.processes.borrow_mut();
        let process = &mut processes[host];
        if std::mem::take(&mut process.stopped) {
            self.stopped_until.set(self.now());
        }
        if std::mem::take(&mut process.missed) {
            drop(processes);
            self.want_step(host, 0);
        }
    }

    fn lose(&self, host: usize) -> Option<&'static str> {
        let engine = self.engine(host)?;
        if self.waiting.get() == Some(host) {
            return None;
        }
        let peers: Vec<_> =
            self.processes.borrow()[host].peers.iter().filter(|known| !known.lost).cloned().collect();
        let known = peers.get(self.index(peers.len()))?;
        let now = self.now();
        self.checker.borrow_mut().excuse(host, known.to.process.0, now, now + SECONDS);
        self.wake(host);
        engine.lose(&known.peer);
        self.look_at_peers(host);
        self.sleep(host);
        Some("lose")
    }
}
