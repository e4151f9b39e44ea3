//! The program in C: compiled with each folder of headers, loaded, and run against a library.
#![allow(unsafe_code)]

use sinew_verbs::memory::Memory;
use sinew_verbs_sys as sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::hash::{Hash as _, Hasher as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes that both sides use.
const LEN: usize = 64 << 10;

/// As `struct setup` in recorded.h.
#[repr(C)]
pub(crate) struct Setup {
    memory: *mut u8,
    length: usize,
    descriptor: c_int,
    planted: c_int,
}

impl Setup {
    /// A part of the buffer. Nobody else uses it while the value lives: scenarios take disjoint parts, or one after the other.
    pub(crate) fn memory(&self, offset: usize, len: usize) -> Memory {
        assert!(offset + len <= self.length);
        let start = NonNull::new(self.memory.wrapping_add(offset)).expect("an address inside of the buffer");
        // SAFETY: inside of the buffer, which outlives the scenario.
        unsafe { Memory::from_raw(start, len, Box::new(())) }.expect("it has bytes")
    }

    /// The first bytes of the buffer, which outlives the scenario. Others than this scenario do not use them meanwhile.
    pub(crate) fn bytes(&self, len: usize) -> NonNull<[u8]> {
        assert!(len <= self.length);
        NonNull::slice_from_raw_parts(NonNull::new(self.memory).expect("a buffer"), len)
    }

    /// What stands for a DMA-BUF.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the buffer holds the descriptor.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }
}

/// The buffer and the descriptor: at the same place, and of the same number, for both sides.
pub(crate) struct Buffer {
    start: *mut u8,
}

/// One buffer for all scenarios, which run one after the other: a recording excludes the others.
struct Shared {
    start: usize,
    descriptor: OwnedFd,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let layout = std::alloc::Layout::from_size_align(LEN, 4096).expect("a layout");
        // SAFETY: the layout has a size; the memory is never freed.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!start.is_null(), "no memory");
        // SAFETY: the name is a text; a new descriptor belongs to nobody else.
        let descriptor = unsafe {
            let descriptor = libc::memfd_create(c"dmabuf".as_ptr(), libc::MFD_CLOEXEC);
            assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
            assert_eq!(libc::ftruncate(descriptor, LEN as libc::off_t), 0);
            OwnedFd::from_raw_fd(descriptor)
        };
        Shared { start: start.expose_provenance(), descriptor }
    })
}

impl Buffer {
    /// The buffer with the bytes that every scenario begins with. The caller holds a recording.
    pub(crate) fn new() -> Self {
        let start: *mut u8 = std::ptr::with_exposed_provenance_mut(shared().start);
        for at in 0..LEN {
            // SAFETY: inside of the buffer, which nobody else uses: recordings exclude each other.
            unsafe { start.add(at).write((at % 251) as u8) };
        }
        Self { start }
    }

    pub(crate) fn range(&self) -> std::ops::Range<*const u8> {
        let start = self.start.cast_const();
        start..start.wrapping_add(LEN)
    }

    pub(crate) fn setup(&self, planted: c_int) -> Setup {
        Setup { memory: self.start, length: LEN, descriptor: shared().descriptor.as_raw_fd(), planted }
    }
}

/// The program, loaded.
pub(crate) struct Program {
    /// The headers that it was compiled with.
    pub(crate) include: PathBuf,
    handle: *mut c_void,
}

// SAFETY: a loaded file, which is never unloaded; its one variable is written before every run, under a lock.
unsafe impl Send for Program {}
// SAFETY: the same.
unsafe impl Sync for Program {}

/// The library that the program's functions lead to while it runs.
static CURRENT: Mutex<Option<sys::Library>> = Mutex::new(None);

/// What the program looks functions up by.
unsafe extern "C" fn find(name: *const c_char) -> *const c_void {
    // SAFETY: the program's own texts.
    let name = unsafe { CStr::from_ptr(name) }.to_str().expect("names are ASCII");
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let library = current.as_ref().expect("a run is under way");
    let of_efa = || library.efa().map_or(std::ptr::null(), |efa| efa.function(name));
    let found = library.verbs().function(name);
    let found = if found.is_null() { of_efa() } else { found };
    if found.is_null() {
        // A program in C would not have started.
        eprintln!("{name}: no such function in the table");
        std::process::abort();
    }
    found
}

impl Program {
    fn load(file: &Path, include: PathBuf) -> Self {
        let name = CString::new(file.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: a file of ours, that does nothing when it is loaded.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{} was compiled and cannot be loaded", file.display());
        Self { include, handle }
    }

    fn symbol(&self, name: &str) -> *mut c_void {
        let text = CString::new(name).expect("a name");
        // SAFETY: the file is loaded.
        let symbol = unsafe { libc::dlsym(self.handle, text.as_ptr()) };
        assert!(!symbol.is_null(), "the program has no {name}");
        symbol
    }

    /// What its last run of `attributes` told.
    pub(crate) fn told(&self) -> [u64; 18] {
        // SAFETY: such an array; one test alone runs the scenario that writes it, and reads it after.
        unsafe { self.symbol("told").cast::<[u64; 18]>().read_unaligned() }
    }

    /// Runs a scenario; 0, or the line of the check that failed. The caller holds a recording, so one runs at a time.
    pub(crate) fn run(&self, scenario: &str, library: sys::Library, setup: &Setup) -> i32 {
        type Find = unsafe extern "C" fn(*const c_char) -> *const c_void;
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(library);
        // SAFETY: functions of recorded.h and forward.c with these types, which keep nothing of the setup.
        let answer = unsafe {
            let bind: unsafe extern "C" fn(Find) = std::mem::transmute(self.symbol("recorded_bind"));
            let run: unsafe extern "C" fn(*const Setup) -> c_int = std::mem::transmute(self.symbol(scenario));
            bind(find);
            run(setup)
        };
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = None;
        answer
    }
}

/// The program with each folder of headers that there is, or why there is none.
pub(crate) fn programs() -> Result<&'static [Program], &'static String> {
    static PROGRAMS: OnceLock<Result<Vec<Program>, String>> = OnceLock::new();
    let compile_all = || {
        let installed = Path::new("/usr/include");
        if !has_headers(installed) {
            return Err("libibverbs-dev is not installed: no /usr/include/infiniband/efadv.h".to_owned());
        }
        // Where `cargo xtask test` unpacks headers of newer suites.
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("the scratch folder lies in the target folder");
        let newer =
            ["trixie", "sid"].map(|suite| scratch.join("verbs-headers").join(suite).join("usr/include"));
        let folders = std::iter::once(installed.to_owned()).chain(newer).filter(|folder| has_headers(folder));
        folders.map(|include| Ok(Program::load(&compile(&include)?, include))).collect()
    };
    PROGRAMS.get_or_init(compile_all).as_ref().map(Vec::as_slice)
}

fn has_headers(include: &Path) -> bool {
    include.join("infiniband/efadv.h").is_file()
}

/// Compiles it, unless the same was compiled with the same headers before: tests may run in a process each.
fn compile(include: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/program");
    let entries = std::fs::read_dir(&source).expect("the program's folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut hasher = std::hash::DefaultHasher::new();
    let headers = ["infiniband/verbs.h", "infiniband/efadv.h"].map(|header| include.join(header));
    for file in files.iter().chain(&headers) {
        std::fs::read(file).expect("a source").hash(&mut hasher);
    }
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = scratch.join(format!("recorded-{:016x}.so", hasher.finish()));
    if program.is_file() {
        return Ok(program);
    }
    let own = scratch.join(format!("recorded-{:016x}-{}.so", hasher.finish(), std::process::id()));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    assert!(files.len() >= 6, "only {files:?}");
    let mut cc = Command::new("cc");
    cc.env("LC_ALL", "C")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"])
        .arg(include);
    // Its own functions, also where libibverbs is loaded; and none that it does not have.
    cc.args(["-Wl,-Bsymbolic", "-Wl,-z,defs", "-o"]).arg(&own).args(&files);
    let output = cc.output().map_err(|error| format!("no C compiler: {error}"))?;
    assert!(output.status.success(), "{}:\n{}", include.display(), String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&own, &program).expect("both lie in the scratch folder");
    Ok(program)
}
