//! Which pages and which node shared memory gets: what the machine has, by its `/sys`, and asking for it.
//!
//! Called where memory is made. Nothing here is needed for memory to work: whatever is refused, ordinary pages of the node of
//! the thread that touches them do.
#![allow(unsafe_code)]

use crate::options::{HugePages, Numa};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Bytes of a huge page, as x86-64 and most others have it beside 4 KiB.
pub(crate) const HUGE: usize = 2 << 20;
/// Nodes that a mask has bits for.
const NODES_MAX: usize = 1024;
/// `mbind`: this node if it has room, else the nearest.
const MPOL_PREFERRED: libc::c_ulong = 1;

/// When the kernel gives shared memory huge pages by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transparent {
    /// Whenever there are some.
    Always,
    /// Where it is told to.
    Advise,
    /// Never.
    Never,
}

/// What the machine has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Machine {
    root: PathBuf,
    /// Nodes with memory, by number. At least one.
    nodes: Vec<usize>,
}

impl Machine {
    /// This one, read once.
    pub(crate) fn this() -> &'static Self {
        static THIS: OnceLock<Machine> = OnceLock::new();
        THIS.get_or_init(|| Self::read(Path::new("/sys")))
    }

    /// The machine that a tree like `/sys` describes. What it does not say is as on a machine of one node without huge pages.
    pub(crate) fn read(root: &Path) -> Self {
        let node = root.join("devices/system/node");
        let listed = |name: &str| text(&node.join(name)).map(|list| numbers(&list));
        let mut nodes = listed("has_memory").or_else(|| listed("online")).unwrap_or_default();
        nodes.retain(|&node| node < NODES_MAX);
        if nodes.is_empty() {
            nodes.push(0);
        }
        Self { root: root.to_owned(), nodes }
    }

    /// Huge pages that are reserved and free.
    fn free_huge_pages(&self) -> usize {
        let pool = self.root.join("kernel/mm/hugepages/hugepages-2048kB");
        let number = |name: &str| text(&pool.join(name)).and_then(|text| text.parse::<usize>().ok());
        number("free_hugepages").unwrap_or(0).saturating_sub(number("resv_hugepages").unwrap_or(0))
    }

    fn transparent(&self) -> Transparent {
        let mode = text(&self.root.join("kernel/mm/transparent_hugepage/shmem_enabled")).unwrap_or_default();
        let chosen = mode.split('[').nth(1).and_then(|rest| rest.split(']').next());
        match chosen {
            Some("always" | "within_size" | "force") => Transparent::Always,
            Some("advise") => Transparent::Advise,
            _ => Transparent::Never,
        }
    }

    /// The node of a processor, if there is a choice of nodes.
    fn node_of(&self, cpu: usize) -> Option<usize> {
        let has = |node: &usize| {
            let list = self.root.join(format!("devices/system/node/node{node}/cpulist"));
            text(&list).is_some_and(|list| numbers(&list).contains(&cpu))
        };
        self.nodes.iter().copied().find(has).filter(|_| self.nodes.len() > 1)
    }

    /// The node that memory made by a thread on `cpu` is asked for; `None`: whichever the kernel gives.
    pub(crate) fn node(&self, option: Numa, cpu: usize) -> Option<usize> {
        match option {
            Numa::Off => None,
            Numa::Auto => self.node_of(cpu),
            Numa::Node(node) => Some(node).filter(|_| self.nodes.len() > 1),
        }
    }

    /// Whether there is such a node, or why not.
    pub(crate) fn check(&self, option: Numa) -> Result<(), String> {
        match option {
            Numa::Node(node) if !self.nodes.contains(&node) => {
                Err(format!("numa = {node}: this machine has the nodes {:?}", self.nodes))
            }
            _ => Ok(()),
        }
    }

    /// Which pages to try for memory of `len` bytes.
    pub(crate) fn plan(&self, option: HugePages, len: usize) -> Plan {
        let few = |why: &str| Plan { reserved: false, transparent: Transparent::Never, why: why.to_owned() };
        if option == HugePages::Off {
            return few("switched off (shm_huge_pages)");
        }
        if len < HUGE {
            return few("shorter than a huge page");
        }
        let (free, transparent) = (self.free_huge_pages(), self.transparent());
        let reserved = len.is_multiple_of(HUGE) && free >= len / HUGE;
        let why = match (free, transparent) {
            (0, Transparent::Never) => "no huge page is reserved (vm.nr_hugepages), and shmem_enabled of transparent_hugepage is never".to_owned(),
            (free, Transparent::Never) => format!("{free} huge pages are free, {} are needed", len.div_ceil(HUGE)),
            _ => String::new(),
        };
        Plan { reserved, transparent, why }
    }
}

/// Which pages to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Those that are reserved.
    pub(crate) reserved: bool,
    /// Those that the kernel makes.
    pub(crate) transparent: Transparent,
    /// Why neither; empty if one is tried.
    pub(crate) why: String,
}

/// Asks for the memory's pages on a node before they are made. `false`: the system does not do such things.
///
/// # Safety
/// `at` is the first byte of a mapping of `len` bytes that is the caller's.
pub(crate) unsafe fn prefer(at: NonNull<u8>, len: usize, node: usize) -> bool {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask = [0 as libc::c_ulong; NODES_MAX / BITS];
    let Some(word) = mask.get_mut(node / BITS) else { return false };
    *word = 1 << (node % BITS);
    // SAFETY: the range is mapped, says the caller; the mask has as many bits as are said, the kernel counts one more.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            at.as_ptr(),
            len,
            MPOL_PREFERRED,
            mask.as_ptr(),
            NODES_MAX as libc::c_ulong + 1,
            0 as libc::c_ulong,
        )
    };
    answer == 0
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The numbers of a list as `0-3,8`.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?.min(1 << 16))
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up `/sys`.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("sinew-sys-{name}-{}", std::process::id()));
            for (file, content) in files {
                let path = root.join(file);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(path, content).expect("written");
            }
            Self(root)
        }

        fn machine(&self) -> Machine {
            Machine::read(&self.0)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const POOL: &str = "kernel/mm/hugepages/hugepages-2048kB";
    const SHMEM: &str = "kernel/mm/transparent_hugepage/shmem_enabled";

    #[test]
    fn memory_goes_to_the_node_of_its_maker_where_there_are_several() {
        let node = "devices/system/node";
        let tree = Tree::new(
            "nodes",
            &[
                (&format!("{node}/online"), "0-2\n"),
                (&format!("{node}/has_memory"), "0,2\n"),
                (&format!("{node}/node0/cpulist"), "0-3,8-11\n"),
                (&format!("{node}/node2/cpulist"), "4-7\n"),
            ],
        );
        let machine = tree.machine();
        assert_eq!(machine.node(Numa::Auto, 9), Some(0));
        assert_eq!(machine.node(Numa::Auto, 5), Some(2));
        assert_eq!(machine.node(Numa::Auto, 12), None, "a processor that no node with memory has");
        assert_eq!((machine.node(Numa::Off, 5), machine.node(Numa::Node(0), 5)), (None, Some(0)));
        assert!(machine.check(Numa::Node(2)).is_ok());
        let error = machine.check(Numa::Node(1)).expect_err("a node without memory");
        assert!(error.contains("[0, 2]"), "{error}");
    }

    #[test]
    fn one_node_and_no_word_of_any_are_left_alone() {
        let tree = Tree::new(
            "one",
            &[("devices/system/node/online", "0"), ("devices/system/node/node0/cpulist", "0-1")],
        );
        for machine in [tree.machine(), Machine::read(Path::new("/nowhere"))] {
            assert_eq!((machine.node(Numa::Auto, 0), machine.node(Numa::Node(0), 0)), (None, None));
            assert!(machine.check(Numa::Node(0)).is_ok() && machine.check(Numa::Node(1)).is_err());
        }
    }

    #[test]
    fn huge_pages_are_tried_where_they_are_and_the_reason_is_said_where_not() {
        let files = |free: &'static str, shmem: &'static str| {
            [
                (format!("{POOL}/free_hugepages"), free),
                (format!("{POOL}/resv_hugepages"), "1"),
                (SHMEM.to_owned(), shmem),
            ]
        };
        let plan = |name: &str, free, shmem, len| {
            let files = files(free, shmem);
            let files: Vec<(&str, &str)> =
                files.iter().map(|(file, content)| (&file[..], *content)).collect();
            Tree::new(name, &files).machine().plan(HugePages::Auto, len)
        };
        let never = "always within_size advise [never] deny force";
        let got = plan("reserved", "3\n", never, 2 * HUGE);
        assert!(got.reserved && got.transparent == Transparent::Never, "{got:?}");
        let got = plan("few", "2\n", never, 2 * HUGE);
        assert!(!got.reserved && got.why.contains("1 huge pages are free, 2 are needed"), "{got:?}");
        let got = plan("none", "0\n", never, HUGE);
        assert!(!got.reserved && got.why.contains("nr_hugepages"), "{got:?}");
        let got = plan("advise", "0\n", "always within_size [advise] never deny force", 3 * HUGE);
        assert!(got.transparent == Transparent::Advise && got.why.is_empty(), "{got:?}");
        assert_eq!(plan("always", "0\n", "[always] never", HUGE).transparent, Transparent::Always);
        assert!(plan("short", "9\n", "[always] never", HUGE - 1).why.contains("shorter"));
        let nowhere = Machine::read(Path::new("/nowhere"));
        assert!(nowhere.plan(HugePages::Off, HUGE).why.contains("switched off"));
        assert!(!nowhere.plan(HugePages::Auto, HUGE).reserved);
    }
}
