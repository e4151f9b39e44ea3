//! Where a device is in the machine: the processors near it, and threads kept on them.
//!
//! Memory near it is `Memory::pages_on`. What the system says is read from `/sys`; nothing here speaks to a device.

use super::context::Context;
use crate::error::{Error, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::path::Path;

/// Which processors the calling thread may run on: taken before pinning, applied to undo it. Up to 1024 processors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    set: CpuSet,
}

/// What a thread was pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The device's NUMA node.
    pub node: u32,
    /// The processors of it that the thread was allowed before, and runs on now.
    pub cpus: Affinity,
}

impl Affinity {
    /// That of the calling thread.
    ///
    /// # Errors
    /// [`Error::Call`] on a machine with more than 1024 processors.
    #[doc(alias = "sched_getaffinity")]
    pub fn current() -> Result<Self> {
        let set = sched_getaffinity(None)
            .map_err(|errno| Error::call("sched_getaffinity", "the calling thread", errno.raw_os_error()))?;
        Ok(Self { set })
    }

    /// Makes the calling thread run there; it moves at once. Threads that it starts inherit it, others are not touched.
    ///
    /// # Errors
    /// [`Error::Call`] with `EINVAL` when no processor of it is there or permitted (cpuset).
    #[doc(alias = "sched_setaffinity")]
    pub fn apply(&self) -> Result<()> {
        sched_setaffinity(None, &self.set)
            .map_err(|errno| Error::call("sched_setaffinity", "the calling thread", errno.raw_os_error()))
    }

    /// The processors, by their numbers, in order.
    pub fn cpus(&self) -> impl Iterator<Item = usize> + '_ {
        (0..CpuSet::MAX_CPU).filter(|cpu| self.set.is_set(*cpu))
    }

    /// Those of both.
    fn both(&self, other: &CpuSet) -> Self {
        let mut set = CpuSet::new();
        for cpu in self.cpus().filter(|cpu| other.is_set(*cpu)) {
            set.set(cpu);
        }
        Self { set }
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.cpus()).finish()
    }
}

impl Context {
    /// The NUMA node that the device is plugged into, or nothing where the system does not say (one node, virtual devices).
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        node_of(Path::new("/sys"), self.name())
    }

    /// Makes the calling thread run on the processors of the device's NUMA node that it may run on now. To undo it, take
    /// [`Affinity::current`] before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the system does not say where the device is; [`Error::Invalid`] when the thread may run on none of
    /// the processors there; [`Error::Call`] when the system refuses.
    pub fn pin_thread(&self) -> Result<Pinned> {
        pin(Path::new("/sys"), self.name())
    }

    /// The same where it can be done; nothing, and nothing changed, where it cannot.
    #[must_use]
    pub fn try_pin_thread(&self) -> Option<Pinned> {
        self.pin_thread().ok()
    }
}

fn node_of(sys: &Path, device: &str) -> Option<u32> {
    let text =
        std::fs::read_to_string(sys.join("class/infiniband").join(device).join("device/numa_node")).ok()?;
    // A machine that does not know says -1.
    text.trim().parse().ok()
}

fn pin(sys: &Path, device: &str) -> Result<Pinned> {
    let Some(node) = node_of(sys, device) else {
        return Err(Error::Unsupported {
            what: "saying which NUMA node it is on",
            object: format!("{device} (/sys/class/infiniband/{device}/device/numa_node)"),
        });
    };
    let list = sys.join(format!("devices/system/node/node{node}/cpulist"));
    let text = std::fs::read_to_string(&list)
        .map_err(|error| Error::call("reading", list.display(), error.raw_os_error().unwrap_or(libc::EIO)))?;
    let there = parse_list(&text).ok_or_else(|| {
        Error::invalid(
            "list of processors",
            format!("{text:?} in {}", list.display()),
            "report the kernel's version",
        )
    })?;
    let cpus = Affinity::current()?.both(&there);
    if cpus.cpus().next().is_none() {
        return Err(Error::invalid(
            "processors of the device's NUMA node",
            format!("this thread may run on none of {} (node {node})", text.trim()),
            "permit some of them (taskset, cpuset), or do not pin",
        ));
    }
    cpus.apply()?;
    Ok(Pinned { node, cpus })
}

/// `0-3,8,10-11`, as the kernel writes sets of processors. Those above what a set holds are left out.
fn parse_list(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last {
            return None;
        }
        (first..=last.min(CpuSet::MAX_CPU - 1)).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A `/sys` with one device on one node.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, node: &str, list: &str) -> Self {
            let root = std::env::temp_dir().join(format!("sinew-numa-{}-{name}", std::process::id()));
            let device = root.join("class/infiniband/dev0/device");
            let place = root.join("devices/system/node/node1");
            for folder in [&device, &place] {
                std::fs::create_dir_all(folder).unwrap();
            }
            std::fs::write(device.join("numa_node"), node).unwrap();
            std::fs::write(place.join("cpulist"), list).unwrap();
            Self(root)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn on_own_thread<T: Send>(body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(body).join().unwrap())
    }

    #[test]
    fn a_thread_is_pinned_to_what_it_may_use_of_the_node_and_can_be_freed() {
        let before = Affinity::current().unwrap();
        let first = before.cpus().next().unwrap();
        // The node has one processor that this thread may use, and one that nobody has.
        let fake = Fake::new("pin", "1\n", &format!("{first},{}\n", CpuSet::MAX_CPU + 5));
        on_own_thread(|| {
            let pinned = pin(&fake.0, "dev0").unwrap();
            assert_eq!((pinned.node, pinned.cpus.cpus().collect::<Vec<_>>()), (1, vec![first]));
            assert_eq!(Affinity::current().unwrap(), pinned.cpus);
            before.apply().unwrap();
            assert_eq!(Affinity::current().unwrap(), before);
        });
        assert_eq!(Affinity::current().unwrap(), before, "another thread was touched");
    }

    #[test]
    fn a_device_whose_place_is_unknown_is_an_error_and_changes_nothing() {
        let before = Affinity::current().unwrap();
        let fake = Fake::new("unknown", "-1\n", "0\n");
        on_own_thread(|| {
            assert!(matches!(pin(&fake.0, "dev0"), Err(Error::Unsupported { .. })));
            assert!(pin(&fake.0, "absent").is_err());
            assert_eq!(Affinity::current().unwrap(), before);
        });
    }

    #[test]
    fn a_node_without_permitted_processors_is_an_error_that_says_so() {
        let before = Affinity::current().unwrap();
        let fake = Fake::new("empty", "1\n", "\n");
        let error = on_own_thread(|| pin(&fake.0, "dev0")).unwrap_err().to_string();
        assert!(error.contains("none of"), "{error}");
        assert_eq!(Affinity::current().unwrap(), before);
    }

    #[test]
    fn lists_of_processors_are_read_as_the_kernel_writes_them() {
        let cpus = |text| parse_list(text).map(|set| Affinity { set }.cpus().collect::<Vec<_>>());
        assert_eq!(cpus("0-2,8,10-11\n"), Some(vec![0, 1, 2, 8, 10, 11]));
        assert_eq!(cpus("\n"), Some(vec![]));
        assert_eq!(cpus("3-1"), None);
        assert_eq!(cpus("x"), None);
    }
}
