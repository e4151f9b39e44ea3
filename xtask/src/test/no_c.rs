//! The step that builds Sinew where `cc` links but refuses to compile: rustc and its linker alone must do.
//!
//! A folder in front of the path holds `cc` and its other names. Each passes a link on to the real one and refuses
//! everything that would compile or assemble, and the programs that only a C build calls.

use super::outcome::{Outcome, whole};
use crate::process;
use crate::workspace::{Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Names under which a C compiler is called.
const COMPILERS: [&str; 9] =
    ["cc", "gcc", "clang", "c++", "g++", "clang++", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc", "c99"];
/// Programs that no build of Sinew may call.
const REFUSED: [&str; 5] = ["cmake", "pkg-config", "bindgen", "make", "as"];

/// Where the step leaves the command that it built.
pub(super) fn built_command(workspace: &Workspace) -> PathBuf {
    workspace.target.join("no-c/release/sinew")
}

/// Builds the command as a user does, in release mode.
pub(super) fn step(workspace: &Workspace, logs: &Path) -> Result<Outcome> {
    let folder = workspace.scratch()?.join("cc-without-c");
    let links = logs.join("no-c-links.log");
    write_tools(&folder, &links)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.clone()).chain(std::env::split_paths(&path)))?;
    if let Some(problem) = trial(&folder)? {
        return Ok(Outcome::failed(problem));
    }
    let mut build = Command::new(cargo());
    build.current_dir(&workspace.root).args(["build", "--release", "--package", "sinew-cli", "--target-dir"]);
    build.arg(workspace.target.join("no-c")).env("PATH", path).env("CARGO_TERM_COLOR", "never");
    let finished = process::run(&mut build, &logs.join("no-c.log"), LIMIT)?;
    let linked = fs::read_to_string(&links).unwrap_or_default().lines().count();
    let compiled = finished.output.lines().filter(|line| line.trim_start().starts_with("Compiling")).count();
    if finished.ok && compiled > 0 && linked == 0 {
        return Ok(Outcome::failed("the linker in front of the path was never called, so nothing is proven"));
    }
    Ok(whole(&finished, &format!("{compiled} crates compiled, {linked} links")))
}

/// Writes the stand-ins.
fn write_tools(folder: &Path, links: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for name in COMPILERS {
        if let Some(real) = find(name, folder) {
            write_tool(&folder.join(name), &linker_only(&real, links))?;
        }
    }
    for name in REFUSED {
        write_tool(
            &folder.join(name),
            &format!(
                "#!/bin/sh\necho \"{name} is refused: Sinew builds with rustc and its linker alone\" >&2\nexit 1\n"
            ),
        )?;
    }
    if !folder.join("cc").is_file() {
        bail!("no cc on the path: rustc needs one to link");
    }
    Ok(())
}

/// The stand-in must refuse to compile before its silence means anything.
fn trial(folder: &Path) -> Result<Option<String>> {
    let source = folder.join("trial.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let tried = Command::new(folder.join("cc")).arg(&source).arg("-o").arg(folder.join("trial")).output()?;
    Ok(tried
        .status
        .success()
        .then(|| "the cc in front of the path compiles C, so nothing is proven".to_owned()))
}

/// A script that links with `real`. The linker driver calls its own `as` and `ld` by absolute path, if at all.
fn linker_only(real: &Path, links: &Path) -> String {
    let (real, links) = (real.display(), links.display());
    format!(
        r#"#!/bin/sh
for word in "$@"; do
    case "$word" in
        -c | -S | -E | -M | *.c | *.cc | *.cpp | *.cxx | *.C | *.s | *.S | *.m)
            echo "cc is refused to compile ($word): Sinew builds with rustc and its linker alone" >&2
            exit 1 ;;
    esac
done
echo link >>"{links}"
exec "{real}" "$@"
"#
    )
}

fn write_tool(path: &Path, script: &str) -> Result<()> {
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The program of that name on the path, `without` the folder of stand-ins.
fn find(name: &str, without: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates =
        std::env::split_paths(&path).filter(|folder| folder != without).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_links_and_refuses_to_compile() {
        let folder = std::env::temp_dir().join(format!("xtask-no-c-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let links = folder.join("links");
        write_tool(&folder.join("cc"), &linker_only(Path::new("true"), &links)).unwrap();
        write_tool(&folder.join("real"), &linker_only(&find("true", &folder).unwrap(), &links)).unwrap();
        assert!(Command::new(folder.join("real")).args(["a.o", "-o", "a"]).status().unwrap().success());
        for words in [["-c", "a.o"], ["a.c", "-o"], ["x/y.S", "-o"]] {
            assert!(!Command::new(folder.join("real")).args(words).output().unwrap().status.success());
        }
        assert_eq!(fs::read_to_string(&links).unwrap(), "link\n");
        assert_eq!(trial(&folder).unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
