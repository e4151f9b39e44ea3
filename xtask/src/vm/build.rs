//! Makes the guest: a kernel that is an ordinary program, and the system around it.
//!
//! Called by `cargo xtask vm build` and by whoever needs a guest that is not there yet. The sources are unpacked, compiled and removed
//! again; what is kept is the program, an archive of two files to boot from, and a few unpacked packages.

use super::archive::Archive;
use super::cache::{self, Cache, MADE_OF, Part};
use super::packages::{List, Mirror, Package, settle};
use super::{Lacking, job};
use crate::process::{self, Finished};
use crate::setup::{self, Tool};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const KERNEL: &str = "kernel";
const SYSTEM: &str = "system";
/// Goes up when this file makes something else of the same inputs.
const RECIPE: &str = "1";
/// What the sources and everything compiled from them take, and some more.
const SPACE_BYTES: u64 = 1_500_000_000;
const MINUTE: Duration = Duration::from_secs(60);
/// A busy machine may take ten times as long as an idle one.
const COMPILE_LIMIT: Duration = Duration::from_secs(45 * 60);

const TOOLS: [Tool; 8] = [
    Tool { program: "make", package: "make", used_for: "the guest's kernel" },
    Tool { program: "gcc", package: "gcc", used_for: "the guest's kernel" },
    Tool { program: "strip", package: "binutils", used_for: "the guest's kernel" },
    Tool { program: "flex", package: "flex", used_for: "the guest's kernel" },
    Tool { program: "bison", package: "bison", used_for: "the guest's kernel" },
    Tool { program: "bc", package: "bc", used_for: "the guest's kernel" },
    Tool { program: "xz", package: "xz-utils", used_for: "the sources of the guest's kernel" },
    Tool { program: "tar", package: "tar", used_for: "the sources of the guest's kernel" },
];

/// Sources that this kernel never compiles: not unpacking them halves the time and the space. Their lists for `make` stay.
const NOT_UNPACKED: [&str; 14] = [
    "*/Documentation/*/*",
    "*/arch/[!ux]*/*.[chS]",
    "*.dts",
    "*.dtsi",
    "*/drivers/gpu/*.[chS]",
    "*/drivers/infiniband/hw/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/scsi/*/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];

/// Everything that a guest is made of.
struct Inputs {
    config: String,
    init: String,
    list: List,
}

impl Inputs {
    fn read(workspace: &Workspace) -> Result<Self> {
        let read = |name: &str| {
            let path = workspace.root.join("tests/vm").join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let list = toml::from_str(&read("packages.toml")?).context("tests/vm/packages.toml")?;
        Ok(Self { config: read("kernel.config")?, init: read("init")?, list })
    }

    fn kernel_key(&self) -> u64 {
        cache::key(&[RECIPE, &self.list.releases.join(" "), &self.list.kernel, &self.config])
    }

    fn system_key(&self) -> u64 {
        let List { releases, boot, over, under, .. } = &self.list;
        cache::key(&[RECIPE, &releases.join(" "), boot, &over.join(" "), &under.join(" ")])
    }
}

/// A guest that can be booted. Its files stay while this is held.
pub(super) struct Made {
    kernel: Part,
    system: Part,
    init: String,
}

impl Made {
    /// The program that is the kernel.
    pub(super) fn kernel(&self) -> PathBuf {
        self.kernel.folder.join("linux")
    }

    /// The archive that it boots from.
    ///
    /// # Errors
    /// When the one program of it cannot be read.
    pub(super) fn initrd(&self) -> Result<Vec<u8>> {
        let path = self.system.folder.join("busybox");
        let busybox = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.folder("dev");
        archive.console("dev/console");
        archive.program("bin/busybox", &busybox);
        archive.program("init", self.init.as_bytes());
        Ok(archive.finish())
    }

    /// The folders of packages over and under the host's files.
    pub(super) fn packages(&self) -> [(&'static str, PathBuf); 2] {
        ["over", "under"].map(|name| (name, self.system.folder.join(name)))
    }
}

/// `cargo xtask vm build`.
///
/// # Errors
/// When it cannot be made.
pub(super) fn run(workspace: &Workspace, update: bool) -> Result<()> {
    let begun = Instant::now();
    let made = if update { None } else { ready(workspace)? };
    let made = match made {
        Some(made) => made,
        None => make(workspace, update, &workspace.scratch()?.join("vm-build.log"))?,
    };
    for part in [&made.kernel, &made.system] {
        println!("{}", part.folder.display());
        for line in fs::read_to_string(part.folder.join(MADE_OF))?.lines() {
            println!("  {line}");
        }
    }
    println!("the guest is there ({:.1} s)", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The guest, when it has been made of the present inputs.
///
/// # Errors
/// When the inputs cannot be read.
pub(super) fn ready(workspace: &Workspace) -> Result<Option<Made>> {
    Ok(find(&Cache::of(workspace), &Inputs::read(workspace)?))
}

fn find(cache: &Cache, inputs: &Inputs) -> Option<Made> {
    let kernel = cache.part(KERNEL, inputs.kernel_key())?;
    let system = cache.part(SYSTEM, inputs.system_key())?;
    Some(Made { kernel, system, init: inputs.init.clone() })
}

/// The guest; makes what is missing.
///
/// # Errors
/// [`Lacking`] when it cannot be made on this machine; others when making it failed.
pub(super) fn make(workspace: &Workspace, update: bool, log: &Path) -> Result<Made> {
    let inputs = Inputs::read(workspace)?;
    let cache = Cache::of(workspace);
    job::can_run_here()?;
    if !update && let Some(made) = find(&cache, &inputs) {
        return Ok(made);
    }
    let _lock = cache.lock()?;
    // Whoever held the lock may have made it.
    if !update && let Some(made) = find(&cache, &inputs) {
        return Ok(made);
    }
    let work = cache.work()?;
    let build = Build { cache: &cache, inputs: &inputs, work: &work, log, begun: Instant::now() };
    let done = build.all(update);
    // Whatever happened: nobody wants these again.
    _ = fs::remove_dir_all(&work);
    done?;
    find(&cache, &inputs).context("the guest was made and is not there")
}

/// One making of a guest.
struct Build<'a> {
    cache: &'a Cache,
    inputs: &'a Inputs,
    work: &'a Path,
    log: &'a Path,
    begun: Instant,
}

impl Build<'_> {
    fn all(&self, update: bool) -> Result<()> {
        self.say("lists of packages");
        let mirror = Mirror::open(self.work.join("apt"), &self.inputs.list.releases, self.log)?;
        let kernel = mirror.look(&[&self.inputs.list.kernel])?;
        if self.is_needed(KERNEL, self.inputs.kernel_key(), &kernel, update)? {
            self.kernel(&mirror, &kernel)?;
        }
        let list = &self.inputs.list;
        let names = [std::slice::from_ref(&list.boot), &list.over, &list.under].concat();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let system = mirror.look(&names)?;
        if self.is_needed(SYSTEM, self.inputs.system_key(), &system, update)? {
            self.system(&mirror, &system)?;
        }
        Ok(())
    }

    /// Whether a part is not there, or is made of other versions than the mirror has.
    fn is_needed(&self, kind: &str, key: u64, packages: &[Package], update: bool) -> Result<bool> {
        let Some(part) = self.cache.part(kind, key) else { return Ok(true) };
        let old = fs::read_to_string(part.folder.join(MADE_OF))?;
        Ok(update && old != made_of(packages))
    }

    fn say(&self, what: &str) {
        println!("      guest: {:>4.0} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn kernel(&self, mirror: &Mirror<'_>, packages: &[Package]) -> Result<()> {
        self.check_tools()?;
        self.check_space()?;
        self.say(&format!("fetching the sources of {} (150 MB)", self.inputs.list.kernel));
        mirror.fetch(packages)?;
        self.say("unpacking them");
        let source = self.unpack_sources(mirror, packages)?;
        self.say("compiling the kernel (about three minutes on two idle cores)");
        let program = self.compile(&source)?;
        let made = self.work.join(KERNEL);
        fs::create_dir_all(&made)?;
        self.must("strip", MINUTE, |command| {
            command.arg("-o").arg(made.join("linux")).arg(&program);
        })?;
        fs::write(made.join(MADE_OF), made_of(packages))?;
        self.cache.put(KERNEL, self.inputs.kernel_key(), &made)
    }

    fn check_tools(&self) -> Result<()> {
        let missing = setup::install(&TOOLS, self.log)?;
        if missing.is_empty() { Ok(()) } else { bail!(Lacking(missing.join("; "))) }
    }

    fn check_space(&self) -> Result<()> {
        let Some(free) = cache::free_bytes(self.work) else { return Ok(()) };
        if free < SPACE_BYTES {
            bail!(Lacking(format!(
                "making the guest needs {:.1} GB in {} for a few minutes, and {:.1} GB are free",
                SPACE_BYTES as f64 / 1e9,
                self.cache.folder.display(),
                free as f64 / 1e9
            )));
        }
        Ok(())
    }

    fn unpack_sources(&self, mirror: &Mirror<'_>, packages: &[Package]) -> Result<PathBuf> {
        let (unpacked, source) = (self.work.join("package"), self.work.join("source"));
        for package in packages {
            mirror.unpack(package, &unpacked)?;
        }
        fs::create_dir_all(&source)?;
        let archive = unpacked.join("usr/src").join(format!("{}.tar.xz", self.inputs.list.kernel));
        self.must("tar", 10 * MINUTE, |tar| {
            tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&source);
            tar.args(["--strip-components=1", "--wildcards"]);
            tar.args(NOT_UNPACKED.map(|pattern| format!("--exclude={pattern}")));
        })?;
        fs::remove_dir_all(&unpacked)?;
        Ok(source)
    }

    /// Compiles the kernel and answers the program.
    fn compile(&self, source: &Path) -> Result<PathBuf> {
        let output = self.work.join("output");
        fs::create_dir_all(&output)?;
        tick_often(&source.join("arch/um/Kconfig"))?;
        fs::write(source.join("kernel/configs/sinew.config"), &self.inputs.config)?;
        let make = |goals: &[&str], limit| {
            self.must("nice", limit, |command| {
                command.args(["-n", "10", "make", "ARCH=um", "-C"]).arg(source);
                command.arg(format!("O={}", output.display())).args(goals);
                for name in ["MAKEFLAGS", "MAKELEVEL", "CROSS_COMPILE", "CFLAGS", "LDFLAGS", "SUBARCH"] {
                    command.env_remove(name);
                }
            })
        };
        make(&["tinyconfig", "sinew.config"], 5 * MINUTE)?;
        let lost = lost(&self.inputs.config, &fs::read_to_string(output.join(".config"))?);
        if !lost.is_empty() {
            bail!("tests/vm/kernel.config: this kernel does not take {}", lost.join(", "));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        make(&[&format!("-j{cores}"), "linux"], COMPILE_LIMIT)?;
        Ok(output.join("linux"))
    }

    fn system(&self, mirror: &Mirror<'_>, packages: &[Package]) -> Result<()> {
        self.say(&format!("fetching {} packages", packages.len()));
        mirror.fetch(packages)?;
        let (made, boot) = (self.work.join(SYSTEM), self.work.join("boot"));
        for package in packages {
            let folder = match &package.name {
                name if *name == self.inputs.list.boot => boot.clone(),
                name if self.inputs.list.over.contains(name) => made.join("over"),
                _ => made.join("under"),
            };
            mirror.unpack(package, &folder)?;
        }
        for folder in [&made.join("over"), &made.join("under"), &boot] {
            fs::create_dir_all(folder)?;
            settle(folder)?;
        }
        fs::rename(boot.join("usr/bin/busybox"), made.join("busybox"))
            .context("no busybox in its package")?;
        fs::write(made.join(MADE_OF), made_of(packages))?;
        self.cache.put(SYSTEM, self.inputs.system_key(), &made)
    }

    /// Runs one program of the making.
    fn must(&self, program: &str, limit: Duration, set_up: impl FnOnce(&mut Command)) -> Result<Finished> {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        set_up(&mut command);
        let finished = process::run(&mut command, self.log, limit)?;
        match &finished.reason {
            None => Ok(finished),
            Some(reason) => bail!(
                "making the guest: {program}: {reason}\n{}\n(whole output: {})",
                finished.tail(15),
                finished.log.display()
            ),
        }
    }
}

fn made_of(packages: &[Package]) -> String {
    packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect()
}

/// A user-mode kernel ticks a hundred times a second; two programs that both poll share its one processor by the tick.
fn tick_often(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let often = text.replacen("config HZ\n\tint\n\tdefault 100\n", "config HZ\n\tint\n\tdefault 1000\n", 1);
    if often == text {
        bail!("{}: the rate of the clock is not where it was", file.display());
    }
    Ok(fs::write(file, often)?)
}

/// Settings that were asked for and that the kernel has not.
fn lost<'a>(asked: &'a str, has: &str) -> Vec<&'a str> {
    let has: std::collections::BTreeSet<&str> = has.lines().collect();
    let asked = asked.lines().map(str::trim).filter(|line| line.starts_with("CONFIG_"));
    asked
        .filter(|line| match line.strip_suffix("=n") {
            Some(name) => {
                has.iter().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
            }
            None => !has.contains(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_the_kernel_does_not_take_is_named() {
        let has = "CONFIG_A=y\nCONFIG_C=m\n# CONFIG_D is not set\nCONFIG_EE=y\n";
        assert_eq!(
            lost("# words\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=n\n", has),
            ["CONFIG_B=y", "CONFIG_C=n"]
        );
    }

    #[test]
    fn every_input_changes_its_key() {
        let workspace = Workspace::load().unwrap();
        let read = || Inputs::read(&workspace).unwrap();
        let keys = |inputs: &Inputs| (inputs.kernel_key(), inputs.system_key());
        let (kernel, system) = keys(&read());
        let mut other = read();
        other.config.push_str("CONFIG_X=y\n");
        assert!(other.kernel_key() != kernel && other.system_key() == system);
        let mut other = read();
        // It is packed anew for every start.
        other.init.push('#');
        assert!(other.kernel_key() == kernel && other.system_key() == system);
        let mut other = read();
        let moved = other.list.over.pop().unwrap();
        other.list.under.push(moved);
        assert!(other.kernel_key() == kernel && other.system_key() != system);
    }
}
