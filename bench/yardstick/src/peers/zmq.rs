//! ZeroMQ, opened at run time: a stream of small messages from PUSH to PULL over TCP on loopback, the two sides in
//! processes of their own, each pinned with its I/O thread. Default options of the library.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{Read, Write};
use std::process::Stdio;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::raw::pair::{self, Second};
use crate::sample::{self, Sample};

/// How to get it.
pub const REMEDY: &str = "libzmq.so.5 is absent: sinew-bench --setup, or apt-get install libzmq5";
const LIBRARY: &CStr = c"libzmq.so.5";
/// Constants of the library's ABI (zmq.h): socket types, an option.
const PULL: c_int = 7;
const PUSH: c_int = 8;
const LAST_ENDPOINT: c_int = 32;
/// Messages between two looks at the clock.
const BATCH: u64 = 256;

/// What the program is told.
#[derive(Debug, Clone, Args)]
pub struct ZmqArgs {
    /// Bytes of one message, at least 8.
    #[arg(long, default_value_t = 8)]
    pub size: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 0.4)]
    pub seconds: f64,
    /// The two cores, receiver first.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    pub cpus: Vec<usize>,
    /// This process is the sender; the endpoint comes as descriptor 0.
    #[arg(long, hide = true)]
    pub second: bool,
}

/// Declares the functions of the library that are used, with the types that zmq.h gives them, and how to look them up.
macro_rules! library {
    ($($name:ident: $symbol:literal: $type:ty),* $(,)?) => {
        /// The functions of the library that are used.
        #[derive(Clone, Copy)]
        struct Library {
            $($name: $type),*
        }

        impl Library {
            /// Opens the library; it stays open until the process ends.
            fn open() -> Result<Self> {
                // SAFETY: the name ends with a zero; libzmq's constructors ask nothing of the caller.
                let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
                let handle = NonNull::new(handle).context(REMEDY)?;
                Ok(Self {
                    $($name: {
                        let address = symbol(handle, $symbol)?;
                        // SAFETY: the symbol is the function of that name of libzmq's ABI 5, whose C prototype `$type`
                        // repeats; a function pointer has a data pointer's size on every system that has dlsym.
                        unsafe { std::mem::transmute::<*mut c_void, $type>(address.as_ptr()) }
                    }),*
                })
            }
        }
    };
}

library! {
    ctx_new: c"zmq_ctx_new": unsafe extern "C" fn() -> *mut c_void,
    socket: c"zmq_socket": unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    bind: c"zmq_bind": unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    connect: c"zmq_connect": unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    getsockopt: c"zmq_getsockopt": unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, *mut usize) -> c_int,
    send: c"zmq_send": unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int,
    recv: c"zmq_recv": unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> c_int,
    errno: c"zmq_errno": unsafe extern "C" fn() -> c_int,
    strerror: c"zmq_strerror": unsafe extern "C" fn(c_int) -> *const c_char,
}

/// Looks a function up in the open library.
fn symbol(library: NonNull<c_void>, name: &CStr) -> Result<NonNull<c_void>> {
    // SAFETY: the handle is open (and never closed), the name ends with a zero.
    let address = unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) };
    NonNull::new(address).with_context(|| format!("{LIBRARY:?} has no {name:?}"))
}

impl Library {
    /// The error of the last call of this thread.
    fn failure(&self, what: &str) -> anyhow::Error {
        // SAFETY: both take plain numbers; the text is a constant of the library, ending with a zero.
        let text = unsafe { CStr::from_ptr((self.strerror)((self.errno)())) };
        anyhow::anyhow!("{what}: {}", text.to_string_lossy())
    }
}

/// Whether the library can be opened.
pub fn is_present() -> bool {
    Library::open().is_ok()
}

/// A socket in a context of its own; both live until the process ends, which is when the bench is done with them.
struct Socket {
    library: Library,
    handle: NonNull<c_void>,
}

impl Socket {
    fn new(kind: c_int) -> Result<Self> {
        let library = Library::open()?;
        // SAFETY: no arguments; a null context is refused by the next line's check of the socket.
        let context = unsafe { (library.ctx_new)() };
        ensure!(!context.is_null(), library.failure("zmq_ctx_new"));
        // SAFETY: the context is live, the kind is one of zmq.h's.
        let handle = unsafe { (library.socket)(context, kind) };
        let handle = NonNull::new(handle).ok_or_else(|| library.failure("zmq_socket"))?;
        Ok(Self { library, handle })
    }

    /// Binds to a free port of loopback and returns the endpoint.
    fn bind(&mut self) -> Result<String> {
        // SAFETY: the socket is live, the text ends with a zero.
        let code = unsafe { (self.library.bind)(self.handle.as_ptr(), c"tcp://127.0.0.1:*".as_ptr()) };
        ensure!(code == 0, self.library.failure("zmq_bind"));
        let mut text = [0u8; 256];
        let mut len = text.len();
        // SAFETY: `text` has `len` writable bytes; the library writes at most that and stores how many it used.
        let code = unsafe {
            (self.library.getsockopt)(
                self.handle.as_ptr(),
                LAST_ENDPOINT,
                text.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        ensure!(code == 0, self.library.failure("zmq_getsockopt"));
        Ok(CStr::from_bytes_until_nul(&text)?.to_str()?.to_owned())
    }

    fn connect(&mut self, endpoint: &str) -> Result<()> {
        let endpoint = CString::new(endpoint)?;
        // SAFETY: the socket is live, the text ends with a zero.
        let code = unsafe { (self.library.connect)(self.handle.as_ptr(), endpoint.as_ptr()) };
        ensure!(code == 0, self.library.failure("zmq_connect"));
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        // SAFETY: the socket is live and used by this thread alone; the library copies the bytes before it returns.
        let len =
            unsafe { (self.library.send)(self.handle.as_ptr(), message.as_ptr().cast(), message.len(), 0) };
        ensure!(len >= 0, self.library.failure("zmq_send"));
        Ok(())
    }

    /// Receives one message, which must fill `message`.
    fn receive(&mut self, message: &mut [u8]) -> Result<()> {
        // SAFETY: the socket is live and used by this thread alone; at most `message.len()` bytes are written.
        let len = unsafe {
            (self.library.recv)(self.handle.as_ptr(), message.as_mut_ptr().cast(), message.len(), 0)
        };
        if len < 0 {
            return Err(self.library.failure("zmq_recv"));
        }
        ensure!(len as usize == message.len(), "a message of {len} B arrived");
        Ok(())
    }
}

/// Runs either side. Only the first, which receives, returns a result.
pub fn run(args: &ZmqArgs) -> Result<Option<Sample>> {
    ensure!(args.size >= 8, "messages carry their number: at least 8 B");
    pair::pin(args.cpus.get(usize::from(args.second)).copied())?;
    pair::die_with_parent()?;
    if args.second {
        return send_for_ever(args).map(|()| None);
    }
    receive(args).map(Some)
}

fn send_for_ever(args: &ZmqArgs) -> Result<()> {
    let mut endpoint = String::new();
    std::io::stdin().read_to_string(&mut endpoint)?;
    let mut socket = Socket::new(PUSH)?;
    socket.connect(&endpoint)?;
    let mut message = vec![0; args.size];
    for number in 0u64.. {
        message[..8].copy_from_slice(&number.to_le_bytes());
        socket.send(&message)?;
    }
    Ok(())
}

fn receive(args: &ZmqArgs) -> Result<Sample> {
    let mut socket = Socket::new(PULL)?;
    let endpoint = socket.bind()?;
    let (reader, mut writer) = std::io::pipe().context("pipe")?;
    let _second = Second::start(&args.cpus, reader, Stdio::null())?;
    writer.write_all(endpoint.as_bytes())?;
    drop(writer);
    let mut message = vec![0; args.size];
    let mut number = 0u64;
    let mut receive_for = |seconds: f64| -> Result<(u64, Duration)> {
        let (start, before) = (Instant::now(), number);
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            for _ in 0..BATCH {
                socket.receive(&mut message)?;
                if message[..8] != number.to_le_bytes() {
                    bail!("message {number} arrived changed or out of order");
                }
                number += 1;
            }
        }
        Ok((number - before, start.elapsed()))
    };
    receive_for(sample::stream_warm_up(args.seconds).as_secs_f64())?;
    let (messages, elapsed) = receive_for(args.seconds)?;
    Ok(Sample::stream(messages, args.size, elapsed))
}
