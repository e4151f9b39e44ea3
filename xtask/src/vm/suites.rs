//! The list of test programs that run in the guest, `tests/vm/suites.toml`, and how their programs are built.
//!
//! Called by `test`. A list without a suite, and one that names a package or a test that cargo does not know, is an error.

use super::job::{Device, is_name};
use super::run::{Limits, MEMORY_MIB, MEMORY_MIB_MAX, MEMORY_MIB_MIN};
use crate::process;
use crate::workspace::{Package, Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIST: &str = "tests/vm/suites.toml";
const TIME_S: u64 = 300;
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    suite: Vec<Suite>,
}

/// A test program and the guest that it wants.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Suite {
    /// How people call it.
    pub(super) name: String,
    pub(super) package: String,
    /// The integration test, or the tests inside the library when there is no name.
    pub(super) test: Option<String>,
    /// Whether the examples of the package are built too, as the tests start them.
    #[serde(default)]
    examples: bool,
    pub(super) devices: Vec<Device>,
    /// Two interfaces with a wire between them.
    #[serde(default)]
    pub(super) wire: bool,
    /// Two guests, both run the program.
    #[serde(default)]
    pub(super) pair: bool,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    memory_mib: Option<u32>,
    /// Seconds for the whole program.
    time_s: Option<u64>,
}

impl Suite {
    /// What its guest may take.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            memory_mib: self.memory_mib.unwrap_or(MEMORY_MIB),
            time: Duration::from_secs(self.time_s.unwrap_or(TIME_S)),
        }
    }

    /// What the full names of its tests begin with, as other runners print them.
    pub(super) fn place(&self) -> String {
        let krate = self.package.replace('-', "_");
        self.test.as_ref().map_or_else(|| format!("{krate}::"), |test| format!("{krate}::{test}::"))
    }

    fn judge(&self) -> Option<String> {
        let memory = MEMORY_MIB_MIN..=MEMORY_MIB_MAX;
        if self.name.is_empty()
            || !self.name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
        {
            return Some(format!("`{}` is no name: letters, digits and `-`", self.name));
        }
        if let Some(name) = self.environment.keys().find(|name| !is_name(name)) {
            return Some(format!("{}: no variable can be called `{name}`", self.name));
        }
        if self.memory_mib.is_some_and(|mib| !memory.contains(&mib)) {
            return Some(format!("{}: memory-mib is from {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}", self.name));
        }
        if self.time_s == Some(0) {
            return Some(format!("{}: time-s is 0", self.name));
        }
        if self.pair && self.wire {
            return Some(format!("{}: two guests, or a wire within one, but not both", self.name));
        }
        None
    }
}

/// Every suite.
///
/// # Errors
/// When the list is empty or wrong.
pub(super) fn all(workspace: &Workspace) -> Result<Vec<Suite>> {
    let text = std::fs::read_to_string(workspace.root.join(LIST)).context(LIST)?;
    let suites = parse(&text).context(LIST)?;
    for suite in &suites {
        known(workspace, suite).with_context(|| format!("{LIST}: {}", suite.name))?;
    }
    Ok(suites)
}

fn parse(text: &str) -> Result<Vec<Suite>> {
    let list: List = toml::from_str(text)?;
    if list.suite.is_empty() {
        bail!("no suite: nothing would be proven in the guest");
    }
    let mut names = BTreeSet::new();
    for suite in &list.suite {
        if let Some(problem) = suite.judge() {
            bail!("{problem}");
        }
        if !names.insert(&suite.name) {
            bail!("two suites are called {}", suite.name);
        }
    }
    Ok(list.suite)
}

/// The package of a suite, with the test that it names.
fn known<'a>(workspace: &'a Workspace, suite: &Suite) -> Result<&'a Package> {
    let package = workspace.members().find(|package| package.name == suite.package);
    let package = package.with_context(|| format!("there is no package {}", suite.package))?;
    let is_there = match &suite.test {
        None => package.targets.iter().any(|target| target.is("lib")),
        Some(test) => package.targets.iter().any(|target| target.is("test") && target.name == *test),
    };
    if !is_there {
        let what = suite.test.as_ref().map_or_else(|| "library".to_owned(), |test| format!("test {test}"));
        bail!("{} has no {what}", suite.package);
    }
    Ok(package)
}

/// A suite with its program.
pub(super) struct Built {
    pub(super) suite: Suite,
    pub(super) program: PathBuf,
    /// The folder of its package, where its tests start.
    pub(super) folder: PathBuf,
}

/// Builds the programs of these suites.
///
/// # Errors
/// When one does not compile.
pub(super) fn build(workspace: &Workspace, suites: Vec<Suite>, log: &Path) -> Result<Vec<Built>> {
    let packages: BTreeSet<String> = suites.iter().map(|suite| suite.package.clone()).collect();
    let mut programs = Vec::new();
    for package in &packages {
        let of_package: Vec<&Suite> = suites.iter().filter(|suite| suite.package == *package).collect();
        programs.extend(compile(workspace, package, &of_package, log)?);
    }
    suites
        .into_iter()
        .map(|suite| {
            let package = known(workspace, &suite)?;
            let target = suite.test.clone();
            let mut fitting =
                programs.iter().filter(|program| program.package == package.id && program.test == target);
            let program =
                fitting.next().with_context(|| format!("cargo built no program for {}", suite.name))?;
            Ok(Built { program: program.path.clone(), folder: package.folder().to_owned(), suite })
        })
        .collect()
}

fn compile(workspace: &Workspace, package: &str, suites: &[&Suite], log: &Path) -> Result<Vec<Program>> {
    if suites.iter().any(|suite| suite.examples) {
        // `cargo test --examples` would make tests of them.
        let mut command = Command::new(cargo());
        command.current_dir(&workspace.root).env("CARGO_TERM_COLOR", "never");
        command.args(["build", "--all-features", "--package", package, "--examples"]);
        let finished = process::run(&mut command, log, BUILD_LIMIT)?;
        if let Some(reason) = &finished.reason {
            bail!("the examples of {package} do not build: {reason} (whole output: {})", log.display());
        }
    }
    let mut command = Command::new(cargo());
    command.current_dir(&workspace.root).env("CARGO_TERM_COLOR", "never");
    command.args(["test", "--no-run", "--all-features", "--message-format=json-render-diagnostics"]);
    command.args(["--package", package]);
    if suites.iter().any(|suite| suite.test.is_none()) {
        command.arg("--lib");
    }
    let tests: BTreeSet<&String> = suites.iter().filter_map(|suite| suite.test.as_ref()).collect();
    command.args(tests.iter().flat_map(|test| ["--test", test.as_str()]));
    let finished = process::run(&mut command, log, BUILD_LIMIT)?;
    if let Some(reason) = &finished.reason {
        let said: Vec<&str> = finished.output.lines().filter(|line| !line.starts_with('{')).collect();
        let tail = said[said.len().saturating_sub(40)..].join("\n");
        bail!("the tests of {package} do not build: {reason}\n{tail}\n(whole output: {})", log.display());
    }
    Ok(finished.output.lines().filter_map(program).collect())
}

#[derive(PartialEq, Eq, Debug)]
struct Program {
    package: String,
    /// The name of an integration test, or nothing for the library.
    test: Option<String>,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    target: ArtifactTarget,
    profile: ArtifactProfile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct ArtifactProfile {
    test: bool,
}

/// A test program in what cargo prints.
fn program(line: &str) -> Option<Program> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    let path = artifact.executable.filter(|_| artifact.profile.test)?;
    let kind = artifact.target.kind.first()?;
    let test = match kind.as_str() {
        "test" => Some(artifact.target.name),
        "example" | "bin" | "bench" => return None,
        _ => None,
    };
    Some(Program { package: artifact.package_id, test, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[suite]]\nname = \"one\"\npackage = \"xtask\"\ndevices = [\"rxe\", \"siw\"]\nenvironment = { SINEW_REQUIRE = \"verbs\" }\n";

    #[test]
    fn the_list_of_this_workspace_is_right() {
        let workspace = Workspace::load().unwrap();
        let suites = all(&workspace).unwrap();
        assert!(suites.iter().any(|suite| suite.devices.contains(&Device::Rxe)));
        assert!(suites.iter().any(|suite| suite.devices.contains(&Device::Siw)));
        assert!(suites.iter().any(|suite| suite.pair) && suites.iter().any(|suite| suite.wire));
    }

    #[test]
    fn a_list_that_would_prove_nothing_or_something_else_is_refused() {
        assert_eq!(parse(GOOD).unwrap()[0].limits().memory_mib, MEMORY_MIB);
        let refused = [
            String::new(),
            format!("{GOOD}{GOOD}"),
            format!("{GOOD}memory-mib = 1\n"),
            format!("{GOOD}time-s = 0\n"),
            format!("{GOOD}colour = 1\n"),
            format!("{GOOD}wire = true\npair = true\n"),
            GOOD.replace("rxe", "mlx5"),
            GOOD.replace("SINEW_REQUIRE", "\"A B\""),
            GOOD.replace("\"one\"", "\"a/b\""),
        ];
        for text in refused {
            assert!(parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_suite_of_nothing_that_cargo_knows_is_refused() {
        let workspace = Workspace::load().unwrap();
        let mut suite = parse(GOOD).unwrap().remove(0);
        let refusal = |suite: &Suite| known(&workspace, suite).err().unwrap().to_string();
        assert!(refusal(&suite).contains("no library"));
        suite.test = Some("nobody".to_owned());
        assert!(refusal(&suite).contains("no test nobody"));
        suite.package = "nothing".to_owned();
        assert!(refusal(&suite).contains("no package nothing"));
    }

    #[test]
    fn programs_are_found_in_what_cargo_prints() {
        let line = |kind: &str, test: bool| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"package_id\":\"p#a@0.1.0\",\"target\":{{\"kind\":[\"{kind}\"],\"name\":\"x\"}},\"profile\":{{\"test\":{test}}},\"executable\":\"/x-1\"}}"
            )
        };
        assert_eq!(program(&line("test", true)).unwrap().test.unwrap(), "x");
        assert_eq!(program(&line("lib", true)).unwrap().test, None);
        assert_eq!(program(&line("example", true)), None);
        assert_eq!(program(&line("bin", false)), None);
        assert_eq!(program("   Compiling x"), None);
    }
}
