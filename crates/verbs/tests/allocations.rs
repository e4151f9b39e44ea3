//! The safe level allocates nothing for an operation, counted on a device that does nothing, and long scopes do not grow.
#![allow(unsafe_code, reason = "an allocator that counts")]

mod fake;

use fake::{Channels, Fake};
use sinew_verbs::channel::Work;
use sinew_verbs::hub::{Hub, Member, Operation, Pipe, Prepared, Verb};
use sinew_verbs::memory::{Buffer, Memory, RemoteAccess};
use sinew_verbs::qp::Rc;
use sinew_verbs::{Error, Library, ProtectionDomain};
use sinew_verbs_fake::null::NullDevice;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// A thread that ends allocates too, when its counters are gone.
fn count(allocations: u64, bytes: i64) {
    let _ = COUNT.try_with(|count| count.set(count.get() + allocations));
    let _ = BYTES.try_with(|count| count.set(count.get() + bytes));
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count(1, len as i64 - layout.size() as i64);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(data, layout, len) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `f` runs.
fn allocations_of(f: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    f();
    COUNT.get() - before
}

/// A hub with a queue pair that is connected to itself.
fn connected() -> (ProtectionDomain, Hub<Rc>, Member) {
    let library = Library::with(NullDevice::library());
    let pd = library.devices().unwrap().get(0).unwrap().open().unwrap().protection_domain().unwrap();
    let mut hub = Hub::new(pd.context(), 64).unwrap();
    let prepared = hub.queue_pair(&pd).send_depth(32).receive_depth(32).build().unwrap();
    let member = hub.add(prepared).unwrap();
    let own = hub.endpoint(member).unwrap();
    hub.connect(member, &own).unwrap();
    (pd, hub, member)
}

#[test]
fn a_hub_allocates_nothing_for_a_post_and_its_completion() {
    let (pd, mut hub, member) = connected();
    let mut buffer = Some(pd.allocate(64).unwrap());
    let mut round = |hub: &mut Hub<Rc>| {
        let send = Operation::send(buffer.take().unwrap());
        hub.post(member, send).unwrap();
        buffer = hub.poll().unwrap().unwrap().into_buffer();
    };
    round(&mut hub);
    assert_eq!(allocations_of(|| (0..1000).for_each(|_| round(&mut hub))), 0);
}

#[test]
fn a_hub_allocates_nothing_for_a_batch_with_one_signaled_operation() {
    let (pd, mut hub, member) = connected();
    let mut buffers: Vec<Buffer> = (0..16).map(|_| pd.allocate(64).unwrap()).collect();
    let mut round = |hub: &mut Hub<Rc>| {
        let mut place = 0;
        let mut batch = buffers.drain(..).map(|buffer| {
            place += 1;
            let send = Operation::send(buffer);
            if place == 16 { send } else { send.unsignaled() }
        });
        assert_eq!(hub.post_batch(member, &mut batch).unwrap(), 16);
        drop(batch);
        while let Some(completed) = hub.poll().unwrap() {
            buffers.extend(completed.into_buffer());
        }
        assert_eq!(buffers.len(), 16);
    };
    round(&mut hub);
    assert_eq!(allocations_of(|| (0..100).for_each(|_| round(&mut hub))), 0);
}

#[test]
fn a_hub_allocates_nothing_for_prepared_requests() {
    let (pd, mut hub, member) = connected();
    let sends = (0..16).map(|_| Operation::send(pd.allocate(64).unwrap())).collect();
    let mut batch = Some(Prepared::new(&pd, sends).map_err(|rejected| rejected.error).unwrap());
    let mut round = |hub: &mut Hub<Rc>| {
        hub.post_prepared(member, batch.take().unwrap()).unwrap();
        batch = hub.poll().unwrap().unwrap().into_prepared();
        assert!(batch.is_some() && hub.poll().unwrap().is_none());
    };
    round(&mut hub);
    assert_eq!(allocations_of(|| (0..100).for_each(|_| round(&mut hub))), 0);
}

#[test]
fn a_pipe_allocates_nothing_for_posts_and_their_completions() {
    let (pd, ..) = connected();
    for extended in [true, false] {
        let mut pipe = Pipe::<Rc>::new(&pd, 32, 1, |qp| Ok(qp.extended(extended))).unwrap();
        let own = pipe.endpoint().unwrap();
        pipe.connect(&own).unwrap();
        let mut buffers: Vec<Buffer> = (0..16).map(|_| pd.allocate(64).unwrap()).collect();
        let mut round = |pipe: &mut Pipe<Rc>| {
            let last = |place| if place == 15 { Verb::send() } else { Verb::send().unsignaled() };
            assert_eq!(pipe.post_all(&mut buffers, last).unwrap(), 16);
            pipe.poll().unwrap().append_to(&mut buffers);
            pipe.post(buffers.remove(0), Verb::send().len(9)).unwrap();
            buffers.extend(pipe.poll().unwrap());
            assert!(buffers.len() == 16 && pipe.poll().unwrap().len() == 0);
        };
        round(&mut pipe);
        assert_eq!(allocations_of(|| (0..100).for_each(|_| round(&mut pipe))), 0);
    }
}

#[test]
fn i8_a_scope_of_many_operations_does_not_grow() {
    let fake = Fake::new();
    let Channels { mut a, b, .. } = Channels::new(&fake, Duration::from_secs(20));
    let region = fake.pd.expose(Memory::zeroed(64).unwrap(), RemoteAccess::WRITE).unwrap();
    let piece = fake.pd.allocate(64).unwrap();
    let gather = piece.gather(64).unwrap();
    a.scope(|scope| {
        let round = |count: usize| {
            for place in 0..count {
                let pending = scope.post(Work::write(gather, region.remote())).unwrap();
                if place % 2 == 0 {
                    pending.wait().unwrap();
                } else {
                    drop(pending);
                }
            }
        };
        round(100);
        let before = BYTES.get();
        round(10_000);
        // What the device itself keeps is a little more or less.
        let grown = BYTES.get() - before;
        assert!(grown < 4096, "{grown} bytes more after 10,000 operations");
        Ok::<_, Error>(())
    })
    .unwrap();
    drop((a, b, region, piece));
    fake.finish();
}
