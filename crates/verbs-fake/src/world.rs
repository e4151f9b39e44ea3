//! The state of a fake library: its devices, their objects, what is told to fail, what was seen.
//!
//! One lock guards all of it: the functions of the table and [`Control`](crate::Control) take it, and nobody else's code runs under
//! it. A world lives for ever, so that a pointer that a program kept too long is noticed instead of followed into freed memory.

use crate::call::Call;
use crate::fault::{Alteration, Fault, Hold, Kind, Refusal, Touch};
use crate::mapped::Mapped;
use crate::notify::Notifier;
use crate::options::{DeviceOptions, Options};
use crate::request::{Completion, Receive, Send};
use core::ffi::{c_int, c_void};
use sinew_verbs_sys as sys;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;

pub(crate) type Guard = MutexGuard<'static, State>;

/// A pointer that is carried and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer<T>(pub(crate) *mut T);

/// A fake library.
pub(crate) struct World {
    state: Mutex<State>,
    /// Told when a lock of a queue becomes free.
    pub(crate) changed: Condvar,
}

impl World {
    pub(crate) fn new(options: Options) -> &'static Self {
        let state = State {
            devices: options.devices.into_iter().map(|options| Device { id: 0, options }).collect(),
            retry_polls: options.retry_polls,
            ..State::default()
        };
        Box::leak(Box::new(Self { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// The state, also after a test that panicked in the middle.
    pub(crate) fn lock(&'static self) -> Guard {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until something changed.
    pub(crate) fn wait(&'static self, guard: Guard) -> Guard {
        self.changed.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) struct Device {
    pub(crate) id: u32,
    pub(crate) options: DeviceOptions,
}

pub(crate) struct Context {
    pub(crate) device: usize,
    pub(crate) notifier: Notifier,
    pub(crate) events: VecDeque<Event>,
}

/// An asynchronous event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) kind: sys::IbvEventType,
    pub(crate) about: About,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Device,
    Port(u8),
    Object(u32),
}

pub(crate) struct Pd {
    pub(crate) context: u32,
    /// The domain under a parent domain, and its thread domain.
    pub(crate) parent_of: Option<(u32, Option<u32>)>,
}

/// What a region is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    Host(Pointer<u8>),
    /// A descriptor's memory: not at an address that programs know.
    Mapped(Pointer<u8>),
    /// Device memory, from this offset on.
    Device(u32, usize),
    /// Reads as zero, swallows writes.
    Null,
}

pub(crate) struct Mr {
    pub(crate) pd: u32,
    pub(crate) memory: Memory,
    pub(crate) iova: u64,
    pub(crate) len: u64,
    pub(crate) access: u32,
    pub(crate) key: u32,
}

pub(crate) struct Mw {
    pub(crate) pd: u32,
    pub(crate) kind: sys::IbvMwType,
    pub(crate) rkey: u32,
    pub(crate) bound: Option<Bound>,
}

/// What a window shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) mr: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) access: u32,
    /// Number of the queue pair that a window of type 2 belongs to.
    pub(crate) qp: Option<u32>,
}

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Region(u32),
    Window(u32),
}

pub(crate) struct Channel {
    pub(crate) context: u32,
    pub(crate) notifier: Notifier,
    /// Handles of completion queues.
    pub(crate) events: VecDeque<u32>,
}

/// Which completion raises the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    No,
    Solicited,
    Any,
}

pub(crate) struct Cq {
    pub(crate) context: u32,
    pub(crate) channel: Option<u32>,
    pub(crate) size: usize,
    pub(crate) queue: VecDeque<Completion>,
    pub(crate) armed: Armed,
    pub(crate) single_threaded: bool,
    /// The thread that polls, between start and end.
    pub(crate) poller: Option<ThreadId>,
    /// The completion that an extended poll stands at.
    pub(crate) current: Option<Completion>,
    pub(crate) overrun: bool,
    pub(crate) alterations: VecDeque<Alteration>,
    /// Events that were got and not acknowledged: of completions, and others.
    pub(crate) unacked: u32,
    pub(crate) unacked_async: u32,
}

pub(crate) struct Srq {
    pub(crate) pd: u32,
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    /// An event when fewer than so many are left; 0: none.
    pub(crate) limit: u32,
    pub(crate) queue: VecDeque<Receive>,
    pub(crate) used: u32,
    pub(crate) unacked_async: u32,
    /// Of extended connections: their domain, and where its receives complete.
    pub(crate) extended: Option<(u32, u32)>,
}

/// A rule that steers frames to a queue pair of raw packets.
pub(crate) struct Flow {
    /// Number of the queue pair.
    pub(crate) qp: u32,
    pub(crate) port: u8,
    pub(crate) priority: u16,
    pub(crate) kind: sys::IbvFlowAttrType,
    /// Which bits of the beginning of a frame it looks at, and what they are to be.
    pub(crate) mask: [u8; 14],
    pub(crate) value: [u8; 14],
}

pub(crate) struct Ah {
    pub(crate) pd: u32,
    pub(crate) attr: sys::ibv_ah_attr,
}

/// Requests between start and completion of a batch.
pub(crate) struct Batch {
    pub(crate) owner: ThreadId,
    pub(crate) requests: Vec<Send>,
    pub(crate) error: c_int,
}

/// Why the first request of a send queue does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nobody answers.
    Peer,
    /// The peer has no receive.
    Receive,
    /// The peer is told not to answer: for ever.
    Held,
}

pub(crate) struct Qp {
    pub(crate) id: u32,
    pub(crate) context: u32,
    pub(crate) device: usize,
    pub(crate) pd: u32,
    pub(crate) send_cq: u32,
    pub(crate) recv_cq: u32,
    pub(crate) srq: Option<u32>,
    pub(crate) kind: sys::IbvQpType,
    pub(crate) cap: sys::ibv_qp_cap,
    pub(crate) all_signaled: bool,
    pub(crate) state: sys::IbvQpState,
    pub(crate) attr: sys::ibv_qp_attr,
    pub(crate) sends: VecDeque<Send>,
    pub(crate) receives: VecDeque<Receive>,
    /// Places in use: until their completion, or one after it, was polled.
    pub(crate) sends_used: u32,
    pub(crate) receives_used: u32,
    /// Sends that are done and that no completion has told of.
    pub(crate) untold: u32,
    pub(crate) untold_touches: Vec<Touch>,
    pub(crate) hold: Hold,
    pub(crate) withheld: VecDeque<(u32, Completion)>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) waited: u32,
    pub(crate) exhausted: bool,
    pub(crate) batch: Option<Batch>,
    pub(crate) unacked_async: u32,
    /// Of a connection, as the vendor numbers them.
    pub(crate) extensions: u32,
    /// Of the receiving side of an extended connection: its domain.
    pub(crate) xrcd: Option<u32>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) devices: Vec<Device>,
    pub(crate) retry_polls: u32,
    last_id: u32,
    last_key: u32,
    pub(crate) ticks: u64,
    /// Every object that is there.
    pub(crate) live: BTreeMap<u32, Kind>,
    /// Every object that was ever given out.
    pub(crate) objects: BTreeMap<u32, Pointer<c_void>>,
    pub(crate) contexts: BTreeMap<u32, Context>,
    pub(crate) pds: BTreeMap<u32, Pd>,
    pub(crate) mrs: BTreeMap<u32, Mr>,
    /// By the region.
    pub(crate) mappings: BTreeMap<u32, Mapped>,
    pub(crate) mws: BTreeMap<u32, Mw>,
    pub(crate) dms: BTreeMap<u32, Vec<u8>>,
    pub(crate) keys: BTreeMap<u32, Key>,
    pub(crate) channels: BTreeMap<u32, Channel>,
    pub(crate) cqs: BTreeMap<u32, Cq>,
    pub(crate) srqs: BTreeMap<u32, Srq>,
    pub(crate) ahs: BTreeMap<u32, Ah>,
    pub(crate) flows: BTreeMap<u32, Flow>,
    /// Domains of extended connections, with their contexts.
    pub(crate) xrcds: BTreeMap<u32, u32>,
    /// By number.
    pub(crate) qps: BTreeMap<u32, Qp>,
    /// Group and number of a queue pair.
    pub(crate) multicast: Vec<([u8; 16], u32)>,
    pub(crate) calls: BTreeMap<Call, u64>,
    pub(crate) refusals: Vec<(Call, Refusal)>,
    pub(crate) faults: Vec<Fault>,
}

/// Numbers of queue pairs lie beside the handles, so that no test takes one for the other.
const FIRST_QP_NUM: u32 = 0x1000;

impl State {
    /// The next handle.
    pub(crate) fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// The number of the queue pair with this handle.
    pub(crate) fn qp_num(id: u32) -> u32 {
        FIRST_QP_NUM + id
    }

    /// A key that was never given out; its lower byte is free for windows.
    pub(crate) fn next_key(&mut self) -> u32 {
        self.last_key += 1;
        self.last_key << 8
    }

    /// Counts a call; answers the error number when it is told to fail.
    pub(crate) fn count(&mut self, call: Call, handle: u32) -> Result<(), c_int> {
        *self.calls.entry(call).or_default() += 1;
        let number = Self::qp_num(handle);
        for (refused, refusal) in &mut self.refusals {
            let about_qp = self.live.get(&handle) == Some(&Kind::QueuePair);
            let this = refusal.handle.is_none_or(|named| named == if about_qp { number } else { handle });
            if *refused != call || !this || refusal.times == 0 {
                continue;
            }
            if refusal.after > 0 {
                refusal.after -= 1;
                continue;
            }
            if refusal.times != u64::MAX {
                refusal.times -= 1;
            }
            return Err(refusal.errno);
        }
        Ok(())
    }

    /// Whether there is such an object; that there is not is a fault of the program.
    pub(crate) fn check_alive(&mut self, call: Call, handle: u32) -> Result<(), c_int> {
        if self.live.contains_key(&handle) {
            return Ok(());
        }
        self.faults.push(Fault::UseAfterDestroy { call, handle });
        Err(libc::EINVAL)
    }

    pub(crate) fn pointer<T>(&self, id: u32) -> *mut T {
        self.objects.get(&id).map_or(core::ptr::null_mut(), |pointer| pointer.0.cast())
    }

    /// The domain that counts for keys: a parent domain's own.
    pub(crate) fn root_pd(&self, pd: u32) -> u32 {
        match self.pds.get(&pd).and_then(|pd| pd.parent_of) {
            Some((root, _)) => self.root_pd(root),
            None => pd,
        }
    }

    pub(crate) fn context_of_pd(&self, pd: u32) -> Result<u32, c_int> {
        self.pds.get(&pd).map(|pd| pd.context).ok_or(libc::EINVAL)
    }

    pub(crate) fn device_of(&self, context: u32) -> Result<&Device, c_int> {
        let context = self.contexts.get(&context).ok_or(libc::EINVAL)?;
        self.devices.get(context.device).ok_or(libc::EINVAL)
    }

    /// The queue pair with this handle.
    pub(crate) fn qp(&mut self, id: u32) -> Result<&mut Qp, c_int> {
        self.qps.get_mut(&Self::qp_num(id)).ok_or(libc::EINVAL)
    }

    /// Raises an asynchronous event on a context.
    pub(crate) fn raise(&mut self, context: u32, kind: sys::IbvEventType, about: About) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.events.push_back(Event { kind, about });
            context.notifier.set(true);
        }
    }
}
