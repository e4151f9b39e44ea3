//! What cargo says about the workspace, and which files belong to it.
//!
//! Every checker starts from here, so all of them agree on what there is. Reads only; runs `cargo metadata` and `git`.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace as `cargo metadata` tells it.
#[derive(Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    workspace_members: Vec<String>,
    #[serde(default)]
    pub(crate) resolve: Option<Resolve>,
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
}

/// One package, ours or not.
#[derive(Deserialize, Clone)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    /// `None` when it may be published anywhere, an empty list when nowhere.
    pub(crate) publish: Option<Vec<String>>,
}

/// A dependency as a manifest declares it.
#[derive(Deserialize, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) path: Option<PathBuf>,
}

/// Something cargo can build.
#[derive(Deserialize, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

/// The resolved graph of packages.
#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One package in the graph.
#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

/// One edge of the graph.
#[derive(Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

/// Why the edge is there.
#[derive(Deserialize)]
pub(crate) struct EdgeKind {
    kind: Option<String>,
    target: Option<String>,
}

/// What a dependency is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// The crate itself.
    Normal,
    /// Its build script.
    Build,
    /// Its tests; what only models under `--cfg loom` need is for tests too.
    Test,
}

fn usage(kind: Option<&str>, target: Option<&str>) -> Use {
    match kind {
        Some("dev") => Use::Test,
        _ if target.is_some_and(|target| target.replace(' ', "") == "cfg(loom)") => Use::Test,
        Some("build") => Use::Build,
        _ => Use::Normal,
    }
}

impl Dependency {
    /// What it is for.
    pub(crate) fn usage(&self) -> Use {
        usage(self.kind.as_deref(), self.target.as_deref())
    }
}

impl EdgeKind {
    /// What it is for.
    pub(crate) fn usage(&self) -> Use {
        usage(self.kind.as_deref(), self.target.as_deref())
    }
}

impl Package {
    /// The folder of the package.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new("."))
    }

    /// The name without the `sinew-` in front: how `layers.toml` calls it.
    pub(crate) fn short_name(&self) -> &str {
        self.name.strip_prefix("sinew-").unwrap_or(&self.name)
    }

    /// Whether it goes to a registry.
    pub(crate) fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }
}

impl Target {
    /// Whether the target is of this kind (`lib`, `bin`, `example`, `test`).
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|mine| mine == kind)
    }
}

impl Workspace {
    /// Loads the workspace with its resolved graph.
    ///
    /// # Errors
    /// When cargo is missing or a manifest is wrong.
    pub(crate) fn load() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        metadata(&manifest, &[])
    }

    /// The fuzz targets' own workspace, when there is one.
    ///
    /// # Errors
    /// When its manifest is wrong.
    pub(crate) fn load_fuzz(&self) -> Result<Option<Self>> {
        let manifest = self.root.join("fuzz/Cargo.toml");
        if manifest.is_file() { metadata(&manifest, &["--no-deps"]).map(Some) } else { Ok(None) }
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// All packages by id.
    pub(crate) fn by_id(&self) -> HashMap<&str, &Package> {
        self.packages.iter().map(|package| (package.id.as_str(), package)).collect()
    }

    /// The path relative to the root, with `/`, for messages and lists.
    pub(crate) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// A folder for logs and scratch files of this runner.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let folder = self.target.join("xtask");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// All files that belong to the workspace: tracked, or new and not ignored; sorted. Without git, a walk.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .output();
        let mut files = match listed {
            Ok(output) if output.status.success() => {
                let names = String::from_utf8_lossy(&output.stdout).into_owned();
                names.split('\0').filter(|name| !name.is_empty()).map(|name| self.root.join(name)).collect()
            }
            _ => walk(&self.root)?,
        };
        files.retain(|file| file.is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }
}

fn metadata(manifest: &Path, options: &[&str]) -> Result<Workspace> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version=1", "--manifest-path"])
        .arg(manifest)
        .args(options)
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not understood")
}

/// The cargo that runs this runner.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_knows_itself() {
        let workspace = Workspace::load().unwrap();
        let member = |name| workspace.members().find(|package| package.name == name);
        assert!(member("xtask").is_some_and(|package| !package.is_published()));
        assert!(member("sinew-wire").is_some_and(|package| package.short_name() == "wire"));
        let files = workspace.files().unwrap();
        assert!(files.iter().any(|file| workspace.relative(file) == "xtask/src/workspace.rs"));
    }

    #[test]
    fn what_only_models_need_is_for_tests() {
        assert_eq!(usage(None, Some("cfg(loom)")), Use::Test);
        assert_eq!(usage(None, Some("cfg(unix)")), Use::Normal);
        assert_eq!(usage(Some("build"), None), Use::Build);
        assert_eq!(usage(Some("dev"), None), Use::Test);
    }

    #[test]
    fn a_checkout_without_git_is_walked_without_build_output() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = walk(root).unwrap();
        assert!(found.contains(&root.join("src/workspace.rs")));
    }
}
