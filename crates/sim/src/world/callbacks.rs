//! The callback forms: handlers of messages, and functions that operations call at their end.
//!
//! The engine calls them below whatever call of it makes progress. What they are told goes to the checker. Below a plain step
//! of the engine, where no other call is half done, they now and then do something themselves: send, post, drop handlers, wait.

use super::World;
use super::act::{ROOM, end_of};
use super::process::{Process, Receiving, Sending};
use crate::checker::{End, EndpointId, ReceiveId, Wanted};
use crate::net::{MILLIS, SECONDS};
use sinew_engine::{Completion, Handler, OnComplete};
use std::collections::VecDeque;

/// Handlers that a process has at most.
const HANDLERS_MAX: usize = 2;

/// A handler as the checker is told of it.
pub(super) struct Known {
    at: EndpointId,
    wanted: Wanted,
    room: usize,
    /// Its receives in the order in which they were posted: messages are shown in it.
    posted: VecDeque<ReceiveId>,
    /// It was not unregistered, and none of its calls has panicked.
    live: bool,
}

/// A handler of a process, by its number in the world.
pub(super) struct Registered {
    pub(super) handler: Handler,
    pub(super) number: usize,
    pub(super) at: EndpointId,
}

/// A receive whose end goes to a function.
pub(super) struct Told {
    pub(super) handle: OnComplete,
    pub(super) receive: ReceiveId,
}

impl World {
    /// The simulation of this thread does something, if there is one.
    fn with_current(f: impl FnOnce(&Self)) {
        let world = super::WORLD.with(|world| world.borrow().clone());
        if let Some(world) = world {
            f(&world);
        }
    }

    /// One thing of this form: a handler more or less, or an operation that is taken back.
    pub(super) fn callback(&self, host: usize) {
        let registered = self.processes.borrow()[host].handlers.len();
        match self.index(4) {
            0 => self.take_told_back(host),
            1 if registered > 0 => self.drop_handler(host),
            _ if registered < HANDLERS_MAX => self.add_handler(host),
            _ => {}
        }
    }

    fn add_handler(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        let (wanted, pattern) = self.pattern(host, open.id);
        // A handler is not shown what does not fit.
        let (depth, room) = (1 + self.index(3), ROOM);
        let posted = (0..depth).map(|_| self.posted(open.id, wanted, room)).collect();
        let number = {
            let mut known = self.handlers.borrow_mut();
            known.push(Known { at: open.id, wanted, room, posted, live: true });
            known.len() - 1
        };
        self.note(
            &[60, number as u64, depth as u64],
            format_args!("{:?} has handler {number}: {wanted:?}, {depth} receives", open.id),
        );
        let function = move |bytes: &[u8], info: &Completion| {
            Self::with_current(|world| world.handler_called(host, number, bytes, info));
        };
        match open.endpoint.on_message(pattern, room, depth, function) {
            Ok(handler) => {
                let registered = Registered { handler, number, at: open.id };
                self.processes.borrow_mut()[host].handlers.push(registered);
            }
            Err(_) => self.handler_is_over(number),
        }
    }

    fn drop_handler(&self, host: usize) {
        let registered = {
            let mut processes = self.processes.borrow_mut();
            let handlers = &mut processes[host].handlers;
            let at = self.index(handlers.len());
            (!handlers.is_empty()).then(|| handlers.swap_remove(at))
        };
        if let Some(registered) = registered {
            self.unregister(registered);
        }
    }

    /// A handler is unregistered: no message comes to its function any more.
    pub(super) fn unregister(&self, Registered { handler, number, .. }: Registered) {
        self.note(&[61, number as u64], format_args!("handler {number} is unregistered"));
        drop(handler);
        self.handler_is_over(number);
    }

    fn handler_is_over(&self, number: usize) {
        let posted = {
            let mut known = self.handlers.borrow_mut();
            known[number].live = false;
            std::mem::take(&mut known[number].posted)
        };
        let now = self.now();
        let mut checker = self.checker.borrow_mut();
        posted.into_iter().for_each(|receive| checker.receive_ended(now, receive, End::Cancelled));
    }

    /// The engine calls the function of a handler.
    fn handler_called(&self, host: usize, number: usize, bytes: &[u8], info: &Completion) {
        self.called.set(self.called.get() + 1);
        let (live, at, receive) = {
            let known = &mut self.handlers.borrow_mut()[number];
            (known.live, known.at, known.posted.pop_front())
        };
        let Some(receive) = receive.filter(|_| live) else {
            if self.is_alive(at.process) {
                self.checker.borrow_mut().complain(format!("handler {number} is over and was called"));
            }
            return;
        };
        self.received(receive, &Ok(*info), bytes);
        if !self.is_alive(at.process) {
            return;
        }
        self.act_inside(host);
        if self.chance(10) {
            self.note(&[62, number as u64], format_args!("handler {number} panics"));
            self.handler_is_over(number);
            std::panic::resume_unwind(Box::new("a handler"));
        }
        let (live, wanted, room) = {
            let known = &self.handlers.borrow()[number];
            (known.live, known.wanted, known.room)
        };
        if live {
            let receive = self.checker.borrow_mut().posted_again(at, wanted, room);
            self.note(&[64, receive as u64], format_args!("handler {number} posts receive {receive}"));
            self.handlers.borrow_mut()[number].posted.push_back(receive);
        }
    }

    /// What a function does besides.
    fn act_inside(&self, host: usize) {
        if self.ending.get() || !self.may_act_inside.replace(false) {
            return;
        }
        self.posts(host, || match self.index(12) {
            0 => self.try_send(host, false),
            1 => self.post_send(host),
            2 => self.post_recv(host),
            3 => self.drop_handler(host),
            4 => self.add_handler(host),
            5 => self.cancel(host),
            6 if self.waiting.get().is_none() => self.send(host),
            7 if self.waiting.get().is_none() => self.recv(host),
            _ => {}
        });
        self.may_act_inside.set(true);
    }

    /// A posted send goes on without a handle, and tells a function when it ends.
    pub(super) fn tell_of_send(&self, host: usize, Sending { op, message, .. }: Sending) {
        let Some(process) = self.process_on(host) else { return };
        let handle = op.on_complete(move |result| {
            Self::with_current(|world| {
                world.called.set(world.called.get() + 1);
                world.sent(message, result.map_or_else(|failed| end_of(&failed.error), |_| End::Done));
                if world.is_alive(process) {
                    world.act_inside(host);
                }
            });
        });
        // Mostly it goes on by itself.
        if self.chance(100) {
            handle.cancel();
        }
    }

    /// The same with a receive; the handle is kept, as it must be taken back at the end.
    pub(super) fn tell_of_receive(&self, host: usize, Receiving { op, receive, .. }: Receiving) {
        let Some(process) = self.process_on(host) else { return };
        let handle = op.on_complete(move |result| {
            Self::with_current(|world| {
                world.called.set(world.called.get() + 1);
                world.recv_op_ended(host, receive, result);
                if world.is_alive(process) {
                    world.act_inside(host);
                }
            });
        });
        self.processes.borrow_mut()[host].told.push(Told { handle, receive });
    }

    fn take_told_back(&self, host: usize) {
        let told = {
            let mut processes = self.processes.borrow_mut();
            let told = &mut processes[host].told;
            let at = self.index(told.len());
            (!told.is_empty()).then(|| told.swap_remove(at))
        };
        if let Some(told) = told {
            self.note(&[63, told.receive as u64], format_args!("receive {} is taken back", told.receive));
            told.handle.cancel();
        }
    }

    /// In a healed network handlers are shown what came for them: in the end all of their receives wait. Then they go.
    pub(super) fn handlers_rest(&self) {
        let until = self.now() + 60 * SECONDS;
        while !self.alive_processes().iter().all(|&(host, _)| self.handlers_wait(host)) && self.now() < until
        {
            let soon = self.now() + 200 * MILLIS;
            while self.pump(soon) {}
        }
        for (host, _) in self.alive_processes() {
            if !self.handlers_wait(host) {
                self.checker
                    .borrow_mut()
                    .complain(format!("host {host}: a handler is not shown its messages"));
            }
            self.wake(host);
            self.unregister_all(host);
            self.sleep(host);
        }
    }

    /// Whether the receives of a host that have not ended all wait, as far as endpoints have handlers of any source: those that name
    /// one have none when it is lost.
    fn handlers_wait(&self, host: usize) -> bool {
        self.wake(host);
        self.ask_operations(host);
        let open = self.processes.borrow()[host].endpoints.clone();
        let waits = open.iter().all(|open| {
            let handlers = self.handlers.borrow();
            let here = || handlers.iter().filter(|known| known.live && known.at == open.id);
            if here().next().is_none() || here().any(|known| known.wanted.from.is_some()) {
                return true;
            }
            let of_handlers: usize = here().map(|known| known.posted.len()).sum();
            drop(handlers);
            let processes = self.processes.borrow();
            let own = processes[host].receives.iter().filter(|receiving| receiving.at == open.id).count();
            drop(processes);
            // Those that tell a function are not known to have ended: they are only in the way.
            let posted = open.endpoint.counters().posted;
            posted >= of_handlers + own
        });
        self.sleep(host);
        waits
    }

    /// Every handler of a host is unregistered.
    pub(super) fn unregister_all(&self, host: usize) {
        let handlers = std::mem::take(&mut self.processes.borrow_mut()[host].handlers);
        handlers.into_iter().for_each(|registered| self.unregister(registered));
    }

    /// Calls of the engine on `host` that post receives: those that handlers post again meanwhile come before or after them.
    pub(super) fn posts(&self, host: usize, calls: impl FnOnce()) {
        let mut checker = self.checker.borrow_mut();
        let outermost = checker.begin_posting(host);
        drop(checker);
        calls();
        if outermost {
            self.checker.borrow_mut().end_posting(host);
        }
    }
}

impl Process {
    /// Handlers of an endpoint, taken out.
    pub(super) fn handlers_of(&mut self, at: EndpointId) -> Vec<Registered> {
        self.handlers.extract_if(.., |registered| registered.at == at).collect()
    }
}
