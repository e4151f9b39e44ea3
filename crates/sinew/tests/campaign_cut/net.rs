//! Hosts of a network of the test's own: a network namespace each, with interfaces that end in a descriptor of this process.
//!
//! A host is a thread that has left the machine's network (`unshare`); processes that it starts have its network, too. An
//! interface (`/dev/net/tun`) hands each packet to its descriptor, where [`crate::wire`] takes it. All is gone when the host
//! and its processes are, also when this process is killed. Needs the right to make namespaces, as root has.
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, OwnedFd};
use std::fs::OpenOptions;
use std::io::Error;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A machine of its own, as far as the network goes.
pub(crate) struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// A host with one interface for each address, and their descriptors. The networks are of 24 bits.
    ///
    /// # Errors
    /// What the system refuses, for people.
    pub(crate) fn new(addresses: &[Ipv4Addr], mtu: u16) -> Result<(Self, Vec<OwnedFd>), String> {
        let (jobs, queue) = channel::<Job>();
        let (say, said) = channel();
        let addresses = addresses.to_vec();
        let thread = std::thread::spawn(move || {
            let made = set_up(&addresses, mtu);
            let went = made.is_ok();
            if say.send(made).is_ok() && went {
                queue.iter().for_each(|job| job());
            }
        });
        let taps = said.recv().map_err(|_| "its thread has ended".to_owned())??;
        Ok((Self { jobs: Some(jobs), thread: Some(thread) }, taps))
    }

    /// Runs `job` there.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (say, said) = channel();
        let job: Job = Box::new(move || {
            let _ = say.send(job());
        });
        self.jobs.as_ref().expect("until it is dropped").send(job).expect("it runs");
        said.recv().expect("an answer")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn set_up(addresses: &[Ipv4Addr], mtu: u16) -> Result<Vec<OwnedFd>, String> {
    // SAFETY: changes this thread alone, which nobody else relies on.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!("a network namespace is refused: {}", Error::last_os_error()));
    }
    let control = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(|errno| format!("a socket is refused: {errno}"))?;
    up(&control, "lo")?;
    let tap = |(number, address): (usize, &Ipv4Addr)| {
        let name = format!("sinew{number}");
        let fd = interface(&name)?;
        configure(&control, &name, *address, mtu)?;
        Ok(fd)
    };
    addresses.iter().enumerate().map(tap).collect()
}

/// A request about an interface.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: plain integers, for which all zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ask(fd: &impl AsRawFd, code: libc::c_ulong, request: &mut libc::ifreq, what: &str) -> Result<(), String> {
    // SAFETY: the requests of this file take a pointer to an `ifreq`, which is live and of their kind.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), code as _, std::ptr::from_mut(request)) };
    if rc < 0 { Err(format!("{what} is refused: {}", Error::last_os_error())) } else { Ok(()) }
}

/// A new interface, and where its packets come out.
fn interface(name: &str) -> Result<OwnedFd, String> {
    /// `_IOW('T', 202, int)`.
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| format!("/dev/net/tun: {error}"))?;
    let mut wish = request(name);
    wish.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    ask(&file, TUNSETIFF, &mut wish, "an interface")?;
    let fd = OwnedFd::from(file);
    rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| format!("non-blocking: {errno}"))?;
    Ok(fd)
}

fn configure(control: &OwnedFd, name: &str, address: Ipv4Addr, mtu: u16) -> Result<(), String> {
    let inet = |address: Ipv4Addr| {
        // SAFETY: plain integers, for which all zeros are valid.
        let mut place: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        place.sin_family = libc::AF_INET as libc::sa_family_t;
        place.sin_addr.s_addr = u32::from(address).to_be();
        // SAFETY: both are address structures of 16 bytes of plain integers.
        unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(place) }
    };
    let mut wish = request(name);
    wish.ifr_ifru.ifru_addr = inet(address);
    ask(control, libc::SIOCSIFADDR, &mut wish, "an address")?;
    wish.ifr_ifru.ifru_netmask = inet(Ipv4Addr::new(255, 255, 255, 0));
    ask(control, libc::SIOCSIFNETMASK, &mut wish, "a network mask")?;
    wish.ifr_ifru.ifru_mtu = i32::from(mtu);
    ask(control, libc::SIOCSIFMTU, &mut wish, "a packet size")?;
    up(control, name)
}

fn up(control: &OwnedFd, name: &str) -> Result<(), String> {
    let mut wish = request(name);
    wish.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    ask(control, libc::SIOCSIFFLAGS, &mut wish, "switching an interface on")
}
