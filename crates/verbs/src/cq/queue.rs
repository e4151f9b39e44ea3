//! A completion queue: made, polled, armed, resized.
#![allow(unsafe_code)]

use super::channel::{CompletionChannel, Subscription};
use super::completion::{Fields, WorkCompletion};
use super::poller::Poller;
use crate::device::{Context, ObjectId};
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A completion queue. `Clone` is another handle to the same; `Send` and `Sync`: several threads may poll it, each completion goes to
/// one of them.
///
/// Queue pairs reserve as many entries as they are deep, so that it cannot overrun as long as no more requests are unpolled than
/// that (a `Hub` sees to it; at the `unsafe` level it is the caller's duty).
///
/// Destroyed with the last handle, on whichever thread: queue pairs and pollers of it hold it, it holds its device and its channel. Its events are
/// acknowledged before, so that its end waits for nobody.
#[derive(Clone)]
#[doc(alias = "ibv_cq")]
pub struct CompletionQueue {
    shared: Arc<Made>,
}

struct Made {
    context: Context,
    cq: NonNull<sys::ibv_cq>,
    /// The same queue, where it was made as an extended one.
    extended: Option<NonNull<sys::ibv_cq_ex>>,
    fields: Fields,
    subscription: Option<Subscription>,
    entries: AtomicU32,
    /// How many entries queue pairs have taken.
    reserved: Mutex<u64>,
    /// A failure that came after completions of the same poll, for the next poll to tell; 0 for none.
    failed: AtomicI32,
}

// SAFETY: a completion queue may be polled, armed and destroyed by any thread; drivers lock it.
unsafe impl Send for Made {}
// SAFETY: the same.
unsafe impl Sync for Made {}

impl Drop for Made {
    fn drop(&mut self) {
        let destroy = || {
            // SAFETY: made by us, destroyed once; queue pairs of it hold this value.
            sys::Errno::check(unsafe { (self.context.table().ibv_destroy_cq)(self.cq.as_ptr()) })
        };
        let answer = match self.subscription.take() {
            // Its events are acknowledged first: the library waits for them.
            Some(subscription) => subscription.end(self.cq, destroy),
            None => destroy(),
        };
        if let Err(errno) = answer {
            self.context.library().leaked("ibv_destroy_cq", &self.context.name(), errno.0);
            std::mem::forget(self.context.clone());
        }
    }
}

/// How to make a completion queue.
#[derive(Clone, Debug)]
pub struct CompletionQueueBuilder<'a> {
    context: &'a Context,
    entries: u32,
    channel: Option<(&'a CompletionChannel, u64)>,
    vector: u32,
    fields: Fields,
    is_of_one_thread: bool,
}

impl Context {
    /// A completion queue of at least `entries` entries (at least 1; the device may give more).
    #[must_use]
    #[doc(alias = "ibv_create_cq")]
    #[doc(alias = "ibv_create_cq_ex")]
    pub const fn completion_queue(&self, entries: u32) -> CompletionQueueBuilder<'_> {
        let fields = Fields::empty();
        CompletionQueueBuilder {
            context: self,
            entries,
            channel: None,
            vector: 0,
            fields,
            is_of_one_thread: false,
        }
    }
}

impl<'a> CompletionQueueBuilder<'a> {
    /// Events of it come by this channel, with this word of the caller's. Without one the queue can be polled only.
    #[must_use]
    pub const fn channel(mut self, channel: &'a CompletionChannel, cookie: u64) -> Self {
        self.channel = Some((channel, cookie));
        self
    }

    /// The completion vector (interrupt) that events are raised on; 0 by default.
    #[must_use]
    pub const fn vector(mut self, vector: u32) -> Self {
        self.vector = vector;
        self
    }

    /// What completions tell besides; nothing by default, which also devices without extended queues can.
    #[must_use]
    pub const fn fields(mut self, fields: Fields) -> Self {
        self.fields = fields;
        self
    }

    /// For one thread: the driver does not lock it. It is polled as an extended queue.
    ///
    /// # Safety
    /// Only one thread at a time calls anything of the queue, its end included, although its type is `Sync`; a queue pair's end and its changes of state call it too.
    #[must_use]
    #[doc(alias = "IBV_CREATE_CQ_ATTR_SINGLE_THREADED")]
    pub const unsafe fn of_one_thread(mut self) -> Self {
        self.is_of_one_thread = true;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for fields that the device does not tell; [`Error::Invalid`] for no entries, more than the
    /// ABI can say, both times at once, a vector that there is not, or a channel of another device; [`Error::Call`] when the device
    /// has no room.
    pub fn build(self) -> Result<CompletionQueue> {
        let Self { context, entries, channel, vector, fields, is_of_one_thread } = self;
        let cqe = i32::try_from(entries).ok().filter(|entries| *entries > 0).ok_or_else(|| {
            Error::invalid("completion queue", format!("{entries} entries"), "take 1 to 2147483647")
        })?;
        if vector >= context.completion_vectors().max(1) {
            return Err(Error::invalid(
                "completion vector",
                format!("{vector}; {} has {}", context.name(), context.completion_vectors()),
                "take one that the device has",
            ));
        }
        if fields == Fields::all() {
            return Err(Error::invalid(
                "fields of completions",
                "both clocks at once",
                "take the device's clock, or that of the wall",
            ));
        }
        let subscription =
            channel.map(|(channel, cookie)| Subscription::new(channel, context, cookie)).transpose()?;
        let raw_channel = channel.map_or(std::ptr::null_mut(), |(channel, _)| channel.as_raw());
        let cookie = subscription.as_ref().map_or(std::ptr::null_mut(), Subscription::as_raw);
        let made = if fields.is_empty() && !is_of_one_thread {
            // SAFETY: the context is open, and the channel of it is held by the subscription.
            let cq = unsafe {
                (context.table().ibv_create_cq)(context.as_raw(), cqe, cookie, raw_channel, vector as i32)
            };
            let object = format_args!("{entries} entries in {}", context.name());
            let cq = NonNull::new(cq);
            cq.map(|cq| (cq, None)).ok_or_else(|| Error::call("ibv_create_cq", object, sys::Errno::last().0))
        } else {
            let mut attributes = sys::ibv_cq_init_attr_ex::zeroed();
            (attributes.cqe, attributes.comp_vector) = (entries, vector);
            (attributes.cq_context, attributes.channel) = (cookie, raw_channel);
            attributes.wc_flags = sys::IBV_WC_STANDARD_FLAGS | fields.bits();
            if is_of_one_thread {
                attributes.comp_mask = sys::IBV_CQ_INIT_ATTR_MASK_FLAGS;
                attributes.flags = sys::IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
            }
            extended(context, &mut attributes)
                .map(|extended| (extended.cast::<sys::ibv_cq>(), Some(extended)))
        };
        let (cq, extended) = match made {
            Ok(made) => made,
            Err(error) => {
                if let Some(subscription) = subscription {
                    subscription.discard();
                }
                return Err(error);
            }
        };
        // SAFETY: just made; the field is written by nobody else yet.
        let given = u32::try_from(unsafe { (*cq.as_ptr()).cqe }).unwrap_or(entries).max(entries);
        let entries = AtomicU32::new(given);
        let context = context.clone();
        let made = Made {
            context,
            cq,
            extended,
            fields,
            subscription,
            entries,
            reserved: Mutex::new(0),
            failed: AtomicI32::new(0),
        };
        Ok(CompletionQueue { shared: Arc::new(made) })
    }
}

/// Makes an extended queue. The channel that the attributes name is held by the caller's subscription.
fn extended(context: &Context, attributes: &mut sys::ibv_cq_init_attr_ex) -> Result<NonNull<sys::ibv_cq_ex>> {
    // SAFETY: the context is open, the channel is alive.
    let cq = unsafe { sys::ibv_create_cq_ex(context.as_raw(), attributes) };
    cq.and_then(|cq| NonNull::new(cq).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| match errno.0 {
        libc::EOPNOTSUPP | libc::ENOSYS => Error::Unsupported {
            what: "telling timestamps of completions, or doing without locks (extended completion queues)",
            object: context.name().to_owned(),
        },
        number => {
            let object = format_args!("{} entries in {}", attributes.cqe, context.name());
            Error::call("ibv_create_cq_ex", object, number)
        }
    })
}

/// The completion that is looked at, as the legacy call would have written it.
///
/// # Safety
/// A poll of the queue is under way and stands at a completion; the queue was made with the standard fields.
unsafe fn read(cq: *mut sys::ibv_cq_ex) -> sys::ibv_wc {
    // SAFETY: by the promise to this function; what a driver does not tell is zero.
    unsafe {
        let mut wc = sys::ibv_wc::zeroed();
        wc.wr_id = (*cq).wr_id;
        wc.status = (*cq).status;
        wc.qp_num = sys::ibv_wc_read_qp_num(cq).unwrap_or(0);
        if wc.status.0 != 0 {
            wc.vendor_err = sys::ibv_wc_read_vendor_err(cq).unwrap_or(0);
            return wc;
        }
        wc.opcode = sys::ibv_wc_read_opcode(cq).unwrap_or(wc.opcode);
        wc.wc_flags = sys::ibv_wc_read_wc_flags(cq).unwrap_or(0);
        wc.byte_len = sys::ibv_wc_read_byte_len(cq).unwrap_or(0);
        if wc.wc_flags & (sys::IBV_WC_WITH_IMM | sys::IBV_WC_WITH_INV) != 0 {
            wc.imm_data = sys::ibv_wc_read_imm_data(cq).unwrap_or(0);
        }
        wc.src_qp = sys::ibv_wc_read_src_qp(cq).unwrap_or(0);
        wc.slid = sys::ibv_wc_read_slid(cq).unwrap_or(0) as u16;
        wc.sl = sys::ibv_wc_read_sl(cq).unwrap_or(0);
        wc.dlid_path_bits = sys::ibv_wc_read_dlid_path_bits(cq).unwrap_or(0);
        wc
    }
}

impl CompletionQueue {
    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// How many completions it holds.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.shared.entries.load(Ordering::Relaxed)
    }

    /// What completions tell besides.
    #[must_use]
    #[inline]
    pub fn fields(&self) -> Fields {
        self.shared.fields
    }

    /// Whether two handles are of one queue.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What asynchronous events call it.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId::of(self.as_raw())
    }

    /// The raw queue; it stays as long as a handle is there.
    #[must_use]
    #[inline]
    pub fn as_raw(&self) -> *mut sys::ibv_cq {
        self.shared.cq.as_ptr()
    }

    /// The raw extended queue, where it was made as one.
    #[must_use]
    pub fn as_raw_extended(&self) -> Option<*mut sys::ibv_cq_ex> {
        self.shared.extended.map(NonNull::as_ptr)
    }

    /// A poller with room for `batch` completions at once (at least 1, at most what the queue holds now). It does not allocate when it polls.
    #[must_use]
    pub fn poller(&self, batch: usize) -> Poller {
        Poller::new(self.clone(), batch)
    }

    /// Reads up to as many completions as there is room, and says how many there were. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed: what is outstanding is still the device's.
    #[doc(alias = "ibv_poll_cq")]
    #[inline]
    pub fn poll_into(&self, into: &mut [WorkCompletion]) -> Result<usize> {
        if self.shared.extended.is_some() {
            return self.poll_extended(into, &mut []);
        }
        self.poll_legacy(into).ok_or_else(|| *self.failed())
    }

    /// Why a legacy poll failed.
    #[cold]
    pub(crate) fn failed(&self) -> Box<Error> {
        Box::new(self.poll_failed(sys::Errno::UNKNOWN))
    }

    /// Whether it is polled as an extended queue.
    #[inline]
    pub(crate) fn is_extended(&self) -> bool {
        self.shared.extended.is_some()
    }

    /// [`poll_into`](Self::poll_into) of a queue that is not extended; nothing when the device failed.
    #[inline(always)]
    pub(crate) fn poll_legacy(&self, into: &mut [WorkCompletion]) -> Option<usize> {
        let room = i32::try_from(into.len()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive; a `WorkCompletion` is an `ibv_wc`, and there is room for as many; the context was looked at when it
        // was opened.
        let count = unsafe { sys::ibv_poll_cq_unchecked(self.as_raw(), room, into.as_mut_ptr().cast()) };
        usize::try_from(count).ok().filter(|count| *count <= into.len())
    }

    #[cold]
    fn poll_failed(&self, errno: sys::Errno) -> Error {
        Error::call("ibv_poll_cq", self.context().name(), errno.0)
    }

    /// The same for an extended queue, with the time of each completion as far as there is room in `stamps`. The queue's lock is taken
    /// and given back in here, and nothing of the caller's runs between.
    pub(super) fn poll_extended(&self, into: &mut [WorkCompletion], stamps: &mut [u64]) -> Result<usize> {
        let Some(cq) = self.shared.extended.filter(|_| !into.is_empty()) else {
            return Ok(0);
        };
        if let number @ 1.. = self.shared.failed.swap(0, Ordering::Relaxed) {
            return Err(self.poll_failed(sys::Errno(number)));
        }
        let cq = cq.as_ptr();
        let read_stamp = if self.fields().contains(Fields::WALL_CLOCK) {
            sys::ibv_wc_read_completion_wallclock_ns
        } else {
            sys::ibv_wc_read_completion_ts
        };
        // SAFETY: the queue is alive.
        match unsafe { sys::ibv_start_poll(cq) } {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(errno) => return Err(self.poll_failed(errno)),
        }
        let mut count = 0;
        let end = loop {
            // SAFETY: between a poll that was started and its end, so a completion is looked at.
            into[count] = WorkCompletion::from_raw(unsafe { read(cq) });
            if let Some(stamp) = stamps.get_mut(count) {
                // SAFETY: the same; the queue was made with the field that is read, and a driver without it answers nothing.
                *stamp = unsafe { read_stamp(cq) }.unwrap_or(0);
            }
            count += 1;
            if count == into.len() {
                break Ok(());
            }
            // SAFETY: a poll was started.
            match unsafe { sys::ibv_next_poll(cq) } {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(errno) => break Err(errno),
            }
        };
        // SAFETY: a poll was started, and is ended once.
        let ended = unsafe { sys::ibv_end_poll(cq) };
        if let Err(errno) = end.and(ended) {
            // What was read before the device failed is told now, the failure by the next poll.
            self.shared.failed.store(errno.0, Ordering::Relaxed);
        }
        Ok(count)
    }

    /// Asks for an event with the next completion, or the next one that its sender marked as solicited (or that failed). What
    /// completed before raises none: poll once more after arming, then wait.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a channel; [`Error::Call`] from the device.
    #[doc(alias = "ibv_req_notify_cq")]
    pub fn arm(&self, solicited_only: bool) -> Result<()> {
        if self.shared.subscription.is_none() {
            return Err(Error::invalid(
                "completion queue",
                "it was made without a channel",
                "make it with `channel` to arm it",
            ));
        }
        // SAFETY: the queue is alive.
        unsafe { sys::ibv_req_notify_cq(self.as_raw(), solicited_only) }
            .map_err(|errno| Error::call("ibv_req_notify_cq", self.context().name(), errno.0))
    }

    /// Makes it longer or shorter, but not shorter than what queue pairs have reserved. The device may give more.
    ///
    /// # Errors
    /// [`Error::Invalid`] below what is reserved; [`Error::Unsupported`] where the device cannot; [`Error::Call`] otherwise.
    #[doc(alias = "ibv_resize_cq")]
    pub fn resize(&self, entries: u32) -> Result<()> {
        // Held over the call: nobody reserves meanwhile what is taken away.
        let reserved = self.shared.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let cqe = i32::try_from(entries)
            .ok()
            .filter(|_| entries > 0 && u64::from(entries) >= *reserved)
            .ok_or_else(|| {
                Error::invalid(
                    "size of a completion queue",
                    format!("{entries} entries; its queue pairs need {reserved}"),
                    "take at least that many, at least 1 and at most 2147483647",
                )
            })?;
        // SAFETY: the queue is alive.
        let answer = unsafe { (self.context().table().ibv_resize_cq)(self.as_raw(), cqe) };
        let object = format_args!("{entries} entries in {}", self.context().name());
        sys::Errno::check(answer).map_err(|errno| Error::call("ibv_resize_cq", object, errno.0))?;
        // SAFETY: the library writes the field in the call that has returned.
        let given = u32::try_from(unsafe { (*self.as_raw()).cqe }).unwrap_or(entries);
        self.shared.entries.store(given.max(entries), Ordering::Relaxed);
        Ok(())
    }

    /// Raises events after `count` completions or `period_us` microseconds, whichever is first.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device cannot.
    #[doc(alias = "ibv_modify_cq")]
    pub fn moderate(&self, count: u16, period_us: u16) -> Result<()> {
        let moderate = sys::ibv_moderate_cq { cq_count: count, cq_period: period_us };
        let mut attributes = sys::ibv_modify_cq_attr { attr_mask: sys::IBV_CQ_ATTR_MODERATE, moderate };
        // SAFETY: the queue is alive, the attributes are a local.
        unsafe { sys::ibv_modify_cq(self.as_raw(), &mut attributes) }
            .map_err(|errno| Error::call("ibv_modify_cq", self.context().name(), errno.0))
    }

    /// Takes entries for a queue pair's requests.
    pub(crate) fn reserve(&self, entries: u32) -> Result<Reservation> {
        let mut reserved = self.shared.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = *reserved + u64::from(entries);
        if wanted > u64::from(self.entries()) {
            return Err(Error::invalid(
                "completion queue",
                format!(
                    "a queue pair needs {entries} entries; of {} others have {}",
                    self.entries(),
                    *reserved
                ),
                "make the completion queue longer (`resize`), or the queue pair shallower",
            ));
        }
        *reserved = wanted;
        drop(reserved);
        Ok(Reservation { queue: self.clone(), entries })
    }
}

/// Entries that a queue pair has taken; given back when it is dropped. Holds the queue.
#[derive(Debug)]
pub(crate) struct Reservation {
    queue: CompletionQueue,
    entries: u32,
}

impl Reservation {
    pub(crate) const fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    pub(crate) const fn entries(&self) -> u32 {
        self.entries
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.queue.shared.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved -= u64::from(self.entries);
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompletionQueue({} entries in {})", self.entries(), self.context().name())
    }
}
