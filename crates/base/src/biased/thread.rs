//! Who this thread is, and whether a thread still runs.

#[cfg(loom)]
use loom::thread_local;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Exists once for each thread that ever got a bias: whether the thread still runs.
pub(super) type Alive = AtomicBool;

/// Numbers of threads: never 0, never used twice.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Lives in each thread that ever got a bias, and tells the slots when the thread ends.
struct End(Arc<Alive>);

impl Drop for End {
    fn drop(&mut self) {
        // First: from here on the thread takes no lock by its bias, so its slots may go to others.
        let _ = ME_BIASED.try_with(|me| me.set(0));
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(not(loom))]
thread_local! {
    static ME: Cell<usize> = const { Cell::new(0) };
    /// [`ME`] once the thread may have a bias, and 0 before and at its end.
    static ME_BIASED: Cell<usize> = const { Cell::new(0) };
}

#[cfg(loom)]
loom::thread_local! {
    static ME: Cell<usize> = Cell::new(0);
    static ME_BIASED: Cell<usize> = Cell::new(0);
}

thread_local! {
    static END: End = End(Arc::new(Alive::new(true)));
}

/// This thread's number.
pub(super) fn me() -> usize {
    ME.with(|me| {
        if me.get() == 0 {
            me.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        me.get()
    })
}

/// This thread's number if it may have a bias, else 0.
#[inline]
pub(super) fn me_biased() -> usize {
    ME_BIASED.with(Cell::get)
}

/// This thread's number, after making sure that its end will be told; `None` when it is ending.
pub(super) fn me_biased_registered() -> Option<usize> {
    my_alive()?;
    let me = me();
    ME_BIASED.with(|biased| biased.set(me));
    Some(me)
}

/// Tells whether this thread still runs; `None` when it is ending.
pub(super) fn my_alive() -> Option<Arc<Alive>> {
    END.try_with(|end| end.0.clone()).ok()
}
