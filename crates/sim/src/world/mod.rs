//! The world: processes with an engine each, what they do, and time, which passes when nobody computes.
//!
//! One simulation per thread. Calls of an engine that wait come back here ([`let_pass`]) and let the rest of the world go on
//! under them; only one call waits at a time, so that each comes back when it should.

mod act;
mod callbacks;
mod calls;
mod faults;
mod finish;
mod process;

use crate::checker::{Checker, ProcessId};
use crate::net::{Alarm, Breach, Nanos, Net, SECONDS, Shared, lock};
use crate::plan::{Fault, Plan, Weather};
use crate::random::Random;
use crate::trace::Trace;
use process::Process;
use std::cell::{Cell, RefCell};
use std::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// Print every event.
    pub trace: bool,
    /// Instead of what the seed says.
    pub weather: Option<Weather>,
    /// Break the lane contract once, after so many messages.
    pub breach: Option<(Breach, u64)>,
    /// Two hosts, a few short messages: for an interpreter.
    pub brief: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The weather that was asked for instead of the seed's.
    pub weather: Option<Weather>,
    /// It was brief.
    pub brief: bool,
    /// What happened, as one number: the same for each run of the seed.
    pub hash: u64,
    /// What was promised and not kept.
    pub violations: Vec<String>,
    /// Messages that were handed to engines, and those that came.
    pub messages: u64,
    /// See `messages`.
    pub received: u64,
    /// Outcomes that were judged.
    pub judged: u64,
    /// Events of network and world.
    pub events: u64,
    /// Faults that hit something, by name.
    pub faults: Vec<&'static str>,
    /// Lanes that failed, and frames that were sent again for it.
    pub lanes_lost: u64,
    /// See `lanes_lost`.
    pub replayed: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// The breach that was asked for was made.
    pub breached: bool,
    /// Fragments that went over one of several lanes, outside the sequence.
    pub stripes: u64,
    /// Calls of handlers and of functions that waited for an operation.
    pub called: u64,
}

impl Report {
    /// The words that run the seed again, with every event as a line.
    #[must_use]
    pub fn replay(&self) -> String {
        let weather = match self.weather {
            None => "",
            Some(Weather::Calm) => " --weather calm",
            Some(Weather::Rough) => " --weather rough",
            Some(Weather::Wild) => " --weather wild",
        };
        let brief = if self.brief { " --brief" } else { "" };
        format!("cargo xtask sim --seed {}{weather}{brief} --trace", self.seed)
    }
}

/// Events after which a simulation is taken to never come to rest.
const EVENTS_MAX: u64 = 300_000;

pub(crate) struct World {
    net: Shared,
    plan: Plan,
    random: RefCell<Random>,
    processes: RefCell<Vec<Process>>,
    checker: RefCell<Checker>,
    /// The host of which a call waits.
    waiting: Cell<Option<usize>>,
    /// Faults and acts are over.
    ending: Cell<bool>,
    events: Cell<u64>,
    faults: RefCell<Vec<&'static str>>,
    /// What follows from faults of the plan.
    consequences: RefCell<Vec<Fault>>,
    counted: Cell<(u64, u64)>,
    naps: Cell<u64>,
    /// Until when a process was stopped last: calls come back later for it.
    stopped_until: Cell<Nanos>,
    /// All that there were; a number is a place here.
    handlers: RefCell<Vec<callbacks::Known>>,
    /// The engine runs by itself: functions that it calls may call it.
    may_act_inside: Cell<bool>,
    called: Cell<u64>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// A call of the engine on `host` waits until `done`, or for as long as it said.
pub(crate) fn let_pass(host: usize, timeout: Option<Duration>, done: &mut dyn FnMut() -> bool) {
    let Some(world) = WORLD.with(|world| world.borrow().clone()) else { return };
    world.let_pass(host, timeout, done);
}

/// Runs one seed to its end.
#[must_use]
pub fn run(seed: u64, setting: &Setting) -> Report {
    crate::lane::forget_segments();
    let world = Rc::new(World::new(seed, setting));
    WORLD.with(|current| *current.borrow_mut() = Some(Rc::clone(&world)));
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        if let Ok(mut checker) = world.checker.try_borrow_mut() {
            checker.complain(format!("a panic: {text}"));
        }
        // What is left may be in any state.
        if let Ok(mut processes) = world.processes.try_borrow_mut() {
            std::mem::forget(std::mem::take(&mut *processes));
        }
    }
    WORLD.with(|current| *current.borrow_mut() = None);
    world.report(seed, setting)
}

impl World {
    fn new(seed: u64, setting: &Setting) -> Self {
        let mut plan = Plan::draw(seed, setting.weather);
        if setting.brief {
            plan.shorten();
        }
        let mut random = Random::new(seed);
        let mut net = Net::new(plan.hosts, random.fork(), Trace::new(setting.trace));
        net.paths.clone_from(&plan.paths);
        net.breach = setting.breach;
        for (host, &machine) in plan.machines.iter().enumerate() {
            net.hosts[host].machine = machine;
        }
        let processes = (0..plan.hosts).map(|_| Process::default()).collect();
        Self {
            net: Arc::new(Mutex::new(net)),
            plan,
            random: RefCell::new(random),
            processes: RefCell::new(processes),
            checker: RefCell::default(),
            waiting: Cell::new(None),
            ending: Cell::new(false),
            events: Cell::new(0),
            faults: RefCell::default(),
            consequences: RefCell::default(),
            counted: Cell::default(),
            naps: Cell::default(),
            stopped_until: Cell::default(),
            handlers: RefCell::default(),
            may_act_inside: Cell::default(),
            called: Cell::default(),
        }
    }

    fn report(&self, seed: u64, setting: &Setting) -> Report {
        let net = lock(&self.net);
        let checker = self.checker.borrow();
        let (lanes_lost, replayed) = self.counted.get();
        Report {
            seed,
            weather: setting.weather,
            brief: setting.brief,
            hash: net.trace.hash(),
            violations: checker.violations.clone(),
            messages: checker.messages.len() as u64,
            received: checker.received_count(),
            judged: checker.judged,
            events: self.events.get(),
            faults: self.faults.borrow().clone(),
            lanes_lost,
            replayed,
            lasted: Duration::from_nanos(net.now),
            breached: net.breached,
            stripes: net.stripes,
            called: self.called.get(),
        }
    }

    fn now(&self) -> Nanos {
        lock(&self.net).now
    }

    fn draw<R>(&self, f: impl FnOnce(&mut Random) -> R) -> R {
        f(&mut self.random.borrow_mut())
    }

    fn chance(&self, parts: u64) -> bool {
        self.draw(|random| random.chance(parts))
    }

    fn index(&self, end: usize) -> usize {
        self.draw(|random| random.index(end))
    }

    fn alarm(&self, after: Nanos, alarm: Alarm) {
        lock(&self.net).alarm(after, alarm);
    }

    /// Something that the hash covers and that `--trace` shows.
    fn note(&self, numbers: &[u64], line: Arguments<'_>) {
        let mut net = lock(&self.net);
        let now = net.now;
        net.trace.note(now, numbers, line);
    }

    /// The process that lives on a host.
    fn process_on(&self, host: usize) -> Option<ProcessId> {
        let net = lock(&self.net);
        let state = &net.hosts[host];
        state.alive.then_some((host, state.generation))
    }

    fn is_alive(&self, process: ProcessId) -> bool {
        self.process_on(process.0) == Some(process)
    }

    fn live(&self) {
        for host in 0..self.plan.hosts {
            self.bear(host);
        }
        for (index, (at, _)) in self.plan.faults.iter().enumerate() {
            self.alarm(*at, Alarm::Fault(index));
        }
        while !self.has_acted() {
            self.pump(self.now() + SECONDS);
        }
        self.finish();
    }

    /// Whether every application has done what it was to do, and every fault has happened.
    fn has_acted(&self) -> bool {
        let processes = self.processes.borrow();
        let last = self.plan.faults.last().map_or(0, |(at, _)| *at);
        processes.iter().all(|process| process.acts_left == 0 || process.engine.is_none())
            && self.now() >= last
    }

    /// Does the next thing that happens before `until`. `false`: nothing does, and it is `until` now.
    fn pump(&self, until: Nanos) -> bool {
        let events = self.events.get() + 1;
        self.events.set(events);
        assert!(events < EVENTS_MAX, "the world does not come to rest");
        let alarm = {
            let mut net = lock(&self.net);
            match net.advance(until) {
                None => return false,
                Some(alarm) => alarm,
            }
        };
        match alarm {
            None => {}
            Some(Alarm::Act(host)) => self.act(host),
            Some(Alarm::Step(host)) => self.step(host),
            Some(Alarm::Nap(host, nap)) => self.nap_ends(host, nap),
            Some(Alarm::Fault(index)) => self.fault(self.fault_at(index)),
        }
        let touched = std::mem::take(&mut lock(&self.net).touched);
        for host in touched {
            self.consider_waking(host);
        }
        true
    }

    fn let_pass(&self, host: usize, timeout: Option<Duration>, done: &mut dyn FnMut() -> bool) {
        let limit = timeout.map_or(3600 * SECONDS, |timeout| {
            u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).min(3600 * SECONDS)
        });
        let deadline = self.now() + limit;
        let before = self.waiting.replace(Some(host));
        assert!(before.is_none_or(|before| before == host), "two calls wait at once");
        loop {
            let stopped = self.processes.borrow()[host].stopped;
            if !stopped && (done() || self.now() >= deadline) {
                break;
            }
            self.pump(if stopped { self.now() + SECONDS } else { deadline });
        }
        self.waiting.set(before);
    }
}
