//! Libraries made for the test: without versions, with some functions missing, with other versions.
//!
//! Needs a C compiler; without one the tests are skipped by name.
#![allow(unsafe_code)]

use sinew_testing::skip;
use sinew_verbs_sys::{CmTable, Library, OpenError, Symbol, VerbsTable};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// [`Library::open_files`] with files that the test made or that the system has.
fn open_files(ibverbs: Option<&OsStr>, rdmacm: Option<&OsStr>) -> Result<Library, OpenError> {
    // SAFETY: the system's libraries, files that are no libraries, and libraries whose functions nobody calls.
    unsafe { Library::open_files(ibverbs, rdmacm) }
}

/// Compiles a library that has a function for each of these rows, at these versions (none: without versions).
fn build(name: &str, symbols: &[(&Symbol, Option<&str>)]) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fake-libraries").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let functions: String =
        symbols.iter().map(|(symbol, _)| format!("int {}(void) {{ return 38; }}\n", symbol.name)).collect();
    std::fs::write(folder.join("fake.c"), functions).unwrap();
    std::fs::write(folder.join("fake.map"), version_script(symbols)).unwrap();
    let library = folder.join("libfake.so.1");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(folder.join("fake.c"));
    if symbols.iter().any(|(_, version)| version.is_some()) {
        cc.arg(format!("-Wl,--version-script={}", folder.join("fake.map").display()));
    }
    match cc.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(library)
        }
        Err(_) => None,
    }
}

/// One node per version, in no order: none inherits from another.
fn version_script(symbols: &[(&Symbol, Option<&str>)]) -> String {
    let mut nodes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (symbol, version) in symbols {
        nodes.entry(version.unwrap_or("NONE")).or_default().push(symbol.name);
    }
    nodes.iter().map(|(version, names)| format!("{version} {{ global: {}; }};\n", names.join("; "))).collect()
}

fn open(library: &Path) -> Result<Library, OpenError> {
    open_files(Some(library.as_os_str()), None)
}

#[test]
fn every_function_is_taken_at_its_version() {
    let rows: Vec<(&Symbol, Option<&str>)> =
        VerbsTable::SYMBOLS.iter().map(|symbol| (symbol, Some(symbol.version))).collect();
    let Some(file) = build("whole", &rows) else { skip!("cc", "no C compiler") };
    let library = open(&file).unwrap();
    let found = &library.report().libraries[0];
    assert!(found.missing.is_empty() && found.unpinned.is_empty(), "{found}");
    assert_eq!(found.path.as_deref(), Some(file.canonicalize().unwrap().as_path()));
    let version = library.version().unwrap();
    assert_eq!((version.interface, version.at_least, version.release), ("IBVERBS_1.18", Some(65), None));
    assert!(library.verbs().ibv_query_port_speed.is_some());
}

#[test]
fn functions_of_another_version_are_found_by_name_and_that_is_said() {
    let rows: Vec<(&Symbol, Option<&str>)> = VerbsTable::SYMBOLS
        .iter()
        .map(|symbol| {
            (symbol, Some(if symbol.name == "ibv_open_device" { "OTHER_1.0" } else { symbol.version }))
        })
        .collect();
    let Some(file) = build("other-version", &rows) else { skip!("cc", "no C compiler") };
    let library = open(&file).unwrap();
    assert_eq!(library.report().libraries[0].unpinned, ["ibv_open_device"]);
    let said = library.report().to_string();
    assert!(said.contains("found by name alone, not by version: ibv_open_device"), "{said}");
}

#[test]
fn a_library_without_versions_works() {
    let rows: Vec<(&Symbol, Option<&str>)> =
        VerbsTable::SYMBOLS.iter().map(|symbol| (symbol, None)).collect();
    let Some(file) = build("unversioned", &rows) else { skip!("cc", "no C compiler") };
    let library = open(&file).unwrap();
    let found = &library.report().libraries[0];
    // glibc gives a function without a version for any version that is asked for; musl is asked for none.
    assert!(found.missing.is_empty(), "{found}");
    assert!(library.verbs().ibv_qp_to_qp_ex.is_some());
}

#[test]
fn a_library_that_lacks_newer_functions_works_without_them() {
    let rows: Vec<(&Symbol, Option<&str>)> = VerbsTable::SYMBOLS
        .iter()
        .filter(|symbol| symbol.required)
        .map(|symbol| (symbol, Some(symbol.version)))
        .collect();
    let Some(file) = build("old", &rows) else { skip!("cc", "no C compiler") };
    let library = open(&file).unwrap();
    let verbs = library.verbs();
    assert!(
        verbs.ibv_qp_to_qp_ex.is_none()
            && verbs._ibv_query_gid_table.is_none()
            && verbs.ibv_reg_mr_iova2.is_none()
    );
    let found = &library.report().libraries[0];
    assert_eq!(found.missing.len(), VerbsTable::SYMBOLS.len() - rows.len());
    assert_eq!(library.version().unwrap().interface, "IBVERBS_1.1");
    let said = library.report().to_string();
    assert!(
        said.contains("no ibv_qp_to_qp_ex@IBVERBS_1.6 (rdma-core 24): without extended posting (ibv_wr_*)"),
        "{said}"
    );
}

#[test]
fn one_missing_function_that_every_library_has_is_named() {
    let rows: Vec<(&Symbol, Option<&str>)> = VerbsTable::SYMBOLS
        .iter()
        .filter(|symbol| symbol.name != "ibv_modify_qp")
        .map(|symbol| (symbol, Some(symbol.version)))
        .collect();
    let Some(file) = build("broken", &rows) else { skip!("cc", "no C compiler") };
    let error = open(&file).unwrap_err();
    let OpenError::Incomplete { missing, .. } = &error else { panic!("{error:?}") };
    assert_eq!(missing.iter().map(|missing| missing.symbol.name).collect::<Vec<_>>(), ["ibv_modify_qp"]);
    assert!(error.to_string().contains("it lacks ibv_modify_qp;"), "{error}");
}

#[test]
fn connection_management_is_taken_from_the_file_that_is_named() {
    let verbs: Vec<(&Symbol, Option<&str>)> =
        VerbsTable::SYMBOLS.iter().map(|symbol| (symbol, Some(symbol.version))).collect();
    let cm: Vec<(&Symbol, Option<&str>)> =
        CmTable::SYMBOLS.iter().map(|symbol| (symbol, Some(symbol.version))).collect();
    let (Some(verbs), Some(cm)) = (build("with-cm", &verbs), build("cm", &cm)) else {
        skip!("cc", "no C compiler")
    };
    let library = open_files(Some(verbs.as_os_str()), Some(cm.as_os_str())).unwrap();
    assert!(library.cm().unwrap().rdma_resolve_addrinfo.is_some());
    let found = &library.report().libraries[1];
    assert_eq!(found.path.as_deref(), Some(cm.canonicalize().unwrap().as_path()));
    assert!(found.missing.is_empty() && found.unpinned.is_empty(), "{found}");
}
