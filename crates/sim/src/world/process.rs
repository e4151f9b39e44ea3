//! A process: its engine, endpoints, peers and operations, and when the engine runs.

use super::World;
use super::act::end_of;
use super::callbacks::{Registered, Told};
use crate::checker::{End, EndpointId, MessageId, ProcessId, ReceiveId};
use crate::lane::SimTransport;
use crate::net::{Alarm, MICROS, lock};
use crate::surroundings::{Around, nanos};
use sinew_engine::{Armed, Endpoint, Engine, Peer, Progress, RecvOp, Security, SendOp};

/// An endpoint that is open.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) endpoint: Endpoint,
    pub(super) id: EndpointId,
}

/// A peer that was connected.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) peer: Peer,
    pub(super) from: EndpointId,
    pub(super) to: EndpointId,
    pub(super) session: u64,
    /// It was seen that its session is over.
    pub(super) lost: bool,
}

pub(super) struct Sending {
    pub(super) op: SendOp,
    pub(super) message: MessageId,
    pub(super) from: EndpointId,
}

pub(super) struct Receiving {
    pub(super) op: RecvOp,
    pub(super) receive: ReceiveId,
    pub(super) at: EndpointId,
}

/// The process on a host, or where there was one.
#[derive(Default)]
pub(super) struct Process {
    pub(super) sends: Vec<Sending>,
    pub(super) receives: Vec<Receiving>,
    pub(super) handlers: Vec<Registered>,
    pub(super) told: Vec<Told>,
    pub(super) peers: Vec<Connected>,
    pub(super) endpoints: Vec<Open>,
    /// Buffers of receives that were given up, as they came back: nobody writes them later.
    pub(super) given_up: Vec<(Vec<u8>, Vec<u8>)>,
    asleep: Option<(Armed, u64)>,
    /// A step is on its way.
    stepping: bool,
    pub(super) engine: Option<Engine>,
    pub(super) acts_left: u64,
    pub(super) stopped: bool,
    /// Something was to be done while it was stopped.
    pub(super) missed: bool,
}

impl World {
    /// A process starts on a host.
    pub(super) fn bear(&self, host: usize) {
        let generation = {
            let mut net = lock(&self.net);
            let state = &mut net.hosts[host];
            state.generation += 1;
            state.alive = true;
            state.is_up = true;
            state.generation
        };
        let random = self.draw(crate::random::Random::fork);
        let around = Around::new(self.net.clone(), host, generation, random);
        let security =
            if self.plan.secret { Security::Secret("sixteen bytes or more".into()) } else { Security::Open };
        let mut builder = Engine::builder()
            .domain("simulation")
            .security(security)
            .progress(Progress::Caller)
            .options(self.plan.options.clone())
            .surroundings(around);
        for &kind in &self.plan.kinds {
            let style = self.plan.styles[host];
            builder = builder.transport(SimTransport { net: self.net.clone(), host, kind, style });
        }
        let engine = builder.build().expect("an engine of simulated parts");
        let mut acts_left = self.plan.acts;
        let think = self.draw(|random| random.below(self.plan.think));
        {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[host];
            if generation > 1 {
                acts_left = process.acts_left.max(self.plan.acts / 3);
            }
            *process = Process { engine: Some(engine), acts_left, ..Process::default() };
        }
        self.note(&[10, host as u64], format_args!("process {host}.{generation} is born"));
        for _ in 0..1 + self.index(2) {
            self.open_endpoint(host);
        }
        if acts_left > 0 {
            self.alarm(think, Alarm::Act(host));
        }
        self.want_step(host, 0);
    }

    pub(super) fn open_endpoint(&self, host: usize) {
        let Some(process) = self.process_on(host) else { return };
        let Some(engine) = self.engine(host) else { return };
        let endpoint = engine.endpoint("").expect("an endpoint");
        let id = EndpointId { process, number: endpoint.number() };
        self.note(&[11, host as u64, u64::from(id.number)], format_args!("{id:?} is open"));
        self.processes.borrow_mut()[host].endpoints.push(Open { endpoint, id });
    }

    pub(super) fn engine(&self, host: usize) -> Option<Engine> {
        self.processes.borrow()[host].engine.clone()
    }

    /// What is left of a process whose end is known to the network and the checker: dropped, as it is by nobody.
    pub(super) fn bury(&self, host: usize) {
        let acts_left = self.processes.borrow()[host].acts_left;
        let buried = Process { acts_left, ..Process::default() };
        let gone = std::mem::replace(&mut self.processes.borrow_mut()[host], buried);
        drop(gone);
    }

    /// The engine of a host is to run in a while.
    pub(super) fn want_step(&self, host: usize, least: u64) {
        let lazy = self.plan.lazy;
        let mut processes = self.processes.borrow_mut();
        let process = &mut processes[host];
        if process.engine.is_none() || std::mem::replace(&mut process.stepping, true) {
            return;
        }
        drop(processes);
        let after = self.draw(|random| least + MICROS + random.below(lazy));
        self.alarm(after, Alarm::Step(host));
    }

    /// Something came to a host: whoever sleeps there wakes up.
    pub(super) fn consider_waking(&self, host: usize) {
        if self.waiting.get() == Some(host) || self.processes.borrow()[host].asleep.is_none() {
            return;
        }
        let mut events = Vec::new();
        lock(&self.net).ready(host, &mut events);
        if !events.is_empty() {
            self.want_step(host, 0);
        }
    }

    pub(super) fn nap_ends(&self, host: usize, nap: u64) {
        let mine = self.processes.borrow()[host].asleep.as_ref().is_some_and(|(_, number)| *number == nap);
        if mine {
            self.want_step(host, 0);
        }
    }

    /// Whoever sleeps on a host's engine is awake again.
    pub(super) fn wake(&self, host: usize) {
        let asleep = self.processes.borrow_mut()[host].asleep.take();
        if let Some((armed, _)) = asleep {
            armed.process();
        }
    }

    /// The engine of a host runs, and its operations are asked.
    pub(super) fn step(&self, host: usize) {
        {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[host];
            process.stepping = false;
            if process.engine.is_none() || self.waiting.get() == Some(host) {
                return;
            }
            if process.stopped {
                process.missed = true;
                return;
            }
        }
        self.wake(host);
        let Some(engine) = self.engine(host) else { return };
        let may_act = self.may_act_inside.replace(self.plan.callbacks);
        if self.chance(500) {
            engine.process();
        } else {
            engine.progress();
        }
        self.may_act_inside.set(may_act);
        self.ask_operations(host);
        self.look_at_peers(host);
        self.sleep(host);
    }

    /// Asks all operations of a host whether they are over.
    pub(super) fn ask_operations(&self, host: usize) {
        let (mut sends, mut receives) = {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[host];
            (std::mem::take(&mut process.sends), std::mem::take(&mut process.receives))
        };
        sends.retain_mut(|sending| {
            let Some(result) = sending.op.try_wait() else { return true };
            self.sent(sending.message, result.map_or_else(|failed| end_of(&failed.error), |_| End::Done));
            false
        });
        receives.retain_mut(|receiving| {
            let Some(result) = receiving.op.try_wait() else { return true };
            self.recv_op_ended(host, receiving.receive, result);
            false
        });
        let mut processes = self.processes.borrow_mut();
        let process = &mut processes[host];
        process.sends.append(&mut sends);
        process.receives.append(&mut receives);
    }

    /// The engine of a host has nothing to do: it sleeps until something comes, or its time has.
    pub(super) fn sleep(&self, host: usize) {
        if self.waiting.get() == Some(host) || self.processes.borrow()[host].asleep.is_some() {
            return;
        }
        let Some(engine) = self.engine(host) else { return };
        match engine.arm() {
            None => self.want_step(host, 0),
            Some(armed) => {
                let nap = self.naps.get() + 1;
                self.naps.set(nap);
                if let Some(deadline) = armed.deadline() {
                    let after = nanos(deadline).saturating_sub(self.now());
                    self.alarm(after, Alarm::Nap(host, nap));
                }
                self.processes.borrow_mut()[host].asleep = Some((armed, nap));
                self.consider_waking(host);
            }
        }
    }

    /// Sees which sessions are over.
    pub(super) fn look_at_peers(&self, host: usize) {
        let peers: Vec<(usize, Peer)> = {
            let processes = self.processes.borrow();
            let known = processes[host].peers.iter().enumerate();
            known.filter(|(_, known)| !known.lost).map(|(at, known)| (at, known.peer.clone())).collect()
        };
        for (at, peer) in peers {
            if peer.is_connected() {
                continue;
            }
            let now = self.now();
            let mut processes = self.processes.borrow_mut();
            if let Some(known) = processes[host].peers.get_mut(at) {
                known.lost = true;
                let (process, session) = (known.from.process, known.session);
                self.checker.borrow_mut().saw_lost(now, process, session);
                drop(processes);
                self.note(
                    &[12, host as u64],
                    format_args!("{process:?} sees that session {session:#x} is over"),
                );
            }
        }
    }

    pub(super) fn alive_processes(&self) -> Vec<ProcessId> {
        (0..self.plan.hosts).filter_map(|host| self.process_on(host)).collect()
    }
}
