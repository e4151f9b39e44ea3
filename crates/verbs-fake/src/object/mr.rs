//! Memory regions.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::mapped::Mapped;
use crate::object::handle::{Entered, enter, find, hand_out, number, pointer};
use crate::options::DeviceOptions;
use crate::world::{Key, Memory, Mr, Pointer, State};
use core::ffi::{c_int, c_uint, c_void};
use sinew_verbs_sys as sys;

/// Access bits that the device knows, besides those that it may ignore.
const KNOWN: u32 = sys::IBV_ACCESS_LOCAL_WRITE
    | sys::IBV_ACCESS_REMOTE_WRITE
    | sys::IBV_ACCESS_REMOTE_READ
    | sys::IBV_ACCESS_REMOTE_ATOMIC
    | sys::IBV_ACCESS_MW_BIND
    | sys::IBV_ACCESS_ZERO_BASED
    | sys::IBV_ACCESS_HUGETLB
    | sys::IBV_ACCESS_ON_DEMAND
    | sys::IBV_ACCESS_OPTIONAL_RANGE;

/// What is registered.
pub(crate) struct Wanted {
    pub(crate) memory: Memory,
    pub(crate) addr: *mut c_void,
    pub(crate) len: usize,
    pub(crate) iova: u64,
    pub(crate) access: u32,
}

fn check_access(options: &DeviceOptions, access: u32) -> Result<(), c_int> {
    let remote_writes = sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_REMOTE_ATOMIC;
    if access & sys::IBV_ACCESS_ON_DEMAND != 0 && !options.on_demand {
        return Err(libc::EOPNOTSUPP);
    }
    let needs_local = access & remote_writes != 0 && access & sys::IBV_ACCESS_LOCAL_WRITE == 0;
    if access & !KNOWN != 0 || needs_local { Err(libc::EINVAL) } else { Ok(()) }
}

/// Makes a region in a domain.
pub(crate) fn register(
    entered: &mut Entered,
    pd: *mut sys::ibv_pd,
    wanted: &Wanted,
) -> Result<*mut sys::ibv_mr, c_int> {
    let Entered { world, state, id: pd_id } = entered;
    let context = state.context_of_pd(*pd_id)?;
    let options = &state.device_of(context)?.options;
    check_access(options, wanted.access)?;
    if wanted.len as u64 > options.max_mr_size {
        return Err(libc::EINVAL);
    }
    if state.mrs.len() >= options.max_mr as usize {
        return Err(libc::ENOMEM);
    }
    let zero_based = wanted.access & sys::IBV_ACCESS_ZERO_BASED != 0;
    let iova = if zero_based { 0 } else { wanted.iova };
    let (id, key) = (state.next_id(), state.next_key());
    let mr =
        Mr { pd: *pd_id, memory: wanted.memory, iova, len: wanted.len as u64, access: wanted.access, key };
    state.mrs.insert(id, mr);
    state.keys.insert(key, Key::Region(id));
    let object = sys::ibv_mr {
        context: state.pointer(context),
        pd,
        addr: wanted.addr,
        length: wanted.len,
        handle: id,
        lkey: key,
        rkey: key,
    };
    Ok(hand_out(world, state, Kind::MemoryRegion, id, object))
}

pub(crate) unsafe extern "C" fn reg(
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    len: usize,
    access: c_int,
) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise: a domain of this device, and memory that stays while it is registered.
    unsafe { reg_host(Call::RegMr, pd, addr, len, addr.addr() as u64, access.cast_unsigned()) }
}

pub(crate) unsafe extern "C" fn reg_iova(
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    len: usize,
    iova: u64,
    access: c_int,
) -> *mut sys::ibv_mr {
    // SAFETY: as above.
    unsafe { reg_host(Call::RegMrIova, pd, addr, len, iova, access.cast_unsigned()) }
}

pub(crate) unsafe extern "C" fn reg_iova2(
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    len: usize,
    iova: u64,
    access: c_uint,
) -> *mut sys::ibv_mr {
    // SAFETY: as above.
    unsafe { reg_host(Call::RegMrIova, pd, addr, len, iova, access) }
}

/// # Safety
/// A domain of this device, and memory that stays while it is registered.
unsafe fn reg_host(
    call: Call,
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    len: usize,
    iova: u64,
    access: u32,
) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise.
    pointer(unsafe { enter(pd, call) }.and_then(|mut entered| {
        if len == 0 || addr.is_null() || addr.addr().checked_add(len).is_none() {
            return Err(libc::EINVAL);
        }
        let memory = Memory::Host(Pointer(addr.cast()));
        register(&mut entered, pd, &Wanted { memory, addr, len, iova, access })
    }))
}

pub(crate) unsafe extern "C" fn alloc_null(pd: *mut sys::ibv_pd) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise: a domain of this device.
    pointer(unsafe { enter(pd, Call::AllocNullMr) }.and_then(|mut entered| {
        let len = 1 << 30;
        let access = sys::IBV_ACCESS_LOCAL_WRITE;
        let wanted = Wanted { memory: Memory::Null, addr: core::ptr::null_mut(), len, iova: 0, access };
        register(&mut entered, pd, &wanted)
    }))
}

pub(crate) unsafe extern "C" fn reg_dmabuf(
    pd: *mut sys::ibv_pd,
    offset: u64,
    len: usize,
    iova: u64,
    fd: c_int,
    access: c_int,
) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise: a domain of this device.
    pointer(unsafe { enter(pd, Call::RegDmabufMr) }.and_then(|mut entered| {
        let mapped = Mapped::new(fd, offset, len)?;
        let (memory, addr) = (Memory::Mapped(mapped.start()), core::ptr::null_mut());
        let access = access.cast_unsigned();
        let mr = register(&mut entered, pd, &Wanted { memory, addr, len, iova, access })?;
        // SAFETY: just made.
        let id = unsafe { find(mr) }.1;
        entered.state.mappings.insert(id, mapped);
        Ok(mr)
    }))
}

pub(crate) unsafe extern "C" fn dereg(mr: *mut sys::ibv_mr) -> c_int {
    // SAFETY: the caller's promise: a region of this device.
    let entered = unsafe { enter(mr, Call::DeregMr) };
    number(entered.and_then(|mut entered| entered.state.dereg(entered.id)))
}

impl State {
    fn dereg(&mut self, id: u32) -> Result<(), c_int> {
        if self.mws.values().any(|mw| mw.bound.is_some_and(|bound| bound.mr == id)) {
            return Err(libc::EBUSY);
        }
        let key = self.mrs.get(&id).ok_or(libc::EINVAL)?.key;
        self.note_in_flight(id, key);
        self.mrs.remove(&id);
        self.mappings.remove(&id);
        self.keys.remove(&key);
        self.live.remove(&id);
        Ok(())
    }

    fn note_in_flight(&mut self, id: u32, key: u32) {
        let touches: Vec<_> = self.in_flight().into_iter().filter(|touch| touch.key == key).collect();
        if !touches.is_empty() {
            self.faults.push(Fault::DeregisteredInFlight { handle: id, touches });
        }
    }
}

pub(crate) unsafe extern "C" fn rereg(
    mr: *mut sys::ibv_mr,
    flags: c_int,
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    len: usize,
    access: c_int,
) -> c_int {
    let flags = flags.cast_unsigned();
    // SAFETY: the caller's promise: a region of this device.
    let result = unsafe { enter(mr, Call::ReregMr) }.and_then(|mut entered| {
        let (id, state) = (entered.id, &mut entered.state);
        if flags & !sys::IBV_REREG_MR_FLAGS_SUPPORTED != 0 || flags == 0 {
            return Err(libc::EINVAL);
        }
        let (key, pd_id) = state.mrs.get(&id).map(|mr| (mr.key, mr.pd)).ok_or(libc::EINVAL)?;
        if flags & sys::IBV_REREG_MR_CHANGE_ACCESS != 0 {
            let context = state.context_of_pd(pd_id)?;
            check_access(&state.device_of(context)?.options, access.cast_unsigned())?;
        }
        state.note_in_flight(id, key);
        let region = state.mrs.get_mut(&id).ok_or(libc::EINVAL)?;
        if flags & sys::IBV_REREG_MR_CHANGE_TRANSLATION != 0 {
            if len == 0 || addr.is_null() {
                return Err(libc::EINVAL);
            }
            region.memory = Memory::Host(Pointer(addr.cast()));
            (region.iova, region.len) = (addr.addr() as u64, len as u64);
            // SAFETY: as above; nobody else writes the fields of an object meanwhile.
            unsafe { ((*mr).addr, (*mr).length) = (addr, len) };
        }
        if flags & sys::IBV_REREG_MR_CHANGE_PD != 0 {
            // SAFETY: as above: the domain is of this device.
            region.pd = unsafe { find(pd) }.1;
            // SAFETY: as above.
            unsafe { (*mr).pd = pd };
        }
        if flags & sys::IBV_REREG_MR_CHANGE_ACCESS != 0 {
            region.access = access.cast_unsigned();
        }
        Ok(())
    });
    match result {
        Ok(()) => 0,
        Err(errno) => {
            sys::Errno(errno).set();
            sys::IbvReregMrErrCode::INPUT.0
        }
    }
}

pub(crate) unsafe extern "C" fn advise(
    pd: *mut sys::ibv_pd,
    advice: sys::IbvAdviseMrAdvice,
    _flags: u32,
    pieces: *mut sys::ibv_sge,
    count: u32,
) -> c_int {
    // SAFETY: the caller's promise: a domain of this device, and so many pieces.
    number(unsafe { enter(pd, Call::AdviseMr) }.and_then(|entered| {
        // SAFETY: as above.
        let pieces = unsafe { super::post::pieces(pieces, count as usize) };
        let writes = advice == sys::IbvAdviseMrAdvice::PREFETCH_WRITE;
        let known = |piece| entered.state.local(entered.id, piece, writes).is_ok();
        if pieces.iter().all(known) { Ok(()) } else { Err(libc::EFAULT) }
    }))
}
