//! What was found when libraries were opened, to be read by people.
//!
//! Made by `library.rs`, printed by `sinew info` and in errors. It holds plain data and opens nothing.

use crate::table::Symbol;
use std::fmt;
use std::path::PathBuf;

/// With which release of rdma-core a symbol version came.
const RELEASES: [(&str, u32); 24] = [
    ("IBVERBS_1.5", 20),
    ("IBVERBS_1.6", 24),
    ("IBVERBS_1.7", 25),
    ("IBVERBS_1.8", 28),
    ("IBVERBS_1.9", 30),
    ("IBVERBS_1.10", 31),
    ("IBVERBS_1.11", 32),
    ("IBVERBS_1.12", 34),
    ("IBVERBS_1.13", 35),
    ("IBVERBS_1.14", 36),
    ("IBVERBS_1.15", 59),
    ("IBVERBS_1.16", 62),
    ("IBVERBS_1.17", 64),
    ("IBVERBS_1.18", 65),
    ("RDMACM_1.1", 16),
    ("RDMACM_1.2", 23),
    ("RDMACM_1.3", 31),
    ("RDMACM_1.4", 60),
    ("EFA_1.0", 24),
    ("EFA_1.1", 26),
    ("EFA_1.2", 43),
    ("EFA_1.3", 50),
    ("MLX5_1.4", 17),
    ("MLX5_1.8", 22),
];

/// Where a [`Library`](crate::Library) has its functions from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Found when the program ran.
    Opened,
    /// Named by the program as libraries that it needs (feature `link`).
    Linked,
    /// Given by the program itself.
    Table,
}

/// What was found. `Display` is the verdict for people: several lines, without a line break at the end.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where the functions come from.
    pub origin: Origin,
    /// libibverbs, then librdmacm; empty for a table of the program's own.
    pub libraries: Vec<LibraryReport>,
}

/// What was found of one library.
#[derive(Clone, Debug)]
pub struct LibraryReport {
    /// Its usual name, as `libibverbs`.
    pub library: &'static str,
    /// The name or path that was opened.
    pub asked: String,
    /// The file it is, if the system told.
    pub path: Option<PathBuf>,
    /// Why it is not there; `None` when it is.
    pub absent: Option<String>,
    /// What to do when it is not there or too old.
    pub remedy: &'static str,
    /// What its version seems to be.
    pub version: Option<Version>,
    /// Functions that it does not have.
    pub missing: Vec<Missing>,
    /// Functions that were found by name alone: their version is not there, or this system cannot ask for one.
    pub unpinned: Vec<&'static str>,
}

/// A function that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub symbol: Symbol,
    /// The first release of rdma-core that has it, if that is known.
    pub since: Option<u32>,
}

impl LibraryReport {
    /// Of a library that is not there.
    pub(crate) fn absent(library: &'static str, asked: &str, remedy: &'static str, reason: String) -> Self {
        Self {
            library,
            asked: asked.to_owned(),
            path: None,
            absent: Some(reason),
            remedy,
            version: None,
            missing: Vec::new(),
            unpinned: Vec::new(),
        }
    }
}

impl Missing {
    pub(crate) fn new(symbol: Symbol) -> Self {
        Self { symbol, since: release_of(symbol.version) }
    }
}

fn release_of(version: &str) -> Option<u32> {
    RELEASES.iter().find(|(name, _)| *name == version).map(|(_, release)| *release)
}

/// What a library's version seems to be. Libraries do not say it: this is read off the symbols that they have and the name of the
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The newest symbol version of which it has a function that this crate knows, as `IBVERBS_1.14`.
    pub interface: &'static str,
    /// The first release of rdma-core with that; the library is at least so new.
    pub at_least: Option<u32>,
    /// The release of rdma-core that the file's name ends in, as 44 in `libibverbs.so.1.14.44.0`.
    pub release: Option<u32>,
}

impl Version {
    /// From the symbols that were found and the file's name.
    pub(crate) fn of<'a>(found: impl Iterator<Item = &'a Symbol>, path: Option<&PathBuf>) -> Option<Self> {
        let newest = found.max_by_key(|symbol| minor(symbol.version))?;
        let release = path
            .and_then(|path| path.file_name()?.to_str())
            .and_then(|name| name.split_once(".so."))
            .and_then(|(_, numbers)| numbers.split('.').nth(2)?.parse().ok());
        let version = newest.version;
        Some(Self { interface: version, at_least: release_of(version), release })
    }
}

fn minor(version: &str) -> u32 {
    version.rsplit_once('.').and_then(|(_, minor)| minor.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.release, self.at_least) {
            (Some(release), _) => write!(f, "rdma-core {release} by its file name, ")?,
            (None, Some(release)) => write!(f, "rdma-core {release} or newer, ")?,
            (None, None) => {}
        }
        write!(f, "symbols up to {}", self.interface)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.symbol.name, self.symbol.version)?;
        if let Some(release) = self.since {
            write!(f, " (rdma-core {release})")?;
        }
        if !self.symbol.purpose.is_empty() {
            write!(f, ": without {}", self.symbol.purpose)?;
        }
        Ok(())
    }
}

impl fmt::Display for LibraryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.absent {
            return write!(f, "{}: not there ({reason}); {}", self.library, self.remedy);
        }
        write!(f, "{}: ", self.library)?;
        match &self.path {
            Some(path) => write!(f, "{}", path.display())?,
            None => write!(f, "{}", self.asked)?,
        }
        if let Some(version) = &self.version {
            write!(f, " ({version})")?;
        }
        for missing in &self.missing {
            write!(f, "\n  no {missing}")?;
        }
        if !self.unpinned.is_empty() {
            write!(f, "\n  found by name alone, not by version: {}", self.unpinned.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Table => return f.write_str("verbs: a table of the program's own"),
            Origin::Opened => f.write_str("verbs: libraries opened at run time")?,
            Origin::Linked => f.write_str("verbs: libraries that the program is linked to")?,
        }
        for library in &self.libraries {
            write!(f, "\n{library}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Symbol =
        Symbol { name: "ibv_open_device", version: "IBVERBS_1.1", required: true, purpose: "" };
    const NEW: Symbol =
        Symbol { name: "ibv_qp_to_qp_ex", version: "IBVERBS_1.6", required: false, purpose: "ibv_wr_*" };

    #[test]
    fn versions_are_numbers_not_text() {
        let ten = Symbol { version: "IBVERBS_1.10", ..NEW };
        let version = Version::of([&OLD, &ten, &NEW].into_iter(), None).unwrap();
        assert_eq!((version.interface, version.at_least, version.release), ("IBVERBS_1.10", Some(31), None));
        assert_eq!(version.to_string(), "rdma-core 31 or newer, symbols up to IBVERBS_1.10");
    }

    #[test]
    fn the_file_name_tells_the_release() {
        let path = PathBuf::from("/usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.44.0");
        assert_eq!(Version::of([&OLD].into_iter(), Some(&path)).unwrap().release, Some(44));
        let bare = PathBuf::from("/opt/libibverbs.so.1");
        assert_eq!(Version::of([&OLD].into_iter(), Some(&bare)).unwrap().release, None);
        assert_eq!(Version::of(std::iter::empty(), None), None);
    }

    #[test]
    fn what_is_missing_is_said_with_what_it_is_for() {
        let missing = Missing::new(NEW).to_string();
        assert_eq!(missing, "ibv_qp_to_qp_ex@IBVERBS_1.6 (rdma-core 24): without ibv_wr_*");
    }
}
