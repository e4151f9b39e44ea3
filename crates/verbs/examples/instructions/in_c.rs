//! The side in C: compiled when it is first asked for, loaded, and called with the null device's objects.
//!
//! Nothing of the crate needs a C compiler; this comparison does.

use super::{BATCH, BYTES, Failure, Row};
use sinew_verbs_fake::null::{
    sinew_null_completion_queue, sinew_null_free, sinew_null_new, sinew_null_queue_pair,
};
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

/// `struct plan` of `loop.c`.
#[repr(C)]
struct Plan {
    requests: u64,
    is_write: c_int,
    is_batch: c_int,
    signal_all: c_int,
    is_extended: c_int,
}

/// `struct memory`.
#[repr(C)]
struct Memory {
    bytes: *mut u8,
    length: u32,
    lkey: u32,
}

/// `struct target`.
#[repr(C)]
struct Target {
    addr: u64,
    rkey: u32,
}

type Loop =
    unsafe extern "C" fn(*mut c_void, *mut c_void, *const Plan, *const Memory, *const Target) -> c_int;

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}
const RTLD_NOW: c_int = 2;

fn library() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_extension("loop.so"))
}

/// Compiles `loop.c` beside this program.
pub(crate) fn compile() -> Result<(), Failure> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/instructions/loop.c");
    let run = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"])
        .arg(library()?)
        .arg(source)
        .output()
        .map_err(|error| format!("cc: {error}; apt-get install gcc libc6-dev"))?;
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        return Err(format!("cc {source}: {said}\nThe headers: apt-get install libibverbs-dev").into());
    }
    Ok(())
}

/// Makes the requests.
pub(crate) fn run(row: Row, requests: u64) -> Result<(), Failure> {
    let path = CString::new(library()?.as_os_str().as_bytes())?;
    // SAFETY: a library that was made from our source, and a function of it with this signature.
    let work: Loop = unsafe {
        let library = dlopen(path.as_ptr(), RTLD_NOW);
        if library.is_null() {
            return Err("the loop in C cannot be loaded".into());
        }
        let function = dlsym(library, c"sinew_count_loop".as_ptr());
        if function.is_null() {
            return Err("the library has no loop".into());
        }
        std::mem::transmute::<*mut c_void, Loop>(function)
    };
    let mut bytes = vec![0_u8; BATCH * BYTES];
    let memory: Vec<Memory> = bytes
        .chunks_mut(BYTES)
        .map(|piece| Memory { bytes: piece.as_mut_ptr(), length: BYTES as u32, lkey: 1 })
        .collect();
    let target = Target { addr: 0x1000, rkey: 2 };
    let plan = Plan {
        requests,
        is_write: c_int::from(row.is_write),
        is_batch: c_int::from(row.is_batch),
        signal_all: c_int::from(row.signal_all),
        is_extended: c_int::from(row.is_extended),
    };
    let device = sinew_null_new();
    // SAFETY: the objects of the device, alive until it is freed; the memory has as many pieces as a batch.
    let answer = unsafe {
        let (qp, cq) = (sinew_null_queue_pair(device), sinew_null_completion_queue(device));
        let answer = work(qp.cast(), cq.cast(), &raw const plan, memory.as_ptr(), &raw const target);
        sinew_null_free(device);
        answer
    };
    if answer == 0 { Ok(()) } else { Err("a request of the loop in C failed".into()) }
}
